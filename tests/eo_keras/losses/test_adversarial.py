"""Adversarial loss: its terms by hand, and which gradient reaches whom."""

import keras
import numpy as np
import pytest

from eo_keras.losses import adversarial
from eo_keras.losses.adversarial import Adversary

RANDOM = np.random.default_rng(1)
CONDITION, TRUE, PREDICTED = (RANDOM.normal(size=(3, 2, 2, bands)).astype(np.float32) for bands in (2, 1, 1))
KERNEL = np.array([0.5, -1.0, 2.0], np.float32)


@pytest.fixture
def adversary():
    """A discriminator of single pixels, linear in all bands."""
    pair = keras.Input((None, None, 3))
    model = keras.Model(pair, keras.layers.Conv2D(1, 1, use_bias=False, name="linear")(pair))
    model.get_layer("linear").set_weights([KERNEL.reshape(1, 1, 3, 1)])
    return Adversary(model)


def softplus(values):
    return np.log1p(np.exp(values))


def test_by_hand(adversary):
    logits = {name: np.concatenate([CONDITION, one], -1) @ KERNEL for name, one in (("t", TRUE), ("p", PREDICTED))}
    counted = np.array([1, 1, 0], np.float32)
    terms = adversary.terms(CONDITION, TRUE, PREDICTED, counted)
    network, discriminator = (float(one) for one in adversarial.combine(terms))
    assert float(terms["patches"]) == 8
    assert network == pytest.approx(softplus(-logits["p"][:2]).mean(), rel=1e-5)
    halves = softplus(-logits["t"][:2]).mean(), softplus(logits["p"][:2]).mean()
    assert discriminator == pytest.approx(sum(halves) / 2, rel=1e-5)


def test_each_loss_moves_its_own_weights_alone(adversary):
    tf = pytest.importorskip("tensorflow")
    predicted = tf.Variable(PREDICTED)
    (kernel,) = (variable.value for variable in adversary.variables)
    with tf.GradientTape() as tape:
        both = sum(adversarial.combine(adversary.terms(CONDITION, TRUE, predicted, np.ones(3, np.float32))))
    to_predicted, to_kernel = tape.gradient(both, [predicted, kernel])
    pairs = [np.concatenate([CONDITION, one], -1) for one in (TRUE, PREDICTED)]
    on_true, on_predicted = (1 / (1 + np.exp(-(pair @ KERNEL))) for pair in pairs)
    # The network's loss falls where its images are taken for true ones.
    np.testing.assert_allclose(to_predicted[..., 0], -(1 - on_predicted) * KERNEL[2] / 12, rtol=1e-5)
    expected = (on_true - 1)[..., None] * pairs[0] + on_predicted[..., None] * pairs[1]
    np.testing.assert_allclose(to_kernel[0, 0, :, 0], expected.mean(axis=(0, 1, 2)) / 2, rtol=1e-4)
