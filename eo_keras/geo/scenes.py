"""Scenes: rasters of any supported format, opened as named bands on one grid.

A scene is a GeoTIFF, COG, VRT or JPEG 2000 file, a folder of such files with a band's name at the end of each name, or
a Sentinel-2 product (`eo_keras.geo.safe`). Only headers and a few pixels are read here;
`eo_keras.geo.scene_reader` reads windows, and is the only place where a scene's numbers are harmonized.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from eo_keras.core import containers
from eo_keras.core.system_files import is_litter
from eo_keras.errors import BandError, OptionError, SourceError
from eo_keras.geo import raster_files, reference_systems, safe, scene_metadata, scene_names, scene_numbers, scene_ranges
from eo_keras.geo.grid import Grid
from eo_keras.geo.scene_metadata import Statement
from eo_keras.geo.scene_numbers import Scaling, StoredBand, UserScaling
from eo_keras.sensors import sentinel2
from eo_keras.sensors.sentinel2 import BANDS, QUANTIFICATION

RESAMPLINGS = ("cubic", "cubic_spline", "bilinear", "nearest", "lanczos", "average")
"""Resampling of coarser bands to the grid; names of rasterio's methods."""

LEVELS = ("L1C", "L2A")

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2")

_BAND_AT_END = re.compile(r"(?:^|[_\-. ])(B\d\d?A?|SCL)(?:_(\d+)m)?$", re.IGNORECASE)
_NO_NAME = re.compile(r"R\d+m|IMG_DATA|\d*", re.IGNORECASE)
"""Names of folders that do not identify a scene."""

_CHANGED = re.compile(rb"<(ScaleOffset|ScaleRatio|LUT|Exponent|PixelFunctionType)[ >]|VRTProcessedDataset")
"""Elements by which a VRT changes the numbers of its sources."""


@dataclasses.dataclass(frozen=True)
class SceneOptions:
    """Options of opening a scene.

    Attributes:
        bands: names of the bands, in order; None takes all, in stored order.
        resampling: one of `RESAMPLINGS`, for bands of other grids; the scene classification takes the nearest.
        units: one of `scene_numbers.UNITS`, for floating-point scenes without metadata.
        offset: added to the numbers of scenes without metadata, such as -1000.
        scale: reflectance = (number + offset) x scale; None for 1/10000.
        override_metadata: whether `offset` and `scale` override tags of a raster and metadata beside it.
        band_order: the bands' names in stored order, for files that do not name theirs.
        target_crs: CRS to reproject the scene to, such as `EPSG:32633`; None keeps its own.
        level: `L1C` or `L2A` of scenes without metadata.
    """

    bands: tuple[str, ...] | None = None
    resampling: str = "cubic"
    units: str | None = None
    offset: float | None = None
    scale: float | None = None
    override_metadata: bool = False
    band_order: tuple[str, ...] | None = None
    target_crs: str | None = None
    level: str | None = None

    def __post_init__(self):
        """Checks the values."""
        for flag, value, known in (
            ("resampling", self.resampling, RESAMPLINGS),
            ("scene_level", self.level, (None, *LEVELS)),
        ):
            if value not in known:
                raise OptionError(flag, f"'{value}'", f"one of {', '.join(filter(None, known))}")
        _ = self.user_scaling
        if self.target_crs is not None:
            reference_systems.target(self.target_crs)

    @property
    def user_scaling(self) -> UserScaling:
        """Units, offset and scale of the stored numbers."""
        return UserScaling(self.units, self.offset, self.scale, self.override_metadata)


@dataclasses.dataclass(frozen=True)
class Layer:
    """One band of one file.

    Attributes:
        path: the file, as GDAL opens it.
        index: the band's number in it, from 1.
        scale: `harmonised = number * scale + offset`.
        offset: see `scale`.
        nodata: numbers that mean "no data"; NaN always does.
        saturated: the number that means "saturated", or None.
    """

    path: str
    index: int
    scale: float = 1.0
    offset: float = 0.0
    nodata: tuple[float, ...] = (0.0,)
    saturated: float | None = None


@dataclasses.dataclass(frozen=True)
class Scene:
    """Named bands on one grid.

    Attributes:
        source: the path that was opened.
        product: a Sentinel-2 product's identifier, else the file's name without its ending.
        level: `L1C`, `L2A`, or None where it is unknown.
        date: day of the acquisition, or None where it is unknown.
        bands: names, in order.
        layers: file and scaling of each band.
        grid: the grid of all bands: that of the finest one, unless `target_crs` was given.
        scl: the layer of the scene classification, or None.
        resampling: the method for bands of other grids.
        warnings: warnings for the user.
    """

    source: str
    product: str
    level: str | None
    date: datetime.date | None
    bands: tuple[str, ...]
    layers: tuple[Layer, ...]
    grid: Grid
    scl: Layer | None
    resampling: str
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Source:
    """Content of a source: all its bands by name, in stored order, and its metadata."""

    product: str
    level: str | None
    date: datetime.date | None
    layers: Mapping[str, Layer]
    scl: Layer | None
    warnings: tuple[str, ...] = ()


def open_scene(path: str | os.PathLike[str], options: SceneOptions | None = None, *, check: bool = True) -> Scene:
    """Opens a scene.

    Args:
        path: a GeoTIFF, COG, VRT or JPEG 2000 file, a folder of such files whose names end in a band's, or a SAFE
            folder or zip.
        options: options of opening it.
        check: whether to compare the range of some of its numbers with their scaling.

    Raises:
        SourceError: if it cannot be read, is not georeferenced, or the scaling of its numbers is unknown.
        BandError: if its bands are not named, or one of `bands` is missing.
        OptionError: if an option does not fit it.
    """
    path, options = os.fspath(path), options or SceneOptions()
    if not os.path.exists(path):
        raise SourceError(path, "there is no such file or folder", "a scene", "check the path")
    if safe.is_product(path):
        source = _product(path, options)
    elif os.path.isdir(path):
        source = _folder(path, options, check)
    else:
        source = _file(path, options, check)
    bands = options.bands or tuple(source.layers)
    if missing := [name for name in bands if name not in source.layers]:
        raise _missing(path, missing, source)
    layers = tuple(source.layers[name] for name in bands)
    own_grid = raster_files.common_grid(path, [layer.path for layer in layers])
    if source.scl is not None:
        raster_files.check_over(source.scl.path, own_grid)
    return Scene(
        source=path,
        product=source.product,
        level=source.level or options.level or ("L1C" if "B10" in source.layers else None),
        date=source.date,
        bands=bands,
        layers=layers,
        grid=raster_files.brought_to(path, own_grid, options.target_crs),
        scl=source.scl,
        resampling=options.resampling,
        warnings=source.warnings,
    )


def _missing(path: str, missing: Sequence[str], source: _Source) -> BandError:
    remedy = "choose other bands, or a scene that holds them"
    if source.level == "L2A" and "B10" in missing:
        remedy = "choose bands without B10, which Level-2A products do not hold, or give the Level-1C product"
    return BandError(path, f"it does not hold {','.join(missing)}", f"bands out of {','.join(source.layers)}", remedy)


def _product(path: str, options: SceneOptions) -> _Source:
    if options.units is not None or (options.override_metadata and options.user_scaling.numbers):
        where = "scene_offset and scene_scale" if options.override_metadata else "scene_units"
        remedy = "leave it out, or give it for other cities alone, by a column of the list"
        raise OptionError(where, f"{path} has metadata that state its scaling", remedy=remedy)
    product = safe.open_product(path)
    scale = QUANTIFICATION / product.quantification
    layers = {
        name: Layer(
            product.files[name][0],
            1,
            scale,
            product.offsets[name] * scale,
            (float(product.nodata),),
            None if product.saturated is None else float(product.saturated),
        )
        for name in BANDS
        if name in product.files
    }
    scl = Layer(product.files[safe.SCL][0], 1) if safe.SCL in product.files else None
    stated = (Scaling(layer.scale, layer.offset, "as its metadata say") for layer in layers.values())
    warnings = tuple(
        filter(None, (scene_numbers.ignored_options(path, scaling, options.user_scaling) for scaling in stated))
    )
    return _Source(product.name, product.level, product.date, layers, scl, warnings[:1])


def _folder(path: str, options: SceneOptions, check: bool) -> _Source:
    files, stems = _band_files(path)
    scl = Layer(files.pop(safe.SCL), 1) if safe.SCL in files else None
    if not files:
        raise SourceError(
            path,
            "no file in it has a name that ends in a band's",
            "a SAFE folder, or files such as NAME_B04.tif",
            _where_bands_are(path),
        )
    for read in (scene_names.date_of, scene_names.tile_of):
        if len(values := {read(stem) for stem in stems} - {None}) > 1:
            both = " and ".join(sorted(map(str, values)))
            raise SourceError(path, f"its files' names say {both}", "one scene", "make a folder of each")
    folder = _folder_name(path)
    name = max(stems, key=len) or folder
    with contextlib.ExitStack() as opened:
        layers = {
            band: (opened.enter_context(raster_files.open_dataset(files[band])), files[band], 1)
            for band in BANDS
            if band in files
        }
        return _loose(path, name, layers, scl, options, check, date=scene_names.date_of(folder))


def _band_files(path: str) -> tuple[dict[str, str], set[str]]:
    """Returns a folder's files by band, of several pixel sizes the finest, and the prefixes of their names."""
    matches: dict[str, tuple[pathlib.Path, re.Match[str]]] = {}
    for file in sorted(pathlib.Path(path).iterdir()):
        match = _BAND_AT_END.search(file.stem)
        if file.suffix.lower() not in SUFFIXES or not match or is_litter(file.name):
            continue
        band = sentinel2.canonical_name(match[1])
        if band not in BANDS and band != safe.SCL:
            continue
        other, its = matches.setdefault(band, (file, match))
        if other != file:
            # Level-2A has most bands in two or three sizes, which differ in their names' endings alone.
            sizes = match[2], its[2]
            if file.stem[: match.start()] != other.stem[: its.start()] or None in sizes or sizes[0] == sizes[1]:
                raise SourceError(
                    path,
                    f"{other.name} and {file.name} are both {band}",
                    "one file each",
                    "move one of them out of the folder",
                )
            if int(sizes[0]) < int(sizes[1]):
                matches[band] = file, match
    for file, _ in matches.values():
        if file.suffix.lower() == ".vrt":
            raster_files.check_vrt_in(path, os.fspath(file))
    stems = {file.stem[: match.start()] for band, (file, match) in matches.items() if band != safe.SCL}
    return {band: os.fspath(file) for band, (file, _) in matches.items()}, stems


def _where_bands_are(path: str) -> str:
    """Returns a remedy for a folder that is no scene itself."""
    here = pathlib.Path(os.path.abspath(path))
    if root := next((folder for folder in (here, *here.parents) if folder.name.upper().endswith(".SAFE")), None):
        return f"name the product's folder {root}"
    folders = {pathlib.PurePath(name).parent for name in containers.members(path, depth=3) if _is_band(name)}
    if folders:
        return f"name its folder {min(map(str, folders))}"
    return "name the scene's file itself"


def _is_band(name: str) -> bool:
    file = pathlib.PurePath(name)
    match = _BAND_AT_END.search(file.stem)
    return file.suffix.lower() in SUFFIXES and match is not None and sentinel2.canonical_name(match[1]) in BANDS


def _folder_name(path: str) -> str:
    """Returns the name of the nearest folder that identifies the scene."""
    here = pathlib.Path(os.path.abspath(path))
    return next((folder.name for folder in (here, *here.parents) if not _NO_NAME.fullmatch(folder.name)), "scene")


def _file(path: str, options: SceneOptions, check: bool) -> _Source:
    if not path.lower().endswith(SUFFIXES):
        raise SourceError(
            path,
            "this is no scene by its name",
            f"a SAFE folder or zip, or a file in {', '.join(SUFFIXES)}",
            "name the raster itself, or rename it as what it is",
        )
    name = pathlib.Path(path).stem
    match = _BAND_AT_END.search(name)
    with raster_files.open_dataset(path) as dataset:
        names = _names(path, dataset, options.band_order, match and sentinel2.canonical_name(match[1]))
        layers = {band: (dataset, path, index) for index, band in enumerate(names, start=1) if band in BANDS}
        scl = Layer(path, names.index(safe.SCL) + 1) if safe.SCL in names else None
        bare = match is not None and match.start() == 0
        if bare:
            return _loose(path, _folder_name(os.path.dirname(path)), layers, scl, options, check, unnamed=True)
        return _loose(path, name, layers, scl, options, check)


def _loose(
    path: str,
    name: str,
    files: Mapping[str, tuple[Any, str, int]],
    scl: Layer | None,
    options: SceneOptions,
    check: bool,
    date: datetime.date | None = None,
    unnamed: bool = False,
) -> _Source:
    """Returns the content of rasters that are no product, but may lie in one or beside its metadata.

    Args:
        path: the scene.
        name: its name.
        files: by band, the open file, its path and the band's number in it.
        scl: its own scene classification, or None.
        options: options of opening it.
        check: whether to check the numbers' range.
        date: day of the acquisition if neither metadata nor the name hold one.
        unnamed: whether a file's name is that of its band alone.
    """
    statement, has_offset = _statement(path, name, next(iter(files.values()))[0])
    date = (statement and statement.date) or scene_names.date_of(name) or date
    recent = date is not None and date >= scene_names.OFFSET_DAY
    scalings = {
        band: scene_numbers.band_scaling(
            StoredBand(dataset, file, index, band, options.user_scaling, statement, has_offset, recent)
        )
        for band, (dataset, file, index) in files.items()
    }
    if check:
        samples = {
            band: scene_ranges.sample(dataset, index, scalings[band]) for band, (dataset, _, index) in files.items()
        }
        scene_ranges.check(path, scalings, samples, options.user_scaling)
    layers = {
        band: Layer(file, index, scaling.scale, scaling.offset, scaling.nodata, scaling.saturated)
        for (band, scaling), (_, file, index) in zip(scalings.items(), files.values(), strict=True)
    }
    if scl is None and statement is not None and statement.scl is not None:
        scl = Layer(statement.scl, 1)
    level = (statement and statement.level) or scene_names.level_of(name) or scene_names.level_of(_folder_name(path))
    # Single bands of a product keep its name; an export has its own.
    product = statement.product if statement is not None and (unnamed or os.path.isdir(path)) else name
    warnings = tuple(dict.fromkeys(one.warning for one in scalings.values() if one.warning))
    return _Source(product, level, date, layers, scl, warnings[:1])


def _statement(path: str, name: str, dataset: Any) -> tuple[Statement | None, tuple[bool | None, str]]:
    """Returns the metadata of a scene, and whether names imply an offset."""
    if dataset.driver != "VRT" or os.path.isdir(path):
        return scene_metadata.find(path, name), scene_names.has_offset([name, *scene_metadata.names_of(path)])
    pairs = [_statement_of_source(source) for source in _vrt_sources(dataset)]
    statements = [statement for statement, _ in pairs]
    has_offset = next((implied for _, implied in pairs if implied[0]), pairs[0][1] if pairs else (None, ""))
    if len({_numbers(statement) for statement in statements}) > 1:
        raise SourceError(
            path,
            "the files that it is made of carry different offsets, or metadata lie beside some of them alone",
            "files whose numbers mean the same",
            "make VRTs of them apart",
        )
    statement = next(filter(None, statements), None) or scene_metadata.find(path, name)
    if statement is None:
        return None, has_offset if has_offset[0] else scene_names.has_offset([name, *scene_metadata.names_of(path)])
    if len({one.product for one in statements if one}) > 1:
        levels, dates = ({getattr(one, field) for one in statements if one} for field in ("level", "date"))
        statement = dataclasses.replace(
            statement,
            product=name,
            level=levels.pop() if len(levels) == 1 else None,
            date=dates.pop() if len(dates) == 1 else None,
            scl=None,
        )
    if _CHANGED.search(pathlib.Path(path).read_bytes()):
        has_offset = any(offset for _, offset in statement.numbers.values()) or None
        return dataclasses.replace(statement, numbers={}), (
            has_offset,
            f"the VRT changes numbers of {statement.product}",
        )
    return statement, has_offset


def _numbers(statement: Statement | None) -> tuple[Any, ...]:
    return () if statement is None else tuple(sorted(statement.numbers.items()))


def _statement_of_source(source: str) -> tuple[Statement | None, tuple[bool | None, str]]:
    stem = pathlib.PurePath(source).stem
    return scene_metadata.find(source, stem), scene_names.has_offset([stem, *scene_metadata.names_of(source)])


def _vrt_sources(dataset: Any) -> list[str]:
    """Returns the files that a VRT, and any VRT in it, is made of."""
    sources: list[str] = []
    for source in dataset.files[1:]:
        if source.lower().endswith(".vrt"):
            with raster_files.open_dataset(source) as inner:
                sources += _vrt_sources(inner)
        elif source.lower().endswith(SUFFIXES):
            sources.append(source)
    return list(dict.fromkeys(sources))


def _names(path: str, dataset: Any, band_order: tuple[str, ...] | None, band: str | None) -> list[str]:
    """Returns the bands' names in stored order; other layers than Sentinel-2's bands may be among those of a file.

    Args:
        path: the file, for errors.
        dataset: the file, opened by rasterio.
        band_order: names that the user gives.
        band: the band at the end of the file's name, or None.
    """
    described = [sentinel2.canonical_name(description or "") for description in dataset.descriptions]
    known = [name for name in described if name in BANDS]
    is_named = bool(known) and len(set(known)) == len(known)
    if band_order is not None:
        if len(band_order) != dataset.count:
            raise BandError(
                path,
                f"{dataset.count} bands",
                f"{len(band_order)}, as `band_order` names",
                "name every band once",
            )
        _check_names(path, band_order, described if is_named else [band or ""] if dataset.count == 1 else [])
        return list(band_order)
    if is_named:
        return described
    if dataset.count == 1 and band in BANDS:
        return [band]
    if dataset.count == len(sentinel2.EUROSAT_ORDER):
        remedy = "say `band_order=EUROSAT` if they lie in EuroSAT's order, B8A last, or name them all"
    else:
        remedy = "say the stored order, such as `band_order=B02,B03,B04,B08`"
    raise BandError(path, f"{dataset.count} bands without names of Sentinel-2's", "each band's name once", remedy)


def _check_names(path: str, given: Sequence[str], own: Sequence[str]) -> None:
    """Refuses names of bands that contradict those of a file."""
    for index, (name, other) in enumerate(zip(given, own, strict=False), start=1):
        if other in BANDS and name != other:
            raise BandError(
                path,
                f"its band {index} is {other} by its own name, and `band_order` says {name}",
                "one name of each band",
                "leave `band_order` out, or correct the names in the file (band descriptions, or that of the file)",
            )


def parse_band_order(text: str) -> tuple[str, ...]:
    """Parses the value of `band_order`: a list of names, or `EUROSAT`; names of other layers are kept.

    Raises:
        BandError: if no name is that of a band, or one is given twice.
    """
    if text.strip().upper() == "EUROSAT":
        return sentinel2.EUROSAT_ORDER
    names = tuple(sentinel2.canonical_name(part) for part in text.split(","))
    known = [name for name in names if name in BANDS]
    if not known or len(set(known)) != len(known):
        raise BandError("`band_order`", f"'{text}'", f"names out of {','.join(BANDS)}, each once, in stored order")
    return names
