"""Scores of patches, against scikit-learn, a slow bootstrap, and values worked out by hand."""

import json
import warnings

import numpy as np
import pytest
import sklearn.metrics

from eo_keras import errors
from eo_keras.metrics import classification as metrics
from eo_keras.metrics.confusion import confusion_matrix
from eo_keras.metrics.scores import ReliabilityBin

NAMES = tuple("abcdefghij")


def _random_case(seed, count=700, used=8, classes=10):
    """Unbalanced data in which the last classes do not occur in the labels and the last one hardly in predictions."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, used + 1, dtype=np.float64) ** 2
    labels = rng.choice(used, size=count, p=shares / shares.sum())
    logits = rng.normal(size=(count, classes)) * 1.5
    logits[np.arange(count), labels] += 2
    logits[:, -1] -= 50  # Neither in the labels nor in the predictions.
    probabilities = np.exp(logits)
    return labels, (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_learn(seed):
    labels, probabilities = _random_case(seed)
    predictions = probabilities.argmax(axis=1)
    assert 8 in predictions and 9 not in predictions, "The case should hold a class that is only predicted."
    scores = metrics.score_classification(labels, probabilities, NAMES)

    assert scores.count == 700
    assert scores.value("accuracy") == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions), abs=1e-12)
    assert scores.value("kappa") == pytest.approx(sklearn.metrics.cohen_kappa_score(labels, predictions), abs=1e-12)
    # Over the eight classes that have examples; the ninth is only predicted, the tenth not even that.
    macro = sklearn.metrics.f1_score(labels, predictions, labels=range(8), average="macro")
    assert scores.value("macro_f1") == pytest.approx(macro, abs=1e-12) and scores.details["averaged_classes"] == 8
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(8), zero_division=np.nan
    )
    assert scores.class_names == NAMES
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        found = [scores.value(name, each) for each in NAMES[:8]]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert [each["support"] for each in scores.by_class.values()] == [*support.tolist(), 0, 0]
    for absent in NAMES[8:]:
        assert [scores.by_class[absent][name] for name in ("precision", "recall", "f1")] == [None] * 3
    assert scores.by_class["i"]["predicted"] > 0 and scores.by_class["j"]["predicted"] == 0
    expected = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(10))
    np.testing.assert_array_equal(scores.confusion, expected)


def test_confusion_has_true_rows_and_predicted_columns():
    matrix = confusion_matrix([0, 0, 2], [0, 1, 1], 3)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 0, 0], [0, 1, 0]])


def test_confusion_of_narrow_label_maps_does_not_overflow():
    labels = np.full((4, 4), 199, np.uint8)
    matrix = confusion_matrix(labels, labels, 200)
    assert matrix[199, 199] == 16 and matrix.sum() == 16


def test_confusion_of_nothing_is_zero():
    np.testing.assert_array_equal(confusion_matrix([], [], 2), np.zeros((2, 2)))


@pytest.mark.parametrize(
    "labels, predictions", [([0, 3], [0, 0]), ([0, 0], [0, 3]), ([-1, 0], [0, 0]), ([0, 0], [0, -1])]
)
def test_confusion_refuses_what_is_outside_the_legend(labels, predictions):
    with pytest.raises(
        errors.LegendError, match=r"1 of 2 (labels|predictions) are outside .* such as (3|-1); .*0\.\.2"
    ):
        confusion_matrix(labels, predictions, 3)


def test_confusion_refuses_fractions_and_unequal_shapes():
    with pytest.raises(errors.LegendError, match="float64"):
        confusion_matrix([0.5], [0], 3)
    with pytest.raises(ValueError, match="shape"):
        confusion_matrix([0, 1], [0], 3)


def test_calibration_error_by_hand():
    # Two bins. (0.5, 1]: confidences 0.8, 0.6, 1.0, of which two are right: |2/3 - 0.8|. (0, 0.5]: 0.5, wrong: 0.5.
    # ECE = 3/4 * (0.8 - 2/3) + 1/4 * 0.5 = 0.1 + 0.125.
    probabilities = [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0, 0, 1], [0.5, 0.25, 0.25]]
    scores = metrics.score_classification([0, 1, 1, 2], probabilities, "xyz", bins=2)
    low, high = scores.reliability
    assert low == ReliabilityBin(0.0, 0.5, 1, 0.5, 0.0)
    assert (high.lower, high.upper, high.count) == (0.5, 1.0, 3)
    assert high.confidence == pytest.approx(0.8) and high.accuracy == pytest.approx(2 / 3)
    assert scores.value("expected_calibration_error") == pytest.approx(0.225, abs=1e-12)


def test_perfect_prediction():
    labels = np.array([0, 1, 2, 2])
    scores = metrics.score_classification(labels, np.eye(3)[labels], "xyz")
    accuracy = scores["accuracy"]
    assert accuracy.value == accuracy.high == 1.0
    assert accuracy.low == pytest.approx(1 / (1 + 1.959963985**2 / 4)), "four examples leave much open"
    assert [scores.value(name) for name in ("macro_f1", "kappa", "expected_calibration_error")] == [1.0, 1.0, 0.0]
    assert scores["macro_f1"].ends == accuracy.ends and scores["macro_f1"].method == "Wilson score"
    assert scores["kappa"].low < accuracy.low and scores["kappa"].high == 1.0


def test_calibrated_predictions_have_almost_no_calibration_error_and_overconfident_ones_have_much():
    rng = np.random.default_rng(3)
    top = rng.uniform(0.5, 1.0, size=50_000)
    labels = (rng.uniform(size=top.size) >= top).astype(np.int64)
    calibrated = metrics.score_classification(labels, np.stack([top, 1 - top], axis=1), "xy")
    assert calibrated.value("expected_calibration_error") < 0.01
    sure = np.tile([0.999, 0.001], (top.size, 1))
    overconfident = metrics.score_classification(labels, sure, "xy")
    assert overconfident.value("expected_calibration_error") == pytest.approx(
        0.999 - calibrated.value("accuracy"), abs=1e-9
    )


def test_confidence_slightly_over_one_is_in_the_last_bin():
    scores = metrics.score_classification([0], [[1.0005, 0.0]], "xy")
    assert scores.reliability[-1].count == 1 and scores.value("expected_calibration_error") == 0.0


def _scores_of_accuracy(right, count, **keywords):
    labels = np.zeros(count, np.int64)
    predictions = (np.arange(count) >= right).astype(np.int64)
    return metrics.score_classification(labels, np.eye(2)[predictions], "xy", **keywords)


def test_intervals_are_wilsons_and_named():
    scores = _scores_of_accuracy(81, 263)
    # Newcombe 1998, Statistics in Medicine 17(8), table I: 81 of 263.
    assert scores["accuracy"].ends == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert scores["accuracy"].method == "Wilson score"
    found = scores.by_class["x"]
    assert found["recall"] == scores["accuracy"]
    assert found["precision"].value == 1 and found["precision"].high == 1 > 0.96 > found["precision"].low > 0.95


@pytest.mark.parametrize("right", [0, 8])
def test_few_examples_all_alike_have_a_wide_interval(right):
    scores = _scores_of_accuracy(right, 8)
    accuracy = scores["accuracy"]
    assert accuracy.high - accuracy.low == pytest.approx(0.3244, abs=5e-5)
    assert accuracy.value in accuracy.ends


def test_one_class_only_has_no_kappa():
    scores = metrics.score_classification([1, 1], [[0.2, 0.8], [0.1, 0.9]], "xy")
    assert scores["kappa"] is None and scores.value("macro_f1") == scores.value("accuracy") == 1.0
    assert scores.by_class["x"] == {"support": 0, "predicted": 0, "precision": None, "recall": None, "f1": None}
    content = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert content["scores"]["kappa"] is None and content["by_class"]["x"]["recall"] is None


def test_a_class_that_is_never_predicted_has_no_precision():
    scores = metrics.score_classification([0, 1], [[1, 0], [1, 0]], "xy")
    assert scores.by_class["y"]["precision"] is None
    assert (scores.value("recall", "y"), scores.value("f1", "y")) == (0, 0)


def test_intervals_of_f1_are_those_of_resampled_examples():
    """The slow way: draw examples, and score them."""
    labels, probabilities = _random_case(1, count=400)
    scores = metrics.score_classification(labels, probabilities, NAMES, resamples=4000, seed=2)
    predictions, random = probabilities.argmax(axis=1), np.random.default_rng(7)
    macro, of_class = [], []
    for _ in range(1500):
        drawn = random.integers(0, 400, 400)
        f1 = sklearn.metrics.f1_score(labels[drawn], predictions[drawn], labels=range(8), average=None, zero_division=0)
        macro.append(f1[np.unique(labels[drawn])].mean())
        of_class.append(f1[7])
    for found, slow in ((scores["macro_f1"], macro), (scores.by_class["h"]["f1"], of_class)):
        low, high = np.percentile(slow, [2.5, 97.5])
        assert found.ends == (pytest.approx(low, abs=0.1 * (high - low)), pytest.approx(high, abs=0.1 * (high - low)))
        assert found.method == "bootstrap"
    again = metrics.score_classification(labels, probabilities, NAMES, resamples=4000, seed=2)
    assert again == scores


def test_kappas_interval_follows_the_accuracys():
    labels, probabilities = _random_case(3)
    scores = metrics.score_classification(labels, probabilities, NAMES)
    predictions = probabilities.argmax(axis=1)
    by_chance = sum((labels == k).mean() * (predictions == k).mean() for k in range(10))
    ends = [(end - by_chance) / (1 - by_chance) for end in scores["accuracy"].ends]
    assert scores["kappa"].ends == pytest.approx(tuple(ends)) and scores["kappa"].method == "Wilson score"


@pytest.mark.parametrize(
    "bad", [[np.nan, 1.0], [np.inf, 0.0], [0.6, 0.6], [0.3, 0.3], [1.5, -0.5], [np.inf, -np.inf]], ids=str
)
def test_first_bad_row_is_named(bad):
    with pytest.raises(errors.EOKerasError, match=r"row 2: .*expected finite numbers.*2 of 4 rows"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            metrics.score_classification([0, 0, 0, 1], [[1, 0], [0.5, 0.5], bad, bad], "xy")


def test_rounded_probabilities_are_accepted():
    metrics.score_classification([0], np.array([[0.3333, 0.3333, 0.3330]], np.float16), "xyz")


def test_other_bad_input_is_refused():
    good = [[0.5, 0.5]]
    with pytest.raises(errors.EOKerasError, match="there are none"):
        metrics.score_classification(np.zeros(0, np.int64), np.zeros((0, 2)), "xy")
    with pytest.raises(errors.LegendError, match="2 columns; expected the legend's 3 classes"):
        metrics.score_classification([0], good, "xyz")
    with pytest.raises(errors.LegendError, match="labels: 1 of 1 labels are outside the legend, such as 2"):
        metrics.score_classification([2], good, "xy")
    with pytest.raises(ValueError, match="shapes"):
        metrics.score_classification([0, 1], good, "xy")
    with pytest.raises(errors.OptionError, match="bins"):
        metrics.score_classification([0], good, "xy", bins=0)
    with pytest.raises(errors.OptionError, match="resamples"):
        metrics.score_classification([0], good, "xy", resamples=0)
