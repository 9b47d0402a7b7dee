import dataclasses
import json

import numpy as np
import pytest

from eo_keras.errors import EOKerasError, RunError
from eo_keras.metrics import calibration, selective
from eo_keras.metrics.predictions import ClassPredictions
from eo_keras.metrics.scores import ReliabilityBin


def softmax(logits):
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def overconfident(count=4000, factor=3.0, seed=0):
    """Labels drawn from honest probabilities, and these made too sure by a known factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, 5))
    honest = softmax(logits)
    labels = (rng.random(count)[:, None] > honest.cumsum(axis=1)).sum(axis=1)
    return labels, honest, softmax(factor * logits).astype(np.float32)


def test_the_temperature_is_that_of_a_grid_search():
    labels, _, sure = overconfident(300)
    found, at_limit = calibration.fit_temperature(labels, sure)
    grid = np.exp(np.linspace(np.log(0.5), np.log(10), 601))
    losses = [
        calibration.score_probabilities(labels, calibration.apply_temperature(sure, one)).negative_log_likelihood
        for one in grid
    ]
    assert not at_limit and found == pytest.approx(grid[np.argmin(losses)], rel=6e-3)


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_a_known_factor_is_found_and_the_calibration_error_falls(factor):
    labels, _, sure = overconfident(factor=factor)
    fitted = calibration.calibrate(labels[::2], sure[::2], "every second one", tta="d4")
    assert fitted.temperature == pytest.approx(factor, rel=0.1)
    assert (fitted.examples, fitted.fitted_on, fitted.tta) == (2000, "every second one", "d4")
    assert fitted.after.negative_log_likelihood <= fitted.before.negative_log_likelihood
    before = calibration.score_probabilities(labels[1::2], sure[1::2])
    scaled = calibration.apply_temperature(sure[1::2], fitted.temperature)
    after = calibration.score_probabilities(labels[1::2], scaled)
    if factor != 1.0:
        assert after.expected_calibration_error < before.expected_calibration_error / 3
        assert after.negative_log_likelihood < before.negative_log_likelihood
        assert after.brier_score < before.brier_score
    np.testing.assert_array_equal(scaled.argmax(axis=1), sure[1::2].argmax(axis=1))


def test_scaling_probabilities_is_scaling_logits():
    logits = np.random.default_rng(1).normal(0, 3, (50, 4))
    np.testing.assert_allclose(calibration.apply_temperature(softmax(logits), 0.7), softmax(logits / 0.7), atol=1e-12)
    np.testing.assert_allclose(calibration.apply_temperature([[1.0, 0.0]], 2.0), [[1, 0]], atol=1e-12)


def test_scores_by_hand():
    found = calibration.score_probabilities([0, 1], [[0.8, 0.2], [0.6, 0.4]])
    assert found.negative_log_likelihood == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert found.brier_score == pytest.approx(((0.2**2 + 0.2**2) + (0.6**2 + 0.6**2)) / 2)
    # One correct at 0.8 and one incorrect at 0.6, each in a bin of its own.
    assert found.expected_calibration_error == pytest.approx((0.2 + 0.6) / 2)


def test_where_the_likelihood_has_no_maximum():
    sure = np.array([[0.9, 0.1]] * 3)
    assert calibration.fit_temperature([0, 0, 0], sure) == (calibration.LIMITS[0], True)
    assert calibration.fit_temperature([1, 1, 1], sure) == (calibration.LIMITS[1], True)
    assert calibration.fit_temperature([0, 1], np.full((2, 2), 0.5)) == (1.0, False)
    with pytest.raises(EOKerasError, match="no validation example"):
        calibration.fit_temperature(np.zeros(0, int), np.zeros((0, 2)))


def test_the_section_of_metrics_json():
    labels, _, sure = overconfident(1000)
    fitted = calibration.calibrate(labels, sure, "here")
    content = json.loads(json.dumps(calibration.to_json(fitted, labels, sure, "")))
    assert content["temperature"] == fitted.temperature and content["reason"] == ""
    assert content["split"]["before"] == content["validation"]["before"]
    bins = [ReliabilityBin(**part) for part in content["reliability"]]
    assert calibration.expected_calibration_error(bins) == content["split"]["after"]["expected_calibration_error"]
    without = calibration.to_json(None, labels, sure, "no validation")
    assert without["temperature"] is None and without["split"]["after"] is None
    assert without["reason"] == "no validation" and without["split"]["before"] == content["split"]["before"]


def test_the_file(tmp_path):
    labels, _, sure = overconfident(100)
    fitted = calibration.calibrate(labels, sure, "here", model_sha256="ab", data_fingerprint="cd")
    path = tmp_path / "temperature.json"
    path.write_bytes(calibration.to_bytes(fitted))
    assert calibration.read_calibration(path) == fitted
    curve = selective.risk_coverage(sure.max(axis=1), sure.argmax(axis=1) == labels)
    assert fitted.thresholds == curve.thresholds() and len(fitted.thresholds) == 2
    for text in ("{}", "no", path.read_text().replace('"temperature": ', '"temperature": -')):
        path.write_text(text)
        with pytest.raises(RunError, match="temperature.json: it cannot be read"):
            calibration.read_calibration(path)
    with pytest.raises(RunError, match="Evaluate with `force`"):
        calibration.read_calibration(tmp_path / "absent.json")


def test_what_speaks_against_a_temperature_is_said():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    sure = softmax(2 * (np.eye(3)[labels] + rng.normal(0, 0.8, (400, 3))))
    assert calibration.calibrate(labels, sure, "many").cautions == ()
    few = calibration.calibrate(labels[:5], sure[:5], "few")
    assert "5 examples are few" in few.cautions[0]
    # On other examples than its own it may do harm, which the section says of these.
    content = calibration.to_json(dataclasses.replace(few, temperature=9.0), labels, sure, "")
    assert content["cautions"][-1].startswith("it raises the negative log-likelihood (")
    assert (
        calibration.calibrate([0, 0], np.array([[0.9, 0.1], [0.8, 0.2]]), "right").cautions[1].startswith("the likeli")
    )


def test_a_perfect_likelihood_is_zero_without_a_minus():
    assert f"{calibration.score_probabilities([0, 1], np.eye(2)).negative_log_likelihood:.4f}" == "0.0000"


def test_scaled_predictions_keep_their_class_where_rounding_makes_two_equal():
    probabilities = np.array([[0.3333334, 0.33333331, 0.33333329], [0.2, 0.40000001, 0.4]])
    predicted = ClassPredictions(np.array([0, 1]), probabilities, ("a", "b"))
    scaled = predicted.with_probabilities(calibration.apply_temperature(probabilities, 20.0))
    assert scaled.predictions.tolist() == [0, 1] and scaled.probabilities.dtype == np.float32
    scaled = predicted.with_probabilities(calibration.apply_temperature(probabilities[:, ::-1], 20.0)[:, ::-1])
    assert scaled.predictions.tolist() == [0, 1]
    turned = ClassPredictions(np.array([2]), np.array([[1 / 3 - 1e-9, 1 / 3, 1 / 3 + 1e-9]]), ("a",))
    assert turned.with_probabilities(turned.probabilities).predictions.tolist() == [2]
