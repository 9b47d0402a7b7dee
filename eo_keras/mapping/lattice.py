"""Lattice of windows over a grid, and the weights with which their predictions are blended.

A map is divided into cells of `stride` x `stride` pixels, from its upper left corner on. Each cell has one window,
which is centered on it and overlaps those of its neighbors. The windows' places depend on the map's grid alone, and the
weights on the grid and on the extent of the scene. So a map does not depend on the blocks that it is computed in, nor
on batches or workers.

Of a segmentation model's window, the outer quarter of the overlap is dropped, for a network pads there with zeros; over
the middle half the weight rises linearly, so that the weights of two neighbors add up to 1. Of a classifier's window,
which has one prediction, the weight falls from the center to the edges.

Windows of cells at the border of a scene reach beyond it by half of the overlap. What lies there is the scene's own
mirror image, so that pixels at the border have as much context as others, and the weights there are never 0.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Lattice:
    """Lattice of windows along one axis, the same for rows and columns.

    Attributes:
        window: height and width of a window in pixels.
        stride: height and width of a cell in pixels; 1 to `window`.
        margin: pixels at each side of a window whose predictions are dropped; at most half of the overlap.
    """

    window: int
    stride: int
    margin: int

    @classmethod
    def of_masks(cls, window: int, overlap: int) -> Lattice:
        """Returns the lattice of a segmentation model, whose windows overlap by at most half of their size."""
        return cls(window, window - overlap, overlap // 4)

    @classmethod
    def of_patches(cls, window: int, stride: int) -> Lattice:
        """Returns the lattice of a classifier of patches."""
        return cls(window, stride, 0)

    @property
    def before(self) -> int:
        """Number of pixels from a window's first one to that of its cell."""
        return (self.window - self.stride) // 2

    def start(self, cell: int) -> int:
        """Returns the first pixel of a cell's window."""
        return cell * self.stride - self.before

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Weights over a window, float64 (window,), 0 in the margins and above 0 elsewhere."""
        ramp = max(1, min(self.window - self.stride - 2 * self.margin, self.window // 2))
        place = np.arange(self.window - 2 * self.margin)
        rising = np.minimum(1.0, (place + 0.5) / ramp)
        return np.pad(np.minimum(rising, rising[::-1]), self.margin)

    def axis(self, first: int, stop: int) -> Axis:
        """Returns the windows over the pixels `first` to `stop - 1` of an axis."""
        return Axis(self, first, stop)

    def block_edges(self, first: int, stop: int, largest: int) -> list[int]:
        """Returns the edges of blocks of an axis, each at most `largest` pixels or a stride.

        Edges lie in the middle of a cell, where a segmentation model needs no window twice but the edge's own.
        """
        if stop - first <= largest:
            return [first, stop]
        cells = max(1, largest // self.stride)
        middle = self.stride // 2 + first // self.stride * self.stride
        inner = range(middle + (cells - 1) * self.stride, stop, cells * self.stride)
        return [first, *(edge for edge in inner if first < edge), stop]


@dataclasses.dataclass(frozen=True)
class Axis:
    """The windows over an extent of pixels along one axis.

    Attributes:
        lattice: the lattice.
        first: first pixel of the extent.
        stop: the pixel behind its last one.
    """

    lattice: Lattice
    first: int
    stop: int

    @property
    def cells(self) -> range:
        """The numbers of the cells that hold pixels of the extent; each has a window."""
        return range(self.first // self.lattice.stride, (self.stop - 1) // self.lattice.stride + 1)

    @functools.cached_property
    def _total(self) -> np.ndarray:
        """Sum of all windows' weights at each pixel, float64 (stop - first,); above 0."""
        total = np.zeros(self.stop - self.first)
        for cell in self.cells:
            own, inside = self._places(cell)
            total[own] += self.lattice.weights[inside]
        return total

    def _places(self, cell: int) -> tuple[slice, slice]:
        """Returns a window's pixels with a weight, as slices of the extent and of the window."""
        start, margin = self.lattice.start(cell), self.lattice.margin
        low = max(start + margin, self.first)
        high = max(low, min(start + self.lattice.window - margin, self.stop))
        return slice(low - self.first, high - self.first), slice(low - start, high - start)

    def cells_over(self, first: int, stop: int) -> range:
        """Returns the cells whose windows have a weight at any of the pixels `first` to `stop - 1`."""
        reach, stride, cells = self.lattice.window - self.lattice.margin, self.lattice.stride, self.cells
        low = (first - reach + self.lattice.before) // stride + 1
        high = (stop - 1 - self.lattice.margin + self.lattice.before) // stride
        return range(max(low, cells.start), min(high + 1, cells.stop))

    def weights(self, cell: int, first: int, stop: int) -> tuple[slice, slice, np.ndarray]:
        """Returns the weights of a window at the pixels `first` to `stop - 1`; those of all windows add up to 1.

        Returns:
            The pixels with a weight as a slice of these pixels, the same as a slice of the window, and their weights,
            float32.
        """
        own, inside = self._places(cell)
        low, high = max(own.start + self.first, first), min(own.stop + self.first, stop)
        high = max(low, high)
        own = slice(low - self.first, high - self.first)
        inside = slice(low - self.lattice.start(cell), high - self.lattice.start(cell))
        weights = (self.lattice.weights[inside] / self._total[own]).astype(np.float32)
        return slice(low - first, high - first), inside, weights

    def mirrored(self, cell: int) -> np.ndarray:
        """Returns the pixels of a cell's window, int64 (window,): those beyond the extent are mirrored into it."""
        start = self.lattice.start(cell)
        return mirrored(np.arange(start, start + self.lattice.window), self.first, self.stop)


def mirrored(places: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Mirrors places beyond an extent into it, as often as needed, without repeating the pixels at its edges."""
    period = max(1, 2 * (stop - first - 1))
    folded = (places - first) % period
    return first + np.minimum(folded, period - folded)
