"""Generated city seen from the air: images of districts with footprints and heights of their buildings.

Streets, yards and buildings are drawn as polygons, and everything is rendered at twice the resolution of the images:
pitched and flat roofs lit by the sun, trees that hang over the edges of roofs, cars, and the shadows of all of them.
Roofs have the colors of asphalt, concrete, paving and bare soil, of which yards hold rectangles of a building's size as
well: the color of a pixel does not give its class away, and a network needs shape, light and shadow. Trees and shadows
hide parts of the outlines, which are straight.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
import rasterio
import rasterio.io
import shapely
import shapely.affinity
from scipy import ndimage

from eo_keras.core import files
from eo_keras.errors import OptionError
from eo_keras.geo import polygons as vectors
from eo_keras.geo.grid import Grid
from eo_keras.geo.rasterize import Rasterizer
from tfrecords_builder.synthetic.noise import fractal_noise, salt

CRS = "EPSG:32633"
CITIES = ("alderford", "brinehaven", "coldmere", "dunwick", "elmstead")
"""Names of the cities, whose districts are numbered from 1."""

_ORIGIN = (500_000.0, 5_400_000.0)
_APART_M = 3_000.0
"""Distance of neighboring districts."""

_MARGIN_M = 24.0
"""Width of the ground around a district that is rendered too, for what casts shadows into it."""

_FINER = 2
_CHANGED = "2021-06-01T00:00:00Z"  # Any fixed time: the same seed must give the same bytes.

_GROUND = {
    "lawn": (88, 106, 62),
    "dry": (142, 132, 94),
    "soil": (152, 120, 92),
    "asphalt": (104, 104, 107),
    "concrete": (168, 164, 157),
    "paving": (152, 108, 90),
}
"""Mean colors of the ground, 0 to 255."""

_ROOFS = ((156, 100, 80), (128, 98, 82), (110, 110, 112), (84, 84, 90), (176, 171, 164), (142, 124, 104))
"""Mean colors of roofs."""

_YARDS = ("asphalt", "concrete", "paving", "soil", "dry")
_TREE, _CARS = (52, 72, 42), ((205, 205, 205), (40, 42, 48), (150, 40, 40), (60, 80, 130), (120, 122, 126))
_SHADE = np.array([0.42, 0.46, 0.55], np.float32)  # What is left of the light in a shadow, which the sky lights blue.
_BLUR = 0.55  # Standard deviation of the point spread function, in pixels of the image.


@dataclasses.dataclass(frozen=True)
class District:
    """A district as it is written.

    Attributes:
        image: uint8 (size, size, 3), red, green and blue.
        mask: uint8 (size, size), 255 in buildings, 0 elsewhere.
        heights: float32 (size, size), height in meters of buildings and trees above the ground, which is 0.
        footprints: object (N,), polygons of the buildings.
        grid: the place of all.
    """

    image: np.ndarray
    mask: np.ndarray
    heights: np.ndarray
    footprints: np.ndarray
    grid: Grid


@dataclasses.dataclass
class _Wing:
    """A rectangular part of a building, along axes of its own."""

    x: float
    y: float
    length: float
    breadth: float
    angle: float
    eaves: float
    pitch: float
    colour: np.ndarray

    @property
    def outline(self) -> shapely.Polygon:
        along, across = self.length / 2, self.breadth / 2
        return _turned(shapely.box(-along, -across, along, across), self.angle, self.x, self.y)


def _turned(shape: shapely.Polygon, angle: float, x: float, y: float) -> shapely.Polygon:
    sin, cos = math.sin(angle), math.cos(angle)
    return shapely.affinity.affine_transform(shape, (cos, -sin, sin, cos, x, y))


class _Plan:
    """Plan of a district around the origin, in meters: x to the east, y to the north."""

    def __init__(self, rng: np.random.Generator, reach: float):
        self._rng, self._reach = rng, reach
        self.angle = rng.uniform(0, math.pi)
        self.surfaces: list[tuple[shapely.Polygon, np.ndarray]] = []
        self.wings: list[_Wing] = []
        self.buildings: list[shapely.Geometry] = []
        columns, rows = self._streets(44, 78), self._streets(52, 92)
        for left, right in zip(columns[:-1], columns[1:], strict=True):
            for below, above in zip(rows[:-1], rows[1:], strict=True):
                self._block(left[1], below[1], right[0], above[0])
        self.roads = [self._place(shapely.box(a, -reach, b, reach)) for a, b in columns]
        self.roads += [self._place(shapely.box(-reach, a, reach, b)) for a, b in rows]

    def _streets(self, low: float, high: float) -> list[tuple[float, float]]:
        """Returns the edges of parallel streets across the district."""
        found, at = [], -self._reach - self._rng.uniform(0, high)
        while at < self._reach + high:
            width = self._rng.uniform(6, 10)
            found.append((at, at + width))
            at += width + self._rng.uniform(low, high)
        return found

    def _place(self, shape: shapely.Polygon) -> shapely.Polygon:
        return _turned(shape, self.angle, 0.0, 0.0)

    def _colour(self, mean: tuple[int, ...]) -> np.ndarray:
        light = math.exp(self._rng.normal(0, 0.14))
        return np.array(mean, np.float32) * light + self._rng.normal(0, 6, 3)

    def _surface(self, kind: str, west: float, south: float, east: float, north: float) -> None:
        self.surfaces.append((self._place(shapely.box(west, south, east, north)), self._colour(_GROUND[kind])))

    def _block(self, west: float, south: float, east: float, north: float) -> None:
        rng = self._rng
        kind = rng.choice(["homes", "works", "open"], p=[0.72, 0.18, 0.1])
        if kind == "open":
            self._surface(str(rng.choice(["lawn", "dry", "soil"])), west, south, east, north)
        elif kind == "works":
            self._surface(str(rng.choice(["asphalt", "concrete", "soil"])), west, south, east, north)
            self._works(west, south, east, north)
        else:
            depth = min(30.0, (north - south) / 2)
            for street, inwards in ((south, 1), (north, -1)):
                at = west + rng.uniform(0, 3)
                while at + 11 < east:
                    width = min(rng.uniform(13, 24), east - at)
                    self._lot(at, width, street, inwards, depth)
                    at += width

    def _works(self, west: float, south: float, east: float, north: float) -> None:
        rng, at = self._rng, west + 4
        while at + 16 < east:
            length = min(rng.uniform(16, 36), east - at - 3)
            bottom = south + rng.uniform(3, 9)
            while bottom + 14 < north:
                breadth = min(rng.uniform(12, 30), north - bottom - 3)
                middle = at + length / 2, bottom + breadth / 2
                if rng.random() < 0.75:
                    self._building([(*middle, length, breadth)], eaves=rng.uniform(5, 12), pitched=False)
                else:
                    self._surface(str(rng.choice(_YARDS)), at, bottom, at + length, bottom + breadth)
                bottom += breadth + rng.uniform(5, 12)
            at += length + rng.uniform(5, 12)

    def _lot(self, west: float, width: float, street: float, inwards: int, depth: float) -> None:
        rng = self._rng
        edges = sorted((street, street + inwards * depth))
        self._surface(str(rng.choice(["lawn", "lawn", "dry", "soil"])), west, edges[0], west + width, edges[1])
        # Yards as large as houses, of the colors of their roofs.
        for _ in range(rng.integers(0, 3)):
            length, breadth = rng.uniform(4, 11, 2)
            left = west + rng.uniform(0, max(0.1, width - length))
            start = street + inwards * rng.uniform(0, max(0.1, depth - breadth))
            bottom, top = sorted((start, start + inwards * breadth))
            self._surface(str(rng.choice(_YARDS)), left, bottom, left + length, top)
        if rng.random() < 0.1:
            return
        gap, setback = rng.uniform(0.8, 3.0), rng.uniform(2, 8)
        length, breadth = max(7.0, width - 2 * gap), rng.uniform(7, 11.5)
        x, y = west + width / 2, street + inwards * (setback + breadth / 2)
        parts = [(x, y, length, breadth)]
        if rng.random() < 0.45 and length > 9:
            # A wing towards the garden makes it an L or a T.
            across, into = rng.uniform(4.5, min(8.0, length - 3)), rng.uniform(3, 8)
            side = rng.choice([-1.0, 1.0, rng.uniform(-0.6, 0.6)])
            parts.append(
                (x + side * (length - across) / 2, y + inwards * (breadth / 2 + into / 2 - 0.5), across, into + 1)
            )
        self._building(parts, eaves=rng.uniform(3, 9), pitched=rng.random() < 0.7, turn=rng.normal(0, 0.03))
        if rng.random() < 0.35:
            shed = rng.uniform(2.5, 6, 2)
            there = street + inwards * (depth - shed[1] / 2 - rng.uniform(0.5, 2))
            left = west + rng.uniform(0.5, max(0.6, width - shed[0] - 0.5))
            self._building([(left + shed[0] / 2, there, *shed)], eaves=rng.uniform(2.2, 3), pitched=False)

    def _building(self, parts: list[tuple[float, ...]], *, eaves: float, pitched: bool, turn: float = 0.0) -> None:
        """Adds a building of rectangles (middle, length and breadth along the plan's axes), if none is there."""
        colour = self._colour(_ROOFS[self._rng.integers(len(_ROOFS))])
        pitch, wings = (self._rng.uniform(0.35, 0.8) if pitched else 0.0), []
        for x, y, length, breadth in parts:
            middle = self._place(shapely.Point(x, y))
            quarter = length < breadth  # A ridge runs along the longer side.
            sides = (breadth, length) if quarter else (length, breadth)
            angle = self.angle + turn + quarter * math.pi / 2
            wings.append(_Wing(middle.x, middle.y, *sides, angle, eaves, pitch, colour))
        shape = shapely.union_all([wing.outline for wing in wings])
        if not any(shape.distance(other) < 0.8 for other in self.buildings):
            self.wings += wings
            self.buildings.append(shape)


class _Canvas:
    """Colors and heights of a district with its margin, at a finer resolution, painted from below to above."""

    def __init__(self, plan: _Plan, rng: np.random.Generator, pixels: int, pixel_m: float, key: int):
        self._rng, self._key, self._pixels, self._pixel_m = rng, key, pixels, pixel_m
        half = pixels * pixel_m / 2
        self._grid = Grid(CRS, (pixel_m, 0.0, -half, 0.0, -pixel_m, half), pixels, pixels)
        middle = (np.arange(pixels) + 0.5) * pixel_m - half
        self._x, self._y = middle[None, :], -middle[:, None]
        # Of the sun; the azimuth is counted from the east to the north.
        self._azimuth, self._elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(35, 60))
        base = np.array(_GROUND[str(rng.choice(["lawn", "dry"]))], np.float32)
        self.image = base + np.zeros((pixels, pixels, 3), np.float32)
        self.heights = np.zeros((pixels, pixels), np.float32)
        self._burn([shape for shape, _ in plan.surfaces], [colour for _, colour in plan.surfaces])
        asphalt = np.array(_GROUND["asphalt"], np.float32) * rng.uniform(0.8, 1.2)
        # A pavement beside every road, and the roads over all pavements where they cross.
        kerbs = [road.buffer(1.5, join_style="mitre") for road in plan.roads]
        self._burn(kerbs, [np.array(_GROUND["concrete"]) * 0.92] * len(kerbs))
        self._burn(plan.roads, [asphalt] * len(plan.roads))
        self.image *= 0.86 + 0.28 * self._noise(5.0, "ground")[..., None]
        self._park_cars(plan)
        self._cover(plan.wings)
        self._plant(plan)
        self._light()

    def _noise(self, period_m: float, purpose: str, octaves: int = 3) -> np.ndarray:
        period, key = period_m / self._pixel_m, salt(self._key, purpose)
        return fractal_noise(0, 0, self._pixels, self._pixels, period, key, octaves)

    def _owners(self, shapes: list[shapely.Polygon]) -> np.ndarray:
        geometries = np.empty(len(shapes), object)
        geometries[:] = shapes
        return Rasterizer(geometries, np.zeros(len(shapes), np.uint8)).owners(self._grid)

    def _burn(self, shapes: list[shapely.Polygon], colours: list[np.ndarray]) -> None:
        owners = self._owners(shapes)
        inside = owners >= 0
        self.image[inside] = np.array(colours, np.float32)[owners[inside]]

    def _park_cars(self, plan: _Plan) -> None:
        cars, colours = [], []
        for road in plan.roads:
            edges = np.diff(shapely.get_coordinates(road.exterior)[:3], axis=0)
            length, angle = max((math.hypot(x, y), math.atan2(y, x)) for x, y in edges)
            for _ in range(self._rng.poisson(length / 20)):
                along, side = self._rng.uniform(-0.5, 0.5) * length, self._rng.choice([-2.2, 2.2])
                car = shapely.box(along - 2.2, side - 0.9, along + 2.2, side + 0.9)
                cars.append(_turned(car, angle, road.centroid.x, road.centroid.y))
                colours.append(np.array(_CARS[self._rng.integers(len(_CARS))], np.float32))
        self._burn(cars, colours)

    def _cover(self, wings: list[_Wing]) -> None:
        """Covers the buildings with roofs; a slope is as bright as the sun shines on it."""
        owners = self._owners([wing.outline for wing in wings])
        inside = owners >= 0
        if not inside.any():
            return
        x, y, _, breadth, angle, eaves, pitch = (
            np.array([getattr(wing, name) for wing in wings])[owners[inside]]
            for name in ("x", "y", "length", "breadth", "angle", "eaves", "pitch")
        )
        rows, columns = np.nonzero(inside)
        right, up = self._x[0, columns] - x, self._y[rows, 0] - y
        across = up * np.cos(angle) - right * np.sin(angle)
        self.heights[inside] = eaves + pitch * np.maximum(breadth / 2 - np.abs(across), 0)
        # A slope faces away from the ridge, at right angles to the wing's own axis.
        facing = np.sign(across) * np.cos(angle + math.pi / 2 - self._azimuth)
        slope = np.arctan(pitch)
        light = np.cos(slope) * math.sin(self._elevation) + np.sin(slope) * math.cos(self._elevation) * facing
        light = 0.35 + 0.65 * np.maximum(light, 0) / math.sin(self._elevation)
        colours = np.array([wing.colour for wing in wings], np.float32)[owners[inside]]
        texture = 0.88 + 0.24 * self._noise(1.6, "roofs", 2)[inside]
        self.image[inside] = colours * (np.minimum(light, 1.5) * texture)[:, None].astype(np.float32)

    def _plant(self, plan: _Plan) -> None:
        edge = self._pixels * self._pixel_m
        roads = shapely.union_all(plan.roads)
        shapely.prepare(roads)
        roofs = shapely.union_all(plan.buildings)
        shapely.prepare(roofs)
        ragged = self._noise(1.8, "crowns", 2)
        for _ in range(self._rng.poisson(edge * edge / 170)):
            x, y = self._rng.uniform(-edge / 2, edge / 2, 2)
            radius, top = self._rng.uniform(1.2, 3.8), self._rng.uniform(3, 9)
            bright = self._rng.uniform(0.75, 1.3)
            here = shapely.Point(x, y)
            # A trunk stands on open ground; its crown may hang over what is beside it.
            if shapely.intersects(roads, here) or shapely.intersects(roofs, here):
                continue
            away = np.hypot(self._x - x, self._y - y) / radius + 0.7 * (ragged - 0.5)
            crown = (away < 1) & (self.heights < top)
            dome = np.sqrt(np.maximum(1 - away[crown] ** 2, 0.0))
            self.heights[crown] = top * (0.45 + 0.55 * dome)
            leaves = (0.7 + 0.6 * ragged[crown] + 0.25 * dome) * bright
            self.image[crown] = np.array(_TREE, np.float32) * leaves[:, None]

    def _light(self) -> None:
        """Darkens what lies in the shadow of something higher towards the sun."""
        shaded = np.zeros(self.heights.shape, bool)
        right, up = math.cos(self._azimuth), math.sin(self._azimuth)
        reach = float(self.heights.max()) / math.tan(self._elevation) / self._pixel_m
        padded = np.pad(self.heights, math.ceil(reach) + 1)
        start, size = math.ceil(reach) + 1, self._pixels
        for step in range(1, math.ceil(reach) + 1):
            row, column = start - round(step * up), start + round(step * right)
            towards = padded[row : row + size, column : column + size]
            shaded |= towards > self.heights + step * self._pixel_m * math.tan(self._elevation)
        # The sun is no point: the edge of a shadow is soft.
        soft = ndimage.uniform_filter(shaded.astype(np.float32), 3)[..., None]
        self.image *= 1 - soft * (1 - _SHADE)


def write_footprints(
    folder: str | os.PathLike[str],
    parts: Mapping[str, int],
    *,
    size: int = 128,
    pixel_m: float = 0.5,
    seed: int = 1,
    progress: Callable[[int], None] | None = None,
) -> pathlib.Path:
    """Writes districts in the layout of Inria's aerial images, with heights.

    `PART/images/NAME.tif` holds red, green and blue, `PART/gt/NAME.tif` the mask (255 in buildings) and
    `PART/height/NAME.tif` float32 meters above the ground; `footprints.gpkg` holds all buildings as polygons.

    Args:
        folder: a new or empty folder.
        parts: number of districts by the name of their folder, such as `{"train_data": 200, "test_data": 100}`.
        size: height and width of an image in pixels.
        pixel_m: size of a pixel in meters.
        seed: everything random.
        progress: called with 1 after every district.

    Returns:
        The folder.

    Raises:
        OptionError: if a number is out of range, or the folder is not empty.
        StorageError: if it cannot be written.
    """
    folder = pathlib.Path(folder)
    for name, value, least in (
        ("size", size, 32),
        ("pixel_m", pixel_m, 0.1),
        *((part, n, 1) for part, n in parts.items()),
    ):
        if not least <= value:
            raise OptionError(name, f"{value}", f"at least {least}")
    if folder.exists() and any(folder.iterdir()):
        raise OptionError(folder, "it is not empty", "a new or empty folder", "choose another folder")
    shapes, names, number = [], [], 0
    for part, count in parts.items():
        for _ in range(count):
            district = make_district(number, size=size, pixel_m=pixel_m, seed=seed)
            name = f"{CITIES[number % len(CITIES)]}{number // len(CITIES) + 1}"
            for kind, pixels in (
                ("images", district.image),
                ("gt", district.mask[..., None]),
                ("height", district.heights[..., None]),
            ):
                path = folder / part / kind / f"{name}.tif"
                files.make_folder(path.parent)
                files.write_bytes(path, _geotiff(pixels, district.grid), durable=False)
            shapes.append(district.footprints)
            names += [name] * len(district.footprints)
            number += 1
            if progress:
                progress(1)
    vectors.write_polygons(
        folder / "footprints.gpkg", "footprints", np.concatenate(shapes), {"district": names}, CRS, _CHANGED
    )
    return folder


def _geotiff(pixels: np.ndarray, grid: Grid) -> bytes:
    height, width, count = pixels.shape
    profile = {"width": width, "height": height, "count": count, "dtype": pixels.dtype, "crs": grid.crs}
    with rasterio.io.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", compress="deflate", transform=rasterio.Affine(*grid.transform), **profile
        ) as dataset:
            dataset.write(np.moveaxis(pixels, -1, 0))
        return memory.read()


def make_district(number: int, *, size: int = 128, pixel_m: float = 0.5, seed: int = 1) -> District:
    """Makes a district.

    Args:
        number: its number; districts of different numbers lie apart and have nothing in common.
        size: height and width in pixels.
        pixel_m: size of a pixel in meters.
        seed: everything random, together with the number.
    """
    rng = np.random.default_rng([seed, number])
    fine, margin = pixel_m / _FINER, math.ceil(_MARGIN_M / pixel_m)
    pixels = (size + 2 * margin) * _FINER
    plan = _Plan(rng, reach=pixels * fine * 0.75)
    canvas = _Canvas(plan, rng, pixels, fine, salt(seed, number))
    inner = slice(margin * _FINER, -margin * _FINER)
    blurred = ndimage.gaussian_filter(canvas.image, (_BLUR * _FINER, _BLUR * _FINER, 0))[inner, inner]
    image = blurred.reshape(size, _FINER, size, _FINER, 3).mean(axis=(1, 3))
    # Haze, exposure and the sensor's noise differ between flights.
    image = image * rng.uniform(0.75, 1.1) + rng.uniform(0, 18) + rng.normal(0, 3.5, image.shape)
    heights = canvas.heights[inner, inner].reshape(size, _FINER, size, _FINER).mean(axis=(1, 3))
    half = size * pixel_m / 2
    west, north = _ORIGIN[0] + _APART_M * (number % 50), _ORIGIN[1] - _APART_M * (number // 50)
    grid = Grid(CRS, (pixel_m, 0.0, west - half, 0.0, -pixel_m, north + half), size, size)
    shapes = np.empty(len(plan.buildings), object)
    shapes[:] = [shapely.affinity.translate(shape, west, north) for shape in plan.buildings]
    shapes = shapes[shapely.intersects(shapes, shapely.box(*grid.bounds))]
    mask = Rasterizer(shapes, np.full(len(shapes), 255, np.uint8), fill=0).rasterize(grid)
    return District(np.clip(np.rint(image), 1, 255).astype(np.uint8), mask, heights.astype(np.float32), shapes, grid)
