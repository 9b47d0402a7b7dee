"""Cutting of tiles from scenes, a row at a time.

A row is read across the whole scene at once, so that memory stays bounded however large the scene is, and a decoded
block serves all tiles that it touches. What a unit of work, one row, finds is a file in the build's state.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from eo_keras.core import files
from eo_keras.geo.grid import Grid
from eo_keras.geo.scene_reader import SceneReader
from eo_keras.legends.catalogue import IGNORE
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from eo_keras.records.example import NO_DATA, VALID
from tfrecords_builder.sources.source import DIGEST_BYTES, Context, digest, lost
from tfrecords_builder.sources.urban_atlas.options import UrbanAtlasOptions
from tfrecords_builder.sources.urban_atlas.preflight import CitySurvey, opened_ground, opened_scene
from tfrecords_builder.sources.urban_atlas.sites import Site
from tfrecords_builder.storage.state import load_arrays, save_arrays


@dataclasses.dataclass(frozen=True)
class RowUnit:
    """One row of tiles to cut.

    Attributes:
        name: beginning of the names of the files for what is found.
        city: the city.
        scene: path of the scene.
        row: the tiles' first row on the scene's grid.
        columns: the tiles' first columns, ascending.
    """

    name: str
    city: Site
    scene: str
    row: int
    columns: tuple[int, ...]

    def __len__(self) -> int:
        """Returns the number of tiles that may be kept."""
        return len(self.columns)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The files that its tiles are made from."""
        return self.city.files


@dataclasses.dataclass(frozen=True)
class Row:
    """Tiles of a row that are kept; parallel arrays of N entries.

    Attributes:
        keys: the tiles' keys.
        columns: int64, first columns.
        offsets: int64, where each record begins in the row's file.
        lengths: int64, bytes of each record, framing included.
        digests: uint8 (N, 16), hashes of the records.
        pixels: int64 (N, classes), clear pixels of each class.
        dropped: number of tiles that were left out.
    """

    keys: tuple[str, ...]
    columns: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    digests: np.ndarray
    pixels: np.ndarray
    dropped: int


def rows_of(number: int, city: Site, survey: CitySurvey, tiles: UrbanAtlasOptions) -> list[RowUnit]:
    """Returns the rows of tiles that meet a city's land use, on grids that begin in the scenes' first pixels."""
    units = []
    for place, scene in enumerate(survey.scenes):
        top, left, bottom, right = scene.window
        columns = tuple(_starts(scene.grid.width, left, right, tiles))
        for row in _starts(scene.grid.height, top, bottom, tiles):
            name = f"{beginning_of(number)}{place:03d}-{row:06d}"
            units.append(RowUnit(name, city, scene.path, row, columns))
    return units


def beginning_of(number: int) -> str:
    """Returns the prefix of the names of a city's rows, by its place in the list of cities."""
    return f"row-{number:05d}-"


def _starts(length: int, first: int, end: int, tiles: UrbanAtlasOptions) -> list[int]:
    """Returns where tiles start along an axis: the last one ends at or after the scene's end."""
    count = max(0, math.ceil((length - tiles.tile_size) / tiles.step)) + 1
    starts = [number * tiles.step for number in range(count)]
    return [start for start in starts if start < end and start + tiles.tile_size > first]


def cut_tiles(context: Context, unit: RowUnit) -> None:
    """Cuts the tiles of a row and stores those that are kept, with their hashes and class counts.

    Raises:
        SourceError: if the scene is damaged.
    """
    if _noted(context, unit) is not None:
        return
    tiles = context.options
    # The survey has looked at its numbers.
    scene = opened_scene(unit.scene, tiles.scene_of(unit.city.scaling), context.opening, check=False)
    ground = opened_ground(unit.city, tiles, scene.grid.crs, context.opening)
    first, width = unit.columns[0], unit.columns[-1] + tiles.tile_size - unit.columns[0]
    labels = ground.labels(scene.grid.window(unit.row, first, tiles.tile_size, width))
    found: dict[str, list[Any]] = {name: [] for name in ("keys", "columns", "offsets", "lengths", "digests", "pixels")}
    size = 0
    if (labels != IGNORE).any():
        with SceneReader(scene) as reader:
            image, validity = reader.read(unit.row, first, tiles.tile_size, width)
        with files.atomic_file(_row_path(context, unit), durable=False) as file:
            for column in unit.columns:
                place = slice(column - first, column - first + tiles.tile_size)
                tile = records.PixelLabels(
                    np.ascontiguousarray(labels[:, place]),
                    np.ascontiguousarray(validity[:, place]),
                    unit.city.name,
                    scene.date.isoformat() if scene.date else "",
                    scene.product,
                )
                if not _is_kept(tile, tiles):
                    continue
                key = f"{unit.city.name}-{scene.product}-{unit.row:05d}-{column:05d}"
                record = records.encode(_example(key, image[:, place], tile, scene.grid, unit.row, column))
                tfrecord.write_record(file, record)
                found["keys"].append(key)
                found["columns"].append(column)
                found["offsets"].append(size)
                found["lengths"].append(len(record) + tfrecord.FRAMING_BYTES)
                found["digests"].append(list(digest(record)))
                found["pixels"].append(tile.class_pixels(ground.classes))
                size += found["lengths"][-1]
    count = len(found["keys"])
    save_arrays(
        f"{_row_path(context, unit)}.npz",
        {
            "keys": np.array(found["keys"], np.str_),
            **{name: np.array(found[name], np.int64) for name in ("columns", "offsets", "lengths")},
            "digests": np.array(found["digests"], np.uint8).reshape(count, DIGEST_BYTES),
            "pixels": np.array(found["pixels"], np.int64).reshape(count, ground.classes),
            "dropped": np.array(len(unit.columns) - count),
        },
    )


def _example(
    key: str, image: np.ndarray, tile: records.PixelLabels, grid: Grid, row: int, column: int
) -> records.Example:
    here = grid.window(row, column, *tile.mask.shape)
    stored = np.ascontiguousarray(image).astype("<u2", copy=False).tobytes()
    return records.Example(stored, None, key, here.crs, tuple(map(float, here.transform)), tile)


def _is_kept(tile: records.PixelLabels, tiles: UrbanAtlasOptions) -> bool:
    labelled = np.mean((tile.mask != IGNORE) & (tile.validity == VALID))
    clear = np.count_nonzero(tile.validity == VALID) / max(1, np.count_nonzero(tile.validity != NO_DATA))
    # A tile without labels is never kept, whatever the smallest fraction is.
    return labelled > 0 and labelled >= tiles.min_labeled_fraction and clear >= tiles.min_valid_fraction


def read_row(context: Context, unit: RowUnit) -> Row:
    """Reads the tiles of a row that `cut_tiles` stored.

    Raises:
        SourceError: if it is gone.
    """
    found = _noted(context, unit)
    if found is None:
        raise lost(_row_path(context, unit), "the tiles of a row have been lost")
    arrays = {name: found[name] for name in ("columns", "offsets", "lengths", "digests", "pixels")}
    return Row(keys=tuple(map(str, found["keys"])), dropped=int(found["dropped"]), **arrays)


def is_cut(context: Context, unit: RowUnit) -> bool:
    """Tells whether a row has been cut."""
    return _noted(context, unit) is not None


def _noted(context: Context, unit: RowUnit) -> dict[str, np.ndarray] | None:
    path = _row_path(context, unit)
    found = load_arrays(f"{path}.npz")
    if found is None:
        return None
    if len(found["lengths"]) and (not files.exists(path) or files.size(path) != int(found["lengths"].sum())):
        return None
    return found


def _row_path(context: Context, unit: RowUnit) -> str:
    return files.join(context.state_dir, unit.name)
