import keras
import numpy as np
import pytest

from eo_keras.losses.classification import softmax_cross_entropy

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-300.0, 300.0, 0.0]], np.float32)
LABELS = np.array([0, 2, 0])


def test_by_hand():
    loss = keras.ops.convert_to_numpy(softmax_cross_entropy(LABELS, LOGITS))
    first = -np.log(np.exp(2) / (np.exp(2) + np.exp(-1) + np.exp(0.5)))
    np.testing.assert_allclose(loss, [first, np.log(3), 600], rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equal_to_keras(smoothing):
    expected = keras.losses.categorical_crossentropy(
        np.eye(3, dtype=np.float32)[LABELS], LOGITS, from_logits=True, label_smoothing=smoothing
    )
    found = softmax_cross_entropy(LABELS, LOGITS, label_smoothing=smoothing)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), keras.ops.convert_to_numpy(expected), rtol=1e-6)


def test_keeps_double_precision():
    loss = softmax_cross_entropy(LABELS, keras.ops.convert_to_tensor(LOGITS, "float64"), label_smoothing=0.1)
    assert keras.backend.standardize_dtype(loss.dtype) == "float64"
