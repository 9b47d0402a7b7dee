"""Parses serialized examples: inside a `tf.data` pipeline, and of their images alone in an export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from eo_keras.legends.catalogue import IGNORE
from eo_keras.records.data_card import DataCard, StoredImages
from eo_keras.records.example import IMAGE, KEY, LABEL, MASK, VALID, VALIDITY


def parse_batch(serialized: Any, card: DataCard, *, with_keys: bool = False) -> dict[str, Any]:
    """Parses a batch of serialized examples inside a `tf.data` pipeline.

    Args:
        serialized: string tensor (batch,).
        card: the card of the records folder.
        with_keys: whether to return the keys too.

    Returns:
        `image` (batch, height, width, band) of the card's dtype; `label`, int32 (batch,), or of tiles uint8 (batch,
        height, width), `IGNORE` where the ground is not seen; and `key` (batch,) string if wanted.
    """
    dense = card.targets.per_pixel
    spec = {IMAGE: tf.io.FixedLenFeature([], tf.string)}
    spec |= {name: tf.io.FixedLenFeature([], tf.string) for name in ((MASK, VALIDITY) if dense else ())}
    if not dense:
        spec[LABEL] = tf.io.FixedLenFeature([], tf.int64)
    if with_keys:
        spec[KEY] = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_example(serialized, spec)
    images, size = _decode_images(parsed[IMAGE], card.images), card.patch_size
    if dense:
        mask, validity = (
            tf.reshape(tf.io.decode_raw(tf.io.decode_compressed(parsed[name], "ZLIB"), tf.uint8), (-1, size, size))
            for name in (MASK, VALIDITY)
        )
        label = tf.where(validity == VALID, mask, tf.constant(IGNORE, tf.uint8))
    else:
        label = tf.cast(parsed[LABEL], tf.int32)
    batch = {"image": images, "label": label}
    if with_keys:
        batch["key"] = parsed[KEY]
    return batch


def parse_images(serialized: Any, stored: StoredImages) -> Any:
    """Parses the images alone of a batch of serialized examples.

    Args:
        serialized: string tensor (batch,).
        stored: their layout.

    Returns:
        (batch, height, width, band) of the stored dtype.
    """
    parsed = tf.io.parse_example(serialized, {IMAGE: tf.io.FixedLenFeature([], tf.string)})
    return _decode_images(parsed[IMAGE], stored)


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


def _decode_images(encoded: Any, stored: StoredImages) -> Any:
    shape = (stored.patch_size, stored.patch_size, len(stored.bands))
    if stored.encoding == "jpeg":
        return tf.map_fn(
            lambda jpeg: decode_picture(jpeg, channels=len(stored.bands)),
            encoded,
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )
    images = tf.io.decode_raw(encoded, tf.dtypes.as_dtype(stored.dtype), little_endian=True)
    # The number of images is said, or two images in the bytes of one would be two of the batch.
    return tf.ensure_shape(tf.reshape(images, (tf.size(encoded), *shape)), (None, *shape))
