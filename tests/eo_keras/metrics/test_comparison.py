import csv
import dataclasses
import json
import math

import numpy as np
import pytest

from eo_keras.errors import LegendError, OptionError, RunError
from eo_keras.evaluation import comparison_page, comparison_report
from eo_keras.metrics import calibration, comparison, selective
from eo_keras.metrics import classification as metrics
from eo_keras.metrics.comparison import Member
from eo_keras.metrics.predictions import ClassPredictions

NAMES = ("Forest", "River", "SeaLake")


def member(name, labels, predictions, keys=None, **changes):
    """A member that answers as told, with the entries of `metrics.json` that a comparison reads."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    probabilities = np.full((len(labels), len(NAMES)), 0.1)
    probabilities[np.arange(len(labels)), predictions] = 0.8
    answers = ClassPredictions(labels, probabilities, tuple(keys or (f"k{n}" for n in range(len(labels)))))
    content = {
        "model": "resnet14",
        "bands": ["B04"],
        "model_sha256": name,
        "data_fingerprint": "d",
        "trained_on": "d",
        "dataset": "eurosat_rgb",
        "split": "test",
        "tta": "none",
        "selection": {"metric": "accuracy", "value": 0.9},
        "warnings": [],
        "scores": metrics.score_classification(labels, probabilities, NAMES).to_json(),
        "calibration": calibration.to_json(None, labels, probabilities, "none"),
        "selective": selective.risk_coverage(answers.confidences, answers.right).to_json(),
    }
    return Member(name, answers, NAMES, content | changes)


def test_mcnemar_by_hand():
    # P(X <= 2) of 10 throws of a coin: (1 + 10 + 45) / 1024, on both sides.
    assert comparison.mcnemar(2, 8) == comparison.mcnemar(8, 2) == pytest.approx(2 * 56 / 1024)
    assert comparison.mcnemar(0, 5) == pytest.approx(2 / 32)
    assert comparison.mcnemar(0, 0) == comparison.mcnemar(7, 7) == comparison.mcnemar(4, 5) == 1.0
    by_hand = 2 * sum(math.comb(300, k) for k in range(121)) / 2**300
    assert comparison.mcnemar(120, 180) == pytest.approx(by_hand)
    assert 0 <= comparison.mcnemar(10, 20_000) < 1e-300


def test_holm_by_hand():
    assert comparison.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparison.holm([0.6, 0.9]) == [1.0, 1.0] and comparison.holm([0.2]) == [0.2] and comparison.holm([]) == []


@pytest.fixture
def three():
    """Three members: b is asked in another order than a, and c is the best."""
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
        assert (one.only_first_right, one.only_second_right) == ((first & ~second).sum(), (second & ~first).sum())
        assert one.low <= one.difference <= one.high
        assert one.p_value == comparison.mcnemar(one.only_first_right, one.only_second_right) <= one.p_holm
    assert found.best.name == "c" and found.examples == 200 and found.warnings == ()
    turned = found.between("c", "a")
    assert turned.difference == -found.differences[1].difference and turned.low == -found.differences[1].high
    assert turned.only_first_right == found.differences[1].only_second_right


def test_verdicts(three):
    found = comparison.compare(three[0])
    assert comparison_report.verdict(found.between("c", "a")) == "c is better"
    assert comparison_report.verdict(found.between("a", "c")) == "c is better"
    assert comparison_report.verdict(found.between("a", "b")) == "no difference shown"
    same = comparison.compare([three[0][0], dataclasses.replace(three[0][0], name="twin")])
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
        RunError, match="b: it lacks 1 of a's examples, first k2 and it was asked about 2 others, first x"
    ):
        comparison.compare([a, member("b", [0, 1, 2, 2], [0, 1, 2, 2], ["k0", "k1", "x", "y"])])
    with pytest.raises(RunError, match="b: the true classes of 1 examples are others than a's, first k1"):
        comparison.compare([a, member("b", [0, 2, 2], [0, 1, 2])])
    with pytest.raises(RunError, match="b: some of its examples have the same key"):
        comparison.compare([a, member("b", [0, 1, 2], [0, 1, 2], ["k0", "k1", "k1"])])
    other = dataclasses.replace(member("b", [0, 1, 2], [0, 1, 2]), class_names=NAMES[::-1])
    with pytest.raises(LegendError, match="b: its classes are SeaLake, River, Forest; expected those of a"):
        comparison.compare([a, other])


def test_runs_of_other_records_are_told():
    a = member("a", [0, 1], [0, 1])
    b = member("b", [0, 1], [0, 0], trained_on="e" * 64, warnings=["these are not the records"])
    warnings = comparison.compare([a, b]).warnings
    assert warnings[0] == "b: these are not the records"
    assert "trained on different records (a on d; b on eeeeeeeeeeee)" in warnings[1]


def test_the_gain_of_one_over_another():
    labels = np.array([0, 1, 2, 0])
    plain, other = member("p", labels, [0, 1, 1, 1]).answers, member("o", labels, [0, 1, 2, 0]).answers
    one = comparison.gain(plain, other, ("plain", "d4"))
    assert (one.first, one.difference, one.only_first_right, one.only_second_right) == ("d4", 0.5, 2, 0)
    with pytest.raises(RunError, match="other examples"):
        comparison.gain(plain, dataclasses.replace(other, keys=other.keys[::-1]), ("plain", "d4"))


def test_the_folder(three, tmp_path):
    found = comparison.compare(three[0])
    comparison_page.write(comparison_report.report(found, "Three | runs"), tmp_path / "c")
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        ".eo_keras.json",
        *(f"comparison.{ending}" for ending in ("json", "csv", "md", "html", "png")),
    }
    content = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert content["best"] == "c" and [one["name"] for one in content["runs"]] == ["a", "b", "c"]
    assert content["differences"][0] == dataclasses.asdict(found.differences[0]) | {"verdict": "no difference shown"}
    with open(tmp_path / "c" / "comparison.csv") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows)[0] == "c" and rows["c"]["p_holm"] == ""
    assert float(rows["a"]["minus_best"]) == pytest.approx(found.between("a", "c").difference)
    assert float(rows["a"]["f1_River"]) == three[0][0].metrics["scores"]["classes"][1]["f1"]
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
    assert comparison_page.figure_png(comparison_report.report(found, "Many").chart, "Many").startswith(b"\x89PNG")
    assert len(found.differences) == 66
