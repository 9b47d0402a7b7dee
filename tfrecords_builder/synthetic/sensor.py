"""Sensor model: digital numbers of painted ground with illumination, haze, clouds, resolution and noise, by block.

A block is a square of fixed place; around it some ground is known too, for what coarse pixels and their interpolation
reach beyond its edge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from eo_keras.sensors.sentinel2 import BANDS
from tfrecords_builder.synthetic import spectra
from tfrecords_builder.synthetic.noise import hashed, salt, value_noise
from tfrecords_builder.synthetic.painting import Painting

PIXEL_M = 10
"""Edge of a pixel in meters."""

BLOCK = 96
"""Edge of a block in pixels: a multiple of 6, so that 60 m pixels do not straddle blocks."""

PAD = 12
"""Margin around a block in pixels: two pixels of 60 m, the support of the cubic spline."""

EDGE = BLOCK + 2 * PAD
"""Edge of a block with its margin, in pixels."""


@dataclasses.dataclass(frozen=True)
class Day:
    """An acquisition.

    Attributes:
        seed: of the world.
        number: the acquisition; light, haze and sensor noise depend on it.
        surface: whether the atmosphere's own light is taken off, as in Level-2A.
    """

    seed: int
    number: int
    surface: bool = False


@dataclasses.dataclass(frozen=True)
class Sky:
    """Clouds over a block and its surroundings.

    Attributes:
        cloud: opacity of clouds, 0..1, float32 (EDGE, EDGE).
        shadow: share of the direct light that they block, 0..1, float32 (EDGE, EDGE).
    """

    cloud: np.ndarray
    shadow: np.ndarray


def corner(block_row: int, block_col: int) -> tuple[int, int]:
    """Returns the row and column of the first pixel of a block's margin."""
    return block_row * BLOCK - PAD, block_col * BLOCK - PAD


def resolution_step(band: str) -> int:
    """Returns the width of a band's pixel in pixels of 10 m."""
    return BANDS[band].resolution_m // PIXEL_M


def sense(
    block_row: int, block_col: int, ground: Painting, day: Day, bands: tuple[str, ...], sky: Sky | None = None
) -> np.ndarray:
    """Computes harmonized digital numbers of a block, coarse bands resampled to 10 m: uint16 (BLOCK, BLOCK, bands)."""
    out = np.empty((BLOCK, BLOCK, len(bands)), np.uint16)
    for place, signal in enumerate(_signals(block_row, block_col, ground, day, bands, sky)):
        step = resolution_step(bands[place])
        if step > 1:
            weights = _spline(step)
            signal = np.einsum("ac,bc->ab", np.einsum("ar,rc->ac", weights, signal), weights)
        out[..., place] = _digitised(signal)
    return out


def sense_native(
    block_row: int, block_col: int, ground: Painting, day: Day, bands: tuple[str, ...], sky: Sky | None = None
) -> np.ndarray:
    """Computes harmonized digital numbers of a block at the resolution of the bands, which is one.

    Returns:
        uint16 (BLOCK / step, BLOCK / step, bands), with the step of `resolution_step`.
    """
    step = resolution_step(bands[0])
    inner = slice(None) if step == 1 else slice(PAD // step, -(PAD // step))
    signals = _signals(block_row, block_col, ground, day, bands, sky)
    return np.stack([_digitised(signal[inner, inner]) for signal in signals], axis=-1)


def _digitised(signal: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(signal), 1, 65535).astype(np.uint16)


def _signals(
    block_row: int, block_col: int, ground: Painting, day: Day, bands: tuple[str, ...], sky: Sky | None
) -> Iterator[np.ndarray]:
    """Yields each band's noisy signal at its own resolution: (BLOCK, BLOCK) at 10 m, else with the margin."""
    window = (*corner(block_row, block_col), EDGE, EDGE)
    key = (day.seed, day.number)
    sun = 0.8 + 0.4 * value_noise(*window, 170.0, salt(*key, "sun"))
    veil = 2.0 * value_noise(*window, 230.0, salt(*key, "haze")) - 1.0
    # Thin cirrus: mostly none, here and there some.
    cirrus = 20.0 * value_noise(*window, 150.0, salt(*key, "cirrus")) ** 3 - 3.5
    table, haze, path = spectra.endmembers(bands), spectra.haze(bands), spectra.path(bands)
    cloud = spectra.cloud(bands)
    flat = ground.cover.reshape(ground.cover.shape[0], -1)
    for place, name in enumerate(bands):
        # einsum and not @: no threads for such small sums, and no rounding that differs between BLAS libraries.
        signal = np.einsum("m,mp->p", table[:, place], flat).reshape(EDGE, EDGE)
        if name == "B10":
            # Nothing of the ground reaches the sensor in this band.
            signal = signal + cirrus
        else:
            signal = signal * ground.light * sun + haze[place] * veil
        if sky is not None:
            if name != "B10":
                # The atmosphere above a shadow still scatters light.
                signal = signal - sky.shadow * 0.6 * np.maximum(signal - path[place], 0.0)
            signal = signal + sky.cloud * (cloud[place] - signal)
        if day.surface:
            signal = 1.06 * (signal - path[place])
        step = resolution_step(name)
        if step > 1:
            signal = signal.reshape(EDGE // step, step, EDGE // step, step).mean((1, 3))
            normal = _lattice_noise(window[0] // step, window[1] // step, EDGE // step, salt(*key, name))
        else:
            signal = signal[PAD:-PAD, PAD:-PAD]
            rng = np.random.default_rng([*key, block_row, block_col, BANDS[name].wavelength_nm])
            normal = rng.standard_normal(signal.shape, np.float32)
        yield signal + (2.5 if name == "B10" else 6.0 + 0.006 * signal) * normal


def _lattice_noise(row: int, col: int, edge: int, key: int) -> np.ndarray:
    """Computes noise of mean 0 and deviation 1 that depends on the position alone, float32 (edge, edge).

    Coarse bands need it: the spline mixes in pixels of the next block, which has to know the same noise.
    """
    rows, cols = np.arange(row, row + edge)[:, None], np.arange(col, col + edge)[None, :]
    # The sum of three uniform numbers is near enough to a normal one, and cheap.
    return 2.0 * sum(hashed(key + part, rows, cols) for part in range(3)) - 3.0


_SPLINES: dict[int, np.ndarray] = {}


def _spline(step: int) -> np.ndarray:
    """Returns cubic B-spline weights from a padded block's coarse pixels to its fine ones, float32 (BLOCK, coarse)."""
    if step not in _SPLINES:
        fine = (np.arange(PAD, PAD + BLOCK) + 0.5) / step - 0.5
        distance = np.abs(fine[:, None] - np.arange(EDGE // step))
        near = 2 / 3 - distance**2 + distance**3 / 2
        far = np.clip(2 - distance, 0, None) ** 3 / 6
        _SPLINES[step] = np.where(distance < 1, near, far).astype(np.float32)
    return _SPLINES[step]
