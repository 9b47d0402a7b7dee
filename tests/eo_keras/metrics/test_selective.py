import numpy as np
import pytest

from eo_keras.errors import EOKerasError
from eo_keras.metrics import selective


def test_the_curve_by_hand():
    curve = selective.risk_coverage([0.6, 0.9, 0.7, 0.8], [False, True, True, False])
    np.testing.assert_allclose(curve.confidences, [0.9, 0.8, 0.7, 0.6])
    np.testing.assert_allclose(curve.coverages, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.accuracies, [1, 1 / 2, 2 / 3, 1 / 2])
    assert curve.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert curve.accuracy_at(0.75) == pytest.approx((2 / 3, 0.7))
    assert curve.accuracy_at(0.6) == pytest.approx((2 / 3, 0.7)), "at least this share"
    # Reached at a quarter and again, after a dip, at three quarters: the largest counts.
    assert curve.coverage_at(0.6) == pytest.approx((0.75, 0.7))
    assert curve.coverage_at(0.9) == pytest.approx((0.25, 0.9))


def test_no_threshold_reaches_it():
    assert selective.risk_coverage([0.9, 0.8], [False, True]).coverage_at(0.99) is None


def test_ties_are_the_mean_over_all_orders():
    rng = np.random.default_rng(0)
    confidences, correct = rng.choice([0.5, 0.7, 0.9], 30), rng.random(30) < 0.7
    curve = selective.risk_coverage(confidences, correct)
    drawn = np.zeros((4000, 30))
    for row in drawn:
        order = rng.permutation(30)
        order = order[np.argsort(-confidences[order], kind="stable")]
        row[:] = np.cumsum(correct[order])
    np.testing.assert_allclose(curve.correct, drawn.mean(axis=0), atol=0.1)
    assert list(np.flatnonzero(curve.ends) + 1) == list(np.cumsum([np.sum(confidences == c) for c in (0.9, 0.7, 0.5)]))
    # The stored order plays no part.
    order = rng.permutation(30)
    np.testing.assert_array_equal(selective.risk_coverage(confidences[order], correct[order]).correct, curve.correct)


def test_a_threshold_cannot_divide_equals():
    curve = selective.risk_coverage([0.9, 0.9, 0.9, 0.5], [True, True, False, True])
    assert curve.coverage_at(0.99) is None
    assert curve.coverage_at(2 / 3) == pytest.approx((1.0, 0.5))
    np.testing.assert_allclose(curve.correct, [2 / 3, 4 / 3, 2, 3])


def test_numbers_for_metrics_json():
    confidences = np.linspace(1, 0.01, 100)
    content = selective.risk_coverage(confidences, np.arange(100) < 94).to_json()
    assert [one["coverage"] for one in content["accuracy_at_coverage"]] == [1.0, 0.95, 0.9, 0.8, 0.5]
    found = [one["accuracy"] for one in content["accuracy_at_coverage"]]
    np.testing.assert_allclose(found, [0.94, 94 / 95, 1, 1, 1])
    assert content["accuracy_at_coverage"][2]["threshold"] == pytest.approx(confidences[89])
    # 94 of 94 correct is 100 %, 94 of 95 is 98.9 %.
    assert [one["coverage"] for one in content["coverage_at_accuracy"]] == [0.94, 0.94]


def test_thresholds_of_validation_on_other_examples():
    curve = selective.risk_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    thresholds = curve.thresholds()
    assert [(one.accuracy, one.coverage, one.threshold) for one in thresholds] == [(0.99, 0.5, 0.8), (0.995, 0.5, 0.8)]
    found = selective.apply_thresholds(thresholds, [0.95, 0.8, 0.79, 0.1, 0.85], [True, False, True, True, True])
    # Three of five are at least as confident as 0.8, and two of these are correct.
    assert found[0] == {"aim": 0.99, "threshold": 0.8, "coverage": 0.6, "accuracy": pytest.approx(2 / 3)}
    none = selective.apply_thresholds(thresholds, [0.1, 0.2], [True, True])
    assert none[0]["coverage"] == 0 and none[0]["accuracy"] is None
    never = selective.risk_coverage([0.9], [False]).thresholds()
    assert selective.apply_thresholds(never, [0.9], [True]) == []


def test_what_cannot_be_drawn():
    with pytest.raises(EOKerasError, match="no example"):
        selective.risk_coverage([], [])
    with pytest.raises(ValueError, match="do not fit"):
        selective.risk_coverage([0.5], [True, False])
