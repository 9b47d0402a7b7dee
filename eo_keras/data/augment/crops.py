"""Augmentation of tiles with their masks, drawn from seed and step alone.

A crop of a random scale is read from the tile as a window and brought to the crop's size: images by interpolation
(smaller ones are averaged), masks by the nearest pixel. Beyond the tile's edge there is no data and no class. Nothing
but the window is looked at, and its numbers are rounded once.
"""

from __future__ import annotations

import math

import tensorflow as tf

from eo_keras.data.augment.options import CropAugmentation
from eo_keras.data.augment.patches import move_pixels
from eo_keras.legends.catalogue import IGNORE


def augment_tiles(
    images: tf.Tensor, labels: tf.Tensor, draw: tf.Tensor, options: CropAugmentation, drawn: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Augments a batch of tiles.

    Args:
        images: digital numbers (batch, height, width, band), integers; a pixel of no data is 0 in all bands.
        labels: uint8 (batch, height, width).
        draw: int64 (2,), what everything is drawn from.
        options: the options; their crop is given, see `CropAugmentation.for_tiles`.
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
    return tf.map_fn(lambda one: augment_tile(*one, options), (images, labels, seeds), fn_output_signature=signature)


def augment_tile(
    image: tf.Tensor, label: tf.Tensor, seed: tf.Tensor, options: CropAugmentation
) -> tuple[tf.Tensor, tf.Tensor]:
    """Augments one tile: image (height, width, band) and label (height, width); see `augment_tiles`."""
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
    # Uniform in the logarithm: as much larger as smaller.
    low, high = math.log(options.scale_min), math.log(options.scale_max)
    scale = tf.exp(tf.random.stateless_uniform([], seeds[0], low, high))
    window = tf.cast(tf.round(options.crop / scale), tf.int32)
    corner = _corner(tf.shape(label), window, seeds[1])
    factors = None
    if options.band_jitter:
        share = options.band_jitter
        both = tf.random.stateless_uniform([1 + image.shape[-1]], seeds[3], 1 - share, 1 + share)
        factors = both[0] * both[1:]
    image, label = crop_pair(image, label, corner, window, options.crop, factors)
    if options.dihedral:
        number = tf.random.stateless_uniform([1], seeds[2], 0, 8, tf.int32)
        image = move_pixels(image[tf.newaxis], number, None)[0]
        label = move_pixels(label[tf.newaxis, ..., tf.newaxis], number, None)[0, ..., 0]
    return image, label


def _corner(edges: tf.Tensor, window: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws the first row and column of a window; negative ones where the window is larger than the tile."""
    free = edges - window
    # All places are equally likely; 1 is never drawn, but may result from rounding.
    drawn = tf.random.stateless_uniform([2], seed) * tf.cast(tf.abs(free) + 1, tf.float32)
    return tf.minimum(free, 0) + tf.minimum(tf.cast(drawn, tf.int32), tf.abs(free))


def crop_pair(
    image: tf.Tensor,
    label: tf.Tensor,
    corner: tf.Tensor,
    window: tf.Tensor | int,
    size: int,
    factors: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Resizes a square window of a tile and its mask.

    A pixel of the result takes its class from the one pixel of the tile that its center lies in, and has no data where
    that one has none. Its numbers are interpolated between the pixels that have data, or averaged over them where the
    window becomes smaller; with as many pixels as the window they are the tile's own.

    Args:
        image: digital numbers (height, width, band), integers; a pixel of no data is 0 in all bands.
        label: uint8 (height, width).
        corner: int32 (2,), the window's first row and column; it may reach beyond the tile.
        window: its height and width in pixels.
        size: height and width of the result.
        factors: factor of each band's numbers, float32 (band,); None for 1.

    Returns:
        Image (size, size, band) of the same dtype, 0 beyond the tile, and label (size, size), `IGNORE` there. Pixels
        with data are at least 1.
    """
    window = tf.convert_to_tensor(window, tf.int32)
    edges = tf.shape(label)
    first, last = tf.maximum(corner, 0), tf.minimum(corner + window, edges)
    image = image[first[0] : last[0], first[1] : last[1]]
    scale = tf.repeat(size / tf.cast(window, tf.float32), 2)[:2]
    translation = scale * tf.cast(first - corner, tf.float32)
    # In whole numbers, so that no center falls on the other side of an edge.
    nearest = (2 * tf.range(size) + 1) * window // (2 * size)
    places = [nearest + corner[axis] for axis in (0, 1)]
    inside = [(place >= 0) & (place < edges[axis]) for axis, place in enumerate(places)]
    inside = inside[0][:, tf.newaxis] & inside[1][tf.newaxis]

    def picked(values, origin, limit):
        rows, columns = (tf.clip_by_value(place - origin[k], 0, limit[k] - 1) for k, place in enumerate(places))
        return tf.gather(tf.gather(values, rows), columns, axis=1)

    def interpolated(values):
        return tf.raw_ops.ScaleAndTranslate(
            images=values[tf.newaxis], size=[size, size], scale=scale, translation=translation, kernel_type="triangle"
        )[0]

    def whole():
        return interpolated(image), inside

    def with_gaps():
        known = tf.reduce_any(image != 0, axis=-1)
        # Pixels without data are 0 and add nothing; divided by the weight of the others, the sums are means again.
        weight = interpolated(tf.cast(known, tf.uint8)[..., tf.newaxis])
        numbers = tf.math.divide_no_nan(interpolated(image), weight)
        return numbers, inside & picked(known, first, last - first)

    # Looking at all bands takes long, and most tiles show by their first band that they are whole.
    numbers, known = tf.cond(tf.reduce_any(image[..., 0] == 0), with_gaps, whole)
    if factors is not None:
        numbers *= factors
    numbers = tf.cast(tf.clip_by_value(tf.round(numbers), 1, image.dtype.max), image.dtype)
    numbers *= tf.cast(known[..., tf.newaxis], image.dtype)
    label = tf.where(inside, picked(label, [0, 0], edges), tf.constant(IGNORE, label.dtype))
    return tf.ensure_shape(numbers, (size, size, image.shape[-1])), tf.ensure_shape(label, (size, size))
