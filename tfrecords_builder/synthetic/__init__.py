"""Synthetic data for the demo and the tests, cut from a generated land cover."""
