"""Weights of others in, ours out."""
