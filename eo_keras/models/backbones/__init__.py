"""Backbones: classification networks, which segmentation networks are built on."""
