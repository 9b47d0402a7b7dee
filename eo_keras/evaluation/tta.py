"""Answers averaged over the eight symmetries of the square: an image taken from above has no preferred direction."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from eo_keras.data.augment.patches import move_pixels
from eo_keras.errors import OptionError

NONE, D4 = "none", "d4"
KINDS = (NONE, D4)
SYMMETRIES = 8


def answering(model: keras.Model, kind: str) -> Any:
    """Returns what is to be asked in place of a model: itself, or its average over the symmetries.

    Args:
        model: from images (batch, height, width, band) to probabilities (batch, classes).
        kind: one of `KINDS`.

    Raises:
        OptionError: if the kind is unknown, or the images are not square.
    """
    if kind not in KINDS:
        raise OptionError("tta", f"'{kind}'", f"one of {', '.join(KINDS)}")
    if kind == NONE:
        return model
    height, width = model.input_shape[1:3]
    if height != width:
        raise OptionError("tta", f"{kind} for images of {height} x {width} pixels", "square images")
    return Averaged(model)


class Averaged:
    """A model whose answer is the mean of its probabilities over all eight symmetries of an image.

    The mean of probabilities, and not of logits, is a distribution again, cannot be carried away by one very sure
    version, and is, in logarithmic score, at least as good as a version drawn by lot (Jensen's inequality). It is the
    same for all eight symmetries of an image. The symmetries are those that training draws from
    (`eo_keras.data.augment.patches.move_pixels`).

    Args:
        model: the model, for square images.
    """

    def __init__(self, model: keras.Model):
        self._model = model

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns probabilities (batch, classes) for images (batch, size, size, band)."""

        def ask(symmetry: tf.Tensor) -> tf.Tensor:
            moved = move_pixels(images, tf.fill((tf.shape(images)[0],), symmetry), None)
            return self._model(moved, training=training)

        # A loop, so that the network is built into the graph once and holds one version's activations at a time.
        classes, dtype = self._model.output_shape[-1], self._model.outputs[0].dtype
        signature = tf.TensorSpec((images.shape[0], classes), dtype)
        answers = tf.map_fn(ask, tf.range(SYMMETRIES), fn_output_signature=signature, parallel_iterations=1)
        return tf.reduce_mean(answers, axis=0)
