"""Image files decoded and checked: JPEGs by libjpeg-turbo (simplejpeg), PNGs by Pillow, GeoTIFFs by GDAL.

GDAL takes about a millisecond to open a small GeoTIFF, most of it for the coordinate reference system. The files of one
data set have few headers, however, which differ in nothing but the place: a header that GDAL has read once is known,
and other files with the very same one are read without it, in a hundredth of the time.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import struct
import warnings
from typing import Any

import numpy as np

from eo_keras.errors import EOKerasError, SourceError
from eo_keras.geo import images as rasters

GDAL_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_CACHEMAX": 64 << 20, "GDAL_PAM_ENABLED": False}
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
    """Decodes an RGB JPEG strictly: damaged data that a decoder would fill in are refused.

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
                f"a JPEG of {width}x{height} pixels, colors {colours}",
                f"{size}x{size} pixels, RGB",
                "give the published archive, or move it out of the source",
            )
        return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except (ValueError, RuntimeError) as error:
        raise SourceError(
            where, f"it cannot be decoded ({error})", "a whole JPEG image", "copy or download the source again"
        ) from None


def decode_png(data: bytes, where: str, shape: tuple[int, ...]) -> np.ndarray:
    """Decodes a PNG of 8-bit numbers.

    Args:
        data: the file.
        where: its name, for errors.
        shape: height and width that it must have, and 3 as well if it must be colored.

    Returns:
        uint8 of that shape, as stored.

    Raises:
        SourceError: if it is damaged, no PNG, or of another form.
    """
    from PIL import Image

    mode = "RGB" if len(shape) == 3 else "L"
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            # Asked for before the pixels are unpacked, which a file of a few bytes may say are millions.
            if (image.height, image.width) != shape[:2] or image.mode != mode:
                raise SourceError(
                    where,
                    f"a PNG of {image.width}x{image.height} pixels, mode {image.mode}",
                    f"{shape[1]}x{shape[0]} pixels, mode {mode}",
                    "give the published archive, or move it out of the source",
                )
            return np.array(image, np.uint8)
    except SourceError:
        raise
    except Exception as error:  # The decoder raises exceptions of any kind.
        raise SourceError(
            where, f"it cannot be decoded ({error})", "a whole PNG image", "copy or download the source again"
        ) from None


def decode_geotiff(data: bytes, where: str, shape: tuple[int, int, int], dtype: str) -> GeoImage:
    """Decodes a GeoTIFF.

    Args:
        data: the file.
        where: its name, for errors.
        shape: height, width and number of bands that it must have.
        dtype: type that its numbers must have.

    Raises:
        SourceError: if it is damaged or of another shape or type.
    """
    if not data:
        raise SourceError(where, "it cannot be read (the file is empty)", "a whole GeoTIFF", "copy the source again")
    key = (shape, dtype)
    for layout in _known_layouts.get(key, ()):
        if (image := layout.read(data)) is not None:
            return image
    image = _read_with_gdal(data, where, shape, dtype)
    layouts = _known_layouts.setdefault(key, [])
    if len(layouts) < _MOST_LAYOUTS and (layout := _learn_layout(data, image)) is not None:
        layouts.append(layout)
    return image


_known_layouts: dict[tuple, list[_Layout]] = {}
_MOST_LAYOUTS = 256  # UTM zones are 120; headers that differ in more than the place are not worth remembering.


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Layout of a plain GeoTIFF that GDAL has read, by which files with an equal header are read without GDAL.

    Nothing of a damaged header can be misread so: it is no header that is known.

    Attributes:
        header: the file's bytes before the pixels, with zeros for the pixel scale and the tie point.
        scale: offset of the pixel scale, three float64.
        tie: offset of the tie point, six float64.
        shape: height, width and number of bands; the file ends with the pixels.
        dtype: type of the numbers as they are stored.
        crs: its CRS.
    """

    header: bytes
    scale: int
    tie: int
    shape: tuple[int, int, int]
    dtype: np.dtype
    crs: str

    def read(self, data: bytes) -> GeoImage | None:
        """Reads a file of this layout, or returns None."""
        start, count = len(self.header), math.prod(self.shape)
        if (
            len(data) != start + count * self.dtype.itemsize
            or _blanked(data[:start], self.scale, self.tie) != self.header
        ):
            return None
        step_x, step_y, step_z = _SCALE.unpack_from(data, self.scale)
        *pixel, x, y, z = _TIE_POINT.unpack_from(data, self.tie)
        # An odd place is for GDAL to judge.
        if any((*pixel, z, step_z)) or not (step_x > 0 and step_y > 0 and math.isfinite(step_x + step_y + x + y)):
            return None
        pixels = np.frombuffer(data, self.dtype, count, start).reshape(self.shape)
        return GeoImage(pixels, self.crs, (step_x, 0.0, x, 0.0, -step_y, y), ())


_SCALE, _TIE_POINT = struct.Struct("<3d"), struct.Struct("<6d")


def _blanked(header: bytes, scale: int, tie: int) -> bytes:
    blanked = bytearray(header)
    blanked[scale : scale + _SCALE.size] = bytes(_SCALE.size)
    blanked[tie : tie + _TIE_POINT.size] = bytes(_TIE_POINT.size)
    return bytes(blanked)


def _learn_layout(data: bytes, image: GeoImage) -> _Layout | None:
    """Returns the layout of a file that GDAL has read, or None if it is not plain.

    Plain is an uncompressed file whose pixels lie at its end as they are wanted, placed by one tie point and a pixel
    scale, without names of bands.
    """
    if image.crs is None or image.transform is None or image.band_names:
        return None
    step_x, _, x, _, minus_step_y, y = image.transform
    start = len(data) - image.pixels.nbytes
    # Where the numbers of the transform stand in the header, as the tags of such a place hold them.
    scale = data.find(_SCALE.pack(step_x, -minus_step_y, 0.0), 0, start)
    tie = data.find(_TIE_POINT.pack(0.0, 0.0, 0.0, x, y, 0.0), 0, start)
    if min(start, scale, tie) < 0:
        return None
    stored = image.pixels.dtype.newbyteorder("<")
    layout = _Layout(_blanked(data[:start], scale, tie), scale, tie, image.pixels.shape, stored, image.crs)
    found = layout.read(data)
    same = found is not None and found.transform == image.transform and np.array_equal(found.pixels, image.pixels)
    return layout if same else None


def _read_with_gdal(data: bytes, where: str, shape: tuple[int, int, int], dtype: str) -> GeoImage:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    try:
        with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS), rasterio.io.MemoryFile(data) as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            # One driver only: others would follow paths that a file names.
            with memory.open(driver="GTiff") as dataset:
                _check_form(dataset, where, shape, dtype)
                check_blocks(dataset, where)
                pixels = np.ascontiguousarray(dataset.read().transpose(1, 2, 0))
                crs = rasters.crs_name(dataset.crs.to_wkt()) if dataset.crs else None
                transform = None if dataset.transform.is_identity else tuple(dataset.transform)[:6]
                if transform and not all(map(math.isfinite, transform)):
                    raise SourceError(where, f"the transform {transform}", "finite numbers", "copy the source again")
                names = tuple(description for description in dataset.descriptions if description)
    except EOKerasError:
        raise
    except Exception as error:  # The decoder raises exceptions of any kind.
        raise unreadable(where, error) from None
    return GeoImage(pixels, crs, transform, names)


def unreadable(where: str, error: Exception) -> SourceError:
    """Returns the error about a GeoTIFF that rasterio cannot read."""
    # rasterio tells what happened in the cause only.
    found = f"it cannot be read ({error.__cause__ or error})"
    return SourceError(where, found, "a whole GeoTIFF", "copy or download the source again")


def check_blocks(dataset: Any, where: str, window: tuple[int, int, int, int] | None = None) -> None:
    """Refuses a GeoTIFF that lacks blocks, for which GDAL would read zeros.

    Args:
        dataset: rasterio's dataset; one of another form passes.
        where: its name, for errors.
        window: first row, first column, height and width of what has to be there; None for all.

    Raises:
        SourceError: if one is missing.
    """
    if dataset.driver != "GTiff":
        return
    top, left, rows, columns = window or (0, 0, dataset.height, dataset.width)
    high, wide = dataset.block_shapes[0]
    blocks = (
        range(start // size, -(-(start + length) // size))
        for start, length, size in ((top, rows, high), (left, columns, wide))
    )
    for row, column in itertools.product(*blocks):
        for band in dataset.indexes:
            if not dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band):
                raise SourceError(where, "parts of the image are missing", "a whole GeoTIFF", "copy the source again")


def _check_form(dataset, where: str, shape: tuple[int, int, int], dtype: str) -> None:
    def refuse(found: str, expected: str):
        raise SourceError(where, found, expected, "give the published archive, or move it out of the source")

    height, width, bands = shape
    if dataset.count != bands:
        refuse(f"a GeoTIFF of {dataset.count} bands", f"{bands} bands")
    if (dataset.height, dataset.width) != (height, width):
        refuse(f"a GeoTIFF of {dataset.width}x{dataset.height} pixels", f"{width}x{height} pixels")
    if (types := set(dataset.dtypes)) != {dtype}:
        refuse(f"numbers of type {', '.join(sorted(types))}", f"{dtype} digital numbers")
