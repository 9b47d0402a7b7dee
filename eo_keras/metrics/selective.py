"""Selective classification: accuracy of a model on its most confident predictions. NumPy only.

Geifman & El-Yaniv 2017, Selective Classification for Deep Neural Networks, arXiv 1705.08500, section 2: a classifier
that may abstain has a coverage, the share of examples that it predicts, and a selective risk, the share of errors among
these. Here it abstains where its top probability is below a threshold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eo_keras.errors import EOKerasError

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)
ACCURACIES = (0.99, 0.995)


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Lowest threshold of confidence at which predictions reach an accuracy.

    Attributes:
        accuracy: the accuracy to reach.
        coverage: share of the examples that are predicted then; None where no threshold reaches the accuracy.
        threshold: the lowest confidence that is not abstained from, or None.
    """

    accuracy: float
    coverage: float | None
    threshold: float | None


@dataclasses.dataclass(frozen=True)
class Curve:
    """Risk-coverage curve of N examples, the most confident first.

    A threshold cannot separate examples of equal confidence. Within such a group the number of correct predictions
    rises evenly, which is its mean over all orders of the group, so that the stored order plays no part.

    Attributes:
        confidences: float64 (N,), falling.
        correct: float64 (N,), number of correct predictions among the first 1..N examples; a fraction within a group.
        ends: bool (N,), whether the next example is less confident: only there a threshold can divide.
    """

    confidences: np.ndarray
    correct: np.ndarray
    ends: np.ndarray

    @property
    def coverages(self) -> np.ndarray:
        """Coverages 1/N to 1, float64 (N,)."""
        return np.arange(1, len(self.correct) + 1) / len(self.correct)

    @property
    def accuracies(self) -> np.ndarray:
        """Selective accuracies, 1 minus selective risk, float64 (N,)."""
        return self.correct / np.arange(1, len(self.correct) + 1)

    @property
    def aurc(self) -> float:
        """Area under the risk-coverage curve: mean selective risk over the coverages 1/N to 1; lower is better.

        Geifman, Uziel & El-Yaniv 2019, arXiv 1805.08206.
        """
        return float(1 - self.accuracies.mean())

    def accuracy_at(self, coverage: float) -> tuple[float, float]:
        """Returns accuracy and threshold where at least this share of the examples is predicted."""
        # A coverage that is a whole number of examples must not become one more by rounding.
        count = int(np.ceil(coverage * len(self.correct) - 1e-9))
        place = min(max(count, 1), len(self.correct)) - 1
        return float(self.accuracies[place]), float(self.confidences[place])

    def coverage_at(self, accuracy: float) -> tuple[float, float] | None:
        """Returns the largest coverage at which some threshold reaches an accuracy, and the threshold; or None."""
        reached = np.flatnonzero(self.ends & (self.accuracies >= accuracy))
        if not reached.size:
            return None
        return float(self.coverages[reached[-1]]), float(self.confidences[reached[-1]])

    def thresholds(self) -> tuple[Threshold, ...]:
        """Returns the lowest threshold for each of `ACCURACIES`."""
        return tuple(Threshold(accuracy, *(self.coverage_at(accuracy) or (None, None))) for accuracy in ACCURACIES)

    def to_json(self) -> dict[str, Any]:
        """Returns the area, accuracies at `COVERAGES` and coverages at `ACCURACIES`, with the thresholds."""
        at_coverage = [(coverage, *self.accuracy_at(coverage)) for coverage in COVERAGES]
        return {
            "aurc": self.aurc,
            "accuracy_at_coverage": [
                {"coverage": coverage, "accuracy": accuracy, "threshold": threshold}
                for coverage, accuracy, threshold in at_coverage
            ],
            "coverage_at_accuracy": [dataclasses.asdict(one) for one in self.thresholds()],
        }


def risk_coverage(confidences: npt.ArrayLike, correct: npt.ArrayLike) -> Curve:
    """Returns the risk-coverage curve.

    Args:
        confidences: (N,) top probabilities.
        correct: (N,) whether the predictions are correct.

    Raises:
        EOKerasError: if there is no example.
        ValueError: if the shapes differ.
    """
    confidences, correct = np.asarray(confidences, np.float64), np.asarray(correct, bool)
    if confidences.shape != correct.shape or confidences.ndim != 1:
        raise ValueError(f"confidences {confidences.shape} and outcomes {correct.shape} do not fit")
    if not len(correct):
        raise EOKerasError("risk-coverage curve", "there is no example", "at least one")
    order = np.argsort(-confidences, kind="stable")
    confidences, hits = confidences[order], np.cumsum(correct[order])
    ends = np.append(confidences[:-1] != confidences[1:], True)
    # Correct predictions are known at the ends of the groups and rise evenly in between.
    places = np.concatenate([[0], np.flatnonzero(ends) + 1])
    counts = np.interp(np.arange(1, len(hits) + 1), places, np.concatenate([[0], hits[ends]]))
    return Curve(confidences, counts, ends)


def apply_thresholds(
    thresholds: Sequence[Threshold], confidences: npt.ArrayLike, correct: npt.ArrayLike
) -> list[dict[str, float | None]]:
    """Returns coverage and accuracy of thresholds on other examples than those that gave them.

    Only these are unbiased: on its own examples a threshold is the luckiest of many.

    Args:
        thresholds: of a curve of validation examples; those that are None are left out.
        confidences: (N,) top probabilities of the examples.
        correct: (N,) whether their predictions are correct.

    Returns:
        For each the accuracy to reach, the threshold, and coverage and accuracy here; the latter is None where nothing
        is predicted.
    """
    confidences, correct = np.asarray(confidences, np.float64), np.asarray(correct, bool)
    reached = []
    for one in thresholds:
        if one.threshold is None:
            continue
        predicted = confidences >= one.threshold
        accuracy = float(correct[predicted].mean()) if predicted.any() else None
        coverage = float(predicted.mean())
        reached.append({"aim": one.accuracy, "threshold": one.threshold, "coverage": coverage, "accuracy": accuracy})
    return reached
