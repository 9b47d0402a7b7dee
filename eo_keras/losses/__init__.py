"""Losses of classification and segmentation, in Keras alone."""
