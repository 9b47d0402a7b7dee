"""launch.evaluate in this process on small untrained networks, and once as a user starts it."""

import dataclasses
import json
import re

import numpy as np
import pytest
from absl import flags

from eo_keras.evaluation import report
from eo_keras.metrics import calibration
from eo_keras.plots import classification, confidence
from eo_keras.records import data_card as cards
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.runs import temperature as run_temperature
from eo_keras.sensors.sentinel2 import COMPOSITES
from launch import app, evaluate
from tests.launch.commands import launch as run_command
from tfrecords_builder import build
from tfrecords_builder.splits import split as splits
from tfrecords_builder.synthetic import archives


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Records of 70 training and 30 test patches, others of the same patches split otherwise, and coordinates."""
    folder = tmp_path_factory.mktemp("world")
    source = archives.write_eurosat_archive(folder / "rgb.zip", kind="rgb", patches_per_class=10)
    for name, seed in (("rgb", 1), ("other", 2)):
        split = splits.SplitOptions(seed=seed, test_fraction=0.3)
        build.build(build.BuildOptions("eurosat_rgb", str(source), str(folder / name), split))
    archives.write_coordinates(folder / "coordinates.csv", patches_per_class=10)
    return folder


@pytest.fixture
def run_of(make_run, world, tmp_path):
    """A function that makes a run folder as if it had been trained on one of the records."""

    def make(name, seed, *, records="rgb", validation="20.0% of the split train, held out by key"):
        run = make_run(tmp_path / "runs" / name, "uint8", COMPOSITES["RGB"], seed=seed)
        card = cards.read_data_card(world / records)
        card = dataclasses.replace(
            run.card,
            dataset=card.dataset,
            data_fingerprint=card.fingerprint,
            flags={"records_dir": str(world / records), "validation_from_train": 0.2, "seed": 1},
            selection={"split": validation, "metric": validation and "accuracy", "value": 0.5, "epoch": 3},
        )
        model_cards.write_model_card(card, run.folder)
        return run.folder

    return make


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command in this process, its figures left blank; returns its exit code, its output and its errors."""
    for module, name in (
        (classification, "confusion_matrix_png"),
        (classification, "reliability_png"),
        (classification, "mistakes_png"),
        (confidence, "selective_accuracy_png"),
        (confidence, "accuracy_map_png"),
    ):
        monkeypatch.setattr(module, name, lambda *arguments, **options: b"")

    def run(*arguments):
        values = flags.FlagValues()
        app.define_flags(values)
        evaluate.define_flags(values)
        monkeypatch.setattr(evaluate, "FLAGS", values)
        return app.exit_code(evaluate.main, ["evaluate", *map(str, arguments)], values), *capsys.readouterr()

    return run


def metrics_of(folder, name="test"):
    return json.loads((folder / runs.EVALUATION_DIR / name / report.METRICS_NAME).read_text())


def test_one_run_its_temperature_and_its_map(command, run_of, world):
    folder = run_of("a", 1)
    code, out, err = command(f"--run_dir={folder}", f"--coordinates={world / 'coordinates.csv'}")
    assert code == 0 and err == "", err
    content = metrics_of(folder)
    accuracy = content["scores"]["accuracy"]["value"]
    assert f"accuracy {accuracy:.2%} (" in out
    assert "chosen:   epoch 3, by accuracy 50.00% on 20.0% of the split train, held out by key; never by" in out
    temperature = content["calibration"]["temperature"]
    assert f"temperature {temperature:.3f}" in out and "the most confident 80%" in out
    assert "map: 30 of 30 examples have coordinates (coordinates.csv)" in out
    assert model_cards.read_model_card(folder).scores["test"]["accuracy"] == accuracy
    kept = calibration.read_calibration(run_temperature.path(folder))
    assert kept.temperature == temperature and kept.model_sha256 == content["model_sha256"]
    aims = [one.accuracy for one in kept.calibrated_thresholds if one.threshold is not None]
    assert [one["aim"] for one in content["selective"]["by_validation"]] == aims
    assert out.count("which validation suggests for") == len(aims)
    assert 0 < kept.examples < 30 and kept.fitted_on == "20.0% of the split train, held out by key"

    assert f"caution: of the temperature, {kept.examples} examples are few" in out

    # The same evaluation is not computed again; another one is.
    path = folder / runs.EVALUATION_DIR / "test" / report.METRICS_NAME
    written = path.stat().st_mtime_ns
    code, out, _ = command(f"--run_dir={folder}")
    assert code == 0 and "reused: " in out and path.stat().st_mtime_ns == written
    assert f"accuracy {accuracy:.2%}" in out and "AnnualCrop" in out
    code, out, _ = command(f"--run_dir={folder}", "--dry_run")
    assert code == 0 and "dry run: would reuse the evaluation in" in out
    card = model_cards.read_model_card(folder)
    assert card.temperature["temperature"] == temperature and "few" in card.temperature["cautions"][0]
    scaled = report.read_evaluation(path.parent).predictions
    code, out, _ = command(f"--run_dir={folder}", "--nocalibrate", "--again")
    assert code == 0 and "reused" not in out and "temperature: none (not wanted)" in out
    # predictions.csv holds the confidences that launch.predict and an export give.
    raw = report.read_evaluation(path.parent).predictions
    expected = calibration.apply_temperature(raw.probabilities, temperature)
    np.testing.assert_allclose(scaled.probabilities, expected, rtol=0, atol=1e-6)
    assert (scaled.predictions == raw.predictions).all() and abs(temperature - 1) > 0.05
    assert "map: none, these records hold no coordinates" in out
    code, out, _ = command(f"--run_dir={folder}")
    assert code == 0 and "reused" not in out, "the temperature is wanted now"
    assert metrics_of(folder)["calibration"]["temperature"] == temperature


def test_averaged_predictions_are_reported_apart(command, run_of):
    folder = run_of("a", 1)
    code, out, err = command(f"--run_dir={folder}", "--tta=d4", "--nocalibrate")
    assert code == 0 and err == "", err
    assert "probabilities averaged over d4" in out and "gain over the model's own predictions: not known" in out
    averaged = metrics_of(folder, "test-d4")
    assert averaged["tta"] == "d4" and not (folder / runs.EVALUATION_DIR / "test").exists()
    assert set(model_cards.read_model_card(folder).scores) == {"test-d4"}
    assert command(f"--run_dir={folder}", "--nocalibrate")[0] == 0
    assert metrics_of(folder)["tta"] == "none" and metrics_of(folder, "test-d4") == averaged
    assert set(model_cards.read_model_card(folder).scores) == {"test", "test-d4"}
    code, out, _ = command(f"--run_dir={folder}", "--tta=d4", "--nocalibrate")
    first, second = (one["scores"]["accuracy"]["value"] for one in (averaged, metrics_of(folder)))
    gain = 100 * (first - second)
    assert code == 0 and "reused" in out and f"own predictions: {gain:+.2f} percentage points" in out


def test_a_run_without_validation(command, run_of):
    folder = run_of("a", 1, validation=None)
    code, out, err = command(f"--run_dir={folder}", "--calibrate")
    assert code == 2 and "the run had no validation examples" in err and err.count("\n") == 1
    code, out, err = command(f"--run_dir={folder}")
    assert code == 0 and "temperature: none (" in out and "had no validation examples" in out
    assert metrics_of(folder)["calibration"]["temperature"] is None
    assert "reused" in command(f"--run_dir={folder}")[1]


def test_several_runs_are_compared(command, run_of, tmp_path):
    folders = [run_of(name, seed) for seed, name in enumerate("abc", 1)]
    (tmp_path / "runs" / "notes").mkdir()
    output = tmp_path / "comparison"
    pattern = f"--run_dir={tmp_path / 'runs'}/*"
    code, out, err = command(pattern, f"--output_dir={output}", "--dry_run")
    assert code == 0 and err == "" and not output.exists()
    assert out.count("dry run: would predict, fit a temperature on 20.0% of the split train") == 3
    assert f"dry run: would compare 3 runs and write the comparison to {output}" in out
    code, out, err = command(pattern, f"--output_dir={output}", "--nocalibrate")
    assert code == 0 and err == "", err
    content = json.loads((output / "comparison.json").read_text())
    assert [one["name"] for one in content["runs"]] == ["a", "b", "c"] and content["count"] == 30
    correct = {}
    for folder in folders:
        stored = report.read_evaluation(folder / runs.EVALUATION_DIR / "test")
        correct[folder.name] = dict(zip(stored.predictions.keys, stored.predictions.correct, strict=True))
    for one in content["differences"]:
        pairs = [(correct[one["first"]][key], correct[one["second"]][key]) for key in correct["a"]]
        assert one["difference"] == pytest.approx(np.mean([a - b for a, b in np.array(pairs, int)]))
        assert one["only_first_correct"] == sum(a and not b for a, b in pairs)
    assert re.search(r"^a - b +\S", out, re.MULTILINE) and "corrected for 3 pairs" in out
    code, out, _ = command(f"--run_dir={folders[2]},{folders[0]}", f"--output_dir={output}", "--nocalibrate")
    assert code == 0 and out.count("reused: ") == 2 and "corrected for 1 pair;" in out
    names = [one["name"] for one in json.loads((output / "comparison.json").read_text())["runs"]]
    assert names == ["c", "a"]


def test_runs_of_other_records(command, run_of, world, tmp_path):
    first, second = run_of("a", 1), run_of("b", 2, records="other")
    both, output = f"--run_dir={first},{second}", f"--output_dir={tmp_path / 'comparison'}"
    code, _, err = command(both, output, "--nocalibrate")
    words = r"b: it lacks \d+ of a's examples, first \w+ and it was evaluated on \d+ others"
    assert code == 2 and re.search(words, err)
    assert "--records_dir" in err and not (tmp_path / "comparison").exists()
    code, out, err = command(both, output, f"--records_dir={world / 'rgb'}")
    assert code == 0, err
    assert "warning: b: these are not the records that the run was trained on" in out
    assert "warning: the runs were trained on different records" in out
    card = cards.read_data_card(world / "rgb")
    name = f"eurosat_rgb-{card.fingerprint[:8]}-test"
    assert metrics_of(second, name)["trained_on"] != metrics_of(second, name)["data_fingerprint"]
    # Fitted on the run's own validation examples, not on records that it may have been trained on.
    kept = calibration.read_calibration(run_temperature.path(second))
    assert kept.data_fingerprint == model_cards.read_model_card(second).data_fingerprint
    assert model_cards.read_model_card(second).scores.keys() == {"test"}, (
        "scored on its own records only, in the first call"
    )


def test_runs_and_options_of_one_task(command, run_of, tmp_path):
    first, second = run_of("a", 1), run_of("b", 2)
    card = model_cards.read_model_card(second)
    model_cards.write_model_card(dataclasses.replace(card, task="segmentation"), second)
    code, _, err = command(f"--run_dir={first},{second}")
    assert code == 2 and "b is for segmentation, " in err and "expected runs of one task" in err
    for flag in ("--flip", "--output_stride=8", "--scales=0.5,1", "--boundary_tolerances=1", "--object_class=a"):
        code, _, err = command(f"--run_dir={first}", flag)
        assert code == 2 and f"{flag.partition('=')[0]}: it does not apply to records of one class an image" in err


def test_mistakes_are_one_line(command, run_of, tmp_path):
    folder = run_of("a", 1)

    def refused(words, *arguments):
        code, _, err = command(*arguments)
        assert code == 2 and err.count("\n") == 1 and words in err, err

    refused("'none/*' finds no run", "--run_dir=none/*")
    refused("there is no such folder", f"--run_dir={folder},{tmp_path / 'absent'}")
    refused("there is no split 'tset'; expected one of train, test", f"--run_dir={folder}", "--split=tset")
    refused("last.keras: there is no such file", f"--run_dir={folder}", "--checkpoint=last")
    other = tmp_path / "runs" / "copy"
    other.mkdir()
    for name in (runs.MODEL_NAME, model_cards.MODEL_CARD_NAME):
        (other / name).write_bytes((folder / name).read_bytes())
    refused("is a run folder", f"--run_dir={folder},{other}", f"--output_dir={folder}", "--nocalibrate")


def test_the_command_itself(run_of, tmp_path):
    folders = [run_of("a", 1), run_of("b", 2)]
    words = [f"--run_dir={folder}" for folder in folders]
    result = run_command("evaluate", *words, "--nocalibrate", f"--output_dir={tmp_path / 'out'}")
    assert result.returncode == 0 and result.stderr == "", result
    assert (tmp_path / "out" / "comparison.html").is_file()
