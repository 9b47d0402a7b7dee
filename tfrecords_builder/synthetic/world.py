"""Generated world: a land cover of EuroSAT's classes, rendered by pixel window of a UTM grid.

The world is a mosaic of landscape cells with winding borders, each of one EuroSAT class. It is rendered in blocks of
fixed places, each a pure function of the options, so that a pixel is the same through whichever window it is seen, and
also the same in a larger world of the same seed.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from eo_keras.errors import OptionError
from eo_keras.legends.catalogue import EUROSAT
from tfrecords_builder.synthetic import sensor, spectra
from tfrecords_builder.synthetic.blocks import BlockWorld
from tfrecords_builder.synthetic.noise import salt, value_noise
from tfrecords_builder.synthetic.painting import Ground, Painting
from tfrecords_builder.synthetic.sensor import BLOCK, EDGE, PAD, PIXEL_M
from tfrecords_builder.synthetic.textures import paint

__all__ = ["ORIGIN", "PATCH", "PIXEL_M", "World", "WorldOptions", "cells_for"]

ORIGIN = (399_960.0, 5_900_040.0)
"""Easting and northing of the world's top left corner: that of a Sentinel-2 tile, north of Berlin."""

PATCH = 64
"""Edge of a EuroSAT patch in pixels."""

_LARGEST = 256


@dataclasses.dataclass(frozen=True)
class WorldOptions:
    """Options of a generated world.

    Attributes:
        seed: everything random.
        cells: landscape cells along each side of the (square) world.
        cell: edge of a landscape cell in pixels; 96 are 0.96 km.
        acquisition: the day the sensor passed: light, haze and sensor noise differ, the ground does not.
    """

    seed: int = 1
    cells: int = 16
    cell: int = 96
    acquisition: int = 0

    def __post_init__(self):
        """Checks the values."""
        for name, low, high in (
            ("seed", 0, 2**31),
            ("cells", 1, _LARGEST),
            ("cell", 96, 960),
            ("acquisition", 0, 2**31),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise OptionError(f"world option {name}", f"{value!r}", f"a whole number from {low} to {high}")


class World(BlockWorld):
    """A mosaic of landscape cells with its Sentinel-2 image.

    Attributes:
        options: its options.
    """

    def __init__(self, options: WorldOptions | None = None):
        self.options = options or WorldOptions()
        day = sensor.Day(self.options.seed, self.options.acquisition)
        super().__init__(self.options.cells * self.options.cell, "EPSG:32633", ORIGIN, day)
        # The border may wander as far as a patch in the cell's center stays clear of it.
        self._wander = min((self.options.cell - PATCH) / 2 - 2, 0.25 * self.options.cell)

    def cell_class(self, cell_row: int, cell_col: int) -> int:
        """Returns the label of a landscape cell of the mosaic."""
        group, place = divmod(_order_of_cell(cell_row, cell_col), len(EUROSAT))
        return int(self._shuffled(group)[place])

    def patch(self, label: int, number: int) -> tuple[int, int]:
        """Returns row and column of the top left corner of a class's patch `number`, from 1, in the middle of its cell.

        Raises:
            OptionError: if the world is too small for it.
        """
        cell_row = cell_col = self.options.cells
        if number >= 1:
            place = int(np.flatnonzero(self._shuffled(number - 1) == label)[0])
            cell_row, cell_col = _cell_of_order((number - 1) * len(EUROSAT) + place)
        if max(cell_row, cell_col) >= self.options.cells:
            raise OptionError(
                f"patch {number} of class {EUROSAT.class_names[label]}",
                f"it lies outside a world of {self.options.cells} x {self.options.cells} cells",
                "a patch inside the world",
            )
        margin = (self.options.cell - PATCH) // 2
        return cell_row * self.options.cell + margin, cell_col * self.options.cell + margin

    def _shuffled(self, group: int) -> np.ndarray:
        return np.random.default_rng([self.options.seed, 3, group]).permutation(len(EUROSAT))

    def _labels(self, layer: str, block_row: int, block_col: int) -> np.ndarray:
        inner = slice(PAD, PAD + BLOCK)
        if layer == "classes":
            return self._painting(block_row, block_col).classes[inner, inner].astype(np.uint16)
        cell_rows, cell_cols = (places[inner, inner] for places in self._mosaic(block_row, block_col))
        labels = np.empty((BLOCK, BLOCK), np.uint16)
        for cell in set(zip(cell_rows.flat, cell_cols.flat, strict=True)):
            labels[(cell_rows == cell[0]) & (cell_cols == cell[1])] = self.cell_class(*map(int, cell))
        return labels

    def _paint(self, block_row: int, block_col: int) -> Painting:
        row, col = sensor.corner(block_row, block_col)
        cell_rows, cell_cols = self._mosaic(block_row, block_col)
        whole = Painting(
            np.empty((len(spectra.MATERIALS), EDGE, EDGE), np.float32),
            np.empty((EDGE, EDGE), np.float32),
            np.empty((EDGE, EDGE), np.uint8),
        )
        half = self.options.cell // 2
        ids = cell_rows * (2 * _LARGEST) + cell_cols
        for identity in np.unique(ids):
            cell = divmod(int(identity), 2 * _LARGEST)
            whole.fill(
                ids == identity,
                lambda r, c, height, width, cell=cell: paint(
                    EUROSAT.class_names[self.cell_class(*cell)],
                    Ground(
                        row=row + r,
                        col=col + c,
                        height=height,
                        width=width,
                        centre=(cell[0] * self.options.cell + half, cell[1] * self.options.cell + half),
                        cell=cell,
                        seed=self.options.seed,
                    ),
                ),
            )
        return whole

    def _mosaic(self, block_row: int, block_col: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns row and column of the cell that each pixel belongs to, int64 (EDGE, EDGE)."""
        row, col = sensor.corner(block_row, block_col)
        indices = []
        for axis, start in enumerate((row, col)):
            position = np.arange(start, start + EDGE) + 0.5
            position = position[:, None] if axis == 0 else position[None, :]
            wander = np.zeros((EDGE, EDGE), np.float32)
            for period, weight in ((61.0, 0.7), (17.0, 0.3)):
                key = salt(self.options.seed, "border", axis, period)
                wander += weight * (2.0 * value_noise(row, col, EDGE, EDGE, period, key) - 1.0)
            # Beyond the northern and western edge the outermost cells go on; there are no cells of negative place.
            cells = np.floor((position + self._wander * wander) / self.options.cell).astype(np.int64)
            indices.append(np.maximum(cells, 0))
        return indices[0], indices[1]


def _order_of_cell(row: int, col: int) -> int:
    """Returns the index of a cell in growing squares from the north-west corner, equal in worlds of any size."""
    ring = max(row, col)
    return ring * ring + (col if row == ring else ring + 1 + row)


def _cell_of_order(order: int) -> tuple[int, int]:
    ring = math.isqrt(order)
    rest = order - ring * ring
    return (ring, rest) if rest <= ring else (rest - ring - 1, ring)


def cells_for(patches_per_class: int) -> int:
    """Returns the smallest `WorldOptions.cells` of a world with a number of patches of every class."""
    return math.isqrt(patches_per_class * len(EUROSAT) - 1) + 1
