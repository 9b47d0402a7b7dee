"""Leakage between splits: exact duplicates, near-duplicates, and neighbors on the ground.

A test score measures a network on images that it has not seen. Three kinds of leakage bias it, and each is searched
here over all pairs of patches of different splits:

* **exact duplicates**: patches with identical decoded pixels (a 128-bit hash of them);
* **near-duplicates**: the same image compressed again, brightened, with more contrast, mirrored or turned by a quarter;
* **neighbors**: patches that overlap, touch, or lie within a distance on the ground, edge to edge, as the buffer of a
  spatial split counts it.

Near-duplicates are searched in two steps. Candidates come from the 64-bit DCT hash of Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2.1: brightness at 32x32, its DCT, the 8x8 lowest
frequencies without the zeroth row and column, one bit each for above or below their median. Brightness and contrast do
not change it, and the hashes of all eight symmetries of the square follow from one DCT: a mirror image changes signs,
a transposition swaps the axes. For land cover the hash is not sufficient. Fields, coasts and water have few features:
of the 364 million pairs in EuroSAT, 4,623 lie within 10 bits, and all but a few show different places. Correlation of
the brightness is not sufficient either: borders of two fields resemble each other (0.98 for two places 140 km apart).

So a candidate must agree in its details: the differences between the 32x32 brightness and a blurred copy, each
difference `d` weighted as `d / sqrt(d^2 + m^2)` with their median size `m`, so that one strong edge counts no more than
the many faint differences that distinguish places; like the signs of Zabih and Woodfill's census transform (ECCV 1994),
but continuous where a difference is near zero. Of those 4,623 pairs three correlate above 0.73, and they show the same
place, cut one pixel apart; the next has 0.56 and shows two places. The default threshold, 0.65, lies between.

The missed share was measured on 2,000 EuroSAT patches: of duplicates with 20 % more contrast none, of those
compressed again as JPEGs of quality 90 and 75 5 % and 9 %. Patches below `LEAST_CONTRAST` are not compared, but
counted in the report: two images of calm water cannot be distinguished. Images of one place that are shifted by more
than a pixel are no near-duplicates; they are neighbors.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from eo_keras.geo.footprints import Footprints, Nearness, nearness

TURNS = (
    "upright",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180 degrees",
    "mirrored at the main diagonal",
    "turned clockwise by 90 degrees",
    "turned anticlockwise by 90 degrees",
    "mirrored at the other diagonal",
)
"""The symmetries of the square in the order of a patch's hashes: bit 2 transposes, then 1 flips rows, 0 columns."""

_SIDE = 32
LEAST_CONTRAST = 0.001
"""Standard deviation of a patch's brightness, in reflectance, below which it is too even to be compared: about one
level of EuroSAT's JPEGs, and 4 % of its patches."""

DISTANCES_KM = (0.64, 1.0, 2.0, 5.0)
"""Distances in kilometers that are always counted; 0.64 km is the edge of a EuroSAT patch."""

TOUCHING_PIXELS = 2
"""Patches that are so many pixels apart still touch: EuroSAT's lie on grids of 65 pixels, one of which is left free."""

MOST_LISTED = 1000
"""Largest number of duplicates that a report lists; it counts all of them."""

_BLOCK = (32, 16384)
"""Hashes compared at a time, chosen so that the comparison stays in the processor's cache."""


@dataclasses.dataclass(frozen=True)
class LeakOptions:
    """Thresholds of the leakage report; the names are keys of its JSON file.

    Attributes:
        near_copy_bits: number of 64 bits in which the hashes of near-duplicates differ at most. 10 finds 99 % of those
            with JPEG quality 90; unrelated images differ in 32 on average.
        least_correlation: smallest correlation of the details of near-duplicates.
        neighbour_km: patches nearer than this, edge to edge in kilometers, are neighbors.
    """

    near_copy_bits: int = 10
    least_correlation: float = 0.65
    neighbour_km: float = 1.0


@dataclasses.dataclass(frozen=True)
class Fingerprints:
    """Hashes and details of N patches, 2.1 kB each.

    Attributes:
        digests: uint64 (N, 2), hash of the pixels.
        hashes: uint64 (N, 8), perceptual hash of the patch in each of `TURNS`.
        details: float16 (N, 32, 32), details of the brightness, see the module, with mean 0 and deviation 1.
        contrast: float32 (N,), standard deviation of the brightness at full size, in reflectance.
    """

    digests: np.ndarray
    hashes: np.ndarray
    details: np.ndarray
    contrast: np.ndarray

    @classmethod
    def joined(cls, batches: Sequence[Fingerprints]) -> Fingerprints:
        """Returns the fingerprints of several batches as one."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(batch, name) for batch in batches]) for name in names))


@dataclasses.dataclass(frozen=True)
class Inventory:
    """The patches to compare; parallel sequences of N entries.

    Attributes:
        keys: unique keys.
        splits: the split (`train`, `val`, `test`) of each.
        classes: class names.
        fingerprints: their hashes and details.
        footprints: their footprints, or None where the locations are not known.
        pixel_m: edge of a pixel in meters.
    """

    keys: tuple[str, ...]
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    fingerprints: Fingerprints
    footprints: Footprints | None
    pixel_m: float


@dataclasses.dataclass(frozen=True)
class Duplicate:
    """A patch of one split and its duplicate in another; the names are keys of the report's JSON file.

    Attributes:
        kind: `exact` or `near`.
        key: key of the patch.
        part: its split.
        other_key: key of the duplicate.
        other_part: the duplicate's split.
        same_class: whether both have one label.
        bits: number of bits in which the hashes differ; 0 of an exact duplicate.
        correlation: correlation of the details; 1 of an exact duplicate.
        turn: symmetry that takes the patch to its duplicate, one of `TURNS`.
    """

    kind: str
    key: str
    part: str
    other_key: str
    other_part: str
    same_class: bool
    bits: int
    correlation: float
    turn: str


@dataclasses.dataclass(frozen=True)
class SplitPair:
    """Counts of leakage from one split into another; the names are keys of the report's JSON file.

    Attributes:
        part: the split that is evaluated.
        other: the split whose patches leak into it.
        patches: number of patches of `part`.
        exact: number of those with an exact duplicate in `other`.
        near: number of those with a near-duplicate.
        overlapping: number of those that share more ground than a strip of one pixel, or None without locations.
        neighbours: by distance in kilometers, number of those with a patch of `other` so near or nearer; `0` is
            touching, with a tolerance of `TOUCHING_PIXELS`. None without locations.
        median_km: median distance to the nearest patch of `other` in kilometers, or None without locations.
    """

    part: str
    other: str
    patches: int
    exact: int
    near: int
    overlapping: int | None
    neighbours: Mapping[str, int] | None
    median_km: float | None


@dataclasses.dataclass(frozen=True)
class LeakReport:
    """Leakage between the splits of a data set; the names are keys of its JSON file.

    Attributes:
        options: the thresholds.
        pairs: counts for test and train, val and train, test and val, where these splits exist.
        copies: up to `MOST_LISTED` duplicates, exact ones first; a patch with several exact ones is listed with one.
        copies_found: number of all of them.
        too_even: by split, number of patches with too little contrast for the search for near-duplicates.
    """

    options: LeakOptions
    pairs: tuple[SplitPair, ...]
    copies: tuple[Duplicate, ...]
    copies_found: int
    too_even: Mapping[str, int]


def fingerprint(images: np.ndarray, scale: float, shown: Sequence[int] = ()) -> Fingerprints:
    """Computes the fingerprints of patches of one size.

    Args:
        images: (N, H, W, bands), stored numbers.
        scale: reflectance of one stored number.
        shown: positions of the bands whose mean is the brightness; all where empty.
    """
    digests = b"".join(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images)
    bands = images[..., list(shown)] if len(shown) else images
    brightness = bands.mean(axis=-1, dtype=np.float32) * np.float32(scale)
    rows, columns = _averaging(brightness.shape[1]), _averaging(brightness.shape[2])
    small = rows @ brightness @ columns.T
    return Fingerprints(
        digests=np.frombuffer(digests, np.uint64).reshape(-1, 2),
        hashes=_hashes(small),
        details=_details(small),
        contrast=brightness.std(axis=(1, 2)),
    )


@functools.cache
def _averaging(size: int) -> np.ndarray:
    """Returns the matrix (32, size) that averages a line of pixels over 32 intervals of equal length."""
    edges = np.linspace(0, size, _SIDE + 1)
    pixels = np.arange(size)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(shared, 0, None) * _SIDE / size).astype(np.float32)


def _hashes(small: np.ndarray) -> np.ndarray:
    """Returns the hashes uint64 (N, 8) of brightness images (N, 32, 32) in every turn."""
    frequency, place = np.arange(1, 9)[:, None], np.arange(_SIDE)
    basis = np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE)).astype(np.float32)
    coefficients = basis @ small @ basis.T
    signs = np.where(np.arange(1, 9) % 2, -1, 1).astype(np.float32)
    hashes = []
    for turn in range(len(TURNS)):
        turned = coefficients.transpose(0, 2, 1) if turn & 4 else coefficients
        turned = turned * (signs[:, None] if turn & 2 else 1) * (signs if turn & 1 else 1)
        flat = turned.reshape(len(small), 64)
        hashes.append(np.packbits(flat > np.median(flat, axis=1, keepdims=True), axis=1).view(np.uint64)[:, 0])
    return np.stack(hashes, axis=1)


def _details(small: np.ndarray) -> np.ndarray:
    """Returns the details float16 (N, 32, 32) of brightness images (N, 32, 32)."""
    blurred = small
    for _ in range(4):  # A binomial of nine weights: nearly a Gaussian with a deviation of 1.4 pixels.
        padded = np.pad(blurred, ((0, 0), (1, 1), (1, 1)), mode="edge")
        rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
        blurred = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
    difference = small - blurred
    typical = np.median(np.abs(difference), axis=(1, 2), keepdims=True)
    # A constant image differs from its blurred copy by rounding alone.
    weighted = difference / np.sqrt(difference**2 + np.maximum(typical, 1e-6) ** 2)
    weighted -= weighted.mean(axis=(1, 2), keepdims=True)
    return (weighted / np.maximum(weighted.std(axis=(1, 2), keepdims=True), 1e-6)).astype(np.float16)


def turned(images: np.ndarray, turn: int) -> np.ndarray:
    """Turns or mirrors square images (N, S, S, ...) into `TURNS[turn]`."""
    images = images.swapaxes(1, 2) if turn & 4 else images
    images = images[:, ::-1] if turn & 2 else images
    return images[:, :, ::-1] if turn & 1 else images


def close_hashes(first: np.ndarray, second: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the positions of all pairs of hashes that differ in at most so many bits, block by block.

    Every pair is compared: exact whatever the threshold, and 2e9 pairs take some seconds. Memory does not grow with
    the number of pairs.

    Args:
        first: uint64 (n,).
        second: uint64 (m,).
        bits: threshold, 0 to 64.
    """
    height, width = _BLOCK
    for top in range(0, len(first), height):
        for left in range(0, len(second), width):
            distances = np.bitwise_count(first[top : top + height, None] ^ second[left : left + width])
            rows, columns = np.nonzero(distances <= bits)
            if len(rows):
                yield rows + top, columns + left


def near_duplicates(first: Fingerprints, second: Fingerprints, options: LeakOptions) -> np.ndarray:
    """Searches the near-duplicates between two sets of patches, without exact duplicates.

    Returns:
        A structured array with the fields `first` and `second` (positions), `turn`, `bits` and `correlation`: each
        pair once, in the turn with the fewest different bits, in the order of the positions.
    """
    rows = np.flatnonzero(first.contrast >= LEAST_CONTRAST)
    columns = np.flatnonzero(second.contrast >= LEAST_CONTRAST)
    kind = [("first", np.int64), ("second", np.int64), ("turn", int), ("bits", int), ("correlation", np.float64)]
    blocks = [np.empty(0, kind)]
    upright = second.hashes[columns, 0]
    for turn in range(len(TURNS)):
        hashes = first.hashes[rows, turn]
        for row, column in close_hashes(hashes, upright, options.near_copy_bits):
            # Few at a time: a data set that repeats itself has very many pairs.
            for start in range(0, len(row), 4096):
                a, b = rows[row[start : start + 4096]], columns[column[start : start + 4096]]
                left = turned(first.details[a], turn).astype(np.float32)
                correlation = np.einsum("nij,nij->n", left, second.details[b].astype(np.float32)) / _SIDE**2
                kept = correlation >= options.least_correlation
                kept &= (first.digests[a] != second.digests[b]).any(axis=1)
                pairs = np.empty(kept.sum(), kind)
                pairs["first"], pairs["second"], pairs["turn"] = a[kept], b[kept], turn
                pairs["bits"] = np.bitwise_count(first.hashes[a[kept], turn] ^ second.hashes[b[kept], 0])
                pairs["correlation"] = correlation[kept]
                blocks.append(pairs)
    pairs = np.concatenate(blocks)
    pairs = pairs[np.lexsort((pairs["turn"], pairs["bits"], pairs["second"], pairs["first"]))]
    _, unique = np.unique(pairs[["first", "second"]], return_index=True)
    return pairs[unique]


def exact_duplicates(first: Fingerprints, second: Fingerprints) -> np.ndarray:
    """Returns positions int64 (pairs, 2): every patch of `first` with a duplicate in `second`, and the first one."""
    place = {digest: number for number, digest in reversed(list(enumerate(map(bytes, second.digests))))}
    pairs = [(number, place[digest]) for number, digest in enumerate(map(bytes, first.digests)) if digest in place]
    return np.array(pairs, np.int64).reshape(-1, 2)


def find_leaks(inventory: Inventory, options: LeakOptions = LeakOptions()) -> LeakReport:
    """Searches leakage between splits: from training into test and validation, and from validation into test."""
    splits = np.array(inventory.splits)
    positions = {name: np.flatnonzero(splits == name) for name in ("train", "val", "test")}
    prints = {name: _taken(inventory.fingerprints, where) for name, where in positions.items()}
    pairs, copies = [], []
    for split, other in (("test", "train"), ("val", "train"), ("test", "val")):
        if not len(positions[split]) or not len(positions[other]):
            continue
        exact = exact_duplicates(prints[split], prints[other])
        near = near_duplicates(prints[split], prints[other], options)
        locations = {"overlapping": None, "neighbours": None, "median_km": None}
        if inventory.footprints is not None:
            grounds = (inventory.footprints[positions[name]] for name in (split, other))
            locations = _count_neighbours(nearness(*grounds, inventory.pixel_m), inventory.pixel_m, options)
        pairs.append(
            SplitPair(split, other, len(positions[split]), len(exact), len(np.unique(near["first"])), **locations)
        )
        listed = [("exact", a, b, 0, 0, 1.0) for a, b in exact.tolist()] + [("near", *row) for row in near.tolist()]
        for kind, a, b, turn, bits, correlation in listed:
            a, b = positions[split][a], positions[other][b]
            same = inventory.classes[a] == inventory.classes[b]
            keys = inventory.keys[a], split, inventory.keys[b], other
            copies.append(Duplicate(kind, *keys, same, bits, round(correlation, 4), TURNS[turn]))
    copies.sort(key=lambda copy: (copy.kind, -copy.correlation, copy.key, copy.other_key))
    even = inventory.fingerprints.contrast < LEAST_CONTRAST
    too_even = {name: int(even[where].sum()) for name, where in positions.items() if len(where)}
    return LeakReport(options, tuple(pairs), tuple(copies[:MOST_LISTED]), len(copies), too_even)


def _taken(fingerprints: Fingerprints, where: np.ndarray) -> Fingerprints:
    return Fingerprints(*(getattr(fingerprints, field.name)[where] for field in dataclasses.fields(fingerprints)))


def _count_neighbours(near: Nearness, pixel_m: float, options: LeakOptions) -> dict:
    limits = {"0": TOUCHING_PIXELS * pixel_m}
    limits |= {f"{km:g}": 1000 * km for km in sorted({*DISTANCES_KM, options.neighbour_km})}
    return {
        "overlapping": int(near.overlaps.sum()),
        "neighbours": {name: int((near.distance_m <= limit).sum()) for name, limit in limits.items()},
        "median_km": round(float(np.median(near.distance_m)) / 1000, 4),
    }
