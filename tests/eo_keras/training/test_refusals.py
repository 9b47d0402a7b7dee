"""What training refuses before it begins and what it warns of: options, batches, numbers that are not finite."""

import dataclasses
import functools
import math

import numpy as np
import pytest

from eo_keras import models
from eo_keras.core.serialization import to_json
from eo_keras.data import pipeline as pipelines
from eo_keras.data import subsets
from eo_keras.data.augment.options import NO_AUGMENTATION, Augmentation, CropAugmentation
from eo_keras.errors import OptionError, RunError, TrainingError
from eo_keras.metrics.metric import ACCURACY
from eo_keras.records import data_card as cards
from eo_keras.records.inputs import parse_inputs
from eo_keras.runs import folder as runs
from eo_keras.training import epoch as epochs
from eo_keras.training import moments
from eo_keras.training import train as training
from eo_keras.training.optimizers import make_schedule
from eo_keras.training.options import (
    ClassificationOptions,
    OptimizerOptions,
    SegmentationOptions,
    check_resumable,
    stored_options,
)
from eo_keras.training.setup import DataOptions, TrainingData
from eo_keras.training.validate import validate
from tests.harness.networks import network_spec


def test_an_epoch_that_is_not_finite_is_the_worst():
    best = {"val_accuracy": 0.2, "val_loss": 2.0}
    for bad in ({"val_accuracy": 0.2, "val_loss": math.nan}, {"val_accuracy": math.nan, "val_loss": 1.0}):
        assert epochs.rank(best, ACCURACY) > epochs.rank(bad, ACCURACY)
        assert epochs.rank(bad, ACCURACY) < epochs.rank({"val_accuracy": 0.0, "val_loss": 9.0}, ACCURACY)


@pytest.mark.parametrize("validated", [True, False])
def test_weights_that_the_last_step_ruins_are_an_error(short_training, tmp_path, validated):
    optimizer = OptimizerOptions(learning_rate=1e30, warmup_epochs=0)
    options = dataclasses.replace(
        short_training,
        run_dir=str(tmp_path / "run"),
        epochs=1,
        steps_per_epoch=1,
        optimizer=optimizer,
        validation_from_train=0.2 if validated else 0.0,
    )
    what = r"validation's loss is nan|the probability of a class after its last step is not finite"
    with pytest.raises(TrainingError, match=rf"epoch 1: ({what}).*lower learning_rate"):
        training.train(options)
    assert not (tmp_path / "run" / runs.MODEL_NAME).exists()


def test_options_of_another_task_are_refused(short_training, rgb_records):
    card = cards.read_data_card(rgb_records)
    validate(short_training, card)
    of_pixels = [{"loss": "focal"}, {"class_weights": "median_frequency"}, {"effective_beta": 0.5}]
    of_pixels += [{"focal_gamma": 1.0}, {"output_stride": 8}, {"backbone_run": "runs/a"}]
    crops = [{"crop": 32}, {"scale_min": 0.9}, {"scale_max": 1.1}, {"band_jitter": 0.2}]
    for change in (*of_pixels, *({"augmentation": CropAugmentation(**one)} for one in crops)):
        changed = dataclasses.replace(short_training, segmentation=SegmentationOptions(**change))
        name = next(iter(change if "augmentation" not in change else crops.pop(0)))
        with pytest.raises(OptionError, match=f"{name}: it does not apply to records of one class an image"):
            validate(changed, card)
    assert not crops
    tiles = dataclasses.replace(card, task="segmentation")
    maps = dataclasses.replace(short_training, model="deeplab_resnet14")
    assert validate(maps, tiles).segmentation.augmentation.crop == card.patch_size
    of_patches = [{"aux_weight": 0.1}, {"progressive_sizes": (32,), "progressive_epochs": (1,)}, {"input_size": 96}]
    changes = ({"max_shift": 2}, {"brightness": 0.2}, {"cutout": 4})
    of_patches += [{"augmentation": one} for one in (*(Augmentation(**change) for change in changes), NO_AUGMENTATION)]
    for change in of_patches:
        with pytest.raises(OptionError, match="it does not apply to records of one class a pixel"):
            validate(dataclasses.replace(maps, classification=ClassificationOptions(**change)), tiles)
    # Rotations and flips are for both.
    validate(dataclasses.replace(maps, classification=ClassificationOptions(Augmentation(dihedral=False))), tiles)


def test_a_head_on_random_features_is_not_trained(short_training, tmp_path):
    options = dataclasses.replace(
        short_training,
        run_dir=str(tmp_path / "run"),
        segmentation=SegmentationOptions(backbone_run="runs/cls"),
        head_epochs=1,
        frozen_batch_norm=True,
    )
    with pytest.raises(OptionError, match="backbone_run: it does not apply"):
        training.train(options, dry_run=True)


@pytest.mark.parametrize(
    ("name", "size", "batch", "values"),
    [("deeplab_resnet14", 64, 1, 1), ("deeplab_resnet14", 64, 3, 3), ("resnet14", 32, 1, 1), ("resnet14", 64, 1, 4)],
)
def test_batch_normalisation_has_several_values(name, size, batch, values):
    model = built(name)
    layer = "aspp_mean_bn in the branch that sees the mean" if name == "deeplab_resnet14" else "conv5_block1_1_bn"
    assert moments.check_batch(model, size, 4) is None
    if values == 1:
        with pytest.raises(OptionError, match=f"batch_size: 1: the batch normalisation {layer}.* would have one value"):
            moments.check_batch(model, size, batch)
    elif values < 4:
        assert f"{layer} of the whole image takes its moments over {values}" in moments.check_batch(model, size, batch)
    else:
        assert moments.check_batch(model, size, batch) is None


@functools.cache
def built(name):
    return models.build(name, network_spec(num_classes=3, dtype="uint8"))[0]


def test_one_epoch_has_half_an_epoch_of_warm_up(short_training, tmp_path):
    lines = []
    options = dataclasses.replace(short_training, run_dir=str(tmp_path / "run"), epochs=1, optimizer=OptimizerOptions())
    training.train(options, dry_run=True, report=lines.append)
    assert [line for line in lines if line.startswith("run:")] == [
        "run:    1 epochs of 4 steps; a warm-up of 0.5 epochs, as the run is short"
    ]
    schedules = [make_schedule(OptimizerOptions(), epochs, 4) for epochs in (1, 2, 30)]
    assert [one.warmup_steps for one in schedules] == [2, 4, 4]
    with pytest.raises(OptionError, match="warmup_epochs: 1 in a run of 1 epochs"):
        make_schedule(OptimizerOptions(warmup_epochs=1.0), 1, 4)


def test_a_run_that_cannot_take_a_step_is_refused_before_it_writes(short_training, tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "shrink", lambda image, size: image[:, :, :, :2])
    options = dataclasses.replace(
        short_training,
        run_dir=str(tmp_path / "run"),
        classification=ClassificationOptions(progressive_sizes=(32,), progressive_epochs=(1,)),
    )
    for dry_run in (True, False):
        with pytest.raises(OptionError, match="training: a step cannot be computed"):
            training.train(options, dry_run=dry_run)
    assert not (tmp_path / "run").exists()


def test_moving_moments_that_describe_nothing_are_told(finished):
    options, _, _ = finished
    run = runs.open_run(options.run_dir)
    records = pipelines.RecordDataset(options.records_dir)
    _, held_out = subsets.holdout(0.2, options.seed)
    dataset = pipelines.evaluation(records, pipelines.PipelineOptions(16), "train", part=held_out)
    batch = next(iter(dataset))
    for layer in run.model.layers:
        if layer.name.endswith("_bn"):
            layer.moving_variance.assign(layer.moving_variance * 1e-4)
    before = run.model.get_weights()
    assert "by the moving moments of batch normalisation" in moments.disagreement(run.model, batch)
    for one, other in zip(before, run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kept_gb", [1.0, 0.0])
def test_one_limit_for_all_that_is_kept_in_memory(short_training, kept_gb, monkeypatch):
    limits = []
    monkeypatch.setattr(
        pipelines, "evaluation", lambda records, options, *_, **__: limits.append(options.cache_limit_bytes)
    )
    records = pipelines.RecordDataset(short_training.records_dir)
    options = DataOptions(16, parse_inputs("all", records.card), 1, None, cache_gb=kept_gb, validation_from_train=0.2)
    data = TrainingData(records, options)
    assert limits == [int(kept_gb * 1e9) - data.train.kept_bytes]
    assert (data.train.kept_bytes > 0) == (kept_gb > 0)


@pytest.mark.parametrize("augmentation", [Augmentation(max_shift=3), NO_AUGMENTATION])
def test_options_that_earlier_versions_stored(short_training, augmentation):
    """Their names, and those of classification beside the others; no augmentation was null."""
    options = dataclasses.replace(short_training, classification=ClassificationOptions(augmentation))
    now = to_json(options)
    before = dict(now)
    before |= before.pop("classification")
    earlier = {"dihedral": "d4", "max_shift": "shift"}
    patches = {earlier.get(name, name): value for name, value in before["augmentation"].items()}
    before["augmentation"] = patches if augmentation else None
    earlier = {"sgd_learning_rate": "other_rate", "final_lr_fraction": "final_rate"}
    before["optimizer"] = {earlier.get(name, name): value for name, value in before["optimizer"].items()}
    earlier = {"dihedral": "symmetries", "band_jitter": "jitter"}
    crops = {earlier.get(name, name): value for name, value in before["segmentation"]["augmentation"].items()}
    before["segmentation"] = before["segmentation"] | {"augmentation": crops}
    for later in ("distance_head", "distance_weight"):
        del before["segmentation"][later]
    assert stored_options(before) == stored_options(now) == now
    # A crop was stored of patches too; the options of another task keep no run from being resumed.
    before["segmentation"]["augmentation"]["crop"] = 256
    check_resumable(options, {"options": before, "data_fingerprint": "f"}, "f")
    with pytest.raises(RunError, match="started with `seed=7`, not `seed=1`"):
        check_resumable(options, {"options": before | {"seed": 7}, "data_fingerprint": "f"}, "f")
    # An option of a later version.
    later = before | {"optimizer": before["optimizer"] | {"sharpness": 2}}
    with pytest.raises(RunError, match=r"with `sharpness=2`, not `sharpness=\(not an option of this version\)`"):
        check_resumable(options, {"options": later, "data_fingerprint": "f"}, "f")
