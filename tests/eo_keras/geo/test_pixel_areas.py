"""Areas of pixels, compared with those in an equal-area plane, and with the whole Earth."""

import numpy as np
import pytest
from rasterio.warp import transform

from eo_keras.errors import SourceError
from eo_keras.geo.grid import Grid
from eo_keras.geo.pixel_areas import areas_by_label, row_areas

EARTH_HA = 51_006_562_172.4  # Area of the ellipsoid WGS84, 510,065,621.724 km2.


def flat_areas(grid, rows):
    """Returns areas by another way: pixels' corners laid flat by an equal-area projection about the grid's middle."""
    x, y = grid.coordinates(grid.width / 2, grid.height / 2)
    (longitude,), (latitude,) = transform(grid.crs, "EPSG:4326", [x], [y])
    plane = f"+proj=laea +lat_0={latitude} +lon_0={longitude} +datum=WGS84"
    rows, columns = np.meshgrid(rows, np.arange(grid.width), indexing="ij")
    xs, ys = [], []
    for down, right in ((0, 0), (0, 1), (1, 1), (1, 0)):
        u, v = transform(grid.crs, plane, *(each.ravel() for each in grid.coordinates(columns + right, rows + down)))
        xs.append(np.array(u)), ys.append(np.array(v))
    doubled = (xs[0] - xs[2]) * (ys[1] - ys[3]) - (xs[1] - xs[3]) * (ys[0] - ys[2])
    return (np.abs(doubled) / 2 / 10_000).reshape(rows.shape)


@pytest.mark.parametrize(
    ("crs", "transform_", "expected"),
    [
        ("EPSG:32632", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_400_000.0), 0.01),
        ("EPSG:32733", (30.0, 0.0, 200_000.0, 0.0, -30.0, 8_000_000.0), 0.09),
        ("EPSG:3035", (100.0, 0.0, 4_000_000.0, 0.0, -100.0, 3_000_000.0), 1.0),
        # A grid turned by 30 degrees.
        ("EPSG:32632", (8.660254037844387, 5.0, 600_000.0, 5.0, -8.660254037844387, 5_400_000.0), 0.01),
        # Feet.
        ("EPSG:2263", (100.0, 0.0, 980_000.0, 0.0, -100.0, 200_000.0), (100 * 1200 / 3937) ** 2 / 10_000),
    ],
)
def test_a_projection_true_to_area_has_its_own_pixels(crs, transform_, expected):
    areas = row_areas(Grid(crs, transform_, 10980, 10980), [0, 5000, 10979])
    np.testing.assert_allclose(areas, np.full((3, 1), expected), rtol=1e-12)


def test_pixels_of_degrees_cover_the_earth():
    grid = Grid("EPSG:4326", (0.25, 0.0, -180.0, 0.0, -0.25, 90.0), 720, 1440)
    areas = row_areas(grid, np.arange(720))
    assert areas.shape == (720, 1)
    assert areas.sum() * 1440 == pytest.approx(EARTH_HA, rel=1e-11)
    np.testing.assert_allclose(areas, areas[::-1], rtol=1e-9)


@pytest.mark.parametrize(
    "grid",
    [
        Grid("EPSG:4326", (0.0001, 0.0, 11.0, 0.0, -0.0001, 48.3), 200, 40),
        # Across the antimeridian, in degrees up to 360.
        Grid("EPSG:4326", (0.001, 0.0, 179.98, 0.0, -0.001, -16.0), 30, 40),
        Grid("EPSG:3857", (10.0, 0.0, 1_287_000.0, 0.0, -10.0, 6_150_000.0), 200, 40),
        # UTM two zones away, where a pixel of 10 m is 2 % smaller.
        Grid("EPSG:32632", (10.0, 0.0, 1_500_000.0, 0.0, -10.0, 5_400_000.0), 50, 60),
        # A conic projection, whose scale differs along a row.
        Grid("EPSG:2154", (10_000.0, 0.0, -500_000.0, 0.0, -10_000.0, 9_000_000.0), 40, 300),
    ],
    ids=["degrees", "antimeridian", "mercator", "far_utm", "conic"],
)
def test_elsewhere_pixels_have_their_area_on_the_ground(grid):
    rows = np.arange(0, grid.height, 7)
    areas = row_areas(grid, rows)
    np.testing.assert_allclose(np.broadcast_to(areas, (rows.size, grid.width)), flat_areas(grid, rows), rtol=2e-4)


def test_areas_add_up_by_label():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, (6, 9)).astype(np.uint8)
    by_row, by_pixel = random.random((6, 1)), random.random((6, 9))
    for areas in (by_row, by_pixel):
        whole = np.broadcast_to(areas, labels.shape)
        expected = [whole[labels == label].sum() for label in range(5)]
        np.testing.assert_allclose(areas_by_label(labels, areas, 5), expected)


def test_a_grid_beyond_its_projection_is_refused():
    with pytest.raises(SourceError, match="place on the ground"):
        row_areas(Grid("EPSG:3035", (1e9, 0.0, 1e12, 0.0, -1e9, 1e12), 4, 4), [0])
