import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from eo_keras import tasks
from eo_keras.data import pipeline as pipelines
from eo_keras.data import subsets
from eo_keras.errors import BandError, LegendError, OptionError, RecordsError, RunError
from eo_keras.evaluation import evaluate as evaluation
from eo_keras.evaluation import report
from eo_keras.legends import catalogue as legends
from eo_keras.metrics import by_location, calibration
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
    return evaluation.evaluate(run, data, "test", batch_size=7)


@pytest.fixture(scope="module")
def stored(data):
    """Images and labels of the test split by key, read without TensorFlow."""
    found = {}
    for shard in data.card.splits["test"].shards:
        for example in records.read_examples(data.folder / shard.name):
            found[example.key] = records.decode_image(example, data.card), example.label
    return found


def test_every_example_is_asked_about_once(result, stored, run):
    answers = result.answers
    assert len(answers.keys) == len(set(answers.keys)) == 40 == result.scores.count
    images = np.stack([stored[key][0] for key in answers.keys])
    np.testing.assert_array_equal(answers.labels, [stored[key][1] for key in answers.keys])
    np.testing.assert_allclose(answers.probabilities, run.model.predict(images, verbose=0), atol=1e-5)
    assert result.scores.value("accuracy") == np.mean(answers.predictions == answers.labels)


def test_the_batch_size_does_not_change_the_scores(result, run, data):
    other = evaluation.evaluate(run, data, "test", batch_size=1000)
    assert other.answers.keys == result.answers.keys
    np.testing.assert_allclose(other.answers.probabilities, result.answers.probabilities, atol=1e-5)


def test_mistakes_are_the_surest_errors_with_their_own_images(result, stored):
    answers = result.answers
    wrong = np.flatnonzero(answers.predictions != answers.labels)
    assert set(result.mistakes) == set(wrong) and len(wrong) > 0
    confidences = answers.probabilities[result.mistakes].max(axis=1)
    assert (np.diff(confidences) <= 0).all()
    for number, image in zip(result.mistakes, result.mistaken_images, strict=True):
        np.testing.assert_array_equal(image, stored[answers.keys[number]][0])


@pytest.fixture(scope="module")
def calibrated(run, data, result):
    """The evaluation with a temperature, and with places for all examples but one."""
    found = evaluation.fit_calibration(run, data, batch_size=16, model_sha256="ab")
    degrees = np.stack([np.linspace(5, 15, 40), np.linspace(45, 55, 40)], axis=1)
    degrees[3] = np.nan
    return dataclasses.replace(result, calibration=found, places=by_location.Places(degrees, "somewhere.csv"))


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
    assert content.items() >= scores.to_json().items() and content["tta"] == "none"
    assert content["selection"]["split"] == "20.0% of the split train, held out by key"
    assert content["data_fingerprint"] == content["trained_on"] and content["warnings"] == []
    assert content["calibration"]["temperature"] == calibrated.calibration.temperature
    before = content["calibration"]["split"]["before"]
    assert before["expected_calibration_error"] == scores.value("expected_calibration_error")
    assert before["negative_log_likelihood"] == pytest.approx(calibrated.answers.cross_entropy())
    assert content["selective"]["accuracy_at_coverage"][0]["accuracy"] == pytest.approx(scores.accuracy)
    assert content["places"] == {"source": "somewhere.csv", "examples": 39, "cell_degrees": 2.0}
    with open(folder / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert np.mean([row["true"] == row["predicted"] for row in rows]) == scores.accuracy
    assert [row["key"] for row in rows] == list(calibrated.answers.keys)
    for path in folder.glob("*.png"):
        assert Image.open(path).size[0] > 300


def test_an_evaluation_is_found_again_only_if_it_is_whole_and_the_same(folder, calibrated, tmp_path):
    content = json.loads((folder / "metrics.json").read_text())
    expected = {name: content[name] for name in ("model_sha256", "data_fingerprint", "split", "tta")}
    found = report.find_evaluation(folder, expected)
    assert found.metrics == content and found.class_names == legends.EUROSAT.class_names
    temperature = calibrated.calibration.temperature
    softened = calibration.apply_temperature(calibrated.answers.probabilities, temperature)
    np.testing.assert_allclose(found.answers.probabilities, softened, rtol=1e-6)
    assert content["predictions_temperature"] == temperature != 1
    assert report.find_evaluation(folder, expected | {"tta": "d4"}) is None
    assert report.find_evaluation(tmp_path, expected) is None

    def damaged(change):
        copy = tmp_path / change.__name__
        shutil.copytree(folder, copy)
        change(copy)
        return report.find_evaluation(copy, expected)

    def without_a_figure(copy):
        (copy / "mistakes.png").unlink()

    def without_the_map(copy):
        (copy / "accuracy_map.csv").unlink()

    def other_predictions(copy):
        path = copy / "predictions.csv"
        path.write_text(path.read_text().replace("Forest_", "Wood_"))

    def from_before_probabilities_were_kept(copy):
        del content["predictions_sha256"]
        (copy / "metrics.json").write_text(json.dumps(content))

    def from_before_temperatures(copy):
        (copy / "metrics.json").write_text(json.dumps({k: v for k, v in content.items() if k != "calibration"}))

    changes = without_a_figure, without_the_map, other_predictions, from_before_temperatures
    for change in (*changes, from_before_probabilities_were_kept):
        assert damaged(change) is None, change.__name__
    with pytest.raises(RunError, match="predictions.csv: it is not the file that metrics.json was made with"):
        report.read_evaluation(tmp_path / "other_predictions")


def test_an_evaluation_replaces_its_own_files_and_nobody_elses(folder, result, tmp_path):
    result = dataclasses.replace(result, not_calibrated="why")
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
    report.write_evaluation(dataclasses.replace(result, not_calibrated="why"), tmp_path / "test")
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


def test_averaged_answers_are_an_entry_of_their_own(run, result, tmp_path):
    copy = dataclasses.replace(run, folder=tmp_path)
    evaluation.add_to_card(dataclasses.replace(result, run=copy))
    copy = dataclasses.replace(copy, card=model_cards.read_model_card(tmp_path))
    evaluation.add_to_card(dataclasses.replace(result, run=copy, tta="d4"))
    found = model_cards.read_model_card(tmp_path).scores
    assert set(found) == {"test", "test-d4"} and found["test"]["accuracy"] == result.scores.value("accuracy")


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
    assert "were trained on" in evaluation.evaluate(run, data, "train").warnings[0]
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
        evaluation.evaluate(run, data, "val")


def test_cross_entropy_by_hand():
    answers = evaluation.ClassPredictions(np.array([0, 1]), np.array([[0.5, 0.5], [1.0, 0.0]], np.float32))
    assert answers.cross_entropy() == pytest.approx((np.log(2) - np.log(np.finfo(np.float32).tiny)) / 2)
    assert answers.accuracy() == 0.5
