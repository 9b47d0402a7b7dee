"""Steps and phases on one device; several devices are in test_distribution."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from eo_keras import models
from eo_keras.data import pipeline as pipelines
from eo_keras.errors import OptionError
from eo_keras.losses import classification
from eo_keras.training.options import ClassificationOptions, OptimizerOptions
from eo_keras.training.trainer import Trainer
from tests.harness import tiny
from tests.harness.networks import network_spec


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """A `.keras` file of the small network, to start from."""
    model, _ = models.build(tiny.CLASSIFIER, network_spec(num_classes=7, dtype="uint8", patch_size=32, seed=2))
    path = tmp_path_factory.mktemp("weights") / "small.keras"
    models.inference_model(model, 32).save(path)
    return path


def trainer_of(options, tmp_path, **changes):
    options = dataclasses.replace(options, run_dir=str(tmp_path), **changes)
    return Trainer(options, pipelines.RecordDataset(options.records_dir), tf.distribute.get_strategy())


def arrays(model):
    return {weight.path: weight.numpy() for weight in model.weights}


def changed(before, after):
    return {path.split("/")[0] for path in before if (before[path] != after[path]).any()}


def test_the_head_is_trained_alone_and_then_the_whole_network(short_training, weights_file, tmp_path):
    trainer = trainer_of(short_training, tmp_path, weights=str(weights_file), head_epochs=1, head_learning_rate=0.02)
    head, whole = trainer.phases
    assert (head.first_epoch, whole.first_epoch, len(head.variables)) == (0, 1, 2)
    assert [head.rate(0, step) for step in range(4)] == [pytest.approx(0.02)] * 4
    # The schedule of the whole network begins behind the head's epochs: its warm-up is the second epoch.
    assert whole.rate(1, 0) == pytest.approx(0.02 / 4) and whole.rate(2, 0) == pytest.approx(0.02)
    assert trainer.phase_of(0) is head and trainer.phase_of(1) is trainer.phase_of(2) is whole
    batches = list(trainer.data.train.steps_from(0, 2))
    before = arrays(trainer.network.model)
    trainer.train_step.enter(head)
    trainer.train_step(*batches[0])
    after = arrays(trainer.network.model)
    assert changed(before, after) == {"logits"}  # Moving statistics stay, too.
    trainer.train_step.enter(whole)
    trainer.train_step(*batches[1])
    names = changed(after, arrays(trainer.network.model))
    assert {"conv1_conv", "conv1_bn", "logits"} <= names
    moved = [path for path in before if path.endswith("moving_mean")]
    assert any((arrays(trainer.network.model)[path] != before[path]).any() for path in moved)


def test_frozen_batch_normalisation_keeps_all_that_it_holds(short_training, weights_file, tmp_path):
    trainer = trainer_of(short_training, tmp_path, weights=str(weights_file), frozen_batch_norm=True)
    trainer.train_step.enter(trainer.phases[0])
    before = arrays(trainer.network.model)
    trainer.train_step(*next(iter(trainer.data.train.steps_from(0, 1))))
    names = changed(before, arrays(trainer.network.model))
    assert "conv1_conv" in names and not any(name.endswith("_bn") for name in names)


@pytest.mark.parametrize(("option", "value"), [("head_epochs", 1), ("frozen_batch_norm", True)])
def test_what_needs_weights_to_start_from(short_training, option, value):
    with pytest.raises(OptionError, match=f"{option}: .* without weights.*Give `weights"):
        dataclasses.replace(short_training, **{option: value})


def test_a_loss_counts_valid_examples_alone(short_training, tmp_path):
    trainer = trainer_of(short_training, tmp_path, optimizer=OptimizerOptions(weight_decay=0.0))
    trainer.train_step.enter(trainer.phases[0])
    image, label = next(iter(trainer.data.train.steps_from(0, 1)))
    logits = trainer.network.model.get_layer("logits")
    logits.kernel.assign(np.zeros(logits.kernel.shape))
    bias = np.linspace(-1, 1, 10).astype(np.float32)
    logits.bias.assign(bias)
    weight = tf.constant([1.0, 0.5] + [0.0] * 14)
    loss, right, counted, _ = trainer.train_step(image, label, weight)
    each = classification.softmax_cross_entropy(label[:2], tf.stack([bias, bias])).numpy()
    assert float(loss) == pytest.approx((each[0] + 0.5 * each[1]) / 1.5, rel=1e-5)
    assert int(right) == int((label[:2].numpy() == 9).sum())
    assert int(counted) == 2
    # A batch without a valid example costs nothing, and no weight becomes NaN.
    nothing, *none, parts = trainer.train_step(image, label, tf.zeros(16))
    assert parts == {}
    assert float(nothing) == 0 and list(map(int, none)) == [0, 0] and np.isfinite(logits.bias.numpy()).all()


def test_auxiliary_classifiers_count_as_much_as_they_are_told(short_training, tmp_path, monkeypatch):
    """All logits 0: each classifier's loss is the logarithm of the number of classes."""
    small = dataclasses.replace(models.MODELS["googlenet"], arguments={"width": 0.0625})
    monkeypatch.setitem(models.MODELS, "googlenet", small)
    trainer = trainer_of(
        short_training, tmp_path, model="googlenet", classification=ClassificationOptions(aux_weight=0.25), dropout=0.0
    )
    trainer.train_step.enter(trainer.phases[0])
    for name in ("logits", "aux1_logits", "aux2_logits"):
        for weight in trainer.network.model.get_layer(name).weights:
            weight.assign(tf.zeros(weight.shape))
    loss, *_ = trainer.train_step.step(*next(iter(trainer.data.train.steps_from(0, 1))))
    assert float(loss) == pytest.approx(np.log(10) * 1.5, rel=1e-5)
    assert not [layer.name for layer in trainer.network.inference.layers if "aux" in layer.name]


def test_patches_are_enlarged_in_training_and_in_the_saved_model(short_training, tmp_path):
    trainer = trainer_of(short_training, tmp_path, classification=ClassificationOptions(input_size=96))
    for model in (trainer.network.model, trainer.network.inference):
        assert model.input.shape[1] in (None, 64) and model.get_layer("enlarged").output.shape[1:3] == (96, 96)
    small = ClassificationOptions(input_size=48)
    with pytest.raises(OptionError, match="input_size: 48; expected the patches' 64 or more"):
        trainer_of(short_training, tmp_path / "small", classification=small)
    with pytest.raises(OptionError, match="input_size: 96 together with `progressive_sizes`"):
        ClassificationOptions(input_size=96, progressive_sizes=(32,), progressive_epochs=(1,))


def test_phases_of_a_run_too_short(short_training, weights_file):
    with pytest.raises(OptionError, match="head_epochs: 3 in a run of 3 epochs"):
        dataclasses.replace(short_training, weights=str(weights_file), head_epochs=3)


def test_a_linear_probe_changes_the_head_alone(short_training, weights_file, tmp_path):
    chosen = {"weights": str(weights_file), "head_only": True}
    with pytest.raises(OptionError, match="head_only: True without weights"):
        dataclasses.replace(short_training, head_only=True)
    with pytest.raises(OptionError, match="head_epochs: 1 together with `head_only`"):
        dataclasses.replace(short_training, head_epochs=1, **chosen)
    trainer = trainer_of(short_training, tmp_path, **chosen)
    (phase,) = trainer.phases
    assert phase.title == "head" and phase.rate(0, trainer.steps - 1) > phase.rate(trainer.options.epochs - 1, 0)
    trainer.train_step.enter(phase)
    model = trainer.network.model
    before = {one.path: one.numpy() for one in model.weights}
    trainer.train_step(*next(iter(trainer.data.train.steps_from(0, 1))))
    changed = [one.path for one in model.weights if not np.array_equal(before[one.path], one.numpy())]
    assert sorted(changed) == ["logits/bias", "logits/kernel"]
