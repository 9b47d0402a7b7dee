"""Class maps: rasters of class labels with their legend, read window by window.

Maps of this program hold their legend in the tag `LEGEND`. Other class maps are read too: rasters of whole numbers with
GDAL's category names or a color table. Labels are indices of the legend either way, whatever numbers the file stores.

The first band of a map of this program holds the classes, and no other band is in its file, since a TIFF has one color
table and one value for no data: further bands (confidence, entropy, number of looks, probabilities) lie in a second
file beside it, called `NAME_bands.tif` for `NAME.tif`. They are read as bands of the map.
"""

from __future__ import annotations

import colorsys
import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from eo_keras.core import serialization
from eo_keras.errors import SourceError
from eo_keras.geo import raster_files
from eo_keras.geo.grid import Grid
from eo_keras.legends.catalogue import IGNORE, Legend, LegendClass

CLASS = "class"
"""Name of the band of classes."""

LEGEND_TAG = "LEGEND"
"""Tag of a map's legend, as JSON."""

_EXPECTED = "a map of this program, or a raster of whole numbers with category names or a color table"
_REMEDY = (
    "give the numbers names: save the layer by a program that writes category names (GDAL's .aux.xml) or a color table"
)
_MOST_CLASSES = IGNORE


def bands_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of the file that holds a map's further bands."""
    path = pathlib.Path(path)
    return path.with_name(f"{path.stem}_bands.tif")


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """Open class map; `open_class_map` makes it. Not to be used by two threads at once.

    Attributes:
        path: the file.
        grid: its pixel grid.
        legend: the classes; a label is the index of its class.
        codes: int64 (classes,), the number that the file stores for each label.
        nodata: label of pixels without a class.
        band_names: names of the bands that `read` knows; the first one is `class`.
        tags: text by name, of the whole file.
    """

    path: str
    grid: Grid
    legend: Legend
    codes: np.ndarray
    nodata: int
    band_names: tuple[str, ...]
    tags: Mapping[str, str]
    _nameless: np.ndarray = dataclasses.field(repr=False)
    _places: Mapping[str, tuple[Any, int]] = dataclasses.field(repr=False)

    def read(self, row: int, column: int, height: int, width: int, band: str = CLASS) -> np.ndarray:
        """Reads a window, which must lie in the grid.

        Args:
            row: its first row.
            column: its first column.
            height: number of rows.
            width: number of columns.
            band: name of the band.

        Returns:
            (height, width): of the band of classes, labels as uint8, `nodata` where there is none; of another band, its
            stored numbers.

        Raises:
            SourceError: if the map has no such band, the file is damaged, or it stores a number without a name.
        """
        return self._read(band, ((row, row + height), (column, column + width)), None)

    def read_small(self, longest: int, band: str = CLASS) -> np.ndarray:
        """Reads a whole band with at most `longest` pixels on its longer side, from overviews where there are some.

        Returns:
            (rows, columns) as `read`: of labels the most frequent one, of other bands the mean.
        """
        scale = min(1.0, longest / max(self.grid.height, self.grid.width))
        shape = tuple(max(1, round(side * scale)) for side in (self.grid.height, self.grid.width))
        return self._read(band, ((0, self.grid.height), (0, self.grid.width)), shape)

    def row_bands(self, rows: int = 512) -> Iterator[tuple[int, int]]:
        """Yields the first row and the number of rows of each of the bands of rows that cover the map."""
        for row in range(0, self.grid.height, rows):
            yield row, min(rows, self.grid.height - row)

    def _read(self, band: str, window: tuple[tuple[int, int], ...], shape: tuple[int, ...] | None) -> np.ndarray:
        from rasterio.enums import MaskFlags, Resampling

        if band not in self._places:
            raise SourceError(self.path, f"it has no band '{band}'", f"one of {', '.join(self.band_names)}")
        dataset, number = self._places[band]
        if band != CLASS:
            return dataset.read(number, window=window, out_shape=shape, resampling=Resampling.average)
        stored = dataset.read(number, window=window, out_shape=shape, resampling=Resampling.mode)
        valid = np.ones(stored.shape, bool) if dataset.nodata is None else stored != dataset.nodata
        if not {MaskFlags.nodata, MaskFlags.all_valid} & set(dataset.mask_flag_enums[number - 1]):
            valid &= dataset.read_masks(number, window=window, out_shape=shape, resampling=Resampling.nearest) > 0
        return self._labels(stored, valid)

    def _labels(self, stored: np.ndarray, valid: np.ndarray) -> np.ndarray:
        valid &= ~np.isin(stored, self._nameless)
        places = np.minimum(np.searchsorted(self.codes, stored), len(self.codes) - 1)
        known = self.codes[places] == stored
        if (unknown := valid & ~known).any():
            raise SourceError(
                self.path,
                f"it stores the number {stored[unknown][0]}, which has no name and no color",
                "numbers of its legend",
                _REMEDY,
            )
        return np.where(valid, places, self.nodata).astype(np.uint8)


@contextlib.contextmanager
def open_class_map(path: str | os.PathLike[str]) -> Iterator[ClassMap]:
    """Opens a class map; a context manager.

    Args:
        path: a GeoTIFF, COG or VRT.

    Yields:
        The map.

    Raises:
        SourceError: if it cannot be opened, has no place on the ground, or its numbers have no names and no colors.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise SourceError(path, "there is no such file", _EXPECTED, "check the path")
    grid = raster_files.common_grid(path, [path])
    with contextlib.ExitStack() as stack:
        dataset = stack.enter_context(raster_files.open_dataset(path))
        if dataset.dtypes[0] not in ("uint8", "int8", "uint16", "int16", "uint32", "int32"):
            raise SourceError(path, f"its numbers are of the type {dataset.dtypes[0]}", _EXPECTED, _REMEDY)
        tags = dataset.tags()
        if LEGEND_TAG in tags:
            legend, nameless = _stored_legend(path, tags[LEGEND_TAG]), np.zeros(0, np.int64)
            codes = np.arange(len(legend))
        else:
            legend, codes, nameless = _foreign_legend(path, dataset)
        places = {CLASS: (dataset, 1)}
        places |= {name or f"band {k}": (dataset, k) for k, name in enumerate(dataset.descriptions, 1) if k > 1}
        beside = bands_path(path)
        if LEGEND_TAG in tags and beside.is_file():
            further = stack.enter_context(raster_files.open_dataset(os.fspath(beside)))
            # Bands of a former map under the same name are not those of this one.
            if further.tags() != tags or raster_files.common_grid(path, [os.fspath(beside)]) != grid:
                raise SourceError(
                    beside, "it is of another map than the one beside it", remedy="move it away, or map the scene again"
                )
            places |= {name or f"band {k}": (further, k) for k, name in enumerate(further.descriptions, 1)}
        yield ClassMap(path, grid, legend, codes, IGNORE, tuple(places), tags, nameless, places)


def _stored_legend(path: str, text: str) -> Legend:
    try:
        legend = serialization.from_json(Legend, json.loads(text))
        if not 0 < len(legend) <= _MOST_CLASSES:
            raise ValueError(f"it has {len(legend)} classes")
    except (ValueError, RecursionError) as error:
        raise SourceError(
            path, f"its tag {LEGEND_TAG} cannot be read ({error})", "a legend as JSON", "map the scene again"
        ) from None
    return legend


def _foreign_legend(path: str, dataset: Any) -> tuple[Legend, np.ndarray, np.ndarray]:
    """Returns the legend of another program's map, the number stored for each class, and numbers of no class."""
    names, colours = _category_names(dataset), _colour_table(dataset)
    nodata = dataset.nodata
    if dataset.count != 1 or not (any(names) or colours):
        what = f"it has {dataset.count} bands" if dataset.count != 1 else "its numbers have no names and no colors"
        raise SourceError(path, what, _EXPECTED, _REMEDY)
    codes = [k for k, name in enumerate(names) if name] if any(names) else sorted(colours)
    codes = [code for code in codes if code != nodata]
    if not 0 < len(codes) <= _MOST_CLASSES:
        raise SourceError(path, f"it has {len(codes)} classes", f"{_MOST_CLASSES} at most, and at least one")
    nameless = np.array([k for k, name in enumerate(names) if not name], np.int64)
    classes = [
        LegendClass(names[code] if any(names) else f"class {code}", colours.get(code) or _made_up_colour(place))
        for place, code in enumerate(codes)
    ]
    return Legend(pathlib.PurePath(path).stem, tuple(classes)), np.array(codes, np.int64), nameless


def _category_names(dataset: Any) -> list[str]:
    """Returns GDAL's category names, which rasterio does not read: they are taken from a VRT of the file."""
    import rasterio.shutil
    from defusedxml import ElementTree
    from rasterio.io import MemoryFile

    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(dataset, memory.name, driver="VRT")
        memory.seek(0)
        root = ElementTree.fromstring(memory.read())
    return [(item.text or "").strip() for item in root.iterfind("VRTRasterBand[@band='1']/CategoryNames/Category")]


def _colour_table(dataset: Any) -> dict[int, str]:
    """Returns the colors by number; a palette fills the numbers that have none with black, which is no color here."""
    try:
        table = dataset.colormap(1)
    except ValueError:  # There is none.
        return {}
    return {code: "#{:02x}{:02x}{:02x}".format(*rgba[:3]) for code, rgba in table.items() if any(rgba[:3])}


def _made_up_colour(place: int) -> str:
    """Returns a color for the class of this place; steps of the golden ratio around the circle of hues stay apart."""
    rgb = colorsys.hsv_to_rgb(
        place * (math.sqrt(5) - 1) / 2 % 1, 0.55 + 0.2 * (place % 2), 0.9 - 0.25 * (place % 3) / 2
    )
    return "#{:02x}{:02x}{:02x}".format(*(round(255 * part) for part in rgb))
