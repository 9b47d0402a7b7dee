"""Backbones: networks that classify, and that segmentation networks are built on."""
