"""Comparison of models on the same examples, with intervals and p-values. NumPy only."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras.errors import LegendError, OptionError, RunError
from eo_keras.metrics.metric import Metric, metric_of
from eo_keras.metrics.outcomes import Outcomes, Paired
from eo_keras.metrics.scores import Scores


@dataclasses.dataclass(frozen=True)
class EvaluatedRun:
    """One evaluated model.

    Attributes:
        name: its name in the comparison.
        metrics: its `metrics.json`.
        scores: the scores in it.
        outcomes: the outcomes of its predictions.
    """

    name: str
    metrics: Mapping[str, Any]
    scores: Scores
    outcomes: Outcomes


@dataclasses.dataclass(frozen=True)
class Difference:
    """Difference of two models, first and second, on the same examples.

    Attributes:
        first: name of the one.
        second: name of the other.
        difference: score of the first minus that of the second.
        low: lower end of its 95 % interval.
        high: its upper end.
        method: of the interval.
        p_value: two-sided, of the hypothesis that both are equally good.
        p_holm: the same after Holm's correction for all pairs of the comparison.
        only_first_correct: see `outcomes.Paired`.
        only_second_correct: likewise.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    method: str
    p_value: float
    p_holm: float
    only_first_correct: int | None = None
    only_second_correct: int | None = None

    def turned(self) -> Difference:
        """Returns the difference with the models exchanged."""
        return dataclasses.replace(
            self,
            first=self.second,
            second=self.first,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
            only_first_correct=self.only_second_correct,
            only_second_correct=self.only_first_correct,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the difference as a dictionary of JSON values; entries that are None are left out."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of two models or more.

    Attributes:
        runs: the models, in the order given.
        metric: the score that is compared.
        differences: one for every pair (earlier, later).
        others: differences of further scores that all runs have, by name.
        warnings: warnings for the reader.
    """

    runs: tuple[EvaluatedRun, ...]
    metric: Metric
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]
    others: Mapping[str, tuple[Difference, ...]] = dataclasses.field(default_factory=dict)

    @property
    def ranked(self) -> list[EvaluatedRun]:
        """Models by their score, the best first; equal ones in the given order."""
        return sorted(self.runs, key=lambda run: -self.metric.rank(run.scores.value(self.metric.name)))

    @property
    def outcomes(self) -> Outcomes:
        """Outcomes of the first model, whose examples are those of all."""
        return self.runs[0].outcomes

    def between(self, first: str, second: str, score: str | None = None) -> Difference:
        """Returns the difference of two models, in either order.

        Args:
            first: name of the one.
            second: name of the other.
            score: name of one of the other scores; None for the compared one.

        Raises:
            KeyError: if there is none of these two.
        """
        for one in self.differences if score is None else self.others[score]:
            if (one.first, one.second) == (first, second):
                return one
            if (one.first, one.second) == (second, first):
                return one.turned()
        raise KeyError((first, second))


def compare(runs: Sequence[EvaluatedRun]) -> Comparison:
    """Compares models that were evaluated on the same examples, which are joined by their keys.

    Raises:
        OptionError: if there are less than two runs, two of the same name, or runs of different tasks.
        LegendError: if their classes differ.
        RunError: if their examples or what is true of these differ.
    """
    names, first = [run.name for run in runs], runs[0] if runs else None
    if len(names) < 2 or len(set(names)) < len(names):
        raise OptionError("comparison", f"the runs {', '.join(names) or 'none'}", "two or more different ones")
    outcomes = {first.name: first.outcomes} | {run.name: _joined(first, run) for run in runs[1:]}
    scores = {run.name: run.scores.overall for run in runs}
    pairs = list(itertools.combinations(names, 2))
    found = [outcomes[a].paired(outcomes[b], scores[a], scores[b]) for a, b in pairs]
    metric, *others = [name for name in found[0] if all(name in one for one in found)]
    differences = {name: _differences(pairs, [one[name] for one in found]) for name in (metric, *others)}
    return Comparison(
        tuple(runs),
        metric_of(metric),
        differences.pop(metric),
        tuple(_warnings(runs)),
        differences,
    )


def _differences(pairs: Sequence[tuple[str, str]], found: Sequence[Paired]) -> tuple[Difference, ...]:
    """Returns the differences of one score, with p-values corrected for the number of pairs."""
    return tuple(
        Difference(
            first,
            second,
            one.difference.value,
            *(one.difference.low, one.difference.high, one.difference.method),
            one.p_value,
            p_holm,
            one.only_first_correct,
            one.only_second_correct,
        )
        for (first, second), one, p_holm in zip(pairs, found, holm([one.p_value for one in found]), strict=True)
    )


def _joined(reference: EvaluatedRun, other: EvaluatedRun) -> Outcomes:
    """Returns another run's outcomes in the order of the reference's examples."""
    if other.scores.task != reference.scores.task:
        raise OptionError(
            "comparison", f"{other.name} is for {other.scores.task}", f"{reference.scores.task}, as {reference.name}"
        )
    found, expected = other.scores.class_names, reference.scores.class_names
    if found != expected:
        raise LegendError(
            other.name,
            f"its classes are {', '.join(found)}",
            f"those of {reference.name}, in this order: {', '.join(expected)}",
            "compare runs of one legend",
        )
    _check_keys(reference, other)
    outcomes = reference.outcomes.aligned(other.outcomes)
    differs = outcomes.truth != reference.outcomes.truth
    unlike = np.flatnonzero(differs.reshape(len(differs), -1).any(axis=1))
    if unlike.size:
        raise RunError(
            other.name,
            f"the true classes of {unlike.size:,} {outcomes.unit} are others than {reference.name}'s, first "
            f"{outcomes.keys[unlike[0]]}",
            "the same labels",
            "evaluate all runs on the same records by `records_dir`",
        )
    return outcomes


def _check_keys(reference: EvaluatedRun, other: EvaluatedRun) -> None:
    for run in (reference, other):
        if len(set(run.outcomes.keys)) < len(run.outcomes.truth):
            raise RunError(run.name, f"some of its {run.outcomes.unit} have the same key, or none", "unique keys")
    found, expected = other.outcomes.keys, reference.outcomes.keys
    have, wanted = set(found), set(expected)
    absent, surplus = [key for key in expected if key not in have], [key for key in found if key not in wanted]
    if absent or surplus:
        unit = other.outcomes.unit
        problems = [f"it lacks {len(absent):,} of {reference.name}'s {unit}, first {absent[0]}"] if absent else []
        problems += [f"it was evaluated on {len(surplus):,} others, first {surplus[0]}"] if surplus else []
        raise RunError(
            other.name,
            " and ".join(problems),
            f"the same {len(expected):,} {unit} as {reference.name}",
            "evaluate all runs on the same records by `records_dir`, or build both records with the same split",
        )


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for multiple comparisons by Holm's method.

    Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6(2).
    """
    corrected, so_far = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = so_far
    return corrected


def _warnings(runs: Sequence[EvaluatedRun]) -> list[str]:
    """Returns warnings about a comparison."""
    found = [f"{run.name}: {warning}" for run in runs for warning in run.metrics["warnings"]]
    by_records: dict[str, list[str]] = {}
    for run in runs:
        by_records.setdefault(run.metrics["trained_on"], []).append(run.name)
    if len(by_records) > 1:
        groups = "; ".join(f"{', '.join(names)} on {fingerprint[:12]}" for fingerprint, names in by_records.items())
        found.append(f"the runs were trained on different records ({groups}): they differ by more than the model")
    return found
