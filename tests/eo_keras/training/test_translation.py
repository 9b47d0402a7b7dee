"""A stand-in for a sensor: what it learns, its run folder, evaluation and export with it, resuming, what is refused."""

import contextlib
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from eo_keras.data.augment.options import CropAugmentation
from eo_keras.data.pipeline import RecordDataset
from eo_keras.errors import OptionError, RunError
from eo_keras.evaluation import evaluate as evaluation
from eo_keras.evaluation.options import EvaluationOptions
from eo_keras.models import discriminator
from eo_keras.records.data_card import read_data_card
from eo_keras.runs import folder as runs
from eo_keras.runs.stand_in import read_stand_in
from eo_keras.serving import saved_model
from eo_keras.tasks.options import PretextOptions
from eo_keras.training import train as training
from eo_keras.training.options import OptimizerOptions, SegmentationOptions, TrainingOptions
from eo_keras.training.validate import validate
from tests.harness import modalities, tiny

BANDS = "s1:all;height:all"
"""Class 2 has strong backscatter and is high: heights can be told from backscatter."""


@pytest.fixture(scope="module")
def records_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("modal") / "records"
    modalities.write(path, {"train": 32, "val": 8, "test": 8}, lacking={1: ("height",)})
    return path


def options(records_dir, run_dir, **others):
    tiny.register()
    chosen = {
        "model": tiny.UNET,
        "bands": BANDS,
        "batch_size": 8,
        "epochs": 2,
        "steps_per_epoch": 20,
        "optimizer": OptimizerOptions("adamw", 0.01),
        "segmentation": SegmentationOptions(
            augmentation=CropAugmentation(crop=modalities.SIZE, scale_min=1.0, scale_max=1.0)
        ),
    }
    return TrainingOptions(str(records_dir), str(run_dir), **(chosen | others))


def stand_in(records_dir, run_dir, **others):
    chosen = {"pretraining": PretextOptions("translated", translated_sensor="height"), "model": tiny.UNET}
    return options(records_dir, run_dir, **(chosen | others))


@contextlib.contextmanager
def narrow_discriminator():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discriminator, "WIDTHS", (4, 8, 8, 8))
        yield


@pytest.fixture(scope="module")
def trained(records_dir, tmp_path_factory):
    """A stand-in for heights, and a model of both sensors."""
    folder, lines = tmp_path_factory.mktemp("runs"), []
    with narrow_discriminator():
        report = training.train(stand_in(records_dir, folder / "stand_in"), report=lines.append)
    training.train(options(records_dir, folder / "both", fusion="early"))
    return folder, report, lines


def test_heights_are_predicted_from_backscatter(trained):
    folder, report, lines = trained
    assert "bands:  image: VV,VH, float32 in dB, 64x64 pixels" in lines[1]
    assert lines[2] == "predicts: height: HEIGHT, float32 in m, 32x32 pixels; 1 training examples lack it"
    first, last = report.history[0], report.history[-1]
    assert last["val_explained_variance"] > 0.5
    assert {"absolute_error", "adversarial_loss", "discriminator_loss"} <= set(last)
    assert last["absolute_error"] < first["absolute_error"]
    assert last["loss"] == pytest.approx(last["absolute_error"] + 0.01 * last["adversarial_loss"], rel=1e-4)
    # ln 2 is what a discriminator attains that tells nothing.
    assert 0 < last["discriminator_loss"] < np.log(2) + 0.1
    run = runs.open_run(folder / "stand_in")
    (predicted,) = run.card.predicted
    assert (predicted.name, predicted.bands, run.card.channels) == ("height", ("HEIGHT",), 1)
    with pytest.raises(
        RunError, match=r"trained without labels \(`pretext=translated`\).*Give it to one by `stand_in="
    ):
        evaluation.evaluate(run, RecordDataset(run.card.flags["records_dir"]))


def test_it_stands_in_where_the_sensor_is_missing(trained, records_dir):
    folder, *_ = trained
    run, records = runs.open_run(folder / "both"), RecordDataset(records_dir)

    def found(**chosen):
        return evaluation.evaluate(run, records, EvaluationOptions(resamples=100, **chosen))

    whole, without = found(), found(without=("height",))
    predicted = found(without=("height",), stand_in=str(folder / "stand_in"))
    masks = _by_hand(run, runs.open_run(folder / "stand_in"))
    true = np.stack([modalities.images_of(number)[0] for number in range(40, 48)])
    assert predicted.scores.value("accuracy") == pytest.approx((masks == true).mean(), abs=1e-3)
    assert predicted.scores.value("accuracy") != without.scores.value("accuracy")
    assert predicted.options.name == "test-without-height-stand-in"
    same = found(stand_in=str(folder / "stand_in"))
    assert same.scores.value("miou") == pytest.approx(whole.scores.value("miou"))


def _by_hand(run, generator):
    """Masks of the test examples without their heights, of which the stand-in's predictions take the place."""
    (given,) = generator.card.predicted
    mean, std = (given.normalisation[name][0] for name in ("mean", "std"))
    masks = []
    for number in range(40, 48):
        radar = modalities.images_of(number)[1]["s1"][None]
        heights = np.asarray(generator.model(radar))
        heights = heights.reshape(1, 32, 2, 32, 2, 1).mean(axis=(2, 4)) * std + mean
        masks.append(np.asarray(run.model({"s1": radar, "height": heights.astype(np.float32)})).argmax(-1))
    return np.concatenate(masks)


def test_the_export_completes_images_too(trained, records_dir, tmp_path):
    folder, *_ = trained
    run = runs.open_run(folder / "both")
    report = saved_model.export(run, tmp_path / "a", stand_in=folder / "stand_in")
    served = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    radar = np.stack([modalities.images_of(number)[1]["s1"] for number in range(40, 48)])
    nothing = np.full((8, 32, 32, 1), np.nan, np.float32)
    found = served(s1=tf.constant(radar), height=tf.constant(nothing))["class_id"].numpy()
    assert (found == _by_hand(run, runs.open_run(folder / "stand_in"))).mean() > 0.999
    text = (report.path / "assets.extra" / "model_card.json").read_text()
    assert '"stand_in": {' in text and '"sensor": "height"' in text


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.0, 0.01])
def test_a_resumed_run_is_the_uninterrupted_one(records_dir, tmp_path, weight):
    own = PretextOptions("translated", translated_sensor="height", adversarial_weight=weight)
    chosen = stand_in(records_dir, tmp_path / "a", pretraining=own, epochs=2, steps_per_epoch=3)
    steps = iter(range(9))
    with narrow_discriminator():
        training.train(chosen)
        stopped = dataclasses.replace(chosen, run_dir=str(tmp_path / "b"))
        assert training.train(stopped, stop=lambda: next(steps) == 3).stopped
        training.train(dataclasses.replace(stopped, resume=True))
    for one, other in zip(*(runs.open_run(tmp_path / name).model.weights for name in "ab"), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_what_does_not_fit_is_refused(trained, records_dir, tmp_path):
    folder, *_ = trained
    card = runs.open_run(folder / "both").card
    with pytest.raises(
        RunError, match="both: its model predicts no images of a sensor; expected the run of a stand-in"
    ):
        read_stand_in(folder / "both", card)
    other = dataclasses.replace(card, data_fingerprint="0" * 64)
    with pytest.raises(RunError, match="it may have seen what the model is tested on"):
        read_stand_in(folder / "stand_in", other)
    alone = dataclasses.replace(card, inputs=card.inputs[:1])
    with pytest.raises(RunError, match="it predicts height:HEIGHT; expected an input of the model, which has none"):
        read_stand_in(folder / "stand_in", alone)
    fewer = dataclasses.replace(card, inputs=(dataclasses.replace(card.inputs[0], bands=("VV",)), card.inputs[1]))
    with pytest.raises(RunError, match="it takes s1:VV,VH; expected an input of the model, which has s1:VV"):
        read_stand_in(folder / "stand_in", fewer)
    data = read_data_card(records_dir)
    for changes, told in (
        ({"modality_dropout": 0.3}, "modality_dropout: 0.3, which does not apply to the training of a stand-in"),
        ({"bands": "height:all"}, "translated_sensor: 'height' of bands of height; expected one sensor of two or more"),
        ({"label_smoothing": 0.1}, "label_smoothing: 0.1, which does not apply to training without labels"),
    ):
        with pytest.raises(OptionError, match=told):
            validate(stand_in(records_dir, "", **changes), data)
    with pytest.raises(OptionError, match="translated_sensor: none; expected the sensor to predict"):
        PretextOptions("translated")
    with pytest.raises(OptionError, match="translated_sensor: s2 without `pretext=translated`"):
        PretextOptions(translated_sensor="s2")
