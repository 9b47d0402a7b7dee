"""Augmentation of image batches on their stored integers: symmetries, shifts, brightness, cutout, smaller size.

Symmetries and shifts are one gather of pixel indices before any cast: that is many times faster than choosing between
eight versions of every image. Every draw is stateless, so that a batch depends on its seed alone.
"""

from __future__ import annotations

import fractions
import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from eo_keras.data.augment.inputs import DECIBEL, FACTOR, Photometry
from eo_keras.data.augment.options import Augmentation
from eo_keras.data.parse import has_data, no_data
from eo_keras.records.data_card import IMAGE


def augment_batch(
    images: Any,
    seed: tf.Tensor,
    augmentation: Augmentation,
    numbers: tf.Tensor | None = None,
    drawn: tuple[int, int] | None = None,
    photometry: Mapping[str, Photometry] | None = None,
) -> Any:
    """Augments a batch of images.

    Args:
        images: numbers (batch, height, width, band) of one input, or of several by their names; height and width
            statically known. Those of another resolution are larger or smaller by an integer factor.
        seed: two integers; the same two give the same result.
        augmentation: the options; shift and cutout count pixels of the first input.
        numbers: (batch,) which of `images` are the batch; None for all.
        drawn: the batch is the part of a larger one that begins at the first of these numbers; the second one is the
            larger one's size. Its images change as they would within the larger one. None for a batch by itself.
        photometry: change of brightness of each input; None for one optical input.

    Returns:
        The changed images, of the same shapes and dtypes.

    Raises:
        OptionError: if the images' size does not fit the augmentation.
    """
    if not isinstance(images, dict):
        return augment_batch({IMAGE: images}, seed, augmentation, numbers, drawn, photometry)[IMAGE]
    first_image = next(iter(images.values()))
    sides = {name: fractions.Fraction(image.shape[1], first_image.shape[1]) for name, image in images.items()}
    augmentation.check_size(first_image.shape[1], first_image.shape[2])
    # Always three seeds, so that the draws of one change do not depend on whether another is on.
    symmetry_seed, shift_seed, brightness_seed = tf.unstack(tf.random.split(tf.cast(seed, tf.int64), 3))
    batch = tf.shape(first_image if numbers is None else numbers)[0]
    first, total = drawn or (0, batch)

    def draw(shape, seed, low, high, dtype):
        return tf.random.stateless_uniform((total, *shape), seed, low, high, dtype)[first : first + batch]

    symmetry = shifts = None
    if augmentation.dihedral:
        symmetry = draw((), symmetry_seed, 0, 8, tf.int32)
    if augmentation.max_shift:
        # A shift is a whole number of pixels of every input.
        step = math.lcm(*(side.denominator for side in sides.values()))
        bound = augmentation.max_shift // step
        shifts = draw((2,), shift_seed, -bound, bound + 1, tf.int32) * step
    factors = corners = None
    if augmentation.brightness:
        bound = augmentation.brightness
        factors = draw((), brightness_seed, 1 - bound, 1 + bound, tf.float32)
    if augmentation.cutout:
        # A seed beside the three, so that the other draws stay as they are without it.
        corners = draw((2,), tf.random.fold_in(tf.cast(seed, tf.int64), 3), 0.0, 1.0, tf.float32)
    found = {}
    for name, image in images.items():
        side = sides[name]
        if symmetry is not None or shifts is not None:
            moved = None if shifts is None else shifts * side.numerator // side.denominator
            image = move_pixels(image, symmetry, moved, numbers)
        elif numbers is not None:
            image = tf.gather(image, numbers)
        if factors is not None and (photometry is None or photometry[name] is not None):
            image = scale_brightness(image, factors, FACTOR if photometry is None else photometry[name])
        if corners is not None:
            image = cut_out(image, corners, max(1, int(augmentation.cutout * side)))
        found[name] = image
    return found


def cut_out(images: tf.Tensor, places: tf.Tensor, size: int) -> tf.Tensor:
    """Sets a random square of every image to "no data".

    Args:
        images: (batch, height, width, band).
        places: (batch, 2) numbers from [0, 1): where the square's center lies, down and right; at the border, a part of
            the square lies outside.
        size: side of the square in pixels.
    """
    height, width = images.shape[1:3]
    first = tf.cast(tf.floor(places * [height, width]), tf.int32) - size // 2
    rows, columns = tf.range(height)[tf.newaxis], tf.range(width)[tf.newaxis]
    inside_rows = (rows >= first[:, :1]) & (rows < first[:, :1] + size)
    inside_columns = (columns >= first[:, 1:]) & (columns < first[:, 1:] + size)
    kept = ~(inside_rows[:, :, tf.newaxis] & inside_columns[:, tf.newaxis])
    return tf.where(kept[..., tf.newaxis], images, no_data(images.dtype))


def move_pixels(
    images: tf.Tensor, symmetry: tf.Tensor | None, shifts: tf.Tensor | None, numbers: tf.Tensor | None = None
) -> tf.Tensor:
    """Applies a symmetry and then a reflect-padded shift to every image.

    Args:
        images: (batch, height, width, band).
        symmetry: (batch,) numbers 0..7, or None: bit 0 flips the columns, bit 1 the rows, bit 2 transposes after that.
        shifts: (batch, 2) pixels by which the window moves down and right, or None.
        numbers: (batch,) which of `images` to take; None for all. Taken out first, they would be copied twice.
    """
    height, width, bands = images.shape[1:]
    if numbers is None:
        numbers = tf.range(tf.shape(images)[0])
    rows, columns = tf.range(height)[tf.newaxis], tf.range(width)[tf.newaxis]
    if shifts is not None:
        rows = _reflect(rows + shifts[:, :1], height)
        columns = _reflect(columns + shifts[:, 1:], width)
    row_step, column_step = width, 1
    if symmetry is not None:
        bits = tf.bitwise.bitwise_and(symmetry[:, tf.newaxis], [[1, 2, 4]]) > 0
        flip_columns, flip_rows, transpose = bits[:, :1], bits[:, 1:2], bits[:, 2:]
        # In a transposed image, going down a row means going right by a column in the source.
        rows = tf.where(tf.where(transpose, flip_columns, flip_rows), height - 1 - rows, rows)
        columns = tf.where(tf.where(transpose, flip_rows, flip_columns), width - 1 - columns, columns)
        row_step, column_step = tf.where(transpose, 1, width), tf.where(transpose, width, 1)
    # A large data set kept in memory has more pixels than 32 bits count; twice as wide numbers take twice as long.
    wide = tf.int64 if (images.shape[0] or 0) * height * width > tf.int32.max else tf.int32
    first = tf.cast(numbers, wide)[:, tf.newaxis] * (height * width) + tf.cast(rows * row_step, wide)
    indices = first[:, :, tf.newaxis] + tf.cast(columns * column_step, wide)[:, tf.newaxis, :]
    moved = tf.gather(tf.reshape(images, (-1, bands)), indices)
    return tf.ensure_shape(moved, (numbers.shape[0], height, width, bands))


def scale_brightness(images: tf.Tensor, factors: tf.Tensor, photometry: Photometry = FACTOR) -> tf.Tensor:
    """Multiplies every image by its factor, and keeps "no data" and valid pixels apart; integers are rounded.

    Args:
        images: (batch, height, width, band).
        factors: float32 (batch,).
        photometry: of backscatter in dB, the factor in dB is added.
    """
    factors = factors[:, tf.newaxis, tf.newaxis, tf.newaxis]
    if images.dtype.is_floating:
        # NaN, which is "no data", stays.
        return images + 10 * tf.math.log(factors) / math.log(10) if photometry == DECIBEL else images * factors
    changed = tf.round(tf.cast(images, tf.float32) * factors)
    changed = tf.cast(tf.clip_by_value(changed, 1.0, float(images.dtype.max)), images.dtype)

    # 0 stands for "no data": valid pixels must not become 0, and pixels without data must not become valid.
    def keep_nodata():
        return changed * tf.cast(tf.reduce_any(images != 0, axis=-1, keepdims=True), images.dtype)

    # Looking at all bands takes as long as all the rest, and most batches show by their first band that they are whole.
    return tf.cond(tf.reduce_any(images[..., 0] == 0), keep_nodata, lambda: changed)


def shrink(images: tf.Tensor, size: int) -> tf.Tensor:
    """Averages a batch of images down to fewer pixels; "no data" takes no part in the averages.

    Args:
        images: numbers (batch, height, width, band).
        size: height and width of the result in pixels, at most that of the images.

    Returns:
        (batch, size, size, band) of the same dtype.
    """
    valid = has_data(images)[..., tf.newaxis]
    # Pixels without data add nothing to the sums; dividing by the valid share makes them averages again.
    values = tf.where(valid, tf.cast(images, tf.float32), 0.0)
    averages = tf.image.resize(values, (size, size), method="area")
    shares = tf.image.resize(tf.cast(valid, tf.float32), (size, size), method="area")
    averages = tf.math.divide_no_nan(averages, shares)
    if not images.dtype.is_floating:
        averages = tf.clip_by_value(tf.round(averages), 1.0, float(images.dtype.max))
    return tf.where(shares > 0, tf.cast(averages, images.dtype), no_data(images.dtype))


def _reflect(index: tf.Tensor, size: int) -> tf.Tensor:
    """Folds indices from beyond the border back inside, without repeating the edge."""
    return size - 1 - tf.abs(size - 1 - tf.abs(index))
