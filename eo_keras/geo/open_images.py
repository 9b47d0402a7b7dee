"""Image files of any sensor and size, read window by window: GeoTIFF by rasterio, JPEG and PNG by Pillow."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eo_keras.errors import BandError, EOKerasError, SourceError
from eo_keras.geo import images as rasters
from eo_keras.geo.grid import Grid, size_and_place
from eo_keras.geo.images import Image
from eo_keras.sensors import catalogue as sensors

_MOST_PICTURE_PIXELS = 2**26
"""Largest JPEG or PNG, which is read whole: more than Inria's 5000 x 5000."""


@dataclasses.dataclass(frozen=True)
class ImageKind:
    """Images of one modality, as a model was trained on them.

    Attributes:
        sensor: name of the sensor, see `eo_keras.sensors.catalogue`.
        bands: names of the bands in stored order, which files without names of bands are taken to have.
        dtype: type of the model's numbers, `uint8`, `uint16` or `float32`.
    """

    sensor: str
    bands: tuple[str, ...]
    dtype: str


class OpenImage:
    """Open image file; `open_image` makes it.

    Args:
        path: the file.
        source: an open rasterio dataset, or all numbers (height, width, bands) of a picture.
        bands: names of the bands in stored order.
        kind: the images that it is one of.

    Attributes:
        path: the file.
        bands: names of the bands in stored order.
        height: number of rows.
        width: number of columns.
        grid: its place on the ground; None where the file has none.
    """

    def __init__(self, path: pathlib.Path, source: Any, bands: tuple[str, ...], kind: ImageKind):
        self.path, self.bands, self._source, self._kind = path, bands, source, kind
        self.grid: Grid | None = None
        if isinstance(source, np.ndarray):
            self.height, self.width = source.shape[:2]
            return
        self.height, self.width = source.height, source.width
        if source.crs is not None and not source.transform.is_identity:
            crs = rasters.crs_name(source.crs.to_wkt())
            self.grid = Grid(crs, tuple(source.transform)[:6], self.height, self.width)

    def lies_on(self, other: OpenImage, ratio: int = 1) -> bool:
        """Returns whether an image of pixels `ratio` times as large covers what another one does.

        Where one has no place on the ground, their sizes alone are compared.
        """
        if (self.height * ratio, self.width * ratio) != (other.height, other.width):
            return False
        return self.grid is None or other.grid is None or self.grid.covers_as(other.grid)

    def __str__(self) -> str:
        """Returns size and place."""
        return size_and_place(self.height, self.width, self.grid)

    def read(self, row: int, column: int, height: int, width: int) -> Image:
        """Reads a window inside the image.

        Returns:
            Its numbers: as stored, with 0 in all bands where there is no data, or float32 with NaN there. Of GeoTIFFs
            for float32, scale and offset of the file are applied.

        Raises:
            SourceError: if the file is damaged.
        """
        if isinstance(self._source, np.ndarray):
            pixels = self._source[row : row + height, column : column + width]
            known = np.ones(pixels.shape[:2], bool)
        else:
            pixels, known = self._read_window(row, column, height, width)
        if self._kind.dtype == "float32":
            pixels = pixels.astype(np.float32)
            pixels[~known] = np.nan
        else:
            # Products of satellites mark no data by 0 in all bands; of aerial images that is black.
            if self._kind.sensor != sensors.AERIAL.name:
                known = known & pixels.any(axis=-1)
            pixels = np.where(known[..., np.newaxis], np.maximum(pixels, 1), 0).astype(pixels.dtype)
        optical = self._kind.sensor == sensors.SENTINEL2.name
        reflectance = rasters.REFLECTANCES.get(pixels.dtype.name) if optical else None
        return Image(pixels, self.bands, reflectance)

    def _read_window(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        from rasterio.windows import Window

        source, window = self._source, Window(column, row, width, height)
        with _decoding(self.path, "GeoTIFF"):
            pixels = source.read(window=window).transpose(1, 2, 0)
            known = source.dataset_mask(window=window) != 0
        if self._kind.dtype == "float32" and (set(source.scales), set(source.offsets)) != ({1.0}, {0.0}):
            pixels = pixels * np.asarray(source.scales) + np.asarray(source.offsets)
        return pixels, known


@contextlib.contextmanager
def open_image(
    path: str | os.PathLike[str], kind: ImageKind, bands: Sequence[str] | None = None
) -> Iterator[OpenImage]:
    """Opens an image file; a context manager.

    Args:
        path: a GeoTIFF of any size, or a JPEG or PNG.
        kind: the images that it is one of.
        bands: names of its bands in stored order. Default: those that the file names, else those of `kind`.

    Raises:
        SourceError: if it cannot be read, is no image, is damaged, or holds numbers of another type.
        BandError: if its bands are not known, or are not as many as `bands`.
    """
    path = pathlib.Path(path)
    tiff = rasters.is_geotiff(path)
    with contextlib.ExitStack() as opened:
        if not tiff:
            pixels = rasters.read_picture(path, _MOST_PICTURE_PIXELS)
            yield OpenImage(path, pixels, _names(path, pixels.shape[-1], (), bands, kind), kind)
            return
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning

        with _decoding(path, "GeoTIFF"), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            # One driver only: others would follow paths that a file names.
            source = opened.enter_context(rasterio.open(path, driver="GTiff"))
        _check_numbers(source, path, kind)
        yield OpenImage(path, source, _names(path, source.count, source.descriptions, bands, kind), kind)


@contextlib.contextmanager
def _decoding(path: pathlib.Path, form: str) -> Iterator[None]:
    try:
        yield
    except EOKerasError:
        raise
    except Exception as error:  # The decoder raises whatever the damaged part brought about.
        raise rasters.undecodable(path, error, form) from None


def _check_numbers(source: Any, path: pathlib.Path, kind: ImageKind) -> None:
    """Checks that the numbers are of one type, and of one that the model can take."""
    if kind.dtype != "float32":
        rasters.check_numbers(source, path)
    elif len(types := set(source.dtypes)) > 1 or np.dtype(source.dtypes[0]).kind not in "uif":
        raise SourceError(
            path, f"numbers of type {', '.join(sorted(types))}", "real numbers of one type", "write the image so"
        )


def _names(
    path: pathlib.Path,
    count: int,
    descriptions: Sequence[str | None],
    bands: Sequence[str] | None,
    kind: ImageKind,
) -> tuple[str, ...]:
    """Returns the names of a file's bands."""
    if bands is not None:
        return rasters.given_names(path, count, bands)
    if any(descriptions):
        described = ",".join(description or "(unnamed)" for description in descriptions)
        with contextlib.suppress(BandError):
            names = sensors.named(kind.sensor).parse_bands(described)
            if len(names) == count:
                return names
    elif count == len(kind.bands):
        return kind.bands
    else:
        described = f"{count} bands without names"
    raise BandError(
        path,
        described,
        f"names of bands of {sensors.named(kind.sensor).title}, or those of the records that the model was trained on, "
        f"{','.join(kind.bands)}",
        f"say the stored order, such as `image_bands={','.join(kind.bands)}`",
    )
