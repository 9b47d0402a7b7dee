"""Boundaries of maps: the pixels they consist of, and distances, pair by pair."""

import numpy as np
import pytest

from eo_keras.metrics.boundary import boundary_counts, boundary_f1


def blobs(seed, num_classes, shape=(23, 31)):
    """Regions of a few pixels and more, with some pixels of other classes in between."""
    random = np.random.default_rng(seed)
    rows, columns = -(-shape[0] // 6), -(-shape[1] // 6)
    regions = random.integers(0, num_classes, (rows, columns)).repeat(6, 0).repeat(6, 1)[: shape[0], : shape[1]]
    return np.where(random.random(shape) < 0.03, random.integers(0, num_classes, shape), regions).astype(np.uint8)


def by_pairs(labels, predictions, known, num_classes, tolerance):
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

    counts = np.zeros((4, num_classes), np.int64)
    places = [boundary(predictions), boundary(labels)]
    for side, (classes, others) in enumerate(((predictions, labels), (labels, predictions))):
        own, other = places[side], places[1 - side]
        for row, column in own:
            kind = classes[row, column]
            same = other[others[other[:, 0], other[:, 1]] == kind]
            counts[2 * side, kind] += 1
            near = np.hypot(same[:, 0] - row, same[:, 1] - column) <= tolerance + 1e-9
            counts[2 * side + 1, kind] += near.any()
    return counts


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2, 3, 5, 40])
@pytest.mark.parametrize("num_classes", [2, 7])
def test_counts_are_those_of_the_definition(num_classes, tolerance):
    labels, predictions = blobs(1, num_classes), blobs(2, num_classes)
    # Half of the regions agree, moved by a pixel.
    predictions[:, :15] = np.roll(labels, 1, axis=0)[:, :15]
    known = np.random.default_rng(3).random(labels.shape) > 0.1
    known[5:9, 20:] = False
    found = boundary_counts(labels, predictions, known, num_classes, tolerance)
    expected = by_pairs(labels, predictions, known, num_classes, tolerance)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int64 and (expected[0] > 10).all()
    assert tolerance == 40 or (expected[1] < expected[0]).any()


@pytest.mark.parametrize("num_classes", [8, 9, 16, 17, 32, 33, 64, 65, 200])
def test_every_class_has_a_place_of_its_own(num_classes):
    labels, predictions = blobs(1, num_classes, (40, 40)), blobs(4, num_classes, (40, 40))
    labels[:6, :6], predictions[:6, :6] = num_classes - 1, num_classes - 1
    known = np.ones(labels.shape, bool)
    found = boundary_counts(labels, predictions, known, num_classes, 2)
    np.testing.assert_array_equal(found, by_pairs(labels, predictions, known, num_classes, 2))
    assert found[1, -1] > 0


def test_a_map_smaller_than_the_tolerance():
    labels, predictions = np.array([[0, 1]]), np.array([[1, 0]])
    found = boundary_counts(labels, predictions, np.ones((1, 2), bool), 2, 5)
    np.testing.assert_array_equal(found, np.ones((4, 2)))


def test_f1_is_of_added_counts():
    # Predicted 10, of which 8 near; true 20, of which 10 near: 2 * 0.8 * 0.5 / 1.3. Nothing found; nothing there.
    counts = np.array([[10, 4, 0], [8, 0, 0], [20, 0, 0], [10, 0, 0]])
    np.testing.assert_allclose(boundary_f1(counts), [0.8 / 1.3, 0.0, np.nan])
    several = boundary_f1(np.stack([counts, 2 * counts, counts + counts]))
    np.testing.assert_allclose(several, [[0.8 / 1.3, 0.0, np.nan]] * 3)
