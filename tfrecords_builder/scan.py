"""The first pass over a source: every patch is read and checked once, and what planning needs is kept."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable

import numpy as np

from eo_keras import engines
from tfrecords_builder import statistics
from tfrecords_builder.archives import Archive
from tfrecords_builder.sources import SOURCES
from tfrecords_builder.sources.eurosat import Item

UNIT_PATCHES = 256
"""Patches of one unit of work: enough that starting it costs nothing, few enough for a smooth progress bar."""


@dataclasses.dataclass(frozen=True)
class SourceContext:
    """Which data set is read from where; what every unit of work shares."""

    dataset: str
    path: str


@dataclasses.dataclass(frozen=True)
class ScannedPatch:
    """What is kept of a patch between the passes.

    Attributes:
        item: the patch's place in the source.
        stored_bytes: size of what a record will hold, in bytes.
        stored_digest: hash of what a record will hold, by which a changed source is noticed.
        pixel_digest: hash of the pixels, by which identical images are found.
        sums: sums for the statistics.
        crs: coordinate reference system, None where the source has none.
        transform: affine transform, None where the source has none.
    """

    item: Item
    stored_bytes: int
    stored_digest: bytes
    pixel_digest: bytes
    sums: statistics.BandSums
    crs: str | None
    transform: tuple[float, ...] | None


@functools.lru_cache(maxsize=1)
def open_archive(path: str) -> Archive:
    """Opens an archive once a process."""
    return Archive(path)


def digest(data: bytes) -> bytes:
    """Returns a 16-byte hash."""
    return hashlib.blake2b(data, digest_size=16).digest()


def scan_unit(context: SourceContext, items: tuple[Item, ...]) -> list[ScannedPatch]:
    """Reads and checks some patches.

    Raises:
        SourceError: at the first patch that is damaged or not of the data set's form.
    """
    source, archive = SOURCES[context.dataset], open_archive(context.path)
    scanned = []
    for item in items:
        patch = source.read(archive, item)
        scanned.append(
            ScannedPatch(
                item=item,
                stored_bytes=len(patch.stored),
                stored_digest=digest(patch.stored),
                pixel_digest=digest(patch.pixels.tobytes()),
                sums=statistics.sum_patch(patch.pixels, source.nodata),
                crs=patch.crs,
                transform=patch.transform,
            )
        )
    return scanned


def scan(
    context: SourceContext, *, num_workers: int, progress: Callable[[str, int, int], None] | None = None
) -> list[ScannedPatch]:
    """Lists a source's patches and scans them all, sorted by key.

    Args:
        context: the source.
        num_workers: number of processes.
        progress: called with ("scanning", patches done, patches in all).

    Raises:
        SourceError: if the source or a patch of it cannot be used.
    """
    # A source is listed anew for every scan: a cached archive may have changed on disk since.
    open_archive.cache_clear()
    items = SOURCES[context.dataset].items(open_archive(context.path))
    units = [tuple(items[start : start + UNIT_PATCHES]) for start in range(0, len(items), UNIT_PATCHES)]
    scanned: list[ScannedPatch] = []
    for part in engines.run_units(scan_unit, context, units, num_workers=num_workers):
        scanned.extend(part)
        if progress:
            progress("scanning", len(scanned), len(items))
    return scanned


def identical_groups(scanned: list[ScannedPatch]) -> np.ndarray:
    """Numbers patches so that those with identical pixels share a number; int64 (patches,)."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(patch.pixel_digest, len(numbers)) for patch in scanned], dtype=np.int64)


def source_digest(context: SourceContext, scanned: list[ScannedPatch]) -> tuple[str, int]:
    """Returns SHA-256 and size in bytes of a zip; of a folder, the SHA-256 over its patches' keys and hashes."""
    path = pathlib.Path(context.path)
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
    whole = hashlib.sha256()
    for patch in scanned:
        whole.update(patch.item.key.encode() + b"\0" + patch.stored_digest)
    return whole.hexdigest(), sum(patch.stored_bytes for patch in scanned)
