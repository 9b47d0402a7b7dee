"""Paired outcomes: McNemar's test by hand, paired draws and swaps of places against slow ones."""

import dataclasses
import math

import numpy as np
import pytest

from eo_keras.metrics import outcomes
from eo_keras.metrics.outcomes import ExampleOutcomes, PlaceOutcomes
from eo_keras.metrics.segmentation import SegmentationScorer

NAMES = ("Other", "Residential", "Forest", "Water")


def truths(count, size=16, seed=0):
    """Masks of three of the four classes; some tiles are all of one class."""
    random = np.random.default_rng(seed)
    return [
        random.integers(0, 3, (size // 8, size // 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8) for _ in range(count)
    ]


def scored(masks, error, seed=0, names=NAMES, places=None, **options):
    """A model that errs about a share of the pixels, a different one in each tile, as much as others of its seed.

    Returns:
        Its scores and its outcomes.
    """
    random, scorer = np.random.default_rng(seed), SegmentationScorer(names)
    for number, labels in enumerate(masks):
        # Tiles are hard or easy for all models alike.
        incorrect = random.random(labels.shape) < error * random.uniform(0, 2)
        scorer.add(f"t{number}", labels, np.where(incorrect, (labels + 1) % 3, labels).astype(np.uint8))
    return scorer.scores(resamples=50, places=places), PlaceOutcomes.of(scorer, places, **options)


def paired(first, second):
    return first[1].paired(first[1].aligned(second[1]), first[0].overall, second[0].overall)["miou"]


def test_estimates_are_the_scores_of_the_tiles_and_others_may_be_compared():
    masks = np.random.default_rng(7).integers(0, 3, (12, 16, 16)).astype(np.uint8)
    first, second = (scored(masks, error, seed, resamples=50) for seed, error in enumerate((0.1, 0.6)))
    found = first[1].estimates()
    assert found["miou"] == first[0]["miou"] and found["boundary_f1_3"] == first[0]["boundary_f1_3"]

    def recall(sums, rows):
        return {"recall": sums[..., rows.index("correct"), 2] / sums[..., rows.index("true"), 2]}

    one, other = (dataclasses.replace(outcome, compared=recall) for _, outcome in (first, second))
    estimates = one.estimates()["recall"], other.estimates()["recall"]
    pair = one.paired(other, {"recall": estimates[0]}, {"recall": estimates[1]})
    assert list(pair) == ["recall"] and pair["recall"].p_value < 0.05
    assert estimates[0].value == first[0].by_class[NAMES[2]]["recall"].value
    assert pair["recall"].difference.value == estimates[0].value - estimates[1].value > 0


def test_mcnemar_by_hand():
    # P(X <= 2) of 10 throws of a coin: (1 + 10 + 45) / 1024, on both sides.
    assert outcomes.mcnemar(2, 8) == outcomes.mcnemar(8, 2) == pytest.approx(2 * 56 / 1024)
    assert outcomes.mcnemar(0, 5) == pytest.approx(2 / 32)
    assert outcomes.mcnemar(0, 0) == outcomes.mcnemar(7, 7) == outcomes.mcnemar(4, 5) == 1.0
    by_hand = 2 * sum(math.comb(300, k) for k in range(121)) / 2**300
    assert outcomes.mcnemar(120, 180) == pytest.approx(by_hand)
    assert 0 <= outcomes.mcnemar(10, 20_000) < 1e-300


def test_examples_are_aligned_by_key():
    first = ExampleOutcomes(("a", "b", "c"), np.array([0, 1, 2]), np.array([True, False, True]))
    second = ExampleOutcomes(("c", "a", "b"), np.array([2, 0, 1]), np.array([False, True, True]))
    aligned = first.aligned(second)
    assert aligned.keys == first.keys and aligned.truth.tolist() == [0, 1, 2]
    assert aligned.correct.tolist() == [True, True, False]
    found = first.paired(aligned)["accuracy"]
    assert (found.difference.value, found.only_first_correct, found.only_second_correct) == (0, 1, 1)
    assert found.difference.low == pytest.approx(-found.difference.high) and found.difference.method == "Tango score"


def test_a_small_difference_on_the_same_tiles_is_shown():
    masks = truths(60)
    a, b = scored(masks, 0.20, resamples=1000), scored(masks, 0.23)
    one = paired(a, b)
    assert one.difference.value == pytest.approx(a[0].value("miou") - b[0].value("miou"))
    assert 0 < one.difference.low < one.difference.value < one.difference.high
    assert one.difference.method == "bootstrap"
    assert one.p_value == 1 / 1001, "no swap of predictions differs by as much"
    # Each one's own interval is far wider: tiles differ more than the models.
    own = a[0]["miou"]
    assert one.difference.high - one.difference.low < 0.5 * (own.high - own.low)
    turned = paired(scored(masks, 0.23, resamples=1000), scored(masks, 0.20)).difference
    assert turned.ends == (pytest.approx(-one.difference.high), pytest.approx(-one.difference.low))


def test_boundaries_are_compared_too():
    masks = truths(40)

    def moved(columns):
        scorer = SegmentationScorer(NAMES, width=2, object_class="Forest")
        for number, labels in enumerate(masks):
            scorer.add(f"t{number}", labels, np.roll(labels, columns, axis=1))
        return scorer.scores(resamples=50), PlaceOutcomes.of(scorer, resamples=200)

    (near, a), (far, b) = moved(1), moved(2)
    found = a.paired(a.aligned(b), near.overall, far.overall)
    assert list(found) == ["miou", *(f"boundary_f1_{t}" for t in (1, 3, 5)), "boundary_iou_2", "object_f1"]
    for name in ("miou", "boundary_f1_1", "boundary_iou_2"):
        one = found[name]
        assert one.difference.value == pytest.approx(near.value(name) - far.value(name)) and one.difference.low > 0.03
        assert one.p_value == 1 / 201
    # Within three pixels both are right wherever the roll brings no other class in.
    assert abs(found["boundary_f1_5"].difference.value) < 0.1
    # Objects of another class have other truths, and regions of another width are others.
    scorer = SegmentationScorer(NAMES, object_class="Residential", tolerances=(3,))
    for number, labels in enumerate(masks):
        scorer.add(f"t{number}", labels, labels)
    its, c = scorer.scores(resamples=20), PlaceOutcomes.of(scorer, resamples=200)
    assert list(a.paired(a.aligned(c), near.overall, its.overall)) == ["miou", "boundary_f1_3"]


def test_the_interval_is_that_of_the_same_draws_for_both():
    masks = truths(24)
    a, b = scored(masks, 0.2, resamples=3000), scored(masks, 0.3, seed=7)
    one = paired(a, b).difference
    random, drawn = np.random.default_rng(3), []
    for _ in range(3000):
        tiles = random.integers(0, 24, 24)
        ious = []
        for _, each in (a, b):
            hits, true, predicted = each.sums[tiles].sum(axis=0)[:3]
            ious.append(np.mean((hits / np.maximum(true + predicted - hits, 1))[true > 0]))
        drawn.append(ious[0] - ious[1])
    expected = np.percentile(drawn, [2.5, 97.5])
    np.testing.assert_allclose(one.ends, expected, atol=0.08 * np.ptp(expected))


def test_equally_good_models_have_p_values_of_all_sizes():
    masks = truths(20)
    models = [scored(masks, 0.2, n, resamples=100) for n in range(7)]
    p_values = [paired(models[i], models[j]).p_value for i in range(7) for j in range(i)]
    assert np.mean(np.array(p_values) < 0.05) < 0.25
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("count", [4, 30])
def test_equal_predictions_leave_a_difference_open(count):
    masks = truths(count)
    one = paired(scored(masks, 0.2, resamples=100), scored(masks, 0.2))
    assert (one.difference.value, one.p_value, one.difference.method) == (0, 1, "MOVER")
    assert -one.difference.low == pytest.approx(one.difference.high, rel=0.5) and one.difference.high > 0.05


def test_tiles_of_one_place_are_drawn_together():
    masks = truths(12)
    once = paired(scored(masks, 0.2, resamples=500), scored(masks, 0.3, 5)).difference
    keys, places = tuple(f"t{number}" for number in range(36)), {f"t{n}": f"p{n % 12}" for n in range(36)}

    def repeated(error, seed):
        scores, single = scored(masks, error, seed)
        sums = np.concatenate([single.sums] * 3)
        return scores, PlaceOutcomes(keys, sums, single.rows, places, resamples=500)

    three = paired(repeated(0.2, 0), repeated(0.3, 5)).difference
    assert three.high - three.low == pytest.approx(once.high - once.low, rel=0.4)
