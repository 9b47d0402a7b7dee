"""Raster files and the grids they lie on."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from eo_keras import rasters, reference_systems
from eo_keras.errors import EOKerasError, OptionError, SourceError
from eo_keras.grids import Grid

DRIVERS = ("GTiff", "COG", "VRT", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID")
"""GDAL's names of what a scene's files may be; others would follow whatever paths a file names."""

_MOST_GROWTH = 16
"""How many times as many pixels a scene may have in another reference system; turned by 45 degrees it has twice."""


def common_grid(source: str, paths: Iterable[str], target_crs: str | None = None) -> Grid:
    """Returns the grid of the finest of a scene's files, from its own transform, brought to another CRS if asked for.

    Args:
        source: the scene, for errors.
        paths: its files.
        target_crs: such as `EPSG:32633`, or None.

    Raises:
        SourceError: if a file cannot be opened or has no place on the ground, or two lie in different CRS.
        OptionError: if `target_crs` is none.
    """
    from rasterio.crs import CRS
    from rasterio.errors import RasterioError
    from rasterio.warp import calculate_default_transform

    grids = {}
    for file in dict.fromkeys(paths):
        with open_dataset(file) as dataset:
            grids[file] = _grid_of(dataset, file)
    crs = {grid.crs for grid in grids.values()}
    if len(crs) > 1:
        raise SourceError(source, f"its bands lie in {' and '.join(sorted(crs))}", "one coordinate reference system")
    finest = min(grids.values(), key=lambda grid: grid.pixel_size)
    if target_crs is None:
        return finest
    target = reference_systems.target(target_crs)
    name = reference_systems.name_of(target)
    if name == finest.crs:
        return finest
    try:
        transform, width, height = calculate_default_transform(
            CRS.from_user_input(finest.crs), target, finest.width, finest.height, *finest.bounds
        )
    except RasterioError:
        transform, width, height = None, 0, 0
    # Far outside its area a projection gives no coordinates, or such as make a grid of any size.
    if not 0 < width * height <= _MOST_GROWTH * finest.width * finest.height:
        raise OptionError(
            "--target_crs", f"'{target_crs}' does not reach {source}", "a projection for where the scene lies"
        )
    return Grid(name, tuple(transform)[:6], height, width)


def _grid_of(dataset: Any, path: str) -> Grid:
    if dataset.crs is None or dataset.transform.is_identity:
        found = "it has no place on the ground (no CRS or no transform)"
        if dataset.gcps[0] or dataset.rpcs:
            found = "it has no grid on the ground, only control points or a sensor model (GCPs or RPCs)"
        elif dataset.crs is None and not dataset.transform.is_identity:
            found = "it does not say in which CRS it lies; its transform alone, as of a world file, is no place"
        raise SourceError(
            path,
            found,
            "a georeferenced raster",
            "georeference it: gdal_edit.py -a_srs adds a CRS, gdalwarp -t_srs makes a grid of control points",
        )
    if not reference_systems.has_place(dataset.crs):
        raise SourceError(path, "its CRS is no projection on the ground, nor degrees", "a georeferenced raster")
    return Grid(rasters.crs_name(dataset.crs.to_wkt()), tuple(dataset.transform)[:6], dataset.height, dataset.width)


def same_crs(crs: Any, name: str) -> bool:
    """Tells whether rasterio's coordinate reference system is the one of this name."""
    return crs is not None and rasters.crs_name(crs.to_wkt()) == name


@contextlib.contextmanager
def open_dataset(path: str) -> Iterator[Any]:
    """Opens a raster file by rasterio, as a context.

    Raises:
        SourceError: if it cannot be opened or is of another form than `DRIVERS`.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except RasterioError as error:
        raise SourceError(
            path, f"it cannot be opened ({error.__cause__ or error})", "a raster", "copy it again"
        ) from None
    with dataset:
        if dataset.driver not in DRIVERS:
            raise SourceError(path, f"a raster of form {dataset.driver}", "GeoTIFF, COG, VRT or JPEG 2000")
        try:
            yield dataset
        except EOKerasError:
            raise
        except RasterioError as error:
            raise SourceError(
                path, f"it cannot be read ({error.__cause__ or error})", "a whole raster", "copy it again"
            ) from None
