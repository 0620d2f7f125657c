"""Plans: the training step of a config compiled for hardware that is not there, and what follows from it."""
