"""Models of maps beside each other: paired draws, swaps, and what cannot be compared."""

import csv
import json

import numpy as np
import pytest

from eo_keras.errors import LegendError, OptionError, RunError
from eo_keras.evaluation import comparison_page, segmentation_comparison_report
from eo_keras.metrics import segmentation_comparison
from eo_keras.metrics.segmentation import SegmentationScorer
from eo_keras.metrics.segmentation_comparison import DenseMember

NAMES = ("Other", "Residential", "Forest", "Water")


def truths(count, size=16, seed=0):
    """Maps of three of the four classes; some tiles are all of one class."""
    random = np.random.default_rng(seed)
    return [
        random.integers(0, 3, (size // 8, size // 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8) for _ in range(count)
    ]


def member(name, maps, error, seed=0, places=None, names=NAMES, **changes):
    """A member that errs about a share of the pixels, a different one in each tile, as much as others of its seed."""
    random, scorer = np.random.default_rng(seed), SegmentationScorer(names)
    for number, labels in enumerate(maps):
        # Tiles are hard or easy for all members alike.
        wrong = random.random(labels.shape) < error * random.uniform(0, 2)
        scorer.add(f"t{number}", labels, np.where(wrong, (labels + 1) % 3, labels).astype(np.uint8))
    scores = scorer.scores(resamples=50, places=places)
    content = {
        "model": "deeplab_resnet14",
        "bands": ["B04", "B03", "B02"],
        "model_sha256": name,
        "data_fingerprint": "d",
        "trained_on": "d",
        "dataset": "tiles",
        "split": "test",
        "output_stride": 16,
        "tta": "none",
        "selection": {"metric": "miou", "value": 0.5},
        "warnings": [],
        "scores": scores.to_json(),
    }
    return DenseMember(name, scorer, scores, content | changes, places)


def test_a_small_difference_on_the_same_tiles_is_shown():
    maps = truths(60)
    a, b = member("a", maps, 0.20), member("b", maps, 0.23)
    (one,) = segmentation_comparison.compare([a, b], resamples=1000).differences
    assert one.difference == pytest.approx(a.scores.macro_iou.value - b.scores.macro_iou.value)
    assert 0 < one.low < one.difference < one.high and one.method == "bootstrap"
    assert one.p_value == one.p_holm == 1 / 1001, "no swap of answers differs by as much"
    # Each one's own interval is far wider: tiles differ more than the models.
    assert one.high - one.low < 0.5 * (a.scores.macro_iou.high - a.scores.macro_iou.low)
    turned = segmentation_comparison.compare([b, a], resamples=1000).differences[0]
    assert (turned.low, turned.high) == (pytest.approx(-one.high), pytest.approx(-one.low))


def test_the_interval_is_that_of_the_same_draws_for_both():
    maps = truths(24)
    a, b = member("a", maps, 0.2), member("b", maps, 0.3, seed=7)
    (one,) = segmentation_comparison.compare([a, b], resamples=3000).differences
    sums, random, drawn = [member.scorer.by_place() for member in (a, b)], np.random.default_rng(3), []
    for _ in range(3000):
        tiles = random.integers(0, 24, 24)
        ious = []
        for each in sums:
            hits, true, predicted = each[tiles].sum(axis=0)[:3]
            ious.append(np.mean((hits / np.maximum(true + predicted - hits, 1))[true > 0]))
        drawn.append(ious[0] - ious[1])
    expected = np.percentile(drawn, [2.5, 97.5])
    np.testing.assert_allclose((one.low, one.high), expected, atol=0.08 * np.ptp(expected))


def test_equally_good_models_have_p_values_of_all_sizes():
    maps = truths(20)
    members = [member(f"m{n}", maps, 0.2, n) for n in range(7)]
    p_values = [one.p_value for one in segmentation_comparison.compare(members, resamples=100).differences]
    assert len(p_values) == 21 and np.mean(np.array(p_values) < 0.05) < 0.25
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.2)


def test_equal_answers_leave_a_difference_open():
    for count in (4, 30):
        maps = truths(count)
        (one,) = segmentation_comparison.compare(
            [member("a", maps, 0.2), member("b", maps, 0.2)], resamples=100
        ).differences
        assert (one.difference, one.p_value, one.method) == (0, 1, "MOVER")
        assert -one.low == pytest.approx(one.high, rel=0.5) and one.high > 0.05


def test_tiles_of_one_place_are_drawn_together():
    maps, names = truths(12), {f"t{number}": f"p{number % 12}" for number in range(36)}
    once = segmentation_comparison.compare(
        [member("a", maps, 0.2), member("b", maps, 0.3, 5)], resamples=500
    ).differences[0]

    def repeated(name, error, seed):
        scorer = SegmentationScorer(NAMES)
        single = member(name, maps, error, seed).scorer
        for number in range(36):
            scorer.sums[f"t{number}"] = single.sums[f"t{number % 12}"]
            scorer.confusion.matrix += 1
        return DenseMember(
            name, scorer, scorer.scores(resamples=10, places=names), member(name, maps, error).metrics, names
        )

    three = segmentation_comparison.compare([repeated("a", 0.2, 0), repeated("b", 0.3, 5)], resamples=500).differences[
        0
    ]
    assert three.high - three.low == pytest.approx(once.high - once.low, rel=0.4)


def test_what_cannot_be_compared():
    maps = truths(3)
    a = member("a", maps, 0.1)
    with pytest.raises(OptionError, match="two or more"):
        segmentation_comparison.compare([a, a])
    with pytest.raises(RunError, match="b: it lacks 1 of a's examples, first t2"):
        segmentation_comparison.compare([a, member("b", maps[:2], 0.1)])
    with pytest.raises(RunError, match="b: the true classes of 1 tiles are others than a's, first t0"):
        segmentation_comparison.compare([a, member("b", [(maps[0] + 1) % 3, *maps[1:]], 0.1)])
    with pytest.raises(LegendError, match="b: its classes are Water"):
        segmentation_comparison.compare([a, member("b", maps, 0.1, names=NAMES[::-1])])


def test_the_folder(tmp_path):
    maps = truths(20)
    members = [member("a", maps, 0.3), member("b", maps, 0.1, warnings=["look out"])]
    found = segmentation_comparison.compare(members, resamples=100)
    comparison_page.write(segmentation_comparison_report.report(found, "Two"), tmp_path / "c")
    content = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert content["best"] == "b" and content["differences"][0]["verdict"] == "b is better"
    assert (content["tiles"], content["places"], content["warnings"]) == (20, 20, ["b: look out"])
    with open(tmp_path / "c" / "comparison.csv") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["b", "a"] and rows["b"]["p_holm"] == ""
    assert float(rows["a"]["minus_best"]) == pytest.approx(found.differences[0].difference)
    assert float(rows["a"]["iou_Forest"]) == members[0].scores.classes[2].iou.value
    assert rows["a"]["iou_Water"] == "", "no tile holds water"
    assert "| Water | - | - |" in (tmp_path / "c" / "comparison.md").read_text()
    assert "data:image/png;base64," in (tmp_path / "c" / "comparison.html").read_text()
