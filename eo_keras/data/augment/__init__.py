"""Augmentation of patches and of crops of tiles."""
