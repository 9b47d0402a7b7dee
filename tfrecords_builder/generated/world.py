"""The generated world: one land cover, asked for by pixel window of a UTM grid.

The world is a mosaic of landscape cells with winding borders, each of one EuroSAT class. It is rendered in blocks of
fixed places, each a pure function of the options, so that a pixel is the same through whichever window it is seen, and
also the same in a larger world of the same seed.
"""

from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np

from eo_keras.errors import BandError, OptionError
from eo_keras.legends import EUROSAT
from eo_keras.sentinel2 import BANDS, EUROSAT_ORDER
from tfrecords_builder.generated import spectra
from tfrecords_builder.generated.noise import hashed, salt, value_noise
from tfrecords_builder.generated.textures import Ground, paint

PIXEL_M = 10
"""Edge of a pixel in metres."""

ORIGIN = (399_960.0, 5_900_040.0)
"""Easting and northing of the world's top left corner: that of a Sentinel-2 tile, north of Berlin."""

PATCH = 64
"""Edge of a EuroSAT patch in pixels."""

_BLOCK = 96  # A multiple of 6, so that 60 m pixels do not straddle blocks.
_PAD = 12  # Two 60 m pixels: what the cubic spline reaches beyond a block.
_BLOCKS_KEPT = 256
_LARGEST = 256


@dataclasses.dataclass(frozen=True)
class WorldOptions:
    """What a world is determined by.

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
        """Refuses values that make no world."""
        for name, low, high in (
            ("seed", 0, 2**31),
            ("cells", 1, _LARGEST),
            ("cell", 96, 960),
            ("acquisition", 0, 2**31),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise OptionError(f"world option {name}", f"{value!r}", f"a whole number from {low} to {high}")


class World:
    """A generated land cover with its Sentinel-2 image.

    Attributes:
        options: what it was made from.
        size: edge of the world in pixels.
        crs: coordinate reference system of the pixel grid.
        transform: the affine transform of the world's top left corner, six numbers (a, b, c, d, e, f) in rasterio's
            order, in metres.
    """

    crs = "EPSG:32633"
    transform = (float(PIXEL_M), 0.0, ORIGIN[0], 0.0, -float(PIXEL_M), ORIGIN[1])

    def __init__(self, options: WorldOptions | None = None):
        self.options = options or WorldOptions()
        self.size = self.options.cells * self.options.cell
        self._blocks: collections.OrderedDict[tuple, np.ndarray] = collections.OrderedDict()
        # The border may wander as far as a patch in the cell's centre stays clear of it.
        self._wander = min((self.options.cell - PATCH) / 2 - 2, 0.25 * self.options.cell)

    def classes(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """Land cover by pixel: of a river only the water is River, of a highway only the road is Highway.

        Args:
            row: the window's first row; 0 is the world's northern edge.
            col: the window's first column; 0 is the world's western edge.
            height: rows.
            width: columns.

        Returns:
            uint8 (height, width), labels of `eo_keras.legends.EUROSAT`.

        Raises:
            OptionError: if the window is empty or leaves the world.
        """
        return self._window(row, col, height, width, ("classes",))[..., 0].astype(np.uint8)

    def landscapes(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """Class of the landscape around each pixel: what a patch there would be labelled as.

        Arguments, shape and errors are those of `classes`; the fields along a river are River here.
        """
        return self._window(row, col, height, width, ("landscapes",))[..., 0].astype(np.uint8)

    def image(self, row: int, col: int, height: int, width: int, bands: tuple[str, ...] = EUROSAT_ORDER) -> np.ndarray:
        """Harmonised digital numbers at the top of the atmosphere (Level-1C), reflectance x 10000.

        Bands of 20 m and 60 m are averaged to their own pixels and brought back to 10 m by a cubic spline.

        Args:
            row: the window's first row; 0 is the world's northern edge.
            col: the window's first column; 0 is the world's western edge.
            height: rows.
            width: columns.
            bands: names, in the order wanted.

        Returns:
            uint16 (height, width, bands), at least 1 everywhere.

        Raises:
            OptionError: if the window is empty or leaves the world.
            BandError: if a band does not exist.
        """
        for name in bands:
            if name not in BANDS:
                raise BandError("generated world", f"no band '{name}'", f"names out of {','.join(BANDS)}")
        return self._window(row, col, height, width, tuple(bands))

    def cell_class(self, cell_row: int, cell_col: int) -> int:
        """Label of the class that the landscape cell at this place of the mosaic has."""
        group, place = divmod(_order_of_cell(cell_row, cell_col), len(EUROSAT))
        return int(self._shuffled(group)[place])

    def patch(self, label: int, number: int) -> tuple[int, int]:
        """Row and column of the top left corner of a class's patch `number` (from 1), in the middle of its own cell.

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

    def _window(self, row: int, col: int, height: int, width: int, layers: tuple[str, ...]) -> np.ndarray:
        if height < 1 or width < 1 or row < 0 or col < 0 or row + height > self.size or col + width > self.size:
            raise OptionError(
                f"window of {height} x {width} pixels at row {row}, column {col}",
                "it is empty or leaves the generated world",
                f"a window inside {self.size} x {self.size} pixels",
            )
        out = np.empty((height, width, len(layers)), np.uint16)
        for block_row in range(row // _BLOCK, (row + height - 1) // _BLOCK + 1):
            for block_col in range(col // _BLOCK, (col + width - 1) // _BLOCK + 1):
                top, left = block_row * _BLOCK, block_col * _BLOCK
                r0, r1 = max(row, top), min(row + height, top + _BLOCK)
                c0, c1 = max(col, left), min(col + width, left + _BLOCK)
                block = self._block(block_row, block_col, layers)
                out[r0 - row : r1 - row, c0 - col : c1 - col] = block[r0 - top : r1 - top, c0 - left : c1 - left]
        return out

    def _block(self, block_row: int, block_col: int, layers: tuple[str, ...]) -> np.ndarray:
        key = (block_row, block_col, layers)
        if key not in self._blocks:
            while len(self._blocks) >= _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
            self._blocks[key] = self._render(block_row, block_col, layers)
        self._blocks.move_to_end(key)
        return self._blocks[key]

    def _render(self, block_row: int, block_col: int, layers: tuple[str, ...]) -> np.ndarray:
        """One block, uint16 (96, 96, layers)."""
        row, col, edge = block_row * _BLOCK - _PAD, block_col * _BLOCK - _PAD, _BLOCK + 2 * _PAD
        inner = slice(_PAD, _PAD + _BLOCK)
        cell_rows, cell_cols = self._mosaic(row, col, edge)
        if layers == ("landscapes",):
            cell_rows, cell_cols = cell_rows[inner, inner], cell_cols[inner, inner]
            labels = np.empty((_BLOCK, _BLOCK, 1), np.uint16)
            for cell in set(zip(cell_rows.flat, cell_cols.flat, strict=True)):
                labels[(cell_rows == cell[0]) & (cell_cols == cell[1])] = self.cell_class(*map(int, cell))
            return labels
        cover = np.empty((len(spectra.MATERIALS), edge, edge), np.float32)
        light = np.empty((edge, edge), np.float32)
        classes = np.empty((edge, edge), np.uint8)
        ids = cell_rows * (2 * _LARGEST) + cell_cols
        for identity in np.unique(ids):
            cell = divmod(int(identity), 2 * _LARGEST)
            mask = ids == identity
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
            half = self.options.cell // 2
            ground = Ground(
                row=row + int(rows[0]),
                col=col + int(cols[0]),
                height=len(range(*box[0].indices(edge))),
                width=len(range(*box[1].indices(edge))),
                centre=(cell[0] * self.options.cell + half, cell[1] * self.options.cell + half),
                cell=cell,
                seed=self.options.seed,
            )
            painting = paint(EUROSAT.class_names[self.cell_class(*cell)], ground)
            here = mask[box]
            cover[:, *box][:, here] = painting.cover[:, here]
            light[box][here] = painting.light[here]
            classes[box][here] = painting.classes[here]
        if layers == ("classes",):
            return classes[inner, inner, None].astype(np.uint16)
        return self._sense(block_row, block_col, cover, light, layers)

    def _mosaic(self, row: int, col: int, edge: int) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of the cell that each pixel belongs to, int64 (edge, edge)."""
        indices = []
        for axis, start in enumerate((row, col)):
            position = np.arange(start, start + edge) + 0.5
            position = position[:, None] if axis == 0 else position[None, :]
            wander = np.zeros((edge, edge), np.float32)
            for period, weight in ((61.0, 0.7), (17.0, 0.3)):
                key = salt(self.options.seed, "border", axis, period)
                wander += weight * (2.0 * value_noise(row, col, edge, edge, period, key) - 1.0)
            # Beyond the northern and western edge the outermost cells go on; there are no cells of negative place.
            cells = np.floor((position + self._wander * wander) / self.options.cell).astype(np.int64)
            indices.append(np.maximum(cells, 0))
        return indices[0], indices[1]

    def _sense(
        self, block_row: int, block_col: int, cover: np.ndarray, light: np.ndarray, bands: tuple[str, ...]
    ) -> np.ndarray:
        """What the sensor makes of the ground: light, haze, resolution and noise; uint16 (96, 96, bands)."""
        options = self.options
        edge = cover.shape[1]
        window = (block_row * _BLOCK - _PAD, block_col * _BLOCK - _PAD, edge, edge)
        day = (options.seed, options.acquisition)
        sun = 0.8 + 0.4 * value_noise(*window, 170.0, salt(*day, "sun"))
        veil = 2.0 * value_noise(*window, 230.0, salt(*day, "haze")) - 1.0
        # Thin cirrus: mostly none, here and there some.
        cirrus = 20.0 * value_noise(*window, 150.0, salt(*day, "cirrus")) ** 3 - 3.5
        table, haze = spectra.endmembers(bands), spectra.haze(bands)
        out = np.empty((_BLOCK, _BLOCK, len(bands)), np.uint16)
        flat = cover.reshape(cover.shape[0], -1)
        for place, name in enumerate(bands):
            # einsum and not @: no threads for such small sums, and no rounding that differs between BLAS libraries.
            signal = np.einsum("m,mp->p", table[:, place], flat).reshape(edge, edge)
            if name == "B10":
                # Nothing of the ground reaches the sensor in this band.
                signal = signal + cirrus
            else:
                signal = signal * light * sun + haze[place] * veil
            step = BANDS[name].resolution_m // PIXEL_M
            if step > 1:
                signal = signal.reshape(edge // step, step, edge // step, step).mean((1, 3))
                normal = _lattice_noise(window[0] // step, window[1] // step, edge // step, salt(*day, name))
            else:
                signal = signal[_PAD:-_PAD, _PAD:-_PAD]
                rng = np.random.default_rng([*day, block_row, block_col, BANDS[name].wavelength_nm])
                normal = rng.standard_normal(signal.shape, np.float32)
            signal = signal + (2.5 if name == "B10" else 6.0 + 0.006 * signal) * normal
            if step > 1:
                weights = _spline(step)
                signal = np.einsum("ac,bc->ab", np.einsum("ar,rc->ac", weights, signal), weights)
            out[..., place] = np.clip(np.rint(signal), 1, 65535)
        return out


def _order_of_cell(row: int, col: int) -> int:
    """Place of a cell in the order of growing squares around the north-west corner, which no world's size changes."""
    ring = max(row, col)
    return ring * ring + (col if row == ring else ring + 1 + row)


def _cell_of_order(order: int) -> tuple[int, int]:
    ring = math.isqrt(order)
    rest = order - ring * ring
    return (ring, rest) if rest <= ring else (rest - ring - 1, ring)


def cells_for(patches_per_class: int) -> int:
    """Returns the smallest `WorldOptions.cells` whose world holds so many patches of every class."""
    return math.isqrt(patches_per_class * len(EUROSAT) - 1) + 1


def _lattice_noise(row: int, col: int, edge: int, key: int) -> np.ndarray:
    """Noise of mean 0 and deviation 1 that is a function of place, float32 (edge, edge).

    Coarse bands need it: the spline mixes in pixels of the next block, which has to know the same noise.
    """
    rows, cols = np.arange(row, row + edge)[:, None], np.arange(col, col + edge)[None, :]
    # The sum of three uniform numbers is near enough to a normal one, and cheap.
    return 2.0 * sum(hashed(key + part, rows, cols) for part in range(3)) - 3.0


_SPLINES: dict[int, np.ndarray] = {}


def _spline(step: int) -> np.ndarray:
    """Cubic B-spline weights from a padded block's coarse pixels to its inner fine ones, float32 (96, coarse)."""
    if step not in _SPLINES:
        fine = (np.arange(_PAD, _PAD + _BLOCK) + 0.5) / step - 0.5
        distance = np.abs(fine[:, None] - np.arange((_BLOCK + 2 * _PAD) // step))
        near = 2 / 3 - distance**2 + distance**3 / 2
        far = np.clip(2 - distance, 0, None) ** 3 / 6
        _SPLINES[step] = np.where(distance < 1, near, far).astype(np.float32)
    return _SPLINES[step]
