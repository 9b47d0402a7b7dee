"""Layers of polygons and points in files, folders and zips, in the formats of published land use.

GeoPackage, FileGDB, Shapefile, FlatGeobuf and GeoJSON are read by pyogrio, GeoParquet by pyarrow; zips are read where
they lie, and zips inside zips too. A file is held against its first bytes before it is handed to its decoder: others
would follow paths that a file names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import posixpath
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from eo_keras.core import containers
from eo_keras.core.system_files import is_litter
from eo_keras.errors import EOKerasError, OptionError, SourceError

FORMS = "a GeoPackage, FileGDB, Shapefile, FlatGeobuf, GeoJSON or GeoParquet, as it is or in a zip"

_PARQUET = (".parquet", ".geoparquet")
_STARTS = {
    ".gpkg": (b"SQLite format 3\0", b""),
    ".shp": (b"\0\0\x27\x0a", b""),
    ".fgb": (b"fgb", b""),
    ".geojson": (b"{", b"\xef\xbb\xbf \t\r\n"),
    ".json": (b"{", b"\xef\xbb\xbf \t\r\n"),
    **dict.fromkeys(_PARQUET, (b"PAR1", b"")),
}
"""First bytes of the files by the ending of their names, and bytes that may precede them."""

_SEARCHED = tuple(suffix for suffix in _STARTS if suffix != ".json")  # In a folder, JSON may be anything.
_DRIVERS = ("GPKG", "OpenFileGDB", "ESRI Shapefile", "FlatGeobuf", "GeoJSON")
_GEODATABASE = "a00000001.gdbtable"  # Every FileGDB has this table, its catalogue.
_DEEPEST = 3
_JSON = (".geojson", ".json")
_GEOJSON_TYPES = ("FeatureCollection", "Feature", "GeometryCollection", "Polygon", "MultiPolygon")
_CRS = re.compile(r"\{|[A-Za-z_]+\[|[A-Za-z]+:\w+$")
"""Pattern of a file's coordinate reference system: PROJJSON, WKT, or an authority's code; never a link."""

_SHOWN = 30


@dataclasses.dataclass(frozen=True)
class Kind:
    """Kind of geometries that is looked for.

    Attributes:
        name: its name in messages.
        types: parts of the names of geometry types that a layer may have, beside unknown ones.
    """

    name: str
    types: tuple[str, ...]

    def fits(self, type_name: str) -> bool:
        """Returns whether a layer of this geometry type may hold such geometries."""
        return any(one in type_name for one in (*self.types, "Unknown"))


POLYGONS = Kind("polygons", ("Polygon", "Surface"))
POINTS = Kind("points", ("Point",))
_NO_PLACE = "the vectors have no coordinate reference system"


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of polygons or points.

    Attributes:
        place: the file; where it lies in a zip, the zip and then the name in it.
        name: the layer's name.
        fields: names of its fields.
        crs: coordinate reference system as the file gives it (an authority's code, WKT or PROJJSON), or None.
    """

    place: tuple[str, ...]
    name: str
    fields: tuple[str, ...]
    crs: str | None

    @property
    def source(self) -> str:
        """Path of the layer, for messages."""
        return f"{_where(self.place)}, layer {self.name}"


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of a layer; parallel arrays.

    Attributes:
        geometries: object (N,), well-known binary in two dimensions, or None.
        values: object (N,), values of a field; None where no field was requested.
        numbers: int64 (N,), numbers of the features in the file.
    """

    geometries: np.ndarray
    values: np.ndarray | None
    numbers: np.ndarray


def find_layers(path: str | os.PathLike[str], kind: Kind = POLYGONS) -> tuple[Layer, ...]:
    """Lists the layers of polygons, or of another kind, that a file, a folder or a zip holds.

    Args:
        path: a file of one of the forms above, a FileGDB's folder, or a folder or zip that holds such, at any depth.
        kind: the kind of geometries.

    Raises:
        SourceError: if there is nothing of the kind, or it cannot be read.
        OptionError: if a GeoParquet file is met and pyarrow is not installed.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise SourceError(path, "there is no such file or folder", FORMS, "check the path")
    with _decoding(path, "a whole zip" if path.lower().endswith(".zip") else FORMS):
        places = list(_places((path,)))
    if not places:
        raise SourceError(path, "it holds no vectors by the names in it", FORMS, "name another file")
    layers = [layer for place in places for layer in _layers_of(place, kind)]
    if not layers:
        raise SourceError(
            path, f"no layer in it has {kind.name}", f"{kind.name} with their classes", "name another file"
        )
    return tuple(layers)


def read_layer(layer: Layer, field: str | None) -> Features:
    """Reads a layer's geometries, and one of its fields.

    Raises:
        SourceError: if it is damaged.
    """
    with _decoding(_where(layer.place), "whole vectors"):
        if layer.place[-1].lower().endswith(_PARQUET):
            return _read_parquet(layer, field)
        import pyogrio.raw

        _, numbers, geometries, columns = pyogrio.raw.read(
            _gdal_path(layer.place),
            layer=layer.name,
            columns=[] if field is None else [field],
            force_2d=True,
            return_fids=True,
        )
    return Features(geometries, None if field is None else columns[0].astype(object), numbers)


def choose_layer(
    path: str | os.PathLike[str],
    layers: Sequence[Layer],
    field: str | None,
    layer: str | None = None,
    kind: Kind = POLYGONS,
) -> tuple[Layer, str | None]:
    """Returns the only layer that has a field, and the field's name.

    Args:
        path: the layers' file, folder or zip, for errors.
        layers: the layers.
        field: a regular expression that the whole name of one field matches, in either case; None for no field.
        layer: name of the layer, where that leaves several.
        kind: their kind of geometries, for errors.

    Raises:
        SourceError: if no or several layers or fields match.
    """
    if layer is not None:
        names = dict.fromkeys(item.name for item in layers)
        layers = tuple(item for item in layers if item.name == layer)
        if not layers:
            raise SourceError(path, f"no layer of {kind.name} in it is called '{layer}'", f"one of {_listed(names)}")
    matches = [(item, name) for item in layers for name in _matching(item.fields, field)]
    if not matches:
        names = _listed(dict.fromkeys(name for item in layers for name in item.fields))
        raise SourceError(path, f"its fields are {names or 'none'}", f"one called {field}", "name another file")
    chosen, name = matches[0]
    if others := [item.source for item, _ in matches if item != chosen]:
        raise SourceError(
            path,
            f"several layers match: {_listed([chosen.source, *others])}",
            "one",
            "name its file, or a file that holds it alone",
        )
    if len(matches) > 1:
        raise SourceError(
            chosen.source, f"several fields match {field}: {_listed([name for _, name in matches])}", "one"
        )
    return chosen, name


def _matching(names: Sequence[str], field: str | None) -> list[str | None]:
    if field is None:
        return [None]
    return [name for name in names if re.fullmatch(field, name, re.IGNORECASE)]


def _listed(names: Sequence[Any] | Mapping[Any, Any]) -> str:
    names = list(map(str, names))
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def text_of(value: Any) -> str:
    """Returns a field's value as text: whole numbers without a point, nothing for a missing value."""
    if value is None or value != value:  # NaN stands for a missing number.
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def metadata_of(layer: Layer) -> dict[str, str]:
    """Returns the metadata of a layer's file: text by name.

    Raises:
        SourceError: if it is damaged.
    """
    if layer.place[-1].lower().endswith(_PARQUET):
        return {}
    import pyogrio

    with _decoding(_where(layer.place), "whole vectors"):
        return dict(pyogrio.read_info(_gdal_path(layer.place), layer=layer.name)["dataset_metadata"] or {})


def crs_of(layer: Layer) -> str:
    """Returns a layer's coordinate reference system: `EPSG:n`, or WKT where it has no code.

    Raises:
        SourceError: if it has none, or one without a location on the ground.
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    from eo_keras.geo.images import crs_name

    remedy = "assign it; that of Urban Atlas is EPSG:3035"
    if not layer.crs:
        raise SourceError(layer.source, _NO_PLACE, "one, such as EPSG:3035", remedy)
    if layer.crs == "OGC:CRS84":
        return "EPSG:4326"  # The same but for the order of the axes, which is longitude, latitude here anyway.
    try:
        if not _CRS.match(layer.crs):
            raise CRSError(layer.crs[:80])
        crs = CRS.from_user_input(layer.crs)
    except CRSError as error:
        raise SourceError(
            layer.source, f"its coordinate reference system is unknown ({error})", "one such as EPSG:3035", remedy
        ) from None
    if not (crs.is_projected or crs.is_geographic):
        raise SourceError(layer.source, _NO_PLACE, "one, such as EPSG:3035", remedy)
    return crs_name(crs.to_wkt())


def _where(place: tuple[str, ...]) -> str:
    return ": ".join(filter(None, place))


@contextlib.contextmanager
def _decoding(where: str, expected: str) -> Iterator[None]:
    """Turns errors of decoding damaged data into a `SourceError`; a context manager."""
    try:
        with warnings.catch_warnings():
            # GDAL warns of journals that it could not write beside the data, and of coordinates' dimensions.
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    except EOKerasError:
        raise
    except Exception as error:
        raise SourceError(where, f"it cannot be read ({error})", expected, "copy or download it again") from None


def _places(place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yields the files of known formats at a path, those in folders and zips by name."""
    path = place[-1]
    if len(place) == 1 and os.path.isdir(path):
        yield from _places_in_folder(path)
    elif path.lower().endswith(".zip"):
        yield from _places_in_zip(place)
    elif path.lower().endswith(tuple(_STARTS)):
        yield place


def _places_in_folder(folder: str) -> Iterator[tuple[str, ...]]:
    if os.path.exists(os.path.join(folder, _GEODATABASE)):
        yield (folder,)
        return
    for inner in sorted(pathlib.Path(folder).iterdir()):
        if not is_litter(inner.name) and (inner.is_dir() or inner.name.lower().endswith((*_SEARCHED, ".zip"))):
            yield from _places((os.fspath(inner),))


def _places_in_zip(place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if len(place) > _DEEPEST:
        return
    with _opened(place) as file, containers.open_zip(_where(place), file) as archive:
        members = containers.zip_members(archive, _where(place))
    for info in members.values():
        containers.check_readable(info, _where(place), by_gdal=True)
    for name in sorted(members):
        if posixpath.basename(name) == _GEODATABASE:
            yield (*place, posixpath.dirname(name))
        if name.lower().endswith((*_SEARCHED, ".zip")):
            yield from _places((*place, name))


@contextlib.contextmanager
def _opened(place: tuple[str, ...]) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(open(place[0], "rb"))
        where = place[0]
        for name in place[1:]:
            archive = stack.enter_context(containers.open_zip(where, file))
            info = containers.zip_members(archive, where).get(name)
            if info is None:  # A geodatabase is a folder in its zip.
                raise SourceError(where, f"{name} is no file in it", FORMS)
            containers.check_readable(info, where, by_gdal=True)
            file, where = stack.enter_context(archive.open(info)), f"{where}: {name}"
        yield file


def _gdal_path(place: tuple[str, ...]) -> str:
    path = os.path.abspath(place[0])
    for name in place[1:]:
        path = containers.zip_path(path, name)
    # pyogrio takes "!" in a path for the mark of an archive, unless the path begins as GDAL's own file systems do.
    return path if path.startswith("/vsi") or "!" not in path else f"/vsisubfile/0,{path}"


def _layers_of(place: tuple[str, ...], kind: Kind) -> list[Layer]:
    with _decoding(_where(place), FORMS):
        suffix = posixpath.splitext(place[-1].lower())[1]
        if suffix in _STARTS:
            _check_start(place, *_STARTS[suffix])
        if suffix in _JSON:
            _check_geojson(place)
        if suffix in _PARQUET:
            return _parquet_layers(place, kind)
        import pyogrio

        path, layers = _gdal_path(place), []
        for name, geometry in pyogrio.list_layers(path):
            if geometry is None or not kind.fits(geometry):
                continue
            info = pyogrio.read_info(path, layer=name)
            if info["driver"] not in _DRIVERS:
                raise SourceError(_where(place), f"its form is {info['driver']}", FORMS)
            layers.append(Layer(place, str(name), tuple(map(str, info["fields"])), info["crs"]))
        return layers


def _check_start(place: tuple[str, ...], start: bytes, before: bytes) -> None:
    with _opened(place) as file:
        head = file.read(256).lstrip(before) if before else file.read(len(start))
    if not head.startswith(start):
        raise SourceError(
            _where(place), "its bytes are not what its name says" if head else "it is empty", FORMS, "copy it again"
        )


def _check_geojson(place: tuple[str, ...]) -> None:
    """Refuses JSON that is no GeoJSON, or whose coordinate reference system is a link: GDAL would follow it."""
    where = _where(place)

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, value in pairs:
            kind = value.get("type") if name == "crs" and isinstance(value, dict) else None
            if str(kind).lower() in ("link", "url"):
                raise SourceError(
                    where,
                    f"its coordinate reference system is a link ({str(value.get('properties'))[:80]})",
                    "its name, such as urn:ogc:def:crs:EPSG::3035",
                    "write the file again by ogr2ogr -f GPKG, and name that",
                )
        return dict(pairs)

    with _opened(place) as file:
        data = file.read()
    try:
        kind = json.loads(data.decode("utf-8-sig"), object_pairs_hook=checked).get("type")
    except ValueError as error:
        raise SourceError(where, f"it is no whole GeoJSON ({error})", FORMS, "copy or download it again") from None
    # GDAL's own kind of JSON holds a command that is run where it is opened.
    if kind not in _GEOJSON_TYPES or b"gdal_streamed_alg" in data:
        raise SourceError(where, f"this is JSON of the type {kind!r}", "GeoJSON: a FeatureCollection", "name another")


@contextlib.contextmanager
def _parquet(place: tuple[str, ...]) -> Iterator[Any]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise OptionError(
            _where(place),
            "this is GeoParquet, and pyarrow is not installed",
            remedy="run pip install 'eo-keras[geoparquet]'",
        ) from None
    with _opened(place) as file, pyarrow.parquet.ParquetFile(file) as opened:
        yield opened


def _geo_metadata(opened: Any, where: str) -> dict[str, Any] | None:
    """Returns the metadata of a GeoParquet file's geometries, and under `name` their column; None if it has none."""
    stored = (opened.schema_arrow.metadata or {}).get(b"geo")
    if stored is None:
        return None
    geo = json.loads(stored)
    name = geo["primary_column"]
    column = geo["columns"][name]
    if column["encoding"] != "WKB":
        raise SourceError(
            where, f"its geometries are encoded as {column['encoding']}", "WKB", "write it again with that encoding"
        )
    return {**column, "name": name}


def _parquet_layers(place: tuple[str, ...], kind: Kind) -> list[Layer]:
    with _parquet(place) as opened:
        column = _geo_metadata(opened, _where(place))
        if column is None:
            return []
        if not any(map(kind.fits, column.get("geometry_types") or ["Unknown"])):
            return []
        # The standard's default is longitude and latitude; null means unknown.
        crs = column.get("crs", "OGC:CRS84")
        if isinstance(crs, dict):
            known = crs.get("id", {})
            crs = f"{known['authority']}:{known['code']}" if {"authority", "code"} <= set(known) else json.dumps(crs)
        fields = tuple(name for name in opened.schema_arrow.names if name != column["name"])
        return [Layer(place, pathlib.PurePosixPath(place[-1]).stem, fields, crs)]


def _read_parquet(layer: Layer, field: str | None) -> Features:
    with _parquet(layer.place) as opened:
        column = _geo_metadata(opened, layer.source)["name"]
        table = opened.read([column] if field is None else [column, field])
        geometries = table.column(column).to_numpy()
        values = None if field is None else np.array([*table.column(field).to_pylist(), None], object)[:-1]
    return Features(geometries, values, np.arange(len(geometries)))


@contextlib.contextmanager
def written_at(changed: str | None) -> Iterator[None]:
    """Sets the time of the last change that GeoPackages get which are written within; a context manager.

    Args:
        changed: the time (ISO 8601); a fixed one makes equal content equal bytes. None for now.
    """
    import pyogrio

    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": changed})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
