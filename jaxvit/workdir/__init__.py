"""The files of a run on disk: checkpoints with their manifests, files, trackers, and what a new start finds there."""
