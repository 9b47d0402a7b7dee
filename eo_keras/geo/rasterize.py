"""Rasterization of polygons into grids of labels, window by window, and filling of gaps in labels.

What a window shows does not depend on the window: burning a part of a grid equals cutting it from the whole.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from eo_keras.geo.grid import Grid
from eo_keras.legends.catalogue import IGNORE

_CHUNK = 4096
_STRIP = 2**21  # Pixels that are painted at once; with more, the arrays below take hundreds of megabytes.
_STEPS = 2.0**20
"""Coordinates are rounded to this fraction of a pixel, so that sums with whole pixels are exact."""


class Rasterizer:
    """Rasterizer of labeled polygons, kept as arrays of vertices.

    A pixel belongs to the polygon that holds its center. Of a center on a border between two polygons exactly one is
    the owner; where polygons overlap, the last one. `rasterio.features.rasterize` burns the same pixels, but for those
    whose center lies exactly on a border, where it may choose another owner; it is slower: it takes every vertex
    through Python.

    Args:
        geometries: object (N,), valid polygons and multipolygons of shapely.
        labels: uint8 (N,).
        fill: label of the pixels that belong to none.

    Attributes:
        bounds: smallest x, smallest y, largest x and largest y of all polygons; NaN of none.
    """

    def __init__(self, geometries: np.ndarray, labels: np.ndarray, fill: int = IGNORE):
        import shapely

        if len(geometries) != len(labels):
            raise ValueError(f"{len(geometries)} polygons and {len(labels)} labels")
        if not np.isin(shapely.get_type_id(geometries), (3, 6)).all():
            raise ValueError("only polygons and multipolygons can be burnt")
        self._labels = np.append(np.asarray(labels, np.uint8), np.uint8(fill))
        self._vertices = shapely.get_coordinates(geometries)
        sizes, first = [np.zeros(0, np.int64)], np.zeros(len(geometries) + 1, np.int64)
        for start in range(0, len(geometries), _CHUNK):
            rings = shapely.get_rings(shapely.get_parts(geometries[start : start + _CHUNK]))
            sizes.append(shapely.get_num_coordinates(rings))
        if len(geometries):
            np.cumsum(shapely.get_num_coordinates(geometries), out=first[1:])
        self._first = first
        self._ends_ring = np.zeros(len(self._vertices), bool)
        self._ends_ring[np.cumsum(np.concatenate(sizes)) - 1] = True
        self._bounds = shapely.bounds(geometries).reshape(-1, 4)
        x0, y0, x1, y1 = self._bounds.T
        self.bounds: tuple[float, float, float, float] = (
            float(np.fmin.reduce(x0, initial=np.nan)),
            float(np.fmin.reduce(y0, initial=np.nan)),
            float(np.fmax.reduce(x1, initial=np.nan)),
            float(np.fmax.reduce(y1, initial=np.nan)),
        )

    def rasterize(self, grid: Grid) -> np.ndarray:
        """Rasterizes the polygons into a grid in their CRS.

        Returns:
            uint8 (height, width), the labels.
        """
        labels = np.full((grid.height, grid.width), self._labels[-1], np.uint8)
        for rows, owners in self._strips(grid):
            labels[rows] = self._labels[owners]  # The last label is the fill value, for the owner -1.
        return labels

    def owners(self, grid: Grid) -> np.ndarray:
        """Returns the polygon of each pixel of a grid in their CRS, such as the zone that it lies in.

        Returns:
            int32 (height, width), places in `geometries`, or -1.
        """
        found = np.full((grid.height, grid.width), -1, np.int32)
        for rows, owners in self._strips(grid):
            found[rows] = owners
        return found

    def _strips(self, grid: Grid) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields the owners of a grid's pixels by strips of rows; those without a polygon are left out."""
        rows = max(1, _STRIP // grid.width)
        for top in range(0, grid.height, rows):
            strip = grid.window(top, 0, min(rows, grid.height - top), grid.width)
            west, south, east, north = strip.bounds
            x0, y0, x1, y1 = self._bounds.T
            here = np.flatnonzero((x0 <= east) & (x1 >= west) & (y0 <= north) & (y1 >= south))
            if here.size:
                yield slice(top, top + strip.height), np.append(here, -1)[self._owners(strip, here)]

    def _owners(self, grid: Grid, here: np.ndarray) -> np.ndarray:
        """Returns the place in `here` of each pixel's owner, or -1; int32 (height, width)."""
        row, column, shift = _lattice(grid)
        counts = self._first[here + 1] - self._first[here]
        vertices = _ranges(self._first[here], counts)
        polygon = np.repeat(np.arange(here.size), counts)
        places = dataclasses.replace(grid, transform=_unmoved(grid)).pixel(*self._vertices[vertices].T)
        u, v = (_rounded(place - moved) for place, moved in zip(places, shift, strict=True))
        edge = np.flatnonzero(~self._ends_ring[vertices])
        # Every edge starts at its smaller v, so that the polygon on its other side gets the same crossings.
        upwards = v[edge] <= v[edge + 1]
        start, end = np.where(upwards, edge, edge + 1), np.where(upwards, edge + 1, edge)
        first = np.maximum(np.ceil(v[start] - 0.5), row).astype(np.int64)
        last = np.minimum(np.ceil(v[end] - 0.5), row + grid.height).astype(np.int64)
        crossing = last > first
        start, end, first, count = start[crossing], end[crossing], first[crossing], (last - first)[crossing]
        slope = (u[end] - u[start]) / (v[end] - v[start])
        rows = _ranges(first, count)
        at = np.repeat(np.arange(count.size), count)
        crossings = np.ceil(u[start][at] + (rows + 0.5 - v[start][at]) * slope[at] - 0.5)
        columns = np.clip(crossings - column, 0, grid.width).astype(np.int64)
        return _painted((polygon[start][at] * grid.height + rows - row) * (grid.width + 1) + columns, grid)


def _painted(crossings: np.ndarray, grid: Grid) -> np.ndarray:
    """Fills the pixels between each first and second crossing of a polygon's border with a row.

    Args:
        crossings: int64, `(polygon * height + row) * (width + 1) + column`, where the column is the first one behind.
        grid: the grid that is filled.

    Returns:
        int32 (height, width), the largest polygon of each pixel, or -1.
    """
    crossings = np.sort(crossings)
    begin, count = crossings[0::2], crossings[1::2] - crossings[0::2]
    begin, count = begin[count > 0], count[count > 0]
    lines, columns = np.divmod(begin, grid.width + 1)
    polygons, rows = np.divmod(lines, grid.height)
    owners = np.full(grid.height * grid.width, -1, np.int32)
    # Not an assignment, which does not define which of several values remains.
    np.maximum.at(owners, _ranges(rows * grid.width + columns, count), np.repeat(polygons.astype(np.int32), count))
    return owners.reshape(grid.height, grid.width)


def _ranges(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Concatenates the ranges of `count` integers from `first`; int64."""
    before = np.cumsum(count) - count
    return np.repeat(first - before, count) + np.arange(int(count.sum()))


def _rounded(places: np.ndarray) -> np.ndarray:
    return np.rint(places * _STEPS) / _STEPS


def _unmoved(grid: Grid) -> tuple[float, ...]:
    a, b, _, d, e, _ = grid.transform
    return a, b, 0.0, d, e, 0.0


def _lattice(grid: Grid) -> tuple[int, int, tuple[float, float]]:
    """Returns a grid's first row and column on the infinite lattice of its pixels, and the shift of the lattice.

    All windows of a grid share the lattice, whose pixels are counted from the origin of the CRS: coordinates on it do
    not depend on the window, to the last bit.
    """
    u, v = dataclasses.replace(grid, transform=_unmoved(grid)).pixel(grid.transform[2], grid.transform[5])
    u, v = float(_rounded(u)), float(_rounded(v))
    column, row = math.floor(u), math.floor(v)
    return row, column, (u - column, v - row)


def fill_by_majority(
    labels: np.ndarray, placeholder: int, num_classes: int, iterations: int, ignore: int = IGNORE
) -> np.ndarray:
    """Fills pixels without a class with the majority of their neighbors, from the edges of a gap inwards.

    In each iteration every such pixel with at least one labeled pixel among its eight neighbors takes the most
    frequent label of them, of several the smallest; all at once, so that their order does not matter. A pixel depends
    on what lies up to `iterations` pixels away and on nothing else.

    Args:
        labels: uint8 (height, width).
        placeholder: the value of the pixels to fill, at least `num_classes`.
        num_classes: smaller values are labels; all others are not looked at.
        iterations: largest distance in pixels.
        ignore: label of the pixels beyond that distance.

    Returns:
        uint8 (height, width).
    """
    width = labels.shape[1] + 2
    padded = np.pad(labels, 1, constant_values=ignore).ravel()
    waiting = np.flatnonzero(padded == placeholder)
    for _ in range(iterations):
        if not waiting.size:
            break
        parts = [
            _majorities(padded, waiting[start : start + _STRIP // 16], width, num_classes)
            for start in range(0, waiting.size, _STRIP // 16)
        ]
        majorities = np.concatenate(parts)
        filled = majorities < num_classes
        padded[waiting[filled]] = majorities[filled]
        waiting = waiting[~filled]
    padded[waiting] = ignore
    return np.ascontiguousarray(padded.reshape(-1, width)[1:-1, 1:-1])


def _majorities(padded: np.ndarray, pixels: np.ndarray, width: int, num_classes: int) -> np.ndarray:
    """Returns the most frequent label around each pixel, or `num_classes` where there is none; uint8."""
    counts = np.zeros((pixels.size, num_classes), np.uint8)
    everywhere = np.arange(pixels.size)
    for step in (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1):
        neighbours = padded[pixels + step]
        labelled = neighbours < num_classes
        counts[everywhere[labelled], neighbours[labelled]] += 1
    majorities = counts.argmax(axis=1).astype(np.uint8)
    majorities[counts.max(axis=1) == 0] = num_classes
    return majorities
