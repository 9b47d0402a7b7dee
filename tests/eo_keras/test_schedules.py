import math

import keras
import numpy as np
import pytest

from eo_keras.errors import OptionError
from eo_keras.schedules import OptimizerOptions, WarmupSchedule, make_optimizer, make_schedule


def rates(schedule, steps):
    return np.array([float(schedule(step)) for step in steps])


def test_cosine_rises_then_falls_to_zero():
    schedule = make_schedule(OptimizerOptions(learning_rate=0.4, warmup_epochs=0.5), epochs=10, steps_per_epoch=20)
    assert (schedule.total_steps, schedule.warmup_steps) == (200, 10)
    np.testing.assert_allclose(rates(schedule, range(10)), 0.4 * np.arange(1, 11) / 10, rtol=1e-6)
    assert float(schedule(10)) == pytest.approx(0.4)
    assert float(schedule(105)) == pytest.approx(0.2, rel=1e-5)
    expected = 0.2 * (1 + math.cos(math.pi * 142 / 190))
    assert float(schedule(152)) == pytest.approx(expected, rel=1e-5)
    assert float(schedule(200)) == float(schedule(1000)) == pytest.approx(0, abs=1e-8)


def test_poly_is_that_of_deeplab():
    options = OptimizerOptions(learning_rate=0.007, schedule="poly", warmup_epochs=0)
    schedule = make_schedule(options, epochs=3, steps_per_epoch=10)
    expected = 0.007 * (1 - np.arange(30) / 30) ** 0.9
    np.testing.assert_allclose(rates(schedule, range(30)), expected, rtol=1e-5)


def test_piecewise_falls_at_its_epochs():
    options = OptimizerOptions(learning_rate=1.0, schedule="piecewise", warmup_epochs=0, decay_epochs=(2, 3.5))
    schedule = make_schedule(options, epochs=5, steps_per_epoch=10)
    np.testing.assert_allclose(rates(schedule, [0, 19, 20, 34, 35, 49]), [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_schedule_survives_a_round_trip():
    schedule = WarmupSchedule(0.1, "piecewise", 50, 5, (20, 30), 0.2, 0.9)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    np.testing.assert_array_equal(rates(again, range(50)), rates(schedule, range(50)))


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop"])
def test_weight_decay_is_for_kernels_alone(name):
    options = OptimizerOptions(name, learning_rate=0.5, weight_decay=0.1, warmup_epochs=0, momentum=0.0)
    optimizer = make_optimizer(options, make_schedule(options, 1, 10_000))
    kernel, bias, gamma = (keras.Variable(np.ones(3), name=title) for title in ("kernel", "bias", "gamma"))
    optimizer.build([kernel, bias, gamma])
    optimizer.apply([np.zeros(3, np.float32)] * 3, [kernel, bias, gamma])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(kernel), 0.95, rtol=1e-6)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(bias), 1)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(gamma), 1)


def test_decay_under_momentum_is_as_strong_as_said():
    # Decoupled decay takes rate * decay a step; an L2 penalty p under momentum m settles at rate * p / (1 - m) a step.
    options = OptimizerOptions(learning_rate=0.01, weight_decay=0.02, momentum=0.9, nesterov=False, warmup_epochs=0)
    decoupled = keras.Variable(1.0, name="kernel")
    optimizer = make_optimizer(options, make_schedule(options, 1, 10**9))
    optimizer.build([decoupled])
    for _ in range(400):
        optimizer.apply([np.float32(0)], [decoupled])
    weight, velocity = 1.0, 0.0
    for _ in range(400):
        velocity = 0.9 * velocity - 0.01 * 0.02 * (1 - 0.9) * weight
        weight += velocity
    assert float(decoupled) == pytest.approx(weight, rel=2e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "lion"}, "one of sgd, adamw, rmsprop"),
        ({"schedule": "step"}, "one of cosine, poly, piecewise"),
        ({"learning_rate": 0.0}, "learning_rate: 0.0"),
        ({"momentum": 1.0}, "momentum: 1.0"),
        ({"weight_decay": -1.0}, "weight_decay: -1.0"),
        ({"decay_epochs": (3,)}, "schedule piecewise"),
        ({"schedule": "piecewise"}, "decay_epochs: none are given"),
    ],
)
def test_options_that_cannot_work(change, words):
    with pytest.raises(OptionError, match=words):
        OptimizerOptions(**change)


def test_epochs_outside_the_run():
    with pytest.raises(OptionError, match="warmup_epochs: 5 in a run of 5 epochs"):
        make_schedule(OptimizerOptions(warmup_epochs=5), 5, 10)
    with pytest.raises(OptionError, match="decay_epochs: 7 in a run of 5 epochs"):
        make_schedule(OptimizerOptions(schedule="piecewise", decay_epochs=(2, 7)), 5, 10)
