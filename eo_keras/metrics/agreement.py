"""Scores of predicted classes from counts alone: of examples that are independent, or of clusters of pixels.

A map's user's accuracy is its precision, and its producer's accuracy its recall. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from eo_keras.errors import OptionError
from eo_keras.metrics import confusion
from eo_keras.metrics.estimate import RESAMPLES, SEED, Estimate, of_resamples, proportion, resampled
from eo_keras.metrics.scores import Scores

OF_CLASS = ("precision", "recall", "f1", "iou")
OF_ALL = ("accuracy", "macro_f1", "miou", "kappa")

_DRAWS = 4_000_000
"""Largest number of array entries that are drawn at once."""


def score_examples(
    matrix: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    task: str,
    unit: str,
    of_class: Sequence[str] = OF_CLASS,
    of_all: Sequence[str] = OF_ALL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Scores:
    """Scores examples that are independent of each other.

    Intervals of accuracy, precision and recall are Wilson's, kappa's follows from the accuracy's; those of the other
    scores are percentile intervals of a bootstrap over examples.

    Args:
        matrix: (C, C) counts, rows true and columns predicted; at least one example.
        class_names: names of the C classes.
        task: name of the task.
        unit: the counted unit, such as `points`.
        of_class: scores of a class, of `OF_CLASS`.
        of_all: scores over all classes, of `OF_ALL`.
        resamples: number of resamples.
        seed: seed of them.

    Raises:
        OptionError: if `resamples` is less than 1.
    """
    _check_resamples(resamples)
    matrix = np.asarray(matrix, np.int64)
    counts, count = confusion.counts_of(matrix), int(matrix.sum())
    by_class, overall = confusion.scores_of(counts)
    drawn_by_class, drawn_overall = confusion.scores_of(_resampled_examples(matrix, resamples, seed))
    accuracy = proportion(overall["accuracy"], count)
    found = {
        name: of_resamples(overall[name], drawn_overall[name], count) for name in of_all if name in ("macro_f1", "miou")
    }
    found["accuracy"] = accuracy
    found["kappa"] = confusion.kappa_estimate(overall["kappa"], accuracy, overall["by_chance"])

    def of_one(name: str, k: int) -> Estimate | None:
        _, support, predicted = counts[:, k].tolist()
        value = by_class[name][k]
        if name in ("precision", "recall"):
            return None if np.isnan(value) else proportion(value, predicted if name == "precision" else support)
        return of_resamples(value, drawn_by_class[name][:, k], support)

    return Scores(
        task=task,
        primary="accuracy",
        unit=unit,
        count=count,
        overall={name: found[name] for name in of_all},
        by_class=_by_class(counts, class_names, of_class, of_one),
        confusion=tuple(tuple(row) for row in matrix.tolist()),
        details={"averaged_classes": int((counts[1] > 0).sum()), "resamples": int(resamples), "seed": int(seed)},
    )


def score_clusters(
    matrix: npt.ArrayLike,
    sums: np.ndarray,
    class_names: Sequence[str],
    *,
    task: str,
    unit: str,
    clusters: str,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Scores:
    """Scores pixels that resemble each other within clusters, such as those of one polygon.

    Intervals are percentile intervals of a bootstrap over clusters, see `estimate.of_resamples`; a class's interval
    leaves out resamples without it.

    Args:
        matrix: (C, C) counts of pixels, rows true and columns predicted; at least one.
        sums: int64 (clusters, 3, C), correct, true and predicted pixels of each cluster; clusters without pixels are
            left out.
        class_names: names of the C classes.
        task: name of the task.
        unit: the counted unit, such as `pixels`.
        clusters: name of the clusters, such as `polygons`.
        resamples: number of resamples.
        seed: seed of them.

    Raises:
        OptionError: if `resamples` is less than 1.
    """
    _check_resamples(resamples)
    matrix = np.asarray(matrix, np.int64)
    sums = sums[sums.any(axis=(1, 2))]
    counts, holding = confusion.counts_of(matrix), (sums[:, 1] > 0).sum(axis=0)
    by_class, overall = confusion.scores_of(counts)
    drawn = [confusion.scores_of(each) for each in resampled(sums, resamples, seed)]
    drawn_by_class, drawn_overall = (
        {name: np.concatenate([each[name] for each in one]) for name in one[0]} for one in zip(*drawn, strict=True)
    )
    found = {name: of_resamples(overall[name], drawn_overall[name], len(sums)) for name in OF_ALL if name != "kappa"}
    found["kappa"] = confusion.kappa_estimate(
        overall["kappa"], found["accuracy"], overall["by_chance"], drawn_overall["kappa"]
    )

    def of_one(name: str, k: int) -> Estimate | None:
        return of_resamples(by_class[name][k], drawn_by_class[name][:, k], int(holding[k]))

    return Scores(
        task=task,
        primary="accuracy",
        unit=unit,
        count=int(matrix.sum()),
        overall={name: found[name] for name in OF_ALL},
        by_class=_by_class(counts, class_names, OF_CLASS, of_one),
        confusion=tuple(tuple(row) for row in matrix.tolist()),
        details={
            "averaged_classes": int((counts[1] > 0).sum()),
            "clusters": len(sums),
            "clusters_are": clusters,
            "resamples": int(resamples),
            "seed": int(seed),
        },
    )


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise OptionError("resamples", f"it is {resamples}", "at least 1")


def _by_class(
    counts: np.ndarray, class_names: Sequence[str], names: Sequence[str], of_one: Callable[[str, int], Estimate | None]
) -> dict[str, dict[str, Estimate | int | None]]:
    return {
        class_name: {"support": support, "predicted": predicted} | {name: of_one(name, k) for name in names}
        for k, (class_name, (_, support, predicted)) in enumerate(zip(class_names, counts.T.tolist(), strict=True))
    }


def _resampled_examples(matrix: np.ndarray, resamples: int, seed: int) -> np.ndarray:
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
