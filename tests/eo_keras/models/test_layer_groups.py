"""Groups of layers by depth, and layers that do not learn."""

import keras
import numpy as np
import pytest

from eo_keras.models import depth_groups, logits_model, set_trainable
from eo_keras.models.backbones.googlenet import TABLE, build_googlenet
from eo_keras.models.backbones.inception_v3 import build_inception_v3
from eo_keras.models.backbones.resnet import build_resnet
from tests.harness.networks import images, network_spec


def resnet(**choices):
    return build_resnet(network_spec(seed=1, **choices), blocks=(1, 1, 1, 1), width=4)


@pytest.mark.parametrize(
    ("model", "blocks"),
    [
        (lambda: resnet(dropout=0.5), 4),
        (lambda: build_googlenet(network_spec(seed=1), width=1 / 16), 9),
        (lambda: build_inception_v3(network_spec(seed=1), width=1 / 16, blocks=(1, 1, 1)), 5),
    ],
)
def test_groups_never_fall_on_the_way_and_end_with_the_heads(model, blocks):
    model = model()
    groups = depth_groups(model)
    assert set(groups) == {layer.name for layer in model.layers}
    for layer in model.layers:
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                assert groups[tensor._keras_history.operation.name] <= groups[layer.name]
    heads = {layer.name for layer in model.layers if layer.weights and groups[layer.name] == blocks}
    parts = ("conv", "bn", "dense", "logits")
    auxiliary = {f"aux{number}_{part}" for number in (1, 2) for part in parts} if "googlenet" == model.name else set()
    assert heads == {"logits"} | auxiliary
    assert groups["conv1_conv"] == 0
    assert {groups[layer.name] for layer in model.layers if layer.weights} == set(range(blocks + 1))
    assert depth_groups(logits_model(model))["conv1_conv"] == 0


def test_groups_of_a_block():
    groups = depth_groups(resnet())
    assert [groups[f"conv{stage}_block1_{number}_conv"] for stage in (2, 3, 5) for number in range(4)] == [
        0, 0, 0, 0, 1, 1, 1, 1, 3, 3, 3, 3
    ]  # fmt: skip
    groups = depth_groups(build_inception_v3(network_spec(seed=1), width=1 / 16, blocks=(1, 1, 2)))
    last = {groups[name] for name in groups if name.startswith("mixed5_") and name.endswith("_conv")}
    assert last == {5}  # Its branches are merged twice.


def moments(model):
    return [
        weight.numpy().copy()
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for weight in (layer.moving_mean, layer.moving_variance)
    ]


def test_what_does_not_learn():
    table = [entry for entry in TABLE if entry[0] in ("4a", "4d")]
    model = build_googlenet(network_spec(seed=1, dropout=0), width=1 / 16, table=table)
    trained = logits_model(model)
    image = images(4)
    everything = [variable.path for variable in trained.trainable_variables]
    order = [weight.path for weight in trained.weights]

    set_trainable(model, only_head=True, frozen_batch_norm=False)
    heads = {variable.path.split("/")[0] for variable in trained.trainable_variables}
    assert heads == {"logits", "aux1_logits", "aux2_logits"}
    before, asked = moments(model), trained(image, training=False)
    for one, other in zip(asked, trained(image, training=True), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_equal(moments(model), before)

    set_trainable(trained, only_head=False, frozen_batch_norm=True)
    left = [variable.path for variable in trained.trainable_variables]
    assert left == [path for path in everything if "_bn/" not in path]
    trained(image, training=True)
    np.testing.assert_equal(moments(model), before)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_sum(output**2) for output in trained(image, training=True))
        gradients = tape.gradient(loss, trained.trainable_variables)
        first = gradients[left.index("conv1_conv/kernel")]
        assert not any(gradient is None for gradient in gradients) and np.abs(first).max() > 0

    set_trainable(model, only_head=False, frozen_batch_norm=False)
    assert [variable.path for variable in trained.trainable_variables] == everything
    assert [weight.path for weight in trained.weights] == order
    trained(image, training=True)
    assert not np.array_equal(moments(model)[0], before[0])
