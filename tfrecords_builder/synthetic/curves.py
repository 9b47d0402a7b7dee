"""Curves of a plan: winding lines across it, lines from a center, and blobs with winding edges.

Places are rows and columns of the pixel grid; the middle of the first pixel is 0.5. Distances are in pixels, those
from a line good near it, which is where it is drawn.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrecords_builder.synthetic.noise import fractal_noise_at

FAR = 1e4
"""Distance, in pixels, where a curve does not exist."""


@dataclasses.dataclass(frozen=True)
class Wave:
    """Sine wave of a line: amplitude and period in pixels (of a ray: radians and pixels), phase in radians."""

    amplitude: float
    period: float
    phase: float

    def at(self, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the displacement at places along the line, and its slope."""
        turn = 2 * np.pi / self.period
        return (
            self.amplitude * np.sin(turn * along + self.phase),
            self.amplitude * turn * np.cos(turn * along + self.phase),
        )


@dataclasses.dataclass(frozen=True)
class Line:
    """A line through a whole plan.

    Attributes:
        row: of a place near which it passes.
        col: of that place.
        angle: its direction in radians, from the columns' axis towards the rows'.
        waves: its sine waves.
        half_width: in pixels.
    """

    row: float
    col: float
    angle: float
    waves: tuple[Wave, ...]
    half_width: float

    def distance(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Returns the signed distance of places from the line; negative on its left."""
        sin, cos = np.sin(self.angle), np.cos(self.angle)
        down, right = rows - self.row, cols - self.col
        along, across = right * cos + down * sin, down * cos - right * sin
        swings, slopes = zip(*(wave.at(along) for wave in self.waves), strict=True)
        # Divided by the slope's length, or the line would be thinner where it runs aslant.
        return (across - sum(swings)) / np.sqrt(1 + sum(slopes) ** 2)

    def points(self, reach: float, step: float) -> np.ndarray:
        """Returns places on the line, float64 (points, 2): rows and columns, to `reach` pixels on both sides."""
        along = np.arange(-reach, reach + step, step)
        swing = sum(wave.at(along)[0] for wave in self.waves)
        sin, cos = np.sin(self.angle), np.cos(self.angle)
        return np.stack([self.row + along * sin + swing * cos, self.col + along * cos - swing * sin], axis=1)


@dataclasses.dataclass(frozen=True)
class Ray:
    """A line that leaves a center.

    Attributes:
        row: of the center.
        col: of the center.
        angle: its direction in radians, as for `Line`.
        wave: change of its direction with the distance from the center, in radians.
        half_width: in pixels.
        start: distance from the center at which it begins, in pixels.
    """

    row: float
    col: float
    angle: float
    wave: Wave
    half_width: float
    start: float

    def distance(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Returns the signed distance of places from the line; `FAR` before it begins."""
        down, right = rows - self.row, cols - self.col
        radius = np.hypot(down, right)
        swing, slope = self.wave.at(radius)
        turned = np.arctan2(down, right) - self.angle - swing
        turned = turned - 2 * np.pi * np.round(turned / (2 * np.pi))
        distance = radius * turned / np.sqrt(1 + (radius * slope) ** 2)
        return np.where(radius < self.start, FAR, distance)

    def points(self, reach: float, step: float) -> np.ndarray:
        """Returns places on the line, float64 (points, 2): rows and columns, to `reach` pixels from the center."""
        radius = np.arange(self.start, reach + step, step)
        angle = self.angle + self.wave.at(radius)[0]
        return np.stack([self.row + radius * np.sin(angle), self.col + radius * np.cos(angle)], axis=1)


@dataclasses.dataclass(frozen=True)
class Blob:
    """A rounded area with a winding edge.

    Attributes:
        row: of its middle.
        col: of its middle.
        radius: in pixels.
        roughness: displacement of the edge, as a share of the radius.
        period: of the winding, in pixels.
        key: salt of the winding.
        power: 2 for round, more for squarish.
    """

    row: float
    col: float
    radius: float
    roughness: float
    period: float
    key: int
    power: float = 2.0

    def distance(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Returns the approximate distance of places from the edge; negative inside."""
        down, right = np.abs(rows - self.row), np.abs(cols - self.col)
        reach = (down**self.power + right**self.power) ** (1 / self.power)
        rows, cols = np.broadcast_arrays(rows, cols)
        edge = 1 + 2 * self.roughness * (fractal_noise_at(rows, cols, self.period, self.key) - 0.5)
        return reach - self.radius * edge


_MESH = 24
# Distances change by about a pixel a pixel, so a coarse grid is enough to find what is near; half its mesh's diagonal,
# and as much again, is added.
_DOUBT = 1.5 * _MESH


def near(course: Line | Ray | Blob, rows: np.ndarray, cols: np.ndarray, reach: float) -> bool:
    """Tells whether a curve may be within `reach` pixels of any place in a window.

    Args:
        course: the course.
        rows: the window's rows, ascending, (height, 1).
        cols: its columns, ascending, (1, width).
        reach: in pixels.
    """
    sparse = course.distance(rows[::_MESH], cols[:, ::_MESH])
    return float((sparse if isinstance(course, Blob) else np.abs(sparse)).min()) < reach + _DOUBT


def within(blob: Blob, rows: np.ndarray, cols: np.ndarray) -> bool:
    """Tells whether a window certainly lies inside a blob; the arguments are those of `near`."""
    return float(blob.distance(rows[::_MESH], cols[:, ::_MESH]).max()) < -_DOUBT
