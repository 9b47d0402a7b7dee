"""Scores of a classification: accuracy with its interval, scores by class, agreement beyond chance, calibration.

NumPy only, so that scores can be computed and checked where no deep-learning framework is installed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eo_keras.errors import EOKerasError, LegendError, OptionError
from eo_keras.metrics import estimate

_SUM_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """Scores of one class; all are None where it has no examples: a share of nothing does not exist.

    Attributes:
        name: the class's name.
        precision: share of the predictions of this class that are right; None too if there are none.
        recall: share of this class's examples that were found.
        f1: harmonic mean of precision and recall, 2 * right / (predicted + examples).
        support: number of examples of this class.
        predicted: number of predictions of this class.
        precision_interval: lower and upper end of the precision's 95 % interval.
        recall_interval: likewise of the recall.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int
    precision_interval: tuple[float, float] | None
    recall_interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class ReliabilityBin:
    """The predictions whose top probability lies in (lower, upper].

    Attributes:
        lower: lower edge, not part of the bin (but 0 belongs to the first one).
        upper: upper edge, part of the bin.
        count: number of predictions in the bin.
        confidence: mean top probability in the bin; 0 if it is empty.
        accuracy: share of right predictions in the bin; 0 if it is empty.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class ClassificationScores:
    """All scores of one evaluation; shares are fractions of 1, not per cent.

    Attributes:
        count: number of examples.
        accuracy: share of right predictions (overall accuracy).
        accuracy_low: lower end of the 95 % interval of the accuracy.
        accuracy_high: its upper end.
        macro_f1: unweighted mean of F1 over the classes that have examples.
        macro_classes: number of these classes.
        kappa: Cohen's kappa; None where labels and predictions are all of one class: it is not defined there.
        expected_calibration_error: mean distance between confidence and accuracy, weighted by the bins' counts.
        classes: scores by class, in the legend's order.
        confusion: counts, rows true and columns predicted, in the legend's order.
        reliability: the bins of the calibration error, by confidence.
        interval: method of the intervals; `metrics.json` files without this entry hold those of a bootstrap.
    """

    count: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    macro_classes: int
    kappa: float | None
    expected_calibration_error: float
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[ReliabilityBin, ...]
    interval: str = estimate.WILSON

    def to_json(self) -> dict[str, Any]:
        """Returns the scores as plain dictionaries, lists and numbers, equal to what `json.loads` gives back."""
        content = dataclasses.asdict(self)
        ends = ("precision_interval", "recall_interval")
        content["classes"] = [
            one | {name: one[name] and list(one[name]) for name in ends} for one in content["classes"]
        ]
        content["confusion"] = [list(row) for row in self.confusion]
        content["reliability"] = list(content["reliability"])
        return content


def confusion_matrix(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int) -> np.ndarray:
    """Counts how often each class was predicted for each true class.

    Args:
        labels: true labels, integers 0..num_classes - 1, any shape.
        predictions: predicted labels, likewise, the same shape.
        num_classes: number of classes C of the legend.

    Returns:
        int64 (C, C): rows true, columns predicted.

    Raises:
        LegendError: if a label or a prediction is not a whole number within the legend.
        ValueError: if the shapes differ.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise ValueError(f"labels have shape {labels.shape}, predictions {predictions.shape}")
    for name, values in (("labels", labels), ("predictions", predictions)):
        _check_in_legend(name, values, num_classes)
    # int64 before the arithmetic: label * C does not fit the uint8 in which label maps come.
    pairs = labels.astype(np.int64).ravel() * num_classes + predictions.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=num_classes**2).astype(np.int64).reshape(num_classes, num_classes)


def score_classification(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    bins: int = 15,
) -> ClassificationScores:
    """Scores predicted probabilities against true labels.

    The prediction is the most probable class, the first one of equals. Precision, recall, F1 and kappa follow
    scikit-learn's definitions with `zero_division=nan`; macro F1 is the mean over the classes that have examples.
    Kappa: Cohen 1960, Educational and Psychological Measurement 20(1). Intervals: `estimate.wilson`, which takes the
    examples for independent of each other; neighbouring patches of one scene are not, and theirs are too narrow.

    Args:
        labels: (N,) integers, true labels.
        probabilities: (N, C) real numbers, predicted probabilities; rows sum to 1 within 1e-3.
        class_names: C names in the legend's order.
        bins: number of equal-width bins of the calibration error (15 in Guo et al. 2017).

    Returns:
        The scores.

    Raises:
        LegendError: if a label is outside the legend, or the number of columns is not that of the names.
        OptionError: if `bins` is less than 1.
        EOKerasError: if there is no example, or a row of probabilities is not finite, negative or does not sum to 1.
        ValueError: if the shapes do not fit.
    """
    if bins < 1:
        raise OptionError("bins", f"it is {bins}", "at least 1")
    labels = np.asarray(labels)
    probabilities = np.asarray(probabilities).astype(np.float64)
    _check_probabilities(labels, probabilities, class_names)

    predictions = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predictions, len(class_names))
    count = len(labels)
    right = int(np.trace(confusion))
    low, high = estimate.wilson(right / count, count)
    classes = _class_scores(confusion, class_names)
    found = [scores.f1 for scores in classes if scores.f1 is not None]
    by_confidence = reliability(labels, probabilities, bins)
    return ClassificationScores(
        count=count,
        accuracy=right / count,
        accuracy_low=low,
        accuracy_high=high,
        macro_f1=float(np.mean(found)),
        macro_classes=len(found),
        kappa=_kappa(confusion),
        expected_calibration_error=expected_calibration_error(by_confidence),
        classes=classes,
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
        reliability=by_confidence,
    )


def agreement(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Returns the share of examples for which two sets of predictions are equal.

    Args:
        first: (N,) predicted labels.
        second: (N,) predicted labels of the same examples in the same order.

    Raises:
        EOKerasError: if there is no example.
        ValueError: if the shapes differ.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        raise ValueError(f"predictions of shapes {first.shape} and {second.shape} cannot be compared")
    if not first.size:
        raise EOKerasError("predictions", "there are none", "at least one example")
    return float(np.mean(first == second))


def _check_in_legend(name: str, values: np.ndarray, num_classes: int) -> None:
    if values.size and not np.issubdtype(values.dtype, np.integer):
        raise LegendError(name, f"they are {values.dtype}", f"whole numbers 0..{num_classes - 1}")
    outside = np.flatnonzero((values < 0) | (values >= num_classes))
    if outside.size:
        raise LegendError(
            name,
            f"number {outside[0]} is {values.ravel()[outside[0]]}; {outside.size} of {values.size} are outside",
            f"0..{num_classes - 1}",
            "use records and a model that were made with the same legend",
        )


def _check_probabilities(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(f"labels (N,) and probabilities (N, C) have shapes {labels.shape} and {probabilities.shape}")
    if probabilities.shape[1] != len(class_names):
        raise LegendError(
            "probabilities", f"{probabilities.shape[1]} columns", f"the legend's {len(class_names)} classes"
        )
    if not len(labels):
        raise EOKerasError(
            "probabilities", "there are none", "at least one example", "check the split that is evaluated"
        )
    sums = probabilities.sum(axis=1)
    # NaN and infinity fail the comparison, too; a negative one can hide in a sum of 1.
    good = (np.abs(sums - 1) <= _SUM_TOLERANCE) & (probabilities >= 0).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        raise EOKerasError(
            f"probabilities, row {row}",
            f"{np.array2string(probabilities[row], precision=4, threshold=20)} sums to {sums[row]:.6g}",
            "finite numbers from 0 to 1 that sum to 1",
            f"{np.count_nonzero(~good)} of {len(good)} rows are like this: look for weights that are not finite, or "
            "for logits without softmax",
        )


def _class_scores(confusion: np.ndarray, class_names: Sequence[str]) -> tuple[ClassScores, ...]:
    found = []
    for name, hits, support, predicted in zip(
        class_names,
        np.diag(confusion).tolist(),
        confusion.sum(axis=1).tolist(),
        confusion.sum(axis=0).tolist(),
        strict=True,
    ):
        if not support:
            found.append(ClassScores(name, None, None, None, 0, predicted, None, None))
            continue
        precision = hits / predicted if predicted else None
        found.append(
            ClassScores(
                name,
                precision,
                hits / support,
                2 * hits / (predicted + support),
                support,
                predicted,
                None if precision is None else estimate.wilson(precision, predicted),
                estimate.wilson(hits / support, support),
            )
        )
    return tuple(found)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divides, with 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


def _kappa(confusion: np.ndarray) -> float | None:
    shares = confusion / confusion.sum()
    observed = np.trace(shares)
    by_chance = shares.sum(axis=1) @ shares.sum(axis=0)
    occurring = np.count_nonzero(confusion.sum(axis=0) + confusion.sum(axis=1))
    # Of the counts and not of `by_chance`, which may miss 1 by a rounding error.
    return None if occurring == 1 else float((observed - by_chance) / (1 - by_chance))


def reliability(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 15) -> tuple[ReliabilityBin, ...]:
    """Sorts predictions into equal-width bins ((m - 1) / M, m / M] of confidence (Guo et al. 2017, section 2).

    Args:
        labels: (N,) integers, true labels.
        probabilities: (N, C) predicted probabilities.
        bins: number M of bins.
    """
    probabilities = np.asarray(probabilities, np.float64)
    right = probabilities.argmax(axis=1) == np.asarray(labels)
    edges = np.linspace(0.0, 1.0, bins + 1)
    # Within the tolerance a row may exceed 1; it belongs to the last bin, as 1 does.
    confidences = np.minimum(probabilities.max(axis=1), 1.0)
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    mean_confidence = _ratio(np.bincount(places, weights=confidences, minlength=bins), counts)
    accuracy = _ratio(np.bincount(places, weights=right, minlength=bins), counts)
    return tuple(
        ReliabilityBin(
            float(edges[m]), float(edges[m + 1]), int(counts[m]), float(mean_confidence[m]), float(accuracy[m])
        )
        for m in range(bins)
    )


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """ECE of Guo et al. 2017 (arXiv 1706.04599), section 2, equation 3."""
    total = sum(part.count for part in bins)
    return float(sum(part.count * abs(part.accuracy - part.confidence) for part in bins) / total)
