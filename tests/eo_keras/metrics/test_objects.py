"""Objects of masks: matched by hand, and against every pair of objects."""

import numpy as np
import pytest

from eo_keras.metrics.objects import object_class, object_counts, object_scores


def drawn(*rows):
    return np.array([[int(one) for one in row] for row in rows])


def test_matches_by_hand():
    labels = drawn(
        "1110001100",
        "1110001100",
        "0000000000",
        "1000110000",
        "0000110001",
    )
    predictions = drawn(
        "0110011000",
        "0110011000",
        "0000000000",
        "1000111100",
        "0000111100",
    )
    known = np.ones(labels.shape, bool)
    # Found: 4 of 6 pixels and the single pixel at the left. Not: 2 of 6; 4 of 8, which is no more than half; nothing.
    assert object_counts(labels, predictions, known, 1).tolist() == [2, 5, 4]
    found = object_scores(*np.array([[2, 0, 0], [5, 3, 0], [4, 0, 0]]))
    np.testing.assert_allclose(found["object_precision"], [0.5, np.nan, np.nan])
    np.testing.assert_allclose(found["object_recall"], [0.4, 0, np.nan])
    np.testing.assert_allclose(found["object_f1"], [4 / 9, 0, np.nan])


def test_unknown_truth_cuts_both_alike():
    labels, predictions = drawn("1111100", "0000000"), drawn("1111111", "0000011")
    known = np.ones(labels.shape, bool)
    assert object_counts(labels, predictions, known, 1).tolist() == [1, 1, 1]
    known[:, 3] = False  # Left of it both have three pixels, right of it one of six is true.
    assert object_counts(np.where(known, labels, 255), predictions, known, 1).tolist() == [1, 2, 2]
    assert object_counts(labels, predictions, np.zeros_like(known), 1).tolist() == [0, 0, 0]


def components(mask):
    """Sets of pixels connected by their sides, by flooding."""
    left, found = set(map(tuple, np.argwhere(mask).tolist())), []
    while left:
        edge, whole = [left.pop()], set()
        while edge:
            row, column = pixel = edge.pop()
            whole.add(pixel)
            beside = {(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)} & left
            left -= beside
            edge += beside
        found.append(whole)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_matches_of_every_pair(seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, (8, 9)).repeat(3, 0).repeat(3, 1)
    predictions = np.where(random.random(labels.shape) < 0.04 * seed, random.integers(0, 3, labels.shape), labels)
    predictions[:, 14:] = np.roll(predictions, 1, axis=0)[:, 14:]
    known = random.random(labels.shape) > 0.02 * seed
    true, predicted = components(known & (labels == 2)), components(known & (predictions == 2))
    matched = [(a, b) for a in true for b in predicted if len(a & b) / len(a | b) > 0.5]
    found = object_counts(labels, predictions, known, 2)
    assert found.tolist() == [len(matched), len(true), len(predicted)]
    assert len({id(a) for a, _ in matched}) == len({id(b) for _, b in matched}) == len(matched) > 0


def test_the_class_of_objects():
    assert (object_class(("a", "b")), object_class(("a", "b", "c")), object_class(("a",))) == ("b", None, None)
    assert object_class(("a", "b", "c"), "c") == "c"
