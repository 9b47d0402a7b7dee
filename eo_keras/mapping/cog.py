"""Cloud-Optimized GeoTIFFs of class maps, assembled from pieces by GDAL's COG driver.

A map becomes these files:

* `NAME.tif`: one band of classes, no data 255, with the legend's colors as color table, overviews by the most frequent
  class, and the legend, the model and the data in the tags.
* `NAME.tif.aux.xml`: the names of the classes as GDAL's category names. A TIFF has no place for them; GDAL, QGIS and
  everything built on GDAL read them from there. This program reads the tag `LEGEND` and does not need the file.
* `NAME.qml`: a style for QGIS, which would list all 256 entries of the color table otherwise.
* `NAME_bands.tif`: further bands, if there are any, with an internal mask for no data and overviews by the mean. They
  are in a file of their own because a color table needs a TIFF of one band, QGIS and ArcGIS draw a file of several
  bands as red, green and blue, the COG driver makes the overviews of all bands by one rule, and a TIFF has one value
  for no data: 255 would be a confidence of 1.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.sax import saxutils

import numpy as np

from eo_keras.core import files, serialization
from eo_keras.errors import StorageError
from eo_keras.geo.class_map import CLASS, LEGEND_TAG, bands_path
from eo_keras.geo.grid import Grid
from eo_keras.legends.catalogue import IGNORE, Legend
from eo_keras.mapping import qgis_style

STAGE = "writing the map"
"""Stage that `progress` is called with."""

_CACHE_MB = 64
_OPTIONS = {"driver": "COG", "compress": "DEFLATE", "bigtiff": "IF_SAFER", "blocksize": 512, "num_threads": "ALL_CPUS"}
# Of class maps, the default of 6 saves 7 % of the space and takes half as long again.
_OPTIONS |= {"level": 5}
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot hold."""

_Place = tuple[int, int, int, int]
"""First row, first column, height and width of a piece in the map."""


def bytes_needed(grid: Grid, bands: int) -> int:
    """Returns the disk space that writing a map may take at most, beside its pieces.

    Args:
        grid: the map's grid.
        bands: number of bands, the one of classes included.

    Returns:
        Bytes: the map with its overviews, and the overviews once more while they are made, if nothing could be
        compressed. Real maps take a small part of it.
    """
    pixels = grid.height * grid.width
    # Overviews add a third; a mask of one bit a pixel lies beside the further bands.
    further = bands - 1 + 1 / 8 if bands > 1 else 0
    return int((1 + further) * pixels * 5 / 3) + 2**20


def write_cog(
    strips: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    grid: Grid,
    legend: Legend,
    band_names: Sequence[str],
    tags: Mapping[str, str],
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[pathlib.Path, ...]:
    """Assembles a map from pieces; see the module for the files that it writes.

    Memory does not depend on the map's size.

    Args:
        strips: GeoTIFFs on pixels of `grid`, of any size, each with all bands in uint8. Where there is none, there is
            no data.
        path: the map, ending in `.tif`. Its files are replaced, each whole, the map itself last.
        grid: the map's grid.
        legend: its classes; band 1 holds their indices, and 255 for no data.
        band_names: names of the bands, `class` first.
        tags: text by name, for all files.
        progress: called with (stage, done, total) files.

    Returns:
        The files written.

    Raises:
        StorageError: if the disk is full or the folder may not be written to.
        ValueError: if a piece does not fit.
    """
    if band_names[0] != CLASS:
        raise ValueError(f"the first band is {band_names[0]}, not {CLASS}")
    path = pathlib.Path(path)
    pieces = [(os.path.abspath(strip), _place(strip, grid, len(band_names))) for strip in strips]
    tags = {**tags, LEGEND_TAG: json.dumps(serialization.to_json(legend), ensure_ascii=False)}
    names = [one.name for one in reversed(paths(path, band_names))]
    with (
        files.storage_errors(path),
        tempfile.TemporaryDirectory(prefix=files.TEMPORARY_PREFIX, dir=path.parent) as folder,
    ):
        unfinished = pathlib.Path(folder)
        if len(band_names) > 1:
            further = [_band(number, name, pieces) for number, name in enumerate(band_names[1:], 2)]
            _copy(_vrt(grid, tags, [*further, _mask(pieces)]), unfinished / names[0], "AVERAGE")
            _report(progress, 1, 2)
        _copy(_vrt(grid, tags, [_class_band(legend, pieces)]), unfinished / path.name, "MODE")
        files.write_text(unfinished / path.with_suffix(".qml").name, qgis_style.paletted(legend))
        _report(progress, len(names) - 2, len(names) - 2)
        for name in names:
            with open(unfinished / name, "rb") as file:
                os.fsync(file.fileno())
            os.replace(unfinished / name, path.with_name(name))
    return paths(path, band_names)


def paths(path: str | os.PathLike[str], band_names: Sequence[str]) -> tuple[pathlib.Path, ...]:
    """Returns the files of a map of these bands, the map itself first."""
    path = pathlib.Path(path)
    further = (bands_path(path),) if len(band_names) > 1 else ()
    return (path, path.with_name(path.name + ".aux.xml"), path.with_suffix(".qml"), *further)


def _report(progress: Callable[[str, int, int], None] | None, done: int, total: int) -> None:
    if progress:
        progress(STAGE, done, total)


def _place(strip: str | os.PathLike[str], grid: Grid, bands: int) -> _Place:
    import rasterio

    with rasterio.open(strip, driver="GTiff") as dataset:
        transform, height, width = tuple(dataset.transform)[:6], dataset.height, dataset.width
        if dataset.count != bands or set(dataset.dtypes) != {"uint8"}:
            raise ValueError(f"{strip} has bands {dataset.dtypes}, not {bands} of uint8")
    column, row = grid.pixel(transform[2], transform[5])
    place = (round(row), round(column), height, width)
    expected = grid.window(*place).transform
    # A thousandth of a pixel: coordinates are not exact.
    if max(abs(a - b) for a, b in zip(transform, expected, strict=True)) > 1e-3 * grid.pixel_size:
        raise ValueError(f"{strip} does not lie on the map's pixels: {transform}, not {expected}")
    if place[0] < 0 or place[1] < 0 or place[0] + height > grid.height or place[1] + width > grid.width:
        raise ValueError(f"{strip} reaches beyond the map: {place}")
    return place


def _vrt(grid: Grid, tags: Mapping[str, str], bands: Sequence[str]) -> bytes:
    a, b, c, d, e, f = grid.transform
    metadata = "".join(
        f"<MDI key={saxutils.quoteattr(_writable(key))}>{_text(value)}</MDI>" for key, value in tags.items()
    )
    text = (
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}"><SRS>{_text(grid.crs)}</SRS>'
        f"<GeoTransform>{c!r}, {a!r}, {b!r}, {f!r}, {d!r}, {e!r}</GeoTransform>"
        f"<Metadata>{metadata}</Metadata>{''.join(bands)}</VRTDataset>"
    )
    return text.encode("utf-8")


def _class_band(legend: Legend, pieces: Sequence[tuple[str, _Place]]) -> str:
    entries = "".join(f'<Entry c1="{red}" c2="{green}" c3="{blue}" c4="255"/>' for red, green, blue in legend.rgb)
    names = "".join(f"<Category>{_text(name)}</Category>" for name in legend.class_names)
    about = (
        f"<NoDataValue>{IGNORE}</NoDataValue><ColorInterp>Palette</ColorInterp><ColorTable>{entries}</ColorTable>"
        f"<CategoryNames>{names}</CategoryNames>"
    )
    return _band(1, CLASS, pieces, about)


def _band(number: int, name: str, pieces: Sequence[tuple[str, _Place]], about: str = "") -> str:
    sources = "".join(
        f"<SimpleSource>{_source(file, place)}<SourceBand>{number}</SourceBand></SimpleSource>"
        for file, place in pieces
    )
    return f'<VRTRasterBand dataType="Byte"><Description>{_text(name)}</Description>{about}{sources}</VRTRasterBand>'


def _mask(pieces: Sequence[tuple[str, _Place]]) -> str:
    """Returns the mask of all bands: 255 where there is a class, else 0, as where there is no piece."""
    table = f"<LUT>0:255,{IGNORE - 1}:255,{IGNORE}:0</LUT>"
    sources = "".join(
        f"<ComplexSource>{_source(file, place)}<SourceBand>1</SourceBand>{table}</ComplexSource>"
        for file, place in pieces
    )
    return f'<MaskBand><VRTRasterBand dataType="Byte">{sources}</VRTRasterBand></MaskBand>'


def _source(file: str, place: _Place) -> str:
    row, column, height, width = place
    size = f'xSize="{width}" ySize="{height}"'
    # With these properties, GDAL opens a piece only when it reads from it.
    return (
        f'<SourceFilename relativeToVRT="0">{_text(file)}</SourceFilename>'
        f'<SourceProperties RasterXSize="{width}" RasterYSize="{height}" DataType="Byte"/>'
        f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{column}" yOff="{row}" {size}/>'
    )


def _text(text: str) -> str:
    return saxutils.escape(_writable(text))


def _writable(text: str) -> str:
    return _UNWRITABLE.sub("?", text)


def _equal(one: Any, other: Any) -> bool:
    """Returns whether two open files of one size hold the same numbers."""
    from rasterio.windows import Window

    step = int(_OPTIONS["blocksize"])
    windows = (Window(0, row, one.width, min(step, one.height - row)) for row in range(0, one.height, step))
    return all(
        np.array_equal(one.read(band, window=window), other.read(band, window=window))
        for window in windows
        for band in one.indexes
    )


def _copy(vrt: bytes, path: pathlib.Path, resampling: str) -> None:
    import rasterio
    import rasterio.shutil
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError
    from rasterio.io import MemoryFile

    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB << 20), MemoryFile(vrt, ext=".vrt") as memory:
        try:
            rasterio.shutil.copy(memory.name, path, overview_resampling=resampling, **_OPTIONS)
            with memory.open() as source, rasterio.open(path) as written:
                # On a full disk, GDAL can end without an error.
                problem = "" if _equal(source, written) else "not all of it reached the disk"
        except (RasterioError, CPLE_BaseError, SystemError) as error:  # Without a message it is a SystemError.
            problem = str(error.__cause__ or error)
    if problem:
        raise StorageError(
            path.name,
            f"it cannot be written ({problem})",
            remedy="free some space or choose another folder, then run the same command again",
        )
