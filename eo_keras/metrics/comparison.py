"""Which of several models is better on the same examples, and whether the difference is more than chance.

Accuracies that differ by less than their intervals are wide may still differ surely: both models were asked about the
same examples, and only those count about which one is right and the other wrong. NumPy only.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eo_keras.errors import LegendError, OptionError, RunError
from eo_keras.metrics import estimate
from eo_keras.metrics.predictions import ClassPredictions


@dataclasses.dataclass(frozen=True)
class Member:
    """One evaluated model.

    Attributes:
        name: what it is called in the comparison.
        answers: its answers, with keys.
        class_names: names of the classes in the legend's order.
        metrics: its `metrics.json`.
    """

    name: str
    answers: ClassPredictions
    class_names: tuple[str, ...]
    metrics: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Difference:
    """How two models, here first and second, differ on the same N examples.

    Attributes:
        first: name of the one.
        second: name of the other.
        difference: accuracy of the first minus that of the second.
        low: lower end of its 95 % interval, see `estimate.paired_difference`.
        high: its upper end.
        only_first_right: number of examples that only the first answers rightly.
        only_second_right: number that only the second does.
        p_value: of McNemar's test, exact, two-sided.
        p_holm: the same after Holm's correction for all pairs of the comparison.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    only_first_right: int
    only_second_right: int
    p_value: float
    p_holm: float

    def turned(self) -> Difference:
        """Returns the same of the second and the first."""
        return dataclasses.replace(
            self,
            first=self.second,
            second=self.first,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
            only_first_right=self.only_second_right,
            only_second_right=self.only_first_right,
        )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A comparison of two models or more.

    Attributes:
        members: the models, in the order given.
        examples: number of examples that all were asked about.
        differences: one for every pair (earlier, later).
        warnings: what a reader has to know.
    """

    members: tuple[Member, ...]
    examples: int
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]

    @property
    def best(self) -> Member:
        """The member of the highest accuracy, the first one of equals."""
        return max(self.members, key=lambda member: member.metrics["scores"]["accuracy"])

    def between(self, first: str, second: str) -> Difference:
        """Returns the difference of two members, see `between`."""
        return between(self.differences, first, second)


def between(differences: Sequence[Any], first: str, second: str) -> Any:
    """Returns the difference of two members, turned round where it is kept the other way.

    Args:
        differences: those of all pairs; each has the names of its two and can be `turned`.
        first: name of the one.
        second: name of the other.

    Raises:
        KeyError: if there is none of these two.
    """
    for one in differences:
        if (one.first, one.second) == (first, second):
            return one
        if (one.first, one.second) == (second, first):
            return one.turned()
    raise KeyError((first, second))


def compare(members: Sequence[Member]) -> Comparison:
    """Compares models that were asked about the same examples; these are joined by their keys, in whatever order.

    Raises:
        OptionError: if there are less than two members, or two of the same name.
        LegendError: if their classes differ.
        RunError: if their examples or the true labels differ.
    """
    names = check_names([member.name for member in members])
    right = {names[0]: members[0].answers.right}
    for other in members[1:]:
        right[other.name] = _joined(members[0], other)
    pairs = list(itertools.combinations(names, 2))
    counts = [(np.count_nonzero(right[a] & ~right[b]), np.count_nonzero(right[b] & ~right[a])) for a, b in pairs]
    examples = len(right[names[0]])
    p_values = [mcnemar(*pair) for pair in counts]
    differences = []
    for (a, b), (first, second), p_value, p_holm in zip(pairs, counts, p_values, holm(p_values), strict=True):
        low, high = estimate.paired_difference(int(first), int(second), examples)
        difference = (first - second) / examples
        differences.append(Difference(a, b, difference, low, high, int(first), int(second), p_value, p_holm))
    return Comparison(tuple(members), examples, tuple(differences), tuple(warnings_of(members)))


def check_names(names: list[str]) -> list[str]:
    """Returns the names of what is to be compared.

    Raises:
        OptionError: if there are less than two, or two are the same.
    """
    if len(names) < 2 or len(set(names)) < len(names):
        raise OptionError("comparison", f"the runs {', '.join(names) or 'none'}", "two or more different ones")
    return names


def _joined(reference: Member, other: Member) -> np.ndarray:
    """Returns whether another member's answers are right, in the order of the reference's examples."""
    check_classes(other.name, other.class_names, reference.name, reference.class_names)
    place_of = {key: place for place, key in enumerate(other.answers.keys)}
    for member in (reference, other):
        if len(set(member.answers.keys)) < len(member.answers.labels):
            raise RunError(member.name, "some of its examples have the same key, or none", "unique keys")
    check_keys(other.name, other.answers.keys, reference.name, reference.answers.keys)
    order = np.array([place_of[key] for key in reference.answers.keys])
    unlike = np.flatnonzero(other.answers.labels[order] != reference.answers.labels)
    if unlike.size:
        raise RunError(
            other.name,
            f"the true classes of {unlike.size:,} examples are others than {reference.name}'s, first "
            f"{reference.answers.keys[unlike[0]]}",
            "the same labels",
            "ask all runs about the same records by `records_dir`",
        )
    return other.answers.right[order]


def check_classes(name: str, found: Sequence[str], reference: str, expected: Sequence[str]) -> None:
    """Refuses to compare runs of different classes, or of another order of them.

    Raises:
        LegendError: if they differ.
    """
    if tuple(found) != tuple(expected):
        raise LegendError(
            name,
            f"its classes are {', '.join(found)}",
            f"those of {reference}, in this order: {', '.join(expected)}",
            "compare runs of one legend",
        )


def check_keys(name: str, found: Sequence[str], reference: str, expected: Sequence[str]) -> None:
    """Refuses to compare runs that were evaluated on different examples, in whatever order.

    Raises:
        RunError: if their keys differ.
    """
    have, wanted = set(found), set(expected)
    absent, surplus = [key for key in expected if key not in have], [key for key in found if key not in wanted]
    if absent or surplus:
        problems = [f"it lacks {len(absent):,} of {reference}'s examples, first {absent[0]}"] if absent else []
        problems += [f"it was asked about {len(surplus):,} others, first {surplus[0]}"] if surplus else []
        raise RunError(
            name,
            " and ".join(problems),
            f"the same {len(expected):,} examples as {reference}",
            "ask all runs about the same records by `records_dir`, or build both records with the same split",
        )


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the two-sided p-value of McNemar's test of equal accuracies, exact.

    Of the examples that only one of the two answers rightly, either would have half if they were equally good: a
    binomial distribution (McNemar 1947, Psychometrika 12(2); Dietterich 1998, Neural Computation 10(7), section 3.1,
    who approximates it by a chi-squared one).

    Args:
        only_first: number of examples that only the first answers rightly.
        only_second: number that only the second does.
    """
    total, fewer = int(only_first) + int(only_second), int(min(only_first, only_second))
    term = tail = 1
    for k in range(fewer):
        # C(total, k + 1), in whole numbers: nothing is rounded before the end.
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**total)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number, so that all of them together err with the stated probability.

    Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6(2).
    """
    corrected, so_far = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = so_far
    return corrected


def gain(plain: ClassPredictions, other: ClassPredictions, names: tuple[str, str]) -> Difference:
    """Returns how two sets of answers about the same examples in the same order differ, `names[1]` minus `names[0]`."""
    if plain.keys != other.keys:
        raise RunError(names[1], "it was asked about other examples", f"those of {names[0]}")
    first = int(np.count_nonzero(other.right & ~plain.right))
    second = int(np.count_nonzero(plain.right & ~other.right))
    low, high = estimate.paired_difference(first, second, len(plain.labels))
    p_value = mcnemar(first, second)
    difference = (first - second) / len(plain.labels)
    return Difference(names[1], names[0], difference, low, high, first, second, p_value, p_value)


def warnings_of(members: Sequence[Any]) -> list[str]:
    """Returns what a reader of a comparison has to know; members have a name and the `metrics` of an evaluation."""
    found = [f"{member.name}: {warning}" for member in members for warning in member.metrics["warnings"]]
    by_records: dict[str, list[str]] = {}
    for member in members:
        by_records.setdefault(member.metrics["trained_on"], []).append(member.name)
    if len(by_records) > 1:
        groups = "; ".join(f"{', '.join(names)} on {fingerprint[:12]}" for fingerprint, names in by_records.items())
        found.append(f"the runs were trained on different records ({groups}): they differ by more than the model")
    return found


def by_class(member: Member) -> npt.NDArray[np.float64]:
    """Returns F1 by class, float64 (C,), in the legend's order; NaN of a class without examples."""
    return np.array([one["f1"] for one in member.metrics["scores"]["classes"]], np.float64)
