"""A training run: two folders in, a run folder out."""
