"""Augmentation of tiles with their masks, drawn from seed and step alone.

A crop of a random scale is read from the tile as a window and brought to the crop's size: images by interpolation
(smaller ones are averaged), masks by the nearest pixel. Beyond the tile's edge there is no data and no class. Nothing
but the window is looked at, and its numbers are rounded once. Of several inputs all show the same window, in the same
symmetry; brightness changes by the kind of sensor.
"""

from __future__ import annotations

import fractions
import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from eo_keras.data.augment.inputs import DECIBEL, FACTOR, Photometry
from eo_keras.data.augment.options import CropAugmentation
from eo_keras.data.augment.patches import move_pixels
from eo_keras.data.parse import has_data, no_data
from eo_keras.errors import OptionError
from eo_keras.legends.catalogue import IGNORE
from eo_keras.records.data_card import IMAGE


def augment_tiles(
    images: Any,
    labels: tf.Tensor,
    draw: tf.Tensor,
    options: CropAugmentation,
    drawn: tuple[int, int],
    photometry: Mapping[str, Photometry] | None = None,
) -> tuple[Any, tf.Tensor]:
    """Augments a batch of tiles.

    Args:
        images: numbers (batch, height, width, band) of one input, or of several by their names; those of another
            resolution than the labels are larger or smaller by an integer factor.
        labels: uint8 (batch, height, width), or (batch, height, width, target).
        draw: int64 (2,), what everything is drawn from.
        options: the options; their crop is given, see `CropAugmentation.for_tiles`.
        drawn: of how many examples of a batch (second) these begin at which (first): each has draws of its own.
        photometry: change of brightness of each input; None for one optical input.

    Returns:
        Images (batch, crop, crop, band) of the same dtypes, or of their own resolution; and labels (batch, crop, crop),
        `IGNORE` where there is no tile.
    """
    first, total = drawn
    batch, size = labels.shape[0], labels.shape[1]
    seeds = tf.random.experimental.stateless_split(draw, total)[first : first + batch]
    several = isinstance(images, dict)
    images = images if several else {IMAGE: images}
    signature = (
        {
            name: tf.TensorSpec((side, side, image.shape[-1]), image.dtype)
            for name, image in images.items()
            for side in [scaled(options.crop, image.shape[1], size)]
        },
        tf.TensorSpec((options.crop, options.crop, *labels.shape[3:]), tf.uint8),
    )
    photometry = photometry or dict.fromkeys(images, FACTOR)
    images, labels = tf.map_fn(
        lambda one: _augment_tile(*one, options, photometry), (images, labels, seeds), fn_output_signature=signature
    )
    return images if several else images[IMAGE], labels


def scaled(size: int, pixels: int, label_pixels: int) -> int:
    """Returns a size in pixels of labels as a size in the pixels of an image of another resolution.

    Raises:
        OptionError: if it is not a whole number.
    """
    found = fractions.Fraction(size * pixels, label_pixels)
    if found.denominator > 1:
        step = fractions.Fraction(pixels, label_pixels).denominator
        raise OptionError(
            "crop", f"{size} pixels, of another input {float(found):g}", f"a multiple of {step}", "choose another crop"
        )
    return int(found)


def _augment_tile(
    images: dict[str, tf.Tensor],
    label: tf.Tensor,
    seed: tf.Tensor,
    options: CropAugmentation,
    photometry: Mapping[str, Photometry],
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Augments one tile: images (height, width, band) and label (height, width); see `augment_tiles`."""
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
    # Uniform in the logarithm: as much larger as smaller.
    low, high = math.log(options.scale_min), math.log(options.scale_max)
    scale = tf.exp(tf.random.stateless_uniform([], seeds[0], low, high))
    window = tf.cast(tf.round(options.crop / scale), tf.int32)
    corner = _corner(tf.shape(label)[:2], window, seeds[1])
    found = {}
    for number, (name, image) in enumerate(images.items()):
        factors = None
        if options.band_jitter and photometry[name] is not None:
            share = options.band_jitter
            # The first input draws what it would draw by itself.
            its_seed = tf.random.fold_in(seeds[3], number) if number else seeds[3]
            both = tf.random.stateless_uniform([1 + image.shape[-1]], its_seed, 1 - share, 1 + share)
            factors = both[0] * both[1:]
        side = scaled(options.crop, image.shape[0], label.shape[0])
        found[name] = crop_image(image, label.shape[0], corner, window, side, factors, photometry[name])
    label = crop_label(label, corner, window, options.crop)
    if options.dihedral:
        number = tf.random.stateless_uniform([1], seeds[2], 0, 8, tf.int32)
        found = {name: move_pixels(image[tf.newaxis], number, None)[0] for name, image in found.items()}
        flat = tf.reshape(label, (options.crop, options.crop, -1))
        label = tf.reshape(move_pixels(flat[tf.newaxis], number, None)[0], label.shape)
    return found, label


def _corner(edges: tf.Tensor, window: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws the first row and column of a window; negative ones where the window is larger than the tile."""
    free = edges - window
    # All places are equally likely; 1 is never drawn, but may result from rounding.
    drawn = tf.random.stateless_uniform([2], seed) * tf.cast(tf.abs(free) + 1, tf.float32)
    return tf.minimum(free, 0) + tf.minimum(tf.cast(drawn, tf.int32), tf.abs(free))


def _nearest(corner: tf.Tensor, window: tf.Tensor, size: int, finer: fractions.Fraction) -> list[tf.Tensor]:
    """Returns the rows and columns of an image that the centers of a crop's pixels lie in.

    In whole numbers, so that no center falls on the other side of an edge.

    Args:
        corner: the window's first row and column in pixels of the labels.
        window: its height and width likewise.
        size: height and width of the crop.
        finer: pixels of the image in one of the labels.
    """
    centers = (2 * tf.range(size) + 1) * window
    return [(centers + 2 * size * corner[axis]) * finer.numerator // (2 * size * finer.denominator) for axis in (0, 1)]


def crop_label(label: tf.Tensor, corner: tf.Tensor, window: tf.Tensor | int, size: int) -> tf.Tensor:
    """Resizes a square window of a mask by the nearest pixel.

    Args:
        label: uint8 (height, width), or (height, width, target).
        corner: int32 (2,), the window's first row and column; it may reach beyond the tile.
        window: its height and width in pixels.
        size: height and width of the result.

    Returns:
        (size, size) or (size, size, target), `IGNORE` beyond the tile.
    """
    edges = tf.shape(label)[:2]
    rows, columns = _nearest(corner, tf.convert_to_tensor(window, tf.int32), size, fractions.Fraction(1))
    inside = _inside(rows, columns, edges)
    found = _picked(label, rows, columns, edges)
    inside = tf.reshape(inside, (size, size, *[1] * (label.shape.rank - 2)))
    return tf.ensure_shape(tf.where(inside, found, tf.constant(IGNORE, label.dtype)), (size, size, *label.shape[2:]))


def _inside(rows: tf.Tensor, columns: tf.Tensor, edges: tf.Tensor) -> tf.Tensor:
    rows, columns = ((place >= 0) & (place < edges[axis]) for axis, place in enumerate((rows, columns)))
    return rows[:, tf.newaxis] & columns[tf.newaxis]


def _picked(values: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, edges: tf.Tensor) -> tf.Tensor:
    rows, columns = (tf.clip_by_value(place, 0, edges[axis] - 1) for axis, place in enumerate((rows, columns)))
    return tf.gather(tf.gather(values, rows), columns, axis=1)


def crop_image(
    image: tf.Tensor,
    label_size: int,
    corner: tf.Tensor,
    window: tf.Tensor | int,
    size: int,
    factors: tf.Tensor | None = None,
    photometry: Photometry = FACTOR,
) -> tf.Tensor:
    """Resizes a square window of a tile.

    A pixel of the result has no data where the one pixel of the tile that its center lies in has none. Its numbers are
    interpolated between the pixels that have data, or averaged over them where the window becomes smaller; with as many
    pixels as the window they are the tile's own.

    Args:
        image: numbers (height, width, band), integers or float32; no data as in `eo_keras.records.data_card.Modality`.
        label_size: height and width of the tile in pixels of its labels, which corner and window count.
        corner: int32 (2,), the window's first row and column; it may reach beyond the tile.
        window: its height and width in pixels.
        size: height and width of the result.
        factors: factor of each band's numbers, float32 (band,); None for 1.
        photometry: what the factors change.

    Returns:
        (size, size, band) of the same dtype, no data beyond the tile. Integers of pixels with data are at least 1.
    """
    window = tf.convert_to_tensor(window, tf.int32)
    finer, real = fractions.Fraction(image.shape[0], label_size), image.dtype.is_floating
    edges = tf.shape(image)[:2]
    up, down = finer.numerator, finer.denominator
    # The pixels of the image that the window touches.
    first = tf.maximum(corner * up // down, 0)
    last = tf.minimum(-(-(corner + window) * up // down), edges)
    rows, columns = _nearest(corner, window, size, finer)
    inside = _inside(rows, columns, edges)
    image = image[first[0] : last[0], first[1] : last[1]]
    exact = tf.cast(window, tf.float32) * up / down
    scale = tf.repeat(size / exact, 2)[:2]
    translation = scale * (tf.cast(first, tf.float32) - tf.cast(corner, tf.float32) * up / down)

    def interpolated(values):
        return tf.raw_ops.ScaleAndTranslate(
            images=values[tf.newaxis], size=[size, size], scale=scale, translation=translation, kernel_type="triangle"
        )[0]

    def whole():
        return interpolated(image), inside

    def with_gaps():
        known = has_data(image)
        # Pixels without data count as 0 and add nothing; divided by the weight of the others, the sums are means again.
        values = tf.where(known[..., tf.newaxis], image, tf.zeros_like(image)) if real else image
        weight = interpolated(tf.cast(known, tf.uint8)[..., tf.newaxis])
        numbers = tf.math.divide_no_nan(interpolated(values), weight)
        return numbers, inside & _picked(known, rows - first[0], columns - first[1], last - first)

    # Looking at all bands takes long, and most tiles show by their first band that they are whole.
    gaps = tf.reduce_any(~tf.math.is_finite(image)) if real else tf.reduce_any(image[..., 0] == 0)
    numbers, known = tf.cond(gaps, with_gaps, whole)
    if factors is not None and photometry == FACTOR:
        numbers *= factors
    if factors is not None and photometry == DECIBEL:
        numbers += 10 * tf.math.log(factors) / math.log(10)
    if real:
        numbers = tf.where(known[..., tf.newaxis], numbers, no_data(image.dtype))
    else:
        numbers = tf.cast(tf.clip_by_value(tf.round(numbers), 1, image.dtype.max), image.dtype)
        numbers *= tf.cast(known[..., tf.newaxis], image.dtype)
    return tf.ensure_shape(numbers, (size, size, image.shape[-1]))
