"""One example of a records folder as a serialised `tf.train.Example`, and back.

This is the only file that knows the names of the features. An image keeps its stored type and height, width, band
order: RGB as its untouched JPEG bytes, anything else as raw little-endian numbers. A transform is six float64 values
as bytes, because a TFRecord's floats are float32 and would move a northing by decimetres.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from eo_keras import tfrecord
from eo_keras.cards import DataCard, Shard
from eo_keras.errors import RecordsError

IMAGE, LABEL, KEY, CRS, TRANSFORM = "image", "label", "key", "crs", "transform"

_TRANSFORM = struct.Struct("<6d")


@dataclasses.dataclass(frozen=True)
class Example:
    """One example as it is stored.

    Attributes:
        image: JPEG bytes, or raw little-endian numbers (height, width, band).
        label: the class's place in the legend.
        key: the example's name, unique in its data set.
        crs: coordinate reference system (`EPSG:n`, or WKT where it has no code), or None.
        transform: GDAL-style affine transform (a, b, c, d, e, f) from pixel (column, row) to CRS, or None.
    """

    image: bytes
    label: int
    key: str
    crs: str | None = None
    transform: tuple[float, ...] | None = None


def encode(example: Example) -> bytes:
    """Serialises an example."""
    features: dict[str, bytes | int] = {IMAGE: example.image, LABEL: example.label, KEY: example.key.encode()}
    if example.crs is not None and example.transform is not None:
        features[CRS] = example.crs.encode()
        features[TRANSFORM] = _TRANSFORM.pack(*example.transform)
    return tfrecord.encode_example(features)


def decode(data: bytes) -> Example:
    """Reads back an example, without TensorFlow."""
    features = tfrecord.decode_example(data)
    georeferenced = CRS in features
    return Example(
        features[IMAGE],
        features[LABEL],
        features[KEY].decode(),
        features[CRS].decode() if georeferenced else None,
        _TRANSFORM.unpack(features[TRANSFORM]) if georeferenced else None,
    )


def read_examples(path: str | os.PathLike[str]) -> Iterator[Example]:
    """Yields the examples of one shard, every checksum verified, without TensorFlow.

    Raises:
        RecordsError: if the shard is damaged.
    """
    for number, data in enumerate(tfrecord.read_records(path)):
        try:
            yield decode(data)
        except Exception as error:
            raise RecordsError(
                path, f"record {number} is not one of ours ({error})", remedy="build the records again"
            ) from None


def check_shard(records_dir: str | os.PathLike[str], shard: Shard) -> pathlib.Path:
    """Returns a shard's path after checking that it is there and as long as the card says.

    Raises:
        RecordsError: if it is missing or of another length.
    """
    path = pathlib.Path(records_dir) / shard.name
    remedy = "copy the folder again, or build the records again"
    if not path.is_file():
        raise RecordsError(path, "there is no such file", f"a shard of {shard.bytes} bytes", remedy)
    if (size := path.stat().st_size) != shard.bytes:
        raise RecordsError(path, f"it has {size} bytes", f"{shard.bytes} bytes, as the card says", remedy)
    return path


def decode_image(example: Example, card: DataCard) -> np.ndarray:
    """Returns an example's image as an array (height, width, band) of the card's dtype, without TensorFlow."""
    if card.encoding == "jpeg":
        import io

        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(example.image)))
    shape = (card.patch_size, card.patch_size, len(card.bands))
    return np.frombuffer(example.image, np.dtype(card.dtype).newbyteorder("<")).reshape(shape).astype(card.dtype)


def parse_batch(serialised: Any, card: DataCard, *, with_keys: bool = False) -> dict[str, Any]:
    """Parses a batch of serialised examples inside a `tf.data` pipeline.

    Args:
        serialised: string tensor (batch,).
        card: the card of the records folder.
        with_keys: whether to return the keys too.

    Returns:
        `image` (batch, height, width, band) of the card's dtype, `label` (batch,) int32, and `key` (batch,) string
        if asked for.
    """
    import tensorflow as tf

    spec = {IMAGE: tf.io.FixedLenFeature([], tf.string), LABEL: tf.io.FixedLenFeature([], tf.int64)}
    if with_keys:
        spec[KEY] = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_example(serialised, spec)
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
    batch = {"image": tf.ensure_shape(images, (None, size, size, bands)), "label": tf.cast(parsed[LABEL], tf.int32)}
    if with_keys:
        batch["key"] = parsed[KEY]
    return batch


def tfds_features(card: DataCard) -> dict[str, Any]:
    """Describes the features in the JSON form of TensorFlow Datasets' `features.json`."""
    shape = [str(card.patch_size), str(card.patch_size), str(len(card.bands))]
    module = "tensorflow_datasets.core.features"

    def text() -> dict[str, Any]:
        return {"pythonClassName": f"{module}.text_feature.Text", "text": {}}

    def tensor(dtype: str, dimensions: list[str]) -> dict[str, Any]:
        return {
            "pythonClassName": f"{module}.tensor_feature.Tensor",
            "tensor": {"dtype": dtype, "encoding": "bytes", "shape": {"dimensions": dimensions}},
        }

    if card.encoding == "jpeg":
        image = {
            "pythonClassName": f"{module}.image_feature.Image",
            "image": {"dtype": card.dtype, "encodingFormat": "jpeg", "shape": {"dimensions": shape}},
        }
    else:
        image = tensor(card.dtype, shape)
    features = {
        IMAGE: image,
        LABEL: {
            "pythonClassName": f"{module}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(card.legend))},
        },
        KEY: text(),
    }
    if card.georeferenced:
        features |= {CRS: text(), TRANSFORM: tensor("float64", ["6"])}
    return {
        "pythonClassName": f"{module}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
