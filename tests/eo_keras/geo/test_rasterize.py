import time

import numpy as np
import pytest
import rasterio.features
import shapely
from rasterio.transform import Affine

from eo_keras.geo.grid import Grid
from eo_keras.geo.rasterize import Rasterizer, fill_by_majority

GRID = Grid("EPSG:32633", (10.0, 0.0, 399_960.0, 0.0, -10.0, 5_900_040.0), 120, 150)


def cells(count, seed=1, size=(1500.0, 1200.0)):
    """A mosaic of areas with winding borders that cover the grid but for its last rows, some with holes and parts."""
    rng = np.random.default_rng(seed)
    points = shapely.multipoints(rng.uniform((0, 60), size, (count, 2)))
    areas = shapely.intersection(shapely.get_parts(shapely.voronoi_polygons(points)), shapely.box(0, 60, *size))

    def winding(places):
        x, y = places.T
        return np.stack([399_960 + x + 6 * np.sin(x / 9 + y / 13), 5_898_840 + y + 6 * np.sin(x / 11 - y / 7)], 1)

    areas = shapely.transform(shapely.segmentize(areas, 7.0), winding)
    hole = shapely.Point(400_500, 5_899_400).buffer(90)
    areas = shapely.difference(areas, hole)
    areas = areas[np.isin(shapely.get_type_id(areas), (3, 6)) & ~shapely.is_empty(areas)]
    areas = np.append(areas, shapely.union(hole, shapely.box(399_990, 5_899_990, 400_090, 5_900_020)))
    return areas, rng.integers(0, 9, len(areas)).astype(np.uint8)


def by_rasterio(geometries, labels, grid, fill=255):
    return rasterio.features.rasterize(
        list(zip(geometries, labels.tolist(), strict=True)),
        out_shape=(grid.height, grid.width),
        transform=Affine(*grid.transform),
        fill=fill,
        dtype="uint8",
    )


@pytest.mark.parametrize("crossed", [False, True])
def test_equal_to_rasterio(crossed):
    geometries, labels = cells(60)
    grid = GRID
    if crossed:
        # Rows that run south, and pixels that are no squares.
        grid = Grid(GRID.crs, (10.0, 0.0, 399_963.7, 0.0, 7.0, 5_898_801.3), 170, 150)
    burnt = Rasterizer(geometries, labels, fill=200).rasterize(grid)
    assert burnt.dtype == np.uint8 and np.unique(burnt).size == 10
    np.testing.assert_array_equal(burnt, by_rasterio(geometries, labels, grid, fill=200))
    owners = Rasterizer(geometries, labels).owners(grid)
    assert owners.min() == -1 and np.unique(owners).size > 50
    np.testing.assert_array_equal(np.where(owners < 0, 200, labels[owners]), burnt)


def test_a_turned_grid():
    geometries, labels = cells(60)
    grid = Grid(GRID.crs, (8.0, 6.0, 400_000.0, 6.0, -8.0, 5_899_500.0), 90, 70)
    burnt = Rasterizer(geometries, labels).rasterize(grid)
    for row, column in np.random.default_rng(2).integers(0, (90, 70), (200, 2)):
        point = shapely.Point(grid.coordinates(column + 0.5, row + 0.5))
        inside = np.flatnonzero(shapely.contains(geometries, point))
        assert burnt[row, column] == (labels[inside[-1]] if inside.size else 255)


@pytest.mark.parametrize(
    "transform",
    [GRID.transform, (9.998_123_4, 0.0, 399_963.1, 0.0, -9.998_123_4, 5_900_041.7), (8.0, 6.0, 4e5, 6.0, -8.0, 59e5)],
)
def test_windows_are_parts_of_the_whole(transform):
    geometries, labels = cells(60)
    # Borders through the very centres of pixels: where they fall must not depend on the window either.
    steps = np.array([shapely.box(399_965 + x, 5_899_005 + x, 400_965 + x, 5_899_015 + x) for x in range(0, 300, 10)])
    slanted = shapely.Polygon([(400_165, 5_899_035), (400_765, 5_899_335), (400_765, 5_899_435), (400_265, 5_899_935)])
    geometries = np.append(geometries, [*steps, slanted])
    labels = np.append(labels, [*range(20, 50), 50]).astype(np.uint8)
    grid = Grid(GRID.crs, transform, 120, 150)
    moved = shapely.transform(geometries, lambda places: np.stack(grid.coordinates(*GRID.pixel(*places.T)), axis=1))
    burner = Rasterizer(moved, labels)
    whole = burner.rasterize(grid)
    np.testing.assert_array_equal(whole, Rasterizer(geometries, labels).rasterize(GRID))
    rng = np.random.default_rng(1)
    for _ in range(30):
        row, column = rng.integers(-20, 100, 2)
        height, width = rng.integers(1, 60, 2)
        inside = np.pad(whole, 200, constant_values=255)[200 + row :, 200 + column :][:height, :width]
        beyond = np.zeros((height, width), bool)
        rows, columns = row + np.arange(height), column + np.arange(width)
        beyond |= ((rows < 0) | (rows >= 120))[:, None] | ((columns < 0) | (columns >= 150))[None]
        found = burner.rasterize(grid.window(row, column, height, width))
        np.testing.assert_array_equal(found[~beyond], inside[~beyond])


def test_a_large_window_is_burnt_in_strips(monkeypatch):
    geometries, labels = cells(60)
    whole = Rasterizer(geometries, labels).rasterize(GRID)
    monkeypatch.setattr("eo_keras.geo.rasterize._STRIP", 7 * GRID.width + 3)
    np.testing.assert_array_equal(Rasterizer(geometries, labels).rasterize(GRID), whole)


def test_a_border_through_centres_belongs_to_one_side():
    # Four squares that meet in the middle of a pixel.
    x, y = 400_005.0, 5_900_005.0
    squares = [shapely.box(x - 50, y - 50, x, y), shapely.box(x, y - 50, x + 50, y)]
    squares += [shapely.box(x - 50, y, x, y + 50), shapely.box(x, y, x + 50, y + 50)]
    counts = np.zeros((14, 14), int)
    for square in squares:
        counts += (
            Rasterizer(np.array([square], object), np.array([1], np.uint8)).rasterize(GRID.window(-3, -2, 14, 14)) == 1
        )
    assert counts.max() == 1 and counts.sum() == 100


def test_the_last_of_overlapping_polygons_lies_on_top():
    low, high = shapely.box(399_960, 5_899_940, 400_060, 5_900_040), shapely.box(400_010, 5_899_990, 400_060, 5_900_040)
    for order in ((low, high), (high, low)):
        burnt = Rasterizer(np.array(order, object), np.array([7, 255], np.uint8), fill=0).rasterize(
            GRID.window(0, 0, 12, 12)
        )
        assert np.count_nonzero(burnt == 255) == (25 if order[1] is high else 100)
        assert np.count_nonzero(burnt == 0) == 44


def test_no_polygons_and_none_here():
    burner = Rasterizer(np.array([], object), np.array([], np.uint8), fill=3)
    assert (burner.rasterize(GRID) == 3).all() and np.isnan(burner.bounds).all()
    burner = Rasterizer(*cells(20))
    west, south, east, north = burner.bounds
    assert (west, north) == pytest.approx((399_960, 5_900_040), abs=10)
    assert (burner.rasterize(GRID.window(5000, 0, 10, 10)) == 255).all()
    with pytest.raises(ValueError, match="only polygons"):
        Rasterizer(shapely.points([[0, 0]]), np.array([1], np.uint8))
    with pytest.raises(ValueError, match="1 polygons and 2 labels"):
        Rasterizer(np.array([shapely.box(0, 0, 1, 1)], object), np.array([1, 2], np.uint8))


def test_far_windows_cost_nothing():
    burner = Rasterizer(*cells(3000))
    burner.rasterize(GRID)

    def seconds(grid):
        started = time.perf_counter()
        burner.rasterize(grid)
        return time.perf_counter() - started

    here = min(seconds(GRID) for _ in range(5))
    assert min(seconds(GRID.window(9000, 0, GRID.height, GRID.width)) for _ in range(5)) < here / 5


def test_gaps_take_the_majority_around_them():
    labels = np.array(
        [
            [1, 1, 1, 2, 2],
            [9, 9, 9, 9, 9],
            [1, 0, 0, 2, 255],
        ],
        np.uint8,
    )
    filled = fill_by_majority(labels, 9, 3, 1)
    # Of two labels that are as frequent, the smaller; 255 has no say.
    assert filled.tolist() == [[1, 1, 1, 2, 2], [1, 1, 0, 2, 2], [1, 0, 0, 2, 255]]
    assert labels[1].tolist() == [9] * 5


def test_gaps_are_filled_from_their_edges_inwards():
    labels = np.full((11, 11), 9, np.uint8)
    labels[:, 0] = 1
    filled = fill_by_majority(labels, 9, 3, 4)
    assert (filled[:, :5] == 1).all() and (filled[:, 5:] == 255).all()
    assert (fill_by_majority(labels, 9, 3, 4, ignore=77)[:, 5:] == 77).all()
    assert (fill_by_majority(labels, 9, 3, 0)[:, 1:] == 255).all()
    # Without a label beside it a gap has no class.
    assert (fill_by_majority(np.full((3, 3), 9, np.uint8), 9, 3, 4) == 255).all()


def by_the_book(labels, placeholder, num_classes, iterations):
    """The rule as it is told, a pixel at a time."""
    labels = labels.copy()
    for _ in range(iterations):
        before = np.pad(labels, 1, constant_values=255)
        for row, column in np.argwhere(labels == placeholder):
            around = before[row : row + 3, column : column + 3].ravel()
            counts = np.bincount(around[around < num_classes], minlength=num_classes)
            if counts.any():
                labels[row, column] = counts.argmax()
    return np.where(labels == placeholder, 255, labels)


def test_filling_is_as_it_is_told_whatever_the_window(monkeypatch):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 4, (16, 20), np.uint8).repeat(4, 0).repeat(4, 1)
    labels[rng.random(labels.shape) < 0.2] = 255
    labels[np.abs(np.add.outer(np.arange(64), -np.arange(80))) < 8] = 254
    labels[20:44, 10:70] = 254
    whole = fill_by_majority(labels, 254, 4, 6)
    np.testing.assert_array_equal(whole, by_the_book(labels, 254, 4, 6))
    assert (whole[labels != 254] == labels[labels != 254]).all() and (whole[30:34, 20:60] == 255).any()
    # A margin as wide as the iterations is enough, and a narrower one is not.
    part = fill_by_majority(labels[12:46, 22:60], 254, 4, 6)
    np.testing.assert_array_equal(part[6:-6, 6:-6], whole[18:40, 28:54])
    assert (part != whole[12:46, 22:60]).any()
    monkeypatch.setattr("eo_keras.geo.rasterize._STRIP", 16 * 50)
    np.testing.assert_array_equal(fill_by_majority(labels, 254, 4, 6), whole)
