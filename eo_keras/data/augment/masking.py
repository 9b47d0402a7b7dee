"""Masking of images for pre-training without labels: random blocks, and whole sensors, become no data.

Blocks as in He et al. 2022 (CVPR, arXiv 2111.06377), drawn for every modality by itself, so that what is masked in one
can be told from another (Bachmann et al. 2022, ECCV, arXiv 2204.01678). Drawn from seed and step alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from eo_keras.data.augment.inputs import normalizations_of, repeated, standardized
from eo_keras.data.augment.options import Masking
from eo_keras.data.parse import by_name, has_data, no_data, unwrapped
from eo_keras.records.data_card import DataCard
from eo_keras.records.inputs import InputBands

_BLOCK_DRAWS, _SENSOR_DRAWS = 11, 12
"""Numbers of the draws of masking among those of a step."""


class MaskedImages:
    """Masked images and what is to be predicted of them.

    Args:
        masking: the options.
        card: the records' card, whose statistics standardize the numbers.
        inputs: the inputs.
    """

    def __init__(self, masking: Masking, card: DataCard, inputs: Sequence[InputBands]):
        self._masking, self._inputs = masking, inputs
        # Views of one modality are masked alike, or one would show what is masked in the other.
        self._modalities = list(dict.fromkeys(one.modality for one in inputs))
        self._sensors = list(dict.fromkeys(one.sensor_name for one in inputs))
        self._statistics = normalizations_of(card, inputs)

    def __call__(self, images: Any, draw: tf.Tensor, drawn: tuple[int, int]) -> tuple[Any, tf.Tensor]:
        """Masks a batch.

        Args:
            images: numbers (batch, height, width, band) of one input, or of several by their names.
            draw: int64 (2,), what everything is drawn from.
            drawn: of how many examples of a batch (second) these begin at which (first).

        Returns:
            The images, no data where they are masked; and the targets, float32 (batch, height, width, bands of all
            inputs) in the size of the finest input: standardized numbers where a pixel with data was masked, else NaN.
        """
        images = by_name(images)
        size = max(image.shape[1] for image in images.values())
        batch = next(iter(images.values())).shape[0]
        blocks, whole = self._draw(batch, -(-size // self._masking.size), draw, drawn)
        masked, targets = {}, []
        for one in self._inputs:
            image = images[one.name]
            # The block that the center of a pixel lies in.
            places = (2 * np.arange(image.shape[1]) + 1) * size // (2 * image.shape[1]) // self._masking.size
            hidden = tf.gather(blocks[:, self._modalities.index(one.modality)], places, axis=1)
            hidden = tf.gather(hidden, places, axis=2)
            hidden |= whole[:, self._sensors.index(one.sensor_name), tf.newaxis, tf.newaxis]
            masked[one.name] = tf.where(hidden[..., tf.newaxis], no_data(image.dtype), image)
            known = (hidden & has_data(image))[..., tf.newaxis]
            numbers = standardized(image, self._statistics[one.name])
            targets.append(repeated(tf.where(known, numbers, float("nan")), size))
        return unwrapped(masked), tf.concat(targets, axis=-1)

    def _draw(self, batch: int, blocks: int, draw: tf.Tensor, drawn: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the masked blocks (batch, modality, blocks, blocks) and sensors (batch, sensor), bool."""
        first, total = drawn

        def uniform(shape, number):
            seed = tf.random.fold_in(tf.cast(draw, tf.int64), number)
            return tf.random.stateless_uniform((total, *shape), seed)[first : first + batch]

        # Of every example the same number of blocks.
        chance = uniform((len(self._modalities), blocks**2), _BLOCK_DRAWS)
        ranks = tf.argsort(tf.argsort(chance, stable=True), stable=True)
        hidden = ranks < max(1, round(self._masking.ratio * blocks**2))
        hidden = tf.reshape(hidden, (batch, len(self._modalities), blocks, blocks))
        count = len(self._sensors)
        if count == 1:
            return hidden, tf.zeros((batch, 1), tf.bool)
        # One number says whether a sensor is masked, and which one.
        chance = uniform((1,), _SENSOR_DRAWS)
        which = tf.cast(tf.floor(chance / max(self._masking.sensor, 1e-6) * count), tf.int32)
        return hidden, (chance < self._masking.sensor) & (which == tf.range(count))
