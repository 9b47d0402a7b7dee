"""Georeferenced pixel grids of rasters and of windows in them."""

from __future__ import annotations

import dataclasses
import math

_LARGEST_SHIFT = 0.01
"""Largest distance of the corners of two equal grids in pixels: programs round them differently."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Georeferenced pixel grid.

    Attributes:
        crs: `EPSG:n`, or WKT where the coordinate reference system has no code.
        transform: affine transform (a, b, c, d, e, f) from pixel (column, row) to coordinates of `crs`.
        height: number of rows.
        width: number of columns.
    """

    crs: str
    transform: tuple[float, ...]
    height: int
    width: int

    @property
    def pixel_size(self) -> float:
        """Edge of a pixel in the units of `crs`: the root of its area."""
        a, b, _, d, e, _ = self.transform
        return math.sqrt(abs(a * e - b * d))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest x, smallest y, largest x and largest y of the grid's corners."""
        corners = [self.coordinates(column, row) for column in (0, self.width) for row in (0, self.height)]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def coordinates(self, column: float, row: float) -> tuple[float, float]:
        """Returns the coordinates of a position in pixels; whole numbers are the upper left corners of pixels."""
        a, b, c, d, e, f = self.transform
        return a * column + b * row + c, d * column + e * row + f

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Returns the column and row of coordinates; the inverse of `coordinates`."""
        a, b, c, d, e, f = self.transform
        determinant = a * e - b * d
        return (e * (x - c) - b * (y - f)) / determinant, (a * (y - f) - d * (x - c)) / determinant

    def covers_as(self, other: Grid) -> bool:
        """Returns whether both have one CRS and the same first and last corner, within 0.01 pixels of the other."""
        near = _LARGEST_SHIFT * other.pixel_size
        corners = [(one.coordinates(0, 0), one.coordinates(one.width, one.height)) for one in (self, other)]
        return self.crs == other.crs and all(math.dist(own, its) < near for own, its in zip(*corners, strict=True))

    def coarser(self, factor: int) -> Grid:
        """Returns the grid of pixels that are `factor` times as wide and high, whose last ones may reach beyond it."""
        a, b, c, d, e, f = self.transform
        transform = (a * factor, b * factor, c, d * factor, e * factor, f)
        return Grid(self.crs, transform, -(-self.height // factor), -(-self.width // factor))

    def window(self, row: int, column: int, height: int, width: int) -> Grid:
        """Returns the grid of a window; it may reach beyond this grid's edges."""
        a, b, _, d, e, _ = self.transform
        x, y = self.coordinates(column, row)
        return Grid(self.crs, (a, b, x, d, e, y), height, width)


def size_and_place(height: int, width: int, grid: Grid | None) -> str:
    """Returns size and place of a raster as a text; it has no grid where it has no place on the ground."""
    place = "without a place on the ground"
    if grid is not None:
        place = f"in {grid.crs[:40]} from ({grid.transform[2]:.10g}, {grid.transform[5]:.10g})"
    return f"{width}x{height} pixels {place}"
