"""Confusion matrices, and the scores that follow from the counts of correct, true and predicted examples by class.

Examples are patches or pixels; the counts add up over images, devices and workers. NumPy only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eo_keras.errors import LegendError
from eo_keras.metrics.estimate import BOOTSTRAP, Estimate


def confusion_matrix(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    num_classes: int,
    *,
    ignore: int | None = None,
    where: str | None = None,
) -> np.ndarray:
    """Counts predicted classes by true class.

    Args:
        labels: true labels, integers 0..num_classes - 1 or `ignore`, any shape.
        predictions: predicted labels, integers 0..num_classes - 1, also where the truth is not known; the same shape.
        num_classes: number of classes C of the legend.
        ignore: label, no class, of examples whose truth is not known; None if there are none.
        where: the subject of the labels, for errors.

    Returns:
        int64 (C, C): rows true, columns predicted.

    Raises:
        LegendError: if a label or a prediction is anything else.
        ValueError: if the shapes differ.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        at = f"{where}: " if where else ""
        raise ValueError(f"{at}labels have shape {labels.shape}, predictions {predictions.shape}")
    expected = f"0..{num_classes - 1}"
    _check_in_legend(predictions, num_classes, "predictions", where, expected)
    if ignore is not None:
        known = labels != ignore
        labels, predictions = labels[known], predictions[known]
        expected += f", or {ignore} where nothing is known"
    _check_in_legend(labels, num_classes, "labels", where, expected)
    # int64 before the arithmetic: label * C does not fit the uint8 of masks.
    pairs = labels.astype(np.int64).ravel() * num_classes + predictions.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=num_classes**2).astype(np.int64).reshape(num_classes, num_classes)


def _check_in_legend(values: np.ndarray, num_classes: int, name: str, where: str | None, expected: str) -> None:
    if not values.size:
        return
    if not np.issubdtype(values.dtype, np.integer):
        raise LegendError(where or name, f"{name} are {values.dtype}", f"whole numbers {expected}")
    if values.min() < 0 or values.max() >= num_classes:
        outside = values[(values < 0) | (values >= num_classes)]
        raise LegendError(
            where or name,
            f"{outside.size:,} of {values.size:,} {name} are outside the legend, such as {outside[0]}",
            expected,
            "use records and a model that were made with the same legend",
        )


def counts_of(matrix: np.ndarray) -> np.ndarray:
    """Returns the correct, true and predicted examples by class, (..., 3, C), of confusion matrices (..., C, C)."""
    return np.stack([np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1), matrix.sum(axis=-2)], axis=-2)


def scores_of(counts: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the scores of counts, by name.

    Precision, recall, F1 and kappa follow scikit-learn's definitions with `zero_division=nan`, IoU its `jaccard_score`.
    Means over classes are over those that have examples. Kappa: Cohen 1960, Educational and Psychological Measurement
    20(1).

    Args:
        counts: (..., 3, C) correct, true and predicted examples by class.

    Returns:
        float64 (..., C) of each class, and (...) of all; NaN where a score is not defined. `by_chance` is the accuracy
        that chance would give.
    """
    hits, support, predicted = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    union, total = support + predicted - hits, support.sum(axis=-1)
    by_class = {
        "iou": ratio(hits, union),
        "precision": np.where(predicted > 0, ratio(hits, predicted), np.nan),
        "recall": ratio(hits, support),
        "f1": ratio(2 * hits, support + predicted),
    }
    by_class = {name: np.where(support > 0, values, np.nan) for name, values in by_class.items()}
    observed = ratio(hits.sum(axis=-1), total)
    by_chance = ratio((support * predicted).sum(axis=-1), total**2)
    # Of the counts and not of `by_chance`, which may miss 1 by a rounding error.
    several = (union > 0).sum(axis=-1) > 1
    overall = {
        "accuracy": observed,
        "by_chance": by_chance,
        "kappa": np.divide(observed - by_chance, 1 - by_chance, out=np.full(observed.shape, np.nan), where=several),
        "macro_f1": mean_of_classes(by_class["f1"]),
        "miou": mean_of_classes(by_class["iou"]),
        "frequency_weighted_iou": ratio(np.nansum(support * by_class["iou"], axis=-1), total),
    }
    return by_class, {name: np.where(total > 0, values, np.nan) for name, values in overall.items()}


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divides, with 0 where the denominator is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def mean_of_classes(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the last axis without NaN; NaN where all are."""
    count = (~np.isnan(values)).sum(axis=-1)
    return np.where(count > 0, ratio(np.nansum(values, axis=-1), count), np.nan)


def kappa_estimate(
    value: float, accuracy: Estimate, by_chance: float, drawn: np.ndarray | None = None
) -> Estimate | None:
    """Returns kappa with its interval, by the method of the accuracy's; None if it is NaN.

    Args:
        value: kappa.
        accuracy: the accuracy with its interval.
        by_chance: the accuracy that chance would give, below 1 unless kappa is NaN.
        drawn: (resamples,) kappa of each resample, where the accuracy's interval is of a bootstrap.
    """
    if np.isnan(value):
        return None
    if accuracy.method == BOOTSTRAP:
        ends = tuple(np.percentile(drawn[~np.isnan(drawn)], [2.5, 97.5]))
    else:
        # Kappa rises linearly with the accuracy, from 0 at what chance gives to 1.
        ends = tuple((end - by_chance) / (1 - by_chance) for end in (accuracy.low, accuracy.high))
    return Estimate(float(value), max(-1.0, float(ends[0])), float(ends[1]), accuracy.method)
