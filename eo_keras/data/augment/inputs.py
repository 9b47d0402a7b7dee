"""Inputs in training: change of brightness by sensor, removal of whole modalities, and standardized numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from eo_keras.data.parse import no_data
from eo_keras.models.spec import Normalization
from eo_keras.records.data_card import DataCard
from eo_keras.records.inputs import InputBands
from eo_keras.sensors import catalogue as sensors

FACTOR, DECIBEL = "factor", "decibel"
Photometry = str | None
"""Change of brightness: numbers times a factor; backscatter in dB plus that factor in dB; None for none."""


def photometry_of(card: DataCard, inputs: Sequence[InputBands]) -> dict[str, Photometry]:
    """Returns the change of brightness of each input by its name.

    Optical numbers are proportional to radiance, up to their offset. Of backscatter only numbers in dB are changed: how
    others were stretched is not known. Heights are measured, and stay.
    """
    found: dict[str, Photometry] = {}
    for one in inputs:
        modality = card.modalities[one.modality]
        kind = sensors.named(modality.sensor).kind
        found[one.name] = FACTOR if kind == sensors.OPTICAL else None
        if kind == sensors.RADAR and modality.units == sensors.DECIBELS:
            found[one.name] = DECIBEL
    return found


def drop_modalities(
    images: Mapping[str, tf.Tensor],
    inputs: Sequence[InputBands],
    rate: float,
    draw: tf.Tensor,
    drawn: tuple[int, int],
) -> dict[str, tf.Tensor]:
    """Removes whole sensors of some examples, so that a network learns to do without each (modality dropout).

    Both dates and all views of a sensor are removed together. An example keeps at least one sensor: where all would be
    removed, the one that was nearest to be kept stays.

    Args:
        images: numbers (batch, height, width, band) by the inputs' names.
        inputs: the inputs.
        rate: probability that a sensor is removed from an example.
        draw: int64 (2,), what is drawn from.
        drawn: of how many examples of a batch (second) these begin at which (first).

    Returns:
        The images, those removed without data.
    """
    names = list(dict.fromkeys(one.sensor_name for one in inputs))
    first, total = drawn
    batch = next(iter(images.values())).shape[0]
    chance = tf.random.stateless_uniform((total, len(names)), tf.random.fold_in(draw, 7))[first : first + batch]
    most = tf.one_hot(tf.argmax(chance, axis=1), len(names), on_value=True, off_value=False, dtype=tf.bool)
    kept = (chance >= rate) | most
    found = {}
    for one in inputs:
        image = images[one.name]
        keep = kept[:, names.index(one.sensor_name)][:, tf.newaxis, tf.newaxis, tf.newaxis]
        found[one.name] = tf.where(keep, image, no_data(image.dtype))
    return found


def normalizations_of(card: DataCard, inputs: Sequence[InputBands]) -> dict[str, Normalization]:
    """Returns means and standard deviations of the bands of each input by its name."""
    return {
        one.name: Normalization.of_statistics(
            card.modalities[one.modality].statistics, one.bands, f"{card.dataset}, {one.modality}"
        )
        for one in inputs
    }


def standardized(image: tf.Tensor, normalization: Normalization) -> tf.Tensor:
    """Returns the standardized numbers of images (..., band), float32."""
    return (tf.cast(image, tf.float32) - normalization.mean) / normalization.std


def repeated(numbers: tf.Tensor, size: int) -> tf.Tensor:
    """Returns numbers (batch, height, width, band), repeated along both sides to a height and width of `size`."""
    batch, height, width, bands = numbers.shape
    for axis, side in ((1, height), (2, width)):
        numbers = tf.repeat(numbers, size // side, axis=axis)
    return tf.ensure_shape(numbers, (batch, size, size, bands))
