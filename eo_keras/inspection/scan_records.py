"""Scan of a records folder: checks every record, and collects the content of its page. Imports no TensorFlow."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from eo_keras.core import files
from eo_keras.errors import RecordsError
from eo_keras.geo import coordinates as places_of
from eo_keras.geo.footprints import Footprints
from eo_keras.inspection import leakage
from eo_keras.legends.catalogue import IGNORE
from eo_keras.plots import classification, figure
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.records.statistics import Histograms
from eo_keras.sensors import catalogue as sensors
from eo_keras.sensors.sentinel2 import COMPOSITES

_BATCH = 256
_BATCH_BYTES = 64 << 20
"""Images, or of tiles the bytes, whose histograms and fingerprints are computed together: several times as fast as one
by one."""

_SHOWN_PIXELS = 128
"""Largest height and width of a tile on a page."""

Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Survey:
    """Keys, labels, fingerprints and histograms of all N records of a folder, in the order of the shards.

    Attributes:
        keys: keys of the examples.
        splits: the split (`train`, `val`, `test`) of each.
        labels: int64 (N,); of tiles, the class that most of their pixels have.
        fingerprints: of all images, see `leakage.Fingerprints`.
        crs: coordinate reference system of each, None where the record has none.
        transforms: float64 (N, 6), NaN where the record has none.
        histograms: by split, the numbers of pixels with data that are clear, int64 (bands, 256 or 65,536).
        samples: by split and class, the first images (height, width, 3) uint8, in colors for display; after each tile
            its mask.
    """

    keys: tuple[str, ...]
    splits: tuple[str, ...]
    labels: np.ndarray
    fingerprints: leakage.Fingerprints
    crs: tuple[str | None, ...]
    transforms: np.ndarray
    histograms: Mapping[str, np.ndarray]
    samples: Mapping[str, Mapping[str, list[np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Places:
    """Locations of N patches.

    Attributes:
        degrees: float64 (N, 2), longitude and latitude of the centers.
        footprints: the patches' footprints.
        source: the file or the records that they are from, for messages.
    """

    degrees: np.ndarray
    footprints: Footprints
    source: str


def check_shards(card: cards.DataCard, records_dir: str | os.PathLike[str]) -> int:
    """Checks that every shard of a card is there and of the right length, and returns their number.

    Raises:
        RecordsError: if a shard is missing or of another length.
    """
    shards = [shard for split in card.splits.values() for shard in split.shards]
    for shard in shards:
        records.check_shard(records_dir, shard)
    return len(shards)


def verify(card: cards.DataCard, records_dir: str | os.PathLike[str], *, progress: Progress | None = None) -> int:
    """Reads every record and compares everything with the card.

    Checked are the lengths of the shards, the checksums of every record, that it can be decoded and has the card's
    form, that keys are unique, the counts by shard and class, and the SHA-256 of every shard.

    Args:
        card: the folder's card.
        records_dir: the folder.
        progress: called with ("verifying", records done, records in all).

    Returns:
        The number of records.

    Raises:
        RecordsError: at the first damage, which is named by shard and, where one record is concerned, by its number,
            counted from 0.
    """
    return sum(1 for _ in _read_checked(card, records_dir, "verifying", progress, checksums=True))


def survey(
    card: cards.DataCard,
    records_dir: str | os.PathLike[str],
    *,
    samples: int = 10,
    checksums: bool = False,
    progress: Progress | None = None,
) -> Survey:
    """Reads every record once and returns labels, fingerprints, histograms and samples.

    All checks of `verify` are made, that of the SHA-256 only if `checksums`.

    Args:
        card: the folder's card.
        records_dir: the folder.
        samples: number of images of each class and split that are kept.
        checksums: whether to compare the SHA-256 of the shards too.
        progress: called with ("reading", records done, records in all).

    Raises:
        RecordsError: at the first damage, see `verify`.
    """
    names = card.legend.class_names
    keys, splits, labels, crs, transforms = [], [], [], [], []
    fingerprints = []
    histograms = {split: Histograms(len(card.bands), card.dtype) for split in card.splits}
    shown = {split: {name: [] for name in names} for split in card.splits}
    bands = [card.bands.index(band) for band in COMPOSITES["RGB"] if band in card.bands]
    batch: list[np.ndarray] = []
    validity: list[np.ndarray] = []
    pixel_bytes = len(card.bands) * np.dtype(card.dtype).itemsize
    together = max(1, min(_BATCH, _BATCH_BYTES // (card.patch_size**2 * pixel_bytes)))

    def take_batch(split: str) -> None:
        if batch:
            images = np.stack(batch)
            histograms[split].add(images, np.stack(validity) if validity else None)
            # Without a known relation to reflectance, the largest number counts as a reflectance of 1.
            largest = 1.0 if images.dtype.kind == "f" else float(np.iinfo(images.dtype).max)
            scale = card.reflectance.scale if card.reflectance else 1 / largest
            fingerprints.append(leakage.fingerprint(images, scale, bands))
            batch.clear()
            validity.clear()

    for split, example, image in _read_checked(card, records_dir, "reading", progress, checksums=checksums):
        if splits and splits[-1] != split:
            take_batch(splits[-1])
        keys.append(example.key)
        splits.append(split)
        labels.append(_label(example))
        crs.append(example.crs)
        transforms.append(example.transform or (np.nan,) * 6)
        batch.append(image)
        if example.tile is not None:
            validity.append(example.tile.validity)
        if len(kept := shown[split][names[labels[-1]]]) < samples:
            kept += _shown(example, image, card)[: samples - len(kept)]
        if len(batch) == together:
            take_batch(split)
    if splits:
        take_batch(splits[-1])
    if not splits:
        raise RecordsError(records_dir, "it holds no example", "a records folder with examples", "build it again")
    return Survey(
        keys=tuple(keys),
        splits=tuple(splits),
        labels=np.array(labels, np.int64),
        fingerprints=leakage.Fingerprints.joined(fingerprints),
        crs=tuple(crs),
        transforms=np.array(transforms, np.float64),
        histograms={split: histogram.counts for split, histogram in histograms.items()},
        samples=shown,
    )


def _label(example: records.Example) -> int:
    """Returns a patch's class; of a tile, the one that most of its pixels have."""
    if example.tile is None:
        return example.label
    return int(np.argmax(example.tile.class_pixels(IGNORE)))


def _shown(example: records.Example, image: np.ndarray, card: cards.DataCard) -> list[np.ndarray]:
    """Returns an image of a patch for display, or images of a tile and of its mask."""
    if example.tile is None:
        return [classification.to_display(image, card.bands, card.dtype, stretched=card.reflectance is None)]
    step = -(-card.patch_size // _SHOWN_PIXELS)
    smaller = image[::step, ::step]
    picture = classification.to_display(smaller, card.bands, card.dtype, stretched=card.reflectance is None)
    return [picture, figure.classes_to_display(example.tile.labels[::step, ::step], card.legend.colours)]


def locate(card: cards.DataCard, surveyed: Survey, coordinates: str | None = None) -> Places | None:
    """Returns the locations of the patches.

    Args:
        card: the folder's card.
        surveyed: its survey.
        coordinates: CSV file with the header `patch,latitude,longitude`, in degrees; it overrides the
            records' own. The patches are then squares around these centers along the grid of their UTM zone.

    Returns:
        The locations, or None if neither the records nor a file have them.

    Raises:
        SourceError: if the file cannot be read or lacks a patch, or the records' coordinates are no place on Earth.
    """
    size_m = card.resolution_m * card.patch_size
    if coordinates is not None:
        degrees, _ = places_of.read_coordinates(coordinates, surveyed.keys)
        corners = places_of.corners_from_centres(degrees, size_m)
        source = os.path.basename(coordinates)
    elif all(surveyed.crs) and np.isfinite(surveyed.transforms).all():
        corners = places_of.corners_from_transforms(surveyed.crs, surveyed.transforms, card.patch_size)
        degrees = places_of.centres_of(corners)
        source = "the records' CRS and transforms"
    else:
        return None
    return Places(degrees, places_of.footprints_of(corners, surveyed.keys), source)


def find_leaks(
    card: cards.DataCard, surveyed: Survey, places: Places | None, options: leakage.LeakOptions
) -> leakage.LeakReport:
    """Searches leakage between the splits of a surveyed folder; see `eo_keras.inspection.leakage`."""
    return leakage.find_leaks(
        leakage.Inventory(
            keys=surveyed.keys,
            splits=surveyed.splits,
            classes=tuple(card.legend.class_names[label] for label in surveyed.labels),
            fingerprints=surveyed.fingerprints,
            footprints=None if places is None else places.footprints,
            pixel_m=card.resolution_m,
        ),
        options,
    )


def pictures(card: cards.DataCard, records_dir: str | os.PathLike[str], keys: set[str]) -> dict[str, np.ndarray]:
    """Reads some examples' images, (height, width, 3) uint8 by key, in colors for display.

    Raises:
        RecordsError: if a shard is damaged.
    """
    images: dict[str, np.ndarray] = {}
    for split in card.splits.values():
        for shard in split.shards:
            if len(images) == len(keys):
                return images
            for example in records.read_examples(files.join(records_dir, shard.name)):
                if example.key in keys:
                    images[example.key] = _shown(example, records.decode_image(example, card), card)[0]
    return images


def describe(card: cards.DataCard) -> str:
    """Describes a card in lines of text: facts, counts by class and split, and statistics by band."""
    lines = [f"{name:<13}{value}" for name, value in facts(card)]
    lines += ["", card.targets.counted.ljust(24) + "".join(name.rjust(14) for name in card.splits)]
    for class_name in card.legend.class_names:
        counts = [split.classes[class_name] for split in card.splits.values()]
        lines.append(class_name.ljust(24) + "".join(f"{count:>14,}" if count else f"{'-':>14}" for count in counts))
    lines.append("examples".ljust(24) + "".join(f"{s.examples:>14,}" for s in card.splits.values()))
    lines.append("shards".ljust(24) + "".join(f"{len(s.shards):>14,}" for s in card.splits.values()))
    columns = ("mean", "std", "min", "2 %", "median", "98 %", "max", "no data")
    lines += ["", "band (training)" + "".join(name.rjust(11) for name in columns)]
    for name, band in band_statistics(card):
        numbers = [
            f"{number:>11.5g}" if isinstance(number, float) else f"{number:>11}" for number in order_statistics(band)
        ]
        lines.append(
            f"{name:<15}{band.mean:>11.3f}{band.std:>11.3f}{''.join(numbers)}{100 * band.nodata_share:>9.3g} %"
        )
    return "\n".join(lines)


def facts(card: cards.DataCard) -> list[tuple[str, str]]:
    """Returns the entries of a card without counts and statistics, as names and values."""
    scale = "not known"
    if card.reflectance is not None:
        offset = card.reflectance.offset
        added = f" {'-' if offset < 0 else '+'} {abs(offset):.6g}" if offset else ""
        scale = f"{card.reflectance.scale:.6g} * number{added}"
    size = f"{card.patch_size}x{card.patch_size} pixels of {card.resolution_m:g} m"
    georeferenced = ", georeferenced" if card.georeferenced else ""
    sensor = f"{sensors.named(card.sensor).title} {card.level}".rstrip()
    others = [(one.name, _described(one, card)) for one in card.others]
    if others:
        others.insert(0, (card.modality, _described(card.modalities[card.modality], card)))
    return [
        ("data set", f"{card.dataset} {card.version}, {card.task}, {sensor}"),
        ("images", f"{size}, {card.dtype}, stored as {card.encoding}{georeferenced}"),
        ("bands", ",".join(card.bands)),
        ("reflectance", f"{scale}; no data is {card.nodata}"),
        *others,
        ("sources", ", ".join(f"{source.name} ({source.bytes:,} bytes)" for source in card.sources)),
        ("split", ", ".join(f"{key}={value}" for key, value in card.split_method.items())),
        ("fingerprint", card.fingerprint),
    ]


def _described(one: cards.Modality, card: cards.DataCard) -> str:
    """Describes a modality of several in one line."""
    sensor = f"{sensors.named(one.sensor).title} {one.level}".rstrip()
    lacking = [f"{count:,} of {card.splits[split].examples:,} in {split}" for split, count in one.missing.items()]
    missing = f"; missing in {', '.join(lacking)}" if lacking else ""
    size = f"{one.patch_size}x{one.patch_size} pixels of {one.resolution_m:g} m"
    return f"{sensor}, {','.join(one.bands)} in {one.units}, {one.dtype}, {size}{missing}"


def band_statistics(card: cards.DataCard) -> list[tuple[str, cards.BandStatistics]]:
    """Returns the statistics of the bands of all modalities by name; of several with the modality's name."""
    modalities = card.modalities
    several = len(modalities) > 1
    return [
        (f"{name}:{band.band}" if several else band.band, band)
        for name, one in modalities.items()
        for band in one.statistics
    ]


def order_statistics(band: cards.BandStatistics) -> tuple[int | float | str, ...]:
    """Returns a band's smallest number, 2nd, 50th and 98th percentile, and largest number."""
    low, median, high = (band.percentiles.get(percent, "-") for percent in ("2", "50", "98"))
    return band.minimum, low, median, high, band.maximum


def _read_checked(
    card: cards.DataCard,
    records_dir: str | os.PathLike[str],
    stage: str,
    progress: Progress | None,
    *,
    checksums: bool,
) -> Iterator[tuple[str, records.Example, np.ndarray]]:
    """Yields (split, example, image) of every record, checked as `verify` says."""
    check_shards(card, records_dir)
    total = sum(split.examples for split in card.splits.values())
    modalities = card.modalities
    place_of: dict[str, str] = {}
    for split_name, split in card.splits.items():
        by_class, missing = collections.Counter(), collections.Counter()
        for shard in split.shards:
            path = files.join(records_dir, shard.name)
            number = -1
            for number, example in enumerate(records.read_examples(path)):
                image = _checked_image(example, card, path, number)
                first = place_of.setdefault(example.key, f"record {number} of {shard.name}")
                if first != f"record {number} of {shard.name}":
                    raise _damaged(path, f"record {number} has the key {example.key}, as has {first}", "unique keys")
                _count(by_class, example, card)
                missing.update(_check_others(example, card, path, number))
                yield split_name, example, image
                if progress and len(place_of) % 64 == 0:
                    progress(stage, len(place_of), total)
            if number + 1 != shard.examples:
                raise _damaged(path, f"it holds {number + 1} records", f"{shard.examples}, as the card says")
            if checksums and (found := files.sha256_of_file(path)) != shard.sha256:
                raise _damaged(path, f"its records can be read, but its SHA-256 is {found}", f"{shard.sha256}")
        for name in card.legend.class_names:
            if by_class[name] != split.classes.get(name, 0):
                found = f"split '{split_name}' holds {by_class[name]} {card.targets.counted} of {name}"
                raise _damaged(records_dir, found, f"{split.classes.get(name, 0)}, as the card says")
        for name, one in modalities.items():
            if missing[name] != one.missing.get(split_name, 0):
                found = f"{missing[name]} records of the split '{split_name}' lack the modality '{name}'"
                raise _damaged(records_dir, found, f"{one.missing.get(split_name, 0)}, as the card says")
    if progress:
        progress(stage, len(place_of), total)


def _check_others(example: records.Example, card: cards.DataCard, path: str, number: int) -> list[str]:
    """Checks the images of further modalities; returns the names of the modalities that the example lacks."""
    for one in card.others:
        try:
            records.decode_modality(example, card, one.name)
        except ValueError as error:
            raise _damaged(
                path,
                f"'{one.name}' of record {number} cannot be decoded ({error})",
                f"{one.patch_size} x {one.patch_size} pixels of {len(one.bands)} bands in {one.dtype}",
            ) from None
    if unknown := sorted(example.others.keys() - card.modalities.keys()):
        raise _damaged(path, f"record {number} has a modality '{unknown[0]}'", ", ".join(card.modalities))
    lacking = [one.name for one in card.others if one.name not in example.others]
    return lacking if example.image else [card.modality, *lacking]


def _count(by_class: collections.Counter, example: records.Example, card: cards.DataCard) -> None:
    """Counts a patch by its class, a tile by its pixels'."""
    if example.tile is None:
        by_class[card.legend.class_names[example.label]] += 1
        return
    pixels = example.tile.class_pixels(len(card.legend))
    by_class.update(dict(zip(card.legend.class_names, pixels.tolist(), strict=True)))


def _check_labels(example: records.Example, card: cards.DataCard, path: str, number: int) -> None:
    last = len(card.legend) - 1
    if (example.tile is not None) != card.targets.per_pixel:
        raise _damaged(path, f"record {number} is of another kind", f"{card.task}, as the card says")
    if example.tile is None:
        if not 0 <= example.label <= last:
            raise _damaged(path, f"record {number} has label {example.label}", f"0 to {last}")
        return
    mask, form = example.tile.mask, (card.patch_size, card.patch_size)
    if mask.shape != form or example.tile.validity.shape != form:
        raise _damaged(path, f"the mask of record {number} has the shape {mask.shape}", f"{form}, as the card says")
    if (outside := mask[(mask > last) & (mask != IGNORE)]).size:
        raise _damaged(path, f"the mask of record {number} holds {outside[0]}", f"0 to {last}, or {IGNORE}")


def _checked_image(example: records.Example, card: cards.DataCard, path: str, number: int) -> np.ndarray:
    _check_labels(example, card, path, number)
    try:
        image = records.decode_image(example, card)
    except Exception as error:
        raise _damaged(path, f"the image of record {number} cannot be decoded ({error})", f"{card.encoding}") from None
    form = (card.patch_size, card.patch_size, len(card.bands))
    if image.shape != form or image.dtype != card.dtype:
        found = f"the image of record {number} has the shape {image.shape} and the type {image.dtype}"
        raise _damaged(path, found, f"{form} and {card.dtype}, as the card says")
    return image


def _damaged(where: str | os.PathLike[str], found: str, expected: str) -> RecordsError:
    return RecordsError(where, found, expected, "copy the folder again, or build the records again")
