"""Signatures of an export: what clients may send, and how it becomes digital numbers.

`serving_default` takes the numbers of each input by its name. `bytes` takes JPEGs or PNGs, where the model's bands are
red, green and blue as uint8. `examples` takes serialized records, such as those of the folder that the model was
trained on. All of them run the same function of the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from eo_keras.data import parse
from eo_keras.records import example as records
from eo_keras.records.data_card import StoredImages
from eo_keras.runs.export_folder import IMAGE, SIGNATURE
from eo_keras.runs.model_card import ModelCard
from eo_keras.sensors import sentinel2

BYTES, EXAMPLES = "bytes", "examples"
_BYTES = "image_bytes"  # Its input; that of EXAMPLES has the signature's name.

_RGB = sentinel2.COMPOSITES["RGB"]
_PNG_START = b"\x89PNG\r\n\x1a\n"
_BIT_DEPTH = len(_PNG_START) + 16  # Place of its byte: after length, type, width and height of the first chunk.


@dataclasses.dataclass(frozen=True)
class Signature:
    """One signature.

    Attributes:
        name: its name.
        specs: what it takes by name; the first axis of each counts images.
        images: returns the numbers of the model's inputs by their names: (batch, height, width, bands), the model's
            bands in its order.
        request: returns what it takes, holding these numbers without loss.
    """

    name: str
    specs: Mapping[str, tf.TensorSpec]
    images: Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]
    request: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def of_model(card: ModelCard, shapes: Mapping[str, tuple[int | None, ...]]) -> tuple[Signature, ...]:
    """Returns the signatures of a model.

    Args:
        card: its card.
        shapes: height, width and bands of its inputs by name; None for any.
    """
    inputs = card.by_input
    specs = {name: tf.TensorSpec((None, *shape), inputs[name].dtype, name) for name, shape in shapes.items()}
    identity = Signature(
        SIGNATURE,
        specs,
        lambda given: {name: tf.identity(values) for name, values in given.items()},
        lambda images: {name: np.asarray(values) for name, values in images.items()},
    )
    found = [identity]
    if list(shapes) == [IMAGE] and card.dtype == "uint8" and set(card.bands) <= set(_RGB):
        found.append(_of_pictures(card, shapes[IMAGE]))
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

    def images(given: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        pictures = tf.map_fn(decode, given[_BYTES], fn_output_signature=tf.TensorSpec(shape, tf.uint8))
        return {IMAGE: parse.select_bands(pictures, _RGB, card.bands)}

    def request(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {_BYTES: _strings(_png(image) for image in _with_bands(images[IMAGE], card.bands, _RGB))}

    return Signature(BYTES, {_BYTES: tf.TensorSpec((None,), tf.string, _BYTES)}, images, request)


@dataclasses.dataclass(frozen=True)
class _StoredInput:
    """An input of a model in records: its layout there, the feature that holds it, and its bands."""

    records: StoredImages
    feature: str
    bands: tuple[str, ...]


def _of_examples(card: ModelCard) -> Signature:
    inputs: Mapping[str, Any] = {one.name: one for one in card.inputs}
    if len(inputs) < 2:
        feature = card.inputs[0].feature if card.inputs else records.IMAGE
        inputs = {IMAGE: _StoredInput(card.records, feature, card.bands)}
    # Records of several modalities may lack one.
    may_lack = bool(card.inputs)

    def images(given: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        serialized, found = given[EXAMPLES], {}
        for name, one in inputs.items():
            every = parse.parse_images(serialized, one.records, one.feature, may_lack)
            found[name] = parse.select_bands(every, one.records.bands, one.bands)
        return found

    def request(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        stored: list[dict[str, bytes]] = [{} for _ in next(iter(images.values()))]
        by_feature: dict[str, np.ndarray] = {}
        for name, one in inputs.items():
            # Two views of a modality are one feature.
            every = by_feature.setdefault(one.feature, _empty(images[name], len(one.records.bands)))
            every[..., [one.records.bands.index(band) for band in one.bands]] = images[name]
        layouts = {one.feature: one.records for one in inputs.values()}
        for feature, every in by_feature.items():
            # A PNG is decoded in the place of a JPEG, and loses nothing.
            encode = _png if layouts[feature].encoding == "jpeg" else _raw
            for features, image in zip(stored, every, strict=True):
                features[feature] = encode(image)
        return {EXAMPLES: _strings(records.encode_images(features) for features in stored)}

    return Signature(EXAMPLES, {EXAMPLES: tf.TensorSpec((None,), tf.string, EXAMPLES)}, images, request)


def _empty(images: np.ndarray, bands: int) -> np.ndarray:
    """Returns images of another number of bands without data."""
    return np.full((*images.shape[:3], bands), records.no_data(images.dtype), images.dtype)


def _with_bands(images: np.ndarray, bands: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Returns images with more bands, or bands in another order; added ones hold no data."""
    every = _empty(images, len(wanted))
    every[..., [wanted.index(band) for band in bands]] = images
    return every


def _png(image: np.ndarray) -> bytes:
    return tf.io.encode_png(image).numpy()


def _raw(image: np.ndarray) -> bytes:
    return image.astype(image.dtype.newbyteorder("<")).tobytes()


def _strings(values) -> np.ndarray:
    return np.array(list(values), object)
