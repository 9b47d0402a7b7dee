"""GoogLeNet: table 1 by channels and parameters, and the auxiliary classifiers."""

import keras
import numpy as np
import pytest

from eo_keras.models import inference_model, logits_model
from eo_keras.models.backbones.googlenet import build_googlenet
from tests.harness.networks import network_spec, without_weights


def test_small_network_has_the_grids_of_64_pixels_and_two_auxiliary_classifiers():
    model = build_googlenet(network_spec(patch_size=64, seed=1), width=1 / 16)
    grids = {title: model.get_layer(f"inception_{title}").output.shape[1:3] for title in ("3a", "4a", "4e", "5b")}
    assert grids == {"3a": (8, 8), "4a": (4, 4), "4e": (4, 4), "5b": (2, 2)}
    assert model.get_layer("conv2_relu").output.shape[1:3] == (16, 16)
    assert logits_model(model).output_names == ["logits", "aux1_logits", "aux2_logits"]
    inference = inference_model(model)
    assert not [layer.name for layer in inference.layers if layer.name.startswith("aux")]
    without = build_googlenet(network_spec(auxiliary=False, seed=1), width=1 / 16)
    assert without.output_names == ["probabilities"]
    assert inference.count_params() == without.count_params()
    for one, other in zip(inference.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)  # An auxiliary classifier changes no other layer's seed.


def test_parameters_of_table_1():
    """The column "params" of table 1, in thousands, by a sum of its own; batch norm's four a channel come on top."""

    def convolution(inputs, outputs, size):
        return inputs * outputs * size * size + 4 * outputs

    rows = [
        (192, 64, 96, 128, 16, 32, 32), (256, 128, 128, 192, 32, 96, 64),
        (480, 192, 96, 208, 16, 48, 64), (512, 160, 112, 224, 24, 64, 64), (512, 128, 128, 256, 24, 64, 64),
        (512, 112, 144, 288, 32, 64, 64), (528, 256, 160, 320, 32, 128, 128),
        (832, 256, 160, 320, 32, 128, 128), (832, 384, 192, 384, 48, 128, 128),
    ]  # fmt: skip
    expected = convolution(3, 64, 7) + convolution(64, 64, 1) + convolution(64, 192, 3) + 1024 * 1000 + 1000
    for inputs, one, reduce3, three, reduce5, five, projection in rows:
        expected += convolution(inputs, one, 1) + convolution(inputs, projection, 1)
        expected += convolution(inputs, reduce3, 1) + convolution(reduce3, three, 3)
        expected += convolution(inputs, reduce5, 1) + convolution(reduce5, five, 5)
    model = without_weights(build_googlenet, network_spec(num_classes=1000))
    found = without_weights(build_googlenet, network_spec(num_classes=1000, auxiliary=False)).count_params()
    assert found == expected
    assert found == pytest.approx(7.0e6, rel=0.02)  # 6.0 million without the 1000 classes of ImageNet.
    auxiliary = sum(convolution(inputs, 128, 1) + 128 * 1024 + 1024 + 1024 * 1000 + 1000 for inputs in (512, 528))
    assert model.count_params() == expected + auxiliary
    block = sum(
        int(np.prod(weight.shape))
        for layer in model.layers
        if layer.name.startswith("inception_3a_") and isinstance(layer, keras.layers.Conv2D)
        for weight in layer.weights
    )
    assert block == pytest.approx(159e3, rel=0.03)  # As printed in table 1.
