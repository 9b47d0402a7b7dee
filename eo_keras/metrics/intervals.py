"""Intervals of proportions that keep their width where every example, or none, is right. No library is needed.

A bootstrap of outcomes that are all alike draws the same sample every time: its interval has no width, however few the
examples. Score intervals invert a test instead and know of the examples' number.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_Z = 1.959963984540054
"""Quantile 0.975 of the normal distribution: all intervals here are of 95 %."""

_HALVINGS = 100
"""More than a float64 between -1 and 1 can tell apart."""

WILSON = "Wilson score"
TANGO = "Tango score"
"""Names of the methods, as tables and `metrics.json` tell them."""


def wilson(share: float, count: float) -> tuple[float, float]:
    """Returns the 95 % score interval of a proportion.

    Wilson 1927, Journal of the American Statistical Association 22(158); recommended by Brown, Cai & DasGupta 2001,
    Statistical Science 16(2), for few examples and for proportions near 0 and 1.

    Args:
        share: the proportion found, 0 to 1.
        count: of how many independent examples, above 0.

    Returns:
        Lower and upper end, within 0 to 1 and around the share.
    """
    share, scale = float(share), 1 + _Z**2 / count
    centre = (share + _Z**2 / (2 * count)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    # At 0 and 1 one end is the share itself, but for a rounding error.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def paired_difference(only_first: int, only_second: int, examples: int) -> tuple[float, float]:
    """Returns the 95 % score interval of the difference of two proportions of the same examples.

    Tango 1998, Statistics in Medicine 17(8): all differences that a score test does not reject. Without a single
    example about which only one of two is right it is as wide as the examples' number leaves open.

    Args:
        only_first: number of examples of which only the first is right.
        only_second: number of which only the second is.
        examples: number of all examples, at least 1.

    Returns:
        Lower and upper end of the first proportion minus the second, -1 to 1.
    """

    def statistic(difference: float) -> float:
        # The share of "only the second is right" that is most likely where the proportions differ by `difference`.
        linear = (2 * examples - only_first + only_second) * difference - only_first - only_second
        root = math.sqrt(max(0.0, linear**2 + 8 * examples * only_second * difference * (1 - difference)))
        second = (root - linear) / (4 * examples)
        variance = examples * (2 * second + difference * (1 - difference))
        distance = only_first - only_second - examples * difference
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    found = (only_first - only_second) / examples
    low = _falls_through(statistic, _Z, -1.0, found)
    return low, _falls_through(statistic, -_Z, found, 1.0)


def _falls_through(statistic: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Returns where a falling function passes a value, between two arguments."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if statistic(middle) > value else (low, middle)
    return (low + high) / 2
