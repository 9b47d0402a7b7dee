"""Raster files and the grids they lie on."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from eo_keras.core import containers
from eo_keras.errors import EOKerasError, OptionError, SourceError
from eo_keras.geo import checksums, reference_systems, vrt_files
from eo_keras.geo import images as rasters
from eo_keras.geo.grid import Grid

_JPEG2000 = ("JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID")
"""GDAL drivers; which of them exist depends on the build of GDAL."""

_FORMS = "GeoTIFF, COG, VRT or JPEG 2000"
_SIDE_FILES = (".ovr", ".msk", ".OVR", ".MSK")
_JPEG2000_STARTS = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_MOST_GROWTH = 16
"""Most pixels of a reprojected scene, as a multiple of its own; turned by 45 degrees it has twice as many."""


_LEAST_SHARED = 0.5
"""Least overlap of two bands of a scene, as a share of the smaller one; neighboring tiles share a tenth."""


def common_grid(source: str, paths: Iterable[str]) -> Grid:
    """Returns the grid of the finest of a scene's files, from its own transform.

    Args:
        source: the scene, for errors.
        paths: its files.

    Raises:
        SourceError: if a file cannot be opened or has no place on the ground, two lie in different CRS, or one lies
            elsewhere than the finest.
    """
    grids = {}
    for file in dict.fromkeys(paths):
        with open_dataset(file) as dataset:
            grids[file] = _grid_of(dataset, file)
    crs = {grid.crs for grid in grids.values()}
    if len(crs) > 1:
        raise SourceError(
            source,
            f"its bands lie in {' and '.join(sorted(crs))}",
            "one coordinate reference system",
            "bring them to one by gdalwarp -t_srs",
        )
    finest = min(grids.values(), key=lambda grid: grid.pixel_size)
    for file, grid in grids.items():
        _check_over(file, grid, finest)
    return finest


def brought_to(source: str, grid: Grid, target_crs: str | None) -> Grid:
    """Returns a scene's grid in another reference system, or the grid itself if none is given.

    Args:
        source: the scene, for errors.
        grid: its own grid.
        target_crs: such as `EPSG:32633`, or None.

    Raises:
        OptionError: if `target_crs` is none, or does not reach the scene.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.crs import CRS
    from rasterio.errors import RasterioError
    from rasterio.warp import calculate_default_transform

    if target_crs is None:
        return grid
    target = reference_systems.target(target_crs)
    name = reference_systems.name_of(target)
    if name == grid.crs:
        return grid
    try:
        transform, width, height = calculate_default_transform(
            CRS.from_user_input(grid.crs), target, grid.width, grid.height, *grid.bounds
        )
    except (RasterioError, CPLE_BaseError):
        # Where no point of the scene has coordinates, rasterio raises GDAL's own error.
        transform, width, height = None, 0, 0
    # Far outside its area, a projection gives no coordinates, or grids of any size.
    if not 0 < width * height <= _MOST_GROWTH * grid.width * grid.height:
        raise OptionError(
            "target_crs",
            f"'{target_crs}' does not reach {source}",
            "a projection for where the scene lies",
            f"say `target_crs={reference_systems.projection_for(grid)}`; where scenes lie far apart, bring them to "
            "projections of their own by gdalwarp -t_srs, or build several records folders",
        )
    return Grid(name, tuple(transform)[:6], height, width)


def check_over(path: str, grid: Grid) -> None:
    """Checks that a raster is georeferenced and, if its CRS is that of a grid, overlaps the grid.

    Raises:
        SourceError: if it cannot be opened, has no place, or lies elsewhere.
    """
    with open_dataset(path) as dataset:
        own = _grid_of(dataset, path)
    if own.crs == grid.crs:
        _check_over(path, own, grid)


def _check_over(path: str, own: Grid, grid: Grid) -> None:
    (west, south, east, north), (left, bottom, right, top) = own.bounds, grid.bounds
    width, height = min(east, right) - max(west, left), min(north, top) - max(south, bottom)
    smaller = min((east - west) * (north - south), (right - left) * (top - bottom))
    if max(width, 0) * max(height, 0) < _LEAST_SHARED * smaller:
        raise SourceError(
            path,
            "it lies elsewhere than the scene's finest band",
            "bands of one place",
            "put the bands of each place into a folder of their own",
        )


def _grid_of(dataset: Any, path: str) -> Grid:
    if dataset.crs is None or dataset.transform.is_identity:
        problem = "it has no place on the ground (no CRS or no transform)"
        if dataset.gcps[0] or dataset.rpcs:
            problem = "it has no grid on the ground, only control points or a sensor model (GCPs or RPCs)"
        elif dataset.crs is None and not dataset.transform.is_identity:
            problem = "it does not say in which CRS it lies; its transform alone, as of a world file, is no place"
        raise SourceError(
            path,
            problem,
            "a georeferenced raster",
            "georeference it: gdal_edit.py -a_srs adds a CRS, gdalwarp -t_srs makes a grid of control points",
        )
    if not reference_systems.has_place(dataset.crs):
        raise SourceError(
            path, "its CRS is no projection on the ground, nor degrees", "a georeferenced raster", "gdalwarp -t_srs"
        )
    return Grid(rasters.crs_name(dataset.crs.to_wkt()), tuple(dataset.transform)[:6], dataset.height, dataset.width)


def same_crs(crs: Any, name: str) -> bool:
    """Returns whether rasterio's coordinate reference system is the one of this name."""
    return crs is not None and rasters.crs_name(crs.to_wkt()) == name


@contextlib.contextmanager
def open_dataset(path: str) -> Iterator[Any]:
    """Opens a raster file by rasterio; a context manager.

    The driver is chosen by the file's name before GDAL sees it, and what a file names besides is looked at first:
    others of GDAL's drivers would send requests to whatever host a downloaded file names.

    Raises:
        SourceError: if it cannot be opened, is of another form than its name says, or names other files.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    driver = _driver_of(path)
    zipped = path.startswith("/vsizip/")
    if not zipped:
        _check_side_files(path)
    if driver == "VRT":
        vrt_files.check(path, _check_source)
    with contextlib.ExitStack() as stack:
        if zipped:
            # A product needs no files beside its images, and those there cannot be checked here.
            stack.enter_context(rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = stack.enter_context(rasterio.open(path, driver=driver))
        except RasterioError as error:
            raise _unopened(path, driver, error) from None
        _check_overviews(dataset, path)
        try:
            yield dataset
        except EOKerasError:
            raise
        except RasterioError as error:
            raise SourceError(
                path, f"it cannot be read ({error.__cause__ or error})", "a whole raster", "copy it again"
            ) from None


def _unopened(path: str, driver: str, error: Exception) -> SourceError:
    """Returns the error of a file that GDAL cannot open, with its actual kind where the first bytes reveal it."""
    said, remedy = f"it cannot be opened as {driver} ({error.__cause__ or error})", "copy it again"
    file, member = containers.place_of(path)
    if member:
        # The zip's own checksum distinguishes damage from a file that never was an image.
        checksums.sha256_of_zip(file, [member])
        return SourceError(f"{file}: {member}", said, _FORMS, remedy)
    with open(file, "rb") as opened:
        start = opened.read(512)
    if not start:
        said = "the file is empty"
    elif driver != "GTiff" and start.startswith(_TIFF_STARTS):
        said, remedy = "this is a TIFF by its first bytes", "rename it so that it ends in .tif"
    elif driver == "GTiff" and start.startswith(_JPEG2000_STARTS):
        said, remedy = "this is a JPEG 2000 file by its first bytes", "rename it so that it ends in .jp2"
    elif start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        said = "this is XML or a web page, such as a server's refusal, saved under an image's name"
        remedy = "read it in a text editor, and download the image again"
    return SourceError(path, said, _FORMS, remedy)


def _driver_of(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    driver = {".tif": "GTiff", ".tiff": "GTiff", ".vrt": "VRT", ".jp2": _jpeg2000()}.get(suffix)
    if driver is None:
        raise SourceError(path, f"its name ends in {suffix or 'no form'}", _FORMS, "name another file")
    return driver


@functools.lru_cache(maxsize=1)
def _jpeg2000() -> str:
    import rasterio

    with rasterio.Env() as environment:
        known = environment.drivers()
    return next((name for name in _JPEG2000 if name in known), _JPEG2000[0])


def check_vrt_in(folder: str, path: str) -> None:
    """Checks a VRT in a folder of bands, which may name no file outside the folder.

    Raises:
        SourceError: if it does.
    """
    vrt_files.check(path, _check_source, folder)


def _check_source(path: str) -> None:
    with open_dataset(path):
        pass


def _check_side_files(path: str) -> None:
    """Refuses overviews and masks beside a file that are no TIFFs, since GDAL opens them by any driver."""
    for beside in (path + suffix for suffix in _SIDE_FILES):
        try:
            with open(beside, "rb") as file:
                start = file.read(4)
        except OSError:
            continue
        if start not in _TIFF_STARTS:
            raise SourceError(
                beside, "it is no TIFF, as overviews and masks beside a raster are", remedy="move it away"
            )


def _check_overviews(dataset: Any, path: str) -> None:
    """Refuses a file whose metadata name another file for its overviews, which could be a URL."""
    if named := dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE"):
        raise SourceError(
            path,
            f"its metadata name {named[:80]!r} for its overviews",
            "a raster that needs no other file",
            "move its .aux.xml away, or write it again by gdal_translate -co COPY_SRC_OVERVIEWS=NO",
        )
