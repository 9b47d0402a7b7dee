"""Land use of Urban Atlas: its files of any year and format, and its polygons as labels on a scene's grid."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence

import numpy as np

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import polygons as vectors
from eo_keras.geo import vector_files
from eo_keras.geo.grid import Grid
from eo_keras.geo.polygons import Polygons
from eo_keras.geo.rasterize import Rasterizer, fill_by_majority
from eo_keras.legends.catalogue import IGNORE
from eo_keras.legends.crosswalk import MOST_CLASSES, NARROW_ROADS, ROADS, Crosswalk

ROAD_REACH = 8
"""Distance in pixels by which the classes beside a road are extended into it; the middle of wider roads is ignored."""

_FIELD = re.compile(r"code_?(20\d\d)", re.IGNORECASE)
_FIRST_EDITION = 2006
_MERGING = MOST_CLASSES


class LandUse:
    """Land use of a city, rasterized to labels of any window of a grid.

    Where there is no polygon (outside the city's boundary, gaps), or one of no data, labels are `IGNORE`.

    Args:
        polygons: land use with its codes as values.
        code_map: the crosswalk from codes to labels.
        roads: treatment of narrow roads, one of `eo_keras.legends.crosswalk.ROADS`.
        year: the year it is of, or None.

    Attributes:
        code_map: see above.
        roads: see above.
        year: see above.
        crs: coordinate reference system of the polygons.
        bounds: smallest x, smallest y, largest x and largest y in it.
        count: number of polygons.
        repaired: number of those with invalid rings.
        source: their files, for messages.

    Raises:
        SourceError: if a code is unknown.
        OptionError: if `roads` is.
    """

    def __init__(self, polygons: Polygons, code_map: Crosswalk, roads: str = "merge", year: int | None = None):
        if roads not in ROADS:
            raise OptionError("roads", f"'{roads}'", f"one of {', '.join(ROADS)}")
        self.code_map, self.roads, self.year = code_map, roads, year
        self.crs, self.count = polygons.crs, len(polygons)
        self.repaired, self.source = polygons.repaired, polygons.source
        labels = code_map.labels_of(polygons.values, polygons.source)
        if roads != "keep":
            labels[polygons.values == NARROW_ROADS] = _MERGING if roads == "merge" else IGNORE
        self._burner = Rasterizer(polygons.geometries, labels)
        self.bounds = self._burner.bounds

    def labels(self, grid: Grid) -> np.ndarray:
        """Returns the label of each pixel of a grid in the polygons' CRS, or `IGNORE`; uint8 (height, width).

        A part of a grid has the labels that the whole has there.
        """
        if grid.crs != self.crs:
            raise ValueError(f"a grid in {grid.crs}, and land use in {self.crs}")
        if self.roads != "merge":
            return self._burner.rasterize(grid)
        reach = ROAD_REACH
        around = grid.window(-reach, -reach, grid.height + 2 * reach, grid.width + 2 * reach)
        burnt = self._burner.rasterize(around)
        filled = fill_by_majority(burnt, _MERGING, len(self.code_map.legend), reach)
        return np.ascontiguousarray(filled[reach:-reach, reach:-reach])


def read_land_use(
    paths: Sequence[str | os.PathLike[str]],
    code_map: Crosswalk,
    crs: str,
    roads: str = "merge",
    year: int | None = None,
) -> LandUse:
    """Reads the land use of a city and brings it to a scene's CRS.

    The codes are in a field such as `code_2018` or `CODE2012`, in either case, whose name holds the year. Files of
    2006 as they were first published have `CODE` beside `ITEM`, without a year.

    Args:
        paths: files as `eo_keras.geo.polygons.read_polygons` takes them; later ones are rasterized on top.
        code_map: the crosswalk from codes to labels.
        crs: the scene's CRS, such as `EPSG:32633`.
        roads: one of `eo_keras.legends.crosswalk.ROADS`.
        year: the year, where the files hold several, as those of changes do.

    Raises:
        SourceError: if a file cannot be read or has no such field, several years are met or not the one wanted, or a
            code is unknown.
        OptionError: if an option is unknown, or pyarrow is needed and not installed.
    """
    years, parts = {}, []
    for path in map(os.fspath, paths):
        layers = vector_files.find_layers(path)
        years[path] = _year_of(path, layers, year)
        fields = {layer: _fields(layer).get(years[path], []) for layer in layers}
        pattern = "|".join(re.escape(name) for name in dict.fromkeys(itertools.chain(*fields.values())))
        with_codes = [layer for layer in layers if fields[layer]]
        parts.append(vectors.reprojected(vectors.polygons_of(path, with_codes, pattern), crs))
    if len(set(years.values())) > 1:
        listed = ", ".join(f"{path} of {of}" for path, of in years.items())
        raise SourceError(listed, "land use of several years", "one year a city", "name the files of one year")
    return LandUse(vectors.joined(parts), code_map, roads, next(iter(years.values())))


def _fields(layer: vector_files.Layer) -> dict[int, list[str]]:
    """Returns the names of a layer's fields of codes by year; none of layers of street trees or building heights."""
    found: dict[int, list[str]] = {}
    for name in layer.fields:
        if match := _FIELD.fullmatch(name):
            found.setdefault(int(match[1]), []).append(name)
    plain = {name.lower(): name for name in layer.fields}
    if not found and {"code", "item"} <= set(plain):
        found[_FIRST_EDITION] = [plain["code"]]
    return found


def _year_of(path: str, layers: Sequence[vector_files.Layer], wanted: int | None) -> int:
    """Returns the year of a file's land use; the requested one where it holds several."""
    names = list(dict.fromkeys(name for layer in layers for name in layer.fields))
    years = sorted({year for layer in layers for year in _fields(layer)})
    if not years:
        raise SourceError(
            path,
            f"no field of it holds a land use; its fields are {', '.join(names)}",
            "one such as code_2018 or CODE2012",
            "name the file of Urban Atlas's land use",
        )
    if wanted in years:
        return wanted
    listed = " and ".join(map(str, years))
    if wanted is not None:
        raise SourceError(
            path,
            f"it holds land use of {listed}",
            f"of {wanted}",
            f"say `label_year={years[-1]}`, or name another",
        )
    if len(years) > 1:
        raise SourceError(
            path, f"it holds land use of {listed}", "one year", f"say which, such as `label_year={years[-1]}`"
        )
    return years[0]
