"""DeepLabv3+: its layers, work and parameters against the paper, any size and bands, precision, refusals."""

import keras
import numpy as np
import pytest

from eo_keras import models
from tests.eo_keras.models.segmentation.small_deeplab import SMALL, XCEPTION, reduced
from tests.harness.networks import images, network_spec, without_weights


def of_type(model, kind):
    return {layer.name: layer for layer in model.layers if isinstance(layer, kind)}


@pytest.fixture(scope="module")
def full():
    return without_weights(models.MODELS["deeplab_xception65"], "deeplab_xception65", network_spec(num_classes=21))


def test_work_and_parameters_of_the_paper(full):
    work = models.count_macs(full, 513, 513)
    assert work == 54_035_303_024
    assert work == pytest.approx(54.17e9, rel=0.003)  # Table 5: Xception, separable pyramid and decoder, stride 16.
    assert full.count_params() == 41_258_213


def test_layers_of_the_paper(full):
    convolutions = of_type(full, keras.layers.Conv2D)
    filters = {name: layer.filters for name, layer in convolutions.items() if name.startswith(("aspp", "decoder"))}
    assert filters == {
        **{f"aspp_{name}": 256 for name in ("1x1_conv", "mean_conv", "projection_conv")},
        **{f"aspp_atrous{number}_pointwise": 256 for number in (1, 2, 3)},
        "decoder_low_conv": 48,
        "decoder_unit1_pointwise": 256,
        "decoder_unit2_pointwise": 256,
        "decoder_scores": 21,
    }
    assert convolutions["decoder_low_conv"].kernel.shape == (1, 1, 256, 48)
    assert convolutions["aspp_projection_conv"].kernel.shape == (1, 1, 1280, 256)
    depthwise = of_type(full, keras.layers.DepthwiseConv2D)
    assert [depthwise[f"aspp_atrous{number}_depthwise"].dilation_rate[0] for number in (1, 2, 3)] == [6, 12, 18]
    assert depthwise["decoder_unit1_depthwise"].kernel.shape == (3, 3, 304, 1)
    epsilons = {
        name.split("_")[0]: layer.epsilon for name, layer in of_type(full, keras.layers.BatchNormalization).items()
    }
    assert {epsilons.pop("aspp"), epsilons.pop("decoder")} == {1e-5} and set(epsilons.values()) == {1e-3}
    (dropout,) = of_type(full, keras.layers.Dropout).values()
    assert dropout.rate == 0.1
    assert full.get_layer("logits").ratio == 4 and full.get_layer("decoder_resize").ratio == 4
    assert full.output_names == ["probabilities"] and full.output_shape == (None, None, None, 21)


def test_output_stride_8():
    model = reduced(backbone=XCEPTION, output_stride=8)
    depthwise = of_type(model, keras.layers.DepthwiseConv2D)
    assert [depthwise[f"aspp_atrous{number}_depthwise"].dilation_rate[0] for number in (1, 2, 3)] == [12, 24, 36]
    assert model.get_layer("decoder_resize").ratio == 2
    assert models.output_stride_of(model) == 8


def test_low_level_features_of_a_resnet_come_before_striding():
    model = reduced()
    image = images(1, 65, 97)
    maps = keras.Model(model.input, [model.get_layer(name).output for name in ("decoder_low_conv", "aspp_1x1_conv")])
    low, high = maps(image)
    assert model.get_layer("decoder_low_conv").input is model.get_layer("conv2_block1_out").output
    assert low.shape == (1, 17, 25, 8) and high.shape == (1, 5, 7, 16)


@pytest.mark.parametrize("backbone", [SMALL, XCEPTION])
def test_any_size_also_traced(backbone):
    model = reduced(backbone)
    for size in ((64, 64), (33, 50), (32, 129)):
        found = np.asarray(model(images(2, *size)))
        assert found.shape == (2, *size, 4)
        np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        traced = tf.function(model.call, input_signature=[tf.TensorSpec((None, None, None, 3), "uint16")])
        np.testing.assert_allclose(traced(images(1, 47, 33)), model(images(1, 47, 33)), atol=1e-6)


def test_scores_start_small():
    scores = np.asarray(reduced(num_classes=64).get_layer("decoder_scores").kernel)
    # A normal distribution of 0.01, cut at two deviations.
    assert scores.std() == pytest.approx(0.0088, rel=0.05) and np.abs(scores).max() <= 0.02


def test_logits_differ_between_neighbours_in_half_precision():
    model = reduced(dtype_policy="mixed_bfloat16")
    scores = model.get_layer("decoder_scores")
    scores.bias.assign([0, 100, 100, 100])  # There, neighbours in bfloat16 are half a unit apart.
    logits = np.asarray(keras.Model(model.input, model.get_layer("logits").output)(images(1, 64, 64), training=False))
    assert len(np.unique(logits[..., 1])) > 100


@pytest.mark.parametrize("bands", [("B08",), ("B02", "B03", "B04", "B08", "B11")])
def test_bands(bands):
    model = reduced(bands=bands, patch_size=32)
    assert model.input_shape == (None, 32, 32, len(bands)) and model.output_shape == (None, 32, 32, 4)
    assert model(images(1, 32, 32, len(bands))).shape == (1, 32, 32, 4)
