import math

import keras
import numpy as np
import pytest

from eo_keras.training.optimizers import make_schedule
from eo_keras.training.options import OptimizerOptions
from eo_keras.training.schedules import WarmupSchedule


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


def test_poly_falls_behind_its_warm_up():
    options = OptimizerOptions(learning_rate=0.01, schedule="poly", warmup_epochs=1, power=2.0, final_lr_fraction=0.1)
    schedule = make_schedule(options, epochs=5, steps_per_epoch=4)
    np.testing.assert_allclose(rates(schedule, range(4)), 0.01 * np.arange(1, 5) / 4, rtol=1e-5)
    expected = 0.01 * (0.1 + 0.9 * (1 - np.arange(16) / 16) ** 2)
    np.testing.assert_allclose(rates(schedule, range(4, 20)), expected, rtol=1e-5)
    # Behind the end the power of a negative number would be none.
    assert float(schedule(21)) == pytest.approx(0.001)


def test_a_straight_line_to_a_share_of_the_peak():
    options = OptimizerOptions(learning_rate=0.5, schedule="linear", warmup_epochs=1, final_lr_fraction=0.1)
    schedule = make_schedule(options, epochs=3, steps_per_epoch=10)
    expected = 0.5 * (0.1 + 0.9 * (1 - np.arange(20) / 20))
    np.testing.assert_allclose(rates(schedule, range(10, 30)), expected, rtol=1e-5)
    assert float(schedule(1000)) == pytest.approx(0.05)
    constant = make_schedule(OptimizerOptions(schedule="linear", warmup_epochs=0, final_lr_fraction=1.0), 2, 5)
    np.testing.assert_allclose(rates(constant, range(12)), 0.05, rtol=1e-6)


def test_piecewise_falls_at_its_epochs():
    options = OptimizerOptions(learning_rate=1.0, schedule="piecewise", warmup_epochs=0, decay_epochs=(2, 3.5))
    schedule = make_schedule(options, epochs=5, steps_per_epoch=10)
    np.testing.assert_allclose(rates(schedule, [0, 19, 20, 34, 35, 49]), [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_schedule_survives_a_round_trip():
    schedule = WarmupSchedule(0.1, "piecewise", 50, 5, (20, 30), 0.2, 0.9, 0.1)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    np.testing.assert_array_equal(rates(again, range(50)), rates(schedule, range(50)))
