"""Painted ground: shares of materials, illumination and land cover by pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tfrecords_builder.synthetic.noise import fractal_noise, salt, value_noise
from tfrecords_builder.synthetic.spectra import MATERIALS

PLACE_OF = {name: place for place, name in enumerate(MATERIALS)}
"""Place of a material in `Painting.cover`."""


@dataclasses.dataclass(frozen=True)
class Ground:
    """A window of one landscape cell that is to be painted.

    Attributes:
        row: first row of the window in the world.
        col: first column of the window in the world.
        height: rows of the window.
        width: columns of the window.
        centre: row and column of the cell's center.
        cell: the cell's place in the mosaic (row, column).
        seed: the world's seed.
        density: density of buildings of a residential cell, or of trees of a wood, 0..1; None where drawn, or full.
    """

    row: int
    col: int
    height: int
    width: int
    centre: tuple[int, int]
    cell: tuple[int, int]
    seed: int
    density: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    def rng(self) -> np.random.Generator:
        """Returns a new random generator of the cell; the same numbers for every window of the cell."""
        return np.random.default_rng([self.seed, 7, *self.cell])

    def key(self, purpose: str) -> int:
        """Returns a salt of this cell for one purpose."""
        return salt(self.seed, *self.cell, purpose)

    def noise(self, period: float, purpose: str) -> np.ndarray:
        """Computes value noise of the window, float32 (height, width) in [0, 1)."""
        return value_noise(self.row, self.col, *self.shape, period, self.key(purpose))

    def fractal(self, period: float, purpose: str, octaves: int = 3) -> np.ndarray:
        """Computes fractal noise of the window, float32 (height, width) in [0, 1)."""
        return fractal_noise(self.row, self.col, *self.shape, period, self.key(purpose), octaves)

    def turned(self, angle: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns distances from the cell's center along and across a direction, in pixels, float32 (height, width)."""
        y = (np.arange(self.row, self.row + self.height) + 0.5 - self.centre[0]).astype(np.float32)[:, None]
        x = (np.arange(self.col, self.col + self.width) + 0.5 - self.centre[1]).astype(np.float32)[None, :]
        sin, cos = np.float32(np.sin(angle)), np.float32(np.cos(angle))
        return x * cos + y * sin, y * cos - x * sin


@dataclasses.dataclass
class Painting:
    """A painted window.

    Attributes:
        cover: shares of the materials, float32 (materials, height, width), sum 1.
        light: factor on what the materials reflect, float32 (height, width).
        classes: land cover by pixel, uint8 (height, width).
    """

    cover: np.ndarray
    light: np.ndarray
    classes: np.ndarray

    def fill(self, mask: np.ndarray, paint: Callable[[int, int, int, int], Painting]) -> None:
        """Fills the pixels of a mask with a painting of the smallest window around them.

        Args:
            mask: bool (height, width), at least one pixel.
            paint: takes the window's first row and column in this painting, its rows and its columns.
        """
        rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)
        part = paint(box[0].start, box[1].start, box[0].stop - box[0].start, box[1].stop - box[1].start)
        here = mask[box]
        self.cover[:, *box][:, here] = part.cover[:, here]
        self.light[box][here] = part.light[here]
        self.classes[box][here] = part.classes[here]

    def overlay(self, mask: np.ndarray, light: float | np.ndarray = 1.0, **shares: float | np.ndarray) -> None:
        """Covers the mask's share (0..1, float32 (height, width)) of each pixel with a mixture of materials."""
        self.cover *= 1.0 - mask
        for name, share in shares.items():
            self.cover[PLACE_OF[name]] += mask * share
        self.light += mask * (light - self.light)


def band(distance: np.ndarray, half_width: float | np.ndarray) -> np.ndarray:
    """Returns the coverage (0..1) of pixels by a band around distance 0, antialiased over one pixel."""
    return np.clip(half_width + 0.5 - np.abs(distance), 0.0, 1.0)
