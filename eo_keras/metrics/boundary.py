"""Scores of class boundaries, as counts that add up over images: F1 within a tolerance, and boundary IoU. NumPy only.

Distances are Euclidean, in pixels, center to center, and exact. Pixels whose truth is not known are no boundary and
make none, and neither does the image's edge: they do not show where a class ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from eo_keras.metrics.confusion import ratio

_MOST_BITS = 64
_WIDTH = 0.02
"""Share of an image's diagonal that a boundary region is wide."""


def boundary_counts(
    labels: np.ndarray, predictions: np.ndarray, known: np.ndarray, num_classes: int, tolerances: Sequence[float]
) -> np.ndarray:
    """Counts boundary pixels of a prediction and of the truth, and those that have a counterpart.

    A class's boundary are those of its pixels that touch a pixel of another class by a side.

    Args:
        labels: integers (height, width), 0..num_classes - 1 where known.
        predictions: integers (height, width), 0..num_classes - 1.
        known: bool (height, width), whether a pixel's truth is known.
        num_classes: number of classes C.
        tolerances: T largest distances in pixels of a counterpart of the same class.

    Returns:
        int64 (2 + 2 T, C), by class: boundary pixels of the prediction, and of the truth; for each tolerance those of
        the prediction near the true boundary, and those of the truth near the predicted one.
    """
    true, predicted = (_boundary(classes, known) for classes in (labels, predictions))
    counts = np.zeros((2 + 2 * len(tolerances), num_classes), np.int64)
    for side, (classes, boundary, others, other_boundary) in enumerate(
        ((predictions, predicted, labels, true), (labels, true, predictions, predicted))
    ):
        at_boundary = classes[boundary]
        counts[side] = np.bincount(at_boundary, minlength=num_classes)
        near = _near(classes, boundary, others, other_boundary, num_classes, tolerances)
        for place, there in enumerate(near):
            counts[2 + 2 * place + side] = np.bincount(at_boundary[there], minlength=num_classes)
    return counts


def boundary_f1(
    predicted: np.ndarray, predicted_near: np.ndarray, true: np.ndarray, true_near: np.ndarray
) -> np.ndarray:
    """Returns the F1 of boundaries by class (Csurka et al. 2013, BMVC).

    Precision is the share of the predicted boundary that is near the true one, recall the share of the true boundary
    near the predicted one. Unlike in the paper, which averages over images, the counts of all images are added up
    first: an image with two pixels of boundary does not count as much as one with a thousand.

    Args:
        predicted: (..., C) pixels of the predicted boundary.
        predicted_near: (..., C) those of them near the true boundary.
        true: (..., C) pixels of the true boundary.
        true_near: (..., C) those of them near the predicted boundary.

    Returns:
        float64 (..., C); NaN where a class has no boundary, neither in truth nor in the prediction.
    """
    precision, recall = ratio(predicted_near, predicted), ratio(true_near, true)
    f1 = ratio(2 * precision * recall, precision + recall)
    return np.where(predicted + true > 0, f1, np.nan)


def region_counts(
    labels: np.ndarray, predictions: np.ndarray, known: np.ndarray, num_classes: int, width: float
) -> np.ndarray:
    """Counts pixels of boundary regions, those of a class that are near a pixel of another one.

    Args:
        labels: integers (height, width), 0..num_classes - 1 where known.
        predictions: integers (height, width), 0..num_classes - 1.
        known: bool (height, width), whether a pixel's truth is known.
        num_classes: number of classes C, 255 at the most.
        width: largest distance in pixels to the other class's nearest pixel whose truth is known.

    Returns:
        int64 (3, C), by class: pixels in its region of both truth and prediction; of the truth; of the prediction.
    """
    true, predicted = (_region(classes, known, width) for classes in (labels, predictions))
    both = true & predicted & (labels == predictions)
    pixels = (labels[both], labels[true], predictions[predicted])
    return np.stack([np.bincount(one, minlength=num_classes) for one in pixels]).astype(np.int64)


def region_width(shape: tuple[int, int]) -> int:
    """Returns the width in pixels of the boundary regions of an image: 2 % of its diagonal, as published.

    Cheng et al. 2021, Boundary IoU, arXiv:2103.16562, section 4. Their program moves from pixel to pixel over corners
    too, and takes the image's edge for a boundary; see `region_counts`.

    Args:
        shape: height and width in pixels.
    """
    return max(1, round(_WIDTH * math.hypot(*shape)))


def boundary_iou(both: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of boundary regions by class (Cheng et al. 2021, equation 1).

    Args:
        both: (..., C) pixels in the regions of both truth and prediction.
        true: (..., C) pixels in the region of the truth.
        predicted: (..., C) pixels in the region of the prediction.

    Returns:
        float64 (..., C); NaN where a class has no boundary, neither in truth nor in the prediction.
    """
    union = true + predicted - both
    return np.where(union > 0, ratio(both, union), np.nan)


def _boundary(classes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns which pixels have a known neighbor of another class above, below, left or right."""
    boundary = np.zeros(classes.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (classes[one] != classes[other]) & known[one] & known[other]
        boundary[one] |= differs
        boundary[other] |= differs
    return boundary


def _region(classes: np.ndarray, known: np.ndarray, width: float) -> np.ndarray:
    """Returns which known pixels have a known pixel of another class no further away than the width."""
    numbers, region = classes.astype(np.uint8), np.zeros(classes.shape, bool)
    # Where all pixels nearby are of one class, its number is both the largest and the smallest of them.
    for own in (numbers + np.uint8(1), np.uint8(255) - numbers):
        region |= _widened(np.where(known, own, np.uint8(0)), width, np.maximum) != own
    return region & known


def _near(
    classes: np.ndarray,
    boundary: np.ndarray,
    others: np.ndarray,
    other_boundary: np.ndarray,
    num_classes: int,
    tolerances: Sequence[float],
) -> np.ndarray:
    """Returns for each tolerance and boundary pixel, in order, whether the other mask has one of its class nearby."""
    at_boundary = classes[boundary]
    near = np.zeros((len(tolerances), len(at_boundary)), bool)
    # One bit a class, so that all classes are widened at once.
    for first in range(0, num_classes, _MOST_BITS):
        here = min(_MOST_BITS, num_classes - first)
        kind = next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if np.dtype(kind).itemsize * 8 >= here)
        bits = np.zeros(classes.shape, kind)
        inside = other_boundary & (others >= first) & (others < first + here)
        bits[inside] = kind(1) << (others[inside].astype(kind) - kind(first))
        in_range = (at_boundary >= first) & (at_boundary < first + here)
        place = at_boundary[in_range].astype(kind) - kind(first)
        for row, tolerance in zip(near, tolerances, strict=True):
            nearby = _widened(bits, tolerance, np.bitwise_or)[boundary][in_range]
            row[in_range] = (nearby >> place) & kind(1) > 0
    return near


def _widened(values: np.ndarray, distance: float, combine: np.ufunc) -> np.ndarray:
    """Combines every pixel's value with those of all pixels that are no further away; 0 must change nothing."""
    wide, result, reached = values.copy(), np.zeros_like(values), 0
    # From the disk's top to its middle its rows get longer, so that each row of it is made of the one before.
    for down in range(int(distance), -1, -1):
        half = int(math.sqrt(distance**2 - down**2) + 1e-9)
        for right in range(reached + 1, half + 1):
            combine(wide[:, right:], values[:, :-right], out=wide[:, right:])
            combine(wide[:, :-right], values[:, right:], out=wide[:, :-right])
        reached = half
        rest = max(0, len(wide) - down)
        combine(result[down:], wide[:rest], out=result[down:])
        combine(result[:rest], wide[down:], out=result[:rest])
    return result
