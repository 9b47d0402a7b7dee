"""Exact statistics by band from histograms of integers, which can be added in any order.

Counted are the pixels that a network should see the ground in: not those of no data, which hold 0 in all bands, and of
tiles those alone that are clear by their validity. A 0 in one band of others is a number like any other.

The stored numbers have 8 or 16 bits, so that a histogram of every number is small (4 kB to 0.5 MB a band) and says
all: sums, extremes and percentiles follow from it exactly, whatever the number of workers and the order of the shards.
Numbers of float32 (backscatter in dB, heights in meters) are counted rounded to bfloat16, which has as few values and
keeps 8 significant bits: their statistics are those of the rounded numbers.
"""

from __future__ import annotations

import fractions
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from eo_keras.records.data_card import BandStatistics
from eo_keras.records.example import NO_DATA, VALID

PERCENTILES = (1, 2, 5, 25, 50, 75, 95, 98, 99)


class Histograms:
    """Counts of every stored number, band by band.

    Args:
        num_bands: number of bands.
        dtype: type of the numbers, `uint8`, `uint16` or `float32`.

    Attributes:
        counts: int64 (bands, 256 or 65,536), of pixels with data that are clear; of float32, by the bits of bfloat16.
        nodata: number of pixels without data.
    """

    def __init__(self, num_bands: int, dtype: str):
        self._dtype = np.dtype(dtype)
        self.counts = np.zeros((num_bands, 1 << 8 * min(2, self._dtype.itemsize)), np.int64)
        self.nodata = 0

    def add(self, pixels: np.ndarray, validity: np.ndarray | None = None) -> None:
        """Counts the numbers of images (..., bands); many images in one call take a fraction of the time of one each.

        Args:
            pixels: the images.
            validity: of tiles, uint8 (...), see `eo_keras.geo.scene_reader`: what is neither clear nor without data
                is not counted at all.

        Raises:
            ValueError: if they have another type or number of bands.
        """
        bands, numbers = self.counts.shape
        if pixels.dtype != self._dtype or pixels.shape[-1] != bands:
            raise ValueError(f"images of {pixels.shape[-1]} bands of {pixels.dtype} do not belong to these histograms")
        if validity is not None:
            self.nodata += int(np.count_nonzero(validity == NO_DATA))
            pixels = pixels[validity == VALID]
        if pixels.dtype == np.float32:
            known = np.isfinite(pixels).all(axis=-1)
            if validity is None:
                self.nodata += int(np.count_nonzero(~known))
            pixels = _bfloat16_bits(pixels[known])
        if not pixels.size:
            return
        if pixels.dtype == np.uint8 and bands == 3:
            # Pillow counts three bands of bytes in one go, in a third of the time.
            flat = Image.frombuffer("RGB", (pixels.size // 3, 1), np.ascontiguousarray(pixels), "raw", "RGB", 0, 1)
            counts = np.reshape(flat.histogram(), (bands, numbers)).astype(np.int64)
        else:
            # One contiguous row a band: counting strided numbers takes several times as long.
            columns = np.ascontiguousarray(pixels.reshape(-1, bands).T)
            counts = np.stack([np.bincount(values, minlength=numbers) for values in columns])
        if validity is None and self._dtype.kind == "u" and counts[:, 0].all():
            empty = int(np.count_nonzero(~pixels.any(axis=-1)))
            counts[:, 0] -= empty
            self.nodata += empty
        self.counts += counts

    def merge(self, other: Histograms) -> None:
        """Adds the counts of other histograms of the same bands and type."""
        self.counts += other.counts
        self.nodata += other.nodata

    def statistics(self, bands: Sequence[str]) -> tuple[BandStatistics, ...]:
        """Returns the statistics of every band, exact up to one rounding to float64 at the end.

        Args:
            bands: the bands' names.
        """
        return tuple(self._of_band(band, counts) for band, counts in zip(bands, self.counts, strict=True))

    def _of_band(self, band: str, counts: np.ndarray) -> BandStatistics:
        numbers = np.flatnonzero(counts)
        seen = counts[numbers]
        if self._dtype.kind == "f":
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
            order = np.argsort(numbers)
            numbers, seen = numbers[order], seen[order]
        return _statistics(band, numbers, seen, self.nodata)


def _bfloat16_bits(numbers: np.ndarray) -> np.ndarray:
    """Returns the bits of float32 numbers rounded to nearest bfloat16, ties to even; uint16 of the same shape."""
    # Added to 0, so that -0 is the same number as 0.
    bits = (np.ascontiguousarray(numbers) + np.float32(0)).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _statistics(band: str, numbers: np.ndarray, seen: np.ndarray, nodata: int) -> BandStatistics:
    # Python's integers have no largest number; a country's sum of squares exceeds 64 bits.
    values = numbers.tolist()
    if numbers.dtype.kind == "f":
        values = [fractions.Fraction(value) for value in values]
    pairs = list(zip(values, seen.tolist(), strict=True))
    valid = int(seen.sum())
    total = sum(number * count for number, count in pairs)
    squares = sum(number * number * count for number, count in pairs)
    mean = fractions.Fraction(total) / valid if valid else fractions.Fraction(0)
    variance = fractions.Fraction(squares) / valid - mean**2 if valid else fractions.Fraction(0)
    return BandStatistics(
        band=band,
        mean=float(mean),
        std=math.sqrt(variance),
        minimum=numbers[0].item() if valid else 0,
        maximum=numbers[-1].item() if valid else 0,
        valid=valid,
        nodata=nodata,
        percentiles=_percentiles(numbers, seen, valid),
    )


def _percentiles(numbers: np.ndarray, seen: np.ndarray, valid: int) -> dict[str, int | float]:
    """Returns, for each percentage, the smallest number that at least so many per cent of the pixels do not exceed."""
    if not valid:
        return {str(percent): 0 for percent in PERCENTILES}
    reached = np.cumsum(seen)
    ranks = [-(-valid * percent // 100) for percent in PERCENTILES]  # nearest rank, in whole pixels
    return {
        str(percent): numbers[np.searchsorted(reached, rank)].item()
        for percent, rank in zip(PERCENTILES, ranks, strict=True)
    }
