"""Parses serialized examples inside a `tf.data` pipeline."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from eo_keras.legends.catalogue import IGNORE
from eo_keras.records.data_card import DataCard
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
    size, bands = card.patch_size, len(card.bands)
    if card.encoding == "jpeg":
        # The accurate integer transform is Pillow's and GDAL's too; TensorFlow's default, the fast one, is off by up
        # to 5 levels, and a model would see other pixels in training than when it reads an image file.
        images = tf.map_fn(
            lambda jpeg: tf.io.decode_jpeg(jpeg, channels=bands, dct_method="INTEGER_ACCURATE"),
            parsed[IMAGE],
            fn_output_signature=tf.TensorSpec((size, size, bands), tf.uint8),
        )
    else:
        images = tf.io.decode_raw(parsed[IMAGE], tf.dtypes.as_dtype(card.dtype), little_endian=True)
        images = tf.reshape(images, (-1, size, size, bands))
    if dense:
        mask, validity = (
            tf.reshape(tf.io.decode_raw(tf.io.decode_compressed(parsed[name], "ZLIB"), tf.uint8), (-1, size, size))
            for name in (MASK, VALIDITY)
        )
        label = tf.where(validity == VALID, mask, tf.constant(IGNORE, tf.uint8))
    else:
        label = tf.cast(parsed[LABEL], tf.int32)
    batch = {"image": tf.ensure_shape(images, (None, size, size, bands)), "label": label}
    if with_keys:
        batch["key"] = parsed[KEY]
    return batch
