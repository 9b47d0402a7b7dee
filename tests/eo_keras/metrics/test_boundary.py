"""Boundaries of masks: the pixels they consist of, and distances, pair by pair and by hand."""

import numpy as np
import pytest
from scipy import ndimage

from eo_keras.metrics.boundary import boundary_counts, boundary_f1, boundary_iou, region_counts, region_width


def blobs(seed, num_classes, shape=(23, 31)):
    """Regions of a few pixels and more, with some pixels of other classes in between."""
    random = np.random.default_rng(seed)
    rows, columns = -(-shape[0] // 6), -(-shape[1] // 6)
    regions = random.integers(0, num_classes, (rows, columns)).repeat(6, 0).repeat(6, 1)[: shape[0], : shape[1]]
    return np.where(random.random(shape) < 0.03, random.integers(0, num_classes, shape), regions).astype(np.uint8)


def by_pairs(labels, predictions, known, num_classes, tolerances):
    """The same counts by the definition: every pixel and its neighbours, every boundary pixel and every other."""

    def boundary(classes):
        found = []
        for row, column in np.argwhere(known):
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                inside = 0 <= r < classes.shape[0] and 0 <= c < classes.shape[1]
                if inside and known[r, c] and classes[r, c] != classes[row, column]:
                    found.append((row, column))
                    break
        return np.array(found).reshape(-1, 2)

    counts = np.zeros((2 + 2 * len(tolerances), num_classes), np.int64)
    places = [boundary(predictions), boundary(labels)]
    for side, (classes, others) in enumerate(((predictions, labels), (labels, predictions))):
        own, other = places[side], places[1 - side]
        for row, column in own:
            kind = classes[row, column]
            same = other[others[other[:, 0], other[:, 1]] == kind]
            counts[side, kind] += 1
            nearest = np.hypot(same[:, 0] - row, same[:, 1] - column).min(initial=np.inf)
            counts[2 + side :: 2, kind] += nearest <= np.array(tolerances) + 1e-9
    return counts


@pytest.mark.parametrize("num_classes", [2, 7])
def test_counts_are_those_of_the_definition(num_classes):
    labels, predictions, tolerances = blobs(1, num_classes), blobs(2, num_classes), (0, 1, 1.5, 2, 3, 5, 40)
    # Half of the regions agree, moved by a pixel.
    predictions[:, :15] = np.roll(labels, 1, axis=0)[:, :15]
    known = np.random.default_rng(3).random(labels.shape) > 0.1
    known[5:9, 20:] = False
    found = boundary_counts(labels, predictions, known, num_classes, tolerances)
    expected = by_pairs(labels, predictions, known, num_classes, tolerances)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int64 and (expected[0] > 10).all()
    near = expected[2::2].sum(axis=1)
    assert (np.diff(near) > 0).all() and near[-2] < expected[0].sum() == near[-1]


@pytest.mark.parametrize("num_classes", [8, 9, 16, 17, 32, 33, 64, 65, 200])
def test_every_class_has_a_place_of_its_own(num_classes):
    labels, predictions = blobs(1, num_classes, (40, 40)), blobs(4, num_classes, (40, 40))
    labels[:6, :6], predictions[:6, :6] = num_classes - 1, num_classes - 1
    known = np.ones(labels.shape, bool)
    found = boundary_counts(labels, predictions, known, num_classes, (2,))
    np.testing.assert_array_equal(found, by_pairs(labels, predictions, known, num_classes, (2,)))
    assert found[2, -1] > 0
    np.testing.assert_array_equal(
        region_counts(labels, predictions, known, num_classes, 2), regions(labels, predictions, known, num_classes, 2)
    )


def test_a_mask_smaller_than_the_tolerance():
    labels, predictions, known = np.array([[0, 1]]), np.array([[1, 0]]), np.ones((1, 2), bool)
    np.testing.assert_array_equal(boundary_counts(labels, predictions, known, 2, (5, 9)), np.ones((6, 2)))
    np.testing.assert_array_equal(region_counts(labels, predictions, known, 2, 9), [[0, 0], [1, 1], [1, 1]])


def regions(labels, predictions, known, num_classes, width):
    """Counts of boundary regions by SciPy's exact distance transform, class by class."""
    counts = np.zeros((3, num_classes), np.int64)
    for one in range(num_classes):
        found = []
        for classes in (labels, predictions):
            other = known & (classes != one)
            distance = ndimage.distance_transform_edt(~other) if other.any() else np.full(other.shape, np.inf)
            found.append(known & (classes == one) & (distance <= width + 1e-9))
        counts[:, one] = [np.count_nonzero(part) for part in (found[0] & found[1], *found)]
    return counts


@pytest.mark.parametrize("width", [1, 1.5, 2, 3, 7, 60])
@pytest.mark.parametrize("num_classes", [1, 2, 7, 255])
def test_regions_are_those_of_a_distance_transform(num_classes, width):
    labels, predictions = blobs(1, num_classes), blobs(2, num_classes)
    predictions[:, :15] = np.roll(labels, 1, axis=0)[:, :15]
    known = np.random.default_rng(3).random(labels.shape) > 0.1
    known[5:9, 20:] = False
    labels[~known] = 255
    expected = regions(labels, predictions, known, num_classes, width)
    np.testing.assert_array_equal(region_counts(labels, predictions, known, num_classes, width), expected)
    assert (expected.sum(axis=1) > 0).all() == (num_classes > 1)


def test_a_square_that_is_off_by_hand():
    # A square of 10 x 10 pixels, predicted two columns to the right: its outline has 36 pixels.
    labels, predictions, known = np.zeros((30, 30), int), np.zeros((30, 30), int), np.ones((30, 30), bool)
    labels[10:20, 10:20], predictions[10:20, 12:22] = 1, 1
    found = boundary_counts(labels, predictions, known, 2, (0, 1, 2))[:, 1]
    # Equal are eight pixels of the top and the bottom row; a pixel to the side of each end is near; then all are.
    assert found.tolist() == [36, 36, 16, 16, 18 + 2, 18 + 2, 36, 36]
    np.testing.assert_allclose(
        boundary_f1(36, np.array([16, 20, 36]), 36, np.array([16, 20, 36])), [16 / 36, 20 / 36, 1]
    )
    # Regions of width 2: a square without its inner 6 x 6 pixels has 64. In common: columns 12 to 19 of the two top and
    # the two bottom rows; of the rows between, columns 18 and 19 are the truth's, 12 and 13 the prediction's.
    both, true, predicted = region_counts(labels, predictions, known, 2, 2)[:, 1]
    assert (both, true, predicted) == (4 * 8, 64, 64)
    assert boundary_iou(np.array(32), np.array(64), np.array(64)) == 32 / 96


def test_the_edge_and_unknown_truth_are_no_boundary():
    labels = np.ones((12, 12), int)
    known = np.ones((12, 12), bool)
    known[4:8, 4:8] = False
    for predictions in (labels, np.where(known, labels, 0)):
        assert boundary_counts(labels, predictions, known, 2, (3,)).sum() == 0
        assert region_counts(labels, predictions, known, 2, 3).sum() == 0
    # A strip of unknown truth between two classes: nothing touches, but the boundary is certainly near.
    labels[:, 6:], known[:] = 0, True
    known[:, 5:7] = False
    assert boundary_counts(labels, labels, known, 2, (3,)).sum() == 0
    assert region_counts(labels, labels, known, 2, 3).tolist() == [[12, 12]] * 3


def test_the_width_of_regions_is_a_share_of_the_diagonal():
    assert [region_width(shape) for shape in ((256, 256), (512, 512), (300, 400), (5, 5))] == [7, 14, 10, 1]


def test_f1_is_of_added_counts():
    # Predicted 10, of which 8 near; true 20, of which 10 near: 2 * 0.8 * 0.5 / 1.3. Nothing found; nothing there.
    counts = np.array([[10, 4, 0], [8, 0, 0], [20, 0, 0], [10, 0, 0]])
    np.testing.assert_allclose(boundary_f1(*counts), [0.8 / 1.3, 0.0, np.nan])
    several = boundary_f1(*np.stack([counts, 2 * counts, counts + counts], axis=1))
    np.testing.assert_allclose(several, [[0.8 / 1.3, 0.0, np.nan]] * 3)
    np.testing.assert_allclose(boundary_iou(*np.array([[3, 0, 0], [5, 2, 0], [4, 2, 0]])), [0.5, 0, np.nan])
