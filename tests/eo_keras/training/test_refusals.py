"""What training refuses before it begins and what it warns of: options, batches, numbers that are not finite."""

import dataclasses
import functools
import math

import numpy as np
import pytest

from eo_keras import models, tasks
from eo_keras.data import pipeline as pipelines
from eo_keras.data import subsets
from eo_keras.data.augment.crops import CropAugmentation
from eo_keras.data.augment.patches import Augmentation
from eo_keras.errors import OptionError, TrainingError
from eo_keras.metrics.metric import ACCURACY
from eo_keras.records import data_card as cards
from eo_keras.runs import folder as runs
from eo_keras.training import distribution, moments
from eo_keras.training import epoch as epochs
from eo_keras.training import train as training
from eo_keras.training.optimizers import OptimizerOptions, make_schedule
from eo_keras.training.options import SegmentationOptions, TrainingOptions, check_task
from tests.harness.networks import network_spec

PARTS = (TrainingOptions("", ""), SegmentationOptions(), Augmentation(), CropAugmentation())


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
    options = frozenset.union(*(tasks.get(name).options for name in tasks.TASKS))
    assert options <= {name for part in PARTS for name in vars(part)}
    check_task(short_training, card)
    of_maps = {"loss": "focal", "class_weights": "median_frequency", "effective_beta": 0.5, "focal_gamma": 1.0}
    of_maps |= {"output_stride": 8, "backbone_run": "runs/a"}
    crops = {"crop": 32, "scale_min": 0.9, "scale_max": 1.1, "jitter": 0.2}
    for changes, kind in ((of_maps, SegmentationOptions), (crops, CropAugmentation)):
        for name, value in changes.items():
            changed = kind(**{name: value})
            if kind is CropAugmentation:
                changed = SegmentationOptions(augmentation=changed)
            with pytest.raises(OptionError, match=f"{name}: it does not apply to records of one class an image"):
                check_task(dataclasses.replace(short_training, segmentation=changed), card)
    tiles = dataclasses.replace(card, task="segmentation")
    maps = dataclasses.replace(short_training, model="deeplab_resnet14")
    check_task(maps, tiles)
    of_patches = [{"aux_weight": 0.1}, {"progressive_sizes": (32,), "progressive_epochs": (1,)}]
    of_patches += [{"augmentation": Augmentation(**one)} for one in ({"shift": 2}, {"brightness": 0.2}, {"cutout": 4})]
    for change in (*of_patches, {"augmentation": None}):
        with pytest.raises(OptionError, match="it does not apply to records of one class a pixel"):
            check_task(dataclasses.replace(maps, **change), tiles)
    # Turning and mirroring is for both.
    check_task(dataclasses.replace(maps, augmentation=Augmentation(d4=False)), tiles)


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
        short_training, run_dir=str(tmp_path / "run"), progressive_sizes=(32,), progressive_epochs=(1,)
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
    trainer = training._Training.__new__(training._Training)
    trainer.options = dataclasses.replace(short_training, cache_gb=kept_gb)
    trainer.records = pipelines.RecordDataset(trainer.options.records_dir)
    trainer.card, trainer.bands = trainer.records.card, trainer.records.card.bands
    trainer.task = tasks.of(trainer.card)
    trainer.worker = distribution.ALONE
    trainer._open_pipelines()
    assert limits == [int(kept_gb * 1e9) - trainer.pipeline.kept_bytes]
    assert (trainer.pipeline.kept_bytes > 0) == (kept_gb > 0)
