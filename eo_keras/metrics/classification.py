"""Scores of a classification of patches, from predicted probabilities. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eo_keras.errors import EOKerasError, LegendError, OptionError
from eo_keras.metrics import calibration, confusion
from eo_keras.metrics.agreement import score_examples
from eo_keras.metrics.estimate import RESAMPLES, SEED
from eo_keras.metrics.scores import Scores

_SUM_TOLERANCE = 1e-3


def score_classification(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    bins: int = calibration.BINS,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Scores:
    """Scores predicted probabilities against true labels.

    The prediction is the most probable class, the first one of equals. Scores are those of `confusion.scores_of` and of
    `calibration.score_probabilities`. Intervals of accuracy, precision and recall are Wilson's, kappa's follows from
    the accuracy's; those of F1 are percentile intervals of a bootstrap over examples. All of them take the examples to
    be independent of each other; neighboring patches of one scene are not, and their intervals are too narrow.

    Args:
        labels: (N,) integers, true labels.
        probabilities: (N, C) real numbers, predicted probabilities; rows sum to 1 within 1e-3.
        class_names: C names in the legend's order.
        bins: number of equal-width bins of the calibration error (15 in Guo et al. 2017).
        resamples: number of resamples of the bootstrap.
        seed: seed of them.

    Returns:
        The scores.

    Raises:
        LegendError: if a label is outside the legend, or the number of columns is not that of the names.
        OptionError: if `bins` or `resamples` is less than 1.
        EOKerasError: if there is no example, or a row of probabilities is not finite, negative or does not sum to 1.
        ValueError: if the shapes do not fit.
    """
    for name, value in (("bins", bins), ("resamples", resamples)):
        if value < 1:
            raise OptionError(name, f"it is {value}", "at least 1")
    labels = np.asarray(labels)
    probabilities = np.asarray(probabilities).astype(np.float64)
    _check_probabilities(labels, probabilities, class_names)

    matrix = confusion.confusion_matrix(labels, probabilities.argmax(axis=1), len(class_names))
    scores = score_examples(
        matrix,
        class_names,
        task="classification",
        unit="examples",
        of_class=("precision", "recall", "f1"),
        of_all=("accuracy", "macro_f1", "kappa"),
        resamples=resamples,
        seed=seed,
    )
    reliability = calibration.reliability(labels, probabilities, bins)
    of_probabilities = calibration.score_probabilities(labels, probabilities, reliability).estimates()
    return dataclasses.replace(scores, overall={**scores.overall, **of_probabilities}, reliability=reliability)


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
