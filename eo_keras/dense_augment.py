"""Random changes to tiles and their masks alike, drawn from seed and step alone.

A crop of a random scale is read from the tile as a window and brought to the crop's size: images by interpolation
(smaller ones are averaged), masks by the nearest pixel. Beyond the tile's edge there is no data and no class.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from eo_keras.errors import OptionError
from eo_keras.legends import IGNORE

_SMALLEST_CROP = 32


@dataclasses.dataclass(frozen=True)
class DenseAugmentation:
    """What is done to training tiles.

    Attributes:
        crop: height and width of what is trained on, in pixels.
        scale_min: smallest scale; 0.5 shows twice as much ground in a crop (Chen et al. 2018, arXiv 1802.02611,
            section 4: 0.5 to 2).
        scale_max: largest scale.
        symmetries: whether crops are turned and mirrored (the symmetries of the square).
        jitter: largest change of all bands' brightness together, and of every band by itself, as a share of 1.
    """

    crop: int = 256
    scale_min: float = 0.5
    scale_max: float = 2.0
    symmetries: bool = True
    jitter: float = 0.1

    def __post_init__(self):
        """Refuses values that make no sense."""
        if self.crop < _SMALLEST_CROP:
            raise OptionError("crop", f"{self.crop} pixels", f"{_SMALLEST_CROP} or more")
        if not 0.1 <= self.scale_min <= self.scale_max <= 10:
            raise OptionError(
                "scale_min and scale_max", f"{self.scale_min:g} to {self.scale_max:g}", "0.1 to 10, rising"
            )
        if not (math.isfinite(self.jitter) and 0 <= self.jitter < 1):
            raise OptionError("jitter", f"{self.jitter}", "a number in [0, 1)")

    def check_size(self, height: int, width: int) -> None:
        """Refuses tiles that are smaller than the smallest window; every crop would be mostly empty.

        Raises:
            OptionError: if they are.
        """
        if min(height, width) < self.crop / self.scale_max:
            raise OptionError(
                "crop",
                f"{self.crop} pixels from tiles of {height} x {width}",
                f"at most {int(min(height, width) * self.scale_max)}",
                "choose a smaller crop, or build records of larger tiles",
            )


def augment_maps(
    images: tf.Tensor, labels: tf.Tensor, draw: tf.Tensor, options: DenseAugmentation, drawn: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Changes a batch of tiles.

    Args:
        images: digital numbers (batch, height, width, band), integers; a pixel of no data is 0 in all bands.
        labels: uint8 (batch, height, width).
        draw: int64 (2,), what everything is drawn from.
        options: what is done.
        drawn: of how many examples of a batch (second) these begin at which (first): each has draws of its own.

    Returns:
        Images (batch, crop, crop, band) of the same dtype, and labels (batch, crop, crop), `IGNORE` where there is no
        tile.
    """
    first, total = drawn
    seeds = tf.random.experimental.stateless_split(draw, total)[first : first + images.shape[0]]
    signature = (
        tf.TensorSpec((options.crop, options.crop, images.shape[-1]), images.dtype),
        tf.TensorSpec((options.crop, options.crop), tf.uint8),
    )
    return tf.map_fn(lambda one: augment_map(*one, options), (images, labels, seeds), fn_output_signature=signature)


def augment_map(
    image: tf.Tensor, label: tf.Tensor, seed: tf.Tensor, options: DenseAugmentation
) -> tuple[tf.Tensor, tf.Tensor]:
    """Changes one tile: image (height, width, band) and label (height, width); see `augment_maps`."""
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
    # Uniform in the logarithm: as much larger as smaller.
    low, high = math.log(options.scale_min), math.log(options.scale_max)
    scale = tf.exp(tf.random.stateless_uniform([], seeds[0], low, high))
    window = tf.cast(tf.round(options.crop / scale), tf.int32)
    bands = image.shape[-1]
    image, label = _window(image, label, window, seeds[1])
    image, label = _resized(image, label, options.crop)
    image = tf.ensure_shape(image, (options.crop, options.crop, bands))
    if options.symmetries:
        image, label = _turned(image, label, seeds[2])
    if options.jitter:
        image = _jittered(tf.ensure_shape(image, (None, None, bands)), options.jitter, seeds[3])
    return image, label


def _window(image: tf.Tensor, label: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts a square of so many pixels at random, filled up around the tile where it is larger."""
    edges = tf.shape(label)
    missing = tf.maximum(size - edges, 0)
    before = tf.cast(tf.random.stateless_uniform([2], seed) * tf.cast(missing + 1, tf.float32), tf.int32)
    before = tf.minimum(before, missing)
    padding = tf.stack([before, missing - before], axis=1)
    image = tf.pad(image, tf.concat([padding, [[0, 0]]], axis=0))
    label = tf.pad(label, padding, constant_values=tf.constant(IGNORE, label.dtype))
    room = tf.shape(label) - size
    corner = tf.cast(tf.random.stateless_uniform([2], seed + 1) * tf.cast(room + 1, tf.float32), tf.int32)
    top, left = tf.unstack(tf.minimum(corner, room))
    return image[top : top + size, left : left + size], label[top : top + size, left : left + size]


def _resized(image: tf.Tensor, label: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    known = tf.reduce_any(tf.not_equal(image, 0), axis=-1, keepdims=True)
    numbers = tf.image.resize(tf.cast(image, tf.float32), (size, size), antialias=True)
    # What lies nearest to no data is no data, and nothing else becomes so.
    known = tf.image.resize(tf.cast(known, tf.uint8), (size, size), method="nearest")
    numbers = tf.clip_by_value(tf.round(numbers), 1, image.dtype.max)
    image = tf.where(known > 0, tf.cast(numbers, image.dtype), tf.zeros([], image.dtype))
    return image, tf.image.resize(label[..., tf.newaxis], (size, size), method="nearest")[..., 0]


def _turned(image: tf.Tensor, label: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    turn, flip = tf.unstack(tf.random.stateless_uniform([2], seed, 0, 4, tf.int32))
    label = label[..., tf.newaxis]
    image, label = tf.image.rot90(image, turn), tf.image.rot90(label, turn)
    mirrored = tf.reverse(image, [1]), tf.reverse(label, [1])
    return tf.where(flip < 2, image, mirrored[0]), tf.where(flip < 2, label, mirrored[1])[..., 0]


def _jittered(image: tf.Tensor, share: float, seed: tf.Tensor) -> tf.Tensor:
    """Brightens or darkens all bands together, and every band by itself; no data stays no data."""
    both = tf.random.stateless_uniform([1 + image.shape[-1]], seed, 1 - share, 1 + share)
    numbers = tf.cast(image, tf.float32) * both[0] * both[1:]
    numbers = tf.cast(tf.clip_by_value(tf.round(numbers), 1, image.dtype.max), image.dtype)
    return tf.where(tf.reduce_any(tf.not_equal(image, 0), axis=-1, keepdims=True), numbers, tf.zeros([], image.dtype))
