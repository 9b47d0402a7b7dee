"""Plan of a synthetic city: its land use, roads, railway, river and lakes.

Sites on a jittered lattice, dense in town and sparse outside, own the pixels that lie nearest to them (a Voronoi
diagram, whose borders a noise bends). What a site is depends on its distance from the centers, on railways, highways
and the river, and on smooth noise, so that neighbors often are alike and regions differ much in size. How much of the
city is built up, industrial or wooded is set: the sites that suit best are taken until that share of the area is
reached.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from eo_keras.legends.catalogue import EUROSAT
from tfrecords_builder.synthetic.curves import Blob, Line, Ray, Wave
from tfrecords_builder.synthetic.noise import fractal_noise_at, hashed, salt

KINDS = (*EUROSAT.class_names, "Park")
"""Kinds of sites, the class names of `textures.paint`."""

CODES = (
    *(0, 11100, 11210, 11220, 11230, 11240, 11300, 12100, 12210, 12220, 12230, 14100),
    *(21000, 22000, 23000, 31000, 32000, 50000, 91000, 92000),
)
"""Codes of the Urban Atlas in a city; 0 is outside its boundary. Rasters of codes hold indices into this tuple."""

PLACE_OF_CODE = {code: place for place, code in enumerate(CODES)}

STAGES = 2
"""Number of states of the ground: before and after some regions changed."""

BENDS = ((97.0, 13.0), (31.0, 5.5), (9.0, 1.5))
"""Periods and strengths, in pixels, of the noise that bends the borders between sites."""

_PITCH = 64
_SHARES = {"urban": 0.41, "industrial": 0.14, "forest": 0.21}
_CODE_OF_KIND = {
    **{"AnnualCrop": 21000, "PermanentCrop": 22000, "Pasture": 23000, "Forest": 31000, "HerbaceousVegetation": 32000},
    **{"Industrial": 12100, "Park": 14100},
}
_DENSITIES = ((0.8, 11100), (0.6, 11210), (0.4, 11220), (0.22, 11230), (0.0, 11240))
_CHANGES = 2
"""Number of sites of each kind of change between the stages."""


@dataclasses.dataclass(frozen=True)
class Sites:
    """Arrays of N sites.

    Attributes:
        rows: float64, places in pixels.
        cols: float64.
        areas: float64, about how many pixels of the city each owns; 0 outside.
        urban: bool, whether the site is in town.
        density: float64, how densely it is built up if it is residential or has grown if it is a wood, 0..1.
        kinds: uint8 (stages, N), places in `KINDS`.
        codes: uint8 (stages, N), places in `CODES`.
    """

    rows: np.ndarray
    cols: np.ndarray
    areas: np.ndarray
    urban: np.ndarray
    density: np.ndarray
    kinds: np.ndarray
    codes: np.ndarray


class CityPlan:
    """The plan of one city, a pure function of its arguments.

    Attributes:
        seed: everything random.
        size: edge of the plan in pixels.
        centre: row and column of the city's center.
        river: the river.
        highways: fast transit roads.
        railway: the railway.
        arteries: roads that leave the center.
        lakes: still waters.
        boundary: the city's edge; outside there is no land use.
        unseen: areas without data, with their codes.
        sites: the sites that the pixels belong to.
    """

    def __init__(self, seed: int, size: int):
        self.seed, self.size = seed, size
        rng = np.random.default_rng([seed, 11])
        half = size / 2
        self.centre = tuple(half + size * rng.uniform(-0.07, 0.07, 2))
        flow = rng.uniform(0, np.pi)
        self.river = self._line(rng, flow, rng.uniform(0.06, 0.2), (0.05, 0.016), (0.55, 0.17), rng.uniform(3.2, 5.2))
        self.railway = self._line(rng, flow + rng.uniform(0.6, 1.2), rng.uniform(0.03, 0.1), (0.03,), (0.9,), 1.4)
        away = rng.uniform(0.16, 0.24) * rng.choice((-1, 1))
        self.highways = (
            self._line(rng, flow + rng.uniform(0.2, 0.7), away, (0.03, 0.01), (0.8, 0.3), rng.uniform(1.5, 2.0)),
            self._line(rng, flow + rng.uniform(1.3, 1.9), -1.3 * away, (0.03,), (0.7,), rng.uniform(1.5, 2.0)),
        )
        self.arteries = tuple(
            Ray(
                *self.centre,
                angle=2 * np.pi * (number + rng.uniform(-0.25, 0.25)) / 7,
                wave=Wave(rng.uniform(0.1, 0.25), rng.uniform(0.3, 0.6) * size, rng.uniform(0, 2 * np.pi)),
                half_width=rng.uniform(0.6, 0.85),
                start=0.02 * size,
            )
            for number in range(7)
        )
        self.lakes = tuple(self._lakes(rng))
        self.boundary = Blob(half, half, 0.485 * size, 0.05, 0.12 * size, salt(seed, "boundary"), power=4.0)
        self._villages = [
            (*self._around(rng, rng.uniform(0.32, 0.47)), size * rng.uniform(0.03, 0.065)) for _ in range(5)
        ]
        self.unseen = tuple(
            (Blob(*self._around(rng, reach), 0.02 * size, 0.4, 0.03 * size, salt(seed, code)), code)
            for reach, code in ((0.36, 91000), (0.47, 92000))
        )
        self.sites = self._sites()

    def _around(self, rng: np.random.Generator, reach: float) -> tuple[float, float]:
        """Returns a random place at a distance from the middle, in edges of the plan."""
        angle = rng.uniform(0, 2 * np.pi)
        return self.size * (0.5 + reach * np.sin(angle)), self.size * (0.5 + reach * np.cos(angle))

    def _line(
        self,
        rng: np.random.Generator,
        angle: float,
        away: float,
        amplitudes: tuple[float, ...],
        periods: tuple[float, ...],
        half_width: float,
    ) -> Line:
        waves = tuple(
            Wave(self.size * rng.uniform(0.7, 1.3) * amplitude, self.size * period, rng.uniform(0, 2 * np.pi))
            for amplitude, period in zip(amplitudes, periods, strict=True)
        )
        row = self.centre[0] + self.size * away * np.cos(angle)
        col = self.centre[1] - self.size * away * np.sin(angle)
        return Line(row, col, angle, waves, half_width)

    def _lakes(self, rng: np.random.Generator) -> list[Blob]:
        radius = self.size * rng.uniform(0.05, 0.075)
        places = np.array([self._around(rng, 0.36) for _ in range(24)])
        courses = (self.river, self.railway, *self.highways, *self.arteries)
        free = np.min([np.abs(course.distance(places[:, 0], places[:, 1])) for course in courses], axis=0)
        lakes = [Blob(*places[np.argmax(free)], radius, 0.5, 0.1 * self.size, 1)]
        # Ponds lie along the river, where gravel was dug.
        course = self.river.points(0.4 * self.size, 1.0)
        for number in range(3):
            row, col = course[rng.integers(len(course))] + rng.choice((-1, 1), 2) * rng.uniform(14, 24, 2)
            lakes.append(Blob(row, col, rng.uniform(6, 13), 0.35, 12.0, 2 + number))
        return [dataclasses.replace(lake, key=salt(self.seed, "lake", lake.key)) for lake in lakes]

    def _sites(self) -> Sites:
        rows, cols, areas = self._places()
        centrality = self._centrality(rows, cols)
        inside = np.where(self.boundary.distance(rows, cols) < 0, areas, 0.0)
        urban = _best(centrality, inside, _SHARES["urban"])
        edge = centrality[urban].min()
        density = np.clip(1.05 * (centrality - edge) + 0.3 * (self._noise("density", 40.0, rows, cols) - 0.5), 0.0, 1.0)
        kinds = self._countryside(rows, cols, centrality - edge)
        wood = self._noise("wood", 0.17 * self.size, rows, cols) + 0.12 * self._own("wood", rows)
        wood -= 0.25 * np.exp(-np.abs(self.river.distance(rows, cols)) / 25.0)
        kinds[_best(np.where(urban, -np.inf, wood), inside, _SHARES["forest"])] = KINDS.index("Forest")
        # Small sites only: farmsteads and hamlets.
        kinds[urban | ((areas < _PITCH**2 / 3) & (self._own("farm", rows) < 0.06))] = KINDS.index("Residential")
        works = np.where(centrality > edge - 0.2, self._works(rows, cols, centrality - edge), -np.inf)
        industrial = _best(works, inside, _SHARES["industrial"])
        kinds[industrial] = KINDS.index("Industrial")
        park = self._noise("park", 55.0, rows, cols) + 0.3 * self._own("park", rows) > 0.83
        kinds[urban & park & ~industrial] = KINDS.index("Park")
        wooded = kinds == KINDS.index("Forest")
        density[wooded] = 0.25 + 0.75 * self._own("growth", rows)[wooded]
        stages = np.stack([kinds, self._changed(rows, kinds, centrality > edge - 0.3, inside > 0)])
        codes = np.stack([_codes(kind, density, urban) for kind in stages])
        return Sites(rows, cols, inside, urban, density, stages, codes)

    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns rows and columns of all sites, some outside the plan, and about how many pixels each covers."""
        count = -(-self.size // _PITCH) + 4
        cell_rows, cell_cols = (cells.ravel() for cells in np.mgrid[:count, :count])
        top, left = (cell_rows - 2) * _PITCH, (cell_cols - 2) * _PITCH
        centrality = self._centrality(top + _PITCH / 2, left + _PITCH / 2)
        chance = hashed(salt(self.seed, "split"), cell_rows, cell_cols)
        # Blocks of houses are small and fields are large; a cell without a site is shared among its neighbors.
        town = np.where(chance < 0.25 + 0.5 * (centrality > 0.6), 3, 2)
        country = np.where(chance < 0.3, 0, np.where(chance < 0.75, 1, 2))
        splits = np.where(centrality > 0.08, town, country)
        found = []
        for split in (1, 2, 3):
            chosen = splits == split
            edge = _PITCH / split
            for part in np.ndindex(split, split):
                places = (cell_rows[chosen] * 4 + part[0], cell_cols[chosen] * 4 + part[1])
                jitter = [0.95 * (hashed(salt(self.seed, "jitter", axis), *places) - 0.5) for axis in range(2)]
                row = top[chosen] + (part[0] + 0.5 + jitter[0]) * edge
                col = left[chosen] + (part[1] + 0.5 + jitter[1]) * edge
                found.append((row, col, np.full(len(row), edge * edge * (1.4 if split == 1 else 1.0))))
        rows, cols, areas = (np.concatenate(values) for values in zip(*found, strict=True))
        return rows, cols, areas

    def _centrality(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Returns the centrality of places: 1 in the center, less outwards, more along arteries and in villages."""
        reach = np.hypot(rows - self.centre[0], cols - self.centre[1]) / (0.36 * self.size)
        found = 1.0 - reach * (0.5 + self._noise("growth", 0.25 * self.size, rows, cols))
        artery = np.min([np.abs(road.distance(rows, cols)) for road in self.arteries], axis=0)
        found += 0.12 * np.exp(-((artery / 30.0) ** 2))
        for row, col, radius in self._villages:
            away = np.hypot(rows - row, cols - col) / radius
            found = np.maximum(found, 0.45 - 0.4 * away * (0.5 + self._noise("village", 60.0, rows, cols)))
        return found

    def _countryside(self, rows: np.ndarray, cols: np.ndarray, town: np.ndarray) -> np.ndarray:
        """Returns the open land of sites: the kind of the best score, by noise and distance to river and town."""
        flood = np.exp(-np.abs(self.river.distance(rows, cols)) / 30.0)
        garden = np.exp(-(((town + 0.12) / 0.15) ** 2))
        suits = {
            "AnnualCrop": 0.52 - 0.5 * flood,
            "Pasture": 0.25 + 0.3 * flood,
            "HerbaceousVegetation": 0.08 + 0.3 * flood,
            "PermanentCrop": 0.16 + 0.35 * garden,
        }
        scores = [
            bias + 2.0 * self._noise(kind, 110.0, rows, cols) + 0.5 * self._own(kind, rows)
            for kind, bias in suits.items()
        ]
        places = np.array([KINDS.index(kind) for kind in suits], np.uint8)
        return places[np.argmax(scores, axis=0)]

    def _works(self, rows: np.ndarray, cols: np.ndarray, town: np.ndarray) -> np.ndarray:
        """Returns the score of industry at sites: high near railway and highways, clustered, low in the old town."""
        tracks = np.min([np.abs(line.distance(rows, cols)) for line in (self.railway, *self.highways)], axis=0)
        clusters = self._noise("works", 0.15 * self.size, rows, cols) + 0.15 * self._own("works", rows)
        return 0.7 * np.exp(-tracks / 45.0) + 2.4 * clusters - 1.8 * np.maximum(town - 0.45, 0.0)

    def _changed(self, rows: np.ndarray, kinds: np.ndarray, fringe: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """Returns the kinds of the second stage: some woods are cut, and industry stands on fields beside the town."""
        later = kinds.copy()
        field = (kinds == KINDS.index("AnnualCrop")) | (kinds == KINDS.index("Pasture"))
        for kind, candidates in (
            ("HerbaceousVegetation", inside & (kinds == KINDS.index("Forest"))),
            ("Industrial", inside & fringe & field),
        ):
            order = np.argsort(np.where(candidates, self._own(f"to {kind}", rows), np.inf), kind="stable")
            later[order[: min(_CHANGES, int(candidates.sum()))]] = KINDS.index(kind)
        return later

    def _noise(self, purpose: str, period: float, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        return fractal_noise_at(rows, cols, period, salt(self.seed, purpose), 2)

    def _own(self, purpose: str, rows: np.ndarray) -> np.ndarray:
        """Returns a random number for each site."""
        return hashed(salt(self.seed, "own", purpose), np.arange(len(rows)))


def _best(scores: np.ndarray, areas: np.ndarray, share: float) -> np.ndarray:
    """Selects the sites of the best scores that fill a share of the area."""
    order = np.argsort(-scores, kind="stable")
    order = order[np.isfinite(scores[order]) & (areas[order] > 0)]
    filled = np.cumsum(areas[order])
    last = min(int(np.searchsorted(filled, share * areas.sum())), len(order) - 1)
    return scores >= scores[order[last]]


def _codes(kinds: np.ndarray, density: np.ndarray, urban: np.ndarray) -> np.ndarray:
    """Returns indices into `CODES` by site."""
    codes = np.zeros(len(kinds), np.uint8)
    for kind, code in _CODE_OF_KIND.items():
        codes[kinds == KINDS.index(kind)] = PLACE_OF_CODE[code]
    residential = kinds == KINDS.index("Residential")
    for least, code in reversed(_DENSITIES):
        codes[residential & (density >= least)] = PLACE_OF_CODE[code]
    codes[residential & ~urban] = PLACE_OF_CODE[11300]
    return codes
