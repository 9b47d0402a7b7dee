"""DeepLabv3+ in training: logits of every pixel, what learns and how fast, and that it learns."""

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.models.backbones.resnet import build_resnet
from tests.eo_keras.models.segmentation.small_deeplab import RESNET, SMALL, XCEPTION, reduced
from tests.harness.networks import compile_for_labels, images, network_spec


def test_training_model_returns_logits_of_every_pixel():
    model = reduced()
    trained = models.logits_model(model)
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
    models.logits_model(model)(images(2, 64, 64), training=True)
    np.testing.assert_array_equal(norm.moving_mean, before[0])
    assert not np.array_equal(model.get_layer("aspp_1x1_bn").moving_mean, before[1])
    models.set_trainable(model, only_head=False, frozen_batch_norm=True)
    assert not [one.path for one in model.trainable_variables if "_bn/" in one.path]
    assert "conv1_conv/kernel" in {one.path for one in model.trainable_variables}


def test_kernels_of_a_kind():
    model = reduced()
    four = {one.path for one in model.trainable_variables if len(one.shape) == 4}
    depthwise, normalized = models.depthwise_kernels(model), models.normalized_kernels(model)
    assert len(depthwise) == 5 and four == depthwise | normalized | {"decoder_scores/kernel"}
    assert not depthwise & normalized and "decoder_scores/kernel" not in normalized
    classifier = build_resnet(network_spec(), **RESNET)
    four = {one.path for one in classifier.trainable_variables if len(one.shape) == 4}
    assert models.normalized_kernels(classifier) == four and not models.depthwise_kernels(classifier)


@pytest.mark.parametrize(("backbone", "blocks"), [(SMALL, 4), (XCEPTION, 6)])
def test_the_head_is_one_group(backbone, blocks):
    model = reduced(backbone=backbone)
    for one in (model, models.logits_model(model)):
        groups = models.depth_groups(one)
        for layer in one.layers:
            for node in layer._inbound_nodes:
                for tensor in node.input_tensors:
                    assert groups[tensor._keras_history.operation.name] <= groups[layer.name]
        head = {layer.name for layer in one.layers if layer.weights and groups[layer.name] == blocks}
        assert head == {layer.name for layer in one.layers if layer.weights and "_" in layer.name
                        and layer.name.split("_")[0] in ("aspp", "decoder")}  # fmt: skip
        assert groups["conv1_conv"] == 0 and groups["logits"] == blocks


@pytest.mark.slow
def test_what_it_learns_holds_at_other_sizes_and_output_strides():
    random = np.random.default_rng(0)

    def scenes(count, size):
        row, column = np.mgrid[:size, :size]
        centres, radii = random.uniform(0, size, (count, 2, 1, 1)), random.uniform(0.2, 0.5, (count, 1, 1)) * size
        labels = ((row - centres[:, 0]) ** 2 + (column - centres[:, 1]) ** 2 < radii**2).astype("int32")
        return (1000 + 800 * labels[..., None] + random.normal(0, 150, (count, size, size, 3))).astype("uint16"), labels

    model = reduced(num_classes=2, dropout=0.0)
    trained = models.logits_model(model)
    compile_for_labels(trained)
    image, labels = scenes(32, 48)
    losses = trained.fit(image, labels, epochs=10, batch_size=8, shuffle=False, verbose=0).history["loss"]
    assert losses[0] > 2 * losses[-1]
    for size, output_stride in ((48, 16), (48, 8), (55, 16)):
        image, labels = scenes(8, size)
        inference = models.inference_model(model, None, output_stride)
        right = np.asarray(inference(image)).argmax(axis=-1) == labels
        assert right.mean() > 0.95, (size, output_stride, right.mean())
