"""Data card of a records folder, `card.json`: bands, numbers, classes, splits and sources."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from eo_keras.core import files
from eo_keras.core.serialization import later_field, read_signed, signed_bytes, to_json
from eo_keras.errors import RecordsError
from eo_keras.legends.catalogue import Legend
from eo_keras.records import targets as label_layouts
from eo_keras.records.targets import DistanceClasses, Targets
from eo_keras.sensors.catalogue import DIGITAL_NUMBERS, SENTINEL2
from eo_keras.sensors.radiometry import Reflectance

DATA_CARD_NAME = "card.json"
SCHEMA = 1
"""Version of the card's layout."""


_LISTED = 10
"""Largest number of classes that a line names; it gives the number of others."""


@dataclasses.dataclass(frozen=True)
class BandStatistics:
    """Statistics of one band over the training split, in stored numbers: of pixels with data, of tiles the clear ones.

    Attributes:
        band: the band's name.
        mean: arithmetic mean.
        std: population standard deviation.
        minimum: smallest valid value.
        maximum: largest valid value; of float32, all statistics are those of numbers rounded to three digits.
        valid: number of valid pixels.
        nodata: number of pixels without data.
        percentiles: by percentage (`"1"` to `"99"`), the smallest number that so many per cent of the pixels do not
            exceed; empty in cards that were written before percentiles were.
    """

    band: str
    mean: float
    std: float
    minimum: int | float
    maximum: int | float
    valid: int
    nodata: int
    percentiles: Mapping[str, int | float] = dataclasses.field(default_factory=dict)

    @property
    def nodata_share(self) -> float:
        """Share of the pixels that hold no data, 0 to 1."""
        return self.nodata / max(1, self.valid + self.nodata)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file of a split."""

    name: str
    examples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """One split: its examples by class (of tiles, the clear pixels), and its shards."""

    examples: int
    classes: Mapping[str, int]
    shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """Source of the data: a file's name, size and SHA-256; of a folder, the hash over all its images."""

    name: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class StoredImages:
    """Layout of the images in the records of a folder.

    Attributes:
        bands: names of the bands, in stored order.
        dtype: type of the numbers, `uint8`, `uint16` or `float32`.
        encoding: `jpeg`, or `raw` little-endian numbers in height, width, band order.
        patch_size: height and width in pixels.
    """

    bands: tuple[str, ...]
    dtype: str
    encoding: str
    patch_size: int


IMAGE = "image"
"""Name of the only modality of a records folder, where none is given."""


@dataclasses.dataclass(frozen=True)
class Modality:
    """One kind of image that the records hold: what one sensor saw at one date, or heights.

    A pixel of no data holds 0 in all bands; of float32, NaN in some band. A record may lack a modality.

    Attributes:
        name: its name, such as `s2`, `s2_before`, `s1` or `height`. `X` and `X_before` are two dates of one sensor.
        sensor: name of its sensor, see `eo_keras.sensors.catalogue`.
        bands: names of the stored bands, in stored order.
        dtype: type of the stored numbers, `uint8`, `uint16` or `float32`.
        units: their units: `digital numbers`, `dB` or `m`.
        resolution_m: pixel size in meters.
        patch_size: height and width in pixels. The first modality has that of the labels; the size of a further one of
            coarser resolution divides it.
        encoding: see `StoredImages`.
        level: Sentinel-2 processing level, `L1C` or `L2A`; empty for other sensors.
        reflectance: relation of the numbers to reflectance; None where there is none or it is not known.
        statistics: one entry a band, over the training split; empty before records are written.
        missing: number of examples that lack it, by split.
    """

    name: str
    sensor: str
    bands: tuple[str, ...]
    dtype: str
    units: str
    resolution_m: float
    patch_size: int
    encoding: str = "raw"
    level: str = ""
    reflectance: Reflectance | None = None
    statistics: tuple[BandStatistics, ...] = ()
    missing: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def first_of(cls, described: Any) -> Modality:
        """Returns the first modality of records, whose entries are attributes of the description itself."""
        names = [field.name for field in dataclasses.fields(cls) if hasattr(described, field.name)]
        return cls(name=described.modality, **{name: getattr(described, name) for name in names if name != "name"})

    @property
    def images(self) -> StoredImages:
        """Layout of its images."""
        return StoredImages(self.bands, self.dtype, self.encoding, self.patch_size)


@dataclasses.dataclass(frozen=True)
class DataCard:
    """Description of a records folder.

    Bands, numbers and statistics are those of its first modality; where it has several, `others` describes the rest and
    `modalities` all of them.

    Attributes:
        dataset: the data set's name, also the beginning of the shards' names.
        version: version of the records' content.
        task: `classification` of patches, or `segmentation`, where every pixel has one.
        bands: names of the stored bands, in stored order.
        dtype: type of the stored numbers, see `Modality`.
        encoding: encoding of images: `jpeg`, or `raw` little-endian numbers in height, width, band order.
        level: Sentinel-2 processing level, `L1C` or `L2A`; empty for other sensors.
        harmonised: whether the product's radiometric offset is already applied.
        reflectance: relation of the numbers to reflectance; None where the source does not say it.
        nodata: the number that means "no data".
        resolution_m: pixel size in meters.
        patch_size: height and width of an image in pixels.
        georeferenced: whether every record holds its CRS and transform.
        legend: the classes.
        splits: the parts by name (`train`, `val`, `test`).
        split_method: options of the split, and the resulting counts.
        statistics: one entry a band, over the training split.
        sources: the files the records were made from.
        products: Sentinel-2 product identifiers, where known.
        attribution: whom to name when the data or a model trained on it is published.
        fingerprint: SHA-256 over all but the percentiles, which follow from the shards.
        modality: name of the first modality.
        sensor: its sensor, see `eo_keras.sensors.catalogue`.
        units: the units of its numbers.
        missing: number of examples that lack it, by split.
        others: the further modalities.
        distance: classes of the distance from the boundaries of objects, which each record then holds beside its mask.
    """

    dataset: str
    version: str
    task: str
    bands: tuple[str, ...]
    dtype: str
    encoding: str
    level: str
    harmonised: bool
    reflectance: Reflectance | None
    nodata: int
    resolution_m: float
    patch_size: int
    georeferenced: bool
    legend: Legend
    splits: Mapping[str, Split]
    split_method: Mapping[str, Any]
    statistics: tuple[BandStatistics, ...]
    sources: tuple[SourceFile, ...]
    products: tuple[str, ...]
    attribution: str
    fingerprint: str = ""
    schema: int = SCHEMA
    modality: str = later_field(IMAGE)
    sensor: str = later_field(SENTINEL2.name)
    units: str = later_field(DIGITAL_NUMBERS)
    missing: Mapping[str, int] = later_field(dict)
    others: tuple[Modality, ...] = later_field(())
    distance: DistanceClasses | None = later_field(None)

    @property
    def modalities(self) -> dict[str, Modality]:
        """All modalities by name, the first one first."""
        first = Modality.first_of(self)
        return {one.name: one for one in (first, *self.others)}

    @property
    def targets(self) -> Targets:
        """Layout of the labels."""
        return label_layouts.of_task(self.task)

    @property
    def images(self) -> StoredImages:
        """Layout of the images."""
        return StoredImages(self.bands, self.dtype, self.encoding, self.patch_size)

    def missing_classes(self) -> tuple[str, ...]:
        """Returns a line for each split that has no example, or no clear pixel, of some classes of its legend."""
        what = self.targets.counted.removesuffix("s")
        lines = []
        for name, split in self.splits.items():
            missing = [one for one in self.legend.class_names if split.examples and not split.classes.get(one)]
            if missing:
                means = "which cannot be learned" if name == "train" else "which cannot be scored there"
                listed = ", ".join(missing[:_LISTED]) + (
                    f" and {len(missing) - _LISTED} more" * (len(missing) > _LISTED)
                )
                lines.append(f"the split '{name}' has no {what} of {listed}, {means}")
        return tuple(lines)

    def with_fingerprint(self) -> DataCard:
        """Returns the card with its fingerprint filled in."""
        content = to_json(dataclasses.replace(self, fingerprint=""))
        # Records from before percentiles were kept have the fingerprint of the same records made today.
        for part in (content, *content.get("others", ())):
            for band in part["statistics"]:
                del band["percentiles"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return dataclasses.replace(self, fingerprint=hashlib.sha256(text.encode()).hexdigest())


def write_card(card: DataCard, folder: str | os.PathLike[str]) -> None:
    """Writes a card into a folder under its fixed name."""
    for name, data in contents(card).items():
        files.write_bytes(files.join(folder, name), data)


def contents(card: DataCard) -> dict[str, bytes]:
    """Returns the content of a card's file, by the file's name."""
    return {DATA_CARD_NAME: signed_bytes(card)}


def read_data_card(records_dir: str | os.PathLike[str]) -> DataCard:
    """Reads a records folder's card.

    Raises:
        RecordsError: if the folder or the card is missing, or the card cannot be read.
    """
    expected = "a folder made by launch.build"
    return read_signed(DataCard, records_dir, DATA_CARD_NAME, schema=SCHEMA, error=RecordsError, expected=expected)
