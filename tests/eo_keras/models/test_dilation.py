"""Strides that become dilation rates: unchanged values at the pixels there were before, and refusals."""

import keras
import numpy as np
import pytest

from eo_keras.errors import OptionError
from eo_keras.models import copy_weights, inference_model, output_stride_of
from eo_keras.models.backbones.resnet import build_resnet
from eo_keras.models.backbones.xception import build_xception
from eo_keras.models.dilation import Stage, dilated_layers, plan_stages
from eo_keras.models.segmentation.deeplab import build_deeplab
from tests.harness.networks import images, network_spec

RESNET = {"blocks": (1, 1, 2, 2), "width": 8}
XCEPTION = {"middle": 1, "width": 1 / 16}
BACKBONES = {"resnet": RESNET, "xception": XCEPTION}
CLASSIFIERS = {"resnet": build_resnet, "xception": build_xception}
LAST = {"resnet": "conv5_block2_out", "xception": "exit2_unit3_relu"}


def spec(**choices):
    return network_spec(**{"seed": 3, "zero_last_gamma": False} | choices)


def dense(name, **choices):
    return build_deeplab(spec(**choices), backbone=name, depth=16, low_depth=8, **BACKBONES[name])


def output_of(model, image, layer="probabilities"):
    return np.asarray(keras.Model(model.input, model.get_layer(layer).output)(image, training=False))


def settings(model):
    """What convolutions and resizing do, by layer."""
    chosen = ("strides", "dilation_rate", "padding", "ratio", "kernel_size", "filters")
    return {
        layer.name: {key: np.asarray(value).tolist() for key, value in layer.get_config().items() if key in chosen}
        for layer in model.layers
    }


def test_stages():
    assert plan_stages((1, 2, 2, 2), 4, None) == [Stage(1, 1, 1), Stage(2, 1, 1), Stage(2, 1, 1), Stage(2, 1, 1)]
    assert plan_stages((1, 2, 2, 2), 4, 16) == [Stage(1, 1, 1), Stage(2, 1, 1), Stage(2, 1, 1), Stage(1, 1, 2)]
    assert plan_stages((2, 1, 2, 1), 4, 8) == [Stage(2, 1, 1), Stage(1, 1, 1), Stage(1, 1, 2), Stage(1, 2, 2)]
    assert plan_stages((2, 1, 2, 1), 4, 4) == [Stage(1, 1, 2), Stage(1, 2, 2), Stage(1, 2, 4), Stage(1, 4, 4)]


@pytest.mark.parametrize("size", [(64, 96), (65, 83)])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_finer_map_holds_the_coarser_one(name, size):
    classifier = CLASSIFIERS[name](spec(), **BACKBONES[name])
    random = np.random.default_rng(1)
    for layer in classifier.layers:  # Statistics that are not the trivial ones, so that padding is told from content.
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.beta.assign(random.normal(0, 0.3, layer.beta.shape))
    maps = {32: output_of(classifier, images(1, *size), LAST[name])}
    for stride in (16, 8):
        model = dense(name, output_stride=stride)
        for layer in model.layers:
            if layer.weights and layer.name in {own.name for own in classifier.layers}:
                layer.set_weights(classifier.get_layer(layer.name).get_weights())
        maps[stride] = output_of(model, images(1, *size), LAST[name])
        assert maps[stride].shape[1:3] == tuple(-(-one // stride) for one in size)
    assert np.abs(maps[32]).max() > 0.1
    for stride in (16, 8):
        step = 32 // stride
        np.testing.assert_allclose(maps[stride][:, ::step, ::step], maps[32], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_inference_model_at_another_output_stride(name):
    model, finer = dense(name), dense(name, output_stride=8)
    assert (output_stride_of(model), output_stride_of(finer)) == (16, 8)
    inference = inference_model(model, None, output_stride=8)
    assert output_stride_of(inference) == 8
    own = {weight.path: np.asarray(weight) for weight in inference.weights}
    assert set(own) == {weight.path for weight in model.weights}
    for weight in model.weights:
        np.testing.assert_array_equal(own[weight.path], weight)
    expected = settings(finer)
    expected.pop("dropout")
    assert settings(inference) == expected != settings(model)
    image = images(1, 61, 66)
    np.testing.assert_allclose(output_of(inference, image), output_of(finer, image), atol=1e-6)
    assert np.abs(output_of(inference, image, "logits") - output_of(model, image, "logits")).max() > 1e-4
    assert settings(inference_model(inference, 64, output_stride=8)) == expected


def test_back_to_the_coarser_one_by_copying():
    model, coarse = dense("xception", output_stride=8), dense("xception", seed=9)
    copy_weights(model, coarse)
    image = images(1, 40, 33)
    again = inference_model(coarse, None, output_stride=8)
    np.testing.assert_allclose(output_of(again, image), output_of(model, image), atol=1e-6)


def test_output_strides_that_cannot_be():
    model = dense("resnet", output_stride=8)
    with pytest.raises(OptionError, match="16 for a model of output stride 8; expected 8 or less. Build the model at"):
        inference_model(model, None, output_stride=16)
    with pytest.raises(OptionError, match="output_stride: 4; expected one of 8, 16"):
        dilated_layers(model, 4)
    with pytest.raises(OptionError, match="output_stride: 32; expected one of 8, 16"):
        dense("resnet", output_stride=32)
    with pytest.raises(OptionError, match="8 for model 'resnet'; expected a DeepLabv3. network"):
        dilated_layers(build_resnet(spec(), **RESNET), 8)
