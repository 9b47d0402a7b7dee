"""The first pass over a source: every patch is read once, and what planning needs is kept.

What a unit of the scan found is a file in the build's state, so that a scan that is cut off goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from eo_keras.core import engines, files
from eo_keras.errors import SourceError
from tfrecords_builder.sources import Source
from tfrecords_builder.sources.archive import Archive
from tfrecords_builder.sources.items import Item, hashed
from tfrecords_builder.storage.state import load_arrays, save_arrays

UNIT_PATCHES = 256
"""Patches of one unit of work: enough that starting it costs nothing, few enough for a smooth progress bar."""

_DIGEST_BYTES = 16
_GUARD_ROWS = slice(None, None, 8)  # Every eighth row says which band is the darkest as surely as all.


@dataclasses.dataclass(frozen=True)
class SourceContext:
    """What every unit of work shares.

    Attributes:
        source: what the items are and how they are read.
        path: where it is read from.
        verify: whether JPEGs are decoded in the scan.
        state_dir: folder of the build's state.
        opening: names this build among all; a worker that lives on opens the source once for each.
    """

    source: Source
    path: str
    verify: bool
    state_dir: str
    opening: str


@dataclasses.dataclass(frozen=True)
class ScanUnit:
    """Some patches to scan, and the name of the file for what is found."""

    name: str
    items: tuple[Item, ...]


@dataclasses.dataclass(frozen=True)
class Scan:
    """What is kept of all N patches between the passes, in the order of their keys.

    Attributes:
        items: the patches' places in the source.
        stored_bytes: int64 (N,), size of what a record will hold, in bytes.
        stored_digests: uint8 (N, 16), hashes of what a record will hold, by which a changed source is noticed.
        pixel_digests: uint8 (N, 16), hashes of the pixels, by which identical images are found; of JPEGs that were not
            decoded, the same as `stored_digests`.
        means: float64 (bands,), of every eighth row, no data left out; for the check of the band order.
        crs: coordinate reference systems, None where the source has none.
        transforms: float64 (N, 6), affine transforms, or None where the source has none.
        class_pixels: int64 (N, classes), clear pixels of each class, or None where a patch has one class.
    """

    items: tuple[Item, ...]
    stored_bytes: np.ndarray
    stored_digests: np.ndarray
    pixel_digests: np.ndarray
    means: np.ndarray
    crs: tuple[str | None, ...]
    transforms: np.ndarray | None
    class_pixels: np.ndarray | None

    def identical_groups(self) -> np.ndarray:
        """Numbers patches so that those with identical pixels share a number; int64 (N,)."""
        numbers: dict[bytes, int] = {}
        return np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in self.pixel_digests], np.int64)


@functools.lru_cache(maxsize=1)
def open_archive(path: str, opening: str) -> Archive:
    """Opens an archive once a process and build: another file may lie at its path when the next build begins."""
    return Archive(path)


def digest(data: bytes) -> bytes:
    """Returns a 16-byte hash: SHA-256, for which processors have instructions, cut short."""
    return hashlib.sha256(data).digest()[:_DIGEST_BYTES]


def stored_digest(context: SourceContext, archive: Archive, item: Item, stored: bytes | None = None) -> bytes:
    """Returns a hash of what a record holds of a patch.

    What a zip's directory says of a JPEG that is not to be decoded, its CRC-32 and length, is enough: the scan need not
    read it.

    Args:
        context: the source.
        archive: the opened source.
        item: the patch.
        stored: what is hashed of it, if it has been read.
    """
    if archive.is_zip and context.source.encoding == "jpeg" and not context.verify:
        found = (item.stamp, item.bytes) if stored is None else (f"{zlib.crc32(stored):08x}", len(stored))
        return digest("/".join(map(str, found)).encode())
    return digest(hashed(*context.source.read_stored(archive, item)) if stored is None else stored)


def scan_unit(context: SourceContext, unit: ScanUnit) -> None:
    """Reads and checks some patches and stores what is kept of them.

    Raises:
        SourceError: at the first patch that is damaged or not of the data set's form.
    """
    path = files.join(context.state_dir, unit.name)
    if load_arrays(path) is not None:
        return
    source, archive = context.source, open_archive(context.path, context.opening)
    sizes, stored, pixels, crs, transforms, class_pixels = [], [], [], [], [], []
    totals, valid = (np.zeros(len(source.bands), np.int64) for _ in range(2))
    for item in unit.items:
        if source.encoding == "jpeg" and not context.verify:
            found, size = stored_digest(context, archive, item), item.bytes
            pixels.append(found)
        else:
            patch = source.read(archive, item)
            found = stored_digest(context, archive, item, hashed(patch.stored, patch.tile))
            size = len(patch.stored)
            # Raw numbers are the pixels.
            is_pixels = source.encoding == "raw" and patch.tile is None
            pixels.append(found if is_pixels else digest(patch.pixels.data))
            if patch.tile is not None:
                class_pixels.append(patch.tile.class_pixels(len(source.legend)))
            if source.band_order_guard:
                sample = patch.pixels[_GUARD_ROWS]
                totals += sample.sum(axis=(0, 1), dtype=np.int64)
                valid += (sample != source.nodata).sum(axis=(0, 1))
            crs.append(patch.crs)
            transforms.append(patch.transform)
        sizes.append(size)
        stored.append(found)
    arrays = {
        "sizes": np.array(sizes, np.int64),
        "stored": _rows(stored),
        "pixels": _rows(pixels),
        "totals": totals,
        "valid": valid,
    }
    if source.georeferenced:
        names, places = np.unique(crs, return_inverse=True)
        arrays |= {"crs": names, "crs_of": places, "transforms": np.array(transforms, np.float64)}
    if class_pixels:
        arrays["class_pixels"] = np.array(class_pixels, np.int64)
    save_arrays(path, arrays)


def _rows(digests: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST_BYTES)


def scan(
    context: SourceContext,
    items: Sequence[Item],
    engine: engines.Engine,
    progress: Callable[[str, int, int], None] | None = None,
) -> Scan:
    """Scans the patches of a source.

    Args:
        context: the source.
        items: all its patches, sorted by key.
        engine: what runs the units.
        progress: called with ("scanning", patches done, patches in all).

    Raises:
        SourceError: if a patch cannot be used.
    """
    starts = range(0, len(items), UNIT_PATCHES)
    units = [
        ScanUnit(f"scan-{number:05d}-of-{len(starts):05d}.npz", tuple(items[start : start + UNIT_PATCHES]))
        for number, start in enumerate(starts)
    ]
    done = 0
    for position in engine.run(scan_unit, context, units):
        done += len(units[position].items)
        if progress:
            progress("scanning", done, len(items))
    parts = [_found(context, unit) for unit in units]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([part[name] for part in parts])

    georeferenced = context.source.georeferenced
    totals, valid = (sum(part[name] for part in parts) for name in ("totals", "valid"))
    return Scan(
        items=tuple(items),
        stored_bytes=joined("sizes"),
        stored_digests=joined("stored"),
        pixel_digests=joined("pixels"),
        means=totals / np.maximum(valid, 1),
        crs=tuple(
            str(part["crs"][place]) if georeferenced else None
            for unit, part in zip(units, parts, strict=True)
            for place in (part["crs_of"] if georeferenced else unit.items)
        ),
        transforms=joined("transforms") if georeferenced else None,
        class_pixels=joined("class_pixels") if context.source.task == "segmentation" else None,
    )


def _found(context: SourceContext, unit: ScanUnit) -> dict[str, np.ndarray]:
    found = load_arrays(files.join(context.state_dir, unit.name))
    if found is None or len(found["sizes"]) != len(unit.items):
        raise SourceError(
            files.join(context.state_dir, unit.name),
            "what the scan found has been lost",
            remedy="keep other programs out of the output folder, and run the same command again",
        )
    return found


def source_digest(context: SourceContext, scanned: Scan) -> tuple[str, int]:
    """Returns SHA-256 and size in bytes of a zip; of a folder, the SHA-256 over its patches' keys and hashes.

    Raises:
        SourceError: if the zip is not the one that was listed.
    """
    archive = open_archive(context.path, context.opening)
    if archive.is_zip:
        found = files.sha256_of_file(context.path), files.size(context.path)
        archive.check_unchanged()
        return found
    whole = hashlib.sha256()
    for item, found in zip(scanned.items, scanned.stored_digests, strict=True):
        whole.update(item.key.encode() + b"\0" + found.tobytes())
    return whole.hexdigest(), int(scanned.stored_bytes.sum())
