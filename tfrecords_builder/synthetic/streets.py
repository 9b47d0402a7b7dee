"""Streets of a synthetic city as lines: the borders between its blocks, bent like the ground."""

from __future__ import annotations

import numpy as np

from tfrecords_builder.synthetic.city_plan import BENDS, CityPlan
from tfrecords_builder.synthetic.noise import salt, value_noise_at

_STEP = 3.0
_ROUNDS = 16
_DAMPING = 0.7


def streets(plan: CityPlan) -> list[np.ndarray]:
    """Returns the streets between blocks of the town, each from one crossing to the next.

    Returns:
        Arrays float64 (points, 2): rows and columns.
    """
    import shapely

    sites = plan.sites
    places = shapely.points(sites.cols, sites.rows)
    cells = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(places)))
    # The diagram's cells are not in the order of the sites.
    cell_of_site = shapely.STRtree(cells).query(places, predicate="within")
    blocks = cells[cell_of_site[1][sites.urban[cell_of_site[0]]]]
    first, second = shapely.STRtree(blocks).query(blocks, predicate="touches")
    borders = shapely.intersection(blocks[first[first < second]], blocks[second[first < second]])
    borders = borders[shapely.get_type_id(borders) == 1]
    borders = shapely.segmentize(borders, _STEP)
    # All at once: the noise is faster in few large arrays.
    places, line = shapely.get_coordinates(borders, return_index=True)
    places = _unbent(plan, places[:, ::-1])
    wet = np.any([lake.distance(*places.T) < 0 for lake in plan.lakes], axis=0)
    lines = np.split(places, np.flatnonzero(np.diff(line)) + 1)
    under = np.split(wet, np.flatnonzero(np.diff(line)) + 1)
    return [points for points, drowned in zip(lines, under, strict=True) if not drowned.any()]


def _unbent(plan: CityPlan, bent: np.ndarray) -> np.ndarray:
    """Inverts the bend of places (points, 2) by fixed-point iteration."""
    places = bent.copy()
    for _ in range(_ROUNDS):
        places += _DAMPING * (bent - places - _bend(plan, places))
    return places


def _bend(plan: CityPlan, places: np.ndarray) -> np.ndarray:
    rows, cols = places.T
    return np.stack(
        [
            sum(
                strength * (2.0 * value_noise_at(rows, cols, period, salt(plan.seed, "bend", axis, period)) - 1)
                for period, strength in BENDS
            )
            for axis in range(2)
        ],
        axis=1,
    )
