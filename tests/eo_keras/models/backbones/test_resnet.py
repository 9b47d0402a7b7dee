"""ResNets: grids, initial weights, training, and ResNet-101 beside the original."""

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.models.backbones.resnet import build_resnet
from eo_keras.sensors.sentinel2 import EUROSAT_ORDER
from tests.harness.networks import compile_for_labels, images, network_spec, without_weights

MEAN = tuple(1000.0 + 50 * band for band in range(13))
STD = tuple(200.0 + 10 * band for band in range(13))


def reduced(bands=EUROSAT_ORDER, blocks=(1, 1), width=8, **choices):
    normalization = models.Normalization(MEAN[: len(bands)], STD[: len(bands)])
    spec = network_spec(bands, num_classes=5, normalization=normalization, seed=7, **choices)
    return build_resnet(spec, blocks=blocks, width=width)


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_any_size(size):
    model = reduced(blocks=(1, 1, 1, 1))
    image = images(1, *size, 13)
    features = keras.Model(model.input, model.get_layer("conv5_block1_out").output).predict(image, verbose=0)
    assert features.shape == (1, -(-size[0] // 32), -(-size[1] // 32), 8 * 8 * 4)
    assert model.predict(image, verbose=0).sum() == pytest.approx(1, abs=1e-6)


def test_blocks_start_as_identity_from_scratch():
    gammas = {
        layer.name: layer.gamma.numpy() if hasattr(layer.gamma, "numpy") else np.asarray(layer.gamma)
        for layer in reduced().layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    for name, gamma in gammas.items():
        assert (gamma == (0 if name.endswith("_3_bn") else 1)).all(), name
    assert (np.asarray(reduced(zero_last_gamma=False).get_layer("conv3_block1_3_bn").gamma) == 1).all()


def test_he_normal_spread():
    kernel = np.asarray(reduced(width=32).get_layer("conv1_conv").kernel)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (7 * 7 * 13)), rel=0.03)


def test_trains_on_logits():
    model = reduced(blocks=(1,), bands=("B04", "B03", "B02"))
    trained = keras.Model(model.input, model.get_layer("logits").output)
    compile_for_labels(trained)
    image, labels = images(8, 32, 32, 3), np.arange(8) % 5
    losses = trained.fit(image, labels, epochs=15, batch_size=8, verbose=0).history["loss"]
    assert losses[0] == pytest.approx(np.log(5), abs=0.5)
    assert losses[-1] < losses[0] / 2
    # The two models share their layers: what was trained is what is saved.
    np.testing.assert_allclose(
        model.predict(image, verbose=0), keras.ops.softmax(trained.predict(image, verbose=0)), atol=1e-6
    )


def test_resnet101_has_the_parameters_of_the_original():
    model = without_weights(models.MODELS["resnet101"], "resnet101", network_spec(num_classes=10, patch_size=64))
    original = without_weights(keras.applications.ResNet101, weights=None, include_top=False, input_shape=(64, 64, 3))
    biases = sum(layer.bias.shape[0] for layer in original.layers if isinstance(layer, keras.layers.Conv2D))
    assert model.count_params() == original.count_params() - biases + 2048 * 10 + 10
    assert original.count_params() == pytest.approx(42.6e6, rel=0.002)
    weighted = [layer.name for layer in original.layers if layer.weights]
    assert [layer.name for layer in model.layers if layer.weights] == [*weighted, "logits"]
    strides = {layer.name: layer.strides for layer in original.layers if isinstance(layer, keras.layers.Conv2D)}
    assert strides == {layer.name: layer.strides for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
