import numpy as np
import pytest
import rasterio.features

from eo_keras.geo.regions import merge_small, number_regions

ONE = np.ones((1, 1))


def ones(labels):
    return np.ones((labels.shape[0], 1))


def maps():
    """Label arrays of noise, of squares with noise, and of single rows and columns; some without classes in places."""
    rng = np.random.default_rng(0)
    squares = np.kron(rng.integers(0, 4, (6, 8)), np.ones((9, 9))).astype(np.uint8)
    squares[rng.random(squares.shape) < 0.3] = 2
    holes = rng.integers(0, 5, (40, 60)).astype(np.uint8)
    holes[rng.random(holes.shape) < 0.4] = 255
    shapes = ((30, 50), (1, 90), (90, 1), (1, 1))
    return [squares, holes, np.full((5, 6), 255, np.uint8), *(rng.integers(0, 3, s).astype(np.uint8) for s in shapes)]


def sizes(labels):
    """The number of pixels of each region by GDAL, and whether it borders on another class."""
    for shape, value in rasterio.features.shapes(labels, mask=labels != 255, connectivity=4):
        inside = rasterio.features.rasterize([shape], labels.shape).astype(bool)
        around = np.pad(inside, 1)
        around = around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
        yield int(inside.sum()), bool((labels[around & ~inside] != 255).any()), int(value)


@pytest.mark.parametrize("labels", maps())
def test_regions_are_those_of_gdal(labels):
    numbers, count = number_regions(labels)
    np.testing.assert_array_equal(numbers == -1, labels == 255)
    assert sorted(np.bincount(numbers[numbers >= 0], minlength=count)) == sorted(size for size, _, _ in sizes(labels))
    first = [np.flatnonzero(numbers.ravel() == region)[0] for region in range(count)]
    assert first == sorted(first)
    assert all(len(np.unique(labels[numbers == region])) == 1 for region in range(count))


@pytest.mark.parametrize("least", [2, 5, 20])
@pytest.mark.parametrize("labels", maps())
def test_no_region_stays_too_small_but_isolated_ones(labels, least):
    merged = merge_small(labels, ones(labels), least)
    np.testing.assert_array_equal(merged == 255, labels == 255)
    assert all(size >= least or not neighbours for size, neighbours, _ in sizes(merged))
    # What is large enough can grow but does not change.
    numbers, count = number_regions(labels)
    for region in range(count):
        if (numbers == region).sum() >= least:
            np.testing.assert_array_equal(merged[numbers == region], labels[numbers == region])
    np.testing.assert_array_equal(merge_small(merged, ones(labels), least), merged)


def test_longest_shared_border_decides():
    # The 9 shares five edges with two regions of the 1, four with one region of the 2, one with the 0.
    labels = np.array(
        [
            [1, 1, 1, 1, 1, 1],
            [2, 9, 9, 9, 0, 0],
            [2, 2, 2, 1, 0, 0],
            [2, 2, 2, 1, 1, 1],
        ],
        np.uint8,
    )
    expected = labels.copy()
    expected[1, 1:4] = 1
    np.testing.assert_array_equal(merge_small(labels, ones(labels), 4), expected)


def test_equal_borders_take_the_smaller_label():
    np.testing.assert_array_equal(merge_small(np.array([[7, 7, 5, 3, 3]], np.uint8), ONE, 2), [[7, 7, 3, 3, 3]])


def test_smallest_region_comes_first():
    # The 5 alone joins the 3s beside it, which are large enough then; by columns the 3s would have joined the 1s.
    labels = np.array([[1, 1, 1, 1, 3, 3, 5, 9, 9, 9]], np.uint8)
    np.testing.assert_array_equal(merge_small(labels, ONE, 3), [[1, 1, 1, 1, 3, 3, 3, 9, 9, 9]])


def test_areas_of_pixels_count():
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 3, 3], [4, 4, 5, 5]], np.uint8)
    by_row = np.array([[4.0], [4.0], [1.0], [1.0]])
    np.testing.assert_array_equal(merge_small(labels, by_row, 3), [*labels[:2], [3] * 4, [3] * 4])
    by_pixel = np.broadcast_to(by_row, (4, 4)).copy()
    by_pixel[3, 2:] = 1.5
    np.testing.assert_array_equal(merge_small(labels, by_pixel, 3)[3], [3, 3, 5, 5])


@pytest.mark.parametrize(
    ("side", "expected"), [(0, [1, 0, 0, 4]), (1, [1, 0, 0, 4]), (2, [1, 0, 0, 0]), (3, [0, 0, 0, 4])]
)
def test_regions_at_a_cut_edge_keep_their_class(side, expected):
    cut = tuple(place == side for place in range(4))
    np.testing.assert_array_equal(merge_small(np.array([[1, 0, 0, 4]], np.uint8), ONE, 2, cut), [expected])
