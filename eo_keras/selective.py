"""Selective classification: how accurate a model is on the share of examples about which it is surest.

Geifman & El-Yaniv 2017, Selective Classification for Deep Neural Networks, arXiv 1705.08500, section 2: a classifier
that may decline to answer has a coverage, the share of examples that it answers, and a selective risk, the share of
errors among these. Here it answers where its top probability reaches a threshold. NumPy only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from eo_keras.errors import EOKerasError

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)
ACCURACIES = (0.99, 0.995)


@dataclasses.dataclass(frozen=True)
class Curve:
    """The risk-coverage curve of N examples, the surest first.

    Examples of equal confidence cannot be told apart by a threshold. Within such a group the number of right answers
    rises evenly, which is its mean over all orders of the group: neither luck nor the stored order plays a part.

    Attributes:
        confidences: float64 (N,), falling.
        right: float64 (N,), number of right answers among the first 1..N examples; a fraction within a group.
        ends: bool (N,), whether the next example is less sure: only there a threshold can divide.
    """

    confidences: np.ndarray
    right: np.ndarray
    ends: np.ndarray

    @property
    def coverages(self) -> np.ndarray:
        """float64 (N,): 1/N to 1."""
        return np.arange(1, len(self.right) + 1) / len(self.right)

    @property
    def accuracies(self) -> np.ndarray:
        """float64 (N,): selective accuracy, 1 minus selective risk."""
        return self.right / np.arange(1, len(self.right) + 1)

    @property
    def aurc(self) -> float:
        """Area under the risk-coverage curve: mean selective risk over the coverages 1/N to 1; lower is better.

        Geifman, Uziel & El-Yaniv 2019, arXiv 1805.08206.
        """
        return float(1 - self.accuracies.mean())

    def accuracy_at(self, coverage: float) -> tuple[float, float]:
        """Returns accuracy and threshold where at least this share of the examples, the surest, is answered."""
        # A coverage that is a whole number of examples must not become one more by rounding.
        count = int(np.ceil(coverage * len(self.right) - 1e-9))
        place = min(max(count, 1), len(self.right)) - 1
        return float(self.accuracies[place]), float(self.confidences[place])

    def coverage_at(self, accuracy: float) -> tuple[float, float] | None:
        """Returns the largest coverage at which some threshold reaches an accuracy, and the threshold; or None."""
        reached = np.flatnonzero(self.ends & (self.accuracies >= accuracy))
        if not reached.size:
            return None
        return float(self.coverages[reached[-1]]), float(self.confidences[reached[-1]])

    def to_json(self) -> dict[str, Any]:
        """Returns the area, accuracies at `COVERAGES` and coverages at `ACCURACIES`, with the thresholds."""
        at_coverage = [(coverage, *self.accuracy_at(coverage)) for coverage in COVERAGES]
        at_accuracy = [(accuracy, *(self.coverage_at(accuracy) or (None, None))) for accuracy in ACCURACIES]
        return {
            "aurc": self.aurc,
            "accuracy_at_coverage": [
                {"coverage": coverage, "accuracy": accuracy, "threshold": threshold}
                for coverage, accuracy, threshold in at_coverage
            ],
            "coverage_at_accuracy": [
                {"accuracy": accuracy, "coverage": coverage, "threshold": threshold}
                for accuracy, coverage, threshold in at_accuracy
            ],
        }


def risk_coverage(confidences: npt.ArrayLike, right: npt.ArrayLike) -> Curve:
    """Returns the risk-coverage curve.

    Args:
        confidences: (N,) top probabilities.
        right: (N,) whether the answers are right.

    Raises:
        EOKerasError: if there is no example.
        ValueError: if the shapes differ.
    """
    confidences, right = np.asarray(confidences, np.float64), np.asarray(right, bool)
    if confidences.shape != right.shape or confidences.ndim != 1:
        raise ValueError(f"confidences {confidences.shape} and answers {right.shape} do not fit")
    if not len(right):
        raise EOKerasError("risk-coverage curve", "there is no example", "at least one")
    order = np.argsort(-confidences, kind="stable")
    confidences, hits = confidences[order], np.cumsum(right[order])
    ends = np.append(confidences[:-1] != confidences[1:], True)
    # Right answers are known at the ends of the groups and rise evenly in between.
    places = np.concatenate([[0], np.flatnonzero(ends) + 1])
    counts = np.interp(np.arange(1, len(hits) + 1), places, np.concatenate([[0], hits[ends]]))
    return Curve(confidences, counts, ends)
