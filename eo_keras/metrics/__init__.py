"""Metrics: scores with intervals, in NumPy alone."""
