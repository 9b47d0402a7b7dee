"""Scenes: whole rasters opened as named bands on one grid, whatever form they come in.

A scene is a GeoTIFF, COG, VRT or JPEG 2000 file, a folder of such files with a band's name at the end of each name, or
a Sentinel-2 product (`eo_keras.safe`). Nothing is read here but headers and a few pixels; `eo_keras.scene_reader` reads
windows, and is the only place where a scene's numbers become harmonised ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras import raster_files, reference_systems, safe, sentinel2
from eo_keras.errors import BandError, OptionError, SourceError
from eo_keras.grids import Grid
from eo_keras.litter import is_litter
from eo_keras.sentinel2 import BANDS, QUANTIFICATION

RESAMPLINGS = ("cubic", "cubic_spline", "bilinear", "nearest", "lanczos", "average")
"""How coarser bands are brought to the grid; names of rasterio's methods."""

UNITS = ("reflectance", "dn")
"""What the numbers of a floating-point scene can be: reflectance from 0 to 1, or digital numbers to 10000 and over."""

LEVELS = ("L1C", "L2A")

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2")

_DATE = re.compile(r"(?<!\d)(20[0-4]\d)[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?!\d{1,5}(?:\D|$))")
_BAND_AT_END = re.compile(r"(?:^|[_\-. ])(B\d\d?A?|SCL)(?:_\d+m)?$", re.IGNORECASE)
_REFLECTANCE_MEDIAN = 20.0
"""Reflectance lies below about 2, digital numbers about 10,000 times higher: whichever is meant, this divides them."""


@dataclasses.dataclass(frozen=True)
class SceneOptions:
    """How to open a scene.

    Attributes:
        bands: the bands wanted, in order; None takes all that it holds, in their own order.
        resampling: one of `RESAMPLINGS`, for bands of other grids; the scene classification takes the nearest.
        units: one of `UNITS`, for scenes of floating-point numbers, which do not say it themselves.
        bands_in_file: the bands' names in stored order, for files that do not name theirs.
        target_crs: where to bring the scene to, such as `EPSG:32633`; None leaves it where it is.
        level: `L1C` or `L2A` for scenes that do not say.
    """

    bands: tuple[str, ...] | None = None
    resampling: str = "cubic"
    units: str | None = None
    bands_in_file: tuple[str, ...] | None = None
    target_crs: str | None = None
    level: str | None = None

    def __post_init__(self):
        """Refuses what is unknown."""
        for flag, value, known in (
            ("--resampling", self.resampling, RESAMPLINGS),
            ("--scene_units", self.units, (None, *UNITS)),
            ("--scene_level", self.level, (None, *LEVELS)),
        ):
            if value not in known:
                raise OptionError(flag, f"'{value}'", f"one of {', '.join(filter(None, known))}")
        if self.target_crs is not None:
            reference_systems.target(self.target_crs)


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
        source: what was opened.
        product: a Sentinel-2 product's identifier, else the file's name without its ending.
        level: `L1C`, `L2A`, or None where nothing says.
        date: day of the acquisition, or None where nothing says.
        bands: names, in order.
        layers: where each band is read from.
        grid: the grid that all bands are brought to: that of the finest one, unless another CRS was asked for.
        scl: where the scene classification is read from, or None.
        resampling: how bands of other grids are brought to it.
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


@dataclasses.dataclass(frozen=True)
class _Found:
    """What a source holds: all its bands by name, in stored order, and what it says of itself."""

    product: str
    level: str | None
    date: datetime.date | None
    layers: Mapping[str, Layer]
    scl: Layer | None


def open_scene(path: str | os.PathLike[str], options: SceneOptions | None = None) -> Scene:
    """Opens a scene.

    Args:
        path: a GeoTIFF, COG, VRT or JPEG 2000 file, a folder of such files whose names end in a band's, or a SAFE
            folder or zip.
        options: how.

    Raises:
        SourceError: if it cannot be read, has no place on the ground, or does not say what its numbers mean.
        BandError: if its bands cannot be told, or it lacks one that is wanted.
        OptionError: if an option does not fit it.
    """
    path, options = os.fspath(path), options or SceneOptions()
    if not os.path.exists(path):
        raise SourceError(path, "there is no such file or folder", "a scene", "check the path")
    if safe.is_product(path):
        found = _product(path, options)
    elif os.path.isdir(path):
        found = _folder(path, options)
    else:
        found = _file(path, options)
    bands = options.bands or tuple(found.layers)
    if missing := [name for name in bands if name not in found.layers]:
        raise _missing(path, missing, found)
    layers = tuple(found.layers[name] for name in bands)
    return Scene(
        source=path,
        product=found.product,
        level=found.level or options.level or ("L1C" if "B10" in found.layers else None),
        date=found.date,
        bands=bands,
        layers=layers,
        grid=raster_files.common_grid(path, [layer.path for layer in layers], options.target_crs),
        scl=found.scl,
        resampling=options.resampling,
    )


def _missing(path: str, missing: Sequence[str], found: _Found) -> BandError:
    remedy = "choose other bands, or a scene that holds them"
    if found.level == "L2A" and "B10" in missing:
        remedy = "choose bands without B10, which Level-2A products do not hold, or give the Level-1C product"
    return BandError(path, f"it does not hold {','.join(missing)}", f"bands out of {','.join(found.layers)}", remedy)


def _product(path: str, options: SceneOptions) -> _Found:
    if options.units is not None:
        raise OptionError("--scene_units", f"{path} says itself what its numbers mean", remedy="leave the flag out")
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
    return _Found(product.name, product.level, product.date, layers, scl)


def _folder(path: str, options: SceneOptions) -> _Found:
    layers: dict[str, Layer] = {}
    scl, name = None, pathlib.Path(path).name
    for file in sorted(pathlib.Path(path).iterdir()):
        match = _BAND_AT_END.search(file.stem)
        if file.suffix.lower() not in SUFFIXES or not match or is_litter(file.name):
            continue
        band = sentinel2.canonical_name(match[1])
        if band == safe.SCL:
            scl = Layer(os.fspath(file), 1)
            continue
        if band not in BANDS:
            continue
        if band in layers:
            raise SourceError(
                path, f"{pathlib.Path(layers[band].path).name} and {file.name} are both {band}", "one each"
            )
        if file.suffix.lower() == ".vrt":
            raster_files.check_vrt_in(path, os.fspath(file))
        with raster_files.open_dataset(os.fspath(file)) as dataset:
            layers[band] = _layer(dataset, os.fspath(file), 1, options)
        name = file.stem[: match.start()]
    if not layers:
        raise SourceError(
            path,
            "no file in it has a name that ends in a band's",
            "a SAFE folder, or files such as NAME_B04.tif",
            "name the scene's file itself",
        )
    ordered = {band: layers[band] for band in BANDS if band in layers}
    return _Found(name, _level_of(name), _date_of(name), ordered, scl)


def _file(path: str, options: SceneOptions) -> _Found:
    if not path.lower().endswith(SUFFIXES):
        raise SourceError(
            path, "this is no scene by its name", f"a SAFE folder or zip, or a file in {', '.join(SUFFIXES)}"
        )
    with raster_files.open_dataset(path) as dataset:
        names = _names(path, dataset, options.bands_in_file)
        layers = {
            name: _layer(dataset, path, index, options) for index, name in enumerate(names, start=1) if name in BANDS
        }
        scl = Layer(path, names.index(safe.SCL) + 1) if safe.SCL in names else None
    stem = pathlib.Path(path).stem
    return _Found(stem, _level_of(stem), _date_of(stem), layers, scl)


def _level_of(name: str) -> str | None:
    return next((level for level in LEVELS if f"MSI{level}" in name.upper() or f"MSI_{level}" in name.upper()), None)


def _date_of(name: str) -> datetime.date | None:
    with contextlib.suppress(ValueError):
        if match := _DATE.search(name):
            return datetime.date(*map(int, match.groups()))
    return None


def _names(path: str, dataset: Any, bands_in_file: tuple[str, ...] | None) -> list[str]:
    """Returns the bands' names in stored order; other layers than Sentinel-2's bands may be among those of a file."""
    if bands_in_file is not None:
        if len(bands_in_file) != dataset.count:
            raise BandError(
                path,
                f"{dataset.count} bands",
                f"{len(bands_in_file)}, as --bands_in_file names",
                "name every band once",
            )
        return list(bands_in_file)
    found = [sentinel2.canonical_name(description or "") for description in dataset.descriptions]
    known = [name for name in found if name in BANDS]
    if known and len(set(known)) == len(known):
        return found
    if dataset.count == len(sentinel2.EUROSAT_ORDER):
        remedy = "say --bands_in_file=EUROSAT if they lie in EuroSAT's order, B8A last, or name them all"
    else:
        remedy = "say the stored order, such as --bands_in_file=B02,B03,B04,B08"
    raise BandError(path, f"{dataset.count} bands without names of Sentinel-2's", "each band's name once", remedy)


def parse_bands_in_file(text: str) -> tuple[str, ...]:
    """Turns the value of `--bands_in_file` into names: a list, or `EUROSAT`; names of other layers are kept.

    Raises:
        BandError: if no name is that of a band, or one is given twice.
    """
    if text.strip().upper() == "EUROSAT":
        return sentinel2.EUROSAT_ORDER
    names = tuple(sentinel2.canonical_name(part) for part in text.split(","))
    known = [name for name in names if name in BANDS]
    if not known or len(set(known)) != len(known):
        raise BandError("--bands_in_file", f"'{text}'", f"names out of {','.join(BANDS)}, each once, in stored order")
    return names


def _layer(dataset: Any, path: str, index: int, options: SceneOptions) -> Layer:
    dtype, nodata = dataset.dtypes[index - 1], dataset.nodatavals[index - 1]
    if dtype not in ("uint16", "int16", "float32", "float64", "uint32", "int32"):
        raise SourceError(
            path,
            f"numbers of type {dtype}",
            "digital numbers of 16 bits, or reflectance in floating point",
            "give the product or an export that keeps its numbers; a picture for the screen does not",
        )
    scale, offset = dataset.scales[index - 1], dataset.offsets[index - 1]
    if scale != 1.0:
        # The file says how to make reflectance of its numbers.
        scale, offset = scale * QUANTIFICATION, offset * QUANTIFICATION
    elif dtype.startswith("float"):
        if options.units is None:
            raise SourceError(
                path,
                f"numbers of type {dtype}, which may be reflectance or digital numbers",
                "to be told which",
                "say --scene_units=reflectance or --scene_units=dn",
            )
        _check_units(dataset, path, index, options.units)
        scale = float(QUANTIFICATION) if options.units == "reflectance" else 1.0
    elif options.units == "reflectance":
        raise OptionError(
            "--scene_units=reflectance", f"{path} holds whole numbers ({dtype})", remedy="leave the flag out"
        )
    # 0 is no data everywhere in Sentinel-2; a file may name another number as well.
    values = (0.0,) if nodata is None or math.isnan(nodata) else tuple(sorted({0.0, float(nodata)}))
    return Layer(path, index, scale, offset, values, 65535.0 if dtype == "uint16" and 65535.0 not in values else None)


def _check_units(dataset: Any, path: str, index: int, units: str) -> None:
    """Compares the numbers' range with what they are said to be."""
    shape = (min(dataset.height, 256), min(dataset.width, 256))
    sample = dataset.read(index, out_shape=shape).astype(np.float64)
    sample = sample[np.isfinite(sample) & (sample != 0)]
    if sample.size and (float(np.median(sample)) > _REFLECTANCE_MEDIAN) == (units == "reflectance"):
        other = UNITS[1 - UNITS.index(units)]
        raise SourceError(
            path,
            f"half of the numbers of band {index} lie above {np.median(sample):.4g}, so they are no {_meaning(units)}",
            f"{_meaning(units)}, as --scene_units={units} says",
            f"say --scene_units={other}",
        )


def _meaning(units: str) -> str:
    return "reflectance" if units == "reflectance" else "digital numbers"
