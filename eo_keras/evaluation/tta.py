"""Test-time augmentation: probabilities averaged over transformed versions of an image."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from eo_keras.data.parse import has_data, no_data
from eo_keras.errors import OptionError
from eo_keras.evaluation.options import OWN, EvaluationOptions
from eo_keras.tasks.symmetry_mean import SymmetryMean


def wrap(model: keras.Model, options: EvaluationOptions) -> Any:
    """Returns a model, or a wrapper that averages its probabilities over versions of an image.

    Args:
        model: from images (batch, height, width, band), of several inputs by their names, to probabilities (batch,
            classes), or of scales and flips from images of any size to (batch, height, width, classes).
        options: the versions.

    Raises:
        OptionError: if the images of symmetries are not square.
    """
    if options.tta != OWN:
        height, width = model.inputs[0].shape[1:3]
        if height != width:
            raise OptionError("tta", f"{options.tta} for images of {height} x {width} pixels", "square images")
        model = SymmetryMean(model, model.output_shape[-1], dtype=model.outputs[0].dtype)
    return model if options.scales == (1.0,) and not options.flip else ScaleMean(model, options.scales, options.flip)


class ScaleMean:
    """A segmentation model whose output is the mean of its probabilities over sizes and mirrored versions of an image.

    Args:
        model: the model, for images of any size.
        scales: sizes as a share of the image's own.
        flip: whether each size is also predicted mirrored.
    """

    def __init__(self, model: keras.Model, scales: tuple[float, ...], flip: bool):
        self._model, self._scales, self._flip = model, scales, flip

    def __call__(self, images: Any, training: bool = False) -> tf.Tensor:
        """Returns probabilities (batch, height, width, classes) for images (batch, height, width, band).

        Of several inputs, the largest one has the size of the output; the others are coarser by whole factors.
        """
        every = tf.nest.flatten(images)
        edge = max(one.shape[1] for one in every)
        steps = tf.nest.map_structure(lambda one: edge // one.shape[1], images)
        coarsest = max(tf.nest.flatten(steps))
        size = tf.constant(next(tuple(one.shape[1:3]) for one in every if one.shape[1] == edge))
        total = 0.0
        for scale in self._scales:
            scaled = images
            if scale != 1.0:
                # Whole pixels of every input.
                wanted = _scaled(size, scale / coarsest) * coarsest
                sizes = tf.nest.map_structure(lambda step, whole=wanted: whole // step, steps)
                scaled = tf.nest.map_structure(rescaled, images, sizes)
            found = self._model(scaled, training=training)
            if self._flip:
                flipped = tf.nest.map_structure(lambda one: tf.reverse(one, [2]), scaled)
                mirrored = self._model(flipped, training=training)
                found = (found + tf.reverse(mirrored, [2])) / 2
            total += found if scale == 1.0 else tf.image.resize(found, size)
        return total / len(self._scales)


def _scaled(size: tf.Tensor, scale: float) -> tf.Tensor:
    return tf.cast(tf.round(tf.cast(size, tf.float32) * scale), tf.int32)


def rescaled(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resizes images; smaller ones are averaged.

    Args:
        images: (batch, height, width, band), no data as in `eo_keras.records.data_card.Modality`.
        size: height and width.

    Returns:
        (batch, *size, band) of the same dtype. What lies nearest to a pixel of no data stays one, and no other becomes
        one.
    """
    known = has_data(images)[..., tf.newaxis]
    numbers = tf.image.resize(tf.where(known, tf.cast(images, tf.float32), 0.0), size, antialias=True)
    # Pixels without data add nothing; divided by the weight of the others, the sums are means again.
    weight = tf.image.resize(tf.cast(known, tf.float32), size, antialias=True)
    numbers = tf.math.divide_no_nan(numbers, weight)
    known = tf.image.resize(tf.cast(known, tf.float32), size, method="nearest") > 0
    if not images.dtype.is_floating:
        numbers = tf.clip_by_value(tf.round(numbers), 1, images.dtype.max)
    return tf.where(known, tf.cast(numbers, images.dtype), no_data(images.dtype))
