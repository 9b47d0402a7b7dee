"""Accuracies of a map and areas of its classes, estimated from a stratified random sample. NumPy only.

Olofsson, Foody, Herold, Stehman, Woodcock & Wulder 2014, Good practices for estimating area and assessing accuracy of
land change, Remote Sensing of Environment 148, 42-57: the strata are the map's classes, and every sampled place has a
class of the map and one of the reference, which is taken to be true. The numbers of equations are the paper's.

The paper's intervals are 1.96 standard errors to either side. They are too narrow for the area and the producer's
accuracy of a rare class, most of whose omissions lie in large strata of which the sample shows few or none; where it
shows no error at all, the standard error is 0, however few places there are. Every estimate therefore also has a score
interval: Wilson's, or made of Wilson's intervals of the strata by MOVER (Zou & Donner 2008, Statistics in Medicine
27(10)). Where the standard error is 0, it is the only one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eo_keras.errors import EOKerasError, OptionError
from eo_keras.metrics.confusion import ratio
from eo_keras.metrics.estimate import MOVER, WILSON, Estimate, wilson

NORMAL = "normal approximation"
"""Name of the method of intervals of 1.96 standard errors."""

ALLOCATIONS = ("mixed", "proportional", "equal", "optimal")
"""Ways to divide a sample among strata, see `allocate`."""

FEWEST = 2
"""Smallest number of sampled places in a stratum of which a variance can be estimated."""

MIXED_MINIMUM = 50
"""Number of places for a rare class; the paper advises 50 to 100 where the sample is large enough."""

_Z = 1.96


@dataclasses.dataclass(frozen=True)
class StratifiedEstimate(Estimate):
    """An estimate of a stratified sample; see `Estimate` for the other attributes.

    Attributes:
        standard_error: its standard error, in its own units.
        score_interval: lower and upper end of its 95 % score interval, which need not be symmetric.
    """

    standard_error: float = 0.0
    score_interval: tuple[float, float] = (math.nan, math.nan)

    @property
    def half_width(self) -> float:
        """Half the width of the paper's 95 % interval: 1.96 standard errors."""
        return _Z * self.standard_error


@dataclasses.dataclass(frozen=True)
class AreaEstimation:
    """Accuracies and areas of C classes.

    Attributes:
        class_names: names of the classes.
        counts: int64 (C, C), sampled places: rows classes of the map, columns classes of the reference.
        mapped: float64 (C,), area that the map gives to each class, in hectares or any other unit.
        proportions: float64 (C, C), the error matrix in proportions of the whole area; rows and columns as of `counts`.
        overall: overall accuracy, as the share of the area that is mapped correctly.
        users: user's accuracy of each class; None where the map does not have the class.
        producers: producer's accuracy; None where the reference does not have it.
        areas: error-adjusted area, in the units of `mapped`.
    """

    class_names: tuple[str, ...]
    counts: np.ndarray
    mapped: np.ndarray
    proportions: np.ndarray
    overall: StratifiedEstimate
    users: tuple[StratifiedEstimate | None, ...]
    producers: tuple[StratifiedEstimate | None, ...]
    areas: tuple[StratifiedEstimate, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as a dictionary of JSON values."""
        return {
            "places": int(self.counts.sum()),
            "overall_accuracy": self.overall.to_json(),
            "classes": [
                {
                    "name": name,
                    "sampled": int(self.counts[k].sum()),
                    "mapped_area": float(self.mapped[k]),
                    "area": self.areas[k].to_json(),
                    "users_accuracy": None if self.users[k] is None else self.users[k].to_json(),
                    "producers_accuracy": None if self.producers[k] is None else self.producers[k].to_json(),
                }
                for k, name in enumerate(self.class_names)
            ],
            "error_matrix": {
                "rows": "map",
                "columns": "reference",
                "counts": self.counts.tolist(),
                "proportions": self.proportions.tolist(),
            },
        }


def estimate_areas(
    counts: npt.ArrayLike, mapped: npt.ArrayLike, class_names: Sequence[str], *, complete: npt.ArrayLike | None = None
) -> AreaEstimation:
    """Estimates accuracies and areas from a sample that is stratified by the map's classes.

    Args:
        counts: (C, C) sampled places: rows classes of the map, columns classes of the reference.
        mapped: (C,) area of each class in the whole map, in any unit.
        class_names: names of the C classes.
        complete: (C,) whether the sample holds every pixel that the map has of a class, such as of a few, so that
            nothing about it is estimated; None for no class.

    Returns:
        The estimates: equations 1 to 11 of the paper.

    Raises:
        EOKerasError: if a class of the map has fewer than `FEWEST` sampled places and is not complete, or one without
            area has some.
        ValueError: if the shapes do not fit.
    """
    counts, mapped = np.asarray(counts, np.int64), np.asarray(mapped, np.float64)
    classes = len(class_names)
    if counts.shape != (classes, classes) or mapped.shape != (classes,):
        raise ValueError(f"{classes} classes, counts of shape {counts.shape} and areas of shape {mapped.shape}")
    drawn = counts.sum(axis=1)
    complete = np.zeros(classes, bool) if complete is None else np.asarray(complete, bool) & (drawn > 0)
    _check_strata(drawn, mapped, class_names, complete)
    total, weights = mapped.sum(), mapped / mapped.sum()
    shares = ratio(counts, drawn[:, None])
    proportions = weights[:, None] * shares
    # Variance of a share within its stratum; strata without area have no place and no part in any sum.
    variances = ratio(shares * (1 - shares), np.maximum(drawn - 1, 1)[:, None])
    ends = np.array(
        [[wilson(share, n) if n else (0.0, 0.0) for share in row] for row, n in zip(shares, drawn, strict=True)]
    )
    variances[complete], ends[complete] = 0, shares[complete][..., None]

    truth = np.eye(classes, dtype=bool)
    overall = _stratified(weights, shares[truth], variances[truth], ends[truth])
    users = tuple(
        None if not drawn[k] else _share(shares[k, k], math.sqrt(variances[k, k]), ends[k, k], WILSON)
        for k in range(classes)
    )
    areas = tuple(
        _stratified(weights, shares[:, k], variances[:, k], ends[:, k], scale=float(total)) for k in range(classes)
    )
    producers = tuple(_producers(k, weights, shares, variances, ends) for k in range(classes))
    return AreaEstimation(tuple(class_names), counts, mapped, proportions, overall, users, producers, areas)


def _check_strata(drawn: np.ndarray, mapped: np.ndarray, class_names: Sequence[str], complete: np.ndarray) -> None:
    if not mapped.sum() > 0:
        raise EOKerasError("areas", "no class has an area", "the area of each class of the map")
    total = mapped.sum()
    if few := [k for k in range(len(class_names)) if mapped[k] > 0 and drawn[k] < FEWEST and not complete[k]]:
        raise EOKerasError(
            "sample",
            ", ".join(f"{class_names[k]} ({mapped[k] / total:.2%} of the map) has {drawn[k]} places" for k in few),
            f"at least {FEWEST} interpreted places in every class of the map",
            "interpret more of the sample, or draw a larger one",
        )
    if lost := [class_names[k] for k in range(len(class_names)) if not mapped[k] > 0 and drawn[k]]:
        raise EOKerasError(
            "sample", f"it has places of {', '.join(lost)}, which the map does not have", "a sample of this map"
        )


def _stratified(
    weights: np.ndarray, shares: np.ndarray, variances: np.ndarray, ends: np.ndarray, scale: float = 1.0
) -> StratifiedEstimate:
    """Returns the weighted sum of the strata's shares, times a scale."""
    value, error = float(weights @ shares), float(np.sqrt(weights**2 @ variances))
    below, above = (float(np.sqrt(weights**2 @ (ends[:, side] - shares) ** 2)) for side in (0, 1))
    found = _share(value, error, (max(0.0, value - below), min(1.0, value + above)), MOVER)
    if scale == 1.0:
        return found
    return StratifiedEstimate(
        scale * found.value,
        scale * found.low,
        scale * found.high,
        found.method,
        scale * found.standard_error,
        tuple(scale * end for end in found.score_interval),
    )


def _share(value: float, error: float, ends: Sequence[float], method: str) -> StratifiedEstimate:
    """Returns a share with the interval of its standard error; where that is 0, with its score interval."""
    value, error, score = float(value), float(error), (float(ends[0]), float(ends[1]))
    if error > 0:
        low, high = max(0.0, value - _Z * error), min(1.0, value + _Z * error)
        return StratifiedEstimate(value, low, high, NORMAL, error, score)
    return StratifiedEstimate(value, *score, method, 0.0, score)


def _producers(
    k: int, weights: np.ndarray, shares: np.ndarray, variances: np.ndarray, ends: np.ndarray
) -> StratifiedEstimate | None:
    """Returns the producer's accuracy of a class (equations 3 and 7), or None."""
    found = weights * shares[:, k]
    whole, others = found.sum(), np.arange(len(weights)) != k
    if not whole > 0:
        return None
    value = found[k] / whole
    error = math.sqrt(
        (weights[k] * (1 - value)) ** 2 * variances[k, k] + value**2 * (weights[others] ** 2 @ variances[others, k])
    )
    omitted = found[others].sum()
    most = omitted + math.sqrt(weights[others] ** 2 @ (ends[others, k, 1] - shares[others, k]) ** 2)
    least = omitted - math.sqrt(weights[others] ** 2 @ (shares[others, k] - ends[others, k, 0]) ** 2)
    low, high = (weights[k] * end for end in ends[k, k])
    below = math.hypot(value - _part(low, omitted), value - _part(found[k], most))
    above = math.hypot(_part(high, omitted) - value, _part(found[k], max(0.0, least)) - value)
    return _share(value, error / whole, (max(0.0, value - below), min(1.0, value + above)), MOVER)


def _part(own: float, omitted: float) -> float:
    return own / (own + omitted) if own + omitted > 0 else 1.0


def sample_size(
    weights: npt.ArrayLike, expected_accuracies: npt.ArrayLike, standard_error: float, pixels: float = math.inf
) -> int:
    """Returns the number of places that overall accuracy needs for a standard error: equation 13 (Cochran 1977).

    Args:
        weights: (C,) share of each class in the map's area; their sum is 1.
        expected_accuracies: (C,) user's accuracies that are expected.
        standard_error: the standard error that overall accuracy shall have, such as 0.01.
        pixels: number of the map's pixels, of which the sample is a part.
    """
    weights, expected = np.asarray(weights, np.float64), np.asarray(expected_accuracies, np.float64)
    deviations = np.sqrt(expected * (1 - expected))
    size = (weights @ deviations) ** 2 / (standard_error**2 + weights @ deviations**2 / pixels)
    # Rounding errors must not add a place.
    return math.ceil(size - 1e-9)


def allocate(
    size: int,
    weights: npt.ArrayLike,
    allocation: str = "mixed",
    *,
    minimum: int | None = None,
    expected_accuracies: npt.ArrayLike | None = None,
    available: npt.ArrayLike | None = None,
) -> np.ndarray:
    """Divides a sample among the classes of a map.

    `proportional` and `equal` are precise for overall accuracy and for user's accuracies respectively; the paper
    advises something between: `mixed` gives each rare class a minimum and divides the rest in proportion to area.
    `optimal` divides in proportion to area and expected standard deviation (Neyman's allocation), with the same
    minimum.

    Args:
        size: number of places of the sample.
        weights: (C,) share of each class in the map's area; classes without area get no place.
        allocation: one of `ALLOCATIONS`.
        minimum: least number of places of a class for `mixed` and `optimal`. None: `MIXED_MINIMUM`, or half an equal
            share where that is less.
        expected_accuracies: (C,) user's accuracies that are expected, for `optimal`.
        available: (C,) number of pixels of each class, of which no more can be drawn; None for any number.

    Returns:
        int64 (C,), numbers of places. Their sum is `size`, or less where the map has fewer pixels.

    Raises:
        OptionError: if the allocation is unknown, or the sample is too small for its minimum or for `FEWEST` places of
            each class.
    """
    weights = np.asarray(weights, np.float64)
    present = weights > 0
    most = np.where(present, np.inf if available is None else np.asarray(available, np.float64), 0)
    classes = int(present.sum())
    if allocation not in ALLOCATIONS:
        raise OptionError("allocation", f"'{allocation}'", f"one of {', '.join(ALLOCATIONS)}")
    if size < FEWEST * classes:
        raise OptionError("sample", f"{size}", f"at least {FEWEST} for each of the map's {classes} classes")
    least = FEWEST
    if allocation in ("mixed", "optimal"):
        least = max(FEWEST, min(MIXED_MINIMUM, size // (2 * classes)) if minimum is None else minimum)
        if size < least * classes:
            raise OptionError(
                "min_per_class",
                f"{least} for each of {classes} classes are more than the sample's {size}",
                remedy="draw a larger sample, or lower the minimum",
            )
    target = weights
    if allocation == "equal":
        target = present.astype(np.float64)
    elif allocation == "optimal":
        expected = np.asarray(0.5 if expected_accuracies is None else expected_accuracies, np.float64)
        target = weights * np.sqrt(expected * (1 - expected))
    return _rounded(_divided(size, target, np.minimum(np.where(present, least, 0), most), most), size, most)


def _divided(size: float, target: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Divides a number in proportion to a target, no part below its least and none above its most; float64."""
    if least.sum() >= size:
        return least
    # The parts grow with the factor; find the factor at which they add up.
    low, high = 0.0, 1.0
    goal = min(size, most.sum())
    while np.clip(high * target, least, most).sum() < goal * (1 - 1e-12) and high < 1e30:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * target, least, most).sum() < goal else (low, middle)
    return np.clip(high * target, least, most)


def _rounded(parts: np.ndarray, size: int, most: np.ndarray) -> np.ndarray:
    """Rounds parts to whole numbers, the largest remainders up, so that their sum is kept."""
    whole = np.floor(parts + 1e-6).astype(np.int64)
    missing = int(min(size, most.sum())) - int(whole.sum())
    order = np.argsort(-(parts - whole), kind="stable")
    below = [place for place in order if whole[place] < most[place]]
    whole[below[: max(0, missing)]] += 1
    return whole
