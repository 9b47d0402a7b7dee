"""Images of one sensor as what is predicted from those of the others, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from eo_keras.data.augment.inputs import normalizations_of, repeated, standardized
from eo_keras.data.augment.options import Translation
from eo_keras.data.parse import has_data, unwrapped
from eo_keras.errors import OptionError
from eo_keras.records.data_card import DataCard
from eo_keras.records.inputs import InputBands, sides


class TranslatedImages:
    """Images of the other sensors, and of the one that is predicted from them.

    Args:
        translation: the options.
        card: the records' card, whose statistics standardize the numbers.
        inputs: the inputs of both sides.

    Raises:
        OptionError: if the sensor is none of the inputs', or finer than the others.
    """

    def __init__(self, translation: Translation, card: DataCard, inputs: Sequence[InputBands]):
        taken, self._predicted = sides(inputs, translation.sensor)
        read = [one.name for one in inputs if one not in self._predicted]
        self._taken = tuple(zip(read, taken, strict=True))
        size, finest = (
            max(card.modalities[one.modality].patch_size for one in part) for part in (taken, self._predicted)
        )
        if finest > size:
            found = f"'{translation.sensor}' of {finest} pixels, from images of {size}"
            raise OptionError("translated_sensor", found, "a sensor that is no finer than the others")
        self._statistics = normalizations_of(card, (*taken, *self._predicted))

    def __call__(self, images: Mapping[str, Any], draw: tf.Tensor, drawn: tuple[int, int]) -> tuple[Any, tf.Tensor]:
        """Divides a batch.

        Args:
            images: numbers (batch, height, width, band) by the names of both sides' inputs.
            draw: not used: nothing is drawn.
            drawn: likewise.

        Returns:
            The network's images; and float32 (batch, height, width, bands), in the size of the finest of them:
            standardized numbers of the predicted images, NaN where these have no data, then those of the network's
            own, 0 where they have none, which tell a discriminator what the former were predicted from.
        """
        taken = {one.name: images[read] for read, one in self._taken}
        size = max(image.shape[1] for image in taken.values())
        label = [self._standardized(images[one.name], one, size, float("nan")) for one in self._predicted]
        label += [self._standardized(taken[one.name], one, size, 0.0) for _, one in self._taken]
        return unwrapped(taken), tf.concat(label, axis=-1)

    def _standardized(self, image: Any, one: InputBands, size: int, no_data: float) -> tf.Tensor:
        """Returns standardized numbers, repeated to a size."""
        known = has_data(image)[..., tf.newaxis]
        return repeated(tf.where(known, standardized(image, self._statistics[one.name]), no_data), size)
