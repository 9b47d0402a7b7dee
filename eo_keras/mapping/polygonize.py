"""Polygons of a class map in a GeoPackage: minimum mapping unit, simplification, and a style for QGIS.

The map is read in bands of rows and windows of fixed size, so that memory depends on the map's width, not on its
height. The parts of a region that lie in several bands are joined before they are written; only regions that the
current band cuts are kept in memory. Results depend on the map alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from eo_keras.core import files
from eo_keras.errors import StorageError
from eo_keras.geo import pixel_areas, reference_systems, regions, vector_files
from eo_keras.geo.class_map import CLASS, ClassMap
from eo_keras.geo.footprints import joined
from eo_keras.mapping import qgis_style

LAYER = "classes"
"""Name of the layer of polygons."""

CONFIDENCE = "confidence"
"""Name of the map's band of confidence."""

_Progress = Callable[[str, int, int], None]
_Reader = Callable[[int, int], np.ndarray]

_BAND = 2**22  # Pixels of a band of rows.
_CORE = 1024  # Rows and columns of a window in which small regions are merged, without its margin.
_FIRST_PIXELS = 128
"""Regions up to this size are merged first, in small windows; few regions are left for the large windows of a large
minimum mapping unit."""

_CHANGED = "1970-01-01T00:00:00.000Z"
"""Time of the last change that a GeoPackage is given, so that equal maps give equal bytes."""


@dataclasses.dataclass(frozen=True)
class Written:
    """What was written to a GeoPackage: number of polygons, and of the pixels whose class has changed for it."""

    polygons: int
    merged_pixels: int


def write_polygons(
    class_map: ClassMap,
    path: str | os.PathLike[str],
    min_area_ha: float = 0.0,
    simplify_m: float = 0.0,
    progress: _Progress | None = None,
) -> Written:
    """Writes a map's regions, connected by the edges of pixels, as polygons with a style for QGIS.

    Fields: `class` (name), `class_id` (label), `area_ha` (area of its pixels on the ground), and `confidence` (mean
    over its pixels, 0 to 1) if the map has such a band.

    Args:
        class_map: the map.
        path: the GeoPackage, ending in `.gpkg`; a former one is replaced. It appears whole or not at all.
        min_area_ha: minimum mapping unit in hectares. Smaller regions join the neighboring class with the longest
            shared border; those surrounded by no data stay. Memory grows with its square beyond some 25 ha at pixels
            of 10 m.
        simplify_m: tolerance of the simplification in meters, 0 for none: corners are left out as long as the triangles
            that they cut off are smaller than its square. Borders between polygons stay shared; borders with no data
            and the edges of the map stay as they are.
        progress: called with (stage, rows done, rows in all).

    Raises:
        StorageError: if it cannot be written.
        SourceError: if the map is damaged.
    """
    path = pathlib.Path(path)
    with (
        files.storage_errors(path),
        tempfile.TemporaryDirectory(prefix=files.TEMPORARY_PREFIX, dir=path.parent) as folder,
        _generalized(class_map, min_area_ha, pathlib.Path(folder) / "labels", progress) as (read, merged),
    ):
        unfinished = pathlib.Path(folder) / path.name
        written = _Layer(unfinished, class_map)
        for features in _bands(class_map, read, simplify_m, progress):
            written.append(features)
        _write_style(unfinished, class_map)
        os.replace(unfinished, path)
    return Written(written.polygons, merged)


@contextlib.contextmanager
def _generalized(
    class_map: ClassMap, min_area_ha: float, scratch: pathlib.Path, progress: _Progress | None
) -> Iterator[tuple[_Reader, int]]:
    """Yields a function that reads rows of labels with the minimum mapping unit, and the number of changed pixels."""
    grid = class_map.grid
    if min_area_ha == 0:
        yield (lambda row, height: class_map.read(row, 0, height, grid.width)), 0
        return
    labels = np.memmap(scratch, np.uint8, "w+", shape=(grid.height, grid.width))
    smallest = math.inf
    for row, height in class_map.row_bands():
        labels[row : row + height] = class_map.read(row, 0, height, grid.width)
        areas = pixel_areas.row_areas(grid, range(row, row + height))
        smallest = min(smallest, areas[areas > 0].min(initial=math.inf))
    merged = 0
    for least in sorted({min(min_area_ha, _FIRST_PIXELS * smallest), min_area_ha}):
        merged += _merge(labels, class_map, least, math.ceil(least / smallest), progress)
    yield (lambda row, height: np.array(labels[row : row + height])), merged


def _merge(labels: np.ndarray, class_map: ClassMap, least: float, margin: int, progress: _Progress | None) -> int:
    """Merges regions below an area in place, window by window; returns the number of changed pixels.

    A region below the area has fewer pixels than the margin, so that it lies whole in the window of every core that it
    touches. Regions that the window cuts keep their class; no region ever becomes smaller. Hence none that is too small
    is left after the last window, but for isolated ones.
    """
    height, width = labels.shape
    changed = 0
    for row in range(0, height, _CORE):
        top, bottom = max(0, row - margin), min(height, row + _CORE + margin)
        areas = pixel_areas.row_areas(class_map.grid, range(top, bottom))
        for column in range(0, width, _CORE):
            left, right = max(0, column - margin), min(width, column + _CORE + margin)
            window = np.ascontiguousarray(labels[top:bottom, left:right])
            cut = (top > 0, bottom < height, left > 0, right < width)
            own = areas if areas.shape[1] == 1 else areas[:, left:right]
            merged = regions.merge_small(window, own, least, cut, class_map.nodata)
            changed += int(np.count_nonzero(merged != window))
            labels[top:bottom, left:right] = merged
        if progress:
            progress("merging small regions", min(height, row + _CORE), height)
    return changed


@dataclasses.dataclass(frozen=True)
class _Features:
    """Whole regions, as parallel arrays: polygons in pixels, labels, areas in hectares and mean confidences."""

    polygons: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    confidences: np.ndarray


@dataclasses.dataclass
class _Open:
    """Regions that the last row of a band cuts, as parallel arrays; of each, the polygons of its parts so far."""

    parts: list[list[Any]]
    labels: np.ndarray
    sums: np.ndarray  # (N, 3): pixels, area, sum of the confidences.
    last_row: np.ndarray  # (width,), the region of each pixel, or -1.


def _bands(class_map: ClassMap, read: _Reader, simplify_m: float, progress: _Progress | None) -> Iterator[_Features]:
    """Yields the regions that end in each band of rows."""
    grid = class_map.grid
    tolerance = 0.0
    if simplify_m:
        tolerance = simplify_m / math.sqrt(math.prod(reference_systems.pixel_on_ground(grid)))
    rows = max(16, _BAND // grid.width)
    nothing = np.full((1, grid.width), class_map.nodata, np.uint8)
    above, labels = nothing, read(0, min(rows, grid.height))
    open_regions = _Open([], np.zeros(0, np.int64), np.zeros((0, 3)), np.full(grid.width, -1))
    for row in range(0, grid.height, rows):
        after = row + len(labels)
        following = read(after, min(rows, grid.height - after)) if after < grid.height else nothing
        numbers, count = regions.number_regions(labels, class_map.nodata)
        parts = _polygons(numbers, count)
        if tolerance and count:
            corners = _junctions(np.concatenate([above, labels, following[:1]]))
            parts = _simplified(parts, corners, tolerance)
        parts = _moved(parts, row)
        inside = numbers >= 0
        of_region = numbers[inside]
        region_labels = np.zeros(count, np.int64)
        region_labels[of_region] = labels[inside]
        areas = np.broadcast_to(pixel_areas.row_areas(grid, range(row, after)), labels.shape)
        sums = [np.bincount(of_region, minlength=count), np.bincount(of_region, areas[inside], count)]
        sums.append(np.zeros(count))
        if CONFIDENCE in class_map.band_names:
            confidence = class_map.read(row, 0, len(labels), grid.width, CONFIDENCE)
            sums[2] = np.bincount(of_region, confidence[inside] / 255, count)
        features, open_regions = _joined(
            open_regions, parts, region_labels, np.stack(sums, axis=1), numbers, after < grid.height
        )
        yield features
        if progress:
            progress("tracing polygons", after, grid.height)
        above, labels = labels[-1:], following


def _polygons(numbers: np.ndarray, count: int) -> np.ndarray:
    """Returns the polygon of each region in pixels of its band; object (count,)."""
    import rasterio.features
    import shapely

    polygons = np.empty(count, object)
    for shape, value in rasterio.features.shapes(numbers, mask=numbers >= 0, connectivity=4):
        outer, *holes = shape["coordinates"]
        polygons[int(value)] = shapely.Polygon(outer, holes)
    invalid = ~shapely.is_valid(polygons)
    # A ring that touches itself at a corner of pixels becomes a ring and a hole.
    polygons[invalid] = shapely.make_valid(polygons[invalid], method="structure", keep_collapsed=False)
    return polygons


def _junctions(labels: np.ndarray) -> np.ndarray:
    """Returns at which corners of pixels three borders or more meet.

    Args:
        labels: (height + 2, width), with the rows before and after a band.

    Returns:
        bool (height + 1, width + 1); outside of the map there is another class than inside.
    """
    labels = np.pad(labels.astype(np.int16), ((0, 0), (1, 1)), constant_values=-1)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    borders = across[:-1].astype(np.int8) + across[1:] + down[:, :-1] + down[:, 1:]
    return borders >= 3


def _simplified(polygons: np.ndarray, junctions: np.ndarray, tolerance: float) -> np.ndarray:
    """Simplifies the polygons of a band with their shared borders.

    Tracing leaves out the corners at which only a neighbor's border turns. They are put in first, since neighbors must
    have the same corners along a border that they share.
    """
    import shapely

    kind, places, offsets = shapely.to_ragged_array(polygons)
    rings = offsets[0]
    places = places.astype(np.int64)
    # The last vertex of a ring is the first one; the edge behind it is empty.
    step = np.diff(places, axis=0, append=places[-1:])
    step[rings[1:] - 1] = 0
    length = np.maximum(np.abs(step).sum(axis=1), 1)
    first = np.cumsum(length) - length
    edge = np.repeat(np.arange(len(places)), length)
    along = np.arange(int(length.sum())) - first[edge]
    dense = places[edge] + np.sign(step)[edge] * along[:, None]
    keep = (along == 0) | junctions[dense[:, 1], dense[:, 0]]
    kept_before = np.append(0, np.cumsum(keep))
    rings = kept_before[np.append(first, len(dense))[rings]]
    matched = shapely.from_ragged_array(kind, dense[keep].astype(np.float64), (rings, *offsets[1:]))
    return shapely.coverage_simplify(matched, tolerance, simplify_boundary=False)


def _moved(polygons: np.ndarray, rows: int) -> np.ndarray:
    import shapely

    return shapely.set_coordinates(polygons, shapely.get_coordinates(polygons) + (0.0, float(rows)))


def _joined(
    before: _Open, parts: np.ndarray, labels: np.ndarray, sums: np.ndarray, numbers: np.ndarray, goes_on: bool
) -> tuple[_Features, _Open]:
    """Joins a band's regions to those that the band before it has left open.

    Returns:
        The regions that are whole now, in the order of their first pixels, and those that this band leaves open.
    """
    import shapely

    opened = len(before.parts)
    upper, lower = before.last_row, numbers[0]
    meet = (upper >= 0) & (lower >= 0)
    meet[meet] = before.labels[upper[meet]] == labels[lower[meet]]
    groups = joined(opened + len(parts), np.unique(np.stack([upper[meet], lower[meet] + opened], axis=1), axis=0))
    count = int(groups.max(initial=-1)) + 1
    stays_open = np.zeros(count, bool)
    if goes_on:
        last = numbers[-1][numbers[-1] >= 0]
        stays_open[groups[opened + last]] = True
    group_labels = np.zeros(count, np.int64)
    group_labels[groups] = np.concatenate([before.labels, labels])
    totals = np.concatenate([before.sums, sums])
    group_sums = np.stack([np.bincount(groups, totals[:, column], count) for column in range(3)], axis=1)
    group_parts: list[list[Any]] = [[] for _ in range(count)]
    for group, pieces in zip(groups, [*before.parts, *([part] for part in parts)], strict=True):
        group_parts[group] += pieces
    polygons = np.empty(count, object)
    for group in np.flatnonzero(~stays_open):
        pieces = group_parts[group]
        polygons[group] = pieces[0] if len(pieces) == 1 else shapely.union_all(pieces)
    whole = ~stays_open
    pixels, areas, confidences = group_sums[whole].T
    place = np.cumsum(stays_open) - 1
    last_row = np.full(numbers.shape[1], -1)
    if goes_on:
        inside = numbers[-1] >= 0
        last_row[inside] = place[groups[opened + numbers[-1][inside]]]
    left = [group_parts[group] for group in np.flatnonzero(stays_open)]
    return (
        _Features(polygons[whole], group_labels[whole], areas, confidences / np.maximum(pixels, 1)),
        _Open(left, group_labels[stays_open], group_sums[stays_open], last_row),
    )


class _Layer:
    """Layer of polygons that grows by features."""

    def __init__(self, path: pathlib.Path, class_map: ClassMap):
        self.polygons = 0
        self._path, self._map = path, class_map
        self.append(_Features(np.empty(0, object), np.zeros(0, np.int64), np.zeros(0), np.zeros(0)))

    def append(self, features: _Features) -> None:
        """Writes features, which are in pixels, in the map's CRS."""
        import pyogrio
        import pyogrio.raw
        import shapely

        first = not self._path.exists()
        if not len(features.labels) and not first:
            return
        names = np.array(self._map.legend.class_names, object)
        fields = {
            CLASS: names[features.labels],
            "class_id": features.labels.astype(np.int32),
            # To the square meter and a ten-thousandth: sums of floating-point numbers have long tails.
            "area_ha": np.round(features.areas, 4),
        }
        if CONFIDENCE in self._map.band_names:
            fields[CONFIDENCE] = np.round(features.confidences, 4)
        columns, rows = shapely.get_coordinates(features.polygons).T
        places = np.stack(self._map.grid.coordinates(columns, rows), axis=1)
        polygons = shapely.orient_polygons(shapely.set_coordinates(features.polygons, places))
        try:
            with vector_files.written_at(_CHANGED):
                pyogrio.raw.write(
                    self._path,
                    geometry=shapely.to_wkb(polygons),
                    field_data=list(fields.values()),
                    fields=list(fields),
                    layer=LAYER,
                    driver="GPKG",
                    geometry_type="MultiPolygon",
                    promote_to_multi=True,
                    crs=self._map.grid.crs,
                    append=not first,
                )
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise _unwritten(self._path, error) from None
        self.polygons += len(features.labels)


def _unwritten(path: pathlib.Path, error: Exception) -> StorageError:
    return StorageError(
        path.name,
        f"it cannot be written ({error})",
        remedy="free some space or choose another folder, then run the same command again",
    )


def _write_style(path: pathlib.Path, class_map: ClassMap) -> None:
    """Adds the table in which QGIS keeps the styles of a GeoPackage's layers."""
    qml = qgis_style.categorized(class_map.legend, CLASS)
    try:
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute(
                "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT, f_table_catalog TEXT, "
                "f_table_schema TEXT, f_table_name TEXT, f_geometry_column TEXT, styleName TEXT, styleQML TEXT, "
                "styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT, ui TEXT, "
                "update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"
            )
            (column,) = database.execute("SELECT column_name FROM gpkg_geometry_columns").fetchone()
            database.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, "
                "styleName, styleQML, styleSLD, useAsDefault, description, owner, update_time) "
                "VALUES ('', '', ?, ?, ?, ?, '', 1, ?, '', ?)",
                (LAYER, column, LAYER, qml, f"Classes of the legend {class_map.legend.name}", _CHANGED),
            )
            # Registered as a table without geometry, it is listed by GDAL and by other programs.
            database.execute(
                "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change) "
                "VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?)",
                (_CHANGED,),
            )
    except sqlite3.Error as error:
        raise _unwritten(path, error) from None
