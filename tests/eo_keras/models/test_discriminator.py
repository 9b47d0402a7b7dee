"""The discriminator against its paper: weights, what a number sees, and that images are judged by themselves."""

import keras
import numpy as np
import pytest

from eo_keras.models.discriminator import build_discriminator


@pytest.fixture(scope="module")
def model():
    return build_discriminator(2, 3, seed=1)


def test_convolutions_are_the_published_ones(model):
    found = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [(one.filters, one.kernel_size, one.strides) for one in found] == [
        (64, (4, 4), (2, 2)), (128, (4, 4), (2, 2)), (256, (4, 4), (2, 2)), (512, (4, 4), (1, 1)), (1, (4, 4), (1, 1))
    ]  # fmt: skip
    by_hand = sum(16 * given * made + made for given, made in ((5, 64), (64, 128), (128, 256), (256, 512), (512, 1)))
    assert model.count_params() == by_hand + 2 * (128 + 256 + 512)


def test_each_number_sees_70_pixels(model):
    """Without normalization, whose moments see the whole image."""
    tf = pytest.importorskip("tensorflow")
    x = image = keras.Input((128, 128, 5))
    for layer in model.layers[1:]:
        x = layer(x) if "norm" not in layer.name else x
    linear, pair = keras.Model(image, x), tf.Variable(np.ones((1, 128, 128, 5), np.float32))
    with tf.GradientTape() as tape:
        one = linear(pair)[0, 8, 8, 0]
    rows, columns = np.nonzero(np.abs(tape.gradient(one, pair).numpy()[0]).max(axis=-1))
    for places in (rows, columns):
        assert len(set(places)) == places.max() - places.min() + 1 == 70


def test_an_image_is_judged_by_itself(model):
    images = np.random.default_rng(2).normal(size=(2, 64, 64, 5)).astype(np.float32)
    both = np.asarray(model(images, training=True))
    assert both.shape == (2, 8, 8, 1)
    np.testing.assert_allclose(np.asarray(model(images[1:], training=True))[0], both[1], atol=1e-5)
    np.testing.assert_array_equal(
        model.get_layer("discriminator_conv1").kernel, build_discriminator(2, 3, seed=1).layers[1].kernel
    )
