"""OpenStreetMap extract of a synthetic city: tagged areas and lines, some missing, all slightly displaced."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np

from eo_keras.core import files
from eo_keras.errors import OptionError
from eo_keras.geo import polygons as vectors
from eo_keras.geo.grid import Grid
from eo_keras.geo.polygons import Polygons
from tfrecords_builder.synthetic.city_plan import CODES
from tfrecords_builder.synthetic.city_world import CityWorld
from tfrecords_builder.synthetic.noise import hashed, salt
from tfrecords_builder.synthetic.streets import streets

CRS = "EPSG:4326"

TAGS = {
    **dict.fromkeys((11100, 11210, 11220, 11230, 11240, 11300), ("landuse", "residential")),
    12100: ("landuse", "industrial"),
    14100: ("landuse", "grass"),
    21000: ("landuse", "farmland"),
    22000: ("landuse", "orchard"),
    23000: ("landuse", "meadow"),
    31000: ("landuse", "forest"),
    32000: ("natural", "grassland"),
    50000: ("natural", "water"),
}
"""OpenStreetMap tag of the areas of each Urban Atlas code."""

_STEP = 4.0


@dataclasses.dataclass(frozen=True)
class OsmOptions:
    """Options of the extract's quality.

    Attributes:
        complete: share of the areas, and of the streets, that somebody has mapped.
        shift_m: largest displacement of an area in meters, in both directions.
    """

    complete: float = 0.875
    shift_m: float = 5.0

    def __post_init__(self):
        """Checks the values."""
        if not 0 < self.complete <= 1:
            raise OptionError("OpenStreetMap option complete", f"{self.complete}", "a share above 0, up to 1")
        if not 0 <= self.shift_m <= 100:
            raise OptionError("OpenStreetMap option shift_m", f"{self.shift_m}", "0 to 100 metres")


def write_openstreetmap(
    path: str | os.PathLike[str],
    world: CityWorld,
    places: np.ndarray,
    grid: Grid,
    changed: str,
    options: OsmOptions | None = None,
) -> None:
    """Writes a GeoPackage with the layers `multipolygons` and `lines` in degrees, a column for every key.

    Args:
        path: the file, ending in `.gpkg`.
        world: the city.
        places: its land use, places in `city_plan.CODES`, uint8 (size, size).
        grid: grid of the land use.
        changed: when the file was changed last (ISO 8601), as it will say.
        options: options of the extract; None for the defaults.

    Raises:
        StorageError: if it cannot be written.
    """
    path, options = pathlib.Path(path), options or OsmOptions()
    _write_areas(path, world, places, grid, changed, options)
    with files.storage_errors(path):
        _write_lines(path, world, grid, changed, options)


def _write_areas(
    path: pathlib.Path, world: CityWorld, places: np.ndarray, grid: Grid, changed: str, options: OsmOptions
) -> None:
    import shapely

    geometries, labels = vectors.trace(places, grid, ignore=CODES.index(0))
    codes = np.array([CODES[label] for label in labels])
    numbers = np.arange(len(codes))
    seed = world.options.seed
    keep = (hashed(salt(seed, "mapped"), numbers) < options.complete) & np.isin(codes, list(TAGS))
    shifts = [options.shift_m * (2.0 * hashed(salt(seed, "shift", axis), numbers) - 1.0) for axis in range(2)]
    counts = shapely.get_num_coordinates(geometries[keep])
    moves = np.stack([np.repeat(shift[keep].astype(np.float64), counts) for shift in shifts], axis=1)
    coordinates = shapely.get_coordinates(geometries[keep]) + moves
    moved = shapely.set_coordinates(geometries[keep].copy(), coordinates)
    there = vectors.reprojected(Polygons(moved, codes[keep].astype(str), grid.crs, "osm"), CRS)
    tags = [TAGS[int(code)] for code in there.values]
    fields = {key: np.array([value if name == key else "" for name, value in tags]) for key in ("landuse", "natural")}
    vectors.write_polygons(path, "multipolygons", there.geometries, fields, CRS, changed)


def _write_lines(path: pathlib.Path, world: CityWorld, grid: Grid, changed: str, options: OsmOptions) -> None:
    import pyogrio
    import pyogrio.raw
    import shapely
    from rasterio.warp import transform

    plan, reach = world.plan, 1.5 * world.size
    known = streets(plan)
    mapped = hashed(salt(world.options.seed, "mapped streets"), np.arange(len(known))) < options.complete
    courses = [
        *((road.points(reach, _STEP), "highway", "motorway") for road in plan.highways),
        *((road.points(reach, _STEP), "highway", "secondary") for road in plan.arteries),
        *((line, "highway", "residential") for line, keep in zip(known, mapped, strict=True) if keep),
        (plan.railway.points(reach, _STEP), "railway", "rail"),
        (plan.river.points(reach, _STEP), "waterway", "river"),
    ]
    inside = shapely.box(*grid.bounds)
    geometries, fields = [], {key: [] for key in ("highway", "railway", "waterway")}
    for points, key, value in courses:
        xs, ys = grid.coordinates(points[:, 1], points[:, 0])
        # Winding lines leave the city and come back: each stretch is a line.
        for part in shapely.get_parts(shapely.intersection(shapely.LineString(np.stack([xs, ys], axis=1)), inside)):
            there = transform(grid.crs, CRS, *shapely.get_coordinates(part).T)
            geometries.append(shapely.LineString(np.stack(there, axis=1)))
            for name, values in fields.items():
                values.append(value if name == key else "")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": changed})
    try:
        pyogrio.raw.write(
            path,
            shapely.to_wkb(np.array(geometries)),
            [np.array(values, object) for values in fields.values()],
            list(fields),
            layer="lines",
            driver="GPKG",
            geometry_type="LineString",
            crs=CRS,
            append=True,
        )
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
