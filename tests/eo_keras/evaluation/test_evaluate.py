import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

from eo_keras import tasks
from eo_keras.data import pipeline as pipelines
from eo_keras.data import subsets
from eo_keras.errors import BandError, LegendError, OptionError, RecordsError, RunError
from eo_keras.evaluation import evaluate as evaluation
from eo_keras.evaluation import report
from eo_keras.evaluation.options import EvaluationOptions
from eo_keras.legends import catalogue as legends
from eo_keras.metrics import by_location, calibration
from eo_keras.metrics.predictions import ClassPredictions
from eo_keras.records import example as records
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.sensors.radiometry import Reflectance
from eo_keras.tasks.predictor import Predictor
from tests.kept import contents


@pytest.fixture(scope="module")
def run(finished):
    return runs.open_run(finished[0].run_dir)


@pytest.fixture(scope="module")
def data(rgb_records):
    return pipelines.RecordDataset(rgb_records)


@pytest.fixture(scope="module")
def result(run, data):
    return evaluation.evaluate(run, data, EvaluationOptions(batch_size=7), not_calibrated="why")


@pytest.fixture(scope="module")
def stored(data):
    """Images and labels of the test split by key, read without TensorFlow."""
    found = {}
    for shard in data.card.splits["test"].shards:
        for example in records.read_examples(data.folder / shard.name):
            found[example.key] = records.decode_image(example, data.card), example.label
    return found


def test_every_example_is_predicted_once(result, stored, run):
    predictions = result.predictions
    images = np.stack([stored[key][0] for key in predictions.keys])
    np.testing.assert_array_equal(predictions.labels, [stored[key][1] for key in predictions.keys])
    np.testing.assert_allclose(predictions.probabilities, run.model.predict(images, verbose=0), atol=1e-5)
    assert result.scores.value("accuracy") == np.mean(predictions.predictions == predictions.labels)


def test_mistakes_are_the_most_confident_ones_with_their_own_images(result, stored):
    predictions = result.predictions
    place_of = {key: place for place, key in enumerate(predictions.keys)}
    shown = [place_of[sample.key] for sample in result.samples]
    incorrect = np.flatnonzero(predictions.predictions != predictions.labels)
    assert set(shown) == set(incorrect) and len(incorrect) > 0
    assert (np.diff(predictions.probabilities[shown].max(axis=1)) <= 0).all()
    for sample in result.samples:
        np.testing.assert_array_equal(sample.image, stored[sample.key][0])


@pytest.fixture(scope="module")
def calibrated(run, data):
    """The evaluation with a temperature, and with places for all examples but one."""

    def places(keys):
        degrees = np.stack([np.linspace(5, 15, 40), np.linspace(45, 55, 40)], axis=1)
        degrees[3] = np.nan
        return by_location.Locations(degrees, "somewhere.csv")

    fitted = evaluation.fit_calibration(run, data, EvaluationOptions(batch_size=16), model_sha256="ab")
    return evaluation.evaluate(run, data, fitted=fitted, places=places)


@pytest.fixture(scope="module")
def folder(calibrated, tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluation") / "test"
    report.write_evaluation(calibrated, path)
    return path


def test_the_folder(folder, calibrated):
    assert {path.name for path in folder.iterdir()} == {
        ".eo_keras.json",
        "metrics.json",
        "predictions.csv",
        "confusion_matrix.png",
        "reliability.png",
        "selective_accuracy.png",
        "mistakes.png",
        "accuracy_map.png",
        "accuracy_map.csv",
    }
    content = json.loads((folder / "metrics.json").read_text())
    scores = calibrated.scores
    assert (content["schema"], content["task"], content["tta"]) == (2, "classification", "none")
    assert content["selection"]["split"] == "20.0% of the split train, held out by key"
    assert content["data_fingerprint"] == content["trained_on"] and content["warnings"] == []
    before = content["calibration"]["split"]["before"]
    assert before["negative_log_likelihood"] == pytest.approx(calibrated.predictions.cross_entropy())
    selective = content["selective"]["accuracy_at_coverage"][0]
    assert selective["accuracy"] == pytest.approx(scores.value("accuracy"))
    assert content["places"] == {"source": "somewhere.csv", "examples": 39, "cell_degrees": 2.0}
    with open(folder / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert np.mean([row["true"] == row["predicted"] for row in rows]) == scores.value("accuracy")
    assert [row["key"] for row in rows] == list(calibrated.predictions.keys)
    # predictions.csv holds the confidences that launch.predict and an export give.
    temperature = content["predictions_temperature"]
    assert temperature == calibrated.calibration.temperature != 1
    scaled = calibration.apply_temperature(calibrated.predictions.probabilities, temperature)
    np.testing.assert_allclose(report.read_evaluation(folder).predictions.probabilities, scaled, rtol=1e-6)


def test_an_evaluation_of_schema_1_is_read_again(folder, calibrated, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "old")
    content = json.loads((copy / "metrics.json").read_text())
    overall, by_class = content["scores"], content.pop("by_class")
    old = {name: overall[name]["value"] for name in ("accuracy", "macro_f1", "kappa", "expected_calibration_error")}
    old |= {f"accuracy_{end}": overall["accuracy"][end] for end in ("low", "high")}
    old |= {"count": content.pop("count"), "interval": "Wilson score", "reliability": content.pop("reliability")}
    old |= {"confusion": content.pop("confusion"), "macro_classes": 10}
    old["classes"] = [
        {"name": name, "support": one["support"], "predicted": one["predicted"]}
        | {score: one[score] and one[score]["value"] for score in ("precision", "recall", "f1")}
        for name, one in by_class.items()
    ]
    for name in ("schema", "task", "primary", "unit", "details"):
        del content[name]
    (copy / "metrics.json").write_text(json.dumps(content | {"scores": old}))
    (copy / "predictions.csv").rename(copy / "answers.csv")
    names = ("model_sha256", "data_fingerprint", "trained_on", "split", "tta")
    found = report.find_evaluation(copy, {name: content[name] for name in names})
    assert found.scores["accuracy"] == calibrated.scores["accuracy"] and report.suffices(found, EvaluationOptions())
    assert found.predictions.keys == calibrated.predictions.keys
    # A new evaluation takes the place of the old one, its predictions included.
    report.write_evaluation(calibrated, copy)
    assert report.read_evaluation(copy).metrics["schema"] == 2


@pytest.mark.parametrize("name", ["mistakes.png", "accuracy_map.csv"])
def test_an_evaluation_that_lacks_a_figure_is_not_whole(folder, tmp_path, name):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert report.find_evaluation(copy, {}) is not None
    (copy / name).unlink()
    assert report.find_evaluation(copy, {}) is None


@pytest.mark.parametrize("entry", ["predictions_sha256", "calibration"])
def test_an_evaluation_of_before_an_entry_was_written_is_not_used(folder, tmp_path, entry):
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = json.loads((copy / "metrics.json").read_text())
    del content[entry]
    (copy / "metrics.json").write_text(json.dumps(content))
    assert report.find_evaluation(copy, {}) is None


def test_an_evaluation_replaces_its_own_files_and_nobody_elses(folder, result, tmp_path):
    theirs = {"metrics.json": b"mine", "predictions.csv": b"mine"}
    for name, data in theirs.items():
        (tmp_path / name).write_bytes(data)
    for overwrite in (False, True):
        with pytest.raises(RunError, match="this program did not write"):
            report.write_evaluation(result, tmp_path, overwrite=overwrite)
    assert contents(tmp_path) == theirs
    copy = shutil.copytree(folder, tmp_path / "test")
    (copy / "notes.md").write_text("mine")
    (copy / "mistakes.png").write_bytes(b"mine")
    (warning,) = report.write_evaluation(result, copy)
    assert "kept as mistakes.png.kept-1" in warning and (copy / "mistakes.png.kept-1").read_bytes() == b"mine"
    assert (copy / "notes.md").read_text() == "mine" and not (copy / "metrics.json.kept-1").exists()


def test_a_map_of_before_does_not_outlive_its_evaluation(folder, result, tmp_path):
    shutil.copytree(folder, tmp_path / "test")
    report.write_evaluation(result, tmp_path / "test")
    assert not list((tmp_path / "test").glob("accuracy_map*"))
    content = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert content["places"] is None and content["calibration"]["reason"] == "why"


def test_the_temperature_is_fitted_on_what_validated_the_run(run, data, calibrated, finished):
    part = subsets.holdout(0.2, finished[0].seed)[1]
    assert evaluation.validation_part(run, data) == ("train", part)
    dataset = pipelines.evaluation(data, pipelines.PipelineOptions(16), "train", part=part, with_keys=True)
    names = run.card.legend.class_names
    answers = Predictor(run.model, tasks.get("classification"), names)(data, dataset).predictions
    found = calibrated.calibration
    assert found.examples == len(answers.labels) == data.count("train", part)
    assert found.temperature == pytest.approx(
        calibration.fit_temperature(answers.labels, answers.probabilities)[0], rel=1e-3
    )
    assert found.data_fingerprint == data.card.fingerprint and found.model_sha256 == "ab"


def test_no_temperature_without_validation_or_from_other_records(run, data):
    without = dataclasses.replace(run, card=dataclasses.replace(run.card, selection={"split": None}))
    with pytest.raises(RunError, match="the run had no validation examples.*`validation_from_train"):
        evaluation.fit_calibration(without, data)
    other = dataclasses.replace(run, card=dataclasses.replace(run.card, data_fingerprint="f" * 64))
    with pytest.raises(RecordsError, match="expected ffffffffffff, those that .* was trained on"):
        evaluation.fit_calibration(other, data)


def test_averaged_predictions_are_an_entry_of_their_own(run, result, tmp_path):
    copy = dataclasses.replace(run, folder=tmp_path)
    evaluation.add_to_card(dataclasses.replace(result, run=copy))
    copy = dataclasses.replace(copy, card=model_cards.read_model_card(tmp_path))
    evaluation.add_to_card(dataclasses.replace(result, run=copy, options=EvaluationOptions(tta="d4")))
    found = model_cards.read_model_card(tmp_path).scores
    assert set(found) == {"test", "test-d4"} and found["test"]["accuracy"] == result.scores.value("accuracy")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "test"),
        ({"tta": "d4", "checkpoint": "last"}, "test-last-d4"),
        ({"output_stride": 8}, "test-os8"),
        ({"scales": (0.5, 1.0), "flip": True, "split": "val"}, "val-s0.5-1-flip"),
    ],
)
def test_names_distinguish_evaluations(changes, name):
    assert EvaluationOptions(**changes).name == name


@pytest.mark.parametrize("changes", [{"scales": ()}, {"scales": (1.0, 1.0)}, {"scales": (0.01,)}, {"tta": "d8"}])
def test_augmentations_that_make_no_sense_are_refused(changes):
    with pytest.raises(OptionError, match=next(iter(changes))):
        EvaluationOptions(**changes)


def test_which_runs_are_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/a", "runs/b", "runs/x,y", "runs/no_run", "other/a"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        if name != "runs/no_run":
            (folder / model_cards.MODEL_CARD_NAME).touch()

    def found(*words):
        return [str(path) for path in report.find_runs(words)]

    assert found("runs/b,runs/a") == ["runs/b", "runs/a"]
    assert found("runs/*") == ["runs/a", "runs/b", "runs/x,y"]
    assert found("runs/x,y", "runs/b", "runs/../runs/b/", "runs/?") == ["runs/x,y", "runs/b", "runs/a"]
    assert found("runs/absent") == ["runs/absent"], "a missing folder is told by whoever opens it"
    with pytest.raises(OptionError, match="'none/\\*' finds no run"):
        found("none/*")
    with pytest.raises(OptionError, match="no folder is named"):
        found(",")
    names = report.short_names(report.find_runs(["runs/a,runs/b,other/a"]))
    assert names == ["runs/a", "b", "other/a"]


def test_what_a_reader_has_to_know(run, data, result):
    assert result.warnings == []
    assert "were trained on" in evaluation.evaluate(run, data, EvaluationOptions("train")).warnings[0]
    other = dataclasses.replace(result, card=dataclasses.replace(result.card, fingerprint="another"))
    assert "may have been trained on" in other.warnings[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "uint16"}, "dtype is uint16; expected uint8"),
        ({"level": "L2A"}, "level is L2A; expected L1C"),
        ({"patch_size": 32}, "patch_size is 32; expected 64"),
        ({"reflectance": Reflectance(1.0)}, "reflectance is Reflectance"),
    ],
)
def test_records_of_other_numbers(run, data, change, words):
    with pytest.raises(RecordsError, match=words):
        evaluation.check_records(dataclasses.replace(data.card, **change), run.card, data.folder)


def test_records_of_other_classes_or_without_the_bands(run, data, rgb_records, tmp_path):
    legend = legends.Legend("other", data.card.legend.classes[::-1])
    with pytest.raises(LegendError, match="legend 'other' has the classes SeaLake, River"):
        evaluation.check_records(dataclasses.replace(data.card, legend=legend), run.card, data.folder)
    other = dataclasses.replace(run, card=dataclasses.replace(run.card, bands=("B08", "B04", "B03")))
    with pytest.raises(BandError, match="does not hold B08"):
        evaluation.evaluate(other, data)
    with pytest.raises(RecordsError, match="no split 'val'|is empty"):
        evaluation.evaluate(run, data, EvaluationOptions("val"))


def test_cross_entropy_by_hand():
    answers = ClassPredictions(np.array([0, 1]), np.array([[0.5, 0.5], [1.0, 0.0]], np.float32))
    assert answers.cross_entropy() == pytest.approx((np.log(2) - np.log(np.finfo(np.float32).tiny)) / 2)
    assert answers.accuracy() == 0.5
