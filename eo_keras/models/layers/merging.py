"""Layers that merge the features of several modalities or dates, of which some may be missing."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="eo_keras")
class MeanOfPresent(keras.layers.Layer):
    """Mean of tensors over the modalities that are present in each example; 0 where none is.

    Call arguments: a list of tensors of one shape `(batch, height, width, channels)`, and the list of their presences
    `(batch, 1, 1, 1)`, 1 or 0.
    Output shape: that of each tensor.
    """

    def call(self, inputs, presences):
        """Returns the mean."""
        total = sum(presence * x for x, presence in zip(inputs, presences, strict=True))
        return total / ops.maximum(sum(presences), 1)

    def compute_output_shape(self, inputs_shape, presences_shape):
        """Returns the shape of one tensor."""
        return inputs_shape[0]

    def get_config(self):
        """Returns the arguments; Keras reads a dtype policy back only where a layer has this method."""
        return super().get_config()


@keras.saving.register_keras_serializable(package="eo_keras")
class OwnOrJoined(keras.layers.Layer):
    """Scores of one modality's network; of an example in which it is missing the joined ones, without a gradient.

    A loss of the output then has as many pixels as that of the joined scores, and teaches the network by the examples
    that have the modality alone.

    Call arguments: both scores, of one shape `(batch, height, width, channels)`, and the presence of the modality
    `(batch, 1, 1, 1)`, 1 or 0.
    Output shape: that of the scores.
    """

    def call(self, inputs, joined, present):
        """Returns the scores."""
        return ops.where(present > 0, inputs, ops.stop_gradient(joined))

    def compute_output_shape(self, inputs_shape, joined_shape, present_shape):
        """Returns the shape of the scores."""
        return inputs_shape

    def get_config(self):
        """Returns the arguments; Keras reads a dtype policy back only where a layer has this method."""
        return super().get_config()


@keras.saving.register_keras_serializable(package="eo_keras")
class ChangeOfDates(keras.layers.Layer):
    """Features of the later date, and their difference to those of the earlier one; 0 where the latter is missing.

    Call arguments: the features of both dates along the batch, the later ones first, `(2 * batch, height, width,
    channels)`; and the presence of the earlier date `(batch, 1, 1, 1)`.
    Output shape: two of `(batch, height, width, channels)`.
    """

    def call(self, inputs, before_present):
        """Returns the features of the later date, and the difference."""
        count = ops.shape(before_present)[0]
        after, before = inputs[:count], inputs[count:]
        return after, (after - before) * before_present

    def compute_output_shape(self, inputs_shape, before_present_shape):
        """Returns the shapes of both."""
        shape = (before_present_shape[0], *inputs_shape[1:])
        return shape, shape

    def get_config(self):
        """Returns the arguments; Keras reads a dtype policy back only where a layer has this method."""
        return super().get_config()


@keras.saving.register_keras_serializable(package="eo_keras")
class Gate(keras.layers.Layer):
    """Features times a gate per channel and one per pixel, which are open where nothing else is present.

    Call arguments: features `(batch, height, width, channels)`, gates `(batch, 1, 1, channels)` and `(batch, height,
    width, 1)` from 0 to 1, and the presence of what the gates were made of `(batch, 1, 1, 1)`.
    Output shape: that of the features.
    """

    def call(self, inputs, channels, pixels, present):
        """Returns the weighted features."""
        return inputs * (1 - present + present * channels * pixels)

    def compute_output_shape(self, inputs_shape, *gates_shapes: Any, **named_shapes: Any):
        """Returns the shape of the features."""
        return inputs_shape

    def get_config(self):
        """Returns the arguments; Keras reads a dtype policy back only where a layer has this method."""
        return super().get_config()
