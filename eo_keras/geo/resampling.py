"""Reading of bands on a grid, with masks and interpolation.

A pixel is unknown where the file's own mask excludes it (a mask band, an alpha band, a .msk file or the nodata tag,
each band by itself), where its number means "no data", and where it is not finite. Unknown pixels never enter an
interpolation, and a pixel whose center lies in one is unknown too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eo_keras.geo.grid import Grid

KERNELS = {"nearest": 0.5, "average": 0.5, "bilinear": 1.0, "cubic": 2.0, "cubic_spline": 2.0, "lanczos": 3.0}
"""Radius of each resampling kernel, in pixels of the coarser grid."""

_FOOTPRINTS = {"cubic": "cubic_spline", "lanczos": "cubic_spline"}
"""A kernel without negative weights and of the same radius; of `lanczos` the radius is a pixel less."""

_ALIGNED = 1e-3  # Pixels: shift of a grid by rounding in its transform.
_TOLERANCE = 1e-4  # Pixels: accuracy of the transform between reference systems.
_SIDES = 21  # Points along an edge that are transformed to locate a window in another reference system.


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Pixels of one band.

    Attributes:
        numbers: the stored numbers (height, width); undefined where they are unknown.
        known: bool (height, width).
        saturated: bool (height, width): known pixels that are saturated, or were interpolated from one that is; None
            for none.
    """

    numbers: np.ndarray
    known: np.ndarray
    saturated: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class SpecialValues:
    """Numbers of a band with a special meaning.

    Attributes:
        nodata: numbers that mean "no data".
        saturated: the number that means "saturated", or None.
    """

    nodata: tuple[float, ...] = ()
    saturated: float | None = None


def read_known(
    dataset: Any, indexes: Sequence[int], special: Sequence[SpecialValues], window: tuple[int, int, int, int]
) -> Iterator[Pixels]:
    """Reads a window of stored numbers of bands, with masks.

    Args:
        dataset: the file, opened by rasterio.
        indexes: numbers of the bands, from 1.
        special: the special values of each band.
        window: first row, first column, height and width, inside the file.

    Yields:
        The pixels of each band.
    """
    from rasterio.windows import Window

    place = Window(window[1], window[0], window[3], window[2])
    every = dataset.read(list(indexes), window=place)
    masks = _own_masks(dataset, indexes, special, place)
    for numbers, mask, values in zip(every, masks, special, strict=True):
        known = np.ones(numbers.shape, bool) if mask is None else mask != 0
        for number in values.nodata:
            known &= numbers != number
        if numbers.dtype.kind == "f":
            known &= np.isfinite(numbers)
        saturated = known & (numbers == values.saturated) if values.saturated is not None else None
        yield Pixels(numbers, known, saturated)


def _own_masks(
    dataset: Any, indexes: Sequence[int], special: Sequence[SpecialValues], place: Any
) -> Iterator[np.ndarray | None]:
    """Yields the file's own mask of each band, 0 where pixels are masked; None where it adds nothing."""
    from rasterio.enums import ColorInterp, MaskFlags

    # A nodata tag hides an alpha band from GDAL's masks.
    alpha = [number for number, role in enumerate(dataset.colorinterp, start=1) if role == ColorInterp.alpha]
    opaque = dataset.read(alpha, window=place).all(axis=0) if alpha else None
    for index, values in zip(indexes, special, strict=True):
        flags, mask = dataset.mask_flag_enums[index - 1], None
        # The nodata tag of whole numbers is one of the special values, and its mask takes longer to read than they do.
        by_value = flags == [MaskFlags.nodata] and np.dtype(dataset.dtypes[index - 1]).kind in "ui"
        if flags != [MaskFlags.all_valid] and not (by_value and dataset.nodatavals[index - 1] in values.nodata):
            mask = dataset.read_masks(index, window=place)
        if opaque is not None:
            mask = opaque if mask is None else (mask != 0) & opaque
        yield mask


class Resampler:
    """Resampler of the bands of one file to windows of a grid.

    Args:
        dataset: rasterio's; it stays open as long as this is used.
        grid: the grid.
        resampling: a name of `KERNELS`.
    """

    def __init__(self, dataset: Any, grid: Grid, resampling: str):
        from rasterio.crs import CRS
        from rasterio.transform import Affine

        from eo_keras.geo import raster_files

        self._dataset, self._grid, self._resampling = dataset, grid, resampling
        self._own = Grid(grid.crs, tuple(dataset.transform)[:6], dataset.height, dataset.width)
        self._same_crs = raster_files.same_crs(dataset.crs, grid.crs)
        self._shift = _shift(grid, self._own) if self._same_crs else None
        self._crs, self._affine = CRS.from_user_input(grid.crs), Affine
        self._steps = self._own_steps() if self._shift is None else (1.0, 1.0)

    def read(
        self, indexes: Sequence[int], special: Sequence[SpecialValues], window: tuple[int, int, int, int]
    ) -> Iterator[Pixels]:
        """Reads bands over a window of the grid.

        Args:
            indexes: numbers of the bands, from 1.
            special: the special values of each band.
            window: first row, first column, height and width on the grid.

        Yields:
            The pixels of each band, in floating point where they were interpolated, else as they are stored.
        """
        row, column, height, width = window
        if self._shift is not None:
            own = (row + self._shift[0], column + self._shift[1], height, width)
            yield from read_known(self._dataset, indexes, special, own)
            return
        own = self._own_window(self._grid.window(*window))
        if own is None:
            nothing = np.zeros((height, width), bool)
            yield from [Pixels(np.zeros((height, width)), nothing, None)] * len(indexes)
            return
        for pixels in read_known(self._dataset, indexes, special, own):
            yield self._resampled(pixels, own, window)

    def _resampled(self, pixels: Pixels, own: tuple[int, ...], window: tuple[int, ...]) -> Pixels:
        # 24 bits hold numbers of 16 exactly. NaN is the one mark of "not known" that no number can be.
        source = pixels.numbers.astype(np.float32 if pixels.numbers.dtype.itemsize <= 2 else np.float64)
        whole = bool(pixels.known.all())
        if not whole:
            source[~pixels.known] = np.nan
        # GDAL is faster where it need not look for what is not known.
        numbers = self._warp(source, own, window, self._resampling, None if whole else math.nan)
        known = ~np.isnan(numbers)
        saturated = None
        if pixels.saturated is not None and pixels.saturated.any():
            saturated = known & (self._footprint(pixels.saturated, own, window) > 0)
        numbers[~known] = 0
        return Pixels(numbers, known, saturated)

    def _footprint(self, marked: np.ndarray, own: tuple[int, ...], window: tuple[int, ...]) -> np.ndarray:
        """Returns where marked pixels have any weight: numbers above 0."""
        if self._resampling == "lanczos":
            wide = np.pad(marked, 1)
            marked = np.any(
                [
                    wide[row : row + marked.shape[0], column : column + marked.shape[1]]
                    for row in range(3)
                    for column in range(3)
                ],
                axis=0,
            )
        kernel = _FOOTPRINTS.get(self._resampling, self._resampling)
        return self._warp(marked.astype(np.float32), own, window, kernel, None)

    def _warp(
        self, source: np.ndarray, own: tuple[int, ...], window: tuple[int, ...], kernel: str, nodata: float | None
    ) -> np.ndarray:
        """Interpolates pixels of the file's on a window; NaN where none of them lies, and where `nodata` is NaN."""
        from rasterio.enums import Resampling
        from rasterio.warp import reproject

        if not self._same_crs:
            return self._warp_to_crs(source, own, window, kernel)
        warped = np.full(window[2:], np.nan, source.dtype)
        reproject(
            source,
            warped,
            src_transform=self._affine(*self._own.window(*own).transform),
            src_crs=self._crs,
            src_nodata=nodata,
            dst_transform=self._affine(*self._grid.window(*window).transform),
            dst_crs=self._crs,
            dst_nodata=nodata,
            resampling=Resampling[kernel],
            init_dest_nodata=False,
            **self._scales(),
        )
        return warped

    def _warp_to_crs(
        self, source: np.ndarray, own: tuple[int, ...], window: tuple[int, ...], kernel: str
    ) -> np.ndarray:
        from rasterio.enums import Resampling
        from rasterio.io import MemoryFile
        from rasterio.vrt import WarpedVRT

        profile = {"driver": "GTiff", "count": 1, "dtype": source.dtype, "crs": self._dataset.crs, "nodata": math.nan}
        place = self._affine(*self._own.window(*own).transform)
        with MemoryFile() as memory:
            with memory.open(height=own[2], width=own[3], transform=place, **profile) as file:
                file.write(source, 1)
            with (
                memory.open() as file,
                WarpedVRT(
                    file,
                    crs=self._crs,
                    transform=self._affine(*self._grid.window(*window).transform),
                    height=window[2],
                    width=window[3],
                    resampling=Resampling[kernel],
                    src_nodata=math.nan,
                    nodata=math.nan,
                    # Its own 1/8 of a pixel would show, and differ between windows.
                    tolerance=_TOLERANCE,
                    **self._scales(),
                ) as warped,
            ):
                return warped.read(1)

    def _scales(self) -> dict[str, float]:
        """Returns the grid's pixels per pixel of the file's; GDAL would conclude them from each window's shape."""
        return {"XSCALE": 1 / self._steps[0], "YSCALE": 1 / self._steps[1]}

    def _own_steps(self) -> tuple[float, float]:
        """Returns how many of the file's pixels a step along a row and a column of the grid passes."""
        middle = self._grid.width / 2, self._grid.height / 2
        places = [middle, (middle[0] + 1, middle[1]), (middle[0], middle[1] + 1)]
        points = [self._grid.coordinates(*place) for place in places]
        (x, right_x, below_x), (y, right_y, below_y) = self._transformed(*zip(*points, strict=True))
        start = self._own.pixel(x, y)
        ends = self._own.pixel(right_x, right_y), self._own.pixel(below_x, below_y)
        steps = [math.dist(start, end) for end in ends]
        # As GDAL does: nearly whole steps are whole, so that a grid that is a little distorted is not smoothed.
        steps = [float(round(step)) if round(step) and abs(step - round(step)) < 0.05 else step for step in steps]
        return tuple(step if math.isfinite(step) and step > 0 else 1.0 for step in steps)

    def _transformed(self, xs: Sequence[float], ys: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
        from rasterio.warp import transform

        return (xs, ys) if self._same_crs else transform(self._crs, self._dataset.crs, xs, ys)

    def _own_window(self, place: Grid) -> tuple[int, int, int, int] | None:
        """Returns the window of the file's pixels that a window of the grid needs, or None."""
        columns, rows = (axis.ravel() for axis in np.meshgrid(*(np.linspace(0, 1, _SIDES),) * 2))
        points = [place.coordinates(*point) for point in zip(columns * place.width, rows * place.height, strict=True)]
        xs, ys = self._transformed(*zip(*points, strict=True))
        pixels = np.array([self._own.pixel(x, y) for x, y in zip(xs, ys, strict=True)])
        pixels = pixels[np.isfinite(pixels).all(axis=1)]
        if not len(pixels):
            return None
        # The curve between two of the points is a little off the line.
        margin = math.ceil(KERNELS[self._resampling] * max(1.0, *self._steps)) + 3
        lowest, highest = np.floor(pixels.min(axis=0)) - margin, np.ceil(pixels.max(axis=0)) + margin
        left, top = (max(0, int(number)) for number in lowest)
        right, bottom = min(self._own.width, int(highest[0])), min(self._own.height, int(highest[1]))
        return (top, left, bottom - top, right - left) if top < bottom and left < right else None


def _shift(scene: Grid, band: Grid) -> tuple[int, int] | None:
    """Returns how far a band's first pixel lies above and left of the scene's, in pixels; None on another grid."""
    a, b, c, d, e, f = scene.transform
    if not np.allclose((a, b, d, e), [band.transform[place] for place in (0, 1, 3, 4)], rtol=1e-9, atol=1e-12):
        return None
    determinant = a * e - b * d
    x, y = c - band.transform[2], f - band.transform[5]
    columns, rows = (e * x - b * y) / determinant, (a * y - d * x) / determinant
    if max(abs(columns - round(columns)), abs(rows - round(rows))) > _ALIGNED:
        return None
    inside = 0 <= round(rows) <= band.height - scene.height and 0 <= round(columns) <= band.width - scene.width
    return (round(rows), round(columns)) if inside else None
