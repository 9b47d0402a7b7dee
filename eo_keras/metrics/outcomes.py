"""Outcomes of predictions example by example, which are paired to compare two models on the same examples. NumPy only.

A score's own interval is mostly about which examples are easy or hard; that is the same for both models of a pair, so
that a small difference can be more than chance though the intervals overlap.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from eo_keras.metrics import estimate, objects, segmentation
from eo_keras.metrics.estimate import RESAMPLES, SEED, TANGO, Estimate, paired_difference
from eo_keras.metrics.predictions import ClassPredictions
from eo_keras.metrics.segmentation import SegmentationScorer

_AT_ONCE = 500
"""Number of permutations computed at once."""


def compared_scores(sums: np.ndarray, rows: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the scores by which two models are compared, (...) of sums (..., R, C), by name, mIoU first."""
    _, found = segmentation.scores_of(sums, rows)
    others = (name for name in found if name.startswith("boundary_") or name == "object_f1")
    return {name: found[name] for name in ("miou", *others)}


@dataclasses.dataclass(frozen=True)
class Paired:
    """Difference of two models' scores on the same examples.

    Attributes:
        difference: the first model's score minus the second's.
        p_value: two-sided, of the hypothesis that both are equally good.
        only_first_correct: number of examples that only the first predicts correctly; None where examples are not
            either correct or incorrect.
        only_second_correct: likewise of the second.
    """

    difference: Estimate
    p_value: float
    only_first_correct: int | None = None
    only_second_correct: int | None = None


class Outcomes(Protocol):
    """Outcomes of one model's predictions.

    Attributes:
        keys: keys of the N examples.
        unit: name of the examples: `examples` or `tiles`.
        test: name of the test of a difference.
        method: a text on the computation of intervals and p-values.
    """

    keys: tuple[str, ...]
    unit: str
    test: str
    method: str

    @property
    def truth(self) -> np.ndarray:
        """True labels or counts of each example, (N, ...)."""
        ...

    def aligned(self, other: Outcomes) -> Outcomes:
        """Returns another model's outcomes of the same examples, in the order of these."""
        ...

    def paired(self, other: Outcomes, mine: Mapping[str, Any], its: Mapping[str, Any]) -> dict[str, Paired]:
        """Compares with another model's outcomes.

        Args:
            other: the other model's outcomes, aligned.
            mine: this model's scores by name, see `Scores.overall`.
            its: the other model's scores.

        Returns:
            The differences by the scores' names: the task's primary score first, then others that both models have.
        """
        ...


@dataclasses.dataclass(frozen=True)
class ExampleOutcomes:
    """Whether each of N examples is predicted correctly.

    Attributes:
        keys: their keys.
        truth: (N,) true labels.
        correct: bool (N,).
    """

    keys: tuple[str, ...]
    truth: np.ndarray
    correct: np.ndarray

    unit = "examples"
    test = "McNemar's test"
    method = (
        "95 % intervals: of accuracies Wilson's, of differences Tango's for two runs on the same examples; both are "
        "score intervals of proportions and take the examples to be independent. p is that of McNemar's exact test on "
        "the examples that only one of the two predicts correctly."
    )

    @classmethod
    def of(cls, predictions: ClassPredictions) -> ExampleOutcomes:
        """Returns the outcomes of predictions with keys."""
        return cls(predictions.keys, predictions.labels, predictions.correct)

    def aligned(self, other: ExampleOutcomes) -> ExampleOutcomes:
        """Returns another model's outcomes of the same examples, in the order of these."""
        order = _order(self.keys, other.keys)
        return ExampleOutcomes(self.keys, other.truth[order], other.correct[order])

    def paired(
        self, other: ExampleOutcomes, mine: Mapping[str, Any] | None = None, its: Mapping[str, Any] | None = None
    ) -> dict[str, Paired]:
        """Compares accuracies by Tango's interval and McNemar's test; see `Outcomes`. The scores are not needed."""
        first = int(np.count_nonzero(self.correct & ~other.correct))
        second = int(np.count_nonzero(other.correct & ~self.correct))
        examples = len(self.keys)
        difference = Estimate((first - second) / examples, *paired_difference(first, second, examples), TANGO)
        return {"accuracy": Paired(difference, mcnemar(first, second), first, second)}


@dataclasses.dataclass(frozen=True)
class PlaceOutcomes:
    """Counts of each of N tiles, resampled and swapped by places.

    Attributes:
        keys: keys of the tiles.
        sums: (N, R, C), see `SegmentationScorer.sums`.
        rows: names of the R rows.
        places: by key, a name of the ground that a tile shows, see `SegmentationScorer.scores`.
        resamples: number of resamples, and of permutations.
        seed: seed of both.
        compared: returns the compared scores by name, (...) of sums (..., R, C) and the names of the rows.
    """

    keys: tuple[str, ...]
    sums: np.ndarray
    rows: tuple[str, ...]
    places: Mapping[str, str] | None = None
    resamples: int = RESAMPLES
    seed: int = SEED
    compared: Callable[[np.ndarray, Sequence[str]], Mapping[str, np.ndarray]] = compared_scores

    unit = "tiles"
    test = "permutation test"

    @classmethod
    def of(
        cls,
        scorer: SegmentationScorer,
        places: Mapping[str, str] | None = None,
        *,
        resamples: int = RESAMPLES,
        seed: int = SEED,
    ) -> PlaceOutcomes:
        """Returns the outcomes of the tiles that were scored."""
        return cls(tuple(scorer.sums), np.stack(list(scorer.sums.values())), scorer.rows, places, resamples, seed)

    @property
    def truth(self) -> np.ndarray:
        """True pixels of each class, (N, C)."""
        return self.sums[:, 1]

    @property
    def method(self) -> str:
        """Text on the computation of intervals and p-values."""
        return (
            "95 % intervals are percentile intervals of a bootstrap over places, where tiles of the same ground are "
            f"one place, with {self.resamples:,} resamples; those of differences draw the same places for both runs. "
            "Of few places, and of scores that are the same in all draws, they are made of Wilson's intervals, which "
            "are wider. p is that of a permutation test that swaps the two runs' predictions place by place."
        )

    def aligned(self, other: PlaceOutcomes) -> PlaceOutcomes:
        """Returns another model's outcomes of the same tiles, in the order of these, for the same draws of places."""
        return dataclasses.replace(self, sums=other.sums[_order(self.keys, other.keys)], rows=other.rows)

    def paired(self, other: PlaceOutcomes, mine: Mapping[str, Any], its: Mapping[str, Any]) -> dict[str, Paired]:
        """Compares scores by a paired bootstrap and a permutation test over places; see `Outcomes`.

        Compared are the scores of `compared`: mIoU, the scores of boundaries, and the F1 of objects.

        If two models are equally good, their predictions of a place can be swapped (Good 2005, Permutation, Parametric
        and Bootstrap Tests of Hypotheses, chapter 3). Of the interval see `estimate.paired_resamples`.
        """
        rows = self._common_rows(other)
        first, second = (one._by_place[:, [one.rows.index(name) for name in rows]] for one in (self, other))
        p_values = self._p_values(first, second, rows)
        return {
            name: Paired(
                estimate.paired_resamples(mine[name], its[name], self.drawn[name] - other.drawn[name], len(first)),
                p_value,
            )
            for name, p_value in p_values.items()
            if mine.get(name) and its.get(name)
        }

    def _common_rows(self, other: PlaceOutcomes) -> list[str]:
        """Returns the rows of both: tolerances may differ, and objects may be of another class."""
        rows = [name for name in self.rows if name in other.rows]
        if objects.COUNTS[1] in rows:
            true, its = (one.sums[:, one.rows.index(objects.COUNTS[1])] for one in (self, other))
            if (true != its).any():
                rows = [name for name in rows if name not in objects.COUNTS]
        return rows

    @functools.cached_property
    def _by_place(self) -> np.ndarray:
        return segmentation.by_place(self.keys, self.sums, self.places).astype(np.float64)

    @functools.cached_property
    def drawn(self) -> dict[str, np.ndarray]:
        """The compared scores of each resample by name, (resamples,)."""
        resampled = estimate.resampled(self._by_place, self.resamples, self.seed)
        drawn = [self.compared(sums, self.rows) for sums in resampled]
        return {name: np.concatenate([one[name] for one in drawn]) for name in drawn[0]}

    @property
    def count(self) -> int:
        """Number of places."""
        return len(self._by_place)

    def estimates(self) -> dict[str, Estimate | None]:
        """Returns the compared scores by name, with intervals; None where one is not defined."""
        values = self.compared(self._by_place.sum(axis=0), self.rows)
        return {
            name: estimate.of_resamples(float(value), self.drawn[name], self.count) for name, value in values.items()
        }

    def _p_values(self, first: np.ndarray, second: np.ndarray, rows: Sequence[str]) -> dict[str, float]:
        """Returns the p-values of a permutation test: shares of random swaps with at least the same difference."""
        random, places = np.random.default_rng(self.seed), len(first)
        moved, totals = (first - second).reshape(places, -1), [one.sum(axis=0) for one in (first, second)]
        observed = self._distances(*totals, rows)
        as_far = dict.fromkeys(observed, 0)
        for start in range(0, self.resamples, _AT_ONCE):
            count = min(_AT_ONCE, self.resamples - start)
            swapped = (random.integers(0, 2, (count, places)) @ moved).reshape(count, *first.shape[1:])
            for name, distances in self._distances(totals[0] - swapped, totals[1] + swapped, rows).items():
                # Equal differences may miss each other by a rounding error.
                as_far[name] += int(np.count_nonzero(distances >= observed[name] - 1e-12))
        return {name: (1 + count) / (1 + self.resamples) for name, count in as_far.items()}

    def _distances(self, first: np.ndarray, second: np.ndarray, rows: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns the absolute differences of the scores of two models by name; 0 where one is not defined."""
        one, other = self.compared(first, rows), self.compared(second, rows)
        return {name: np.nan_to_num(np.abs(one[name] - other[name])) for name in one}


def _order(keys: Sequence[str], other: Sequence[str]) -> list[int]:
    """Returns the index of each key in another sequence of the same keys."""
    place_of = {key: place for place, key in enumerate(other)}
    return [place_of[key] for key in keys]


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the two-sided p-value of McNemar's test of equal accuracies, exact.

    Of the examples that only one of the two predicts correctly, either would have half if they were equally good: a
    binomial distribution (McNemar 1947, Psychometrika 12(2); Dietterich 1998, Neural Computation 10(7), section 3.1,
    who approximates it by a chi-squared one).

    Args:
        only_first: number of examples that only the first predicts correctly.
        only_second: number that only the second does.
    """
    total, fewer = int(only_first) + int(only_second), int(min(only_first, only_second))
    term = tail = 1
    for k in range(fewer):
        # C(total, k + 1), in whole numbers: nothing is rounded before the end.
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**total)
