"""Open scenes, and the reader of their windows as harmonized digital numbers with a validity mask.

Harmonized digital numbers are reflectance x 10000 with the product's own offset applied. Valid pixels are at least 1,
so that a dark pixel, which the offset would turn into 0 or less, does not become "no data".
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from eo_keras.errors import OptionError
from eo_keras.geo import block_cache, raster_files, scenes
from eo_keras.geo.resampling import Pixels, Resampler, SpecialValues
from eo_keras.geo.scenes import Layer, Scene, SceneOptions
from eo_keras.records.example import NO_DATA, OBSCURED, SATURATED, VALID

OBSCURED_SCL = (3, 8, 9, 10)
"""Classes of the scene classification that obscure the ground: cloud shadow, clouds, thin cirrus."""

_MOST = 1e9
"""Largest absolute number that is not "no data"; larger ones would overflow when scaled."""


class OpenScene(Scene):
    """Scene whose windows can be read; a context manager, which keeps its files open. See `Scene`."""

    def __enter__(self) -> OpenScene:
        """Keeps files open from the first `read` on."""
        # The attribute is no field: a copy of the scene, or a scene in another process, opens the files itself.
        self.__dict__["_reader"] = SceneReader(self).__enter__()
        return self

    def __exit__(self, *exception) -> None:
        """Closes the files."""
        self.__dict__.pop("_reader").__exit__(*exception)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_reader"}

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads a window; see `SceneReader.read`."""
        reader = self.__dict__.get("_reader")
        if reader is not None:
            return reader.read(row, column, height, width)
        with SceneReader(self) as reader:
            return reader.read(row, column, height, width)


def open_scene(path: str | os.PathLike[str], options: SceneOptions | None = None) -> OpenScene:
    """Opens a scene.

    Args:
        path: a GeoTIFF, COG, VRT or JPEG 2000 file, a folder of such files whose names end in a band's, or a SAFE
            folder or zip.
        options: options of opening it.

    Raises:
        SourceError: if it cannot be read, is not georeferenced, or the scaling of its numbers is unknown.
        BandError: if its bands are not named, or one of `bands` is missing.
        OptionError: if an option does not fit it.
    """
    return OpenScene(**vars(scenes.open_scene(path, options)))


class SceneReader:
    """Reader of windows of a scene; a context manager.

    Args:
        scene: the scene.
    """

    def __init__(self, scene: Scene):
        self._scene = scene
        self._open = contextlib.ExitStack()
        self._sources: dict[str, Any] = {}
        self._resamplers: dict[tuple[str, str], Resampler] = {}

    def __enter__(self) -> SceneReader:
        """Opens the files.

        Raises:
            SourceError: if one cannot be opened.
        """
        scene, needed = self._scene, 0
        layers = [*scene.layers, *([scene.scl] if scene.scl is not None else [])]
        with contextlib.ExitStack() as opened:
            for path in dict.fromkeys(layer.path for layer in layers):
                dataset = self._sources[path] = opened.enter_context(raster_files.open_dataset(path))
                needed += block_cache.bytes_needed(dataset, [layer.index for layer in layers if layer.path == path])
            opened.enter_context(block_cache.room_for(needed))
            self._open = opened.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        """Closes the files."""
        self._open.close()
        self._sources.clear()
        self._resamplers.clear()

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads a window; pixels outside the scene are "no data".

        Args:
            row: first row on the scene's grid; may be negative.
            column: first column.
            height: rows.
            width: columns.

        Returns:
            Harmonized digital numbers, uint16 (height, width, bands), 0 in all bands where there is no data in any; and
            the validity mask, uint8 (height, width).

        Raises:
            SourceError: if a file is damaged.
            OptionError: if the window is empty.
        """
        if height < 1 or width < 1:
            raise OptionError("window", f"{height} x {width} pixels", "at least one pixel")
        grid, scene = self._scene.grid, self._scene
        top, left = max(row, 0), max(column, 0)
        bottom, right = min(row + height, grid.height), min(column + width, grid.width)
        if (top, left, bottom, right) == (row, column, row + height, column + width):
            return self._read_inside(row, column, height, width)
        image = np.zeros((height, width, len(scene.bands)), np.uint16)
        mask = np.full((height, width), NO_DATA, np.uint8)
        if top >= bottom or left >= right:
            return image, mask
        inside = slice(top - row, bottom - row), slice(left - column, right - column)
        window = (top, left, bottom - top, right - left)
        image[inside], mask[inside] = self._read_inside(*window)
        return image, mask

    def _read_inside(self, *window: int) -> tuple[np.ndarray, np.ndarray]:
        scene = self._scene
        height, width = window[2:]
        image = np.empty((height, width, len(scene.bands)), np.uint16)
        known, saturated = np.ones((height, width), bool), None
        for path in dict.fromkeys(layer.path for layer in scene.layers):
            places = [place for place, layer in enumerate(scene.layers) if layer.path == path]
            layers = [scene.layers[place] for place in places]
            for place, layer, pixels in zip(
                places, layers, self._pixels(layers, scene.resampling, window), strict=True
            ):
                _harmonise(pixels.numbers, layer, image[..., place])
                known &= pixels.known
                if pixels.saturated is not None:
                    saturated = pixels.saturated if saturated is None else saturated | pixels.saturated
        mask = np.full((height, width), VALID, np.uint8)
        if saturated is not None:
            mask[saturated] = SATURATED
        if not known.all():
            mask[~known] = NO_DATA
            image[~known] = 0
        if scene.scl is not None:
            (classes,) = self._pixels([scene.scl], "nearest", window)
            mask[np.isin(classes.numbers, OBSCURED_SCL) & classes.known & (mask == VALID)] = OBSCURED
        return image, mask

    def _pixels(self, layers: list[Layer], resampling: str, window: tuple[int, ...]) -> Iterator[Pixels]:
        """Reads bands of one file on the scene's grid, one by one: interpolated ones need much memory."""
        path, key = layers[0].path, (layers[0].path, resampling)
        if key not in self._resamplers:
            self._resamplers[key] = Resampler(self._sources[path], self._scene.grid, resampling)
        special = [SpecialValues(layer.nodata, layer.saturated) for layer in layers]
        with _readable(path):
            yield from self._resamplers[key].read([layer.index for layer in layers], special, window)


@contextlib.contextmanager
def _readable(path: str):
    """Raises errors of reading with the file's name; a context manager."""
    from rasterio.errors import RasterioError

    from eo_keras.errors import SourceError

    try:
        yield
    except RasterioError as error:
        raise SourceError(
            path, f"it cannot be read ({error.__cause__ or error})", "a whole raster", "copy it again"
        ) from None


def _harmonise(numbers: np.ndarray, layer: Layer, out: np.ndarray) -> None:
    """Writes harmonized numbers, at least 1; pixels without data are set to 0 by the caller."""
    if (layer.scale, layer.offset) == (1.0, 0.0) and numbers.dtype == np.uint16:
        np.maximum(numbers, 1, out=out)
    elif layer.scale == 1.0 and layer.offset == int(layer.offset) and numbers.dtype.kind in "ui":
        wide = np.int32 if numbers.dtype.itemsize <= 2 else np.int64
        out[...] = np.clip(numbers.astype(wide) + wide(layer.offset), 1, 65535)
    else:
        values = numbers.astype(np.float64)
        values[~np.isfinite(values)] = 0
        np.clip(values, -_MOST, _MOST, out=values)
        values *= layer.scale
        values += layer.offset
        # Rounding errors, which differ between windows of one grid, must not decide how a half is rounded.
        np.rint(np.round(values, 2, out=values), out=values)
        out[...] = np.clip(values, 1, 65535, out=values)
