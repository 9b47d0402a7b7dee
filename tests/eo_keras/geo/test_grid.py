"""Grids: places of pixels, and windows of them."""

import pytest

from eo_keras.geo.grid import Grid

# A turned grid too, whose rows do not run from west to east.
GRIDS = (
    Grid("EPSG:32633", (10.0, 0.0, 400_000.0, 0.0, -10.0, 5_900_000.0), 30, 50),
    Grid("EPSG:3035", (6.0, 8.0, 4_000_000.0, 8.0, -6.0, 3_000_000.0), 30, 50),
)


@pytest.mark.parametrize("grid", GRIDS)
def test_coordinates_and_pixels_are_inverse(grid):
    assert grid.pixel_size == pytest.approx(10)
    for column, row in ((0, 0), (7.5, 3.25), (50, 30)):
        assert grid.pixel(*grid.coordinates(column, row)) == pytest.approx((column, row))


@pytest.mark.parametrize("grid", GRIDS)
def test_a_windows_pixels_are_those_of_the_grid(grid):
    window = grid.window(5, -8, 10, 20)
    assert (window.height, window.width, window.crs) == (10, 20, grid.crs)
    assert window.coordinates(2, 3) == pytest.approx(grid.coordinates(2 - 8, 3 + 5))
    assert window.pixel_size == pytest.approx(grid.pixel_size)


def test_bounds_hold_all_corners():
    assert GRIDS[0].bounds == (400_000, 5_899_700, 400_500, 5_900_000)
    west, south, east, north = GRIDS[1].bounds
    assert (east - west, north - south) == pytest.approx((6 * 50 + 8 * 30, 8 * 50 + 6 * 30))
