"""Reading, repair, reprojection, tracing and writing of polygons; `eo_keras.geo.rasterize` rasterizes them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras.core import files
from eo_keras.errors import OptionError, SourceError, StorageError
from eo_keras.geo import vector_files
from eo_keras.geo.grid import Grid
from eo_keras.legends.catalogue import IGNORE

LONGEST_EDGE_M = 500.0
"""Longest edge in meters; longer ones are divided before a reprojection, which bends straight lines."""

_DEGREE_M = 111_320.0
_CHUNK = 4096
_POLYGON, _MULTIPOLYGON = 3, 6  # Shapely's numbers of the types.


@dataclasses.dataclass(frozen=True)
class Polygons:
    """Polygons with the values of one field; parallel arrays.

    Attributes:
        geometries: object (N,), valid polygons and multipolygons of shapely.
        values: str (N,), the field's text; empty strings where no field was requested.
        crs: `EPSG:n`, or WKT where the coordinate reference system has no code.
        source: their file or layer, for messages.
        field: the field's name, or an empty string.
        repaired: number of polygons that had invalid rings.
        empty: number of features left out because they have no area.
    """

    geometries: np.ndarray
    values: np.ndarray
    crs: str
    source: str
    field: str = ""
    repaired: int = 0
    empty: int = 0

    def __len__(self) -> int:
        return len(self.geometries)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest x, smallest y, largest x and largest y."""
        import shapely

        west, south, east, north = map(float, shapely.total_bounds(self.geometries))
        return west, south, east, north


def read_polygons(path: str | os.PathLike[str], field: str | None, layer: str | None = None) -> Polygons:
    """Reads polygons and one of their fields.

    Args:
        path: a GeoPackage, FileGDB, Shapefile, FlatGeobuf, GeoJSON (`EPSG:4326` unless it says otherwise) or
            GeoParquet, or a folder or zip that holds one.
        field: a regular expression that the whole name of one field matches, in either case, such as
            `code_?2012|code_?2018`; None for no field. It also chooses the layer: the only one that has such a field.
        layer: name of the layer, where that leaves several.

    Raises:
        SourceError: if it cannot be read, no or several layers or fields match, the vectors have no CRS, a feature
            is no polygon or has no value, or there is none.
        OptionError: if it is GeoParquet and pyarrow is not installed.
    """
    return polygons_of(path, vector_files.find_layers(path), field, layer)


def polygons_of(
    path: str | os.PathLike[str], layers: Sequence[vector_files.Layer], field: str | None, layer: str | None = None
) -> Polygons:
    """Reads polygons as `read_polygons` does, out of layers that `find_layers` has returned."""
    chosen, name = vector_files.choose_layer(path, layers, field, layer)
    crs = vector_files.crs_of(chosen)
    return _checked(chosen, name, crs, vector_files.read_layer(chosen, name))


def _checked(layer: vector_files.Layer, field: str | None, crs: str, features: vector_files.Features) -> Polygons:
    import shapely

    try:
        with np.errstate(invalid="ignore"):  # Coordinates that are no numbers are looked for below.
            geometries = shapely.from_wkb(features.geometries)
        kinds = shapely.get_type_id(geometries)
        keep = (kinds >= 0) & ~shapely.is_empty(geometries)
        if (wrong := np.flatnonzero(keep & ~np.isin(kinds, (_POLYGON, _MULTIPOLYGON)))).size:
            first = wrong[0]
            raise SourceError(
                layer.source,
                f"feature {features.numbers[first]} is a {geometries[first].geom_type}",
                "polygons",
                "remove what is none",
            )
        geometries, repaired = _repaired(geometries[keep], features.numbers[keep], layer.source)
    except shapely.errors.GEOSException as error:
        raise SourceError(layer.source, f"a polygon cannot be read ({error})", "polygons", "copy it again") from None
    values = np.full(len(geometries), "", np.str_)
    if field is not None:
        values = _texts(features.values[keep], features.numbers[keep], field, layer.source)
    solid = ~shapely.is_empty(geometries)
    if not solid.any():
        raise SourceError(layer.source, "it holds no polygon that has an area", "polygons", "name another file")
    return Polygons(
        geometries[solid],
        values[solid],
        crs,
        layer.source,
        field or "",
        repaired,
        len(features.geometries) - int(np.count_nonzero(solid)),
    )


def _repaired(geometries: np.ndarray, numbers: np.ndarray, source: str) -> tuple[np.ndarray, int]:
    """Returns valid geometries, of which some may be empty, and the number of repaired ones."""
    import shapely

    broken = np.flatnonzero(~shapely.is_valid(geometries))
    if broken.size:
        places, owners = shapely.get_coordinates(geometries[broken], return_index=True)
        if (endless := owners[~np.isfinite(places).all(axis=1)]).size:
            number = numbers[broken[endless[0]]]
            raise SourceError(source, f"a coordinate of feature {number} is no number", "numbers", "remove the feature")
        geometries = geometries.copy()
        # "structure" keeps outer rings polygons and inner rings holes, which "linework" could swap.
        made = shapely.make_valid(geometries[broken], method="structure", keep_collapsed=False)
        for place in np.flatnonzero(~np.isin(shapely.get_type_id(made), (_POLYGON, _MULTIPOLYGON))):
            parts = shapely.get_parts(shapely.get_parts(made[place]))
            made[place] = shapely.multipolygons(parts[shapely.get_type_id(parts) == _POLYGON])
        geometries[broken] = made
    return geometries, broken.size


def _texts(values: np.ndarray, numbers: np.ndarray, field: str, source: str) -> np.ndarray:
    """Returns a field's values as text; whole numbers are written without a point."""
    texts = np.array([vector_files.text_of(value) for value in values], np.str_)
    if (missing := np.flatnonzero(texts == "")).size:
        raise SourceError(
            source,
            f"{field} is empty in feature {numbers[missing[0]]}"
            + (f" and {missing.size - 1} others" if missing.size > 1 else ""),
            "a value for every polygon",
            "fill it in, or remove the feature",
        )
    return texts


def joined(parts: Sequence[Polygons]) -> Polygons:
    """Concatenates polygons of several files of one CRS; where they overlap, later ones are rasterized on top."""
    if len({part.crs for part in parts}) != 1:
        raise ValueError("polygons of several coordinate reference systems are to be joined")
    return Polygons(
        np.concatenate([part.geometries for part in parts]),
        np.concatenate([part.values for part in parts]),
        parts[0].crs,
        ", ".join(part.source for part in parts),
        parts[0].field,
        sum(part.repaired for part in parts),
        sum(part.empty for part in parts),
    )


def reprojected(polygons: Polygons, crs: str) -> Polygons:
    """Reprojects polygons, edges longer than `LONGEST_EDGE_M` divided first.

    The distance between an edge and the curve that it ought to be grows with the square of its length; of 500 m it
    is about a millimeter between EPSG:3035 and UTM.

    Args:
        polygons: the polygons.
        crs: such as `EPSG:32633`.

    Raises:
        SourceError: if a polygon lies where the other CRS does not reach.
        OptionError: if `crs` is none.
    """
    import shapely
    from rasterio.crs import CRS
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    from eo_keras.geo.images import crs_name

    try:
        target = CRS.from_user_input(crs)
    except CRSError:
        raise OptionError(f"'{crs}'", "it is no coordinate reference system", "one such as EPSG:32633") from None
    name = crs_name(target.to_wkt())
    if name == polygons.crs:
        return polygons
    source = CRS.from_user_input(polygons.crs)
    metres = _DEGREE_M if source.is_geographic else float(source.linear_units_factor[1])

    def moved(places: np.ndarray) -> np.ndarray:
        try:
            transformed = np.stack(transform(source, target, places[:, 0], places[:, 1]), axis=1)
        except Exception:  # GDAL's own errors, which have no public name.
            transformed = np.full(places.shape, np.inf)
        if not np.isfinite(transformed).all():
            raise SourceError(
                polygons.source,
                f"some of its polygons lie where {name} does not reach",
                f"polygons near the scene, in {polygons.crs} as they say",
                "check the vectors' coordinate reference system",
            )
        return transformed

    # The corners first: edges of a million kilometers, of a wrong CRS, must not be divided.
    moved(np.reshape(polygons.bounds, (2, 2)))
    geometries = polygons.geometries.copy()
    # In chunks: rasterio returns the coordinates as lists of Python numbers, which need four times the memory.
    for start in range(0, len(geometries), _CHUNK):
        part = shapely.segmentize(geometries[start : start + _CHUNK], LONGEST_EDGE_M / metres)
        geometries[start : start + _CHUNK] = shapely.set_coordinates(part, moved(shapely.get_coordinates(part)))
    return dataclasses.replace(polygons, geometries=geometries, crs=name)


def trace(labels: np.ndarray, grid: Grid, ignore: int = IGNORE) -> tuple[np.ndarray, np.ndarray]:
    """Vectorizes labels: one polygon for each connected area, along the edges of pixels.

    Burning them again gives the same labels.

    Args:
        labels: uint8 (height, width).
        grid: the grid of the labels.
        ignore: the label that is left out.

    Returns:
        Polygons, object (N,), in the grid's CRS, and their labels, uint8 (N,); pixels that meet at a corner only are
        of two polygons.
    """
    import rasterio.features
    import shapely
    from rasterio.transform import Affine

    if labels.shape != (grid.height, grid.width):
        raise ValueError(f"labels of shape {labels.shape} do not fit a grid of {grid.height} x {grid.width}")
    shapes = rasterio.features.shapes(
        np.ascontiguousarray(labels), mask=labels != ignore, connectivity=4, transform=Affine(*grid.transform)
    )
    geometries, values = [], []
    for shape, value in shapes:
        outer, *holes = shape["coordinates"]
        geometries.append(shapely.Polygon(outer, holes))
        values.append(int(value))
    polygons = np.empty(len(geometries), object)
    polygons[:] = geometries
    return polygons, np.array(values, np.uint8)


def write_polygons(
    path: str | os.PathLike[str],
    layer: str,
    geometries: np.ndarray,
    fields: Mapping[str, Sequence[Any] | np.ndarray],
    crs: str,
    changed: str | None = None,
) -> None:
    """Writes polygons as a layer of a GeoPackage; its other layers stay.

    Args:
        path: the file, ending in `.gpkg`; it appears whole or not at all.
        layer: the layer's name; one of the same name is replaced.
        geometries: object (N,), polygons and multipolygons; all are stored as multipolygons.
        fields: N values by the field's name, in order: text, or numbers.
        crs: such as `EPSG:3035`.
        changed: when the file was changed last (ISO 8601), as it will say; None for now. A fixed time makes equal
            content equal bytes.

    Raises:
        StorageError: if it cannot be written.
    """
    import pyogrio
    import pyogrio.raw
    import shapely

    path = pathlib.Path(path)
    columns = [np.asarray(values) for values in fields.values()]
    columns = [values.astype(object) if values.dtype.kind == "U" else values for values in columns]
    folder = files.make_folder(path.parent)
    with (
        files.storage_errors(path),
        tempfile.TemporaryDirectory(prefix=files.TEMPORARY_PREFIX, dir=folder) as temporary,
        vector_files.written_at(changed),
    ):
        unfinished = pathlib.Path(temporary) / path.name
        if path.exists():
            shutil.copyfile(path, unfinished)
        try:
            pyogrio.raw.write(
                unfinished,
                geometry=shapely.to_wkb(geometries),
                field_data=columns,
                fields=list(fields),
                layer=layer,
                driver="GPKG",
                geometry_type="MultiPolygon",
                promote_to_multi=True,
                crs=crs,
            )
        except pyogrio.errors.DataSourceError as error:
            raise StorageError(path, f"it cannot be written ({error})", remedy="fix that and try again") from None
        os.replace(unfinished, path)
