"""Layers that merge modalities and dates, by numbers."""

import keras
import numpy as np
import pytest

from eo_keras.models.layers.merging import ChangeOfDates, Gate, MeanOfPresent

RANDOM = np.random.default_rng(0)


def presence(*values):
    return np.array(values, "float32").reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64"])
def test_mean_of_those_that_are_present(policy):
    one, other = (np.full((4, 2, 3, 2), value, "float32") for value in (2, 8))
    found = MeanOfPresent(dtype=policy)([one, other], [presence(1, 1, 0, 0), presence(1, 0, 1, 0)])
    assert found.shape == (4, 2, 3, 2)
    assert keras.ops.convert_to_numpy(found)[:, 0, 0, 0].astype(float).tolist() == [5, 2, 8, 0]


def test_change_between_dates():
    after, before = RANDOM.normal(size=(2, 3, 2, 2, 4)).astype("float32")
    found = ChangeOfDates()(np.concatenate([after, before]), presence(1, 0, 1))
    np.testing.assert_array_equal(found[0], after)
    np.testing.assert_allclose(found[1], (after - before) * [[[[1]]], [[[0]]], [[[1]]]], atol=1e-7)


def test_gates_are_open_where_nothing_else_is_present():
    x, channels, pixels = (
        RANDOM.uniform(size=shape).astype("float32") for shape in ((2, 3, 4, 5), (2, 1, 1, 5), (2, 3, 4, 1))
    )
    found = np.asarray(Gate()(x, channels, pixels, presence(1, 0)))
    np.testing.assert_allclose(found[0], (x * channels * pixels)[0], rtol=1e-6)
    np.testing.assert_array_equal(found[1], x[1])
