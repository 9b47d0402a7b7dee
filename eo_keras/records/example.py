"""Encoding and decoding of the examples of a records folder, serialized `tf.train.Example`s.

This is the only file that knows the names of the features. An image keeps its stored type and height, width, band
order: RGB as its untouched JPEG bytes, anything else as raw little-endian numbers. Of several modalities, the first is
`image` and each further one `image/<name>`; a record that lacks one lacks its feature, or has an empty `image`. A
transform is six float64 values as bytes, because a TFRecord's floats are float32 and would move a northing by
decimeters.

A patch has one label. A tile has a class for every pixel, `mask`, and `validity`, whether the sensor saw the ground
there; both are uint8, compressed by zlib: land use lies in large areas, and is compressed to a few per cent. Where the
card says so, `distance` holds in the same way the class of every pixel's distance from the boundaries of objects.
"""

from __future__ import annotations

import dataclasses
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from eo_keras.core import files
from eo_keras.errors import RecordsError
from eo_keras.legends.catalogue import IGNORE
from eo_keras.records import tfrecord
from eo_keras.records.data_card import DataCard, Modality, Shard

IMAGE, LABEL, KEY, CRS, TRANSFORM = "image", "label", "key", "crs", "transform"
MASK, VALIDITY, DISTANCE = "mask", "validity", "distance"
CITY, DATE, PRODUCT = "city", "date", "product"

_OTHER = f"{IMAGE}/"
"""Prefix of the features of further modalities."""

NO_DATA, VALID, SATURATED, OBSCURED = range(4)
"""Values of a validity mask: no data in some band, valid, saturated in some band, cloud or cloud shadow."""

_ZLIB_LEVEL = 6

_TRANSFORM = struct.Struct("<6d")


@dataclasses.dataclass(frozen=True)
class PixelLabels:
    """Labels, validity and origin of a tile of a scene.

    Attributes:
        mask: uint8 (height, width), the class's place in the legend, or `IGNORE`.
        validity: uint8 (height, width), see `eo_keras.geo.scene_reader`.
        city: name of the city.
        date: day of the acquisition (YYYY-MM-DD), or empty where it is not known.
        product: identifier of the Sentinel-2 product, or the scene's name.
        distance: uint8 (height, width), see `eo_keras.geo.distance_classes`; None in records without.
    """

    mask: np.ndarray
    validity: np.ndarray
    city: str
    date: str
    product: str
    distance: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """Mask where the ground is visible, `IGNORE` elsewhere; uint8 (height, width)."""
        return np.where(self.validity == VALID, self.mask, IGNORE).astype(np.uint8)

    def class_pixels(self, classes: int) -> np.ndarray:
        """Counts the pixels of each class where the ground is visible; int64 (classes,)."""
        return np.bincount(self.labels.ravel(), minlength=256)[:classes]


@dataclasses.dataclass(frozen=True)
class Example:
    """One stored example.

    Attributes:
        image: JPEG bytes, or raw little-endian numbers (height, width, band).
        label: the class's place in the legend; None for a tile.
        key: the example's name, unique in its data set.
        crs: coordinate reference system (`EPSG:n`, or WKT where it has no code), or None.
        transform: GDAL-style affine transform (a, b, c, d, e, f) from pixel (column, row) to CRS, or None.
        tile: labels, validity and origin of a tile; None for a patch.
        others: raw little-endian numbers (height, width, band) of the further modalities by name.
    """

    image: bytes
    label: int | None
    key: str
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    tile: PixelLabels | None = None
    others: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def encode(example: Example) -> bytes:
    """Serializes an example."""
    features: dict[str, bytes | int] = {IMAGE: example.image, KEY: example.key.encode()}
    features |= {_OTHER + name: numbers for name, numbers in example.others.items()}
    if example.label is not None:
        features[LABEL] = example.label
    if example.crs is not None and example.transform is not None:
        features[CRS] = example.crs.encode()
        features[TRANSFORM] = _TRANSFORM.pack(*example.transform)
    if example.tile is not None:
        tile = example.tile
        features |= {name: value.encode() for name, value in _texts(tile).items()}
        features |= {name: zlib.compress(value.tobytes(), _ZLIB_LEVEL) for name, value in _maps(tile).items()}
    return tfrecord.encode_example(features)


def encode_images(images: Mapping[str, bytes]) -> bytes:
    """Serializes images alone, by the names of their features; see `feature_of`."""
    return tfrecord.encode_example({KEY: b"", **images})


def _texts(tile: PixelLabels) -> dict[str, str]:
    return {CITY: tile.city, DATE: tile.date, PRODUCT: tile.product}


def _maps(tile: PixelLabels) -> dict[str, np.ndarray]:
    maps = {MASK: tile.mask, VALIDITY: tile.validity}
    return maps if tile.distance is None else maps | {DISTANCE: tile.distance}


def decode(data: bytes) -> Example:
    """Parses an example, without TensorFlow; the masks of a tile are taken to be square."""
    features = tfrecord.decode_example(data)
    georeferenced = CRS in features
    tile = None
    if MASK in features:
        stored = {name: features[name] for name in (MASK, VALIDITY, DISTANCE) if name in features}
        maps = {name: np.frombuffer(zlib.decompress(values), np.uint8) for name, values in stored.items()}
        edge = math.isqrt(maps[MASK].size)
        maps = {name: values.reshape(edge, edge) for name, values in maps.items()}
        texts = {name: features[name].decode() for name in (CITY, DATE, PRODUCT)}
        tile = PixelLabels(**maps, **texts)
    return Example(
        features[IMAGE],
        features.get(LABEL),
        features[KEY].decode(),
        features[CRS].decode() if georeferenced else None,
        _TRANSFORM.unpack(features[TRANSFORM]) if georeferenced else None,
        tile,
        {name.removeprefix(_OTHER): value for name, value in features.items() if name.startswith(_OTHER)},
    )


def feature_of(card: DataCard, modality: str) -> str:
    """Returns the name of the feature that holds a modality's images."""
    return IMAGE if modality == card.modality else _OTHER + modality


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


@dataclasses.dataclass(frozen=True)
class Header:
    """Key and location of an example.

    Attributes:
        key: its name.
        image: the stored image.
        crs: coordinate reference system, or None.
        transform: affine transform (a, b, c, d, e, f) from pixel to CRS, or None.
        city: name of a tile's city, or empty.
    """

    key: str
    image: bytes
    crs: str | None
    transform: tuple[float, ...] | None
    city: str


def read_headers(path: str | os.PathLike[str]) -> Iterator[Header]:
    """Yields keys and locations of the examples of one shard; no image and no mask is decoded.

    Raises:
        RecordsError: if the shard is damaged.
    """
    for number, data in enumerate(tfrecord.read_records(path)):
        try:
            features = tfrecord.decode_example(data)
            placed = CRS in features
            yield Header(
                features[KEY].decode(),
                features[IMAGE],
                features[CRS].decode() if placed else None,
                _TRANSFORM.unpack(features[TRANSFORM]) if placed else None,
                features.get(CITY, b"").decode(),
            )
        except Exception as error:
            raise RecordsError(
                path, f"record {number} is not one of ours ({error})", remedy="build the records again"
            ) from None


def check_shard(records_dir: str | os.PathLike[str], shard: Shard) -> str:
    """Returns a shard's path or URL after checking that it is there and as long as the card says.

    Raises:
        RecordsError: if it is missing or of another length.
    """
    path = files.join(records_dir, shard.name)
    remedy = "copy the folder again, or build the records again"
    try:
        size = files.size(path)
    except (FileNotFoundError, NotADirectoryError):
        raise RecordsError(path, "there is no such file", f"a shard of {shard.bytes} bytes", remedy) from None
    if size != shard.bytes:
        raise RecordsError(path, f"it has {size} bytes", f"{shard.bytes} bytes, as the card says", remedy)
    return path


def decode_image(example: Example, card: DataCard) -> np.ndarray:
    """Returns an example's image of the first modality, see `decode_modality`."""
    return decode_modality(example, card, card.modality)


def decode_modality(example: Example, card: DataCard, modality: str) -> np.ndarray:
    """Returns an example's image of a modality, without TensorFlow.

    Returns:
        (height, width, band) of the modality's dtype; no data where the example lacks it.
    """
    layout = card.modalities[modality].images
    stored = example.image if modality == card.modality else example.others.get(modality, b"")
    if layout.encoding == "jpeg":
        import io

        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(stored)))
    shape, dtype = (layout.patch_size, layout.patch_size, len(layout.bands)), np.dtype(layout.dtype)
    if not stored:
        return np.full(shape, no_data(dtype), dtype)
    return np.frombuffer(stored, dtype.newbyteorder("<")).reshape(shape).astype(dtype)


def no_data(dtype: Any) -> float:
    """Returns the number that a pixel of no data holds: 0, of real numbers NaN."""
    return math.nan if np.dtype(dtype).kind == "f" else 0


def has_data(pixels: np.ndarray) -> np.ndarray:
    """Returns which pixels of images (..., band) hold data, bool (...)."""
    return np.isfinite(pixels).all(axis=-1) if pixels.dtype.kind == "f" else pixels.any(axis=-1)


def tfds_features(card: DataCard) -> dict[str, Any]:
    """Describes the features in the JSON form of TensorFlow Datasets' `features.json`."""
    module = "tensorflow_datasets.core.features"

    def text() -> dict[str, Any]:
        return {"pythonClassName": f"{module}.text_feature.Text", "text": {}}

    def tensor(dtype: str, dimensions: list[str], encoding: str = "bytes") -> dict[str, Any]:
        return {
            "pythonClassName": f"{module}.tensor_feature.Tensor",
            "tensor": {"dtype": dtype, "encoding": encoding, "shape": {"dimensions": dimensions}},
        }

    def image(one: Modality) -> dict[str, Any]:
        shape = [str(one.patch_size), str(one.patch_size), str(len(one.bands))]
        if one.encoding == "raw":
            return tensor(one.dtype, shape)
        return {
            "pythonClassName": f"{module}.image_feature.Image",
            "image": {"dtype": one.dtype, "encodingFormat": "jpeg", "shape": {"dimensions": shape}},
        }

    features = {feature_of(card, name): image(one) for name, one in card.modalities.items()}
    features = {IMAGE: features.pop(IMAGE), KEY: text(), **features}
    if card.targets.per_pixel:
        maps = (MASK, VALIDITY) if card.distance is None else (MASK, VALIDITY, DISTANCE)
        features |= {name: tensor("uint8", [str(card.patch_size)] * 2, "zlib") for name in maps}
        features |= {name: text() for name in (CITY, DATE, PRODUCT)}
    else:
        features[LABEL] = {
            "pythonClassName": f"{module}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(card.legend))},
        }
    if card.georeferenced:
        features |= {CRS: text(), TRANSFORM: tensor("float64", ["6"])}
    return {
        "pythonClassName": f"{module}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
