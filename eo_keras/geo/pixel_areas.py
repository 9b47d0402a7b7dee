"""Areas of pixels on the ground, in hectares, and of the classes that pixels have.

Where a projection is true to area within 0.5 %, as UTM is in its zone and equal-area projections are anywhere, a pixel
has the area that its edges in meters give: 10 m by 10 m are 0.01 ha. Elsewhere (degrees, Mercator, UTM far from its
zone) its corners are projected by the cylindrical equal-area projection of the WGS84 ellipsoid: J. P. Snyder, Map
Projections: A Working Manual, 1987, chapter 10.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eo_keras.errors import SourceError
from eo_keras.geo.footprints import transformed
from eo_keras.geo.grid import Grid

_EQUATOR_M, _FLATTENING = 6_378_137.0, 1 / 298.257223563
_ECCENTRICITY = math.sqrt(_FLATTENING * (2 - _FLATTENING))
_SQUARE_METERS = 10_000.0  # In a hectare.

_TRUE_TO_AREA = 0.005
"""Largest relative error of a projection's areas for its own pixel size to be used; UTM has 0.2 % in its zone."""

_SAMPLES = 9
"""Number of places along an edge of a grid where a projection is checked."""

_COLUMNS = 33
"""Number of columns whose pixels are measured; the areas between them are interpolated."""

_EQUAL = 1e-6
"""Largest relative difference of areas that are taken to be equal."""


def row_areas(grid: Grid, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the area of one pixel of each row.

    Args:
        grid: the grid.
        rows: numbers of R rows in it.

    Returns:
        float64 (R, 1) in hectares; (R, width) where the pixels of a row differ. 0 where a projection has no place on
        the ground.

    Raises:
        SourceError: if nothing of the grid has a place on the ground.
    """
    rows = np.asarray(rows, np.int64)
    own = _own_area(grid)
    if own is not None:
        return np.full((rows.size, 1), own)
    columns = np.unique(np.linspace(0, grid.width - 1, min(grid.width, _COLUMNS)).round().astype(np.int64))
    areas = _measured(grid, rows[:, None], columns[None, :])
    known = np.isfinite(areas)
    if known.all() and (np.ptp(areas, axis=1) <= _EQUAL * areas.max(axis=1)).all():
        return areas[:, :1]
    pixels = np.arange(grid.width)
    by_pixel = np.zeros((rows.size, grid.width))
    for row, (here, found) in enumerate(zip(known, areas, strict=True)):
        if here.any():
            by_pixel[row] = np.interp(pixels, columns[here], found[here])
    return by_pixel


def areas_by_label(labels: npt.ArrayLike, areas: np.ndarray, num_labels: int = 256) -> np.ndarray:
    """Adds up the areas of the pixels of each label.

    Args:
        labels: (R, width) integers of 0..num_labels - 1, such as a window's classes and no data.
        areas: hectares of their pixels, as `row_areas` returns them.
        num_labels: number of labels.

    Returns:
        float64 (num_labels,), in hectares.
    """
    labels = np.asarray(labels)
    if areas.shape[1] > 1:
        return np.bincount(labels.ravel(), np.broadcast_to(areas, labels.shape).ravel(), num_labels)
    # Counts by row are exact and faster than weights for every pixel.
    of_row = labels.astype(np.int64) + np.arange(len(labels))[:, None] * num_labels
    counts = np.bincount(of_row.ravel(), minlength=len(labels) * num_labels).reshape(len(labels), num_labels)
    return areas[:, 0] @ counts


@functools.lru_cache(maxsize=64)
def _own_area(grid: Grid) -> float | None:
    """Returns the area of a pixel by its edges, in hectares, where the grid's projection is true to area."""
    from rasterio.crs import CRS

    crs = CRS.from_user_input(grid.crs)
    rows, columns = (
        np.unique(np.linspace(0, size - 1, min(size, _SAMPLES)).round().astype(np.int64))
        for size in (grid.height, grid.width)
    )
    measured = _measured(grid, rows[:, None], columns[None, :])
    measured = measured[np.isfinite(measured)]
    if not measured.size:
        raise SourceError(
            f"a grid in {grid.crs}",
            "no pixel of it has a place on the ground",
            "a georeferenced raster",
            "check its coordinate reference system and its transform",
        )
    if not crs.is_projected:
        return None
    own = (grid.pixel_size * crs.linear_units_factor[1]) ** 2 / _SQUARE_METERS
    return own if np.all(np.abs(measured / own - 1) < _TRUE_TO_AREA) else None


def _measured(grid: Grid, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns the areas of pixels in hectares by their corners; NaN where a corner has no place on the ground."""
    rows, columns = np.broadcast_arrays(rows, columns)
    corners = [(rows + down, columns + right) for down, right in ((0, 0), (0, 1), (1, 1), (1, 0))]
    places = np.stack([np.stack(grid.coordinates(column, row), axis=-1) for row, column in corners])
    degrees = transformed(places.reshape(-1, 2), grid.crs, "EPSG:4326").reshape(places.shape)
    degrees = np.where(np.isfinite(degrees), degrees, np.nan)
    x, y = _equal_area(degrees)
    # From the first corner on, so that small differences of large numbers stay exact, also across 180 degrees.
    x, y = (x - x[0] + math.pi) % (2 * math.pi) - math.pi, y - y[0]
    doubled = sum(x[here] * y[after] - x[after] * y[here] for here, after in ((0, 1), (1, 2), (2, 3), (3, 0)))
    return np.abs(doubled) / 2 * _EQUATOR_M**2 / _SQUARE_METERS


def _equal_area(degrees: np.ndarray) -> tuple[Any, Any]:
    """Projects longitudes and latitudes (..., 2); an area in the plane times the squared equator's radius is true."""
    longitude = np.radians(degrees[..., 0])
    sine = np.sin(np.radians(np.clip(degrees[..., 1], -90, 90)))
    scaled = _ECCENTRICITY * sine
    height = (1 - _ECCENTRICITY**2) / 2 * (sine / (1 - scaled**2) + np.arctanh(scaled) / _ECCENTRICITY)
    return longitude, height
