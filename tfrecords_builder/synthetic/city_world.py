"""Synthetic city: the land cover and image of a `CityPlan`, with Urban Atlas codes by pixel."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from eo_keras.errors import OptionError
from eo_keras.legends.catalogue import EUROSAT
from tfrecords_builder.synthetic import linear_features, sensor, spectra
from tfrecords_builder.synthetic.blocks import BlockWorld
from tfrecords_builder.synthetic.city_plan import BENDS, CODES, KINDS, PLACE_OF_CODE, STAGES, CityPlan
from tfrecords_builder.synthetic.curves import FAR, near, within
from tfrecords_builder.synthetic.noise import fractal_noise, fractal_noise_at, salt, value_noise
from tfrecords_builder.synthetic.painting import Ground, Painting
from tfrecords_builder.synthetic.sensor import BLOCK, EDGE, PAD, Day, Sky
from tfrecords_builder.synthetic.textures import paint
from tfrecords_builder.synthetic.world import ORIGIN

_LAKE = 1_000_000  # Places of lakes in a block, out of the way of those of sites.
_STREET = 0.55
_TRACKSIDE = 1.0
_BANK = 20.0  # Within so many pixels of a river or a highway, the country around is called after it.
_CLOUD_PERIOD = 120.0
_SHADOW = (16, 11)  # Rows and columns from a shadow to its cloud: the sun stands in the south-east.


@dataclasses.dataclass(frozen=True)
class CityOptions:
    """Options of a synthetic city and its image.

    Attributes:
        seed: everything random.
        size: edge of the (square) city in pixels, a multiple of 6.
        zone: UTM zone on the northern hemisphere.
        origin: easting and northing of the top left corner in meters, multiples of 60.
        stage: 0, or 1 for the ground after some regions changed.
        acquisition: the day the sensor passed: light, haze, clouds and sensor noise differ.
        clouds: share of the ground that clouds hide.
        surface: whether the image is reflectance at the surface (Level-2A), without the atmosphere's own light.
    """

    seed: int = 1
    size: int = 1020
    zone: int = 33
    origin: tuple[float, float] = ORIGIN
    stage: int = 0
    acquisition: int = 0
    clouds: float = 0.0
    surface: bool = False

    def __post_init__(self):
        """Checks the values."""
        for name, low, high in (
            ("seed", 0, 2**31),
            ("size", 240, 10_980),
            ("zone", 1, 60),
            ("stage", 0, STAGES - 1),
            ("acquisition", 0, 2**31),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise OptionError(f"city option {name}", f"{value!r}", f"a whole number from {low} to {high}")
        if self.size % 6:
            raise OptionError("city option size", f"{self.size}", "a multiple of 6, so that 60 m pixels fit")
        if any(metres % 60 for metres in self.origin):
            raise OptionError("city option origin", f"{self.origin}", "multiples of 60 m, so that 60 m pixels fit")
        if not 0 <= self.clouds <= 0.9:
            raise OptionError("city option clouds", f"{self.clouds}", "a share from 0 to 0.9")


@dataclasses.dataclass
class CityPainting(Painting):
    """A painted window of a city.

    Attributes:
        codes: land use by pixel, places in `city_plan.CODES`, uint8 (height, width).
        landscapes: the surroundings' class, labels of EuroSAT, uint8 (height, width).
    """

    codes: np.ndarray
    landscapes: np.ndarray


class CityWorld(BlockWorld):
    """A city with its Sentinel-2 image.

    Attributes:
        options: its options.
        plan: its plan.
    """

    def __init__(self, options: CityOptions | None = None):
        self.options = options or CityOptions()
        day = Day(self.options.seed, self.options.acquisition, self.options.surface)
        # The paintings of a row of blocks are kept, for bands of several resolutions are rendered one after another.
        kept = -(-self.options.size // BLOCK)
        super().__init__(self.options.size, f"EPSG:{32600 + self.options.zone}", self.options.origin, day, kept)
        self.plan = CityPlan(self.options.seed, self.options.size)

    def codes(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """Returns the land use by pixel: codes of the Urban Atlas, 0 outside the city's boundary.

        Arguments and errors are those of `classes`.

        Returns:
            int32 (height, width).
        """
        return np.array(CODES, np.int32)[self._layer("codes", row, col, height, width)]

    def clouds(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the opacity of clouds and the strength of their shadows by pixel.

        Arguments and errors are those of `classes`.

        Returns:
            Two arrays float32 (height, width), 0..1, in steps of 0.001.
        """
        return tuple(
            self._layer(name, row, col, height, width).astype(np.float32) / 1000 for name in ("cloud", "shadow")
        )

    def _labels(self, layer: str, block_row: int, block_col: int) -> np.ndarray:
        inner = slice(PAD, PAD + BLOCK)
        if layer in ("cloud", "shadow"):
            sky = self._sky(block_row, block_col)
            if sky is None:
                return np.zeros((BLOCK, BLOCK), np.uint16)
            return np.rint(1000 * getattr(sky, layer)[inner, inner]).astype(np.uint16)
        return getattr(self._painting(block_row, block_col), layer)[inner, inner].astype(np.uint16)

    def _sky(self, block_row: int, block_col: int) -> Sky | None:
        if self.options.clouds == 0:
            return None
        row, col = sensor.corner(block_row, block_col)
        cloud = self._cloud(row, col)
        shadow = self._cloud(row + _SHADOW[0], col + _SHADOW[1])
        return Sky(cloud, shadow * (1 - cloud))

    def _cloud(self, row: int, col: int) -> np.ndarray:
        key = salt(self.options.seed, self.options.acquisition, "clouds")
        return np.clip(14.0 * (fractal_noise(row, col, EDGE, EDGE, _CLOUD_PERIOD, key, 4) - self._thin) + 0.5, 0, 1)

    @functools.cached_property
    def _thin(self) -> float:
        """Returns the noise value at which a cloud is half opaque, from the share of clouds in the options."""
        places = np.arange(4.5, self.size, 9.0)
        rows, cols = np.meshgrid(places, places, indexing="ij")
        key = salt(self.options.seed, self.options.acquisition, "clouds")
        return float(np.quantile(fractal_noise_at(rows, cols, _CLOUD_PERIOD, key, 4), 1 - self.options.clouds))

    def _paint(self, block_row: int, block_col: int) -> CityPainting:
        row, col = sensor.corner(block_row, block_col)
        rows = np.arange(row, row + EDGE)[:, None] + 0.5
        cols = np.arange(col, col + EDGE)[None, :] + 0.5
        nearest, second, ridge = self._owners(row, col, rows, cols)
        owners = nearest.copy()
        for number, lake in enumerate(self.plan.lakes):
            if near(lake, rows, cols, 0):
                owners[lake.distance(rows, cols) < 0] = _LAKE + number
        painting = self._fields(row, col, owners)
        dry = owners < _LAKE
        sites = self.plan.sites
        town = sites.urban[nearest] & sites.urban[second] & dry
        street = linear_features.draw_road(painting, np.where(town, ridge, FAR).astype(np.float32), _STREET)
        painting.codes[street] = PLACE_OF_CODE[12220]
        self._draw_courses(painting, row, col, rows, cols)
        self._draw_boundary(painting, rows, cols)
        return painting

    def _owners(
        self, row: int, col: int, rows: np.ndarray, cols: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the nearest and second nearest site of each pixel, and the distance to their border in pixels."""
        bent = []
        for axis, place in enumerate((rows, cols)):
            bend = [
                strength
                * (2.0 * value_noise(row, col, EDGE, EDGE, period, salt(self.options.seed, "bend", axis, period)) - 1)
                for period, strength in BENDS
            ]
            bent.append((place + sum(bend)).astype(np.float32))
        sites = self.plan.sites
        # The nearest sites first, until none can be nearer to any pixel than the two that it has.
        gaps = [
            np.maximum(np.maximum(place.min() - own, own - place.max()), 0.0)
            for place, own in zip(bent, (sites.rows, sites.cols), strict=True)
        ]
        least = gaps[0] ** 2 + gaps[1] ** 2
        first = np.full((EDGE, EDGE), np.inf, np.float32)
        then = first.copy()
        nearest, second = np.zeros((2, EDGE, EDGE), np.int32)
        for turn, number in enumerate(np.argsort(least, kind="stable")):
            if turn % 4 == 0 and least[number] > then.max():
                break
            down, right = bent[0] - np.float32(sites.rows[number]), bent[1] - np.float32(sites.cols[number])
            distance = down * down + right * right
            wins = distance < first
            places = ~wins & (distance < then)
            np.copyto(then, first, where=wins)
            np.copyto(second, nearest, where=wins)
            np.copyto(first, distance, where=wins)
            np.copyto(nearest, number, where=wins)
            np.copyto(then, distance, where=places)
            np.copyto(second, number, where=places)
        apart = np.hypot(sites.rows[nearest] - sites.rows[second], sites.cols[nearest] - sites.cols[second])
        return nearest, second, (then - first) / (2 * np.maximum(apart, 1.0))

    def _fields(self, row: int, col: int, owners: np.ndarray) -> CityPainting:
        """Paints sites and lakes, without roads, railway and river."""
        sites, stage = self.plan.sites, self.options.stage
        painting = CityPainting(
            np.empty((len(spectra.MATERIALS), EDGE, EDGE), np.float32),
            np.empty((EDGE, EDGE), np.float32),
            *np.empty((3, EDGE, EDGE), np.uint8),
        )
        for owner in np.unique(owners):
            if owner >= _LAKE:
                lake = self.plan.lakes[owner - _LAKE]
                kind, code, density, centre = "SeaLake", PLACE_OF_CODE[50000], None, (lake.row, lake.col)
            else:
                kind, code = KINDS[sites.kinds[stage, owner]], sites.codes[stage, owner]
                density, centre = float(sites.density[owner]), (sites.rows[owner], sites.cols[owner])
            here = owners == owner
            painting.fill(
                here,
                lambda r, c, height, width, owner=owner, kind=kind, density=density, centre=centre: paint(
                    kind,
                    Ground(
                        row=row + r,
                        col=col + c,
                        height=height,
                        width=width,
                        centre=(round(centre[0]), round(centre[1])),
                        cell=(int(owner), 1),
                        seed=self.options.seed,
                        density=density,
                    ),
                ),
            )
            painting.codes[here] = code
            painting.landscapes[here] = EUROSAT.label_of("Pasture" if kind == "Park" else kind)
        return painting

    def _draw_courses(self, painting: CityPainting, row: int, col: int, rows: np.ndarray, cols: np.ndarray) -> None:
        plan, seed = self.plan, self.options.seed
        rural = np.isin(painting.codes, [PLACE_OF_CODE[code] for code in (21000, 22000, 23000, 32000)])
        if near(plan.river, rows, cols, 30):
            distance = plan.river.distance(rows, cols).astype(np.float32)
            distance += 3.0 * (value_noise(row, col, EDGE, EDGE, 14.0, salt(seed, "bank")) - 0.5)
            wood = value_noise(row, col, EDGE, EDGE, 6.0, salt(seed, "bank wood"))
            water = linear_features.draw_river(painting, distance, plan.river.half_width, wood, 0.6)
            painting.codes[water] = PLACE_OF_CODE[50000]
            painting.landscapes[water | (rural & (np.abs(distance) < _BANK))] = EUROSAT.label_of("River")
        for road in plan.arteries:
            if near(road, rows, cols, 3):
                drawn = linear_features.draw_road(
                    painting, road.distance(rows, cols).astype(np.float32), road.half_width
                )
                painting.codes[drawn] = PLACE_OF_CODE[12220]
        if near(plan.railway, rows, cols, 6):
            distance = plan.railway.distance(rows, cols).astype(np.float32)
            linear_features.draw_railway(painting, distance, plan.railway.half_width)
            painting.codes[np.abs(distance) < plan.railway.half_width + _TRACKSIDE] = PLACE_OF_CODE[12230]
        for road in plan.highways:
            if near(road, rows, cols, 30):
                distance = road.distance(rows, cols).astype(np.float32)
                drawn = linear_features.draw_highway(painting, distance, road.half_width, 1.15)
                painting.codes[np.abs(distance) < road.half_width + linear_features.VERGE] = PLACE_OF_CODE[12210]
                painting.landscapes[drawn | (rural & (np.abs(distance) < _BANK))] = EUROSAT.label_of("Highway")

    def _draw_boundary(self, painting: CityPainting, rows: np.ndarray, cols: np.ndarray) -> None:
        for area, code in self.plan.unseen:
            if near(area, rows, cols, 0):
                painting.codes[area.distance(rows, cols) < 0] = PLACE_OF_CODE[code]
        if not within(self.plan.boundary, rows, cols):
            painting.codes[self.plan.boundary.distance(rows, cols) >= 0] = PLACE_OF_CODE[0]
