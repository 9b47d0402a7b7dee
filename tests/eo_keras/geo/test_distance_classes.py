"""Distances from boundaries, against shapes whose distances are known, and against a search over all edges."""

import numpy as np
import pytest

from eo_keras.errors import OptionError
from eo_keras.geo.distance_classes import distance_classes, signed_distances
from eo_keras.legends.catalogue import IGNORE
from eo_keras.records.targets import DistanceClasses


def square(size=24, first=8, end=16):
    mask = np.zeros((size, size), np.uint8)
    mask[first:end, first:end] = 1
    return mask


def searched(mask, label):
    """Distances of all centers from all edges between known pixels of objects and others, each edge as a segment."""
    rows, columns = mask.shape
    segments = []
    for row in range(rows):
        for column in range(columns):
            for down, right in ((0, 1), (1, 0)):
                if row + down < rows and column + right < columns:
                    pair = mask[row, column], mask[row + down, column + right]
                    if IGNORE not in pair and (pair[0] == label) != (pair[1] == label):
                        # From one corner that both pixels share to the other.
                        segments.append(((row + down, column + right), (row + 1, column + 1)))
    found = np.full(mask.shape, np.nan)
    for row, column in zip(*np.nonzero(mask != IGNORE), strict=True):
        nearest = np.inf
        for (top, left), (bottom, right) in segments:
            y, x = np.clip(row + 0.5, top, bottom), np.clip(column + 0.5, left, right)
            nearest = min(nearest, np.hypot(row + 0.5 - y, column + 0.5 - x))
        found[row, column] = nearest if mask[row, column] == label else -nearest
    return found


def test_distances_of_a_square_are_those_of_plane_geometry():
    found = signed_distances(square(), 1)
    # From the left edge of the object's middle row: 0.5, 1.5, ... up to the middle, and as much outside.
    np.testing.assert_array_equal(found[11, 8:16], [0.5, 1.5, 2.5, 3.5, 3.5, 2.5, 1.5, 0.5])
    np.testing.assert_array_equal(found[11, :8], [-7.5, -6.5, -5.5, -4.5, -3.5, -2.5, -1.5, -0.5])
    # Outside of a corner, the corner itself is the nearest.
    assert found[7, 7] == -np.hypot(0.5, 0.5) and found[4, 5] == -np.hypot(3.5, 2.5)


def test_distances_of_a_disc_differ_from_its_radius_by_less_than_a_pixel():
    rows, columns = np.mgrid[:64, :64] + 0.5
    from_middle = np.hypot(rows - 32, columns - 32)
    found = signed_distances((from_middle < 20).astype(np.uint8), 1)
    assert np.abs(found - (20 - from_middle)).max() < 0.75
    assert found[from_middle < 20].min() == 0.5 and found[from_middle >= 20].max() == -0.5


def test_any_mask_agrees_with_a_search_over_all_edges():
    random = np.random.default_rng(3)
    for share in (0.1, 0.5, 0.9):
        mask = (random.random((13, 17)) < share).astype(np.uint8) * 2
        mask[random.random(mask.shape) < 0.1] = IGNORE
        np.testing.assert_allclose(signed_distances(mask, 2), searched(mask, 2), rtol=1e-12)


def test_the_nearest_of_two_objects_counts_and_one_pixel_is_an_object():
    mask = np.zeros((9, 20), np.uint8)
    mask[:, :4] = mask[:, 15:] = 1
    np.testing.assert_array_equal(
        signed_distances(mask, 1)[4],
        [
            3.5,
            2.5,
            1.5,
            0.5,
            *-np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 4.5, 3.5, 2.5, 1.5, 0.5]),
            0.5,
            1.5,
            2.5,
            3.5,
            4.5,
        ],
    )
    one = np.zeros((5, 5), np.uint8)
    one[2, 2] = 1
    np.testing.assert_allclose(signed_distances(one, 1)[2], [-1.5, -0.5, 0.5, -0.5, -1.5])
    assert signed_distances(one, 1)[0, 0] == -np.hypot(1.5, 1.5)


def test_the_border_of_a_tile_is_no_boundary():
    mask = np.ones((6, 6), np.uint8)
    mask[:, 4:] = 0
    np.testing.assert_array_equal(signed_distances(mask, 1)[0], [3.5, 2.5, 1.5, 0.5, -0.5, -1.5])
    kind = DistanceClasses(20, 11, "Building")
    assert (distance_classes(np.ones((6, 6), np.uint8), 1, kind) == 10).all()
    assert (distance_classes(np.zeros((6, 6), np.uint8), 1, kind) == 0).all()


def test_unknown_pixels_have_no_class_and_make_no_boundary():
    mask = square()
    mask[:, 14:] = IGNORE
    kind = DistanceClasses(20, 11, "Building")
    classes, whole = distance_classes(mask, 1, kind), distance_classes(square(), 1, kind)
    assert (classes[:, 14:] == IGNORE).all() and (classes[:, :14] < 11).all()
    # Of the right edge nothing is known: the left one, and those above and below, are what distances are taken from.
    np.testing.assert_array_equal(signed_distances(mask, 1)[11, 8:14], [0.5, 1.5, 2.5, 3.5, 3.5, 3.5])
    np.testing.assert_array_equal(classes[:, :11], whole[:, :11])
    mask[:] = IGNORE
    assert (distance_classes(mask, 1, kind) == IGNORE).all()


def test_classes_are_uniform_and_the_middle_one_straddles_the_boundary():
    # A straight boundary: distances 0.5, 1.5, ... on both sides.
    mask = np.zeros((3, 60), np.uint8)
    mask[:, 30:] = 1
    # Classes of 2 pixels, from -5 to 5: the middle one holds what is nearer than 1.
    found = distance_classes(mask, 1, DistanceClasses(5, 5, "Building"))[1]
    np.testing.assert_array_equal(found[24:36], [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4])
    assert (found[:24] == 0).all() and (found[36:] == 4).all()
    # The published ones: 11 classes of 40 / 11 = 3.64 pixels.
    found = distance_classes(mask, 1, DistanceClasses(20, 11, "Building"))[1]
    inside = np.floor((np.arange(30) + 0.5) / (40 / 11) + 0.5).clip(max=5)
    np.testing.assert_array_equal(found[30:], 5 + inside)
    # Extreme from 20 - 40 / 11 = 16.36 pixels on.
    assert found[30 + 15] == 9 and found[30 + 16] == 10
    # Exchanging inside and outside mirrors the classes.
    for kind in (DistanceClasses(20, 11, "B"), DistanceClasses(2.5, 5, "B"), DistanceClasses(1, 3, "B")):
        swapped = distance_classes(1 - mask, 1, kind)
        np.testing.assert_array_equal(swapped, kind.classes - 1 - distance_classes(mask, 1, kind))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((20, 10), "distance_classes: 10; expected an odd number from 3.*Say `distance_classes=11`"),
        ((20, 1), "distance_classes: 1; expected an odd number from 3.*Say `distance_classes=3`"),
        ((20, -4), "distance_classes: -4;.*Say `distance_classes=3`"),
        ((20, 255), "distance_classes: 255;.*Say `distance_classes=253`"),
        ((0, 11), "distance_truncation: 0; expected pixels above 0"),
        ((float("nan"), 11), "distance_truncation: nan"),
    ],
)
def test_classes_that_are_none_are_refused(values, told):
    with pytest.raises(OptionError, match=told):
        DistanceClasses(*values, "Building")
