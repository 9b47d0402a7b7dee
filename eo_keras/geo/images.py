"""Image files read as named bands: GeoTIFF by rasterio, JPEG and PNG by Pillow.

A file is known by its first bytes, not by its name, and handed to one decoder only: others would follow paths that a
file names.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import io
import os
import pathlib
import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from eo_keras.core.system_files import is_litter
from eo_keras.errors import BandError, EOKerasError, SourceError
from eo_keras.sensors import radiometry, sentinel2
from eo_keras.sensors.radiometry import Reflectance

SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png")
"""Endings of the names of images in a folder."""

REFLECTANCES = {"uint8": radiometry.EUROSAT_JPEG, "uint16": radiometry.HARMONISED}
"""Relation of an image's numbers to reflectance, by their type."""

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_PICTURE_BANDS = {"L": 1, "RGB": 3}  # By Pillow's mode.
_FORMS = "a GeoTIFF, JPEG or PNG image"

_MOST_BYTES = 2**29
_MOST_PIXELS = 2**24
"""Limits of a patch; larger files and images are scenes, which would fill the memory before they are refused."""


@dataclasses.dataclass(frozen=True)
class Image:
    """Image with named bands.

    Attributes:
        pixels: stored numbers (height, width, bands), uint8 or uint16; a pixel of no data is 0 in all bands. Of other
            sensors also float32, with NaN there.
        bands: names of the bands, in stored order.
        reflectance: relation of the numbers to reflectance; None of other sensors than Sentinel-2.
        crs: `EPSG:n`, or WKT where it has no code; None where the file has none.
        transform: affine transform (a, b, c, d, e, f) from pixel (column, row) to CRS; None where the file has none.
        bands_assumed: whether nothing but the number of bands, 13, says that they lie in EuroSAT's order.
    """

    pixels: np.ndarray
    bands: tuple[str, ...]
    reflectance: Reflectance | None
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    bands_assumed: bool = False


def find_images(patterns: Iterable[str | os.PathLike[str]]) -> list[pathlib.Path]:
    """Lists image files by name.

    Args:
        patterns: paths, glob patterns (`**` stands for any folders), or folders: all images in them and below, by the
            endings of their names.

    Returns:
        The paths, each once, sorted.

    Raises:
        SourceError: if a pattern matches no file, or a folder holds no image.
    """
    paths: set[pathlib.Path] = set()
    for pattern in map(os.fspath, patterns):
        # A name that is there may hold brackets without being a pattern.
        matches = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
        images = {path for match in matches for path in _images_at(pathlib.Path(match))}
        if not images:
            raise SourceError(
                f"images '{pattern}'",
                "there is no such image",
                f"files, or a folder with names in {', '.join(SUFFIXES)}",
                "name an image, a folder of images, or a pattern in quotes such as 'patches/*.tif'",
            )
        paths |= images
    return sorted(paths, key=os.fspath)


def _images_at(path: pathlib.Path) -> list[pathlib.Path]:
    return images_below(path) if path.is_dir() else [path]


def images_below(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the images in a folder and below, by the endings of their names."""
    return [
        inner
        for inner in path.rglob("*")
        if inner.suffix.lower() in SUFFIXES and not is_litter(inner.relative_to(path).as_posix()) and inner.is_file()
    ]


def read_image(path: str | os.PathLike[str], bands: Sequence[str] | None = None) -> Image:
    """Reads a whole image file of a patch's size.

    uint8 numbers are taken for gray values like those of EuroSAT's JPEGs, uint16 ones for harmonized digital numbers
    (reflectance x 10000).

    Args:
        path: the file.
        bands: names of its bands in stored order. Default: those that the file names; else, of 13 unnamed uint16
            bands, `sentinel2.EUROSAT_ORDER`; of three unnamed uint8 bands, red, green and blue.

    Raises:
        SourceError: if it cannot be read, is no image, is damaged, or holds other numbers than those above.
        BandError: if its bands are not known, or are not as many as `bands`.
    """
    data = _contents(path)
    if data.startswith(_TIFF_STARTS):
        return _read_geotiff(data, path, bands)
    pixels = _decoded(data, path, _MOST_PIXELS)
    names, _ = _band_names(path, pixels.shape[-1], "uint8", (), bands)
    return Image(pixels, names, REFLECTANCES["uint8"])


def is_geotiff(path: str | os.PathLike[str]) -> bool:
    """Returns whether an image file is a GeoTIFF, by its first bytes; else it is a JPEG or PNG.

    Raises:
        SourceError: if it cannot be read, or is none of these.
    """
    data = _contents(path, 16)
    if not data.startswith((*_TIFF_STARTS, *_PICTURE_STARTS)):
        raise _no_image(path, data)
    return data.startswith(_TIFF_STARTS)


def read_picture(path: str | os.PathLike[str], most_pixels: int) -> np.ndarray:
    """Reads a JPEG or PNG whole; uint8 (height, width, bands).

    Raises:
        SourceError: if it cannot be read, is neither, is damaged, or has more pixels.
    """
    return _decoded(_contents(path), path, most_pixels)


def _contents(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Returns the bytes of a file, or the first ones."""
    try:
        with open(path, "rb") as file:
            # One byte more reveals a file that is too large.
            data = file.read(_MOST_BYTES + 1 if most is None else most)
    except OSError as error:
        raise SourceError(path, f"it cannot be read ({error.strerror})", _FORMS) from None
    if len(data) > _MOST_BYTES:
        raise SourceError(path, f"it has more than {_MOST_BYTES:,} bytes", "a patch", "cut it into patches")
    return data


def _no_image(path: str | os.PathLike[str], data: bytes) -> SourceError:
    return SourceError(path, "this is no image" if data else "the file is empty", _FORMS, "leave it out of the images")


def _read_geotiff(data: bytes, path: str | os.PathLike[str], bands: Sequence[str] | None) -> Image:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    try:
        with warnings.catch_warnings(), rasterio.io.MemoryFile(data) as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(driver="GTiff") as dataset:
                _check_size(path, dataset.width, dataset.height, _MOST_PIXELS)
                check_numbers(dataset, path)
                names, assumed = _band_names(path, dataset.count, dataset.dtypes[0], dataset.descriptions, bands)
                pixels = np.ascontiguousarray(dataset.read().transpose(1, 2, 0))
                # The file's own mask of any form; a nodata tag masks pixels that hold it in all bands.
                pixels[dataset.dataset_mask() == 0] = 0
                crs = crs_name(dataset.crs.to_wkt()) if dataset.crs else None
                transform = None if dataset.transform.is_identity else tuple(dataset.transform)[:6]
    except EOKerasError:
        raise
    except Exception as error:  # The decoder raises whatever the damaged part brought about.
        raise undecodable(path, error, "GeoTIFF") from None
    return Image(pixels, names, REFLECTANCES[pixels.dtype.name], crs, transform, assumed)


def check_numbers(dataset, path: str | os.PathLike[str]) -> None:
    """Checks that an open raster holds digital numbers or gray values, with which models of such are trained.

    Raises:
        SourceError: if not.
    """
    if len(dtypes := set(dataset.dtypes)) != 1 or not dtypes <= set(REFLECTANCES):
        raise SourceError(
            path,
            f"numbers of type {', '.join(sorted(dtypes))}",
            "uint16 digital numbers (reflectance x 10000), or uint8 grey values",
            "write the image again with such numbers",
        )
    scales, offsets = set(dataset.scales), set(dataset.offsets)
    if not scales <= {1.0, radiometry.HARMONISED.scale} or offsets != {0.0}:
        raise SourceError(
            path,
            f"scale {', '.join(map(str, sorted(scales)))} and offset {', '.join(map(str, sorted(offsets)))}",
            "harmonized digital numbers: reflectance x 10000, offset 0",
            "apply the offset and write the image again",
        )


def _decoded(data: bytes, path: str | os.PathLike[str], most_pixels: int) -> np.ndarray:
    """Decodes a JPEG or PNG to uint8 (height, width, bands)."""
    from PIL import Image as PillowImage

    if not data.startswith(_PICTURE_STARTS):
        raise _no_image(path, data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)  # The check below is stricter.
            picture = PillowImage.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            _check_size(path, *picture.size, most_pixels)
            if picture.mode not in _PICTURE_BANDS:
                raise SourceError(
                    path, f"a {picture.format} of mode {picture.mode}", "RGB or grey (L), 8 bits", "write it again so"
                )
            pixels = np.asarray(picture)
    except EOKerasError:
        raise
    except Exception as error:  # The decoder raises whatever the damaged part brought about.
        raise undecodable(path, error, "JPEG or PNG image") from None
    return pixels.reshape(*pixels.shape[:2], _PICTURE_BANDS[picture.mode])


def undecodable(path: str | os.PathLike[str], error: Exception, form: str) -> SourceError:
    """Returns the error about a damaged image."""
    # rasterio gives the reason only in the cause.
    return SourceError(
        path, f"it cannot be decoded ({error.__cause__ or error})", f"a whole {form}", "copy or make it again"
    )


def _check_size(path: str | os.PathLike[str], width: int, height: int, most: int) -> None:
    if width * height > most:
        raise SourceError(path, f"an image of {width}x{height} pixels", f"at most {most:,}", "cut it into patches")


def given_names(path: str | os.PathLike[str], count: int, bands: Sequence[str]) -> tuple[str, ...]:
    """Returns the names that the user gives the bands of a file.

    Raises:
        BandError: if they are more or fewer than its bands.
    """
    if len(bands) != count:
        raise BandError(
            path, f"{count} bands", f"{len(bands)}, as `image_bands` names ({','.join(bands)})", "name every band once"
        )
    return tuple(bands)


def _band_names(
    path: str | os.PathLike[str],
    count: int,
    dtype: str,
    descriptions: Sequence[str | None],
    bands: Sequence[str] | None,
) -> tuple[tuple[str, ...], bool]:
    """Returns the bands' names, and whether the names of 13 bands are assumed from their number."""
    if bands is not None:
        return given_names(path, count, bands), False
    if any(descriptions):
        described = ",".join(description or "(unnamed)" for description in descriptions)
        try:
            names = sentinel2.parse_bands(described)
        except BandError:
            names = ()
        if len(names) == count:
            return names, False
        described = f"bands named {described}"
    elif count == len(sentinel2.EUROSAT_ORDER) and dtype == "uint16":
        return sentinel2.EUROSAT_ORDER, True
    elif count == len(sentinel2.COMPOSITES["RGB"]) and dtype == "uint8":
        return sentinel2.COMPOSITES["RGB"], False
    else:
        described = f"{count} unnamed {dtype} bands"
    raise BandError(
        path,
        described,
        "names of Sentinel-2 bands, or unnamed 13 of uint16 (in EuroSAT's order) or 3 of uint8 (red, green, blue)",
        "say the stored order, such as `image_bands=B02,B03,B04,B08`",
    )


@functools.lru_cache(maxsize=256)
def crs_name(wkt: str) -> str:
    """Returns `EPSG:n` for a coordinate reference system in WKT, or the WKT itself where it has no code."""
    from rasterio.crs import CRS

    code = CRS.from_wkt(wkt).to_epsg()
    return f"EPSG:{code}" if code else wkt
