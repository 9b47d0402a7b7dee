"""Plan of a map: its grid, the scenes on it, and the blocks that are computed one by one.

Pure planning: headers of scenes are read and nothing is written. Equal scenes and options give an equal plan.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import polygons, raster_files, reference_systems
from eo_keras.geo.grid import Grid
from eo_keras.geo.scenes import Scene
from eo_keras.mapping.lattice import Axis, Lattice

BLOCK_ROWS, BLOCK_CELLS = 2048, 32
"""Default number of rows of a block, and of cells, whichever is more: at its edges, windows are predicted twice."""

_BUFFERS = 400_000_000
"""Bytes of a block's buffers of probabilities, from which its width follows."""

SAME_SIZE = 0.02
"""Largest relative difference of a scene's and a model's pixel size without resampling."""

_NEAR_SIZE = 1.5
"""Largest ratio of the two where the scene is resampled to another reference system anyway."""

_ALIGNED = 1e-3  # Pixels.


@dataclasses.dataclass(frozen=True)
class Look:
    """A scene on the map's grid.

    Attributes:
        scene: the scene, with the window of the map's grid that it covers as its grid.
        row: the map's row of the window's first pixel.
        column: the map's column of it.
        whole: the grid of the whole scene in the map's pixels; it may reach beyond the map.
    """

    scene: Scene
    row: int
    column: int
    whole: Grid

    def rows(self, lattice: Lattice) -> Axis:
        """Returns the lattice's windows over the scene's rows."""
        return lattice.axis(self.row, self.row + self.scene.grid.height)

    def columns(self, lattice: Lattice) -> Axis:
        """Returns the lattice's windows over the scene's columns."""
        return lattice.axis(self.column, self.column + self.scene.grid.width)


@dataclasses.dataclass(frozen=True)
class Block:
    """A rectangle of the map, the unit of work.

    Attributes:
        row: its first row on the map's grid.
        column: its first column.
        height: its rows.
        width: its columns.
    """

    row: int
    column: int
    height: int
    width: int

    def __len__(self) -> int:
        """Returns the number of pixels, for progress."""
        return self.height * self.width

    def over(self, look: Look) -> tuple[int, int, int, int] | None:
        """Returns the first row, end row, first column and end column that the block shares with a look, or None."""
        grid = look.scene.grid
        top, bottom = max(self.row, look.row), min(self.row + self.height, look.row + grid.height)
        left, right = max(self.column, look.column), min(self.column + self.width, look.column + grid.width)
        return (top, bottom, left, right) if top < bottom and left < right else None


@dataclasses.dataclass(frozen=True)
class MapPlan:
    """Plan of a map.

    Attributes:
        grid: the map's grid.
        looks: the scenes, in order of preference.
        lattice: the windows of the model.
        blocks: the blocks, row by row; what lies in none of them has no data.
        area: the area of the map in the coordinates of the grid, as well-known binary, or None for all of it.
        covered: share of the area that scenes cover, by their outlines.
    """

    grid: Grid
    looks: tuple[Look, ...]
    lattice: Lattice
    blocks: tuple[Block, ...]
    area: bytes | None = None
    covered: float = 1.0

    def looks_over(self, block: Block) -> list[Look]:
        """Returns the scenes that cover some of a block, in order of preference."""
        return [look for look in self.looks if block.over(look)]

    def inside(self, block: Block) -> np.ndarray | None:
        """Returns which pixels of a block have their center in the area, bool (height, width); None for all."""
        if self.area is None:
            return None
        from rasterio.features import geometry_mask
        from rasterio.transform import Affine

        grid = self.grid.window(block.row, block.column, block.height, block.width)
        shape = block.height, block.width
        return geometry_mask([shapely.from_wkb(self.area)], shape, Affine(*grid.transform), invert=True)


def make_plan(
    scenes: Sequence[Scene],
    lattice: Lattice,
    classes: int,
    *,
    resolution_m: float,
    target_crs: str | None = None,
    resolution: float | None = None,
    area: str | None = None,
    block_rows: int | None = None,
    window: tuple[int, int, int, int] | None = None,
) -> MapPlan:
    """Makes the plan of a map.

    Args:
        scenes: the scenes with their own grids, in order of preference.
        lattice: the windows of the model.
        classes: the number of classes, from which the blocks' memory follows.
        resolution_m: pixel size in meters that the model was trained with.
        target_crs: reference system of the map. Default: that of the scenes or, where these differ, the UTM zone of the
            area's center.
        resolution: pixel size of the map in meters. Default: that of the scenes, which must be the model's.
        area: file of the polygons that the map covers. Default: all that the scenes cover.
        block_rows: rows of a block. Default: see `BLOCK_ROWS`.
        window: first row, first column, height and width on the map's grid, to which the map is limited.

    Raises:
        SourceError: if a scene has another pixel size, or is in degrees, or the area's file cannot be read.
        OptionError: if an option does not fit the scenes, the area lies outside all of them, or the window reaches
            beyond the map.
    """
    outline = None if area is None else polygons.read_polygons(area, None)
    crs, size = _crs(scenes, outline, target_crs), resolution
    for scene in scenes:
        _check_size(scene, crs, resolution_m, resolution)
    own = [scene.grid.pixel_size for scene in scenes if scene.grid.crs == crs]
    size = size or (own[0] if own else resolution_m)
    shape = None
    if outline is not None:
        shape = shapely.union_all(polygons.reprojected(outline, crs).geometries)
    grid = _grid(_frame(scenes, crs, size), scenes, shape, area)
    _check_window(window, grid)
    looks = [look for scene in scenes if (look := _look(scene, grid)) is not None]
    covered = _covered(grid, looks, shape)
    if not covered:
        raise _outside(area)
    blocks = _blocks(grid, looks, lattice, classes, block_rows, shape, window)
    return MapPlan(
        grid, tuple(looks), lattice, tuple(blocks), None if shape is None else shapely.to_wkb(shape), covered
    )


def plan_image(source: str, grid: Grid, lattice: Lattice, classes: int) -> MapPlan:
    """Returns the plan of the mask of a single image, on its own pixels."""
    scene = Scene(source, "", None, None, (), (), grid, None, "nearest")
    look = Look(scene, 0, 0, grid)
    return MapPlan(grid, (look,), lattice, tuple(_blocks(grid, [look], lattice, classes, None, None, None)))


def _check_window(window: tuple[int, int, int, int] | None, grid: Grid) -> None:
    row, column, height, width = window or (0, 0, 1, 1)
    inside = row >= 0 and column >= 0 and row + height <= grid.height and column + width <= grid.width
    if height < 1 or width < 1 or not inside:
        raise OptionError(
            "window",
            f"{height} x {width} pixels from row {row} and column {column} on",
            f"at least one pixel, inside the map's {grid.height} x {grid.width}",
        )


def _crs(scenes: Sequence[Scene], outline: Any, target_crs: str | None) -> str:
    """Returns the map's reference system: the given one, the scenes' own, or the UTM zone of the center."""
    if target_crs is not None:
        return reference_systems.name_of(reference_systems.target(target_crs))
    names = {scene.grid.crs for scene in scenes}
    degrees = next((scene for scene in scenes if reference_systems.is_in_degrees(scene.grid.crs)), None)
    if degrees is not None:
        raise SourceError(
            degrees.source,
            f"it lies in degrees ({_short(degrees.grid.crs)}), where pixels have no size in meters",
            "a scene in a projection, or the projection of the map",
            f"say `target_crs={reference_systems.projection_for(degrees.grid)}`",
        )
    if len(names) == 1:
        return names.pop()
    if outline is not None:
        west, south, east, north = shapely.total_bounds(polygons.reprojected(outline, "EPSG:4326").geometries)
    else:
        bounds = np.array([_bounds(scene.grid, "EPSG:4326") for scene in scenes])
        (west, south), (east, north) = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    middle = Grid("EPSG:4326", (1.0, 0.0, (west + east) / 2 - 0.5, 0.0, -1.0, (south + north) / 2 + 0.5), 1, 1)
    return reference_systems.projection_for(middle)


def _short(crs: str) -> str:
    return crs if len(crs) < 20 else "by its own definition"


def _check_size(scene: Scene, crs: str, resolution_m: float, resolution: float | None) -> None:
    """Checks that a scene's pixels have the size that the model was trained with."""
    if resolution is not None:
        return
    width, height = reference_systems.pixel_on_ground(scene.grid)
    most = 1 + SAME_SIZE if scene.grid.crs == crs else _NEAR_SIZE
    if not all(1 / most <= size / resolution_m <= most for size in (width, height)):
        raise SourceError(
            scene.source,
            f"its pixels are {width:.4g} x {height:.4g} m",
            f"{resolution_m:g} m, as the model was trained with",
            f"say `resolution={resolution_m:g}` to resample it to that size, or another number to map it at that one",
        )


def _bounds(grid: Grid, crs: str) -> tuple[float, float, float, float]:
    """Returns the bounds of a grid in another reference system."""
    from rasterio.warp import transform_bounds

    return grid.bounds if grid.crs == crs else transform_bounds(grid.crs, crs, *grid.bounds, densify_pts=21)


def _frame(scenes: Sequence[Scene], crs: str, size: float) -> Grid:
    """Returns a grid whose pixels the map's are in line with: the first scene's own, or one of whole pixel sizes."""
    for scene in scenes:
        if scene.grid.crs == crs and math.isclose(scene.grid.pixel_size, size, rel_tol=1e-9):
            return scene.grid
    for scene in scenes:
        raster_files.brought_to(scene.source, scene.grid, crs)  # Refuses a projection that does not reach it.
    bounds = np.array([_bounds(scene.grid, crs) for scene in scenes])
    west, north = bounds[:, 0].min(), bounds[:, 3].max()
    return Grid(crs, (size, 0.0, math.floor(west / size) * size, 0.0, -size, math.ceil(north / size) * size), 1, 1)


def _extent(frame: Grid, grid: Grid) -> np.ndarray:
    """Returns the first row, end row, first column and end column of a frame's pixels that another grid touches."""
    if grid.crs == frame.crs:
        corners = [grid.coordinates(column, row) for column in (0, grid.width) for row in (0, grid.height)]
    else:
        west, south, east, north = _bounds(grid, frame.crs)
        corners = [(x, y) for x in (west, east) for y in (south, north)]
    return _pixels(frame, corners)


def _pixels(frame: Grid, corners: Sequence[tuple[float, float]]) -> np.ndarray:
    places = np.array([frame.pixel(*corner) for corner in corners])
    (left, top), (right, bottom) = np.floor(places.min(axis=0) + _ALIGNED), np.ceil(places.max(axis=0) - _ALIGNED)
    return np.array([top, bottom, left, right], np.int64)


def _grid(frame: Grid, scenes: Sequence[Scene], shape: Any, area: str | None) -> Grid:
    """Returns the smallest grid over the scenes or, with an area, over what they cover of it."""
    extents = np.array([_extent(frame, scene.grid) for scene in scenes])
    top, left = extents[:, [0, 2]].min(axis=0)
    bottom, right = extents[:, [1, 3]].max(axis=0)
    if shape is not None:
        west, south, east, north = shape.bounds
        limits = _pixels(frame, [(x, y) for x in (west, east) for y in (south, north)])
        top, left = max(top, limits[0]), max(left, limits[2])
        bottom, right = min(bottom, limits[1]), min(right, limits[3])
        if top >= bottom or left >= right:
            raise _outside(area)
    return frame.window(int(top), int(left), int(bottom - top), int(right - left))


def _outside(area: str | None) -> OptionError:
    return OptionError("area", f"{area} lies outside all scenes", "an area that they cover", "check both places")


def _look(scene: Scene, grid: Grid) -> Look | None:
    """Returns a scene as a look at a map; None where it covers none of its grid."""
    top, bottom, left, right = _extent(grid, scene.grid).tolist()
    whole = grid.window(top, left, bottom - top, right - left)
    top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, grid.height), min(right, grid.width)
    if top >= bottom or left >= right:
        return None
    window = grid.window(top, left, bottom - top, right - left)
    return Look(dataclasses.replace(scene, grid=window), top, left, whole)


def _outline(grid: Grid) -> Any:
    corners = ((0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height))
    return shapely.Polygon([grid.coordinates(*corner) for corner in corners])


def _blocks(
    grid: Grid,
    looks: Sequence[Look],
    lattice: Lattice,
    classes: int,
    block_rows: int | None,
    shape: Any,
    window: tuple[int, int, int, int] | None,
) -> list[Block]:
    """Returns the blocks that hold pixels of a scene in the area."""
    outlines = [_outline(look.scene.grid) for look in looks]
    deepest = max(sum(outline.intersects(other) for other in outlines) for outline in outlines)
    # For each look: one buffer of a window's rows, and the sums of two rows of windows that are not complete yet.
    widest = _BUFFERS // (deepest * 3 * lattice.window * classes * 4)
    row, column, height, width = window or (0, 0, grid.height, grid.width)
    # Equal blocks, so that the last one is not narrow.
    parts = math.ceil(width / max(lattice.stride * 4, widest))
    rows = lattice.block_edges(row, row + height, block_rows or max(BLOCK_ROWS, BLOCK_CELLS * lattice.stride))
    columns = lattice.block_edges(column, column + width, math.ceil(width / parts) + lattice.stride)
    blocks = []
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            block = Block(top, left, bottom - top, right - left)
            place = _outline(grid.window(top, left, block.height, block.width))
            if any(block.over(look) for look in looks) and (shape is None or shape.intersects(place)):
                blocks.append(block)
    return blocks


def _covered(grid: Grid, looks: Sequence[Look], shape: Any) -> float:
    """Returns the share of the area that the scenes' outlines cover."""
    area = _outline(grid) if shape is None else shape
    return area.intersection(shapely.union_all([_outline(look.scene.grid) for look in looks])).area / area.area
