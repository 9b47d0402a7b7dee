"""Scores of maps: equal to scikit-learn's, added up image by image, and strict about labels."""

import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from eo_keras.errors import EOKerasError, LegendError, OptionError
from eo_keras.metrics.confusion import confusion_matrix
from eo_keras.metrics.segmentation import SegmentationScorer

NAMES = ("Other", "Residential", "Industrial", "Forest")


def images(count=6, size=24, seed=1):
    random = np.random.default_rng(seed)
    for number in range(count):
        blocks = random.integers(0, 4, (size // 4, size // 4)).repeat(4, 0).repeat(4, 1)
        labels = blocks.astype(np.uint8)
        predictions = np.where(random.random(labels.shape) < 0.2, random.integers(0, 4, labels.shape), blocks)
        labels[random.random(labels.shape) < 0.1] = 255
        yield f"tile{number}", labels, predictions.astype(np.uint8)


def scorer_of(some, **options):
    scorer = SegmentationScorer(NAMES, **options)
    for one in some:
        scorer.add(*one)
    return scorer


def test_scores_are_scikit_learns():
    some = list(images())
    scores = scorer_of(some).scores(resamples=50)
    known = [labels != 255 for _, labels, _ in some]
    truth = np.concatenate([labels[k] for (_, labels, _), k in zip(some, known, strict=True)])
    predicted = np.concatenate([predictions[k] for (_, _, predictions), k in zip(some, known, strict=True)])
    iou = sklearn_metrics.jaccard_score(truth, predicted, average=None)
    assert [scores.value("iou", name) for name in NAMES] == pytest.approx(iou)
    assert scores["miou"].value == pytest.approx(iou.mean())
    share = np.bincount(truth) / len(truth)
    assert scores["frequency_weighted_iou"].value == pytest.approx((share * iou).sum())
    assert scores["accuracy"].value == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted))
    assert scores["kappa"].value == pytest.approx(sklearn_metrics.cohen_kappa_score(truth, predicted))
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(truth, predicted)
    for place, name in enumerate(NAMES):
        found = [scores.value(score, name) for score in ("precision", "recall", "f1")]
        assert found == pytest.approx([precision[place], recall[place], f1[place]])
        assert scores.by_class[name]["support"] == support[place]
    assert np.array_equal(scores.confusion, sklearn_metrics.confusion_matrix(truth, predicted))
    assert scores.count == len(truth) and scores.details["images"] == 6


def test_macro_means_leave_out_classes_without_a_pixel():
    labels = np.zeros((8, 8), np.uint8)
    labels[:4] = 1
    predictions = labels.copy()
    predictions[0] = 0
    scores = scorer_of([("a", labels, predictions)]).scores(resamples=10)
    assert scores.by_class["Industrial"]["iou"] is None and scores.by_class["Forest"]["iou"] is None
    assert scores.details["averaged_classes"] == 2
    assert scores["miou"].value == pytest.approx((32 / 40 + 24 / 32) / 2)


def test_intervals_are_over_images_and_repeat_by_seed():
    scorer = scorer_of(images(20))
    scores = scorer.scores(resamples=500, seed=3)
    mean = scores["miou"]
    assert mean.low < mean.value < mean.high
    assert scorer.scores(resamples=500, seed=3) == scores
    assert scorer.scores(resamples=500, seed=4) != scores
    # Many more pixels of the same images say nothing more: the interval is as wide.
    copies = SegmentationScorer(NAMES)
    for key, labels, predictions in images(20):
        copies.add(key, labels.repeat(3, 0).repeat(3, 1), predictions.repeat(3, 0).repeat(3, 1))
    wider = copies.scores(resamples=500, seed=3)["miou"]
    assert (wider.high - wider.low) == pytest.approx(mean.high - mean.low, rel=1e-6)


def test_few_or_perfect_images_have_an_interval_with_width():
    single = scorer_of(images(1)).scores(resamples=20)["miou"]
    assert single.method == "Wilson score" and single.low < 0.3 < single.value < single.high
    perfect = scorer_of((key, labels, np.where(labels == 255, 0, labels)) for key, labels, _ in images(40))
    scores = perfect.scores(resamples=20)
    found = [scores["miou"], scores["accuracy"], scores["boundary_f1_1"], scores.by_class["Residential"]["recall"]]
    for one in found:
        assert (one.value, one.high, one.method) == (1, 1, "Wilson score")
        assert one.low == pytest.approx(1 / (1 + 1.959963985**2 / 40))
    # Kappa's lower end is that of the accuracy, seen from what chance gives, about a quarter of four classes.
    assert scores["kappa"].low == pytest.approx(1 - (1 - scores["accuracy"].low) / 0.75, abs=0.01)
    assert scorer_of(images(20)).scores(resamples=20)["miou"].method == "bootstrap"


def test_images_of_one_place_are_drawn_together():
    some = list(images(12))
    several = [(f"{key}-{date}", *both) for key, *both in some for date in range(3)]
    once = scorer_of(some).scores(resamples=300)
    places = {key: key.rpartition("-")[0] for key, *_ in several}
    grouped = scorer_of(several).scores(resamples=300, places=places)
    assert (grouped.details["images"], grouped.details["places"], once.details["places"]) == (36, 12, 12)
    assert (grouped["miou"].low, grouped["miou"].high) == pytest.approx((once["miou"].low, once["miou"].high))
    apart = scorer_of(several).scores(resamples=300)["miou"]
    assert apart.high - apart.low < 0.75 * (once["miou"].high - once["miou"].low)


def test_intervals_are_those_of_resampled_images():
    """The slow way: draw images, add up their matrices, score them."""
    some = list(images(12, seed=5))
    scores = scorer_of(some).scores(resamples=4000, seed=1)
    matrices = np.stack([confusion_matrix(labels, predictions, 4, ignore=255) for _, labels, predictions in some])
    random = np.random.default_rng(9)
    means = []
    for _ in range(4000):
        drawn = matrices[random.integers(0, 12, 12)].sum(0)
        hits = np.diag(drawn)
        means.append((hits / (drawn.sum(0) + drawn.sum(1) - hits)).mean())
    low, high = np.percentile(means, [2.5, 97.5])
    width = high - low
    assert scores["miou"].low == pytest.approx(low, abs=0.08 * width)
    assert scores["miou"].high == pytest.approx(high, abs=0.08 * width)


@pytest.mark.parametrize("seed", range(12))
def test_few_resamples_may_miss_a_class(seed):
    some = [(f"a{number}", np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)) for number in range(4)]
    some.append(("b", np.full((4, 4), 2, np.uint8), np.full((4, 4), 2, np.uint8)))
    scores = scorer_of(some).scores(resamples=1, seed=seed)
    few = scores.by_class["Industrial"]
    assert few["iou"].high == scores["miou"].value == 1 > few["iou"].low


def test_scorers_of_parts_add_up_in_any_order():
    some = list(images())
    whole, first, second = scorer_of(some), scorer_of(some[:2]), scorer_of(some[:1:-1])
    second.merge(first)
    assert second.scores(resamples=100) == whole.scores(resamples=100)
    with pytest.raises(EOKerasError, match="scored already"):
        second.merge(first)
    with pytest.raises(LegendError, match="the classes a, b"):
        second.merge(SegmentationScorer(("a", "b")))
    for options in ({"tolerances": (5,)}, {"width": 4}, {"object_class": "Forest"}):
        with pytest.raises(OptionError, match=f"^{next(iter(options))}: "):
            second.merge(SegmentationScorer(NAMES, **options))
    with pytest.raises(OptionError, match="rows"):
        SegmentationScorer(NAMES, tolerances=()).merge(SegmentationScorer(NAMES, areas_only=True))


@pytest.mark.parametrize(("label", "prediction"), [(4, 0), (254, 0), (0, 4), (0, 255)])
def test_numbers_outside_the_legend_are_errors(label, prediction):
    labels, predictions = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    labels[1, 1], predictions[1, 1] = label, prediction
    with pytest.raises(LegendError, match="1 of 16 (labels|predictions) are outside the legend"):
        SegmentationScorer(NAMES).add("a", labels, predictions)


def test_other_types_shapes_and_options_are_errors():
    scorer = SegmentationScorer(NAMES)
    with pytest.raises(LegendError, match="a: labels are float64"):
        scorer.add("a", np.zeros((2, 2)), np.zeros((2, 2), int))
    with pytest.raises(LegendError, match="labels are outside the legend, such as -1; expected 0..3, or 255 where"):
        scorer.add("a", np.full((2, 2), -1), np.zeros((2, 2), int))
    with pytest.raises(ValueError, match="a: labels have shape"):
        scorer.add("a", np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(OptionError, match="class_names: 256 of them"):
        SegmentationScorer("x" * 256)
    with pytest.raises(OptionError, match="which is no class"):
        SegmentationScorer(NAMES, ignore=3)
    with pytest.raises(EOKerasError, match="without a labeled pixel"):
        scorer_of([("a", np.full((3, 3), 255, np.uint8), np.zeros((3, 3), np.uint8))]).scores()


def test_predictions_where_the_truth_is_unknown_do_not_count():
    labels, predictions = np.full((4, 4), 255, np.uint8), np.full((4, 4), 3, np.uint8)
    labels[0], predictions[0] = 1, 1
    scores = scorer_of([("a", labels, predictions)]).scores(resamples=5)
    assert scores["miou"].value == 1 and scores.by_class["Forest"]["iou"] is None


def test_boundaries_may_be_off_by_the_tolerance():
    def half(column):
        labels = np.zeros((20, 20), np.uint8)
        labels[:, column:] = 1
        return labels

    def f1(off):
        scores = scorer_of([("a", half(10), half(10 + off))], tolerances=(0, 2, 5.5)).scores(resamples=5)
        by_class = {name: scores.value(name, "Residential") for name in scores.overall if "f1_" in name}
        assert by_class == {name: scores.value(name) for name in by_class}
        return by_class

    assert f1(0) == {"boundary_f1_0": 1, "boundary_f1_2": 1, "boundary_f1_5.5": 1}
    assert f1(2) == {"boundary_f1_0": 0, "boundary_f1_2": 1, "boundary_f1_5.5": 1}
    assert set(f1(6).values()) == {0}
    assert scorer_of([("a", half(0), half(0))]).scores(resamples=5)["boundary_f1_3"] is None


def test_boundary_iou_is_of_regions_of_some_width():
    labels, predictions = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    labels[:, 10:], predictions[:, 11:] = 1, 1
    # 2 % of the diagonal is less than a pixel, and a region has at least one: column 9 or 10, and 10 or 11.
    assert scorer_of([("a", labels, predictions)]).scores(resamples=5)["boundary_iou"].value == 0
    scores = scorer_of([("a", labels, predictions)], width=4).scores(resamples=5)
    assert scores["boundary_iou_4"].value == pytest.approx(3 / 5) == scores.value("boundary_iou_4", "Other")
    assert scores.details["boundary_width"] == 4 and "boundary_iou" not in scores.overall


def test_objects_are_of_one_class():
    labels, predictions = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    labels[2:6, 2:6], labels[10:14, 2:6], labels[2:6, 12:16] = 1, 1, 2
    predictions[2:6, 2:6], predictions[2:6, 12:16] = 1, 2
    some = [(str(number), labels, predictions) for number in range(3)]
    assert "object_f1" not in scorer_of(some).scores(resamples=5).overall
    scores = scorer_of(some, object_class="Residential").scores(resamples=5)
    assert [scores.value(f"object_{name}") for name in ("precision", "recall", "f1")] == [1, 0.5, pytest.approx(2 / 3)]
    assert scores["object_recall"].low < 0.5 < scores["object_recall"].high
    assert scores.details["object_class"] == "Residential"
    nothing = scorer_of(some, object_class="Forest").scores(resamples=5)
    assert [nothing[f"object_{name}"] for name in ("precision", "recall", "f1")] == [None] * 3
    two = SegmentationScorer(("Land", "Flood"))
    assert (two.object_class, SegmentationScorer(("Land", "Flood"), object_class="Land").object_class) == (
        "Flood",
        "Land",
    )
    with pytest.raises(OptionError, match="object_class: 'Water'; expected one of Land, Flood"):
        SegmentationScorer(("Land", "Flood"), object_class="Water")
    assert SegmentationScorer(("Land", "Flood"), areas_only=True).rows == ("correct", "true", "predicted")


def test_boundaries_of_unknown_truth_do_not_count():
    labels = np.zeros((20, 20), np.uint8)
    labels[:, 10:] = 1
    predictions = labels.copy()
    predictions[4:8, 2:6] = 2  # Invented, but where nothing is known.
    labels[2:10, 0:8] = 255
    scores = scorer_of([("a", labels, predictions)]).scores(resamples=5)
    assert scores["boundary_f1_1"].value == scores["boundary_iou"].value == 1


def test_scores_are_written_as_they_are_read():
    content = scorer_of(images(3)).scores(resamples=20).to_json()
    assert json.loads(json.dumps(content)) == content


def test_a_class_that_is_only_predicted_has_no_score_of_its_own():
    labels, predictions = np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint8)
    predictions[0, 0] = 1
    scores = scorer_of([("a", labels, predictions)]).scores(resamples=3)
    of_boundaries = ("boundary_f1_1", "boundary_f1_3", "boundary_f1_5", "boundary_iou")
    undefined = dict.fromkeys(("iou", "precision", "recall", "f1", *of_boundaries))
    assert scores.by_class["Residential"] == {"support": 0, "predicted": 1} | undefined
    # The pixel is missed by the class that it is of.
    assert scores["miou"].value == scores["frequency_weighted_iou"].value == pytest.approx(7 / 8)


def test_a_class_that_is_never_predicted_has_no_precision():
    labels = np.zeros((2, 4), np.uint8)
    labels[0] = 1
    found = scorer_of([("a", labels, np.zeros((2, 4), np.uint8))]).scores(resamples=3).by_class["Residential"]
    assert found["precision"] is None and [found[name].value for name in ("recall", "f1", "iou")] == [0, 0, 0]


def test_one_class_everywhere_has_no_kappa():
    labels = np.zeros((3, 3), np.uint8)
    scores = scorer_of([("a", labels, labels)]).scores(resamples=3)
    assert (scores["kappa"], scores.value("accuracy")) == (None, 1)


def test_counts_beyond_32_bits_and_many_classes():
    scorer = SegmentationScorer([f"c{number}" for number in range(255)])
    scorer.confusion[254, 254] = 2**40
    labels = np.full((4, 4), 254, np.uint8)
    labels[0] = 255
    scorer.add("a", labels, np.full((4, 4), 254, np.int64))
    assert scorer.confusion[254, 254] == 2**40 + 12 and scorer.confusion.dtype == np.int64
