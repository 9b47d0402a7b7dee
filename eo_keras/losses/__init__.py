"""Losses of classification and segmentation, in Keras alone."""

SEGMENTATION_LOSSES = ("cross_entropy", "focal", "dice", "cross_entropy+dice")
"""Names of the losses of `eo_keras.losses.segmentation`."""
