"""Boundary F1: agreement of predicted and true class boundaries, as counts that add up over images.

A class's boundary are those of its pixels that touch a pixel of another class by a side. Pixels whose truth is not
known are no boundary and make none: neither they nor the image's edge show where a class ends. NumPy only.
"""

from __future__ import annotations

import math

import numpy as np

from eo_keras.metrics.confusion import ratio

_MOST_BITS = 64


def boundary_counts(
    labels: np.ndarray, predictions: np.ndarray, known: np.ndarray, num_classes: int, tolerance: float
) -> np.ndarray:
    """Counts boundary pixels of the truth and of a prediction, and those that have a counterpart.

    Args:
        labels: integers (height, width), 0..num_classes - 1 where known.
        predictions: integers (height, width), 0..num_classes - 1.
        known: bool (height, width), whether a pixel's truth is known.
        num_classes: number of classes C.
        tolerance: largest distance in pixels, center to center, of a counterpart of the same class.

    Returns:
        int64 (4, C), by class: boundary pixels of the prediction; those of them near the true boundary; boundary pixels
        of the truth; those of them near the predicted boundary.
    """
    true, predicted = (_boundary(classes, known) for classes in (labels, predictions))
    rows = []
    for classes, boundary, others, other_boundary in (
        (predictions, predicted, labels, true),
        (labels, true, predictions, predicted),
    ):
        at_boundary = classes[boundary]
        near = at_boundary[_near(classes, boundary, others, other_boundary, num_classes, tolerance)]
        rows += [np.bincount(one, minlength=num_classes) for one in (at_boundary, near)]
    return np.stack(rows).astype(np.int64)


def boundary_f1(counts: np.ndarray) -> np.ndarray:
    """Returns the F1 of boundaries by class (Csurka et al. 2013, BMVC).

    Precision is the share of the predicted boundary that is near the true one, recall the share of the true boundary
    near the predicted one. Unlike in the paper, which averages over images, the counts of all images are added up
    first: an image with two pixels of boundary does not count as much as one with a thousand.

    Args:
        counts: (..., 4, C), see `boundary_counts`.

    Returns:
        float64 (..., C); NaN where a class has no boundary, neither in truth nor in the prediction.
    """
    predicted, predicted_near, true, true_near = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    precision, recall = ratio(predicted_near, predicted), ratio(true_near, true)
    f1 = ratio(2 * precision * recall, precision + recall)
    return np.where(predicted + true > 0, f1, np.nan)


def _boundary(classes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns which pixels have a known neighbor of another class above, below, left or right."""
    boundary = np.zeros(classes.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (classes[one] != classes[other]) & known[one] & known[other]
        boundary[one] |= differs
        boundary[other] |= differs
    return boundary


def _near(
    classes: np.ndarray,
    boundary: np.ndarray,
    others: np.ndarray,
    other_boundary: np.ndarray,
    num_classes: int,
    tolerance: float,
) -> np.ndarray:
    """Returns for each boundary pixel, in their order, whether the other mask has one of the same class nearby."""
    at_boundary = classes[boundary]
    near = np.zeros(len(at_boundary), bool)
    # One bit a class, so that all classes are widened at once.
    for first in range(0, num_classes, _MOST_BITS):
        here = min(_MOST_BITS, num_classes - first)
        kind = next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if np.dtype(kind).itemsize * 8 >= here)
        bits = np.zeros(classes.shape, kind)
        inside = other_boundary & (others >= first) & (others < first + here)
        bits[inside] = kind(1) << (others[inside].astype(kind) - kind(first))
        in_range = (at_boundary >= first) & (at_boundary < first + here)
        nearby = _widened(bits, tolerance)[boundary][in_range]
        near[in_range] = (nearby >> (at_boundary[in_range].astype(kind) - kind(first))) & kind(1) > 0
    return near


def _widened(bits: np.ndarray, tolerance: float) -> np.ndarray:
    """Spreads every pixel's bits over all pixels that are no further away than the tolerance."""
    wide, result, reached = bits.copy(), np.zeros_like(bits), 0
    # From the disk's top to its middle its rows get longer, so that each row of it is made of the one before.
    for down in range(int(tolerance), -1, -1):
        half = int(math.sqrt(tolerance**2 - down**2) + 1e-9)
        for right in range(reached + 1, half + 1):
            wide[:, right:] |= bits[:, :-right]
            wide[:, :-right] |= bits[:, right:]
        reached = half
        rest = max(0, len(wide) - down)
        result[down:] |= wide[:rest]
        result[:rest] |= wide[down:]
    return result
