"""Parses serialized examples: inside a `tf.data` pipeline, and of their images alone in an export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from eo_keras.legends.catalogue import IGNORE
from eo_keras.records import example as codec
from eo_keras.records.data_card import DataCard, StoredImages
from eo_keras.records.example import DISTANCE, IMAGE, KEY, LABEL, MASK, VALID, VALIDITY, feature_of
from eo_keras.records.inputs import InputBands, first_modality


def parse_batch(
    serialized: Any,
    card: DataCard,
    inputs: Sequence[InputBands] | None = None,
    *,
    with_keys: bool = False,
    with_distances: bool = False,
    only_seen: bool = False,
) -> dict[str, Any]:
    """Parses a batch of serialized examples inside a `tf.data` pipeline.

    Args:
        serialized: string tensor (batch,).
        card: the card of the records folder.
        inputs: the inputs to deliver; None for the first modality with all its bands.
        with_keys: whether to return the keys too.
        only_seen: whether pixels that none of the inputs sees are `IGNORE`, though another modality sees them. In
            training; models of other inputs are scored on the same pixels.
        with_distances: whether labels hold the classes of distances beside the mask's, along a last axis.

    Returns:
        `image` (batch, height, width, band) of the modality's dtype, of several inputs by their names; an example that
        lacks a modality holds no data in it. `label`, int32 (batch,), or of tiles uint8 (batch, height, width),
        `IGNORE` where the ground is not seen; and `key` (batch,) string if wanted.
    """
    dense, modalities = card.targets.per_pixel, card.modalities
    inputs = inputs or first_modality(card)
    features = {one.modality: feature_of(card, one.modality) for one in inputs}
    # A card of several modalities has records that lack one.
    default = "" if card.others else None
    spec = {name: tf.io.FixedLenFeature([], tf.string, default) for name in features.values()}
    masks = (MASK, VALIDITY, *([DISTANCE] if with_distances else [])) if dense else ()
    spec |= {name: tf.io.FixedLenFeature([], tf.string) for name in masks}
    if not dense:
        spec[LABEL] = tf.io.FixedLenFeature([], tf.int64)
    if with_keys:
        spec[KEY] = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_example(serialized, spec)
    stored = {
        name: _decode_images(parsed[feature], modalities[name].images, bool(card.others))
        for name, feature in features.items()
    }
    images = {one.name: select_bands(stored[one.modality], modalities[one.modality].bands, one.bands) for one in inputs}
    size = card.patch_size
    if dense:
        mask, validity, *distance = (
            tf.reshape(tf.io.decode_raw(tf.io.decode_compressed(parsed[name], "ZLIB"), tf.uint8), (-1, size, size))
            for name in masks
        )
        visible = validity == VALID
        if only_seen and card.others:
            visible &= tf.reduce_any([_at_size(has_data(one), size) for one in stored.values()], axis=0)
        ignored = tf.constant(IGNORE, tf.uint8)
        label = tf.where(visible, mask, ignored)
        if distance:
            label = tf.stack([label, tf.where(visible, distance[0], ignored)], axis=-1)
    else:
        label = tf.cast(parsed[LABEL], tf.int32)
    batch = {"image": unwrapped(images), "label": label}
    if with_keys:
        batch["key"] = parsed[KEY]
    return batch


def unwrapped(images: dict[str, Any]) -> Any:
    """Returns the tensor of the only input, or several by their names."""
    return next(iter(images.values())) if len(images) == 1 else images


def by_name(images: Any) -> dict[str, Any]:
    """Returns several inputs by their names, the only one as `image`."""
    return images if isinstance(images, dict) else {IMAGE: images}


def has_data(images: Any) -> Any:
    """Returns which pixels of images (..., band) hold data, bool (...)."""
    known = tf.math.is_finite(images) if images.dtype.is_floating else images != 0
    return tf.reduce_all(known, axis=-1) if images.dtype.is_floating else tf.reduce_any(known, axis=-1)


def no_data(dtype: Any) -> Any:
    """Returns the number of a pixel of no data, as a scalar tensor of a dtype."""
    return tf.constant(float("nan") if dtype.is_floating else 0, dtype)


def _at_size(flags: Any, size: int) -> Any:
    """Returns flags (batch, height, width) by the nearest pixel at another size."""
    if flags.shape[1] == size:
        return flags
    return tf.image.resize(tf.cast(flags, tf.uint8)[..., tf.newaxis], (size, size), "nearest")[..., 0] > 0


def parse_images(serialized: Any, stored: StoredImages, feature: str = IMAGE, may_lack: bool = False) -> Any:
    """Parses the images alone of a batch of serialized examples.

    Args:
        serialized: string tensor (batch,).
        stored: their layout.
        feature: the feature that holds them.
        may_lack: whether an example may lack it; it has no data then.

    Returns:
        (batch, height, width, band) of the stored dtype.
    """
    default = "" if may_lack else None
    parsed = tf.io.parse_example(serialized, {feature: tf.io.FixedLenFeature([], tf.string, default)})
    return _decode_images(parsed[feature], stored, may_lack)


def select_bands(images: Any, stored: Sequence[str], bands: Sequence[str]) -> Any:
    """Returns the bands of images (batch, height, width, band) in another order, on the stored integers.

    Args:
        images: the images.
        stored: names of their bands.
        bands: names of the bands wanted, in order.
    """
    if tuple(bands) == tuple(stored):
        return images
    return tf.gather(images, [stored.index(band) for band in bands], axis=-1)


def decode_picture(data: Any, channels: int) -> Any:
    """Decodes the bytes of a JPEG, or of a PNG, as uint8 (height, width, channels).

    The accurate integer transform is Pillow's and GDAL's too; TensorFlow's default, the fast one, is off by up to 5
    levels, and a model would see other pixels in training than when it reads an image file.

    Args:
        data: string tensor ().
        channels: number of channels; 0 for as many as there are.
    """
    return tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE")


def _decode_images(encoded: Any, stored: StoredImages, may_lack: bool) -> Any:
    shape = (stored.patch_size, stored.patch_size, len(stored.bands))
    if stored.encoding == "jpeg":
        return tf.map_fn(
            lambda jpeg: decode_picture(jpeg, channels=len(stored.bands)),
            encoded,
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )
    if may_lack:
        empty = np.full(shape, codec.no_data(stored.dtype), np.dtype(stored.dtype).newbyteorder("<"))
        encoded = tf.where(tf.strings.length(encoded) == 0, empty.tobytes(), encoded)
    images = tf.io.decode_raw(encoded, tf.dtypes.as_dtype(stored.dtype), little_endian=True)
    # The number of images is said, or two images in the bytes of one would be two of the batch.
    return tf.ensure_shape(tf.reshape(images, (tf.size(encoded), *shape)), (None, *shape))
