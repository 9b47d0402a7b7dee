"""Pixels of a scene whose ground is obscured by clouds or their shadows.

Level-2A products hold a scene classification (SCL), which `eo_keras.geo.scene_reader` applies. Level-1C products hold
none: ukis-csmask (Wieland, Fichtner and Martinis 2022, doi 10.5194/isprs-archives-XLIII-B3-2022-217-2022) has U-Nets
for both levels, of four and of six bands.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.resources
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eo_keras.errors import BandError, OptionError
from eo_keras.geo import reference_systems
from eo_keras.geo.grid import Grid
from eo_keras.geo.scene_reader import SceneReader
from eo_keras.geo.scenes import LEVELS, Scene
from eo_keras.records.example import NO_DATA, OBSCURED, VALID
from eo_keras.sensors.sentinel2 import QUANTIFICATION

CLOUD_MASKS = ("scl", "ukis", "none")
"""The product's own scene classification, ukis-csmask, or none."""

BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
"""Bands of the larger networks, in their order; the smaller ones use the first four."""

PIXEL_SIZE = 30.0
"""Pixel size in meters that the networks work best at, as their authors say."""

TILE, MARGIN = 256, 28
"""Edge of the networks' input, and how much of it on each side is context alone; pixels of `PIXEL_SIZE`."""

BUFFER = 4
"""Pixels of `PIXEL_SIZE` by which clouds and shadows are widened, since their edges are fuzzy; ukis-csmask's own."""

SMALLEST = 64
"""Edge of the smallest scene in pixels of `PIXEL_SIZE`: of less, the networks say anything."""

_STEP = TILE - 2 * MARGIN


class UkisClouds:
    """Cloud masks of windows of a scene by ukis-csmask; a context manager.

    The scene is divided into fixed cells of 200 x 200 pixels of about 30 m, each computed with 28 pixels of context, so
    that a pixel's value does not depend on the window that is read. At the scene's border the context lies inwards.
    Pixels without data are replaced by the mean of the others, which is neither bright nor dark.

    Args:
        scene: the scene, opened with all its bands.

    Raises:
        BandError: if it does not hold the four bands.
        OptionError: if its level is unknown, it is too small, or the extra `clouds` is not installed.
    """

    def __init__(self, scene: Scene):
        if missing := [band for band in BANDS[:4] if band not in scene.bands]:
            raise BandError(
                scene.source,
                f"it does not hold {','.join(missing)}, by which clouds are found",
                ",".join(BANDS[:4]),
                "choose another `cloud_mask`: scl where the product has a scene classification, else none",
            )
        if scene.level not in LEVELS:
            raise OptionError(
                "`cloud_mask=ukis`",
                f"the level of {scene.source} is unknown, and there is a network for each",
                " or ".join(LEVELS),
                "say `scene_level`",
            )
        self.bands = BANDS if set(BANDS) <= set(scene.bands) else BANDS[:4]
        self._network = _network(len(self.bands), scene.level)
        width, height = reference_systems.pixel_on_ground(scene.grid)
        self._factor = max(1, round(PIXEL_SIZE / math.sqrt(width * height)))
        self._reader = SceneReader(_coarser(scene, self.bands, self._factor))
        self._shape = -(-scene.grid.height // self._factor), -(-scene.grid.width // self._factor)
        if min(self._shape) < SMALLEST:
            raise OptionError(
                "`cloud_mask=ukis`",
                f"{scene.source} has {self._shape[0]} x {self._shape[1]} pixels of about 30 m",
                f"at least {SMALLEST} x {SMALLEST}, or the networks lack context",
                "say `cloud_mask=none`",
            )
        # Two rows of cells: a window that moves along the scene computes each once.
        self._cell = functools.lru_cache(2 * (-(-self._shape[1] // _STEP) + 1))(self._compute)

    def __enter__(self) -> UkisClouds:
        """Opens the scene's files."""
        self._reader.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        """Closes them."""
        self._reader.__exit__(*exception)
        self._cell.cache_clear()

    def read(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """Computes the mask of a window.

        Args:
            row: first row on the scene's grid; may be negative.
            column: first column.
            height: rows.
            width: columns.

        Returns:
            Bool (height, width): whether a cloud, semi-transparent ones included, or the shadow of one obscures the
            ground. False outside the scene; pixels without data have no meaning.

        Raises:
            SourceError: if a file is damaged.
        """
        rows = np.arange(row, row + height) // self._factor
        columns = np.arange(column, column + width) // self._factor
        found = np.zeros((height, width), bool)
        for cell_row, here_rows in self._cells_along(0, rows):
            for cell_column, here_columns in self._cells_along(1, columns):
                cell = self._cell(cell_row, cell_column)
                place = np.ix_(rows[here_rows] % _STEP, columns[here_columns] % _STEP)
                found[np.ix_(here_rows, here_columns)] = cell[place]
        return found

    def _cells_along(self, axis: int, pixels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the numbers of the cells that pixels of the networks along an axis lie in, and which of them do."""
        inside = np.flatnonzero((pixels >= 0) & (pixels < self._shape[axis]))
        cells = pixels[inside] // _STEP
        for cell in np.unique(cells):
            yield int(cell), inside[cells == cell]

    def _compute(self, cell_row: int, cell_column: int) -> np.ndarray:
        """Returns the mask of a cell, bool (200, 200), in pixels of the networks."""
        cell = cell_row * _STEP, cell_column * _STEP
        # At the scene's border the tile is moved inwards, as far as the scene reaches.
        firsts = [max(0, min(start - MARGIN, size - TILE)) for start, size in zip(cell, self._shape, strict=True)]
        image, validity = self._reader.read(*firsts, *(min(TILE, size) for size in self._shape))
        known = validity != NO_DATA
        if not known.any():
            return np.zeros((_STEP, _STEP), bool)
        reflectance = image.astype(np.float32) / QUANTIFICATION
        reflectance[~known] = reflectance[known].mean(axis=0)
        beyond = [(0, TILE - edge) for edge in known.shape]
        obscured = self._network.classes(np.pad(reflectance, (*beyond, (0, 0)), mode="symmetric")) > 0
        # What is not in the scene obscures nothing beside it.
        obscured = widened(obscured & np.pad(known, beyond), BUFFER)
        place = tuple(slice(start - first, start - first + _STEP) for start, first in zip(cell, firsts, strict=True))
        return np.pad(obscured, ((0, _STEP), (0, _STEP)))[place]


def _network(bands: int, level: str) -> _Network:
    """Returns the network of some bands and a level; a process loads each once.

    Raises:
        OptionError: if the extra `clouds` is not installed.
    """
    try:
        importlib.import_module("onnxruntime")
        importlib.resources.files("ukis_csmask")
    except ImportError:
        raise OptionError(
            "`cloud_mask=ukis`",
            "ukis-csmask or onnxruntime is not installed",
            remedy="run pip install 'eo-keras[clouds]'",
        ) from None
    return _loaded_network(bands, level)


@functools.cache
def _loaded_network(bands: int, level: str) -> _Network:
    return _Network(bands, level)


class _Network:
    """Network of ukis-csmask.

    Args:
        bands: number of bands, 4 or 6.
        level: `L1C` or `L2A`.
    """

    def __init__(self, bands: int, level: str):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # Its threads would else keep the processors busy between two cells, which the model's predictions need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        stem = f"model_{bands}b_{level.lower()}"
        folder = importlib.resources.files("ukis_csmask")
        with importlib.resources.as_file(folder / f"{stem}.onnx") as path:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        statistics = json.loads((folder / f"{stem}.json").read_text())["data"]["dataset_statistics"]["img"]
        self._mean, self._deviation = (np.asarray(values, np.float32) for values in statistics)

    def classes(self, reflectance: np.ndarray) -> np.ndarray:
        """Predicts the classes of a tile.

        Args:
            reflectance: float32 (256, 256, bands).

        Returns:
            Integers (256, 256): 0 background, 1 cloud, 2 cloud shadow.
        """
        image = ((reflectance - self._mean) / self._deviation).transpose(2, 0, 1)[None]
        (scores,) = self._session.run(None, {self._input: image})
        return scores[0].argmax(axis=0)


def widened(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Returns a mask (height, width) widened by so many steps to the neighbors above, below and beside."""
    for _ in range(pixels):
        wide = mask.copy()
        wide[1:] |= mask[:-1]
        wide[:-1] |= mask[1:]
        wide[:, 1:] |= mask[:, :-1]
        wide[:, :-1] |= mask[:, 1:]
        mask = wide
    return mask


def _with_bands(scene: Scene, bands: Sequence[str], **changes: Any) -> Scene:
    layers = tuple(scene.layers[scene.bands.index(band)] for band in bands)
    return dataclasses.replace(scene, bands=tuple(bands), layers=layers, **changes)


def _coarser(scene: Scene, bands: Sequence[str], factor: int) -> Scene:
    """Returns some bands of a scene averaged over blocks of `factor` x `factor` pixels, without its classification."""
    return _with_bands(scene, bands, grid=scene.grid.coarser(factor), scl=None, resampling="average")


class MaskedReader:
    """Reader of a scene's windows that marks what clouds obscure; a context manager.

    Args:
        scene: the scene, opened with all its bands.
        bands: names of the bands to read, in order.
        cloud_mask: one of `CLOUD_MASKS`.
        whole: grid of the whole scene, of which the scene's own is a window: clouds are found by its cells. Default:
            the scene's own.

    Raises:
        OptionError: if the scene has no classification and `scl` is asked for, or `ukis` cannot be used.
        BandError: if it lacks a band.
    """

    def __init__(self, scene: Scene, bands: Sequence[str], cloud_mask: str, whole: Grid | None = None):
        if cloud_mask not in CLOUD_MASKS:
            raise OptionError("cloud_mask", f"'{cloud_mask}'", f"one of {', '.join(CLOUD_MASKS)}")
        if cloud_mask == "scl" and scene.scl is None:
            raise OptionError(
                "`cloud_mask=scl`",
                f"{scene.source} has no scene classification",
                "a Level-2A product",
                "say `cloud_mask=ukis`, or `cloud_mask=none`",
            )
        if missing := [band for band in bands if band not in scene.bands]:
            raise BandError(
                scene.source, f"it does not hold {','.join(missing)}", f"bands out of {','.join(scene.bands)}"
            )
        whole = whole or scene.grid
        self._clouds = UkisClouds(dataclasses.replace(scene, grid=whole)) if cloud_mask == "ukis" else None
        column, row = whole.pixel(*scene.grid.coordinates(0, 0))
        self._first = round(row), round(column)
        self._reader = SceneReader(_with_bands(scene, bands, scl=scene.scl if cloud_mask == "scl" else None))
        self._open = contextlib.ExitStack()

    def __enter__(self) -> MaskedReader:
        """Opens the scene's files."""
        for reader in filter(None, (self._reader, self._clouds)):
            self._open.enter_context(reader)
        return self

    def __exit__(self, *exception) -> None:
        """Closes them."""
        self._open.close()

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads a window, as `SceneReader.read` does."""
        image, validity = self._reader.read(row, column, height, width)
        if self._clouds is not None:
            clouds = self._clouds.read(row + self._first[0], column + self._first[1], height, width)
            validity[clouds & (validity == VALID)] = OBSCURED
        return image, validity
