"""Layers that merge modalities and dates, by numbers."""

import keras
import numpy as np
import pytest

from eo_keras.models.layers.merging import ChangeOfDates, Gate, MeanOfPresent, OwnOrJoined

RANDOM = np.random.default_rng(0)


def presence(*values):
    return np.array(values, "float32").reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64"])
def test_mean_of_those_that_are_present(policy):
    one, other = (np.full((4, 2, 3, 2), value, "float32") for value in (2, 8))
    found = MeanOfPresent(dtype=policy)([one, other], [presence(1, 1, 0, 0), presence(1, 0, 1, 0)])
    assert found.shape == (4, 2, 3, 2)
    assert keras.ops.convert_to_numpy(found)[:, 0, 0, 0].astype(float).tolist() == [5, 2, 8, 0]


@pytest.mark.parametrize("policy", ["float32", "float64"])
def test_a_missing_modality_has_the_joined_scores_without_a_gradient(policy):
    tf = pytest.importorskip("tensorflow")
    own, joined = (tf.Variable(np.full((2, 2, 3, 2), value, policy)) for value in (2, 8))
    layer = OwnOrJoined(dtype=policy)
    with tf.GradientTape() as tape:
        found = layer(own, joined, presence(1, 0))
        total = tf.reduce_sum(found * 3)
    assert found.dtype == policy and keras.ops.convert_to_numpy(found)[:, 0, 0, 0].tolist() == [2, 8]
    of_own, of_joined = tape.gradient(total, [own, joined], unconnected_gradients="zero")
    assert of_own.numpy()[:, 0, 0, 0].tolist() == [3, 0] and not of_joined.numpy().any()


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
