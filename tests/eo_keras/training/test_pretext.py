"""Pre-training without labels: what it learns, its run folder, resuming, and the network that starts from it."""

import dataclasses

import numpy as np
import pytest

from eo_keras import tasks
from eo_keras.data.augment.options import CropAugmentation
from eo_keras.data.pipeline import RecordDataset
from eo_keras.errors import OptionError, RunError
from eo_keras.evaluation import evaluate as evaluate
from eo_keras.mapping.predictors import read_card
from eo_keras.records.data_card import read_data_card
from eo_keras.runs import folder as runs
from eo_keras.serving import saved_model
from eo_keras.tasks.options import PretextOptions
from eo_keras.training import train as training
from eo_keras.training.options import OptimizerOptions, SegmentationOptions, TrainingOptions
from eo_keras.training.validate import validate
from tests.harness import modalities, tiny

BANDS = "s1:all;height:all"
"""Both show one class of three, in cells of 16 pixels that say nothing of each other: a masked cell can be told from
the other sensor alone."""


@pytest.fixture(scope="module")
def records_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("modal") / "records"
    modalities.write(path, {"train": 32, "val": 8, "test": 4}, lacking={1: ("s1",)})
    return path


def options(records_dir, run_dir, **others):
    tiny.register()
    chosen = {
        "model": tiny.UNET,
        "bands": BANDS,
        "fusion": "early",
        "batch_size": 8,
        "epochs": 3,
        "steps_per_epoch": 20,
        "optimizer": OptimizerOptions("adamw", 0.01),
        "segmentation": SegmentationOptions(
            augmentation=CropAugmentation(crop=modalities.SIZE, scale_min=1.0, scale_max=1.0)
        ),
        "pretraining": PretextOptions("masked", mask_size=16, mask_ratio=0.5),
    }
    return TrainingOptions(str(records_dir), str(run_dir), **(chosen | others))


def short(records_dir, run_dir, **others):
    return options(records_dir, run_dir, **({"epochs": 2, "steps_per_epoch": 3} | others))


@pytest.fixture(scope="module")
def trained(records_dir, tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("runs") / "a", []
    report = training.train(options(records_dir, folder), report=lines.append)
    return runs.open_run(folder), report, lines


def test_masked_numbers_are_told_from_the_other_sensor(trained):
    run, report, lines = trained
    last = report.history[-1]
    assert last["val_explained_variance_s1"] > 0.2 and last["val_explained_variance_height"] > 0.2
    both = [last[f"val_explained_variance_{name}"] for name in ("s1", "height")]
    assert last["val_explained_variance"] == pytest.approx(np.mean(both))
    assert last["accuracy"] is None and last["val_loss"] < report.history[0]["val_loss"]
    assert lines[-1].startswith("epoch   3: loss 0.") and "accuracy" not in lines[-1]
    assert "explained variance" in lines[-1]
    assert run.history[-1]["val_explained_variance"] == pytest.approx(last["val_explained_variance"])
    assert (run.folder / runs.CURVES_NAME).is_file()


@pytest.mark.slow
def test_pairs_that_do_not_belong_together_teach_nothing(tmp_path, monkeypatch):
    true = modalities.images_of

    def shuffled(number):
        mask, images = true(number)
        return mask, images | {"height": true(number + 1000)[1]["height"]}

    monkeypatch.setattr(modalities, "images_of", shuffled)
    modalities.write(tmp_path / "records", {"train": 32, "val": 8})
    report = training.train(options(tmp_path / "records", tmp_path / "run"))
    assert report.history[-1]["val_explained_variance"] < 0.05


@pytest.mark.slow
def test_labels_are_not_read_into_the_loss(records_dir, tmp_path, monkeypatch):
    """Other masks in the same records, whose card differs by its counts of classes alone: the same weights."""
    true, weights = modalities.images_of, []
    for name in ("a", "b"):
        if name == "b":
            monkeypatch.setattr(modalities, "images_of", lambda number: (0 * true(number)[0], true(number)[1]))
        modalities.write(tmp_path / name, {"train": 8, "val": 8})
        run = tmp_path / f"run-{name}"
        training.train(short(tmp_path / name, run, epochs=1))
        weights.append(runs.open_run(run).model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(records_dir, tmp_path):
    chosen = short(records_dir, tmp_path / "a", model=tiny.SEGMENTER, fusion="attention")
    steps = iter(range(9))
    whole = training.train(chosen)
    stopped = dataclasses.replace(chosen, run_dir=str(tmp_path / "b"))
    assert training.train(stopped, stop=lambda: next(steps) == 3).stopped
    again = training.train(dataclasses.replace(stopped, resume=True))
    for one, other in zip(*(runs.open_run(tmp_path / name).model.weights for name in "ab"), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    timed = {"seconds", "images_per_second"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in again.history] == [
        {k: v for k, v in row.items() if k not in timed} for row in whole.history
    ]
    other = dataclasses.replace(stopped, resume=True, pretraining=PretextOptions("masked", mask_size=8, mask_ratio=0.5))
    with pytest.raises(RunError, match="started with `mask_size=16`, not `mask_size=8`"):
        training.train(other)


def test_a_segmentation_network_starts_from_it(trained, records_dir, tmp_path):
    run, *_ = trained
    lines = []
    chosen = short(records_dir, tmp_path / "b", pretraining=PretextOptions(), train_fraction=0.5)
    own = dataclasses.replace(chosen.segmentation, backbone_run=str(run.folder))
    # So small a rate that the weights stay where they start.
    slow = OptimizerOptions("sgd", 1e-12, weight_decay=0.0)
    training.train(
        dataclasses.replace(chosen, segmentation=own, optimizer=slow, epochs=1, steps_per_epoch=1),
        report=lines.append,
    )
    assert "data:   modal, 16 training examples, kept in memory" in lines
    assert any("1 layers start from random weights (logits)" in line for line in lines)
    assert "backbone: has seen none of the 4 test examples, compared by pixels" in lines
    after = runs.open_run(tmp_path / "b").model
    assert after.output_shape[-1] == 3
    given = {one.path: one.numpy() for one in run.model.weights}
    own = {one.path: one.numpy() for one in after.weights if not one.name.startswith("moving_")}
    taken = own.keys() & given.keys()
    for path in taken:
        np.testing.assert_allclose(own[path], given[path], atol=1e-6)
    assert {path.split("/")[0] for path in own.keys() - taken} == {"logits"}
    assert {path.split("/")[0] for path in given.keys() - {one.path for one in after.weights}} == {"reconstruction"}


def test_one_that_has_seen_the_test_images_is_refused(trained, tmp_path):
    """The records of another split, whose test images this run was trained on."""
    run, *_ = trained
    other = tmp_path / "records"
    modalities.write(other, {"test": 4, "train": 8, "val": 8})
    chosen = short(other, tmp_path / "b", fusion="early", pretraining=PretextOptions())
    own = dataclasses.replace(chosen.segmentation, backbone_run=str(run.folder))
    with pytest.raises(RunError, match="it was trained on the ground of 4 examples that .* tests on"):
        training.train(dataclasses.replace(chosen, segmentation=own), dry_run=True)


def test_it_predicts_no_classes(trained, records_dir, tmp_path):
    run, *_ = trained
    assert run.card.pretext == "masked" and run.card.channels == run.model.output_shape[-1] == 3
    told = r"trained without labels \(`pretext=masked`\) and predicts no classes.*`backbone_run="
    for call in (
        lambda: evaluate.evaluate(run, RecordDataset(records_dir)),
        lambda: saved_model.export(run, tmp_path / "export"),
        lambda: read_card(run.folder),
        lambda: tasks.of(run.card),
    ):
        with pytest.raises(RunError, match=told):
            call()


def test_what_does_not_fit_is_refused(records_dir, rgb_records):
    card = read_data_card(records_dir)
    for changes, told in (
        (
            {"segmentation": SegmentationOptions(loss="dice")},
            "loss: dice, which does not apply to training without labels",
        ),
        ({"label_smoothing": 0.1}, "label_smoothing: 0.1, which does not apply to training without labels"),
        ({"pretraining": PretextOptions("masked", mask_size=1)}, "mask_size: 1 pixels, less than one of the coarsest"),
    ):
        with pytest.raises(OptionError, match=told):
            validate(short(records_dir, "", **changes), card)
    with pytest.raises(OptionError, match="mask_ratio: 0.7 without `pretext=masked`; expected `pretext=masked`"):
        PretextOptions(mask_ratio=0.7)
    patches = TrainingOptions(
        str(rgb_records), "", model=tiny.CLASSIFIER, pretraining=PretextOptions("masked"), batch_size=8
    )
    with pytest.raises(OptionError, match="pretext: masked on records of patches, whose networks have no decoder"):
        validate(patches, read_data_card(rgb_records))
