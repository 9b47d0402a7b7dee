"""Windows of a scene, harmonised: the only place where the numbers of whole rasters get their meaning.

Harmonised digital numbers are reflectance x 10000 with the product's own offset applied. Valid pixels are at least 1,
so that a dark one, which the offset would bring to 0 or below, does not become one of no data.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

from eo_keras import raster_files
from eo_keras.errors import OptionError
from eo_keras.grids import Grid
from eo_keras.scenes import Layer, Scene

NO_DATA, VALID, SATURATED, UNCLEAR = range(4)
"""The values of a validity mask: no data in some band, good, saturated in some band, or cloud or its shadow."""

UNCLEAR_SCL = (3, 8, 9, 10)
"""Classes of the scene classification under which the ground is not seen: cloud shadow, clouds, thin cirrus."""

CACHE_MB = 256
"""GDAL's cache of decoded blocks; its own default is 5 % of the memory for every process."""

_ALIGNED = 1e-3  # Pixels: what rounding in a transform may move a grid by.
_REACH = 3  # Coarse pixels: the widest kernel, that of Lanczos.


class SceneReader:
    """Reads windows of a scene; a context manager.

    Args:
        scene: the scene.
    """

    def __init__(self, scene: Scene):
        """See the class."""
        self._scene = scene
        self._open = contextlib.ExitStack()
        self._sources: dict[str, Any] = {}
        self._warped: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> SceneReader:
        """Sets GDAL's cache; files are opened when they are first read."""
        import rasterio

        self._open.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_MB, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"))
        return self

    def __exit__(self, *exception) -> None:
        """Closes the files."""
        self._open.close()
        self._sources.clear()
        self._warped.clear()

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads a window; what of it lies outside the scene is no data.

        Args:
            row: first row on the scene's grid; may be negative.
            column: first column.
            height: rows.
            width: columns.

        Returns:
            Harmonised digital numbers, uint16 (height, width, bands), 0 in all bands where there is no data in any; and
            the validity mask, uint8 (height, width).

        Raises:
            SourceError: if a file is damaged.
            OptionError: if the window is empty.
        """
        if height < 1 or width < 1:
            raise OptionError("window", f"{height} x {width} pixels", "at least one pixel")
        grid, scene = self._scene.grid, self._scene
        image = np.zeros((height, width, len(scene.bands)), np.uint16)
        mask = np.full((height, width), NO_DATA, np.uint8)
        top, left = max(row, 0), max(column, 0)
        bottom, right = min(row + height, grid.height), min(column + width, grid.width)
        if top >= bottom or left >= right:
            return image, mask
        inside = slice(top - row, bottom - row), slice(left - column, right - column)
        window = (top, left, bottom - top, right - left)
        image[inside], mask[inside] = self._read_inside(*window)
        return image, mask

    def _read_inside(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        scene = self._scene
        image = np.empty((height, width, len(scene.bands)), np.uint16)
        known, saturated = np.ones((height, width), bool), np.zeros((height, width), bool)
        for path in dict.fromkeys(layer.path for layer in scene.layers):
            places = [place for place, layer in enumerate(scene.layers) if layer.path == path]
            layers = [scene.layers[place] for place in places]
            numbers = self._numbers(layers, scene.resampling, row, column, height, width)
            for place, layer, values in zip(places, layers, numbers, strict=True):
                here = _has_data(values, layer)
                if layer.saturated is not None:
                    saturated |= self._saturated(layer, values, row, column)
                _harmonise(values, layer, image[..., place])
                known &= here
        image[~known] = 0
        mask = np.where(known, np.where(saturated, SATURATED, VALID), NO_DATA).astype(np.uint8)
        if scene.scl is not None:
            (classes,) = self._numbers([scene.scl], "nearest", row, column, height, width)
            mask[np.isin(classes, UNCLEAR_SCL) & (mask == VALID)] = UNCLEAR
        return image, mask

    def _numbers(
        self, layers: list[Layer], resampling: str, row: int, column: int, height: int, width: int
    ) -> np.ndarray:
        """Reads bands of one file on the scene's grid: (layers, height, width), the file's own numbers."""
        from rasterio.windows import Window

        path, indexes = layers[0].path, [layer.index for layer in layers]
        source, shift = self._source(path)
        with _readable(path):
            if shift is not None:
                return source.read(indexes, window=Window(column + shift[1], row + shift[0], width, height))
            warped = self._warp(layers[0], resampling)
            return warped.read(indexes, window=Window(column, row, width, height))

    def _source(self, path: str) -> tuple[Any, tuple[int, int] | None]:
        """Returns an open file, and what `_shift` says of its grid."""
        if path not in self._sources:
            dataset = self._open.enter_context(raster_files.open_dataset(path))
            grid = Grid(self._scene.grid.crs, tuple(dataset.transform)[:6], dataset.height, dataset.width)
            same_crs = raster_files.same_crs(dataset.crs, self._scene.grid.crs)
            self._sources[path] = dataset, _shift(self._scene.grid, grid) if same_crs else None
        return self._sources[path]

    def _warp(self, layer: Layer, resampling: str) -> Any:
        from rasterio.crs import CRS
        from rasterio.enums import Resampling
        from rasterio.transform import Affine
        from rasterio.vrt import WarpedVRT

        key = layer.path, resampling
        if key not in self._warped:
            source, _ = self._source(layer.path)
            grid = self._scene.grid
            # GDAL knows one number for "no data" at a time; the file's own one comes before Sentinel-2's 0.
            nodata = next((value for value in layer.nodata if value), 0.0)
            if source.dtypes[layer.index - 1].startswith("float") and nodata == 0.0:
                nodata = math.nan
            self._warped[key] = self._open.enter_context(
                WarpedVRT(
                    source,
                    crs=CRS.from_user_input(grid.crs),
                    transform=Affine(*grid.transform),
                    height=grid.height,
                    width=grid.width,
                    resampling=Resampling[resampling],
                    src_nodata=nodata,
                    nodata=nodata,
                )
            )
        return self._warped[key]

    def _saturated(self, layer: Layer, values: np.ndarray, row: int, column: int) -> np.ndarray:
        """Tells which pixels are saturated, or were interpolated from one that is."""
        source, shift = self._source(layer.path)
        grid, (height, width) = self._scene.grid, values.shape
        if shift is not None or not raster_files.same_crs(source.crs, grid.crs) or not _north_up(source, grid):
            return values == layer.saturated
        # Rare, so that the band's own pixels are looked at first: they are few.
        own_rows = _own_places(grid.transform[4:], (source.transform.e, source.transform.f), row, height)
        own_columns = _own_places(
            (grid.transform[0], grid.transform[2]), (source.transform.a, source.transform.c), column, width
        )
        first_row, first_column = own_rows.min() - _REACH, own_columns.min() - _REACH
        shape = own_rows.max() - first_row + 1 + _REACH, own_columns.max() - first_column + 1 + _REACH
        top, left = max(0, first_row), max(0, first_column)
        bottom, right = min(source.height, first_row + shape[0]), min(source.width, first_column + shape[1])
        own = np.zeros(shape, bool)
        if top < bottom and left < right:
            with _readable(layer.path):
                read = source.read(layer.index, window=((int(top), int(bottom)), (int(left), int(right))))
            own[top - first_row : bottom - first_row, left - first_column : right - first_column] = (
                read == layer.saturated
            )
        if not own.any():
            return own[:1, :1]
        reached = np.zeros(shape, bool)
        for place in np.argwhere(own):
            reached[tuple(slice(max(0, at - _REACH), at + _REACH + 1) for at in place)] = True
        return reached[np.ix_(own_rows - first_row, own_columns - first_column)]


@contextlib.contextmanager
def _readable(path: str):
    """Tells of damage by the file's name."""
    from rasterio.errors import RasterioError

    from eo_keras.errors import SourceError

    try:
        yield
    except RasterioError as error:
        raise SourceError(
            path, f"it cannot be read ({error.__cause__ or error})", "a whole raster", "copy it again"
        ) from None


def _north_up(source: Any, grid: Grid) -> bool:
    return not any((source.transform.b, source.transform.d, grid.transform[1], grid.transform[3]))


def _own_places(grid: tuple[float, float], own: tuple[float, float], first: int, count: int) -> np.ndarray:
    """Returns, along one axis, in which of a band's own pixels those of a window lie; (step, start) of both grids."""
    centres = grid[1] + grid[0] * (np.arange(first, first + count) + 0.5)
    return np.floor((centres - own[1]) / own[0]).astype(np.int64)


def _shift(scene: Grid, band: Grid) -> tuple[int, int] | None:
    """Returns how far a band's first pixel lies above and left of the scene's, in pixels; None on another grid."""
    a, b, c, d, e, f = scene.transform
    if not np.allclose((a, b, d, e), [band.transform[place] for place in (0, 1, 3, 4)], rtol=1e-9, atol=1e-12):
        return None
    determinant = a * e - b * d
    x, y = c - band.transform[2], f - band.transform[5]
    columns, rows = (e * x - b * y) / determinant, (a * y - d * x) / determinant
    if max(abs(columns - round(columns)), abs(rows - round(rows))) > _ALIGNED:
        return None
    inside = 0 <= round(rows) <= band.height - scene.height and 0 <= round(columns) <= band.width - scene.width
    return (round(rows), round(columns)) if inside else None


def _has_data(values: np.ndarray, layer: Layer) -> np.ndarray:
    known = values != layer.nodata[0]
    for number in layer.nodata[1:]:
        known &= values != number
    if values.dtype.kind == "f":
        known &= np.isfinite(values)
    return known


def _harmonise(values: np.ndarray, layer: Layer, out: np.ndarray) -> None:
    """Writes harmonised numbers, at least 1; pixels of no data are blackened by the caller."""
    if layer.scale == 1.0 and layer.offset == int(layer.offset) and values.dtype.kind in "ui":
        shifted = values.astype(np.int32)
        shifted += int(layer.offset)
        np.clip(shifted, 1, 65535, out=shifted)
        out[...] = shifted
        return
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    numbers *= layer.scale
    numbers += layer.offset
    out[...] = np.clip(np.rint(numbers), 1, 65535)
