"""What one part of a data set gives away of another: exact copies, near copies, and neighbours on the ground.

A test score says how a network does on pictures that it has not seen. Three things break that promise, and each is
searched here over all pairs of patches of different parts, none left out:

* **exact copies**: patches with identical decoded pixels (a 128-bit hash of them);
* **near copies**: the same picture compressed again, brightened, given more contrast, mirrored or turned by a quarter;
* **neighbours**: patches that overlap, touch, or lie within a distance on the ground, edge to edge, as the buffer of a
  spatial split counts it.

Near copies are found in two steps. Candidates come from the 64-bit DCT hash of Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2.1: brightness at 32x32, its DCT, the 8x8 lowest
frequencies without the zeroth row and column, one bit each for above or below their median. Brightness and contrast do
not change it, and the hashes of all eight symmetries of the square follow from one DCT: a mirror image changes signs,
a transposition swaps the axes. A hash of land cover is no proof, however. Fields, coasts and water have few features:
of the 364 million pairs in EuroSAT, 4,623 lie within 10 bits, and all but a few show different places. Correlation of
the brightness is no proof either, for the border of two fields is like any other (0.98 for two places 140 km apart).

So a candidate must agree in its details: what the 32x32 brightness differs by from its blurred self, each difference
`d` weighed as `d / sqrt(d^2 + m^2)` with their median size `m`, so that one strong edge counts no more than the many
faint differences that make a place unmistakable; like the signs of Zabih and Woodfill's census transform (ECCV 1994),
but steady where a difference is near zero. Of those 4,623 pairs three correlate above 0.73, and they are the same
place, cut one pixel apart; the next has 0.56 and is another. The default threshold, 0.65, lies between.

What that misses was measured on 2,000 EuroSAT patches: of copies with 20 % more contrast none, of copies compressed
again as JPEGs of quality 90 and 75 5 % and 9 %. Patches below `LEAST_CONTRAST` are not compared, but counted in the
report: two pictures of calm water cannot be told apart. Views of one place that are shifted by more than a pixel are
no near copies either; they are neighbours.
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
"""Distances that are always counted; 0.64 km is the edge of a EuroSAT patch."""

TOUCHING_PIXELS = 2
"""Patches that are so many pixels apart still touch: EuroSAT's lie on grids of 65 pixels, one of which is left free."""

MOST_LISTED = 1000
"""Copies that a report lists; it counts all of them."""

_BLOCK = (32, 16384)
"""Hashes compared at a time, chosen so that the comparison stays in the processor's cache."""


@dataclasses.dataclass(frozen=True)
class LeakOptions:
    """What counts as a leak.

    Attributes:
        near_copy_bits: hashes of a near copy differ in so many of 64 bits at the most. 10 finds 99 % of copies with
            JPEG quality 90; unrelated pictures differ in 32 on average.
        least_correlation: correlation of a near copy's details at the least.
        neighbour_km: patches nearer than this, edge to edge in kilometres, are neighbours.
    """

    near_copy_bits: int = 10
    least_correlation: float = 0.65
    neighbour_km: float = 1.0


@dataclasses.dataclass(frozen=True)
class Fingerprints:
    """What is kept of the pixels of N patches, 2.1 kB each.

    Attributes:
        digests: uint64 (N, 2), hash of the pixels.
        hashes: uint64 (N, 8), perceptual hash of the patch in each of `TURNS`.
        details: float16 (N, 32, 32), details of the brightness as the module tells, with mean 0 and deviation 1.
        contrast: float32 (N,), standard deviation of the brightness at full size, in reflectance.
    """

    digests: np.ndarray
    hashes: np.ndarray
    details: np.ndarray
    contrast: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Fingerprints]) -> Fingerprints:
        """Returns the fingerprints of several batches as one."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclasses.dataclass(frozen=True)
class Inventory:
    """The patches to compare; parallel sequences of N entries.

    Attributes:
        keys: unique keys.
        parts: the part (`train`, `val`, `test`) of each.
        classes: class names.
        fingerprints: see there.
        footprints: their ground, or None where the places are not known.
        pixel_m: edge of a pixel in metres.
    """

    keys: tuple[str, ...]
    parts: tuple[str, ...]
    classes: tuple[str, ...]
    fingerprints: Fingerprints
    footprints: Footprints | None
    pixel_m: float


@dataclasses.dataclass(frozen=True)
class Copy:
    """A patch of one part and its copy in another; `bits` and `correlation` are those of an exact copy too.

    Attributes:
        kind: `exact` or `near`.
        key: the patch.
        part: its part.
        other_key: its copy.
        other_part: the copy's part.
        same_class: whether both have one label.
        bits: bits in which the hashes differ.
        correlation: correlation of the details.
        turn: how the patch must be turned to look like its copy, one of `TURNS`.
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
class PairOfParts:
    """How many patches of `part` have a counterpart in `other`.

    Attributes:
        part: the part that should be new to a network.
        other: the part that it must not resemble.
        patches: number of patches of `part`.
        exact: those with an exact copy.
        near: those with a near copy.
        overlapping: those that share more ground than a strip of one pixel, or None without places.
        neighbours: by distance in kilometres, those with a patch of `other` so near or nearer; `0` is touching, with
            a tolerance of `TOUCHING_PIXELS`. None without places.
        median_km: median distance to the nearest patch of `other` in kilometres, or None without places.
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
    """What was found.

    Attributes:
        options: what counted as a leak.
        pairs: counts for testing and training, validation and training, testing and validation, where they exist.
        copies: up to `MOST_LISTED` copies, exact ones first; an exactly copied patch with one of its counterparts.
        copies_found: number of all of them.
        too_even: by part, patches with too little contrast to search near copies of.
    """

    options: LeakOptions
    pairs: tuple[PairOfParts, ...]
    copies: tuple[Copy, ...]
    copies_found: int
    too_even: Mapping[str, int]


def fingerprint(images: np.ndarray, scale: float, shown: Sequence[int] = ()) -> Fingerprints:
    """Takes the fingerprints of some patches of one size.

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
    apart = small - blurred
    typical = np.median(np.abs(apart), axis=(1, 2), keepdims=True)
    # An image of one number differs from its blurred self by the rounding alone.
    weighed = apart / np.sqrt(apart**2 + np.maximum(typical, 1e-6) ** 2)
    weighed -= weighed.mean(axis=(1, 2), keepdims=True)
    return (weighed / np.maximum(weighed.std(axis=(1, 2), keepdims=True), 1e-6)).astype(np.float16)


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
            apart = np.bitwise_count(first[top : top + height, None] ^ second[left : left + width])
            rows, columns = np.nonzero(apart <= bits)
            if len(rows):
                yield rows + top, columns + left


def near_copies(first: Fingerprints, second: Fingerprints, options: LeakOptions) -> np.ndarray:
    """Finds the near copies between two sets of patches that are not exact ones.

    Returns:
        A structured array with the fields `first` and `second` (positions), `turn`, `bits` and `correlation`: each
        pair once, in the turn with the fewest different bits, in the order of the positions.
    """
    rows = np.flatnonzero(first.contrast >= LEAST_CONTRAST)
    columns = np.flatnonzero(second.contrast >= LEAST_CONTRAST)
    kind = [("first", np.int64), ("second", np.int64), ("turn", int), ("bits", int), ("correlation", np.float64)]
    found = [np.empty(0, kind)]
    upright = second.hashes[columns, 0]
    for turn in range(len(TURNS)):
        hashes = first.hashes[rows, turn]
        for row, column in close_hashes(hashes, upright, options.near_copy_bits):
            # Alike in hash, in a block: that may be very many where a data set repeats itself.
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
                found.append(pairs)
    pairs = np.concatenate(found)
    pairs = pairs[np.lexsort((pairs["turn"], pairs["bits"], pairs["second"], pairs["first"]))]
    _, unique = np.unique(pairs[["first", "second"]], return_index=True)
    return pairs[unique]


def exact_copies(first: Fingerprints, second: Fingerprints) -> np.ndarray:
    """Returns positions int64 (pairs, 2): every patch of `first` with a copy in `second`, and the first such copy."""
    place = {digest: number for number, digest in reversed(list(enumerate(map(bytes, second.digests))))}
    pairs = [(number, place[digest]) for number, digest in enumerate(map(bytes, first.digests)) if digest in place]
    return np.array(pairs, np.int64).reshape(-1, 2)


def find_leaks(inventory: Inventory, options: LeakOptions = LeakOptions()) -> LeakReport:
    """Searches leaks between the parts of a data set: of testing and validation from training, and between the two."""
    parts = np.array(inventory.parts)
    positions = {name: np.flatnonzero(parts == name) for name in ("train", "val", "test")}
    prints = {name: _taken(inventory.fingerprints, where) for name, where in positions.items()}
    pairs, copies = [], []
    for part, other in (("test", "train"), ("val", "train"), ("test", "val")):
        if not len(positions[part]) or not len(positions[other]):
            continue
        exact = exact_copies(prints[part], prints[other])
        near = near_copies(prints[part], prints[other], options)
        places = {"overlapping": None, "neighbours": None, "median_km": None}
        if inventory.footprints is not None:
            grounds = (inventory.footprints[positions[name]] for name in (part, other))
            places = _count_neighbours(nearness(*grounds, inventory.pixel_m), inventory.pixel_m, options)
        pairs.append(
            PairOfParts(part, other, len(positions[part]), len(exact), len(np.unique(near["first"])), **places)
        )
        listed = [("exact", a, b, 0, 0, 1.0) for a, b in exact.tolist()] + [("near", *row) for row in near.tolist()]
        for kind, a, b, turn, bits, correlation in listed:
            a, b = positions[part][a], positions[other][b]
            same = inventory.classes[a] == inventory.classes[b]
            keys = inventory.keys[a], part, inventory.keys[b], other
            copies.append(Copy(kind, *keys, same, bits, round(correlation, 4), TURNS[turn]))
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
