"""Exact per-band statistics: integer sums that can be added in any order without changing a bit of the result."""

from __future__ import annotations

import dataclasses
import fractions
import math
from collections.abc import Iterable, Sequence

import numpy as np

from eo_keras.cards import BandStatistics


@dataclasses.dataclass(frozen=True)
class BandSums:
    """Integer sums over the valid pixels of one patch, or of several; each array is int64 with one entry a band.

    int64 is wide enough for a patch; `merge` adds in Python's unbounded integers.
    """

    valid: np.ndarray
    nodata: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray


def sum_patch(pixels: np.ndarray, nodata: int) -> BandSums:
    """Sums one patch; a number equal to `nodata` is left out of its band.

    Args:
        pixels: stored numbers (height, width, bands), uint8 or uint16.
        nodata: the number that means "no data"; it must be 0, the smallest number.
    """
    flat = pixels.reshape(-1, pixels.shape[-1])
    valid = (flat != nodata).sum(axis=0, dtype=np.int64)
    # No data is 0 and so adds nothing to either sum.
    wide = flat.astype(np.int64)
    without = np.where(flat == nodata, np.iinfo(flat.dtype).max, flat)
    return BandSums(
        valid=valid,
        nodata=len(flat) - valid,
        total=wide.sum(axis=0),
        squares=np.einsum("pb,pb->b", wide, wide),
        minimum=without.min(axis=0).astype(np.int64),
        maximum=flat.max(axis=0).astype(np.int64),
    )


def merge(bands: Sequence[str], sums: Iterable[BandSums]) -> tuple[BandStatistics, ...]:
    """Merges sums into statistics, exact up to one rounding to float64 at the end.

    Args:
        bands: the bands' names.
        sums: one entry a patch, in any order.
    """
    stacked = list(sums)
    merged = []
    for index, band in enumerate(bands):

        def added(name: str, index: int = index) -> int:
            return sum(int(getattr(part, name)[index]) for part in stacked)

        valid, total, squares = added("valid"), added("total"), added("squares")
        seen = [part for part in stacked if part.valid[index]]
        mean = fractions.Fraction(total, valid) if valid else fractions.Fraction(0)
        variance = fractions.Fraction(squares, valid) - mean**2 if valid else fractions.Fraction(0)
        merged.append(
            BandStatistics(
                band=band,
                mean=float(mean),
                std=math.sqrt(variance),
                minimum=min((int(part.minimum[index]) for part in seen), default=0),
                maximum=max((int(part.maximum[index]) for part in seen), default=0),
                valid=valid,
                nodata=added("nodata"),
            )
        )
    return tuple(merged)
