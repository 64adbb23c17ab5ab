"""Training: the configuration, the one loop, checkpoints, the run folder, evaluation."""
