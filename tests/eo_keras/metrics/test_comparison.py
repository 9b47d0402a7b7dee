"""Comparisons of runs of either task: what is joined, what is refused, and the report."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from eo_keras.errors import LegendError, OptionError, RunError
from eo_keras.evaluation import comparison_report
from eo_keras.metrics import calibration, comparison, outcomes, selective
from eo_keras.metrics import classification as metrics
from eo_keras.metrics.comparison import EvaluatedRun
from eo_keras.metrics.outcomes import ExampleOutcomes, PlaceOutcomes
from eo_keras.metrics.predictions import ClassPredictions
from eo_keras.metrics.scores import Scores
from eo_keras.metrics.segmentation import SegmentationScorer

NAMES = ("Forest", "River", "SeaLake")


def predicted(labels, predictions, keys=None):
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    probabilities = np.full((len(labels), len(NAMES)), 0.1)
    probabilities[np.arange(len(labels)), predictions] = 0.8
    return ClassPredictions(labels, probabilities, tuple(keys or (f"k{n}" for n in range(len(labels)))))


def evaluated(name, scores, found, **changes):
    """A run with the entries of `metrics.json` that a comparison reads."""
    content = {
        "model": "resnet14",
        "bands": ["B04"],
        "model_sha256": name,
        "data_fingerprint": "d",
        "trained_on": "d",
        "dataset": "eurosat_rgb",
        "split": "test",
        "tta": "none",
        "selection": {"metric": scores.primary, "value": 0.9},
        "warnings": [],
        **scores.to_json(),
    }
    return EvaluatedRun(name, content | changes, Scores.read(content | changes), found)


def member(name, labels, predictions, keys=None, **changes):
    """A classifier with these predictions."""
    found = predicted(labels, predictions, keys)
    sections = {
        "calibration": calibration.to_json(None, found.labels, found.probabilities, "none"),
        "selective": selective.risk_coverage(found.confidences, found.correct).to_json(),
    }
    scores = metrics.score_classification(found.labels, found.probabilities, NAMES, resamples=50)
    return evaluated(name, scores, ExampleOutcomes.of(found), **sections, **changes)


def masked(name, masks, error, names=(*NAMES, "Glacier"), **changes):
    """A segmentation model that errs about a share of the pixels of the masks of three classes."""
    random, scorer = np.random.default_rng(0), SegmentationScorer(names)
    for number, labels in enumerate(masks):
        incorrect = random.random(labels.shape) < error
        scorer.add(f"t{number}", labels, np.where(incorrect, (labels + 1) % 3, labels).astype(np.uint8))
    scores, found = scorer.scores(resamples=50), PlaceOutcomes.of(scorer, resamples=100)
    return evaluated(name, scores, found, output_stride=16, **changes)


def test_holm_by_hand():
    assert comparison.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparison.holm([0.6, 0.9]) == [1.0, 1.0] and comparison.holm([0.2]) == [0.2] and comparison.holm([]) == []


@pytest.fixture
def three():
    """Three members: b has the examples in another order than a, and c is the best."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    keys = [f"k{n}" for n in range(200)]

    def predictions(rate):
        return np.where(rng.random(200) < rate, labels, (labels + 1) % 3)

    order = rng.permutation(200)
    a, c = predictions(0.7), predictions(0.95)
    number = np.arange(200)
    b = np.where(number % 25 == 0, labels, np.where(number % 25 == 12, (labels + 2) % 3, a))
    right = {"a": a == labels, "b": b == labels, "c": c == labels}
    shuffled = member("b", labels[order], b[order], [keys[n] for n in order])
    return [member("a", labels, a, keys), shuffled, member("c", labels, c, keys)], right


def test_examples_are_joined_by_key(three):
    members, right = three
    found = comparison.compare(members)
    assert [(one.first, one.second) for one in found.differences] == [("a", "b"), ("a", "c"), ("b", "c")]
    for one in found.differences:
        first, second = right[one.first], right[one.second]
        assert one.difference == pytest.approx(first.mean() - second.mean())
        assert (one.only_first_correct, one.only_second_correct) == ((first & ~second).sum(), (second & ~first).sum())
        assert one.low <= one.difference <= one.high
        assert one.p_value == outcomes.mcnemar(one.only_first_correct, one.only_second_correct) <= one.p_holm
    assert found.ranked[0].name == "c" and len(found.outcomes.keys) == 200 and found.warnings == ()
    turned = found.between("c", "a")
    assert turned.difference == -found.differences[1].difference and turned.low == -found.differences[1].high
    assert turned.only_first_correct == found.differences[1].only_second_correct


def test_verdicts(three):
    found = comparison.compare(three[0])
    assert comparison_report.verdict(found.between("c", "a")) == "c is better"
    assert comparison_report.verdict(found.between("a", "c")) == "c is better"
    assert comparison_report.verdict(found.between("a", "b")) == "no difference shown"
    same = comparison.compare([three[0][0], dataclasses.replace(three[0][0], name="same")])
    assert comparison_report.verdict(same.differences[0]) == "no difference shown"


def test_what_cannot_be_compared():
    a = member("a", [0, 1, 2], [0, 1, 2])
    with pytest.raises(OptionError, match="two or more"):
        comparison.compare([a])
    with pytest.raises(OptionError, match="two or more"):
        comparison.compare([a, a])
    with pytest.raises(RunError, match="b: it lacks 1 of a's examples, first k2; expected the same 3"):
        comparison.compare([a, member("b", [0, 1], [0, 1])])
    with pytest.raises(
        RunError, match="b: it lacks 1 of a's examples, first k2 and it was evaluated on 2 others, first x"
    ):
        comparison.compare([a, member("b", [0, 1, 2, 2], [0, 1, 2, 2], ["k0", "k1", "x", "y"])])
    with pytest.raises(RunError, match="b: the true classes of 1 examples are others than a's, first k1"):
        comparison.compare([a, member("b", [0, 2, 2], [0, 1, 2])])
    with pytest.raises(RunError, match="b: some of its examples have the same key"):
        comparison.compare([a, member("b", [0, 1, 2], [0, 1, 2], ["k0", "k1", "k1"])])
    b = member("b", [0, 1, 2], [0, 1, 2])
    by_class = {name: b.scores.by_class[name] for name in NAMES[::-1]}
    other = dataclasses.replace(b, scores=dataclasses.replace(b.scores, by_class=by_class))
    with pytest.raises(LegendError, match="b: its classes are SeaLake, River, Forest; expected those of a"):
        comparison.compare([a, other])
    masks = [np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)]
    with pytest.raises(OptionError, match="m is for segmentation; expected classification, as a"):
        comparison.compare([a, masked("m", masks, 0.1)])
    with pytest.raises(RunError, match="n: the true classes of 1 tiles are others than m's, first t1"):
        comparison.compare([masked("m", masks, 0.1), masked("n", [masks[0], masks[0]], 0.1)])


def test_runs_of_other_records_are_told():
    a = member("a", [0, 1], [0, 1])
    b = member("b", [0, 1], [0, 0], trained_on="e" * 64, warnings=["these are not the records"])
    warnings = comparison.compare([a, b]).warnings
    assert warnings[0] == "b: these are not the records"
    assert "trained on different records (a on d; b on eeeeeeeeeeee)" in warnings[1]


def test_the_folder(three, tmp_path):
    found = comparison.compare(three[0])
    comparison_report.write(comparison_report.Report(found, "Three | runs"), tmp_path / "c")
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        ".eo_keras.json",
        *(f"comparison.{ending}" for ending in ("json", "csv", "md", "html", "png")),
    }
    content = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert content["best"] == "c" and [one["name"] for one in content["runs"]] == ["a", "b", "c"]
    assert content["differences"][0] == found.differences[0].to_json() | {"verdict": "no difference shown"}
    with open(tmp_path / "c" / "comparison.csv") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows)[0] == "c" and rows["c"]["p_holm"] == ""
    assert float(rows["a"]["minus_best"]) == pytest.approx(found.between("a", "c").difference)
    assert float(rows["a"]["f1_River"]) == three[0][0].scores.value("f1", "River")
    markdown = (tmp_path / "c" / "comparison.md").read_text()
    assert "| a - c | c is better | " in markdown and "choose by the validation accuracy" in markdown
    assert "data:image/png;base64," in (tmp_path / "c" / "comparison.html").read_text()


def test_the_figure_of_many_runs_of_long_names():
    labels = np.arange(60) % 3
    members = [
        member(f"experiment_with_a_very_long_name_{n}", labels, np.where(np.arange(60) < 2 * n, 0, labels))
        for n in range(12)
    ]
    found = comparison.compare(members)
    assert comparison_report.figure_png(comparison_report.Report(found, "Many")).startswith(b"\x89PNG")
    assert len(found.differences) == 66


def test_segmentation_models_have_the_same_report(tmp_path):
    random = np.random.default_rng(0)
    masks = [random.integers(0, 3, (2, 2)).repeat(8, 0).repeat(8, 1).astype(np.uint8) for _ in range(20)]
    runs = [masked("a", masks, 0.3), masked("b", masks, 0.1, warnings=["look out"])]
    found = comparison.compare(runs)
    report = comparison_report.Report(found, "Two")
    comparison_report.write(report, tmp_path / "c")
    content = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert content["best"] == "b" and content["differences"][0]["verdict"] == "b is better"
    assert (content["metric"], content["unit"], content["count"]) == ("miou", "tiles", 20)
    assert content["details"]["places"] == 20 and content["warnings"] == ["b: look out"]
    with open(tmp_path / "c" / "comparison.csv") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["b", "a"] and rows["b"]["p_holm"] == ""
    assert float(rows["a"]["minus_best"]) == pytest.approx(found.differences[0].difference)
    assert float(rows["a"]["iou_SeaLake"]) == runs[0].scores.value("iou", "SeaLake")
    assert rows["a"]["iou_Glacier"] == "", "no tile has a glacier"
    markdown = (tmp_path / "c" / "comparison.md").read_text()
    assert "| Glacier | - | - |" in markdown and "choose by the validation mIoU" in markdown
    scores, pairs, _ = report.tables()
    names = ["boundary_f1_1", "boundary_f1_3", "boundary_f1_5", "boundary_iou"]
    assert list(content["other_differences"]) == list(found.others) == names
    other = found.between("a", "b", "boundary_f1_3")
    assert content["other_differences"]["boundary_f1_3"] == [other.to_json() | {"verdict": "b is better"}]
    assert float(rows["a"]["boundary_f1_3_p_holm"]) == other.p_holm and rows["b"]["boundary_iou_p_value"] == ""
    values, further = report.tables_of_others()
    assert values.columns == ("run", *(f"boundary F1 ({t} px)" for t in (1, 3, 5)), "boundary IoU")
    assert len(further.rows) == 4 and further.rows[1][:3] == ("boundary F1 (3 px)", "a - b", "b is better")
    assert all(row[0] in markdown for row in further.rows)
    assert scores.columns[3] == "mIoU" and "ECE" not in scores.columns and "only one correct" not in pairs.columns
