"""Coordinate reference systems of grids, and the size of a pixel on the ground."""

from __future__ import annotations

import math
from typing import Any

from eo_keras.errors import OptionError
from eo_keras.geo import images as rasters
from eo_keras.geo.grid import Grid

TARGET = "a projected coordinate reference system in meters, such as EPSG:32633"

_TRUE_TO_SCALE = 0.01
"""Largest relative error of a projection's lengths for its own pixel size to be used; UTM has 0.1 %."""


def target(text: str) -> Any:
    """Returns the reference system of this name, as a rasterio CRS.

    Raises:
        OptionError: if there is none, or it is no horizontal one whose coordinates are meters.
    """
    import rasterio
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    # Outside an environment, GDAL prints its messages to standard error.
    with rasterio.Env():
        try:
            crs = CRS.from_user_input(text)
        except CRSError:
            raise OptionError("target_crs", f"'{text}' is no coordinate reference system", TARGET) from None
        if (fault := _fault(crs)) is not None:
            raise OptionError("target_crs", f"'{text}' {fault}", TARGET)
    return crs


def _fault(crs: Any) -> str | None:
    kind = crs.to_wkt().partition("[")[0]
    if crs.is_geographic:
        return "is in degrees, whose pixels have no size in metres"
    if kind in ("COMPD_CS", "COMPOUNDCRS"):
        return "has a height beside its plane"
    if not crs.is_projected:
        kinds = {"VERT_CS": "is one of heights", "GEOCCS": "is geocentric", "LOCAL_CS": "has no place on the ground"}
        return kinds.get(kind, "is no projection")
    unit, metres = crs.linear_units_factor
    return None if metres == 1 else f"is in units of {metres:g} m ({unit})"


def has_place(crs: Any) -> bool:
    """Returns whether rasterio's reference system ties a grid to the ground: degrees or a projection."""
    return crs.is_geographic or crs.is_projected


def is_in_degrees(crs: str) -> bool:
    """Returns whether a coordinate reference system counts in degrees, so that its pixels have no size in meters."""
    from rasterio.crs import CRS

    return CRS.from_user_input(crs).is_geographic


def projection_for(grid: Grid) -> str:
    """Returns a projection for a grid: the UTM zone of its center, or polar stereographic."""
    longitude, latitude = _middle_in_degrees(grid)
    if not -80 <= latitude <= 84:
        return "EPSG:3031" if latitude < 0 else "EPSG:3995"
    return f"EPSG:{(32601 if latitude >= 0 else 32701) + int((longitude + 180) // 6) % 60}"


def pixel_on_ground(grid: Grid) -> tuple[float, float]:
    """Returns the size on the ground of the pixel in the center of a grid.

    Returns:
        Width and height in meters; NaN where the grid's middle has no place on the ground. Where the projection is
        true to scale within 1 %, as UTM is, the grid's own pixel size, so that 10 m are 10 m.
    """
    from rasterio.crs import CRS
    from rasterio.warp import transform

    longitude, latitude = _middle_in_degrees(grid)
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        return math.nan, math.nan
    # Lengths from the middle of this projection are those along geodesics.
    here = CRS.from_user_input(f"+proj=aeqd +lat_0={latitude:.9f} +lon_0={longitude:.9f} +datum=WGS84")
    crs, middle = CRS.from_user_input(grid.crs), (grid.width / 2, grid.height / 2)
    places = [middle, (middle[0] + 1, middle[1]), (middle[0], middle[1] + 1)]
    points = [grid.coordinates(*place) for place in places]
    start, right, below = zip(*transform(crs, here, *zip(*points, strict=True)), strict=True)
    measured = math.dist(start, right), math.dist(start, below)
    if crs.is_projected:
        metres = crs.linear_units_factor[1]
        a, b, _, d, e, _ = grid.transform
        nominal = math.hypot(a, d) * metres, math.hypot(b, e) * metres
        if all(abs(length / own - 1) < _TRUE_TO_SCALE for length, own in zip(measured, nominal, strict=True)):
            return nominal
    return measured


def _middle_in_degrees(grid: Grid) -> tuple[float, float]:
    from rasterio.crs import CRS
    from rasterio.warp import transform

    x, y = grid.coordinates(grid.width / 2, grid.height / 2)
    (longitude,), (latitude,) = transform(CRS.from_user_input(grid.crs), CRS.from_epsg(4326), [x], [y])
    return longitude, latitude


def name_of(crs: Any) -> str:
    """Returns `EPSG:n` for rasterio's reference system, or its WKT where it has no code."""
    return rasters.crs_name(crs.to_wkt())
