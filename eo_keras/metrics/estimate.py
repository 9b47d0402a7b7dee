"""Scores with 95 % intervals: Wilson's of proportions, Tango's of paired differences, and a clustered bootstrap.

NumPy only. A bootstrap whose resamples all give the same score has an interval of no width, however few the examples;
score intervals invert a test instead and depend on the number of examples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

WILSON = "Wilson score"
TANGO = "Tango score"
BOOTSTRAP = "bootstrap"
MOVER = "MOVER"
"""Names of the methods, as tables and `metrics.json` show them."""

RESAMPLES = 10_000
SEED = 0

FEWEST = 10
"""Number of clusters below which the interval of a bootstrap is too narrow."""

_Z = 1.959963984540054
"""Quantile 0.975 of the normal distribution: all intervals here are of 95 %."""

_HALVINGS = 100
"""Number of bisections: the precision of float64 between -1 and 1."""

_DRAWS = 4_000_000
"""Number of clusters drawn at once; each takes eight bytes."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval.

    Attributes:
        value: the score; shares are fractions of 1.
        low: lower end of the interval, or None where none is computed.
        high: its upper end, or None.
        method: name of the interval's method, such as `WILSON` or `BOOTSTRAP`; None without an interval.
    """

    value: float
    low: float | None = None
    high: float | None = None
    method: str | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Lower and upper end of the interval, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def to_json(self) -> dict[str, Any]:
        """Returns the estimate as a dictionary of JSON values; entries that are None are left out."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def read(cls, content: Mapping[str, Any], method: str | None = None) -> Estimate:
        """Reads a dictionary of `to_json`.

        Args:
            content: the dictionary.
            method: method of the interval where the dictionary names none.
        """
        ends = content.get("low"), content.get("high")
        return cls(content["value"], *ends, content.get("method", None if ends[0] is None else method))


def proportion(share: float, count: float) -> Estimate:
    """Returns a proportion with Wilson's interval, see `wilson`."""
    return Estimate(float(share), *wilson(share, count), WILSON)


def wilson(share: float, count: float) -> tuple[float, float]:
    """Returns the 95 % score interval of a proportion.

    Wilson 1927, Journal of the American Statistical Association 22(158); recommended by Brown, Cai & DasGupta 2001,
    Statistical Science 16(2), for few examples and for proportions near 0 and 1.

    Args:
        share: the observed proportion, 0 to 1.
        count: number of independent examples, above 0.

    Returns:
        Lower and upper end, within 0 to 1 and around the share.
    """
    share, scale = float(share), 1 + _Z**2 / count
    center = (share + _Z**2 / (2 * count)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    # At 0 and 1 one end is the share itself, but for a rounding error.
    return min(share, max(0.0, center - half)), max(share, min(1.0, center + half))


def paired_difference(only_first: int, only_second: int, examples: int) -> tuple[float, float]:
    """Returns the 95 % score interval of the difference of two proportions of the same examples.

    Tango 1998, Statistics in Medicine 17(8): all differences that a score test does not reject. Where no example
    distinguishes the two, the interval is as wide as the number of examples leaves open.

    Args:
        only_first: number of examples that only the first predicts correctly.
        only_second: number that only the second does.
        examples: number of all examples, at least 1.

    Returns:
        Lower and upper end of the first proportion minus the second, -1 to 1.
    """

    def statistic(difference: float) -> float:
        # The most likely share of examples that only the second predicts correctly, if the proportions differ by
        # `difference`.
        linear = (2 * examples - only_first + only_second) * difference - only_first - only_second
        root = math.sqrt(max(0.0, linear**2 + 8 * examples * only_second * difference * (1 - difference)))
        second = (root - linear) / (4 * examples)
        variance = examples * (2 * second + difference * (1 - difference))
        distance = only_first - only_second - examples * difference
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    observed = (only_first - only_second) / examples
    low = _crossing(statistic, _Z, -1.0, observed)
    return low, _crossing(statistic, -_Z, observed, 1.0)


def _crossing(statistic: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Returns the argument, between two, at which a decreasing function has a value."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if statistic(middle) > value else (low, middle)
    return (low + high) / 2


def resampled(sums: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields sums over clusters drawn with replacement, (resamples, ...) in all, some at a time.

    Equal seeds draw the same clusters of equally many.

    Args:
        sums: (clusters, ...) numbers of each cluster, such as counts of an image's pixels.
        resamples: number of resamples.
        seed: seed of the draws.
    """
    random, clusters = np.random.default_rng(seed), len(sums)
    # Exact in floating point up to 2 ** 53, and many times as fast as in integers.
    flat = sums.reshape(clusters, -1).astype(np.float64)
    at_once = max(1, _DRAWS // clusters)
    for first in range(0, resamples, at_once):
        count = min(at_once, resamples - first)
        drawn = random.integers(0, clusters, (count, clusters)) + np.arange(count)[:, np.newaxis] * clusters
        times = np.bincount(drawn.ravel(), minlength=count * clusters).reshape(count, clusters)
        yield (times @ flat).reshape(count, *sums.shape[1:])


def percentiles(drawn: np.ndarray) -> tuple[float, float] | None:
    """Returns the 95 % percentile interval of resampled scores; None if all are equal. NaN is left out."""
    known = drawn[~np.isnan(drawn)]
    if not known.size or known.min() == known.max():
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def of_resamples(value: float, drawn: np.ndarray, clusters: int) -> Estimate | None:
    """Returns a score with the percentile interval of its resamples.

    Of fewer than `FEWEST` clusters, and where all resamples give the same score (as of a perfect one), the interval is
    Wilson's of as many trials as clusters, as if each cluster were all correct or all incorrect: wide, and never of no
    width.

    Args:
        value: the score of all clusters; NaN where it is not defined.
        drawn: (resamples,) the score of each resample; NaN where it is not defined.
        clusters: number of clusters that hold what is scored.

    Returns:
        The estimate; None if the value is NaN.
    """
    if np.isnan(value):
        return None
    ends = percentiles(drawn) if clusters >= FEWEST else None
    return proportion(value, clusters) if ends is None else Estimate(float(value), *ends, BOOTSTRAP)


def paired_resamples(first: Estimate, second: Estimate, drawn: np.ndarray, clusters: int) -> Estimate:
    """Returns the difference of two scores with the percentile interval of a paired bootstrap.

    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13. Of fewer than `FEWEST` clusters, and where
    all resamples give the same difference, the interval is made of the two scores' own intervals instead (MOVER: Zou &
    Donner 2008, Statistics in Medicine 27(10)), which is wider.

    Args:
        first: score of the first.
        second: score of the second.
        drawn: (resamples,) differences of the two over the same resamples.
        clusters: number of clusters.
    """
    difference, ends = first.value - second.value, percentiles(drawn)
    if clusters >= FEWEST and ends is not None:
        return Estimate(difference, *ends, BOOTSTRAP)
    low = difference - math.hypot(first.value - first.low, second.high - second.value)
    high = difference + math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(difference, max(-1.0, low), min(1.0, high), MOVER)
