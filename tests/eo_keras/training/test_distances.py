"""Training of masks and distances together: losses, weights, history, resumption, what is kept and what is refused."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from eo_keras import models, tasks
from eo_keras.data import pipeline as pipelines
from eo_keras.errors import OptionError
from eo_keras.evaluation import evaluate as evaluation
from eo_keras.evaluation.options import EvaluationOptions
from eo_keras.legends.catalogue import IGNORE
from eo_keras.runs import folder as runs
from eo_keras.training import train as training
from eo_keras.training.options import OptimizerOptions, SegmentationOptions
from eo_keras.training.trainer import Trainer
from tests.harness import tiny
from tests.harness.killing import curves

TASKS = ("mask", "distance")
PARTS = ["mask_loss", "distance_loss", "mask_weight", "distance_weight"]


@pytest.fixture
def options(short_distance_training, tmp_path):
    return dataclasses.replace(short_distance_training, run_dir=str(tmp_path / "run"))


def changed(options, **fields):
    return dataclasses.replace(options, segmentation=dataclasses.replace(options.segmentation, **fields))


def trainer_of(options):
    return Trainer(options, pipelines.RecordDataset(options.records_dir), tf.distribute.get_strategy())


def test_both_losses_are_means_over_their_own_labeled_pixels(options):
    card = pipelines.RecordDataset(options.records_dir).card
    weights = tasks.of(card).companion(changed(options, distance_weight=0.5), card)
    loss = tasks.of(card).loss(options, card, weights)
    random = np.random.default_rng(0)
    logits = [tf.constant(random.normal(size=(2, 8, 8, count))) for count in (4, 5)]
    label = np.stack([random.integers(0, count, (2, 8, 8)) for count in (4, 5)], axis=-1).astype(np.uint8)
    label[:, :3, :, 0] = IGNORE
    label[:, :, :2, 1] = IGNORE
    result = loss(logits, tf.constant(label), None)
    means = []
    for place, one in enumerate(logits):
        known = label[..., place] != IGNORE
        true = np.where(known, label[..., place], 0)
        means.append(keras.ops.sparse_categorical_crossentropy(true, one, from_logits=True).numpy()[known].mean())
    assert float(result.value) == pytest.approx(means[0] + 0.5 * means[1], rel=1e-12)
    assert {name: float(one) for name, one in result.parts.items()} == pytest.approx(
        dict(zip(PARTS, (*means, 1.0, 0.5), strict=True)), rel=1e-12
    )
    known = label[..., 0] != IGNORE
    assert int(result.counted) == known.sum() == 2 * 5 * 8
    assert int(result.correct) == (logits[0].numpy().argmax(-1) == label[..., 0])[known].sum()
    # An example of weight 0 is only there to fill the batch: both its labels are ignored.
    first = loss(logits, tf.constant(label), tf.constant([1.0, 0.0]))
    alone = loss([one[:1] for one in logits], tf.constant(label[:1]), None)
    assert float(first.value) == pytest.approx(float(alone.value), rel=1e-12)


def test_the_weights_follow_the_losses_and_stay_out_of_the_model(options):
    options = dataclasses.replace(options, optimizer=OptimizerOptions(learning_rate=0.02, warmup_epochs=0))
    report = training.train(options)
    assert list(report.history[0])[2:8] == ["loss", *PARTS, "accuracy"]
    first, last = report.history[0], report.history[-1]
    for name in TASKS:
        # Losses above 1 lower their weight, from 1 on.
        assert first[f"{name}_loss"] > 1 and first[f"{name}_weight"] < 1
        assert last[f"{name}_weight"] < first[f"{name}_weight"]
    shown = curves(pathlib.Path(options.run_dir))
    for name in PARTS:
        values = [value for _, value in shown["train", f"epoch/{name}"]]
        assert values == pytest.approx([row[name] for row in report.history], rel=1e-6)
        assert [step for step, _ in shown["train", f"step/{name}"]] == list(range(1, 13))
        assert ("validation", f"epoch/{name}") not in shown
    steps = {name: np.array([value for _, value in shown["train", f"step/{name}"]]) for name in ("loss", *PARTS)}
    weighted = [steps[f"{name}_weight"] * steps[f"{name}_loss"] - np.log(steps[f"{name}_weight"]) for name in TASKS]
    np.testing.assert_allclose(steps["loss"], np.sum(weighted, axis=0), rtol=1e-5)
    assert steps["mask_weight"][0] == steps["distance_weight"][0] == 1
    run = runs.open_run(options.run_dir)
    assert run.history == [pytest.approx(row, nan_ok=True) for row in report.history]
    assert run.model.output_names == ["probabilities"]
    assert not [one.path for one in run.model.variables if "variance_" in one.path]
    assert [layer.name for layer in run.model.layers if layer.weights and "distance" in layer.name]
    found = evaluation.evaluate(run, pipelines.RecordDataset(options.records_dir), EvaluationOptions(resamples=10))
    assert 0 <= found.scores.value("miou") <= 1


def test_no_decay_and_no_layer_decay_of_the_weights_and_a_parallel_head(options):
    optimizer = OptimizerOptions(learning_rate=0.1, weight_decay=0.5, layer_decay=0.5, warmup_epochs=0)
    trainer = trainer_of(dataclasses.replace(changed(options, distance_head="parallel"), optimizer=optimizer))
    (phase,) = trainer.phases
    of_loss = [place for place, one in enumerate(phase.variables) if one.name.startswith("log_variance_")]
    assert of_loss == [len(phase.variables) - 2, len(phase.variables) - 1]
    assert [(phase.optimizer.decays[place], phase.optimizer.rates[place]) for place in of_loss] == [(0.0, 1.0)] * 2
    assert models.logits_model(trainer.network.model).output_names == ["logits", "distance_logits"]
    assert not [layer.name for layer in trainer.network.inference.layers if "distance" in layer.name]


def test_fixed_weights_stay(options):
    trainer = trainer_of(dataclasses.replace(changed(options, distance_weight=0.25), model=tiny.SEGMENTER))
    assert not [one for one in trainer.phases[0].variables if one.name.startswith("log_variance_")]
    trainer.train_step.enter(trainer.phases[0])
    loss, *_, parts = trainer.train_step(*next(iter(trainer.data.train.steps_from(0, 1))))
    assert (float(parts["mask_weight"]), float(parts["distance_weight"])) == (1.0, 0.25)
    assert float(loss) == pytest.approx(float(parts["mask_loss"] + 0.25 * parts["distance_loss"]), rel=1e-6)


def test_a_stopped_run_resumes_to_the_bit(options, tmp_path):
    asked = []
    stopped = training.train(options, stop=lambda: asked.append(None) or len(asked) == 6)
    assert stopped.stopped
    resumed = training.train(dataclasses.replace(options, resume=True))
    whole = training.train(dataclasses.replace(options, run_dir=str(tmp_path / "whole")))
    assert resumed.resumed_from == 5

    def numbers(report):
        return [[row[name] for name in ("loss", *PARTS, "val_loss", "val_miou")] for row in report.history]

    assert numbers(resumed) == numbers(whole)
    states = [np.load(tmp_path / name / runs.CHECKPOINT_DIR / "step-00000012.npz") for name in ("run", "whole")]
    assert set(states[0].files) == set(states[1].files) >= {"loss/00000", "loss/00001"}
    for name in states[0].files:
        np.testing.assert_array_equal(states[0][name], states[1][name], err_msg=name)
    assert len({float(states[0][f"loss/0000{place}"]) for place in (0, 1)} | {0.0}) == 3


def test_what_does_not_fit_is_refused_in_one_line(options, tile_records, short_training):
    with pytest.raises(OptionError, match="distance_head: cascaded on records without distances; .* Build them with"):
        training.train(dataclasses.replace(options, records_dir=str(tile_records)), dry_run=True)
    with pytest.raises(OptionError, match="distance_weight: 0.5 without distances to predict; expected a `distance_h"):
        SegmentationOptions(distance_weight=0.5)
    with pytest.raises(OptionError, match="distance_head: 'both'"):
        SegmentationOptions(distance_head="both")
    for given in ({"distance_head": "parallel"}, {"distance_head": "parallel", "distance_weight": 1.0}):
        with pytest.raises(OptionError, match="distance_head: it does not apply to records of one class an image"):
            chosen = dataclasses.replace(
                short_training, run_dir=options.run_dir, segmentation=SegmentationOptions(**given)
            )
            training.train(chosen, dry_run=True)
