"""Augmentation of patches and of crops."""
