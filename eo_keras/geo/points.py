"""Points with the values of one field: read from vector files and CSV tables, and written as GeoPackages."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import vector_files
from eo_keras.geo.footprints import transformed

_DEGREES = (("longitude", "latitude"), ("lon", "lat"), ("long", "lat"), ("lng", "lat"))
_COLUMNS = (*_DEGREES, ("x", "y"))
"""Pairs of columns of a CSV table that hold coordinates, in either case."""

_POINT, _MULTIPOINT = 0, 4  # Shapely's numbers of the types.
_FIXED_TIME = "2000-01-01T00:00:00.000Z"
"""Time of the last change as written files say it, so that equal content gives equal bytes."""


@dataclasses.dataclass(frozen=True)
class Points:
    """Points with the values of one field; parallel arrays.

    Attributes:
        coordinates: float64 (N, 2), x and y in `crs`; degrees as longitude and latitude.
        values: str (N,), the field's text; empty where the field is.
        crs: `EPSG:n`, or WKT where the coordinate reference system has no code.
        source: their file or layer, for messages.
        field: the field's name.
        others: further requested fields by name, str (N,); those that the file does not have are left out.
        metadata: text by name, as `points_file` wrote it.
    """

    coordinates: np.ndarray
    values: np.ndarray
    crs: str
    source: str
    field: str
    others: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.coordinates)

    def in_crs(self, crs: str) -> np.ndarray:
        """Returns the coordinates in another coordinate reference system; not finite where it does not reach."""
        if crs == self.crs or not len(self):
            return self.coordinates
        return transformed(self.coordinates, self.crs, crs)


def read_points(
    path: str | os.PathLike[str],
    field: str,
    *,
    layer: str | None = None,
    crs: str | None = None,
    others: Sequence[str] = (),
) -> Points:
    """Reads points and one of their fields.

    Args:
        path: a vector file that `vector_files.find_layers` knows, or a CSV table whose columns `longitude` and
            `latitude` (or `lon` and `lat`), or `x` and `y` hold the coordinates.
        field: the field's name, in either case.
        layer: name of the layer, where several have the field.
        crs: coordinate reference system of a CSV table. Default: degrees (`EPSG:4326`) for longitude and latitude.
        others: names of further fields to read where the file has them.

    Raises:
        SourceError: if it cannot be read, has no such field or no place for a point, or a feature is no point.
        OptionError: if a table's coordinate reference system is not known, or one is given for another file.
    """
    if os.fspath(path).lower().endswith((".csv", ".tsv", ".txt")):
        return _read_table(path, field, crs, others)
    if crs is not None:
        raise OptionError(
            "points_crs", f"it is given, but {os.fspath(path)} says itself where it lies", remedy="leave it out"
        )
    kind = vector_files.POINTS
    chosen, name = vector_files.choose_layer(path, vector_files.find_layers(path, kind), re.escape(field), layer, kind)
    features = vector_files.read_layer(chosen, name)
    coordinates = _coordinates(features.geometries, features.numbers, chosen.source)
    found = {}
    for other in others:
        if (match := next((one for one in chosen.fields if one.lower() == other.lower()), None)) is not None:
            found[other] = _texts(vector_files.read_layer(chosen, match).values)
    return Points(
        coordinates,
        _texts(features.values),
        vector_files.crs_of(chosen),
        chosen.source,
        name,
        found,
        vector_files.metadata_of(chosen),
    )


def _texts(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    return np.array([vector_files.text_of(value) for value in values], np.str_)


def _coordinates(wkb: np.ndarray, numbers: np.ndarray, source: str) -> np.ndarray:
    import shapely

    try:
        with np.errstate(invalid="ignore"):
            geometries = shapely.from_wkb(wkb)
    except shapely.errors.GEOSException as error:
        raise SourceError(source, f"a point cannot be read ({error})", "points", "copy it again") from None
    kinds = shapely.get_type_id(geometries)
    # Many programs write single points as multipoints.
    single = (kinds == _POINT) | ((kinds == _MULTIPOINT) & (shapely.get_num_geometries(geometries) == 1))
    if (wrong := np.flatnonzero(~single | shapely.is_empty(geometries))).size:
        geometry = geometries[wrong[0]]
        what = "has no place" if geometry is None or geometry.is_empty else f"is a {geometry.geom_type}"
        raise SourceError(
            source, f"feature {numbers[wrong[0]]} {what}", "one point for each feature", "remove what is none"
        )
    coordinates = shapely.get_coordinates(geometries)
    if (endless := np.flatnonzero(~np.isfinite(coordinates).all(axis=1))).size:
        raise SourceError(source, f"a coordinate of feature {numbers[endless[0]]} is no number", "numbers")
    return coordinates


def _read_table(path: str | os.PathLike[str], field: str, crs: str | None, others: Sequence[str]) -> Points:
    remedy = "fix the file"
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
        if not rows:
            raise ValueError("it is empty")
    except (OSError, ValueError, csv.Error) as error:
        raise SourceError(
            path, f"it cannot be read ({error})", "a table in UTF-8 with a header, columns divided by commas", remedy
        ) from None
    head = [name.strip().lower() for name in rows[0]]
    pair = next((one for one in _COLUMNS if set(one) <= set(head)), None)
    if pair is None:
        raise SourceError(path, f"its columns are {', '.join(head)}", "longitude and latitude, or x and y, among them")
    if field.lower() not in head:
        raise SourceError(path, f"its columns are {', '.join(head)}", f"one called {field}", "name another column")
    if crs is None and pair not in _DEGREES:
        raise OptionError(
            "points_crs", f"it is not given, and {os.fspath(path)} has x and y", "their CRS, such as EPSG:32632"
        )
    rows = [(number, row) for number, row in enumerate(rows[1:], 2) if any(cell.strip() for cell in row)]
    coordinates = np.empty((len(rows), 2))
    for place, (number, row) in enumerate(rows):
        if len(row) != len(head):
            raise SourceError(path, f"row {number} has {len(row)} cells", f"{len(head)} as its header", remedy)
        try:
            coordinates[place] = [float(row[head.index(name)]) for name in pair]
        except ValueError as error:
            raise SourceError(
                path, f"row {number}: {error}", f"numbers under {pair[0]} and {pair[1]}", remedy
            ) from None
        if not np.isfinite(coordinates[place]).all():
            raise SourceError(path, f"row {number} has a coordinate that is no number", "numbers", remedy)

    def column(name: str) -> np.ndarray:
        return _texts([row[head.index(name.lower())] for _, row in rows])

    found = {name: column(name) for name in others if name.lower() in head}
    return Points(coordinates, column(field), _checked_crs(crs or "EPSG:4326"), os.fspath(path), field, found)


def _checked_crs(text: str) -> str:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    from eo_keras.geo.reference_systems import has_place, name_of

    with contextlib.suppress(CRSError):
        crs = CRS.from_user_input(text)
        if has_place(crs):
            return name_of(crs)
    raise OptionError("points_crs", f"'{text}' is no coordinate reference system on the ground", "such as EPSG:32632")


def points_file(
    coordinates: np.ndarray,
    fields: Mapping[str, Sequence[Any] | np.ndarray],
    crs: str,
    layer: str,
    metadata: Mapping[str, str],
) -> bytes:
    """Returns points as the bytes of a GeoPackage with one layer; equal content gives equal bytes.

    Args:
        coordinates: float64 (N, 2), x and y in `crs`.
        fields: N values by the field's name, in order: text, or numbers.
        crs: such as `EPSG:32632`.
        layer: the layer's name.
        metadata: text by name, of the whole file.
    """
    import pyogrio
    import pyogrio.raw
    import shapely

    columns = [np.asarray(values) for values in fields.values()]
    columns = [values.astype(object) if values.dtype.kind == "U" else values for values in columns]
    file = io.BytesIO()
    with vector_files.written_at(_FIXED_TIME):
        pyogrio.raw.write(
            file,
            geometry=shapely.to_wkb(shapely.points(coordinates)),
            field_data=columns,
            fields=list(fields),
            layer=layer,
            driver="GPKG",
            geometry_type="Point",
            crs=crs,
            dataset_metadata=dict(metadata),
        )
    return file.getvalue()
