"""Sources of patches: archives that hold one file for each image, which the scan reads once and the shards again.

Each such data set is a `PatchReader`. The results of a unit of the scan are a file in the build's state, so
that a scan that is cut off continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from eo_keras.core import files
from eo_keras.core.options import fields
from eo_keras.errors import OptionError, SourceError
from eo_keras.geo.distance_classes import distance_classes
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from tfrecords_builder.sources import image_decoding
from tfrecords_builder.sources.archive import Archive
from tfrecords_builder.sources.items import Content, Item, Patch
from tfrecords_builder.sources.options import required
from tfrecords_builder.sources.source import (
    DIGEST_BYTES,
    Context,
    Encoded,
    ExpectedSize,
    Facts,
    Listing,
    PlannedExample,
    Preflight,
    Rows,
    RunUnits,
    digest,
    lost,
)
from tfrecords_builder.splits.types import Patches, SplitOptions
from tfrecords_builder.storage.state import load_arrays, save_arrays

UNIT_PATCHES = 256
"""Number of patches in a unit of work: many, for little overhead, and few enough for a smooth progress bar."""

_STATE_FRACTION = 0.02  # What a build keeps beside the shards until it has ended, and the card.
_SAMPLED_ROWS = slice(None, None, 8)  # Every eighth row says which band is the darkest as surely as all.


class PatchReader(Protocol):
    """Protocol of a reader of one data set's images. Must be picklable.

    Attributes:
        facts: facts about the data set; without bands where its options name them.
        Options: frozen dataclass of its options, with `source`.
    """

    facts: Facts
    Options: type

    def complete(self, options: Any, items: Sequence[Item] = ()) -> Facts:
        """Returns the facts, completed from the options and from the examples that are listed.

        Args:
            options: the options.
            items: some or all of the examples; any of them give the same facts. None to check the options alone.

        Raises:
            OptionError: if the options do not complete them.
        """

    def items(self, archive: Archive, options: Any) -> list[Item]:
        """Lists the examples of an archive, sorted by key.

        Raises:
            SourceError: if there are none, or one is not of the data set's form.
        """

    def read(self, archive: Archive, item: Item, options: Any) -> Patch:
        """Reads and checks one example.

        Raises:
            SourceError: if it is damaged or not of the data set's form.
        """

    def content(self, archive: Archive, item: Item, options: Any) -> Content:
        """Returns the content of an example's record; a JPEG is not decoded.

        Raises:
            SourceError: if it cannot be read.
        """

    def warnings(self, where: str, means: np.ndarray, count: int) -> tuple[str, ...]:
        """Checks the mean of each band (bands,) of raw numbers over all examples, no data left out; returns warnings.

        Raises:
            SourceError: if the bands are not those of the data set.
        """

    def files_beside(self, options: Any) -> tuple[str, ...]:
        """Returns the paths of files outside the archive that examples are made from."""


@dataclasses.dataclass(frozen=True)
class PatchUnit:
    """Patches of one unit of the scan, and the name of its file in the state."""

    name: str
    items: tuple[Item, ...]
    inputs: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Returns the number of patches."""
        return len(self.items)


@dataclasses.dataclass(frozen=True)
class PatchPlace:
    """Place of a patch in its archive, and its CRS and transform."""

    item: Item
    crs: str | None
    transform: tuple[float, ...] | None


@functools.lru_cache(maxsize=1)
def open_archive(path: str, opening: str) -> Archive:
    """Opens an archive once for each process and build, since the file may be replaced between builds."""
    return Archive(path)


@dataclasses.dataclass(frozen=True)
class PatchSource:
    """A source of patches, see `tfrecords_builder.sources.source.Source`.

    Attributes:
        reader: reader of its images.
    """

    reader: PatchReader

    scanning = "scanning"
    cuts = False

    @property
    def facts(self) -> Facts:
        """Facts about the data set."""
        return self.reader.facts

    @property
    def Options(self) -> type:  # noqa: N802
        """The dataclass of its options."""
        return self.reader.Options

    def checked(self, options: Any, split: SplitOptions) -> Any:
        """Returns the options with absolute paths."""
        required("source", options.source, self.facts.name)
        self.reader.complete(options)
        paths = [field.name for field in fields(type(options)) if field.option.path and getattr(options, field.name)]
        return dataclasses.replace(options, **{name: files.absolute(getattr(options, name)) for name in paths})

    def prepare(self, options: Any, opening: str) -> None:
        """Opens the archive."""
        open_archive(options.source, opening)

    def list(self, context: Context, split: SplitOptions) -> Listing:
        """Lists the archive's examples."""
        items = self.reader.items(_archive(context), context.options)
        cut = [item.member for item in items if item.member]
        divides = split.method == "random" or (split.method == "spatial" and split.block_km is None)
        if divides and len(set(cut)) < len(cut):
            raise OptionError(
                f"`split={split.method}`",
                "images are cut into tiles, and neighbors would lie on both sides",
                "`split=published`, `split=city`, `split=lists`, or `split=spatial` with `block_km`",
            )
        described = {name: value for name, value in dataclasses.asdict(context.options).items() if name != "source"}
        return Listing(
            {"source_name": source_name(context.options.source), **described},
            {item.member or item.mask: f"{item.bytes} {item.stamp}" for item in items},
            items,
        )

    def preflight(self, context: Context, listing: Listing, run: RunUnits) -> Preflight:
        """Divides the examples into units."""
        items = listing.entries
        facts = self.reader.complete(context.options, items)
        starts = range(0, len(items), UNIT_PATCHES)
        units = [
            PatchUnit(f"scan-{number:05d}-of-{len(starts):05d}.npz", tuple(items[start : start + UNIT_PATCHES]))
            for number, start in enumerate(starts)
        ]
        count = len(items)
        return Preflight(facts, units, _patches(facts, items, np.arange(count), (None,) * count, None))

    def scan(self, context: Context, unit: PatchUnit) -> None:
        """Reads and checks a unit's patches and stores their sizes, hashes, transforms and sums of numbers."""
        if self.is_scanned(context, unit):
            return
        facts, archive = self.reader.complete(context.options, unit.items), _archive(context)
        sizes, stored, pixels, crs, transforms, class_pixels = [], [], [], [], [], []
        totals, valid = (np.zeros(len(facts.bands), np.int64) for _ in range(2))
        for item in unit.items:
            if _is_unread(context):
                found, size = self._digest(context, archive, item), item.bytes
                pixels.append(found)
            else:
                patch = self.reader.read(archive, item, context.options)
                content = patch.content
                found = self._digest(context, archive, item, content)
                size = len(content.image) + sum(map(len, content.others.values()))
                # Raw numbers are the pixels.
                is_pixels = facts.encoding == "raw" and content.tile is None
                pixels.append(found if is_pixels else digest(_all_pixels(patch)))
                if content.tile is not None:
                    class_pixels.append(content.tile.class_pixels(len(facts.legend)))
                if facts.encoding == "raw":  # A JPEG says itself which band is which.
                    sample = patch.pixels[_SAMPLED_ROWS]
                    totals += sample.sum(axis=(0, 1), dtype=np.int64)
                    valid += (sample != facts.nodata).sum(axis=(0, 1))
                crs.append(patch.crs)
                transforms.append(patch.transform)
            sizes.append(size)
            stored.append(found)
        arrays = {
            "sizes": np.array(sizes, np.int64),
            "stored": _digests(stored),
            "pixels": _digests(pixels),
            "totals": totals,
            "valid": valid,
        }
        if facts.georeferenced:
            names, places = np.unique(crs, return_inverse=True)
            arrays |= {"crs": names, "crs_of": places, "transforms": np.array(transforms, np.float64)}
        if class_pixels:
            arrays["class_pixels"] = np.array(class_pixels, np.int64)
        save_arrays(_path(context, unit), arrays)

    def is_scanned(self, context: Context, unit: PatchUnit) -> bool:
        """Tells whether a unit has been scanned."""
        return load_arrays(_path(context, unit)) is not None

    def gather(self, context: Context, listing: Listing, preflight: Preflight) -> Rows:
        """Joins the results of the units; checks the bands."""
        facts, items = preflight.facts, listing.entries
        parts = [_found(context, unit) for unit in preflight.units]

        def joined(name: str) -> np.ndarray:
            return np.concatenate([part[name] for part in parts])

        totals, valid = (sum(part[name] for part in parts) for name in ("totals", "valid"))
        warnings = self.reader.warnings(context.options.source, totals / np.maximum(valid, 1), len(items))
        crs, transforms = (None,) * len(items), None
        if facts.georeferenced:
            crs = tuple(str(part["crs"][place]) for part in parts for place in part["crs_of"])
            transforms = joined("transforms")
        # Patches with identical pixels share a number.
        numbers: dict[bytes, int] = {}
        groups = [numbers.setdefault(row.tobytes(), len(numbers)) for row in joined("pixels")]
        patches = _patches(facts, items, np.array(groups, np.int64), crs, transforms)
        positions = transforms.tolist() if transforms is not None else (None,) * len(items)
        return Rows(
            patches,
            [
                PatchPlace(item, name, place and tuple(place))
                for item, name, place in zip(items, crs, positions, strict=True)
            ],
            joined("sizes"),
            joined("stored"),
            joined("class_pixels") if "class_pixels" in parts[0] else None,
            warnings=warnings,
            missing=_missing(facts, items),
        )

    def examples(self, context: Context, facts: Facts, planned: Sequence[PlannedExample]) -> Iterator[Encoded]:
        """Reads patches again and encodes them."""
        archive = _archive(context)
        labels = {name: label for label, name in enumerate(facts.legend.class_names)}
        for one in planned:
            item, where = one.place.item, f"{context.options.source}: {one.place.item.member or one.key}"
            content = self.reader.content(archive, item, context.options)
            if self._digest(context, archive, item, content) != one.digest:
                raise SourceError(
                    where,
                    "the image has changed while records were built from it",
                    remedy="build again from a source at rest",
                )
            label = labels[item.class_name] if content.tile is None else None
            place = one.place.crs, one.place.transform
            tile = _with_distances(content.tile, facts)
            example = records.Example(content.image, label, one.key, *place, tile, content.others)
            yield Encoded(
                records.encode(example),
                functools.partial(self._numbers, content, where, facts),
                functools.partial(_other_numbers, content, facts),
            )

    @staticmethod
    def _numbers(content: Content, where: str, facts: Facts) -> tuple[np.ndarray, np.ndarray | None]:
        if not content.image:
            empty = np.full(facts.shape, records.no_data(facts.dtype), facts.dtype)
            return empty, None if content.tile is None else np.zeros(facts.shape[:2], np.uint8)
        if facts.encoding == "jpeg":
            pixels = image_decoding.decode_jpeg(content.image, where, facts.patch_size)
        else:
            pixels = _decoded(content.image, facts.modalities[0])
        if content.tile is None:
            return pixels, None
        # The ground may be seen by another modality alone.
        return pixels, np.where(records.has_data(pixels), content.tile.validity, records.NO_DATA)

    def files(self, context: Context, preflight: Preflight, rows: Rows) -> Sequence[cards.SourceFile]:
        """Returns a zip, its bytes hashed; or a folder, with a hash over its patches' keys and hashes; and others."""
        archive, path = _archive(context), context.options.source
        if archive.is_zip:
            sha256, size = files.sha256_of_file(path), files.size(path)
            archive.check_unchanged()
        else:
            whole = hashlib.sha256()
            for key, found in zip(rows.patches.keys, rows.digests, strict=True):
                whole.update(key.encode() + b"\0" + found.tobytes())
            sha256, size = whole.hexdigest(), int(rows.bytes.sum())
        beside = [
            cards.SourceFile(source_name(one), files.size(one), files.sha256_of_file(one))
            for one in self.reader.files_beside(context.options)
        ]
        return cards.SourceFile(source_name(path), size, sha256), *beside

    def expected_size(self, options: Any) -> ExpectedSize | None:
        """Estimates the size of a build from the listing; of EuroSAT it is exact to a tenth of a per cent.

        Returns None where the size of an image depends on the options.
        """
        facts = self.facts
        if not facts.patch_size:
            return None
        archive = Archive(required("source", options.source, facts.name))
        items = self.reader.items(archive, options)
        if facts.encoding == "jpeg":
            images = [item.bytes for item in items]
        else:
            first = self.reader.content(archive, items[0], options)
            images = [len(first.image) + sum(map(len, first.others.values()))] * len(items)
        place = ("EPSG:32633", (0.0,) * 6) if facts.georeferenced else (None, None)
        # What a record holds beside its image differs by a few bytes only, with the length of its key.
        flat, tile = np.zeros((facts.patch_size, facts.patch_size), np.uint8), None
        if items[0].mask:
            # Masks shrink to a hundredth of the image.
            tile = records.PixelLabels(flat, flat, "", "", "")
        whole = records.encode(records.Example(bytes(images[0]), 1, items[len(items) // 2].key, *place, tile))
        beside = len(whole) - images[0] + tfrecord.FRAMING_BYTES
        shards = sum(images) + beside * len(images)
        return ExpectedSize(len(images), shards, int(shards * (1 + _STATE_FRACTION)))

    def _digest(self, context: Context, archive: Archive, item: Item, content: Content | None = None) -> bytes:
        """Returns a hash of the content of a patch's record.

        What a zip's directory says of a JPEG that is not to be decoded, its CRC-32 and length, is enough: the scan need
        not read it.

        Args:
            context: the build.
            archive: the opened archive.
            item: the patch.
            content: the content to hash, if it has been read.
        """
        if archive.is_zip and _is_unread(context):
            found = item.stamp, item.bytes
            if content is not None:
                found = f"{zlib.crc32(content.image):08x}", len(content.image)
            return digest("/".join(map(str, found)).encode())
        if content is None:
            content = self.reader.content(archive, item, context.options)
        return digest(content.hashed())


def _all_pixels(patch: Patch) -> bytes | memoryview:
    """Returns the numbers of all modalities: two examples that share them are one place at one time."""
    others = patch.content.others
    if not others:
        return patch.pixels.data
    return patch.pixels.tobytes() + b"".join(others[name] for name in sorted(others))


def _other_numbers(content: Content, facts: Facts) -> dict[str, np.ndarray]:
    """Returns the numbers (height, width, bands) of the further modalities."""
    layouts = {one.name: one for one in facts.others}
    return {name: _decoded(numbers, layouts[name]) for name, numbers in content.others.items()}


def _decoded(stored: bytes, layout: cards.Modality) -> np.ndarray:
    """Returns raw numbers (height, width, bands) of a modality."""
    numbers = np.frombuffer(stored, np.dtype(layout.dtype).newbyteorder("<")).astype(layout.dtype, copy=False)
    return numbers.reshape(layout.patch_size, layout.patch_size, len(layout.bands))


def _with_distances(tile: records.PixelLabels | None, facts: Facts) -> records.PixelLabels | None:
    """Returns a tile with the classes of its distances, where records hold them."""
    if tile is None or facts.distance is None:
        return tile
    label = facts.legend.label_of(facts.distance.objects)
    return dataclasses.replace(tile, distance=distance_classes(tile.mask, label, facts.distance))


def _missing(facts: Facts, items: Sequence[Item]) -> dict[str, np.ndarray]:
    """Returns which items lack a modality, by its name; of the first one, those without an image."""
    found = {facts.modality: np.array([not item.member for item in items])}
    for one in facts.others:
        found[one.name] = np.array([one.name not in dict(item.others) for item in items])
    return {name: lacking for name, lacking in found.items() if lacking.any()}


def source_name(path: str) -> str:
    """Returns the name of a file or folder without its path."""
    here = files.local(path)
    return here.resolve().name if here is not None else path.rstrip("/").rpartition("/")[2]


def _archive(context: Context) -> Archive:
    return open_archive(context.options.source, context.opening)


def _is_unread(context: Context) -> bool:
    """Tells whether the scan leaves images undecoded."""
    return context.source.facts.encoding == "jpeg" and getattr(context.options, "no_verify", False)


def _patches(
    facts: Facts,
    items: Sequence[Item],
    groups: np.ndarray,
    crs: tuple[str | None, ...],
    transforms: np.ndarray | None,
) -> Patches:
    return Patches(
        keys=tuple(item.key for item in items),
        classes=tuple(item.class_name for item in items),
        groups=groups,
        crs=crs,
        transforms=transforms,
        size_m=facts.patch_size * facts.resolution_m,
        pixels=facts.patch_size,
        published=tuple(item.split for item in items),
        sites=tuple(item.site for item in items) if any(item.site for item in items) else (),
        site_splits=dict.fromkeys(item.site for item in items if item.site),
    )


def _digests(found: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, DIGEST_BYTES)


def _path(context: Context, unit: PatchUnit) -> str:
    return files.join(context.state_dir, unit.name)


def _found(context: Context, unit: PatchUnit) -> dict[str, np.ndarray]:
    found = load_arrays(_path(context, unit))
    if found is None or len(found["sizes"]) != len(unit.items):
        raise lost(_path(context, unit), "the results of the scan have been lost")
    return found
