import keras
import numpy as np
import pytest

from eo_keras.losses import reconstruction

NAN = np.nan
TARGETS = np.array([[[[1.0, NAN, 2.0], [0.0, 4.0, NAN]]]], np.float32)
OUTPUTS = np.array([[[[3.0, 7.0, 1.0], [0.0, 1.0, 5.0]]]], np.float32)


def found(targets, outputs, groups):
    sums = reconstruction.terms(targets, outputs, groups)
    return {name: keras.ops.convert_to_numpy(one) for name, one in sums.items()}


def test_by_hand():
    sums = found(TARGETS, OUTPUTS, (2, 1))
    # Bands 1 and 2 are one input: 2 ** 2 + 0 + 3 ** 2 over three numbers; band 3 has one number.
    np.testing.assert_array_equal(sums["errors"], [13, 1])
    np.testing.assert_array_equal(sums["numbers"], [3, 1])
    assert float(reconstruction.combine(sums)) == pytest.approx((13 / 3 + 1) / 2)


def test_an_input_without_numbers_is_left_out_of_the_mean():
    targets = np.where([True, True, False], TARGETS, NAN)
    assert float(reconstruction.combine(found(targets, OUTPUTS, (2, 1)))) == pytest.approx(13 / 3)
    assert float(reconstruction.combine(found(np.full_like(TARGETS, NAN), OUTPUTS, (2, 1)))) == 0


def test_sums_of_parts_are_those_of_the_whole():
    random = np.random.default_rng(3)
    targets = random.normal(size=(4, 5, 6, 3))
    targets[random.random(targets.shape) < 0.5] = NAN
    outputs = random.normal(size=targets.shape)
    whole = found(targets, outputs, (1, 2))
    parts = [found(targets[k : k + 1], outputs[k : k + 1], (1, 2)) for k in range(4)]
    for name, values in whole.items():
        assert values.dtype == np.float64
        np.testing.assert_allclose(sum(part[name] for part in parts), values)


def test_gradients_are_of_the_numbers_to_predict_alone():
    tf = pytest.importorskip("tensorflow")
    outputs = tf.Variable(OUTPUTS)
    with tf.GradientTape() as tape:
        loss = reconstruction.combine(reconstruction.terms(TARGETS, outputs, (2, 1)))
    gradient = tape.gradient(loss, outputs).numpy()
    expected = np.where(np.isfinite(TARGETS), 2 * (OUTPUTS - np.nan_to_num(TARGETS)) / [3, 3, 1] / 2, 0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_absolute_errors_by_hand():
    sums = reconstruction.terms(TARGETS, OUTPUTS, (2, 1), absolute=True)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(sums["errors"]), [5, 1])
    assert float(reconstruction.combine(sums)) == pytest.approx((5 / 3 + 1) / 2)
