"""Image data sets prepared by TensorFlow Datasets (TFDS), with one class for each image or with masks.

Read are the files that TFDS writes: `dataset_info.json`, `features.json`, the names of classes, and TFRecord files. No
TensorFlow is needed, and a records folder of this program is such a data set too. JPEGs stay as they are; other images
become raw numbers. TFDS does not say which bands an image shows: the options name them.
"""

from __future__ import annotations

import collections
import colorsys
import dataclasses
import functools
import hashlib
import io
import json
import math
import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras.core import files
from eo_keras.core.options import check, documented, option
from eo_keras.errors import OptionError, RecordsError, SourceError
from eo_keras.geo import scene_options, scenes
from eo_keras.legends.catalogue import IGNORE, Legend, LegendClass
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from eo_keras.records.example import NO_DATA, VALID
from tfrecords_builder.sources import image_decoding
from tfrecords_builder.sources.source import (
    Context,
    Encoded,
    Facts,
    Listing,
    PlannedExample,
    Preflight,
    RecordPlace,
    Rows,
    RunUnits,
    digest,
    lost,
    read_planned,
)
from tfrecords_builder.splits.types import TEST, TRAIN, VAL, Patches, SplitOptions
from tfrecords_builder.storage.state import load_arrays, save_arrays

_INFO_NAME, _FEATURES_NAME = "dataset_info.json", "features.json"
_SPLITS = {"train": TRAIN, "validation": VAL, "val": VAL, "test": TEST}
"""Names of splits in TFDS, and in records; examples of others, such as `unlabeled`, have no published split."""

_KEYS = ("key", "filename")
"""Features that name an example, in the order they are looked for."""

_REMEDY = "prepare the data set again with TensorFlow Datasets"


@documented
@dataclasses.dataclass(frozen=True)
class TFDSOptions:
    """Options of data sets that TensorFlow Datasets has prepared."""

    tfds_data_dir: str | None = option(
        None,
        urls=True,
        help="Folder of data sets that TensorFlow Datasets has prepared, such as ~/tensorflow_datasets, or the folder "
        "of one of them. A path or a URL.",
    )
    tfds_name: str | None = option(
        None,
        help="Name of the data set in `tfds_data_dir` as TensorFlow Datasets writes it, such as resisc45, eurosat/all "
        "or uc_merced:2.0.0. Default: the folder is the data set's own.",
    )
    tfds_image: str | None = option(None, help="Feature that holds the image. Default: the first supervised one.")
    tfds_label: str | None = option(
        None, help="Feature that holds the class or the mask. Default: the second supervised one."
    )
    tfds_key: str | None = option(
        None,
        help="Feature that names an example; empty: examples are numbered. Default: key or filename, if there is one.",
    )
    tfds_classes: tuple[str, ...] = option((), help="Names of the classes in the order of a mask's numbers.")
    resolution_m: float = option(10.0, above=0, help="Pixel size in metres.")
    band_order: str | None = scene_options.band_order()
    scene_level: str | None = scene_options.scene_level()

    def __post_init__(self):
        """Checks types and ranges."""
        check(self)


@dataclasses.dataclass(frozen=True)
class _Shard:
    """One TFRecord file; its scan is a unit of work.

    Attributes:
        name: the file's name.
        split: its split as TFDS calls it.
        first: position of its first example in the split.
        count: number of its examples.
        state: name of the file for what the scan finds.
    """

    name: str
    split: str
    first: int
    count: int
    state: str
    inputs: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self.count


@dataclasses.dataclass(frozen=True)
class _Example:
    """An example as read: the content of its record, and the label of its class or of its pixels."""

    stored: bytes
    pixels: np.ndarray
    label: int | None
    tile: records.PixelLabels | None
    crs: str | None
    transform: tuple[float, ...] | None


@dataclasses.dataclass(frozen=True)
class TFDS:
    """The source of prepared data sets, see `tfrecords_builder.sources.source.Source`."""

    Options = TFDSOptions
    facts = Facts(name="tfds", examples="images")
    scanning = "scanning"
    cuts = False

    def checked(self, options: TFDSOptions, split: SplitOptions) -> TFDSOptions:
        """Returns the options with an absolute path."""
        if not options.tfds_data_dir:
            raise OptionError("tfds_data_dir", "it is missing", "what `dataset=tfds` is built from")
        if not options.band_order:
            raise OptionError(
                "band_order",
                "TensorFlow Datasets does not say which bands an image shows",
                "their names in stored order",
                "say `band_order=B04,B03,B02` of red, green and blue",
            )
        scenes.parse_band_order(options.band_order)
        return dataclasses.replace(options, tfds_data_dir=files.absolute(options.tfds_data_dir))

    def prepare(self, options: TFDSOptions, opening: str) -> None:
        """Reads the description of the data set."""
        _opened(options, opening)

    def list(self, context: Context, split: SplitOptions) -> Listing:
        """Lists the TFRecord files."""
        found = _opened(context.options, context.opening)
        described = {
            name: value for name, value in dataclasses.asdict(context.options).items() if name != "tfds_data_dir"
        }
        stamps = {name: files.size(files.join(found.folder, name)) for name in (_INFO_NAME, _FEATURES_NAME)}
        for shard in found.shards:
            stamps[shard.name] = _size(found.folder, shard)
        return Listing({"source_name": found.name, **described}, stamps, found.shards)

    def preflight(self, context: Context, listing: Listing, run: RunUnits) -> Preflight:
        """Returns the facts from the features and the first example."""
        return Preflight(_opened(context.options, context.opening).facts, listing.entries)

    def scan(self, context: Context, unit: _Shard) -> None:
        """Reads and checks the examples of a file and stores their keys, sizes, hashes and labels."""
        if self.is_scanned(context, unit):
            return
        found, offset = _opened(context.options, context.opening), 0
        kept: dict[str, list[Any]] = collections.defaultdict(list)
        number = -1
        for number, data in enumerate(_records(found.folder, unit)):
            features = tfrecord.decode_lists(data)
            where = f"{files.join(found.folder, unit.name)}: record {number}"
            example = found.read(features, where)
            kept["keys"].append(found.key(features, unit, number))
            kept["offsets"].append(offset)
            kept["lengths"].append(len(data) + tfrecord.FRAMING_BYTES)
            kept["bytes"].append(len(example.stored))
            kept["digests"].append(np.frombuffer(digest(data), np.uint8))
            kept["pixels"].append(np.frombuffer(digest(np.ascontiguousarray(example.pixels).data), np.uint8))
            if example.tile is None:
                kept["labels"].append(example.label)
            else:
                kept["class_pixels"].append(example.tile.class_pixels(len(found.facts.legend)))
            if found.facts.georeferenced:
                kept["crs"].append(example.crs)
                kept["transforms"].append(example.transform)
            offset += kept["lengths"][-1]
        if number + 1 != unit.count:
            raise SourceError(
                files.join(found.folder, unit.name),
                f"it holds {number + 1:,} examples",
                f"{unit.count:,}, as {_INFO_NAME} says",
                _REMEDY,
            )
        arrays = {name: np.array(values) for name, values in kept.items()}
        save_arrays(files.join(context.state_dir, unit.state), arrays)

    def is_scanned(self, context: Context, unit: _Shard) -> bool:
        """Tells whether a file has been scanned."""
        return load_arrays(files.join(context.state_dir, unit.state)) is not None

    def gather(self, context: Context, listing: Listing, preflight: Preflight) -> Rows:
        """Joins the results of the files, in the order of the keys."""
        facts, parts = preflight.facts, []
        for shard in preflight.units:
            path = files.join(context.state_dir, shard.state)
            part = load_arrays(path)
            if part is None or len(part["keys"]) != shard.count:
                raise lost(path, "the results of the scan have been lost")
            parts.append(part)
        keys = [str(key) for part in parts for key in part["keys"]]
        places = [
            RecordPlace(shard.name, int(offset), int(length))
            for shard, part in zip(preflight.units, parts, strict=True)
            for offset, length in zip(part["offsets"], part["lengths"], strict=True)
        ]
        splits = [_SPLITS.get(shard.split, "") for shard in preflight.units for _ in range(shard.count)]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        for before, after in zip(order, order[1:], strict=False):
            if keys[before] == keys[after]:
                raise SourceError(
                    context.options.tfds_data_dir,
                    f"{places[before].file} and {places[after].file} hold examples of one key, {keys[after]}",
                    "one example a key",
                    "name another feature with `tfds_key`, or number the examples with `tfds_key=`",
                )

        def joined(name: str) -> np.ndarray:
            return np.concatenate([part[name] for part in parts])[order]

        is_mask = "class_pixels" in parts[0]
        names = facts.legend.class_names
        numbers: dict[bytes, int] = {}
        groups = [numbers.setdefault(row.tobytes(), len(numbers)) for row in joined("pixels")]
        patches = Patches(
            keys=tuple(keys[position] for position in order),
            classes=("",) * len(keys) if is_mask else tuple(names[label] for label in joined("labels").tolist()),
            groups=np.array(groups, np.int64),
            crs=tuple(map(str, joined("crs"))) if facts.georeferenced else (None,) * len(keys),
            transforms=joined("transforms") if facts.georeferenced else None,
            size_m=facts.patch_size * facts.resolution_m,
            pixels=facts.patch_size,
            published=tuple(splits[position] for position in order),
        )
        return Rows(
            patches,
            [places[position] for position in order],
            joined("bytes"),
            joined("digests"),
            joined("class_pixels") if is_mask else None,
        )

    def examples(self, context: Context, facts: Facts, planned: Sequence[PlannedExample]) -> Iterator[Encoded]:
        """Reads examples again and encodes them."""
        found = _opened(context.options, context.opening)
        for one in planned:
            path = files.join(found.folder, one.place.file)
            data = read_planned(path, one)
            if data is None:
                raise SourceError(
                    path,
                    "it has changed while records were built from it",
                    remedy="build again from a source at rest",
                )
            example = found.read(tfrecord.decode_lists(data), path)
            record = records.Example(
                example.stored, example.label, one.key, example.crs, example.transform, example.tile
            )
            validity = None if example.tile is None else example.tile.validity
            yield Encoded(records.encode(record), functools.partial(_both, example.pixels, validity))

    def files(self, context: Context, preflight: Preflight, rows: Rows) -> Sequence[cards.SourceFile]:
        """Returns the data set's folder, with a hash over its examples' keys and hashes."""
        found, whole = _opened(context.options, context.opening), hashlib.sha256()
        for key, code in zip(rows.patches.keys, rows.digests, strict=True):
            whole.update(key.encode() + b"\0" + code.tobytes())
        size = sum(_size(found.folder, shard) for shard in found.shards)
        return (cards.SourceFile(found.name, size, whole.hexdigest()),)

    def expected_size(self, options: TFDSOptions) -> None:
        """Returns None: the size of a record depends on its encoding."""
        return


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """A prepared data set.

    Attributes:
        folder: its folder.
        name: its name, with config and version.
        shards: its TFRecord files.
        features: the features in the JSON form of `features.json`, by name.
        image: name of the feature with the image.
        label: name of the feature with the class or the mask.
        key_feature: name of the feature that names an example; empty where examples are numbered.
        facts: the facts, complete.
    """

    folder: str
    name: str
    shards: tuple[_Shard, ...]
    features: Mapping[str, Any]
    image: str
    label: str
    key_feature: str
    facts: Facts

    def key(self, features: Mapping[str, Sequence[Any]], shard: _Shard, number: int) -> str:
        """Returns an example's key: a file's name without folders and ending, or its place in its split."""
        if not self.key_feature:
            return f"{shard.split}_{shard.first + number:06d}"
        return pathlib.PurePosixPath(features[self.key_feature][0].decode()).stem

    def read(self, features: Mapping[str, Sequence[Any]], where: str) -> _Example:
        """Reads and checks an example.

        Raises:
            SourceError: if it is damaged or of another form than the others.
        """
        facts = self.facts
        try:
            stored, pixels = self._image(features, where)
            label, tile = None, None
            if _is_class(self.features[self.label]):
                label = int(features[self.label][0])
                if not 0 <= label < len(facts.legend):
                    raise SourceError(where, f"its class is {label}", f"0 to {len(facts.legend) - 1}")
            else:
                pixels, tile = self._labels(features, pixels, where)
                stored = _raw(pixels) if facts.encoding == "raw" else stored
            crs = transform = None
            if facts.georeferenced:
                crs = features[records.CRS][0].decode()
                transform = tuple(_tensor(self.features[records.TRANSFORM], features[records.TRANSFORM]).tolist())
        except SourceError:
            raise
        except Exception as error:  # Damage makes the decoders raise exceptions of any kind.
            found = f"it cannot be read ({error})"
            raise SourceError(where, found, f"an example as {_FEATURES_NAME} says", _REMEDY) from None
        return _Example(stored, pixels, label, tile, crs, transform)

    def _image(self, features: Mapping[str, Sequence[Any]], where: str) -> tuple[bytes, np.ndarray]:
        size, feature, values = self.facts.patch_size, self.features[self.image], features[self.image]
        if self.facts.encoding == "jpeg":
            return values[0], image_decoding.decode_jpeg(values[0], where, size)
        pixels = _pixels(feature, values, where, (size, size, len(self.facts.bands)))
        if pixels.dtype.name != self.facts.dtype:
            whole = pixels.astype(self.facts.dtype)
            if not np.array_equal(whole, pixels):
                found = f"numbers of type {pixels.dtype} that are not whole or out of range"
                raise SourceError(where, found, f"whole numbers that {self.facts.dtype} holds")
            pixels = whole
        return _raw(pixels), pixels

    def _labels(
        self, features: Mapping[str, Sequence[Any]], pixels: np.ndarray, where: str
    ) -> tuple[np.ndarray, records.PixelLabels]:
        """Returns the pixels and the labels of a mask; numbers of 0 beside others that are not become 1."""
        size = (self.facts.patch_size,) * 2
        mask = _pixels(self.features[self.label], features[self.label], where, (*size, 1)).reshape(size)
        classes = len(self.facts.legend)
        if (strange := mask[(mask != IGNORE) & ((mask < 0) | (mask >= classes))]).size:
            raise SourceError(where, f"its mask holds {strange[0]}", f"0 to {classes - 1}, or {IGNORE} of no class")
        if records.VALIDITY in self.features:
            validity = _pixels(self.features[records.VALIDITY], features[records.VALIDITY], where, (*size, 1))
            validity = validity.reshape(size).astype(np.uint8)
        else:
            known = (pixels != self.facts.nodata).any(axis=-1)
            validity = np.where(known, VALID, NO_DATA).astype(np.uint8)
            if self.facts.encoding == "raw":
                # What is dark in single bands must not be taken for a hole.
                pixels = np.where(known[..., None], np.maximum(pixels, self.facts.nodata + 1), pixels)
        texts = (
            features[name][0].decode() if name in self.features else ""
            for name in (records.CITY, records.DATE, records.PRODUCT)
        )
        return pixels, records.PixelLabels(mask.astype(np.uint8), validity, *texts)


@functools.lru_cache(maxsize=1)
def _opened(options: TFDSOptions, opening: str) -> _Prepared:
    """Reads the description of a data set and its first example, once for each process and build.

    Raises:
        SourceError: if it is no prepared data set of images with classes or masks.
        OptionError: if an option does not fit it.
    """
    folder = _folder(options)
    try:
        names = (_INFO_NAME, _FEATURES_NAME)
        info, described = (json.loads(files.read_bytes(files.join(folder, name))) for name in names)
        features = described["featuresDict"]["features"]
        shards = _shards(folder, info)
        supervised = [item["featureKey"] for item in info.get("supervisedKeys", {}).get("tuple", {}).get("items", [])]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            folder, f"its description cannot be read ({type(error).__name__}: {error})", "a prepared data set", _REMEDY
        ) from None
    given = (options.tfds_image, options.tfds_label)
    default = supervised if len(supervised) == 2 else ("image", "label")
    image, label = (named or usual for named, usual in zip(given, default, strict=True))
    for name, feature in (("tfds_image", image), ("tfds_label", label), ("tfds_key", options.tfds_key)):
        if feature and feature not in features:
            raise OptionError(name, f"the data set has no feature '{feature}'", f"one of {', '.join(sorted(features))}")
    key = options.tfds_key
    if key is None:
        key = next((name for name in _KEYS if "text" in features.get(name, {})), "")
    facts = _facts(options, folder, info, features, image, label, shards)
    config = info.get("configName", "")
    name = "/".join(filter(None, (info["name"], config, info.get("version", ""))))
    return _Prepared(folder, name, shards, features, image, label, key, facts)


def _folder(options: TFDSOptions) -> str:
    """Returns the folder of the data set's newest version, or of the given one."""
    folder = options.tfds_data_dir
    name, _, version = (options.tfds_name or "").partition(":")
    folder = files.join(folder, *filter(None, name.split("/")), *filter(None, [version]))
    if files.is_folder(folder) and not files.exists(files.join(folder, _FEATURES_NAME)):
        versions = [name for name in files.list_names(folder) if re.fullmatch(r"\d+\.\d+\.\d+", name)]
        if versions:
            folder = files.join(folder, max(versions, key=lambda name: tuple(map(int, name.split(".")))))
    if not files.is_folder(folder) or not files.exists(files.join(folder, _FEATURES_NAME)):
        raise SourceError(
            folder,
            f"it holds no {_FEATURES_NAME}",
            "a data set that TensorFlow Datasets has prepared",
            "prepare it with tfds.builder(NAME).download_and_prepare(), or correct `tfds_data_dir` and `tfds_name`; a "
            "data set with configurations is named with one, such as eurosat/all",
        )
    return folder


def _shards(folder: str, info: Mapping[str, Any]) -> tuple[_Shard, ...]:
    """Returns the files of all splits.

    Raises:
        SourceError: if they are no TFRecord files.
    """
    form = info.get("fileFormat") or "tfrecord"
    if form != "tfrecord":
        raise SourceError(
            folder,
            f"its files are of the format {form}",
            "TFRecord files",
            "prepare it again with tfds.builder(NAME, file_format='tfrecord').download_and_prepare()",
        )
    shards = []
    for split in info["splits"]:
        lengths = [int(length) for length in split["shardLengths"]]
        template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        first = 0
        for number, count in enumerate(lengths):
            name = template.format(
                DATASET=info["name"],
                SPLIT=split["name"],
                FILEFORMAT="tfrecord",
                SHARD_X_OF_Y=f"{number:05d}-of-{len(lengths):05d}",
                SHARD_INDEX=f"{number:05d}",
                NUM_SHARDS=f"{len(lengths):05d}",
            )
            if count:
                shards.append(_Shard(name, split["name"], first, count, f"scan-{len(shards):05d}.npz"))
            first += count
    if not shards:
        raise SourceError(folder, "it holds no example", "a data set with examples", _REMEDY)
    return tuple(shards)


def _facts(
    options: TFDSOptions,
    folder: str,
    info: Mapping[str, Any],
    features: Mapping[str, Any],
    image: str,
    label: str,
    shards: Sequence[_Shard],
) -> Facts:
    """Returns the facts about the records of a data set."""
    bands, feature = scenes.parse_band_order(options.band_order), features[image]
    first = tfrecord.decode_lists(next(_records(folder, shards[0])))
    where = f"{folder}: feature '{image}'"
    if _is_image(feature):
        (data,) = first[image]
        encoding = "jpeg" if data[:2] == b"\xff\xd8" else "raw"
        height, width, channels = _form_of(data, where)
        if encoding == "jpeg" and channels != 3:
            raise SourceError(where, "grey JPEGs", "JPEGs of RGB, or PNGs")
        dtype = "uint8"
    elif "tensor" in feature:
        form = _shape(feature["tensor"])
        if len(form) != 3 or min(form) < 1:
            raise SourceError(where, f"a tensor of the shape {form}", "height, width and bands")
        (height, width, channels), encoding = form, "raw"
        dtype = "uint8" if feature["tensor"]["dtype"] == "uint8" else "uint16"
    else:
        raise OptionError("tfds_image", f"the feature '{image}' is no image", "an image or a tensor")
    if channels != len(bands):
        raise OptionError("band_order", f"{len(bands)} names", f"{channels}, one a channel of feature '{image}'")
    if height != width:
        raise SourceError(where, f"images of {width}x{height} pixels", "square images")
    names, is_class = options.tfds_classes or _class_names(folder, label, features[label]), _is_class(features[label])
    if not names:
        raise OptionError(
            "tfds_classes", f"the data set does not name the classes of feature '{label}'", "their names, in order"
        )
    return Facts(
        name=re.sub(r"\W+", "_", "_".join(filter(None, (info["name"], info.get("configName", ""))))),
        task="classification" if is_class else "segmentation",
        legend=Legend(info["name"], tuple(map(LegendClass, names, _colours(len(names))))),
        bands=bands,
        dtype=dtype,
        encoding=encoding,
        level=options.scene_level or "",
        patch_size=height,
        resolution_m=options.resolution_m,
        georeferenced=records.CRS in features and records.TRANSFORM in features,
        attribution=" ".join(info.get("citation", "").split()) or info["name"],
    )


def _class_names(folder: str, name: str, feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of classes from their file, or their numbers; none where neither is known."""
    path = files.join(folder, f"{name}.labels.txt")
    if files.exists(path):
        return tuple(files.read_bytes(path).decode("utf-8").splitlines())
    label = feature.get("classLabel") or feature.get("image", {}).get("label") or {}
    return tuple(map(str, range(int(label.get("numClasses", 0)))))


def _colours(count: int) -> list[str]:
    """Returns colors of different hues, `#rrggbb`; the first ones do not depend on the number."""
    golden = (math.sqrt(5) - 1) / 2
    colours = (colorsys.hsv_to_rgb(number * golden % 1, 0.65, 0.9 - 0.3 * (number % 2)) for number in range(count))
    return ["#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in colours]


def _is_image(feature: Mapping[str, Any]) -> bool:
    return "image" in feature


def _is_class(feature: Mapping[str, Any]) -> bool:
    return "classLabel" in feature


def _form_of(data: bytes, where: str) -> tuple[int, int, int]:
    """Returns height, width and channels of an encoded image, from its header."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.mode in ("RGB", "L"):
                return image.height, image.width, len(image.getbands())
            found = f"images of mode {image.mode}"
    except Exception as error:
        found = f"its first image cannot be read ({error})"
    raise SourceError(where, found, "PNGs or JPEGs of 8-bit numbers, grey or RGB")


def _shape(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.get("shape", {}).get("dimensions", ()))


def _tensor(feature: Mapping[str, Any], values: Sequence[Any]) -> np.ndarray:
    """Reads the numbers of a tensor, which are stored as bytes, compressed, or as a list of numbers."""
    tensor = feature["tensor"]
    dtype, encoding = np.dtype(tensor["dtype"]), tensor.get("encoding", "none").lower()
    if encoding == "none":
        return np.array(values, dtype).reshape(_shape(tensor))
    data = zlib.decompress(values[0]) if encoding == "zlib" else values[0]
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(_shape(tensor)).astype(dtype, copy=False)


def _pixels(feature: Mapping[str, Any], values: Sequence[Any], where: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Decodes an image of a shape; of one channel, a tensor may lack its last axis."""
    if _is_image(feature):
        return image_decoding.decode_png(values[0], where, shape if shape[2] == 3 else shape[:2]).reshape(shape)
    pixels = _tensor(feature, values)
    if pixels.shape not in (shape, shape[:2] if shape[2] == 1 else shape):
        raise SourceError(where, f"numbers of the shape {pixels.shape}", f"{shape}")
    return pixels.reshape(shape)


def _both(pixels: np.ndarray, validity: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    return pixels, validity


def _raw(pixels: np.ndarray) -> bytes:
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()


def _size(folder: str, shard: _Shard) -> int:
    path = files.join(folder, shard.name)
    try:
        return files.size(path)
    except FileNotFoundError:
        expected = f"{shard.count:,} examples, as {_INFO_NAME} says"
        raise SourceError(path, "there is no such file", expected, _REMEDY) from None


def _records(folder: str, shard: _Shard) -> Iterator[bytes]:
    """Yields the examples of a file.

    Raises:
        SourceError: if it is damaged or gone.
    """
    path = files.join(folder, shard.name)
    _size(folder, shard)
    try:
        yield from tfrecord.read_records(path)
    except RecordsError as error:
        raise SourceError(path, error.args[1], error.args[2], _REMEDY) from None
