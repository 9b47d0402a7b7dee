"""Test-time augmentation: probabilities averaged over transformed versions of an image."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from eo_keras.data.augment.patches import move_pixels
from eo_keras.errors import OptionError
from eo_keras.evaluation.options import OWN, EvaluationOptions

SYMMETRIES = 8

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""The scales of DeepLabv3+'s multi-scale evaluation (Chen et al. 2018, arXiv 1802.02611, section 4.1)."""


def wrap(model: keras.Model, options: EvaluationOptions) -> Any:
    """Returns a model, or a wrapper that averages its probabilities over versions of an image.

    Args:
        model: from images (batch, height, width, band) to probabilities (batch, classes), or of scales and flips from
            images of any size to (batch, height, width, classes).
        options: the versions.

    Raises:
        OptionError: if the images of symmetries are not square.
    """
    if options.tta != OWN:
        height, width = model.input_shape[1:3]
        if height != width:
            raise OptionError("tta", f"{options.tta} for images of {height} x {width} pixels", "square images")
        model = SymmetryMean(model)
    return model if options.scales == (1.0,) and not options.flip else ScaleMean(model, options.scales, options.flip)


class SymmetryMean:
    """A model whose output is the mean of its probabilities over all eight symmetries of an image.

    The mean of probabilities, and not of logits, is a distribution again, cannot be dominated by one very confident
    version, and is, in logarithmic score, at least as good as a version drawn at random (Jensen's inequality). It is
    the same for all eight symmetries of an image. The symmetries are those that training draws from
    (`eo_keras.data.augment.patches.move_pixels`).

    Args:
        model: the model, for square images.
    """

    def __init__(self, model: keras.Model):
        self._model = model

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns probabilities (batch, classes) for images (batch, size, size, band)."""

        def predict(symmetry: tf.Tensor) -> tf.Tensor:
            moved = move_pixels(images, tf.fill((tf.shape(images)[0],), symmetry), None)
            return self._model(moved, training=training)

        # A loop, so that the network is built into the graph once and holds one version's activations at a time.
        classes, dtype = self._model.output_shape[-1], self._model.outputs[0].dtype
        signature = tf.TensorSpec((images.shape[0], classes), dtype)
        found = tf.map_fn(predict, tf.range(SYMMETRIES), fn_output_signature=signature, parallel_iterations=1)
        return tf.reduce_mean(found, axis=0)


class ScaleMean:
    """A segmentation model whose output is the mean of its probabilities over sizes and mirrored versions of an image.

    Args:
        model: the model, for images of any size.
        scales: sizes as a share of the image's own.
        flip: whether each size is also predicted mirrored.
    """

    def __init__(self, model: keras.Model, scales: tuple[float, ...], flip: bool):
        self._model, self._scales, self._flip = model, scales, flip

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns probabilities (batch, height, width, classes) for images (batch, height, width, band)."""
        size = tf.shape(images)[1:3]
        total = 0.0
        for scale in self._scales:
            scaled = images if scale == 1.0 else rescaled(images, _scaled(size, scale))
            found = self._model(scaled, training=training)
            if self._flip:
                mirrored = self._model(tf.reverse(scaled, [2]), training=training)
                found = (found + tf.reverse(mirrored, [2])) / 2
            total += found if scale == 1.0 else tf.image.resize(found, size)
        return total / len(self._scales)


def _scaled(size: tf.Tensor, scale: float) -> tf.Tensor:
    return tf.cast(tf.round(tf.cast(size, tf.float32) * scale), tf.int32)


def rescaled(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resizes images of digital numbers; smaller ones are averaged.

    Args:
        images: (batch, height, width, band), integers; a pixel of no data is 0 in all bands.
        size: height and width.

    Returns:
        (batch, *size, band) of the same dtype. What lies nearest to a pixel of no data stays one, and no other becomes
        one.
    """
    known = tf.reduce_any(tf.not_equal(images, 0), axis=-1, keepdims=True)
    numbers = tf.image.resize(tf.cast(images, tf.float32), size, antialias=True)
    # Pixels without data are 0 and add nothing; divided by the weight of the others, the sums are means again.
    weight = tf.image.resize(tf.cast(known, tf.float32), size, antialias=True)
    numbers = tf.math.divide_no_nan(numbers, weight)
    known = tf.image.resize(tf.cast(known, tf.float32), size, method="nearest")
    highest = images.dtype.max
    return tf.cast(tf.clip_by_value(tf.round(numbers), 1, highest) * known, images.dtype)
