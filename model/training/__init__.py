"""Training: the loop, its losses, checkpoints, and the processes that share the work."""
