"""Signatures of an export: what clients may send, and how it becomes digital numbers.

`serving_default` takes digital numbers. `bytes` takes JPEGs or PNGs, where the model's bands are red, green and blue as
uint8. `examples` takes serialized records, such as those of the folder that the model was trained on. All of them run
the same function of the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from eo_keras.data import parse
from eo_keras.records import example as records
from eo_keras.runs.export_folder import IMAGE, SIGNATURE
from eo_keras.runs.model_card import ModelCard
from eo_keras.sensors import sentinel2

BYTES, EXAMPLES = "bytes", "examples"

_RGB = sentinel2.COMPOSITES["RGB"]
_PNG_START = b"\x89PNG\r\n\x1a\n"
_BIT_DEPTH = len(_PNG_START) + 16  # Place of its byte: after length, type, width and height of the first chunk.


@dataclasses.dataclass(frozen=True)
class Signature:
    """One signature.

    Attributes:
        name: its name.
        spec: its input, whose first axis counts images.
        images: returns the digital numbers of inputs: (batch, height, width, bands), the model's bands in its order.
        request: returns inputs that hold digital numbers, without loss.
    """

    name: str
    spec: tf.TensorSpec
    images: Callable[[tf.Tensor], tf.Tensor]
    request: Callable[[np.ndarray], np.ndarray]


def of_model(card: ModelCard, image_shape: tuple[int | None, ...]) -> tuple[Signature, ...]:
    """Returns the signatures of a model.

    Args:
        card: its card.
        image_shape: height, width and bands of its input; None for any.
    """
    found = [Signature(SIGNATURE, tf.TensorSpec((None, *image_shape), card.dtype, IMAGE), tf.identity, np.asarray)]
    if card.dtype == "uint8" and set(card.bands) <= set(_RGB):
        found.append(_of_pictures(card, image_shape))
    if card.records is not None:
        found.append(_of_examples(card))
    return tuple(found)


def _of_pictures(card: ModelCard, image_shape: tuple[int | None, ...]) -> Signature:
    shape = (*image_shape[:2], len(_RGB))

    def decode(data: tf.Tensor) -> tf.Tensor:
        header = tf.io.decode_raw(data, tf.uint8, fixed_length=_BIT_DEPTH + 1)
        png = tf.reduce_all(header[: len(_PNG_START)] == np.frombuffer(_PNG_START, np.uint8))
        deep = tf.logical_and(png, header[_BIT_DEPTH] > 8)
        # TensorFlow would drop the lower 8 bits. It checks shapes where they are used, so that no optimization of the
        # graph can leave that out.
        check = tf.debugging.Assert(tf.logical_not(deep), ["a PNG of 16 bits; expected a JPEG or PNG of 8 bits"])
        with tf.control_dependencies([] if check is None else [check]):
            # As many channels as there are: gray images and those with transparency are refused.
            return tf.ensure_shape(parse.decode_picture(data, channels=0), shape)

    def images(data: tf.Tensor) -> tf.Tensor:
        pictures = tf.map_fn(decode, data, fn_output_signature=tf.TensorSpec(shape, tf.uint8))
        return parse.select_bands(pictures, _RGB, card.bands)

    def request(images: np.ndarray) -> np.ndarray:
        return _strings(_png(image) for image in _with_bands(images, card.bands, _RGB))

    return Signature(BYTES, tf.TensorSpec((None,), tf.string, "image_bytes"), images, request)


def _of_examples(card: ModelCard) -> Signature:
    stored = card.records

    def images(serialized: tf.Tensor) -> tf.Tensor:
        return parse.select_bands(parse.parse_images(serialized, stored), stored.bands, card.bands)

    def request(images: np.ndarray) -> np.ndarray:
        # A PNG is decoded in the place of a JPEG, and loses nothing.
        encode = _png if stored.encoding == "jpeg" else _raw
        every = _with_bands(images, card.bands, stored.bands)
        return _strings(records.encode(records.Example(encode(image), label=None, key="")) for image in every)

    return Signature(EXAMPLES, tf.TensorSpec((None,), tf.string, "examples"), images, request)


def _with_bands(images: np.ndarray, bands: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Returns images with more bands, or bands in another order; added ones hold no data."""
    every = np.zeros((*images.shape[:3], len(wanted)), images.dtype)
    every[..., [wanted.index(band) for band in bands]] = images
    return every


def _png(image: np.ndarray) -> bytes:
    return tf.io.encode_png(image).numpy()


def _raw(image: np.ndarray) -> bytes:
    return image.astype(image.dtype.newbyteorder("<")).tobytes()


def _strings(values) -> np.ndarray:
    return np.array(list(values), object)
