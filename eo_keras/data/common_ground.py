"""Comparison of two data sets for images of the same ground, by locations and by pixels.

Places tell it where both data sets hold them. Pixels tell it where images were cut from others or put together of them,
also if their numbers were mapped to others on the way, such as those of a JPEG to reflectance, as long as larger ones
stayed larger: compared are the signs of the differences of neighboring pixels, along 32 pixels of a row, in all bands
that both hold. Of the one side every row is looked at in two bands of eight out of each 32 rows; of the other side each
eighth row at every column, so that images match wherever in each other they lie. Rows that rise or fall evenly say
nothing and are left out. Resampled, turned or recompressed images are not found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from eo_keras.geo.footprints import Footprints, nearness
from eo_keras.records import example as records
from eo_keras.records.data_card import DataCard

_WINDOW = 32
_STEP = 8
_FEWEST_TURNS = 8
"""Smallest number of sign changes of the differences along a window, in one band at least."""

_FEWEST_ROWS = 2
"""Smallest number of rows that two images have in common."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two data sets: its card, and the shards whose examples are compared."""

    card: DataCard
    paths: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Common:
    """Images of the same ground in two data sets.

    Attributes:
        keys: keys of the second side's images that show ground of the first.
        by: the means of comparison: some of `places` and `pixels`.
    """

    keys: tuple[str, ...]
    by: tuple[str, ...]


def compare(first: Side, second: Side) -> Common:
    """Searches the images of the second side that show ground of the first.

    Raises:
        RecordsError: if a shard is damaged.
    """
    bands = tuple(band for band in first.card.bands if band in second.card.bands)
    window = min(_WINDOW, first.card.patch_size, second.card.patch_size)
    by_pixels = bool(bands) and window >= _WINDOW // 2
    seen = _Seen(first, bands, window) if by_pixels else None
    mine = _placed(first) if first.card.georeferenced and second.card.georeferenced else None
    other = _placed(second) if mine is not None else None
    found: dict[str, None] = {}
    if mine is not None and other is not None and len(mine[1]) and len(other[1]):
        strip = max(first.card.resolution_m, second.card.resolution_m)
        overlaps = nearness(other[1], mine[1], strip).overlaps
        found |= dict.fromkeys(np.array(other[0], object)[overlaps].tolist())
    if seen is not None and len(seen.hashes):
        for key, image in _images(second, bands):
            if key not in found and seen.shows(image):
                found[key] = None
    by = [
        name for name, can in (("places", other is not None), ("pixels", seen is not None and len(seen.hashes))) if can
    ]
    return Common(tuple(found), tuple(by))


def _placed(side: Side) -> tuple[list[str], Footprints] | None:
    """Returns keys and footprints of the examples with known locations; None if there is none."""
    keys, crs, transforms = [], [], []
    for path in side.paths:
        for header in records.read_headers(path):
            if header.transform is not None:
                keys.append(header.key)
                crs.append(header.crs)
                transforms.append(header.transform)
    if not keys:
        return None
    footprints = Footprints.of_transforms(crs, transforms, side.card.patch_size)
    known = footprints.known
    return np.array(keys, object)[known].tolist(), footprints[known]


def _images(side: Side, bands: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    places = [side.card.bands.index(band) for band in bands]
    for path in side.paths:
        for example in records.read_examples(path):
            yield example.key, records.decode_image(example, side.card)[..., places]


class _Seen:
    """Index of the rows of the first side's images."""

    def __init__(self, side: Side, bands: tuple[str, ...], window: int):
        self._window = window
        # Whole numbers drawn once: the signs of a window times these is its hash.
        self._weights = np.random.default_rng(0).integers(1, 2**63, (window - 1, len(bands)), dtype=np.uint64)
        hashes: list[np.ndarray] = []
        owners: list[np.ndarray] = []
        for number, (_, image) in enumerate(_images(side, bands)):
            rows = np.flatnonzero(np.arange(len(image)) // _STEP % 2 == 0)
            found = np.unique(self._hashes(image[rows], window))
            hashes.append(found)
            owners.append(np.full(len(found), number, np.int32))
        together = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
        order = np.argsort(together, kind="stable")
        self.hashes = together[order]
        self._owners = np.concatenate(owners)[order] if owners else np.empty(0, np.int32)

    def shows(self, image: np.ndarray) -> bool:
        """Tells whether an image has rows in common with one of the first side's."""
        found = np.unique(self._hashes(image[::_STEP], 1))
        starts, ends = (np.searchsorted(self.hashes, found, side) for side in ("left", "right"))
        hits: Iterable[np.ndarray] = (self._owners[a:b] for a, b in zip(starts, ends, strict=True) if b > a)
        owners = np.concatenate([np.empty(0, np.int32), *hits])
        return len(owners) >= _FEWEST_ROWS and int(np.bincount(owners).max()) >= _FEWEST_ROWS

    def _hashes(self, rows: np.ndarray, step: int) -> np.ndarray:
        """Returns the hashes of the windows of rows (N, width, bands) at every `step` columns."""
        signs = np.sign(np.diff(rows.astype(np.int32), axis=1)).astype(np.int8)
        turns = np.cumsum(np.pad(signs[:, 1:] != signs[:, :-1], ((0, 0), (1, 0), (0, 0))), axis=1)
        length = self._window - 1
        count = signs.shape[1] - length + 1
        even = (turns[:, length - 1 :][:, :count] - turns[:, :count]).max(axis=2) < _FEWEST_TURNS
        starts = np.arange(0, count, step)
        sums = np.zeros((len(rows), len(starts)), np.uint64)
        for place in range(length):
            values = (signs[:, place : place + count][:, starts] + 1).astype(np.uint64)
            sums += (values * self._weights[place]).sum(axis=2, dtype=np.uint64)
        return sums[~even[:, starts]]
