"""Resuming: checkpoints that are there, and stopping in time."""
