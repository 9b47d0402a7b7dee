"""Scores from counts: of independent examples and of clusters of pixels."""

import numpy as np
import pytest

from eo_keras.errors import OptionError
from eo_keras.metrics import confusion
from eo_keras.metrics.agreement import score_clusters, score_examples
from eo_keras.metrics.estimate import BOOTSTRAP, WILSON, wilson
from eo_keras.metrics.scores import Scores

NAMES = ("Built", "Field", "Wood")
MATRIX = np.array([[40, 5, 0], [8, 60, 12], [0, 10, 65]])


def of_clusters(sums, matrix, **options):
    given = {"task": "map", "unit": "pixels", "clusters": "polygons", "resamples": 2000} | options
    return score_clusters(matrix, sums, NAMES, **given)


def test_examples():
    found = score_examples(MATRIX, NAMES, task="map", unit="points", resamples=2000)
    assert found.count == 200
    assert found["accuracy"].value == 165 / 200 and found["accuracy"].ends == wilson(165 / 200, 200)
    wood = found.by_class["Wood"]
    assert (wood["support"], wood["predicted"]) == (75, 77)
    assert (
        wood["recall"].value == 65 / 75
        and wood["recall"].method == WILSON
        and wood["recall"].ends == wilson(65 / 75, 75)
    )
    assert wood["precision"].ends == wilson(65 / 77, 77)
    assert wood["iou"].value == 65 / 87 and wood["iou"].method == BOOTSTRAP
    assert wood["iou"].low < 65 / 87 < wood["iou"].high
    assert Scores.read(found.to_json()) == found


def test_clusters_of_equal_pixels_count_once():
    """Hundred pixels of a polygon that are all alike say no more than one of them."""
    true, predicted = (np.repeat(index, MATRIX.ravel()) for index in np.divmod(np.arange(9), 3))
    singly = np.zeros((true.size, 3, 3), np.int64)
    np.add.at(singly, (np.arange(true.size), 1, true), 1)
    np.add.at(singly, (np.arange(true.size), 2, predicted), 1)
    np.add.at(singly, (np.arange(true.size), 0, true), true == predicted)
    one, hundred = of_clusters(singly, MATRIX), of_clusters(100 * singly, 100 * MATRIX)
    examples = score_examples(MATRIX, NAMES, task="map", unit="points", resamples=2000)
    assert hundred.count == 100 * one.count and hundred.details["clusters"] == 200
    for name in ("accuracy", "miou", "kappa", "macro_f1"):
        assert hundred[name].ends == one[name].ends
        assert one[name].value == pytest.approx(examples[name].value)
        width, expected = (found[name].high - found[name].low for found in (one, examples))
        assert width == pytest.approx(expected, rel=0.15)


def test_empty_clusters_change_nothing():
    sums = np.stack([confusion.counts_of(MATRIX // 4)] * 4)
    with_empty = np.concatenate([np.zeros((30, 3, 3), np.int64), sums])
    assert of_clusters(with_empty, MATRIX // 4 * 4) == of_clusters(sums, MATRIX // 4 * 4)


def test_resamples_below_one():
    with pytest.raises(OptionError, match="resamples"):
        score_examples(MATRIX, NAMES, task="map", unit="points", resamples=0)
