"""Scores of a classification of patches, from predicted probabilities. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eo_keras.errors import EOKerasError, LegendError, OptionError
from eo_keras.metrics import calibration, confusion
from eo_keras.metrics.estimate import RESAMPLES, SEED, Estimate, of_resamples, proportion
from eo_keras.metrics.scores import Scores

_SUM_TOLERANCE = 1e-3
_DRAWS = 4_000_000
"""Largest number of array entries that are drawn at once."""


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
    counts = confusion.counts_of(matrix)
    of_class, of_all = confusion.scores_of(counts)
    drawn_of_class, drawn_of_all = confusion.scores_of(_resampled(matrix, resamples, seed))
    count, averaged = len(labels), int((counts[1] > 0).sum())
    accuracy = proportion(of_all["accuracy"], count)
    by_class = {}
    for k, (name, (_, support, predicted)) in enumerate(zip(class_names, counts.T.tolist(), strict=True)):
        by_class[name] = {
            "support": support,
            "predicted": predicted,
            "precision": _proportion(of_class["precision"][k], predicted),
            "recall": _proportion(of_class["recall"][k], support),
            "f1": of_resamples(of_class["f1"][k], drawn_of_class["f1"][:, k], support),
        }
    reliability = calibration.reliability(labels, probabilities, bins)
    return Scores(
        task="classification",
        primary="accuracy",
        unit="examples",
        count=count,
        overall={
            "accuracy": accuracy,
            "macro_f1": of_resamples(of_all["macro_f1"], drawn_of_all["macro_f1"], count),
            "kappa": confusion.kappa_estimate(of_all["kappa"], accuracy, of_all["by_chance"]),
            **calibration.score_probabilities(labels, probabilities, reliability).estimates(),
        },
        by_class=by_class,
        confusion=tuple(tuple(row) for row in matrix.tolist()),
        details={"averaged_classes": averaged, "resamples": int(resamples), "seed": int(seed)},
        reliability=reliability,
    )


def _proportion(share: float, count: int) -> Estimate | None:
    return None if np.isnan(share) else proportion(share, count)


def _resampled(matrix: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Returns the counts (resamples, 3, C) of samples of as many examples, drawn with replacement."""
    random, classes = np.random.default_rng(seed), len(matrix)
    true, predicted = np.nonzero(matrix)
    pairs = matrix[true, predicted]
    counts, at_once = [], max(1, _DRAWS // (len(pairs) + classes**2))
    for first in range(0, resamples, at_once):
        drawn = random.multinomial(pairs.sum(), pairs / pairs.sum(), min(at_once, resamples - first))
        matrices = np.zeros((len(drawn), classes, classes), np.int64)
        matrices[:, true, predicted] = drawn
        counts.append(confusion.counts_of(matrices))
    return np.concatenate(counts)


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
