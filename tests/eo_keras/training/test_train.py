"""Training on a small records folder: what is learned, kept, repeated and refused."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eo_keras import tasks
from eo_keras.data import pipeline as pipelines
from eo_keras.data import subsets
from eo_keras.errors import BandError, OptionError, RunError, StorageError, TrainingError
from eo_keras.metrics.metric import ACCURACY
from eo_keras.records import data_card as cards
from eo_keras.runs import event_files
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.tasks.predictor import Predictor
from eo_keras.training import epoch as epochs
from eo_keras.training import step as stepping
from eo_keras.training import tensorboard
from eo_keras.training import train as training
from eo_keras.training.options import ClassificationOptions, OptimizerOptions
from eo_keras.training.trainer import Trainer


@pytest.fixture
def options(short_training):
    return short_training


def weights_of(model):
    return [np.asarray(weight) for weight in model.get_weights()]


def assert_same_weights(one, other):
    for first, second in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.fixture(params=["finished", "finished_on_tiles"])
def ended(request):
    """A finished run of each task: its options, its report, and the lines that it reported."""
    return request.getfixturevalue(request.param)


def test_run_folder_is_as_the_design_says(ended):
    options, report, lines = ended
    folder = pathlib.Path(options.run_dir)
    assert {path.name for path in folder.iterdir()} == {
        "flags.txt",
        "environment.json",
        "model_card.json",
        "model.keras",
        "history.csv",
        "training_curves.png",
        "tensorboard",
        "checkpoints",
        ".eo_keras.json",
    }
    assert (folder / "flags.txt").read_text() == f"--model={options.model}\n"
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["tensorflow"] == tf.__version__ and environment["devices"]
    card, data = report.card, cards.read_data_card(options.records_dir)
    scores = [metric.column for metric in tasks.of(data).metrics]
    history = (folder / "history.csv").read_text().splitlines()
    assert history[0].split(",")[:5] == ["epoch", "step", "loss", "accuracy", "val_loss"]
    assert set(history[0].split(",")) == set(report.history[0]) >= set(scores)
    assert [line.split(",")[:2] for line in history[1:]] == [["1", "4"], ["2", "8"], ["3", "12"]]
    assert len([line for line in lines if line.startswith("epoch")]) == 3
    assert any(("held out by key" if "val" not in data.splits else "the split val") in line for line in lines)
    assert card == model_cards.read_model_card(folder) and card.task == data.task
    assert (card.bands, card.dtype, card.patch_size) == (("B04", "B03", "B02"), data.dtype, 64)
    assert card.data_fingerprint == data.fingerprint and card.legend == data.legend
    assert card.normalisation["mean"] == tuple(entry.mean for entry in data.statistics)


def test_the_best_epoch_is_kept(ended):
    options, report, _ = ended
    run, records = runs.open_run(options.run_dir), pipelines.RecordDataset(options.records_dir)
    task = tasks.of(records.card)
    best = max(report.history, key=lambda row: (row[task.monitor.column], -row["val_loss"]))
    selection = report.card.selection
    assert (selection["metric"], selection["epoch"]) == (task.monitor.name, best["epoch"])
    assert selection["value"] == best[task.monitor.column]
    split, part = ("val", None) if "val" in records.card.splits else ("train", subsets.holdout(0.2, options.seed)[1])
    dataset = pipelines.evaluation(records, pipelines.PipelineOptions(16), split, part=part, with_keys=True)
    predicted = Predictor(run.model, task, run.card.legend.class_names)(records, dataset).predictions
    if task.name == "classification":
        assert 15 < len(predicted.labels) < 55
        assert predicted.accuracy() == pytest.approx(best["val_accuracy"], abs=1e-9)
        assert predicted.cross_entropy() == pytest.approx(best["val_loss"], rel=1e-4)
    else:
        assert predicted.cross_entropy == pytest.approx(best["val_loss"], rel=1e-4)


def test_the_kept_model_is_plain(ended):
    options, _, _ = ended
    run = runs.open_run(options.run_dir)
    assert run.model.input.dtype == run.card.dtype and run.model.output.dtype == "float32"
    assert not any(getattr(layer, "synchronized", False) for layer in run.model.layers)


def test_tensorboard_shows_scalars_and_pictures(ended):
    options, report, _ = ended
    read = {}
    for name in ("train", "validation"):
        folder = pathlib.Path(options.run_dir) / "tensorboard" / name
        read[name] = EventAccumulator(str(folder), {"tensors": 0, "images": 0}).Reload()
    train, validation = (set(read[name].Tags()["tensors"]) for name in read)
    metrics = {f"epoch/{metric.name}" for metric in tasks.of(report.card).metrics}
    # Equal tags of two runs are one chart.
    assert train & validation == {"epoch/loss", "epoch/accuracy"}
    assert train - validation == {
        *("epoch/images_per_second", "epoch/learning_rate", "step/loss", "step/learning_rate", "flags"),
    }
    assert validation - train == {"confusion_matrix", "samples", *metrics} - train
    for name, column in (("train", "loss"), ("validation", "val_loss")):
        found = read[name].Tensors("epoch/loss")
        assert [event.step for event in found] == [1, 2, 3]
        shown = [tf.make_ndarray(event.tensor_proto).item() for event in found]
        np.testing.assert_allclose(shown, [row[column] for row in report.history], rtol=1e-6)
    assert [event.step for event in read["train"].Tensors("step/learning_rate")] == list(range(1, 13))
    width, height, png = tf.make_ndarray(read["validation"].Tensors("samples")[0].tensor_proto)
    assert tf.io.decode_png(png).shape[:2] == (int(height), int(width)) and int(width) < 1300


def test_steps_are_shown_while_an_epoch_is_under_way_and_once_after_a_resumption(tmp_path):
    output = runs.output_folder(tmp_path / "run")
    points = [(step, {"loss": 1 / step, "learning_rate": 0.1}) for step in range(1, 41)]

    def shown():
        events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "train"), {"tensors": 0}).Reload()
        return [event.step for event in events.Tensors("step/loss")]

    monitor = tensorboard.TensorBoardLogger(output)
    monitor.epoch({"epoch": 1, "loss": 1.0}, points[:10], {})
    monitor.steps(2, points[10:20])
    assert shown() == list(range(1, 21))
    live = tmp_path / "run" / "tensorboard" / "train" / event_files.STEPS.format(2)
    node = live.stat().st_ino
    monitor.steps(2, points[10:25])
    # A running TensorBoard holds the file open.
    assert shown() == list(range(1, 26)) and live.stat().st_ino == node
    live.write_bytes(live.read_bytes()[:-7])  # Killed in the middle of a line.
    tensorboard.TensorBoardLogger.cut(output, 1)
    assert shown() == list(range(1, 11))
    monitor = tensorboard.TensorBoardLogger(output)
    monitor.steps(2, points[10:22])
    monitor.epoch({"epoch": 2, "loss": 1.0}, points[10:40], {})
    assert shown() == list(range(1, 41)) and output.foreign() == []


def test_of_equally_right_epochs_the_one_of_lower_loss_ranks_higher():
    def rank(accuracy, loss):
        return epochs.rank({"val_accuracy": accuracy, "val_loss": loss}, ACCURACY)

    assert rank(0.9, 0.2) > rank(0.9, 0.3) > rank(0.89, 0.1)


def test_what_a_resumed_run_refuses(options, finished, tmp_path):
    resume = dataclasses.replace(finished[0], resume=True)
    with pytest.raises(RunError, match="started with `epochs=3`, not `epochs=4`.*`flagfile="):
        training.train(dataclasses.replace(resume, epochs=4))
    with pytest.raises(RunError, match="no checkpoint to go on from"):
        training.train(dataclasses.replace(resume, run_dir=str(tmp_path / "none")))
    lines = []
    assert training.train(resume, report=lines.append).resumed_from == 12
    assert lines[-1] == "all 3 epochs are already done"


def test_a_folder_in_which_no_run_can_begin(options, finished, tmp_path):
    with pytest.raises(RunError, match="holds another run.*`resume"):
        training.train(finished[0])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="'notes.txt', which this program did not write.*`overwrite"):
        training.train(dataclasses.replace(options, run_dir=str(tmp_path)))


def test_overwrite_replaces_the_run_and_without_validation_the_last_epoch_is_kept(options, tmp_path):
    folder = tmp_path / "run"
    first = dataclasses.replace(options, run_dir=str(folder), epochs=1, steps_per_epoch=1)
    first = dataclasses.replace(first, optimizer=OptimizerOptions(warmup_epochs=0), validation_from_train=0)
    training.train(first)
    again = dataclasses.replace(first, overwrite=True, epochs=2)
    report = training.train(again)
    assert len(report.history) == 2 and report.history[0]["val_accuracy"] is None
    assert report.card.selection == {"split": None, "metric": None, "value": None, "epoch": 2}
    last = runs.load_model(folder / runs.LAST_MODEL_NAME)
    assert_same_weights(runs.open_run(folder).model, last)


def test_progressive_sizes_and_the_moving_average(options, tmp_path, monkeypatch):
    options = dataclasses.replace(
        options,
        run_dir=str(tmp_path / "r"),
        epochs=2,
        classification=ClassificationOptions(progressive_sizes=(32,), progressive_epochs=(1,)),
        ema=0.9,
    )
    seen = []
    original = stepping.TrainStep.step

    def spy(self, image, label):
        seen.append((tuple(image.shape), self))
        return original(self, image, label)

    monkeypatch.setattr(stepping.TrainStep, "step", spy)
    report = training.train(options)
    assert [shape for shape, _ in seen] == [(16, 32, 32, 3), (16, 64, 64, 3)]  # Traced once for each size.
    trained = seen[0][1]
    last = runs.load_model(tmp_path / "r" / runs.LAST_MODEL_NAME)
    averages = [average.numpy() for average in trained._averages]
    for kept, average in zip(last.get_weights(), averages, strict=True):
        np.testing.assert_array_equal(kept, average)
    assert any(
        np.abs(average - weight.numpy()).max() > 1e-4
        for average, weight in zip(averages, trained._whole.weights, strict=True)
    )
    assert last.input_shape == (None, 64, 64, 3) and len(report.history) == 2


def test_the_moving_average_by_hand(options, tmp_path):
    options = dataclasses.replace(options, run_dir=str(tmp_path), ema=0.5)
    trainer = Trainer(options, pipelines.RecordDataset(options.records_dir), tf.distribute.get_strategy())
    trainer.train_step.enter(trainer.phases[0])
    expected = [weight.numpy() for weight in trainer.network.model.weights]
    for step, batch in enumerate(trainer.data.train.steps_from(0, 3), 1):
        trainer.train_step.step(*batch)
        decay = min(0.5, (1 + step) / (10 + step))
        values = [weight.numpy() for weight in trainer.network.model.weights]
        expected = [decay * one + (1 - decay) * other for one, other in zip(expected, values, strict=True)]
    for average, value in zip(trainer.network.averages, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_reduced_precision_trains_and_a_model_of_full_precision_is_kept(options, tmp_path, policy):
    options = dataclasses.replace(
        options, run_dir=str(tmp_path / "r"), dtype_policy=policy, epochs=2, steps_per_epoch=2
    )
    report = training.train(options)
    assert all(np.isfinite(row["loss"]) for row in report.history)
    run = runs.open_run(tmp_path / "r")
    assert {layer.compute_dtype for layer in run.model.layers if layer.weights} == {"float32"}
    trainer = Trainer(options, pipelines.RecordDataset(options.records_dir), tf.distribute.get_strategy())
    before = weights_of(trainer.network.model)
    trainer.train_step.enter(trainer.phases[0])
    trainer.train_step.step(*next(iter(trainer.data.train.steps_from(0, 1))))
    assert any((one != other).any() for one, other in zip(before, weights_of(trainer.network.model), strict=True))


def test_nan_ends_the_run_and_the_step_is_named(options, tmp_path):
    optimizer = OptimizerOptions(learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(TrainingError, match=r"step [2-6] \(epoch [12]\): the loss is (nan|inf)"):
        training.train(dataclasses.replace(options, run_dir=str(tmp_path / "r"), optimizer=optimizer))


def test_a_full_disk(options, tmp_path, monkeypatch):
    def full(self, path, *arguments, **keywords):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(StorageError, match="no room is left"):
        training.train(dataclasses.replace(options, run_dir=str(tmp_path / "r"), epochs=2, steps_per_epoch=1))
    assert not (tmp_path / "r" / "model.keras").exists() and not (tmp_path / "r" / "model_card.json").exists()
    with pytest.raises(RunError, match="there is no such file|holds no model_card.json"):
        runs.open_run(tmp_path / "r")


def test_a_run_folder_in_use(options, tmp_path):
    with runs.files.FolderLock(tmp_path, RunError):
        with pytest.raises(RunError, match="another process is writing"):
            training.train(dataclasses.replace(options, run_dir=str(tmp_path)))


def test_dry_run_checks_and_writes_nothing(options, tmp_path):
    lines = []
    assert (
        training.train(dataclasses.replace(options, run_dir=str(tmp_path / "r")), report=lines.append, dry_run=True)
        is None
    )
    assert not (tmp_path / "r").exists() and any("3 epochs of 4 steps" in line for line in lines)
    with pytest.raises(BandError, match="does not hold B08"):
        training.train(dataclasses.replace(options, run_dir=str(tmp_path / "r"), bands="CI"), dry_run=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "epochs: 0"),
        ({"ema": 1.0}, "ema: 1.0"),
        ({"validation_from_train": -0.1}, "validation_from_train: -0.1"),
        ({"resume": True, "overwrite": True}, "resume: it is given together"),
        ({"strategy": "none", "virtual_devices": 2}, "strategy: none, with 2 virtual devices"),
        ({"classification": {"progressive_sizes": (32,)}}, "1 sizes and 0 numbers of epochs"),
        ({"classification": {"progressive_sizes": (16,), "progressive_epochs": (1,)}}, "progressive_sizes: 16"),
        ({"classification": {"progressive_sizes": (32,), "progressive_epochs": (3,)}}, "leave at least one epoch"),
    ],
)
def test_options_that_cannot_work(options, change, words):
    with pytest.raises(OptionError, match=words):
        if "classification" in change:
            change = {"classification": ClassificationOptions(**change["classification"])}
        dataclasses.replace(options, **change)


def test_sizes_that_are_no_smaller(options, tmp_path):
    options = dataclasses.replace(
        options,
        run_dir=str(tmp_path),
        classification=ClassificationOptions(progressive_sizes=(64,), progressive_epochs=(1,)),
    )
    with pytest.raises(OptionError, match="progressive_sizes: 64; expected less than the patches' 64"):
        training.train(options, dry_run=True)
