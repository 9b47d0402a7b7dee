"""List of the cities that tiles are built from: their scenes, polygons and splits."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import pathlib
import re

from eo_keras.core import files
from eo_keras.errors import OptionError, SourceError, StorageError
from eo_keras.geo.scene_numbers import UserScaling
from tfrecords_builder.splits.types import TEST, TRAIN, VAL

COLUMNS = ("name", "scenes", "vectors", "split", "area", "scene_units", "scene_offset", "scene_scale")

_NAME = re.compile(r"[\w.\- ]+")
_FORM = "a CSV file with the header name,scenes,vectors,split,area; several paths joined by ';'"


@dataclasses.dataclass(frozen=True)
class Site:
    """One city.

    Attributes:
        name: its name, unique.
        scenes: paths of its scenes, as `eo_keras.geo.scenes.open_scene` takes them.
        vectors: paths of its land use, as `eo_keras.geo.polygons` takes them.
        split: `train`, `val` or `test`; None where it is to be drawn.
        area: area of interest: a file of polygons, or west, south, east and north in degrees; None for all.
        scaling: scaling of its scenes' numbers; None where the list does not state it.
    """

    name: str
    scenes: tuple[str, ...]
    vectors: tuple[str, ...]
    split: str | None = None
    area: str | tuple[float, float, float, float] | None = None
    scaling: UserScaling | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that its tiles are made from."""
        return (*self.scenes, *self.vectors, *([self.area] if isinstance(self.area, str) else []))


def read_cities(path: str | os.PathLike[str]) -> tuple[Site, ...]:
    """Reads a list of cities; relative paths in it start from its own folder, `~` is the user's home folder.

    Returns:
        The cities, sorted by name.

    Raises:
        SourceError: if it cannot be read, lacks a column, names a city twice or a path that is not there.
    """
    path = pathlib.Path(os.path.abspath(path))  # So that the paths in it mean the same to every worker.
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise SourceError(path, f"it cannot be read ({error})", _FORM, "check the path, or save it as UTF-8") from None
    if not rows:
        raise SourceError(path, "it names no city", _FORM, "add a line for each city")
    columns = set(rows[0]) - {None}
    if not {"name", "scenes", "vectors"} <= columns or not columns <= set(COLUMNS):
        raise SourceError(path, f"its columns are {','.join(map(str, rows[0]))}", _FORM, "fix its first line")
    cities: dict[str, Site] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{path}, line {number}"
        if None in row or None in row.values():
            raise SourceError(where, "it has more or fewer values than there are columns", _FORM, "fix the line")
        city = _city(where, path.parent, {name: (value or "").strip() for name, value in row.items()})
        if city.name in cities:
            raise SourceError(where, f"'{city.name}' is named twice", "each city once; join its scenes with ';'")
        cities[city.name] = city
    return tuple(cities[name] for name in sorted(cities))


def _city(where: str, folder: pathlib.Path, row: dict[str, str]) -> Site:
    name, split = row["name"], row.get("split") or None
    if not _NAME.fullmatch(name):
        # The name becomes part of the records' keys.
        raise SourceError(where, f"the name is '{name}'", "letters, digits, spaces, points, hyphens and underlines")
    if split not in (None, TRAIN, VAL, TEST):
        raise SourceError(where, f"split is '{split}'", f"{TRAIN}, {VAL}, {TEST} or nothing")
    return Site(
        name,
        _paths(where, folder, "scenes", row["scenes"]),
        _paths(where, folder, "vectors", row["vectors"]),
        split,
        _area(where, folder, row.get("area", "")),
        _scaling(where, row),
    )


def _scaling(where: str, row: dict[str, str]) -> UserScaling | None:
    """Returns the scaling in a line of the list, which overrides the scenes' own metadata."""
    numbers = {}
    for column in ("scene_offset", "scene_scale"):
        if text := row.get(column):
            try:
                numbers[column.removeprefix("scene_")] = float(text)
            except ValueError:
                raise SourceError(where, f"{column} is '{text}'", "a number, or nothing") from None
    if not numbers and not row.get("scene_units"):
        return None
    try:
        return UserScaling(units=row.get("scene_units") or None, first=True, **numbers)
    except OptionError as error:
        raise SourceError(where, str(error)) from None


def _paths(where: str, folder: pathlib.Path, column: str, text: str) -> tuple[str, ...]:
    try:
        parts = [files.expand_home(part.strip(), folder) for part in text.split(";") if part.strip()]
    except StorageError as error:
        raise SourceError(where, f"{column}: {error}") from None
    paths = [os.path.join(folder, part) for part in parts]
    if not paths:
        raise SourceError(where, f"{column} is empty", "at least one path", "name them, joined by ';'")
    for part, path in zip(parts, paths, strict=True):
        if "://" in part:
            raise SourceError(
                where,
                f"{part} is a URL",
                "a path on a disk that every worker sees",
                "copy the file there, or mount the store",
            )
        if not os.path.exists(path):
            raise SourceError(where, f"there is no {path}", "paths that start from the list's folder", "fix the line")
    if len(set(paths)) != len(paths):
        raise SourceError(where, f"{column} names a path twice", "each once")
    return tuple(paths)


def _area(where: str, folder: pathlib.Path, text: str) -> str | tuple[float, float, float, float] | None:
    if not text:
        return None
    numbers = re.split(r"[;\s]+", text)
    try:
        west, south, east, north = map(float, numbers)
    except ValueError:
        (path,) = _paths(where, folder, "area", text)
        return path
    if not (all(map(math.isfinite, (west, south, east, north))) and west < east and south < north):
        raise SourceError(where, f"area is '{text}'", "west, south, east and north in degrees, or a file of polygons")
    return west, south, east, north
