"""A model of maps asked about the tiles of a split: its answers are scored one by one and not kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from eo_keras.errors import OptionError

_Progress = Callable[[str, int, int], None] | None

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""The scales of DeepLabv3+'s multi-scale evaluation (Chen et al. 2018, arXiv 1802.02611, section 4.1)."""

_SMALLEST, _LARGEST = 0.25, 4.0


@dataclasses.dataclass(frozen=True)
class DenseTTA:
    """Versions of an image whose answers are averaged.

    Attributes:
        scales: sizes as a share of the image's own.
        flip: whether each is also asked about mirrored.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self):
        """Refuses scales that make no sense."""
        if not self.scales or len(set(self.scales)) != len(self.scales):
            raise OptionError("scales", f"{','.join(map(str, self.scales)) or 'none'}", "numbers, each once")
        if bad := [scale for scale in self.scales if not _SMALLEST <= scale <= _LARGEST]:
            raise OptionError("scales", f"{bad[0]:g}", f"{_SMALLEST:g} to {_LARGEST:g}")

    @property
    def name(self) -> str:
        """`none`, or what tells this average apart, such as `s0.5-1.0-1.5-flip`."""
        scales = "" if self.scales == (1.0,) else "s" + "-".join(f"{scale:g}" for scale in self.scales)
        return "-".join(filter(None, (scales, "flip" if self.flip else ""))) or "none"

    def answering(self, model: keras.Model) -> Callable[..., tf.Tensor]:
        """Returns what is to be asked in place of a model: itself, or its average over the versions."""
        return model if self == DenseTTA() else _Averaged(model, self)


class _Averaged:
    """A model whose answer is the mean of its probabilities over versions of the image."""

    def __init__(self, model: keras.Model, tta: DenseTTA):
        self._model, self._tta = model, tta

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        size = tf.shape(images)[1:3]
        total = 0.0
        for scale in self._tta.scales:
            scaled = images if scale == 1.0 else rescaled(images, _scaled(size, scale))
            answers = self._model(scaled, training=training)
            if self._tta.flip:
                mirrored = self._model(tf.reverse(scaled, [2]), training=training)
                answers = (answers + tf.reverse(mirrored, [2])) / 2
            total += answers if scale == 1.0 else tf.image.resize(answers, size)
        return total / len(self._tta.scales)


def _scaled(size: tf.Tensor, scale: float) -> tf.Tensor:
    return tf.cast(tf.round(tf.cast(size, tf.float32) * scale), tf.int32)


def rescaled(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Brings images of digital numbers to another size; smaller ones are averaged.

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
