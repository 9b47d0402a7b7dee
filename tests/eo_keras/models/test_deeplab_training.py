"""DeepLabv3+ in training: logits of every pixel, what learns and how fast, and that it learns."""

import functools

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.models import Normalisation
from eo_keras.models.deeplab import build_deeplab
from eo_keras.models.resnet import build_resnet, resnet_features
from eo_keras.models.xception import xception_features

COMMON = {
    "bands": ("B04", "B03", "B02"),
    "num_classes": 4,
    "normalisation": Normalisation((1500.0,) * 3, (800.0,) * 3),
    "input_dtype": "uint16",
}
RESNET = {"blocks": (1, 1, 1, 1), "width": 8}
SMALL = functools.partial(resnet_features, **RESNET, zero_last_gamma=False)
XCEPTION = functools.partial(xception_features, middle=1, width=1 / 16)


def reduced(**options):
    return build_deeplab(**(COMMON | {"seed": 3, "backbone": SMALL, "depth": 16, "low_depth": 8} | options))


def images(count=1, height=64, width=64):
    return np.random.default_rng(0).integers(1, 3000, (count, height, width, 3)).astype("uint16")


def test_training_model_answers_with_logits_of_every_pixel():
    model = reduced()
    trained = models.training_model(model)
    assert [output.shape for output in trained.outputs] == [(None, None, None, 4)]
    image = images(1, 40, 37)
    np.testing.assert_allclose(keras.ops.softmax(trained(image, training=False)), model(image), atol=1e-6)
    assert len(models.seed_states(trained)) == 1


def test_what_learns():
    model = reduced()
    models.set_trainable(model, only_head=True, frozen_batch_norm=False)
    head = {variable.path.split("/")[0] for variable in model.trainable_variables}
    assert head and all(name.startswith(("aspp_", "decoder_")) for name in head)
    assert {"aspp_projection_bn", "decoder_low_conv", "decoder_scores"} <= head
    norm = model.get_layer("conv5_block1_3_bn")
    before = np.asarray(norm.moving_mean).copy(), np.asarray(model.get_layer("aspp_1x1_bn").moving_mean).copy()
    models.training_model(model)(images(2), training=True)
    np.testing.assert_array_equal(norm.moving_mean, before[0])
    assert not np.array_equal(model.get_layer("aspp_1x1_bn").moving_mean, before[1])
    models.set_trainable(model, only_head=False, frozen_batch_norm=True)
    assert not [one.path for one in model.trainable_variables if "_bn/" in one.path]
    assert "conv1_conv/kernel" in {one.path for one in model.trainable_variables}


def test_kernels_of_a_kind():
    model = reduced()
    four = {one.path for one in model.trainable_variables if len(one.shape) == 4}
    depthwise, normalised = models.depthwise_kernels(model), models.normalised_kernels(model)
    assert len(depthwise) == 5 and four == depthwise | normalised | {"decoder_scores/kernel"}
    assert not depthwise & normalised and "decoder_scores/kernel" not in normalised
    classifier = build_resnet(**COMMON, **RESNET)
    four = {one.path for one in classifier.trainable_variables if len(one.shape) == 4}
    assert models.normalised_kernels(classifier) == four and not models.depthwise_kernels(classifier)


@pytest.mark.parametrize(("backbone", "blocks"), [(SMALL, 4), (XCEPTION, 6)])
def test_the_head_is_one_group(backbone, blocks):
    model = reduced(backbone=backbone)
    for one in (model, models.training_model(model)):
        groups = models.depth_groups(one)
        for layer in one.layers:
            for node in layer._inbound_nodes:
                for tensor in node.input_tensors:
                    assert groups[tensor._keras_history.operation.name] <= groups[layer.name]
        head = {layer.name for layer in one.layers if layer.weights and groups[layer.name] == blocks}
        assert head == {layer.name for layer in one.layers if layer.weights and "_" in layer.name
                        and layer.name.split("_")[0] in ("aspp", "decoder")}  # fmt: skip
        assert groups["conv1_conv"] == 0 and groups["logits"] == blocks


def test_what_it_learns_holds_at_other_sizes_and_output_strides():
    random = np.random.default_rng(0)

    def scenes(count, size):
        row, column = np.mgrid[:size, :size]
        centres, radii = random.uniform(0, size, (count, 2, 1, 1)), random.uniform(0.2, 0.5, (count, 1, 1)) * size
        labels = ((row - centres[:, 0]) ** 2 + (column - centres[:, 1]) ** 2 < radii**2).astype("int32")
        return (1000 + 800 * labels[..., None] + random.normal(0, 150, (count, size, size, 3))).astype("uint16"), labels

    model = reduced(num_classes=2, dropout=0.0)
    trained = models.training_model(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained.compile(keras.optimizers.Adam(0.01), loss)
    image, labels = scenes(32, 48)
    losses = trained.fit(image, labels, epochs=10, batch_size=8, shuffle=False, verbose=0).history["loss"]
    assert losses[0] > 2 * losses[-1]
    for size, output_stride in ((48, 16), (48, 8), (55, 16)):
        image, labels = scenes(8, size)
        twin = models.inference_twin(model, None, output_stride)
        right = np.asarray(twin(image)).argmax(axis=-1) == labels
        assert right.mean() > 0.95, (size, output_stride, right.mean())
