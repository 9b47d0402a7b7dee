"""Counts of objects that a mask finds: connected areas of one class, matched between truth and prediction.

An object is a set of pixels of the class that are connected by their sides, of those whose truth is known. What the
image's edge or unknown truth cuts off is cut off from truth and prediction alike, and the rest counts as an object: a
building on the border of two tiles counts in both of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eo_keras.errors import OptionError
from eo_keras.metrics.confusion import ratio

COUNTS = ("object_matched", "object_true", "object_predicted")
"""Names of the counts of `object_counts`."""


def object_class(class_names: Sequence[str], chosen: str | None = None) -> str | None:
    """Returns the class that objects are counted of: a chosen one, else the second of two, else None.

    Raises:
        OptionError: if the chosen one is no class.
    """
    if chosen is None:
        return class_names[1] if len(class_names) == 2 else None
    if chosen not in class_names:
        raise OptionError("object_class", f"'{chosen}'", f"one of {', '.join(class_names)}")
    return chosen


def object_counts(labels: np.ndarray, predictions: np.ndarray, known: np.ndarray, of_class: int) -> np.ndarray:
    """Counts objects of a class, and those that truth and prediction have in common.

    Two objects match where their intersection over union is above 0.5, so that each has one match at the most (Kirillov
    et al. 2019, Panoptic Segmentation, arXiv:1801.00868, section 4.1).

    Args:
        labels: integers (height, width).
        predictions: integers (height, width).
        known: bool (height, width), whether a pixel's truth is known.
        of_class: number of the class.

    Returns:
        int64 (3,): matches, true objects and predicted objects.
    """
    from scipy import ndimage  # takes a third of a second, and every command reads the tasks' scores

    (true, trues), (predicted, found) = (
        ndimage.label(known & (classes == of_class)) for classes in (labels, predictions)
    )
    shared = (true > 0) & (predicted > 0)
    pairs = true[shared].astype(np.int64) * (found + 1) + predicted[shared]
    pairs, common = np.unique(pairs, return_counts=True)
    areas = np.bincount(true.ravel())[pairs // (found + 1)] + np.bincount(predicted.ravel())[pairs % (found + 1)]
    return np.array([np.count_nonzero(3 * common > areas), trues, found], np.int64)


def object_scores(matched: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the scores of counts (...) of objects by name; NaN where there is no object to count."""
    return {
        "object_precision": np.where(predicted > 0, ratio(matched, predicted), np.nan),
        "object_recall": np.where(true > 0, ratio(matched, true), np.nan),
        "object_f1": np.where(true + predicted > 0, ratio(2 * matched, true + predicted), np.nan),
    }
