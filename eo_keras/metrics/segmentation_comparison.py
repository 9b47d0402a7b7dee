"""Which of several models of maps is better on the same tiles, and whether the difference is more than chance.

All models are scored on the same draws of places, so that their luck with easy and hard ones is shared. NumPy only.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras.errors import RunError
from eo_keras.metrics import comparison, estimate, segmentation
from eo_keras.metrics.segmentation import SegmentationScorer, SegmentationScores

RESAMPLES = 10_000
SEED = 0
_AT_ONCE = 500


@dataclasses.dataclass(frozen=True)
class DenseMember:
    """One evaluated model of maps.

    Attributes:
        name: what it is called in the comparison.
        scorer: the counts of its answers, tile by tile.
        scores: the scores of these.
        metrics: its `metrics.json`.
        places: by key, a name of the ground that a tile shows, see `SegmentationScorer.scores`.
    """

    name: str
    scorer: SegmentationScorer
    scores: SegmentationScores
    metrics: Mapping[str, Any]
    places: Mapping[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class DenseDifference:
    """How two models of maps, here first and second, differ on the same tiles.

    Attributes:
        first: name of the one.
        second: name of the other.
        difference: mean IoU of the first minus that of the second.
        low: lower end of its 95 % interval.
        high: its upper end.
        method: of the interval: `bootstrap` or, of few places or equal answers, `MOVER`.
        p_value: two-sided, of a permutation test that swaps the two models' answers place by place.
        p_holm: the same after Holm's correction for all pairs of the comparison.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    method: str
    p_value: float
    p_holm: float

    def turned(self) -> DenseDifference:
        """Returns the same of the second and the first."""
        turned = {"difference": -self.difference, "low": -self.high, "high": -self.low}
        return dataclasses.replace(self, first=self.second, second=self.first, **turned)


@dataclasses.dataclass(frozen=True)
class DenseComparison:
    """A comparison of two models of maps or more.

    Attributes:
        members: the models, in the order given.
        differences: one for every pair (earlier, later).
        warnings: what a reader has to know.
    """

    members: tuple[DenseMember, ...]
    differences: tuple[DenseDifference, ...]
    warnings: tuple[str, ...]

    @property
    def ranked(self) -> list[DenseMember]:
        """The members by their mean IoU, the highest first."""
        return sorted(self.members, key=lambda member: -member.scores.macro_iou.value)

    def between(self, first: str, second: str) -> DenseDifference:
        """Returns the difference of two members, see `comparison.between`."""
        return comparison.between(self.differences, first, second)


def compare(members: Sequence[DenseMember], *, resamples: int = RESAMPLES, seed: int = SEED) -> DenseComparison:
    """Compares models that were evaluated on the same tiles; these are joined by their keys.

    The interval of a difference is the percentile interval of a paired bootstrap over places (Efron & Tibshirani 1993,
    An Introduction to the Bootstrap, chapter 13). Of fewer than `estimate.FEWEST` places, and where all draws give
    the same difference, it is made of the two scores' own intervals instead (MOVER: Zou & Donner 2008, Statistics in
    Medicine 27(10)), which is wider. p is of a permutation test: if two models are equally good, their answers about a
    place can be swapped (Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses, chapter 3).

    Raises:
        OptionError: if there are less than two members, or two of the same name.
        LegendError: if their classes differ.
        RunError: if their tiles or the true classes of these differ.
    """
    names = comparison.check_names([member.name for member in members])
    first = members[0]
    for other in members[1:]:
        _check_tiles(first, other)
    sums = {member.name: member.scorer.by_place(first.places) for member in members}
    drawn = {
        name: np.concatenate([_miou(part) for part in estimate.resampled(one, resamples, seed)])
        for name, one in sums.items()
    }
    of = {member.name: member for member in members}
    pairs = list(itertools.combinations(names, 2))
    p_values = [_swapped(sums[a], sums[b], resamples, seed) for a, b in pairs]
    differences = []
    for (a, b), p_value, p_holm in zip(pairs, p_values, comparison.holm(p_values), strict=True):
        difference = of[a].scores.macro_iou.value - of[b].scores.macro_iou.value
        low, high, method = _interval(of[a].scores, of[b].scores, drawn[a] - drawn[b])
        differences.append(DenseDifference(a, b, difference, low, high, method, p_value, p_holm))
    return DenseComparison(tuple(members), tuple(differences), tuple(comparison.warnings_of(members)))


def _check_tiles(reference: DenseMember, other: DenseMember) -> None:
    comparison.check_classes(other.name, other.scorer.class_names, reference.name, reference.scorer.class_names)
    mine, theirs = reference.scorer.sums, other.scorer.sums
    comparison.check_keys(other.name, list(theirs), reference.name, list(mine))
    # The second row counts the true pixels of each class.
    if unlike := [key for key in mine if not np.array_equal(mine[key][1], theirs[key][1])]:
        raise RunError(
            other.name,
            f"the true classes of {len(unlike):,} tiles are others than {reference.name}'s, first {unlike[0]}",
            "the same land use",
            "evaluate all runs on the same records by `records_dir`",
        )


def _miou(sums: np.ndarray) -> np.ndarray:
    return segmentation.figures(sums)["macro_iou"]


def _interval(first: SegmentationScores, second: SegmentationScores, drawn: np.ndarray) -> tuple[float, float, str]:
    known, a, b = drawn[~np.isnan(drawn)], first.macro_iou, second.macro_iou
    if first.resampled >= estimate.FEWEST and known.size and np.ptp(known) > 0:
        low, high = np.percentile(known, [2.5, 97.5])
        return float(low), float(high), estimate.BOOTSTRAP
    difference = a.value - b.value
    low = difference - math.hypot(a.value - a.low, b.high - b.value)
    high = difference + math.hypot(a.high - a.value, b.value - b.low)
    return max(-1.0, low), min(1.0, high), "MOVER"


def _swapped(first: np.ndarray, second: np.ndarray, permutations: int, seed: int) -> float:
    """Returns the share of random swaps after which the two differ by as much as they do, themselves counted in."""
    found = abs(float(_miou(first.sum(axis=0)) - _miou(second.sum(axis=0))))
    random, places = np.random.default_rng(seed), len(first)
    moved = (first - second).reshape(places, -1).astype(np.float64)
    totals = [one.sum(axis=0).astype(np.float64) for one in (first, second)]
    as_far = 0
    for start in range(0, permutations, _AT_ONCE):
        count = min(_AT_ONCE, permutations - start)
        swapped = (random.integers(0, 2, (count, places)) @ moved).reshape(count, *first.shape[1:])
        difference = np.abs(_miou(totals[0] - swapped) - _miou(totals[1] + swapped))
        # Equal differences may miss each other by a rounding error.
        as_far += int(np.count_nonzero(difference >= found - 1e-12))
    return (1 + as_far) / (1 + permutations)
