"""Windows of GeoTIFFs and PNGs in an archive.

A GeoTIFF is read by GDAL; one in a folder where it lies, strip by strip, however large it is. A PNG is read whole, by
Pillow, since GDAL takes the missing end of a PNG for zeros.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import pathlib
import struct
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import rasterio
import rasterio.io
import rasterio.windows
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from eo_keras.errors import EOKerasError, SourceError
from eo_keras.geo import images
from eo_keras.geo.grid import Grid, size_and_place
from tfrecords_builder.sources import image_decoding
from tfrecords_builder.sources.archive import Archive

SUFFIXES = (".tif", ".tiff", ".png")

_OPEN = 4
"""Number of images that stay open: an image, its mask and its heights."""

_MOST_PIXELS = 2**26
"""Largest PNG, which is read whole: more than Inria's 5000 x 5000."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What an image says of itself.

    Attributes:
        height: number of rows.
        width: number of columns.
        bands: number of bands.
        dtype: type of the numbers.
        crs: `EPSG:n` or WKT; None where it has no place on the ground.
        transform: affine transform (a, b, c, d, e, f) from pixel (column, row) to CRS; None where it has no place.
    """

    height: int
    width: int
    bands: int
    dtype: str
    crs: str | None
    transform: tuple[float, ...] | None

    @property
    def grid(self) -> Grid | None:
        """Its grid; None where it has no place on the ground."""
        return None if self.crs is None else Grid(self.crs, self.transform, self.height, self.width)

    def lies_on(self, other: Header) -> bool:
        """Returns whether both have one grid; where one has no place, whether they are of one size."""
        if (self.height, self.width) != (other.height, other.width):
            return False
        return self.crs is None or other.crs is None or self.grid.covers_as(other.grid)

    def __str__(self) -> str:
        return size_and_place(self.height, self.width, self.grid)


def read_header(archive: Archive, member: str) -> Header:
    """Reads the header of an image.

    Raises:
        SourceError: if it cannot be read, or its numbers are of several types.
    """
    if _is_png(member):
        return _png_header(_data(archive, member), f"{archive.path}: {member}")
    with _reading(archive, member) as dataset:
        if len(types := set(dataset.dtypes)) != 1:
            raise SourceError(
                f"{archive.path}: {member}", f"bands of the types {', '.join(sorted(types))}", "one type", "write it so"
            )
        placed = dataset.crs is not None and not dataset.transform.is_identity
        return Header(
            dataset.height,
            dataset.width,
            dataset.count,
            dataset.dtypes[0],
            images.crs_name(dataset.crs.to_wkt()) if placed else None,
            tuple(dataset.transform)[:6] if placed else None,
        )


def read_window(archive: Archive, member: str, row: int, column: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads a square of an image, which may reach beyond the image's lower and right edges.

    Args:
        archive: the archive.
        member: the image.
        row: first row.
        column: first column.
        size: height and width.

    Returns:
        Numbers (size, size, bands), 0 beyond the edges, and bool (size, size): what lies inside and is not marked as
        no data in the file.

    Raises:
        SourceError: if it is damaged, or has been replaced by a smaller one.
    """
    if _is_png(member):
        inside = _picture(archive, member)[row : row + size, column : column + size]
        valid = np.ones(inside.shape[:2], bool)
    else:
        with _reading(archive, member) as dataset:
            height, width = (max(0, min(size, n)) for n in (dataset.height - row, dataset.width - column))
            window = rasterio.windows.Window(column, row, width, height)
            image_decoding.check_blocks(dataset, f"{archive.path}: {member}", (row, column, height, width))
            inside = dataset.read(window=window).transpose(1, 2, 0)
            valid = dataset.dataset_mask(window=window) != 0
    height, width, bands = inside.shape
    pixels, known = np.zeros((size, size, bands), inside.dtype), np.zeros((size, size), bool)
    pixels[:height, :width], known[:height, :width] = inside, valid
    return pixels, known


def _is_png(member: str) -> bool:
    return member.lower().endswith(".png")


def _png_header(data: bytes, where: str) -> Header:
    """Returns the header of a PNG by its first chunk (PNG specification, 11.2.2 IHDR)."""
    if not data.startswith(_PNG_START) or len(data) < _PNG_START_BYTES:
        raise SourceError(where, "it is no PNG by its first bytes", "a whole PNG", "copy the source again")
    width, height, depth, colours = struct.unpack_from(">IIBB", data, len(_PNG_START))
    if colours not in _PNG_BANDS or (depth == 16 and colours):
        raise SourceError(where, f"a PNG of {depth} bits and color type {colours}", _PNG_FORMS, "write it as GeoTIFF")
    return Header(height, width, _PNG_BANDS[colours], "uint16" if depth == 16 else "uint8", None, None)


_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_START_BYTES = len(_PNG_START) + 10
_PNG_BANDS = {0: 1, 2: 3, 3: 1, 6: 4}
"""Number of bands by color type; of a palette its numbers are taken, as of a mask of classes."""

_PNG_FORMS = "gray of 8 or 16 bits, a palette, RGB or RGBA of 8 bits"


def _data(archive: Archive, member: str) -> bytes:
    """Returns a file's bytes; those of a local folder may be larger than an archive's members."""
    path = archive.local_path(member)
    if path is None:
        return archive.read(member)
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise SourceError(path, f"it cannot be read ({error.strerror})", "a source at rest", "build again") from None


@functools.lru_cache(maxsize=_OPEN)
def _picture(archive: Archive, member: str) -> np.ndarray:
    """Decodes a PNG to numbers (height, width, bands)."""
    where = f"{archive.path}: {member}"
    data = _data(archive, member)
    header = _png_header(data, where)
    if header.height * header.width > _MOST_PIXELS:
        raise SourceError(where, f"a PNG of {header}", f"at most {_MOST_PIXELS:,} pixels", "write it as GeoTIFF")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            pixels = np.array(image.convert("L") if image.mode == "1" else image, header.dtype)
    except Exception as error:  # The decoder raises exceptions of any kind.
        raise SourceError(
            where, f"it cannot be read ({error})", "a whole PNG", "copy or download the source again"
        ) from None
    return pixels.reshape(header.height, header.width, header.bands)


@contextlib.contextmanager
def _reading(archive: Archive, member: str) -> Iterator[Any]:
    """Opens a GeoTIFF, unless it is open; a context manager."""
    where = f"{archive.path}: {member}"
    try:
        with warnings.catch_warnings(), rasterio.Env(**image_decoding.GDAL_OPTIONS):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield _opened(archive, member)[-1]
    except EOKerasError:
        raise
    except Exception as error:  # The decoder raises exceptions of any kind.
        _opened.cache_clear()
        raise image_decoding.unreadable(where, error) from None


@functools.lru_cache(maxsize=_OPEN)
def _opened(archive: Archive, member: str) -> tuple[Any, ...]:
    """Returns the open image last, after what it is read from; every build opens its archive again."""
    # One driver only: others would follow paths that a file names.
    path = archive.local_path(member)
    if path is not None:
        return (rasterio.open(path, driver="GTiff"),)
    memory = rasterio.io.MemoryFile(archive.read(member))
    return memory, memory.open(driver="GTiff")
