"""A grid of pixels on the ground: where a raster lies, and where a window of it does."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Grid:
    """Pixels on the ground.

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
        a, b, c, d, e, f = self.transform
        corners = [(column, row) for column in (0, self.width) for row in (0, self.height)]
        xs = [a * column + b * row + c for column, row in corners]
        ys = [d * column + e * row + f for column, row in corners]
        return min(xs), min(ys), max(xs), max(ys)

    def window(self, row: int, column: int, height: int, width: int) -> Grid:
        """Returns the grid of a window; it may reach beyond this grid's edges."""
        a, b, c, d, e, f = self.transform
        corner = (a * column + b * row + c, d * column + e * row + f)
        return Grid(self.crs, (a, b, corner[0], d, e, corner[1]), height, width)
