"""Distances between footprints on the ground, anywhere on Earth."""

import numpy as np
import pytest
from rasterio.warp import transform

from eo_keras.geo.footprints import Footprints, joined, nearness, overlapping_pairs, pairs_within, within

EDGE = 640.0
PLACES = {
    "Bohemia": (15.0, 50.0),
    "Sydney": (151.2, -33.9),
    "Parana": (-53.0, -25.3),
    "Singapore": (103.8, 1.3),
    "Fiji, at the antimeridian": (180.0, -17.0),
    "Svalbard": (15.6, 78.2),
    "North Pole": (0.0, 90.0),
    "South Pole": (77.0, -90.0),
}


def around(place):
    """PROJ's azimuthal equidistant projection, in which distances from its centre are those of geodesics."""
    longitude, latitude = place
    return f"+proj=aeqd +lon_0={longitude} +lat_0={latitude} +ellps=WGS84"


def squares(crs, places, edge=EDGE):
    """Footprints of squares, of which the lower left is given in metres of a CRS."""
    unit = np.array([[0, 1], [1, 1], [1, 0], [0, 0]]) * edge
    corners = np.array(places, np.float64)[:, None] + unit
    degrees = np.stack(transform(crs, "EPSG:4326", *corners.reshape(-1, 2).T), axis=-1)
    return Footprints.of_degrees(degrees.reshape(-1, 4, 2))


@pytest.mark.parametrize("kilometres", [0.1, 1, 10, 100, 1000, 5000, 15_000])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_distances_are_those_of_geodesics(place, kilometres):
    # A metre's square in the middle of a data set, and others in every direction.
    turns = np.radians(np.arange(0, 360, 30))
    ring = np.stack([np.sin(turns), np.cos(turns)], axis=-1) * kilometres * 1000
    middle, others = squares(around(place), [(-0.5, -0.5)], 1.0), squares(around(place), ring - 0.5, 1.0)
    for number in range(len(turns)):
        (found,) = nearness(middle, others[[number]], 0.1).distance_m
        assert found == pytest.approx(kilometres * 1000, rel=0.005, abs=1.5)
        if kilometres <= 100:
            assert found == pytest.approx(kilometres * 1000, rel=1e-4, abs=1.5)
            assert within(middle, others[[number]], 1000 * kilometres + 10).all()
            assert not within(middle, others[[number]], 1000 * kilometres - 0.0002 * 1000 * kilometres - 2).any()


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_distances_between_many_are_those_of_each_pair(place):
    """Groups are laid flat together: distances between their members, off the middle, are true as well."""
    rng = np.random.default_rng(0)
    first, second = (squares(around(place), rng.uniform(-150_000, 150_000, (count, 2)), 1.0) for count in (8, 40))
    found = nearness(first, second, 10.0).distance_m
    for number, distance in enumerate(found):
        middle = np.degrees(_directions(first.centres[[number]]))[0]
        flat = transform("EPSG:4326", around(middle), *np.degrees(_directions(second.centres)).T)
        assert distance == pytest.approx(np.hypot(*flat).min(), rel=5e-4, abs=2)


def _directions(points):
    """Longitudes and latitudes, in radians, of points of WGS84's surface."""
    x, y, z = points.T
    return np.stack([np.arctan2(y, x), np.arctan2(z, 0.9933056200098587 * np.hypot(x, y))], axis=-1)


def test_distances_are_from_edge_to_edge():
    utm = "EPSG:32633"
    first = squares(utm, [(500_000 + x, 5_500_000) for x in (0, 10_000, 20_000, 30_000, 40_000)])
    second = [
        (EDGE, 0),  # touches the first
        (10_000 + EDGE / 2, 0),  # covers half of the second
        (20_000, EDGE + 300),  # 300 m above the third
        (30_000 + EDGE + 300, EDGE + 400),  # 500 m from the fourth, over the corner
        (30_000 + EDGE + 3000, 0),  # ends at 34,280 m, west of the fifth
    ]
    near = nearness(first, squares(utm, np.array(second) + (500_000, 5_500_000)), 10.0)
    # UTM's scale is 0.9996 there.
    expected = np.array([0, 0, 300, 500, 40_000 - 33_640 - EDGE]) / 0.9996
    assert near.distance_m == pytest.approx(expected, abs=0.1)
    assert near.overlaps.tolist() == [False, True, False, False, False]


def test_the_other_side_of_the_earth():
    spain, new_zealand = squares(around((-3.7, 40.4)), [(0, 0)]), squares(around((176.3, -40.4)), [(0, 0), (9000, 0)])
    near = nearness(spain, new_zealand, 10.0)
    assert near.distance_m[0] == pytest.approx(20_000_000, rel=0.005) and not near.overlaps.any()
    assert not within(spain, new_zealand, 1000.0).any()


def test_chains_of_overlapping_footprints():
    places = [(0, 0), (9000, 0), (640, 0), (600, 600), (9100, 100), (20_000, 0), (-300, 0), (0, 0)]
    footprints = squares("EPSG:32633", np.array(places) + (500_000, 5_500_000))
    pairs = overlapping_pairs(footprints, 10.0)
    assert sorted(map(tuple, pairs.tolist())) == [(0, 6), (0, 7), (1, 4), (2, 3), (6, 7)]
    assert joined(8, pairs).tolist() == [0, 1, 2, 2, 1, 3, 0, 0]
    order = np.random.default_rng(0).permutation(700)
    assert not joined(700, np.stack([order[:-1], order[1:]], axis=1)).any()
    assert joined(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]
    assert footprints.degrees[1] == pytest.approx((15.13, 49.65), abs=0.01)


def test_nothing_is_near_nothing():
    one, none = squares("EPSG:32633", [(500_000, 5_500_000)]), Footprints(np.empty((0, 4, 3)))
    assert pairs_within(one, none, 5.0).shape == pairs_within(none, one, 5.0).shape == (0, 2)
    assert within(none, one, 5.0).shape == (0,)
    lost = Footprints.of_degrees(np.full((2, 4, 2), np.inf))
    assert lost.known.tolist() == [False, False] and one.known.all()
