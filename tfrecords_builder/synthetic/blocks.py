"""Generated world that is rendered in blocks at fixed positions, each a pure function of the world's options.

So a pixel is the same through whichever window it is seen, and memory stays bounded however large the world is.
"""

from __future__ import annotations

import abc
import collections
from collections.abc import Callable, Hashable

import numpy as np

from eo_keras.errors import BandError, OptionError
from eo_keras.sensors.sentinel2 import BANDS, EUROSAT_ORDER
from tfrecords_builder.synthetic.painting import Painting
from tfrecords_builder.synthetic.sensor import BLOCK, PIXEL_M, Day, Sky, resolution_step, sense, sense_native

_BLOCKS_KEPT = 256


class _Cache:
    """Cache of the values used last, by key."""

    def __init__(self, kept: int):
        self._kept = kept
        self._values: collections.OrderedDict[Hashable, object] = collections.OrderedDict()

    def get(self, key: Hashable, make: Callable[[], object]):
        if key not in self._values:
            while len(self._values) >= self._kept:
                self._values.popitem(last=False)
            self._values[key] = make()
        self._values.move_to_end(key)
        return self._values[key]


class BlockWorld(abc.ABC):
    """A square land cover with its Sentinel-2 image, rendered by pixel window of a UTM grid.

    Attributes:
        size: edge of the world in pixels.
        crs: coordinate reference system of the pixel grid.
        transform: the affine transform of the world's top left corner, six numbers (a, b, c, d, e, f) in rasterio's
            order, in meters.
    """

    def __init__(self, size: int, crs: str, origin: tuple[float, float], day: Day, paintings_kept: int = 1):
        self.size = size
        self.crs = crs
        self.transform = (float(PIXEL_M), 0.0, origin[0], 0.0, -float(PIXEL_M), origin[1])
        self._day = day
        self._blocks = _Cache(_BLOCKS_KEPT)
        self._paintings = _Cache(paintings_kept)

    @abc.abstractmethod
    def _paint(self, block_row: int, block_col: int) -> Painting:
        """Paints a block and its margin: arrays of `sensor.EDGE` rows and columns."""

    @abc.abstractmethod
    def _labels(self, layer: str, block_row: int, block_col: int) -> np.ndarray:
        """Returns a layer of integers by name, uint16 (BLOCK, BLOCK); every world has `classes` and `landscapes`."""

    def _sky(self, block_row: int, block_col: int) -> Sky | None:
        """Returns the clouds over a block, if there are any."""
        return None

    def classes(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """Returns the land cover by pixel: of a river only the water is River, of a highway only the road is Highway.

        Args:
            row: the window's first row; 0 is the world's northern edge.
            col: the window's first column; 0 is the world's western edge.
            height: rows.
            width: columns.

        Returns:
            uint8 (height, width), labels of `eo_keras.legends.catalogue.EUROSAT`.

        Raises:
            OptionError: if the window is empty or leaves the world.
        """
        return self._layer("classes", row, col, height, width).astype(np.uint8)

    def landscapes(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """Returns the class of the landscape around each pixel, the label of a patch there.

        Arguments, shape and errors are those of `classes`; the fields along a river are River here.
        """
        return self._layer("landscapes", row, col, height, width).astype(np.uint8)

    def image(self, row: int, col: int, height: int, width: int, bands: tuple[str, ...] = EUROSAT_ORDER) -> np.ndarray:
        """Returns harmonized digital numbers at the top of the atmosphere (Level-1C), reflectance x 10000.

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
        bands = _checked(bands)
        return self._window(row, col, height, width, ("image", *bands), len(bands))

    def native(self, row: int, col: int, height: int, width: int, bands: tuple[str, ...]) -> np.ndarray:
        """Returns the same numbers at the bands' own resolution, as in Sentinel-2 products.

        Args:
            row: the window's first row, in pixels of the bands.
            col: the window's first column, in pixels of the bands.
            height: rows, in pixels of the bands.
            width: columns, in pixels of the bands.
            bands: names of bands of one resolution, in the order wanted.

        Returns:
            uint16 (height, width, bands), at least 1 everywhere.

        Raises:
            OptionError: if the window is empty or leaves the world.
            BandError: if a band does not exist, or they have several resolutions.
        """
        bands = _checked(bands)
        steps = {resolution_step(name) for name in bands}
        if len(steps) != 1:
            raise BandError("generated world", f"bands {','.join(bands)}", "bands of one resolution")
        return self._window(row, col, height, width, ("native", *bands), len(bands), steps.pop())

    def _layer(self, name: str, row: int, col: int, height: int, width: int) -> np.ndarray:
        return self._window(row, col, height, width, (name,), 1)[..., 0]

    def _window(
        self, row: int, col: int, height: int, width: int, wanted: tuple[str, ...], layers: int, step: int = 1
    ) -> np.ndarray:
        size, edge = self.size // step, BLOCK // step
        if height < 1 or width < 1 or row < 0 or col < 0 or row + height > size or col + width > size:
            raise OptionError(
                f"window of {height} x {width} pixels at row {row}, column {col}",
                "it is empty or leaves the generated world",
                f"a window inside {size} x {size} pixels",
            )
        out = np.empty((height, width, layers), np.uint16)
        for block_row in range(row // edge, (row + height - 1) // edge + 1):
            for block_col in range(col // edge, (col + width - 1) // edge + 1):
                top, left = block_row * edge, block_col * edge
                r0, r1 = max(row, top), min(row + height, top + edge)
                c0, c1 = max(col, left), min(col + width, left + edge)
                block = self._block(block_row, block_col, wanted)
                out[r0 - row : r1 - row, c0 - col : c1 - col] = block[r0 - top : r1 - top, c0 - left : c1 - left]
        return out

    def _block(self, block_row: int, block_col: int, wanted: tuple[str, ...]) -> np.ndarray:
        def render() -> np.ndarray:
            kind, *bands = wanted
            if not bands:
                return self._labels(kind, block_row, block_col)[..., None]
            ground, sky = self._painting(block_row, block_col), self._sky(block_row, block_col)
            return (sense if kind == "image" else sense_native)(
                block_row, block_col, ground, self._day, tuple(bands), sky
            )

        return self._blocks.get((block_row, block_col, wanted), render)

    def _painting(self, block_row: int, block_col: int) -> Painting:
        return self._paintings.get((block_row, block_col), lambda: self._paint(block_row, block_col))


def _checked(bands: tuple[str, ...]) -> tuple[str, ...]:
    for name in bands:
        if name not in BANDS:
            raise BandError("generated world", f"no band '{name}'", f"names out of {','.join(BANDS)}")
    return tuple(bands)
