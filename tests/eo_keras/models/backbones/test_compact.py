"""The compact network: grids, parameters, blocks that start as the identity."""

import numpy as np
import pytest

from eo_keras import models
from eo_keras.models.backbones.compact import build_compact
from eo_keras.sensors.sentinel2 import EUROSAT_ORDER
from tests.harness.networks import images, network_spec, without_weights


def convolution(inputs, outputs, size):
    return inputs * outputs * size * size + 4 * outputs


def test_grids_and_parameters_of_the_registry():
    model = without_weights(
        models.MODELS["compact"], "compact", network_spec(EUROSAT_ORDER, num_classes=10, patch_size=64)
    )
    grids = {name: model.get_layer(name).output.shape[1:] for name in ("conv2_relu", "stage1_block1_out")}
    assert grids == {"conv2_relu": (32, 32, 48), "stage1_block1_out": (16, 16, 96)}
    assert model.get_layer("stage3_block2_out").output.shape[1:] == (4, 4, 384)
    assert model.get_layer("mean_and_max").output.shape == (None, 768)
    expected = convolution(13, 32, 3) + convolution(32, 48, 3) + 768 * 10 + 10
    for inputs, outputs in ((48, 96), (96, 192), (192, 384)):
        expected += (
            convolution(inputs, outputs, 1) + convolution(inputs, outputs, 3) + 3 * convolution(outputs, outputs, 3)
        )
    assert model.count_params() == expected == pytest.approx(6.2e6, rel=0.02)


def test_blocks_start_as_identity_from_scratch():
    small = {"stem": (4, 6), "widths": (8, 12), "blocks": (2, 2)}
    for zero in (True, False):
        model = build_compact(network_spec(zero_last_gamma=zero, seed=1), **small)
        inside = models.logits_model(model)
        before, behind = (
            np.asarray(part)
            for part in type(inside)(
                model.input, [model.get_layer(f"stage2_block{number}_out").output for number in (1, 2)]
            )(images())
        )
        assert before.std() > 0
        assert np.array_equal(before, behind) is zero
