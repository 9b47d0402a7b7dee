"""Image files decoded and checked: JPEGs by libjpeg-turbo (simplejpeg), GeoTIFFs by tifffile or GDAL.

GDAL takes about a millisecond to open a small GeoTIFF, most of it for the coordinate reference system; tifffile reads
a plain one in a fifth of that. What plain means is told in `_read_plain`; everything else is left to GDAL.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import math
import warnings

import numpy as np

from eo_keras import rasters
from eo_keras.errors import EOKerasError, SourceError

GDAL_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_CACHEMAX": 64, "GDAL_PAM_ENABLED": False}
"""GDAL looks for no files beside an image, and keeps at most 64 MB of blocks (its default is 5 % of the memory)."""


@dataclasses.dataclass(frozen=True)
class GeoImage:
    """A GeoTIFF as read.

    Attributes:
        pixels: numbers (height, width, bands), as stored.
        crs: `EPSG:n` or WKT; None where the file has none.
        transform: affine transform (a, b, c, d, e, f) from pixel (column, row) to CRS; None where the file has none.
        band_names: the bands' descriptions, empty where there are none.
    """

    pixels: np.ndarray
    crs: str | None
    transform: tuple[float, ...] | None
    band_names: tuple[str, ...]


def decode_jpeg(data: bytes, where: str, size: int) -> np.ndarray:
    """Decodes an RGB JPEG strictly: what the decoder could only guess at is refused.

    Args:
        data: the file.
        where: its name, for errors.
        size: height and width that it must have.

    Returns:
        uint8 (size, size, 3), by the accurate integer transform, the same as Pillow's and TensorFlow's.

    Raises:
        SourceError: if it is damaged or no RGB JPEG of that size.
    """
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        if (height, width) != (size, size) or colours not in ("YCbCr", "RGB"):
            raise SourceError(
                where,
                f"a JPEG of {width}x{height} pixels, colours {colours}",
                f"{size}x{size} pixels, RGB",
                "remove it or give the published archive",
            )
        return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except (ValueError, RuntimeError) as error:
        raise SourceError(
            where, f"it cannot be decoded ({error})", "a whole JPEG image", "copy or download the source again"
        ) from None


def decode_geotiff(
    data: bytes, where: str, shape: tuple[int, int, int], dtype: str, *, placed: bool = True
) -> GeoImage:
    """Decodes a GeoTIFF.

    Args:
        data: the file.
        where: its name, for errors.
        shape: height, width and number of bands that it must have.
        dtype: type that its numbers must have.
        placed: whether its CRS and transform are wanted; without, they may be None.

    Raises:
        SourceError: if it is damaged or of another shape or type.
    """
    if not data:
        raise SourceError(where, "it cannot be read (the file is empty)", "a whole GeoTIFF", "copy the source again")
    plain = _read_plain(data, shape, dtype, placed)
    return plain if plain is not None else _read_with_gdal(data, where, shape, dtype)


@functools.cache
def _tifffile():
    import tifffile

    # It would print what it finds strange; such files are GDAL's to judge.
    log = logging.getLogger("tifffile")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    return tifffile


def _read_plain(data: bytes, shape: tuple[int, int, int], dtype: str, placed: bool) -> GeoImage | None:
    """Reads a GeoTIFF of the simplest form, or returns None for GDAL to read or refuse it.

    The simplest form is one uncompressed image of the wanted shape and type, little-endian, pixel by pixel, placed by
    one tie point and a pixel scale, with a CRS of an EPSG code, and without names, scales or offsets of bands.
    """
    tifffile = _tifffile()
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page, tags = tiff.pages.first, tiff.pages.first.tags
            plain = (
                tiff.byteorder == "<"
                and len(tiff.pages) == 1
                and page.shape == shape
                and page.dtype == np.dtype(dtype)
                and (page.compression, page.predictor, page.planarconfig) == (1, 1, 1)
                and page.is_contiguous
                and page.photometric in (1, 2)
                and "role=" not in str(tags.valueof("GDAL_METADATA", ""))
                and "ModelTransformationTag" not in tags
            )
            if not plain:
                return None
            # The numbers lie in the file as they are wanted: nothing is copied.
            stored = np.dtype(dtype).newbyteorder("<")
            pixels = np.frombuffer(data, stored, math.prod(shape), page.dataoffsets[0]).reshape(shape)
            if not placed:
                return GeoImage(pixels, None, None, ())
            keys = page.geotiff_tags
            code = int(keys["ProjectedCSTypeGeoKey"])
            (step_x, step_y, _), tie = keys["ModelPixelScale"], keys["ModelTiepoint"]
            if int(keys["GTRasterTypeGeoKey"]) != 1 or len(tie) != 6 or any(tie[:3]) or not _is_epsg(code):
                return None
    except Exception:  # A damaged file makes it raise anything; GDAL says what is wrong with it.
        return None
    transform = (step_x, 0.0, tie[3], 0.0, -step_y, tie[4])
    return GeoImage(pixels, f"EPSG:{code}", transform, ())


@functools.cache
def _is_epsg(code: int) -> bool:
    """Tells whether a number is that of a projected CRS; 32767 stands for one that the file defines itself."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return code < 32767 and CRS.from_epsg(code).is_projected
    except CRSError:
        return False


def _read_with_gdal(data: bytes, where: str, shape: tuple[int, int, int], dtype: str) -> GeoImage:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    try:
        with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS), rasterio.io.MemoryFile(data) as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            # One driver only: others would follow paths that a file names.
            with memory.open(driver="GTiff") as dataset:
                _check_form(dataset, where, shape, dtype)
                pixels = np.ascontiguousarray(dataset.read().transpose(1, 2, 0))
                crs = rasters.crs_name(dataset.crs.to_wkt()) if dataset.crs else None
                transform = None if dataset.transform.is_identity else tuple(dataset.transform)[:6]
                names = tuple(description for description in dataset.descriptions if description)
    except EOKerasError:
        raise
    except Exception as error:  # The decoder raises whatever the damaged part brought about.
        raise SourceError(
            where,
            f"it cannot be read ({error.__cause__ or error})",  # rasterio tells what happened in the cause only.
            "a whole GeoTIFF",
            "copy or download the source again",
        ) from None
    return GeoImage(pixels, crs, transform, names)


def _check_form(dataset, where: str, shape: tuple[int, int, int], dtype: str) -> None:
    def refuse(found: str, expected: str):
        raise SourceError(where, found, expected, "remove it or give the published archive")

    height, width, bands = shape
    if dataset.count != bands:
        refuse(f"a GeoTIFF of {dataset.count} bands", f"{bands} bands")
    if (dataset.height, dataset.width) != (height, width):
        refuse(f"a GeoTIFF of {dataset.width}x{dataset.height} pixels", f"{width}x{height} pixels")
    if (types := set(dataset.dtypes)) != {dtype}:
        refuse(f"numbers of type {', '.join(sorted(types))}", f"{dtype} digital numbers")
