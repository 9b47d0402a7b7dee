"""Value noise from hashed lattices: a function of the position, independent of the window."""

from __future__ import annotations

import zlib

import numpy as np


def salt(*parts: object) -> int:
    """Returns a 32-bit salt for hashing, from numbers and words."""
    return zlib.crc32("/".join(map(str, parts)).encode())


def hashed(key: int, *integers: np.ndarray) -> np.ndarray:
    """Hashes integer coordinates to uniform numbers.

    Args:
        key: the salt; different salts give independent numbers.
        *integers: integer arrays that broadcast together; negative numbers are fine.

    Returns:
        float32 in [0, 1), of the broadcast shape.
    """
    state = np.full((1,), key, np.uint32)
    for value in integers:
        # Array arithmetic wraps around in uint32, as a multiplicative hash needs.
        state = state ^ (np.asarray(value).astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1))
        state = (state ^ (state >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        state = (state ^ (state >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        state = state ^ (state >> np.uint32(16))
    return (state >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def _axis(start: int, count: int, period: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    position = (np.arange(start, start + count) + 0.5) / period
    base = np.floor(position)
    fraction = position - base
    lattice = np.arange(int(base[0]), int(base[-1]) + 2)
    weight = fraction * fraction * (3.0 - 2.0 * fraction)
    return lattice, (base - base[0]).astype(np.intp), weight.astype(np.float32)


def value_noise(row: int, col: int, height: int, width: int, period: float, key: int) -> np.ndarray:
    """Computes smooth noise over a window of the pixel grid.

    Args:
        row: the window's first row.
        col: the window's first column.
        height: rows.
        width: columns.
        period: distance of the lattice points, in pixels.
        key: the salt.

    Returns:
        float32 (height, width), in [0, 1), mean 0.5.
    """
    lattice_rows, r, weight_r = _axis(row, height, period)
    lattice_cols, c, weight_c = _axis(col, width, period)
    values = hashed(key, lattice_rows[:, None], lattice_cols[None, :])
    rows = values[r] + (values[r + 1] - values[r]) * weight_r[:, None]
    return rows[:, c] + (rows[:, c + 1] - rows[:, c]) * weight_c


def fractal_noise(row: int, col: int, height: int, width: int, period: float, key: int, octaves: int = 3) -> np.ndarray:
    """Sums `octaves` value noises, each of half the period and 0.6 of the weight of the one before.

    Returns:
        float32 (height, width), in [0, 1), mean 0.5.
    """
    total = np.zeros((height, width), np.float32)
    weights = 0.0
    for octave in range(octaves):
        weight = 0.6**octave
        total += np.float32(weight) * value_noise(row, col, height, width, period / 2**octave, key + octave)
        weights += weight
    return total / np.float32(weights)


def value_noise_at(rows: np.ndarray, cols: np.ndarray, period: float, key: int) -> np.ndarray:
    """Computes the noise of `value_noise` at single places.

    Args:
        rows: places down the grid, in pixels; the middle of the first pixel is 0.5. Any shape.
        cols: places across it, of the same shape.
        period: distance of the lattice points, in pixels.
        key: the salt.

    Returns:
        float64 of that shape, in [0, 1), mean 0.5.
    """
    bases, weights = [], []
    for place in (rows, cols):
        position = np.asarray(place, np.float64) / period
        base = np.floor(position)
        fraction = position - base
        bases.append(base.astype(np.int64))
        weights.append(fraction * fraction * (3.0 - 2.0 * fraction))
    (r, c), (weight_r, weight_c) = bases, weights
    left = hashed(key, r, c) * (1.0 - weight_r) + hashed(key, r + 1, c) * weight_r
    right = hashed(key, r, c + 1) * (1.0 - weight_r) + hashed(key, r + 1, c + 1) * weight_r
    return left * (1.0 - weight_c) + right * weight_c


def fractal_noise_at(rows: np.ndarray, cols: np.ndarray, period: float, key: int, octaves: int = 3) -> np.ndarray:
    """Computes the noise of `fractal_noise` at single places; the arguments are those of `value_noise_at`."""
    weights = [0.6**octave for octave in range(octaves)]
    noises = [value_noise_at(rows, cols, period / 2**octave, key + octave) for octave in range(octaves)]
    return sum(weight * noise for weight, noise in zip(weights, noises, strict=True)) / sum(weights)
