"""Scores with intervals, in NumPy alone."""
