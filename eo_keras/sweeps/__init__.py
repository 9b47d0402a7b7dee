"""Sweeps: many runs over a grid of options, with their table."""
