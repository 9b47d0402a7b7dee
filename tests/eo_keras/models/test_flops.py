"""Multiplications counted, by hand and against published figures."""

import keras
import pytest

from eo_keras.models import count_macs
from eo_keras.models.backbones.resnet import build_resnet
from tests.harness.networks import network_spec, without_weights


def model_of(*layers, channels=3, size=None):
    return keras.Sequential([keras.Input((size, size, channels)), *layers])


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (keras.layers.Conv2D(5, 3, padding="same"), 10 * 20 * 9 * 4 * 5),
        (keras.layers.Conv2D(5, 3), 8 * 18 * 9 * 4 * 5),
        (keras.layers.Conv2D(5, (1, 3), strides=2, padding="same"), 5 * 10 * 3 * 4 * 5),
        (keras.layers.Conv2D(6, 3, groups=2, padding="same"), 10 * 20 * 9 * 2 * 6),
        (keras.layers.Conv2D(6, 3, dilation_rate=4, padding="same"), 10 * 20 * 9 * 4 * 6),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), 10 * 20 * 9 * 4 * 2),
        (keras.layers.SeparableConv2D(7, 3, padding="same"), 10 * 20 * (9 * 4 + 4 * 7)),
        (keras.layers.Dense(8), 10 * 20 * 4 * 8),
        (keras.layers.BatchNormalization(), 0),
    ],
)
def test_one_layer(layer, expected):
    assert count_macs(model_of(layer, channels=4), 10, 20) == expected


def test_layers_add_up_and_sizes_follow():
    model = model_of(
        keras.layers.Conv2D(8, 3, strides=2),
        keras.layers.MaxPooling2D(2),
        keras.layers.Conv2D(4, 1),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10),
    )
    # 33 -> 16 -> 8.
    assert count_macs(model, 33, 33) == 16 * 16 * 27 * 8 + 8 * 8 * 8 * 4 + 4 * 10
    assert count_macs(model, 33, 65) == 16 * 32 * 27 * 8 + 8 * 16 * 8 * 4 + 4 * 10


def test_what_cannot_be_counted():
    with pytest.raises(ValueError, match="layer 'up' is a Conv2DTranspose, whose work is not known"):
        count_macs(model_of(keras.layers.Conv2DTranspose(2, 3, name="up")), 8, 8)
    with pytest.raises(ValueError, match="32"):
        count_macs(model_of(keras.layers.Conv2D(2, 3), size=32), 8, 8)


def test_resnet50_as_published():
    """He et al. 2015, table 1: 3.8e9. The 4.1e9 often told are those with the stride on the 3x3 convolution."""
    model = without_weights(build_resnet, network_spec(num_classes=1000))
    assert count_macs(model, 224, 224) == 3_857_973_248
    # With it the first 1x1 convolution of three stages works on four times the places.
    added = sum(3 * (224 // stride) ** 2 * (2 * width) * width for stride, width in ((8, 128), (16, 256), (32, 512)))
    assert 3_857_973_248 + added == pytest.approx(4.1e9, rel=0.01)
