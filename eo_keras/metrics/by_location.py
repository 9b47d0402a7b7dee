"""Locations of the examples of a split, and the accuracy by location."""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eo_keras.core import files
from eo_keras.records import example as records
from eo_keras.records.data_card import DataCard

_SIZES = (
    (1, 1000),
    (1, 500),
    (1, 200),
    (1, 100),
    (1, 50),
    (1, 20),
    (1, 10),
    (1, 5),
    (1, 2),
    (1, 1),
    (2, 1),
    (5, 1),
    (10, 1),
    (20, 1),
)
"""Sides of a cell in degrees, as fractions: 0.1 as a float would put some edges into another cell."""

_METRES_A_DEGREE = 111_320.0
"""Meters in a degree of latitude, and of longitude at the equator."""

_FEWEST_ACROSS, _MOST_ACROSS = 4, 30
_EXAMPLES_IN_CELL = 8
"""Smallest mean number of examples in a cell."""


@dataclasses.dataclass(frozen=True)
class Locations:
    """Locations of N examples.

    Attributes:
        degrees: float64 (N, 2), longitude and latitude of the images' centers; NaN where they are not known.
        source: a text on their origin.
    """

    degrees: np.ndarray
    source: str

    @property
    def known(self) -> np.ndarray:
        """Whether each location is known, bool (N,)."""
        return np.isfinite(self.degrees).all(axis=1)


@dataclasses.dataclass(frozen=True)
class Cell:
    """Counts of predictions in one cell of a grid of degrees.

    Attributes:
        west: longitude of its western edge, part of the cell.
        south: latitude of its southern edge, part of the cell.
        examples: number of examples in it, at least 1.
        correct: number of these that are predicted correctly.
    """

    west: float
    south: float
    examples: int
    correct: int


@dataclasses.dataclass(frozen=True)
class AccuracyGrid:
    """Accuracy by cell.

    Attributes:
        degrees: side of a cell.
        cells: those that hold an example, from north to south and west to east.
    """

    degrees: float
    cells: tuple[Cell, ...]

    def to_csv(self) -> str:
        """Returns a header and a line a cell."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["west", "south", "degrees", "examples", "correct", "accuracy"])
        for cell in self.cells:
            accuracy = f"{cell.correct / cell.examples:.6f}"
            edges = (f"{value:g}" for value in (cell.west, cell.south, self.degrees))
            writer.writerow([*edges, cell.examples, cell.correct, accuracy])
        return text.getvalue()


def read_locations(
    records_dir: str | os.PathLike[str], card: DataCard, split: str, keys: Sequence[str]
) -> Locations | None:
    """Reads the locations of examples from their CRS and transforms; no image is decoded.

    Args:
        records_dir: the records folder.
        card: its card.
        split: the split that holds the examples.
        keys: keys of the examples.

    Returns:
        The locations in the order of the keys, or None if the records hold none.

    Raises:
        RecordsError: if a shard is damaged.
    """
    if not card.georeferenced:
        return None
    place_of = {key: place for place, key in enumerate(keys)}
    centers: dict[str, list[tuple[int, float, float]]] = collections.defaultdict(list)
    middle = card.patch_size / 2
    for shard in card.splits[split].shards:
        for example in records.read_examples(files.join(records_dir, shard.name)):
            if example.transform is not None and example.key in place_of:
                a, b, c, d, e, f = example.transform
                x, y = (a + b) * middle + c, (d + e) * middle + f
                centers[example.crs].append((place_of[example.key], x, y))
    return Locations(_degrees(centers, len(keys)), "the records' CRS and transforms")


def _degrees(centers: dict[str, list[tuple[int, float, float]]], count: int) -> np.ndarray:
    from rasterio.warp import transform

    degrees = np.full((count, 2), np.nan)
    for crs, points in centers.items():
        members, xs, ys = zip(*points, strict=True)
        degrees[list(members)] = np.stack(transform(crs, "EPSG:4326", xs, ys), axis=-1)
    return degrees


def grounds(locations: Locations, keys: Sequence[str], side_m: float) -> dict[str, str]:
    """Returns a name of the ground of each square image by key; images of equal names are one unit of the bootstrap.

    Images of the same center, such as one place at several dates, have the same ground. Where others overlap, it is the
    block of twice an image's side that holds the center: blocks of neighboring images are drawn by a block bootstrap
    (Hall 1985, Stochastic Processes and their Applications 20(2)). An image of unknown location is a ground of its own.

    Args:
        locations: the images' locations.
        keys: their keys, in the same order.
        side_m: length of an image's side in meters.
    """
    import shapely

    known = locations.known
    names = dict(zip(keys, keys, strict=True))
    placed = [key for key, one in zip(keys, known, strict=True) if one]
    if not placed:
        return names
    longitude, latitude = locations.degrees[known].T
    side = side_m / _METRES_A_DEGREE
    # A degree of longitude is shorter by the cosine: of a band of latitude, so that a band's columns are straight.
    bands = np.floor(latitude / (2 * side))
    across = longitude * np.maximum(np.cos(np.radians(2 * side * (bands + 0.5))), 0.01)
    centers, first, member = np.unique(
        locations.degrees[known].round(6), axis=0, return_index=True, return_inverse=True
    )
    # Neighbors of a grid that is turned against north are a little less than their side apart.
    half = 0.45 * side
    x, y = across[first], latitude[first]
    boxes = shapely.box(x - half, y - half, x + half, y + half)
    one, other = shapely.STRtree(boxes).query(boxes)
    if (one != other).any():
        columns = np.floor(across / (2 * side))
        return names | {
            key: f"block {int(band)} {int(column)}" for key, band, column in zip(placed, bands, columns, strict=True)
        }
    return names | {key: "{:.6f} {:.6f}".format(*centers[k]) for key, k in zip(placed, member.ravel(), strict=True)}


def accuracy_by_cell(degrees: npt.ArrayLike, correct: npt.ArrayLike) -> AccuracyGrid:
    """Counts examples and correct predictions by cell.

    The cells are the smallest of which thirty or fewer lie side by side and hold eight examples on average, or else the
    largest of which four lie side by side.

    Args:
        degrees: (N, 2) longitude and latitude; examples of unknown location are left out.
        correct: bool (N,) whether the predictions are correct.
    """
    degrees, correct = np.asarray(degrees, np.float64), np.asarray(correct, bool)
    known = np.isfinite(degrees).all(axis=1)
    degrees, correct = degrees[known], correct[known]
    if not len(degrees):
        return AccuracyGrid(1.0, ())
    extent = float((degrees.max(axis=0) - degrees.min(axis=0)).max())
    across = [extent * under / over for over, under in _SIZES]
    fit = [size for size, count in zip(_SIZES, across, strict=True) if _FEWEST_ACROSS <= count <= _MOST_ACROSS]
    # One location alone, or more than the globe is wide.
    for over, under in fit or [next(size for size, n in zip(_SIZES, across, strict=True) if n <= _MOST_ACROSS)]:
        cells, members = np.unique(np.floor(degrees * under / over).astype(int), axis=0, return_inverse=True)
        if len(degrees) >= _EXAMPLES_IN_CELL * len(cells):
            break
    examples = np.bincount(members.ravel(), minlength=len(cells))
    hits = np.bincount(members.ravel(), weights=correct, minlength=len(cells))
    order = np.lexsort((cells[:, 0], -cells[:, 1]))
    return AccuracyGrid(
        over / under,
        tuple(
            Cell(float(x * over / under), float(y * over / under), int(examples[k]), int(hits[k]))
            for k, (x, y) in zip(order, cells[order], strict=True)
        ),
    )
