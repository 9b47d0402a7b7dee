"""EfficientNet-Lite: stages of the published table, strides and rates, padding, scaled channels."""

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.models.backbones.efficientnet_lite import efficientnet_lite_stages, scaled
from eo_keras.models.backbones.stages import run_stages
from eo_keras.models.layers.factory import LayerFactory
from tests.harness.networks import SMALL_STAGES, images, network_spec, without_weights


def of_type(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize(
    ("number", "counts", "channels"),
    [
        (0, (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)),
        (1, (1, 3, 3, 4, 4, 5, 1), (16, 24, 40, 80, 112, 192, 320)),
        (2, (1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352)),
    ],
)
def test_stages(number, counts, channels):
    name = f"efficientnet_lite{number}"
    model = without_weights(models.MODELS[name], name, network_spec(patch_size=224))
    projections = [layer for layer in of_type(model, keras.layers.Conv2D) if layer.name.endswith("_project_conv")]
    found = [[one for one in projections if one.name.startswith(f"conv{stage}_")] for stage in range(2, 9)]
    assert tuple(map(len, found)) == counts
    assert tuple(one[0].filters for one in found) == channels
    depthwise = of_type(model, keras.layers.DepthwiseConv2D)
    assert [layer.kernel_size[0] for layer in depthwise if "_block1_" in layer.name] == [3, 3, 5, 3, 5, 5, 3]
    sizes = [layer.output.shape[1] for layer in depthwise if "_block1_" in layer.name]
    assert sizes == [112, 56, 28, 14, 14, 7, 7]
    # All blocks but the first of each stage have a shortcut.
    assert len(of_type(model, keras.layers.Add)) == sum(counts) - len(counts)
    activations = {layer.activation.__name__ for layer in of_type(model, keras.layers.Activation)}
    assert activations == {"relu6"}
    norms = of_type(model, keras.layers.BatchNormalization)
    assert {layer.epsilon for layer in norms} == {1e-3}
    assert model.get_layer("head_conv").filters == 1280 and model.get_layer("conv1_conv").filters == 32
    assert model.get_layer("dropout").rate == (0.3 if number == 2 else 0.2)


def test_scaled_channels_keep_nine_tenths():
    assert [scaled(16, 1.1), scaled(24, 1.1), scaled(40, 1.1), scaled(112, 1.1), scaled(4, 1.0)] == [16, 24, 48, 120, 8]
    assert all(scaled(filters, 0.3) >= 0.9 * 0.3 * filters for filters in range(8, 400))


@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_backbone_of_masks_keeps_the_grid(output_stride):
    """At the pixels that a coarser feature map has, the finer one is equal, for odd sizes too."""

    def features(stride):
        factory = LayerFactory(network_spec(seed=1, zero_last_gamma=False))
        image, x = factory.image()
        return keras.Model(image, run_stages(efficientnet_lite_stages(factory, stride, stages=SMALL_STAGES), x))

    coarse, fine = features(32), features(output_stride)
    fine.set_weights(coarse.get_weights())
    for height, width in ((64, 64), (65, 49)):
        image = images(1, height, width)
        low, high = (np.asarray(one) for one in coarse(image))
        fine_low, finer = (np.asarray(one) for one in fine(image))
        times = 16 // output_stride
        np.testing.assert_array_equal(low, fine_low)
        assert low.shape[1] == -(-height // 4)
        np.testing.assert_allclose(finer[:, ::times, ::times], high, atol=1e-5)
