"""Weights of tasks: the sum by hand, the optimum, gradients, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from eo_keras.errors import OptionError
from eo_keras.losses.uncertainty import TaskWeights
from eo_keras.training.optimizers import make_optimizer, make_schedule
from eo_keras.training.options import OptimizerOptions

LOSSES = {"mask": 0.25, "distance": 2.0}


def losses(dtype="float64"):
    return {name: tf.constant(value, dtype) for name, value in LOSSES.items()}


def test_the_sum_by_hand():
    weights = TaskWeights(LOSSES, dtype="float64")
    assert [one.name for one in weights.variables] == ["log_variance_mask", "log_variance_distance"]
    assert float(weights.combine(losses())) == 2.25  # They start at 0: both losses count as they are.
    for variable, value in zip(weights.variables, (np.log(4.0), -1.0), strict=True):
        variable.assign(value)
    expected = 0.25 / 4 + np.log(4) + 2 * np.e - 1
    assert float(weights.combine(losses())) == pytest.approx(expected, rel=1e-12)
    found = {name: float(one) for name, one in weights.weights().items()}
    assert found == pytest.approx({"mask": 0.25, "distance": np.e}, rel=1e-12)


def test_at_the_optimum_each_task_contributes_one():
    """The weights alone are trained, by the optimizer of a run, whose weight decay leaves them out."""
    weights = TaskWeights(LOSSES)
    options = OptimizerOptions(learning_rate=0.05, weight_decay=0.5, warmup_epochs=0, final_lr_fraction=1.0)
    optimizer = make_optimizer(options, make_schedule(options, 1, 400), weights.variables)
    for _ in range(400):
        with tf.GradientTape() as tape:
            total = weights.combine(losses("float32"))
        optimizer.apply(tape.gradient(total, weights.variables), weights.variables)
    found = {name: float(np.exp(one.numpy())) for name, one in zip(LOSSES, weights.variables, strict=True)}
    assert found == pytest.approx(LOSSES, rel=1e-4)
    contributions = {name: float(one) * LOSSES[name] for name, one in weights.weights().items()}
    assert contributions == pytest.approx(dict.fromkeys(LOSSES, 1.0), rel=1e-4)
    assert float(weights.combine(losses("float32"))) == pytest.approx(2 + np.log(0.25 * 2.0), rel=1e-4)


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_the_gradients_of_all_devices_add_up_to_that_of_one(devices):
    weights = TaskWeights(LOSSES, dtype="float64")
    for variable, value in zip(weights.variables, (0.3, -0.2), strict=True):
        variable.assign(value)
    with tf.GradientTape() as tape:
        total = weights.combine(losses(), devices)
    found = [devices * float(one) for one in tape.gradient(total, weights.variables)]
    assert found == pytest.approx([1 - 0.25 * np.exp(-0.3), 1 - 2 * np.exp(0.2)], rel=1e-12)
    assert float(total) == pytest.approx(0.25 * np.exp(-0.3) + 0.3 + 2 * np.exp(0.2) - 0.2, rel=1e-12)


def test_fixed_weights():
    weights = TaskWeights(LOSSES, (1.0, 0.5))
    assert weights.variables == () and weights.weights() == {"mask": 1.0, "distance": 0.5}
    assert float(weights.combine(losses(), 2)) == 0.25 + 0.5 * 2
    for fixed in ((1.0,), (1.0, -0.5), (1.0, float("nan"))):
        with pytest.raises(OptionError, match="expected a number of 0 or more for each of mask, distance"):
            TaskWeights(LOSSES, fixed)


def test_half_the_precision_keeps_the_variables_whole():
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        weights = TaskWeights(LOSSES)
        assert {keras.backend.standardize_dtype(one.dtype) for one in weights.variables} == {"float32"}
        assert weights.combine(losses("float32")).dtype == tf.float32
    finally:
        keras.config.set_dtype_policy(before)
