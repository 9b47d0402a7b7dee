"""Scores of reconstructed images, input by input: mean squared error and explained variance. NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from eo_keras.records.inputs import InputBands


class ReconstructionSums:
    """Sums over the numbers that were to be predicted, band by band.

    Args:
        inputs: the inputs, in the order of the channels.
    """

    def __init__(self, inputs: Sequence[InputBands]):
        self.inputs = tuple(inputs)
        self._sums = np.zeros((4, sum(len(one.bands) for one in inputs)))

    def add(self, targets: np.ndarray, outputs: np.ndarray) -> None:
        """Adds images.

        Args:
            targets: true numbers (..., bands); NaN where nothing was to be predicted.
            outputs: predicted numbers, likewise.
        """
        counted = np.isfinite(targets)
        true = np.where(counted, targets, 0).astype(np.float64)
        errors = np.where(counted, outputs - true, 0)
        axes = tuple(range(targets.ndim - 1))
        self._sums += [part.sum(axis=axes) for part in (counted, errors**2, true, true**2)]

    def merge(self, other: ReconstructionSums) -> None:
        """Adds all images of other sums of the same inputs."""
        self._sums += other._sums

    def errors(self) -> dict[str, float | None]:
        """Returns the mean squared error of each input by its name; None where nothing was to be predicted."""
        return {name: squares / count if count else None for name, count, squares, _ in self._by_input()}

    def explained_variances(self) -> dict[str, float | None]:
        """Returns the explained variance of each input by its name: 1 less the error by the variance of its bands.

        0 is what the mean of every band over these very numbers attains. None where they do not vary.
        """
        return {name: 1 - squares / spread if spread else None for name, _, squares, spread in self._by_input()}

    def _by_input(self) -> list[tuple[str, float, float, float]]:
        """Returns name, number of numbers, sum of squared errors, and of squared distances to the mean of the band."""
        counts, squares, totals, true_squares = self._sums
        spreads = np.maximum(true_squares - totals**2 / np.maximum(counts, 1), 0)
        found, first = [], 0
        for one in self.inputs:
            own = slice(first, first + len(one.bands))
            found.append((one.name, *(float(part[own].sum()) for part in (counts, squares, spreads))))
            first += len(one.bands)
        return found


def mean_of(values: Mapping[str, float | None]) -> float:
    """Returns the mean of the values that are there; NaN where there is none."""
    there = [value for value in values.values() if value is not None]
    return sum(there) / len(there) if there else math.nan
