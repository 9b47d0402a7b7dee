"""Splits: random, listed, spatial and by site."""
