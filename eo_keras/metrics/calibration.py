"""Calibration of probabilities: their scores, and temperature scaling fitted on validation examples. NumPy only.

Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599, section 4.2.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eo_keras.core import files, serialization
from eo_keras.errors import EOKerasError, RunError
from eo_keras.metrics import confusion
from eo_keras.metrics.estimate import Estimate
from eo_keras.metrics.scores import ReliabilityBin
from eo_keras.metrics.selective import Threshold, risk_coverage
from eo_keras.records import data_card as cards

BINS = 15
"""Number of bins of the calibration error in Guo et al. 2017."""

LIMITS = (0.05, 20.0)
"""Range of the search for a temperature, which has no minimum where all validation predictions are correct."""

FEW = 100
"""Number of examples below which a temperature has a caution."""

_TINY = float(np.finfo(np.float32).tiny)
_STEPS = 60
"""Number of bisections of the interval: the precision of float64."""


@dataclasses.dataclass(frozen=True)
class CalibrationScores:
    """Scores of probabilities; lower is better for all three.

    Attributes:
        expected_calibration_error: mean distance between confidence and accuracy, weighted by the bins' counts.
        negative_log_likelihood: mean of -log p(true class), in nats.
        brier_score: mean over examples of the squared distance between the probabilities and the true class's
            indicator, summed over the classes, 0 to 2 (Brier 1950, Monthly Weather Review 78(1)).
    """

    expected_calibration_error: float
    negative_log_likelihood: float
    brier_score: float

    def estimates(self) -> dict[str, Estimate]:
        """Returns the scores by name; none has an interval."""
        return {name: Estimate(value) for name, value in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A fitted temperature.

    Attributes:
        temperature: divisor of the logits; above 1 the model was overconfident, below 1 underconfident.
        at_limit: whether the likelihood would still rise beyond `LIMITS`.
        fitted_on: the examples that it was fitted on, in words.
        examples: their number.
        before: scores of the model's own probabilities on these examples.
        after: scores of the scaled ones.
        model_sha256: checksum of the model file that it belongs to.
        tta: which average over symmetries gave the probabilities, see `eo_keras.evaluation.tta`; another one needs
            another number.
        data_fingerprint: fingerprint of the records that the examples are from.
        thresholds: confidences before scaling from which on the predictions of these examples reach an accuracy, see
            `eo_keras.metrics.selective`.
        calibrated_thresholds: the same of confidences after scaling.
    """

    temperature: float
    at_limit: bool
    fitted_on: str
    examples: int
    before: CalibrationScores
    after: CalibrationScores
    model_sha256: str = ""
    tta: str = "none"
    data_fingerprint: str = ""
    thresholds: tuple[Threshold, ...] = ()
    calibrated_thresholds: tuple[Threshold, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Returns the entries of a model card."""
        return {
            "temperature": self.temperature,
            "fitted_on": self.fitted_on,
            "examples": self.examples,
            "cautions": list(self.cautions),
        }

    @property
    def cautions(self) -> tuple[str, ...]:
        """Cautions about the temperature."""
        cautions = []
        if self.examples < FEW:
            cautions.append(
                f"{self.examples:,} examples are few: another {self.examples:,} may give a very different one"
            )
        if self.at_limit:
            cautions.append("the likelihood would still rise beyond the limit of the search")
        cautions += worse(self.before, self.after, "on the examples that it was fitted on")
        return tuple(cautions)


def score_probabilities(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: Sequence[ReliabilityBin] | None = None
) -> CalibrationScores:
    """Scores predicted probabilities.

    Args:
        labels: (N,) integers, true labels.
        probabilities: (N, C) predicted probabilities.
        bins: what `reliability` returns of them, where it is there.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    true = probabilities[np.arange(len(labels)), labels]
    # sum (p - y)^2 = sum p^2 - 2 p_true + 1, without an array of indicators.
    brier = (probabilities**2).sum(axis=1) - 2 * true + 1
    return CalibrationScores(
        expected_calibration_error=expected_calibration_error(bins or reliability(labels, probabilities)),
        negative_log_likelihood=negative_log_likelihood(true),
        brier_score=float(brier.mean()),
    )


def negative_log_likelihood(probabilities: npt.ArrayLike) -> float:
    """Returns the mean of -log p, in nats, of the probabilities (N,) of the true classes."""
    # A minus before the mean's zero would make it a negative zero.
    return float(abs(np.log(np.clip(np.asarray(probabilities, np.float64), _TINY, 1)).mean()))


def reliability(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Sorts predictions into bins of confidence, see `reliability_sums` and `reliability_bins`."""
    return reliability_bins(reliability_sums(labels, probabilities, bins))


def reliability_sums(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = BINS) -> np.ndarray:
    """Sorts predictions into equal-width bins ((m - 1) / M, m / M] of confidence (Guo et al. 2017, section 2).

    Args:
        labels: (N,) integers, true labels.
        probabilities: (N, C) predicted probabilities.
        bins: number M of bins.

    Returns:
        float64 (3, M): number of predictions, sum of their confidences, number of correct ones. Sums of several sets of
        predictions add up.
    """
    probabilities = np.asarray(probabilities, np.float64)
    correct = probabilities.argmax(axis=1) == np.asarray(labels)
    edges = np.linspace(0.0, 1.0, bins + 1)
    # Within the tolerance a row may exceed 1; it belongs to the last bin, as 1 does.
    confidences = np.minimum(probabilities.max(axis=1), 1.0)
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    return np.stack([np.bincount(places, weights=weights, minlength=bins) for weights in (None, confidences, correct)])


def reliability_bins(sums: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """Returns the bins of sums (3, M), see `reliability_sums`."""
    bins = sums.shape[1]
    edges = np.linspace(0.0, 1.0, bins + 1).tolist()
    confidences, accuracies = (confusion.ratio(one, sums[0]).tolist() for one in sums[1:])
    return tuple(
        ReliabilityBin(edges[m], edges[m + 1], int(sums[0, m]), confidences[m], accuracies[m]) for m in range(bins)
    )


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Returns the ECE of Guo et al. 2017 (arXiv 1706.04599), section 2, equation 3."""
    total = sum(one.count for one in bins)
    return float(sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / total)


def worse(before: CalibrationScores, after: CalibrationScores, where: str) -> list[str]:
    """Returns a text on the scores that a temperature makes worse, for `metrics.json` and the command."""
    names = {"negative_log_likelihood": "negative log-likelihood", "expected_calibration_error": "calibration error"}
    raised = [
        f"{text} ({getattr(before, name):z.4f} to {getattr(after, name):z.4f})"
        for name, text in names.items()
        if getattr(after, name) > getattr(before, name) + 1e-9
    ]
    return [f"it raises the {' and the '.join(raised)} {where}"] if raised else []


def apply_temperature(probabilities: npt.ArrayLike, temperature: float) -> np.ndarray:
    """Returns the softmax of the logits divided by a temperature, from probabilities.

    The logits themselves are not needed: log p is the logits minus a constant a row, which does not change a softmax.
    The order of a row's classes stays, and with it every prediction.

    Args:
        probabilities: (N, C), rows sum to 1.
        temperature: above 0.

    Returns:
        float64 (N, C).
    """
    scaled = _log(probabilities) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def fit_temperature(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[float, bool]:
    """Fits the temperature of the largest likelihood.

    The negative log-likelihood is convex in 1 / T (log-sum-exp minus a linear function), so that its slope crosses 0
    once at the most, in whatever scale T is written; it is found by halving the interval of log T.

    Args:
        labels: (N,) true labels of validation examples.
        probabilities: (N, C) predicted probabilities of them.

    Returns:
        The temperature, and whether it stopped at a limit. 1 where the likelihood does not depend on it.

    Raises:
        EOKerasError: if there is no example.
    """
    labels, logits = np.asarray(labels), _log(probabilities)
    if not len(labels):
        raise EOKerasError("temperature scaling", "there is no validation example", "at least one")
    of_true = logits[np.arange(len(labels)), labels]

    def slope(log_temperature: float) -> float:
        # With respect to 1 / T: expected logit under the scaled probabilities, minus the true class's.
        scaled = apply_temperature(probabilities, np.exp(log_temperature))
        return float(((scaled * logits).sum(axis=1) - of_true).mean())

    low, high = np.log(LIMITS)
    at_low, at_high = slope(low), slope(high)
    if abs(at_low) < 1e-12 and abs(at_high) < 1e-12:
        return 1.0, False
    # The slope in 1 / T falls with T: positive where T is too small.
    if at_low <= 0:
        return LIMITS[0], True
    if at_high >= 0:
        return LIMITS[1], True
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return float(np.exp((low + high) / 2)), False


def calibrate(labels: npt.ArrayLike, probabilities: npt.ArrayLike, fitted_on: str, **origin: str) -> Calibration:
    """Fits a temperature, scores the same examples before and after, and computes thresholds of confidence.

    Args:
        labels: (N,) true labels of validation examples; never those of the split that is tested.
        probabilities: (N, C) predicted probabilities of them.
        fitted_on: name of these examples.
        **origin: `model_sha256`, `tta` and `data_fingerprint` of `Calibration`.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    temperature, at_limit = fit_temperature(labels, probabilities)
    scaled, correct = apply_temperature(probabilities, temperature), probabilities.argmax(axis=1) == labels
    curve, scaled_curve = (risk_coverage(each.max(axis=1), correct) for each in (probabilities, scaled))
    return Calibration(
        temperature=temperature,
        at_limit=at_limit,
        fitted_on=fitted_on,
        examples=len(labels),
        before=score_probabilities(labels, probabilities),
        after=score_probabilities(labels, scaled),
        thresholds=curve.thresholds(),
        calibrated_thresholds=scaled_curve.thresholds(),
        **origin,
    )


def to_bytes(calibration: Calibration) -> bytes:
    """Returns a fitted temperature as JSON, for predictions and exports of the model."""
    return files.json_bytes(cards.to_json(calibration))


def read_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Reads the JSON of `to_bytes`.

    Raises:
        RunError: if the file is missing or is no such file.
    """
    try:
        calibration = serialization.from_json(Calibration, json.loads(files.read_bytes(path)))
        if not LIMITS[0] <= calibration.temperature <= LIMITS[1]:
            raise ValueError(f"the temperature is {calibration.temperature}")
        return calibration
    except (OSError, ValueError) as error:
        raise RunError(
            path, f"it cannot be read ({error})", "a temperature written by launch.evaluate", "evaluate with `force`"
        ) from None


def to_json(
    calibration: Calibration | None, labels: np.ndarray, probabilities: np.ndarray, reason: str
) -> dict[str, Any]:
    """Returns the section `calibration` of `metrics.json`: the temperature, and scores of the evaluated examples.

    Args:
        calibration: the temperature, or None.
        labels: (N,) true labels of the evaluated split.
        probabilities: (N, C) the model's own probabilities of it.
        reason: why there is no temperature; empty where there is.
    """
    content: dict[str, Any] = {"temperature": None, "reason": reason, "split": {"before": None, "after": None}}
    content["split"]["before"] = dataclasses.asdict(score_probabilities(labels, probabilities))
    if calibration is not None:
        scaled = apply_temperature(probabilities, calibration.temperature)
        content |= {
            "temperature": calibration.temperature,
            "at_limit": calibration.at_limit,
            "fitted_on": calibration.fitted_on,
            "examples": calibration.examples,
            "cautions": [*calibration.cautions],
            "validation": {
                "before": dataclasses.asdict(calibration.before),
                "after": dataclasses.asdict(calibration.after),
            },
            "reliability": [dataclasses.asdict(one) for one in reliability(labels, scaled)],
        }
        before, after = score_probabilities(labels, probabilities), score_probabilities(labels, scaled)
        content["split"]["after"] = dataclasses.asdict(after)
        content["cautions"] += worse(before, after, "here")
    return content


def _log(probabilities: npt.ArrayLike) -> np.ndarray:
    return np.log(np.maximum(np.asarray(probabilities, np.float64), _TINY))
