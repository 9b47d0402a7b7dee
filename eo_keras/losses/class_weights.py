"""Class weights of a loss, from the numbers of pixels in the training split. NumPy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eo_keras.errors import OptionError


def median_frequency_weights(counts: npt.ArrayLike, occurring: npt.ArrayLike | None = None) -> tuple[float, ...]:
    """Returns class weights by median frequency (Eigen and Fergus 2015, arXiv 1411.4734, on semantic labels).

    A class's frequency is its number of pixels as a share of all labeled pixels of those images in which it occurs;
    its weight is the median of all frequencies divided by its own.

    Args:
        counts: int64 (C,) pixels of each class in the training split.
        occurring: int64 (C,) labeled pixels of the images in which each class occurs; None takes every class to occur
            in every image, so that a class that is rare among images weighs more.

    Returns:
        C weights; 0 for a class without a pixel, which is left out of the median.

    Raises:
        OptionError: if the numbers are no counts.
    """
    counts = _counts("counts", counts)
    totals = np.full(len(counts), counts.sum()) if occurring is None else _counts("occurring", occurring)
    if totals.shape != counts.shape or (totals < counts).any():
        found = f"{totals.tolist()} for classes of {counts.tolist()} pixels"
        raise OptionError("occurring", found, "one number a class, no smaller than that of its pixels")
    frequencies = np.divide(counts, totals, out=np.zeros(len(counts)), where=counts > 0)
    median = np.median(frequencies[counts > 0])
    return tuple(np.divide(median, frequencies, out=np.zeros(len(counts)), where=counts > 0).tolist())


def effective_number_weights(counts: npt.ArrayLike, beta: float) -> tuple[float, ...]:
    """Returns class weights by effective number (Cui et al. 2019, arXiv 1901.05555, section 4).

    Of n samples, `(1 - beta ** n) / (1 - beta)` are taken to be new; a class's weight is proportional to the inverse,
    and the weights' mean is 1. The effective number grows to `1 / (1 - beta)` and no further: with the 0.9 to 0.9999 of
    the paper, which counts images, all classes of millions of pixels weigh the same. With 1 - beta far below the
    inverse of the largest count, the weights are those of the inverse frequency.

    Args:
        counts: int64 (C,) pixels of each class in the training split.
        beta: from [0, 1).

    Returns:
        C weights; 0 for a class without a pixel, which is left out of the mean.

    Raises:
        OptionError: if the numbers are no counts, or beta is out of range.
    """
    counts = _counts("counts", counts)
    if not 0 <= beta < 1:
        raise OptionError("beta", f"{beta}", "a number in [0, 1)")
    if beta == 0:
        return tuple((counts > 0).astype(float).tolist())
    # 1 - beta ** n by its logarithm: beta is so near to 1 that the power would lose most of its digits.
    shares = -np.expm1(counts * np.log(beta))
    weights = np.divide(1.0, shares, out=np.zeros(len(counts)), where=counts > 0)
    return tuple((weights * np.count_nonzero(counts) / weights.sum()).tolist())


def _counts(name: str, values: npt.ArrayLike) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer) or (values < 0).any() or not values.any():
        raise OptionError(name, f"{values.tolist()}", "the number of pixels of each class, one of them above 0")
    return values.astype(np.int64)
