"""Mean of a model's probabilities over the eight symmetries of a square image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from eo_keras.data.augment.patches import move_pixels

SYMMETRIES = 8

_INVERSE = (0, 1, 2, 3, 4, 6, 5, 7)
"""The symmetry that undoes each: transposing exchanges the flips of rows and columns."""


class SymmetryMean:
    """A model whose output is the mean of its probabilities over all eight symmetries of an image.

    The mean of probabilities, and not of logits, is a distribution again, cannot be dominated by one very confident
    version, and is, in logarithmic score, at least as good as a version drawn at random (Jensen's inequality). It is
    the same for all eight symmetries of an image. The symmetries are those that training draws from
    (`eo_keras.data.augment.patches.move_pixels`).

    Args:
        model: the model, for square images; called as a Keras model is.
        classes: the number of its classes.
        per_pixel: whether its output is (batch, height, width, classes) instead of (batch, classes).
        dtype: type of its output.
    """

    def __init__(
        self, model: Callable[..., tf.Tensor], classes: int, *, per_pixel: bool = False, dtype: str = "float32"
    ):
        self._model, self._classes, self._per_pixel, self._dtype = model, classes, per_pixel, dtype

    def __call__(self, images: Any, training: bool = False) -> tf.Tensor:
        """Returns probabilities for images (batch, size, size, band), of the model's shape and type.

        Of several images by name, the largest has the size of the output.
        """
        every = tf.nest.flatten(images)
        finest = max(every, key=lambda one: one.shape[1] or 0)
        batch, inverse = tf.shape(finest)[0], tf.constant(_INVERSE)

        def add(symmetry: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            number = tf.fill((batch,), symmetry)
            moved = tf.nest.map_structure(lambda one: move_pixels(one, number, None), images)
            found = self._model(moved, training=training)
            if self._per_pixel:
                found = move_pixels(found, tf.fill((batch,), tf.gather(inverse, symmetry)), None)
            return symmetry + 1, total + found

        size = finest.shape[1:3] if self._per_pixel else ()
        start = tf.zeros((batch, *size, self._classes), self._dtype)
        # A loop, so that the network is built into the graph once and holds one version's activations at a time.
        _, total = tf.while_loop(
            lambda symmetry, total: symmetry < SYMMETRIES,
            add,
            (tf.constant(0), start),
            shape_invariants=(tf.TensorShape(()), tf.TensorShape((finest.shape[0], *size, self._classes))),
            parallel_iterations=1,
        )
        return total / SYMMETRIES
