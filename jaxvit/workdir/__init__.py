"""What lies on disk of a run: checkpoints with their manifests, files, trackers, and what a new start finds there."""
