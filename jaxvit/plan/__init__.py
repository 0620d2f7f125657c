"""Plans: the training step of a config compiled for hardware that is not present, and its estimated cost."""
