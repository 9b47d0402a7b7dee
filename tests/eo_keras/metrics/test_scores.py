"""Scores as `metrics.json` holds them: written, read, and read from the files of earlier versions."""

import json
import pathlib

import pytest

from eo_keras import errors
from eo_keras.metrics.estimate import Estimate
from eo_keras.metrics.scores import ReliabilityBin, Scores

RESULTS = pathlib.Path(__file__).parents[3] / "docs" / "results"
KEPT = sorted(
    [*RESULTS.glob("*/metrics*.json"), *RESULTS.glob("maps/*/metrics*.json"), *RESULTS.glob("maps/*/thr*.json")]
)


def read(path):
    content = json.loads(path.read_text())
    return content, Scores.read(content, str(path))


def assert_estimate(found, value, ends=None):
    assert (None if found is None else found.value) == value
    if ends is not None:
        assert found.ends == tuple(ends)


@pytest.mark.parametrize("path", [path for path in KEPT if "maps" not in path.parts], ids=lambda path: path.parent.name)
def test_schema_1_of_patches_is_read(path):
    content, scores = read(path)
    old = content["scores"]
    assert (scores.task, scores.primary, scores.unit, scores.count) == (
        "classification",
        "accuracy",
        "examples",
        old["count"],
    )
    assert_estimate(scores["accuracy"], old["accuracy"], (old["accuracy_low"], old["accuracy_high"]))
    assert scores["accuracy"].method == "bootstrap"
    for name in ("macro_f1", "kappa", "expected_calibration_error"):
        assert_estimate(scores[name], old[name])
    for name in ("negative_log_likelihood", "brier_score"):
        assert scores.value(name) == content["calibration"]["split"]["before"][name]
    assert scores.class_names == tuple(one["name"] for one in old["classes"])
    for place, one in enumerate(old["classes"]):
        found = scores.by_class[one["name"]]
        assert found["support"] == one["support"] == sum(old["confusion"][place])
        assert found["predicted"] == sum(row[place] for row in old["confusion"])
        for name in ("precision", "recall", "f1"):
            assert_estimate(found[name], one[name])
    assert [list(row) for row in scores.confusion] == old["confusion"]
    assert scores.reliability[14] == ReliabilityBin(**old["reliability"][14])
    assert scores.details == {"averaged_classes": 10, "resamples": 10_000, "seed": 0}
    assert scores.sections == {name: content[name] for name in ("calibration", "selective", "places")}


@pytest.mark.parametrize("path", [path for path in KEPT if "maps" in path.parts], ids=lambda path: path.parent.name)
def test_schema_1_of_masks_is_read(path):
    content, scores = read(path)
    old = content["scores"]
    assert (scores.task, scores.primary, scores.unit, scores.count) == ("segmentation", "miou", "pixels", old["pixels"])
    names = {"miou": "macro_iou"} | {name: name for name in ("frequency_weighted_iou", "accuracy", "kappa")}
    for name, old_name in (names | {"boundary_f1": "boundary_f1"}).items():
        assert scores[name] == Estimate(**old[old_name], method="bootstrap")
    assert scores.value("negative_log_likelihood") == content["cross_entropy"] if "cross_entropy" in content else True
    for one in old["classes"]:
        found = scores.by_class[one["name"]]
        assert (found["support"], found["predicted"]) == (one["support"], one["predicted"])
        for name in ("iou", "precision", "recall", "f1", "boundary_f1"):
            assert_estimate(found[name], one[name]["value"], (one[name]["low"], one[name]["high"]))
    assert [list(row) for row in scores.confusion] == old["confusion"]
    assert scores.details["images"] == scores.details["places"] == old["images"]
    assert scores.details["boundary_tolerance"] == old["tolerance"]


def test_schema_1_with_intervals_of_classes_and_undefined_scores():
    by_class = {"support": 3, "predicted": 0, "precision": None, "precision_interval": None, "recall": 0.0, "f1": 0.0}
    old = {
        "count": 3,
        "accuracy": 0.0,
        "accuracy_low": 0.0,
        "accuracy_high": 0.56,
        "macro_f1": 0.0,
        "macro_classes": 1,
        "kappa": None,
        "expected_calibration_error": 0.9,
        "classes": [{"name": "a", "recall_interval": [0.0, 0.56]} | by_class],
        "confusion": [[0]],
        "reliability": [],
        "interval": "Wilson score",
    }
    scores = Scores.read({"scores": old})
    assert scores["accuracy"] == scores.by_class["a"]["recall"] == Estimate(0.0, 0.0, 0.56, "Wilson score")
    assert scores["kappa"] is None and scores.value("kappa") is None and scores.value("precision", "a") is None
    assert scores.details == {"averaged_classes": 1}


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_written_is_read(path):
    _, scores = read(path)
    content = scores.to_json()
    assert content["schema"] == 2
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert Scores.read(content) == scores
    assert content["scores"][scores.primary] == {
        "value": scores.value(scores.primary),
        "low": scores[scores.primary].low,
        "high": scores[scores.primary].high,
        "method": "bootstrap",
    }


def test_what_cannot_be_read_is_refused():
    with pytest.raises(errors.RunError, match="m.json: its schema is 3; expected 2 or lower"):
        Scores.read({"schema": 3}, "m.json")
    for content in ({}, {"schema": 2, "task": "classification"}, {"scores": {"accuracy": 1}}, {"scores": None}):
        with pytest.raises(errors.RunError, match="its scores cannot be read"):
            Scores.read(content)
