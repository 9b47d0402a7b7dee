"""SegNet: its layers against the papers, any size, weights by VGG-16's names, blocks by depth."""

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.errors import OptionError
from tests.harness.networks import RGB, images, network_spec, reduced, without_weights


@pytest.fixture(scope="module")
def full():
    return without_weights(models.MODELS["segnet"], "segnet", network_spec(num_classes=11))


def convolutions_of(model):
    return {layer.name: layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}


def test_the_encoder_is_that_of_vgg16(full):
    vgg = without_weights(keras.applications.VGG16, weights=None, include_top=False, input_shape=(64, 64, 3))
    theirs = {layer.name: layer.kernel.shape for layer in vgg.layers if layer.weights}
    ours = {name: one.kernel.shape for name, one in convolutions_of(full).items() if name.startswith("block")}
    assert ours == theirs and len(ours) == 13


def test_the_decoder_mirrors_it(full):
    own = convolutions_of(full)
    channels = {name: one.kernel.shape[2:] for name, one in own.items() if name.startswith("decoder_")}
    assert len(channels) == 13 and own["logits"].kernel.shape == (1, 1, 64, 11)
    for name, (given, made) in channels.items():
        before, after = own[name.removeprefix("decoder_")].kernel.shape[2:]
        assert given == after and made == (before if name != "decoder_block1_conv1" else 64)
    for number in range(1, 6):
        unpool = full.get_layer(f"decoder_block{number}_unpool")
        _, indices, reference = unpool.input
        assert indices is full.get_layer(f"block{number}_pool").output[1]
        assert reference is full.get_layer(f"block{number}_pool").input
    norms = [layer for layer in full.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 26
    assert models.output_stride_of(full) == 32


def test_any_size_also_traced():
    model = reduced("segnet")
    for size in ((32, 48), (33, 50), (31, 7), (1, 1)):
        found = np.asarray(model(images(2, *size)))
        assert found.shape == (2, *size, 4)
        np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        traced = tf.function(model.call, input_signature=[tf.TensorSpec((None, None, None, 3), "uint16")])
        for size in ((48, 32), (47, 33)):
            np.testing.assert_allclose(traced(images(1, *size)), model(images(1, *size)), atol=1e-6)


def test_each_block_is_a_group_and_the_decoder_the_last():
    model = reduced("segnet")
    groups = models.depth_groups(model)
    assert [groups[f"block{number}_conv1"] for number in (1, 2, 3)] == [0, 1, 2]
    assert groups["block1_conv2_bn"] == 0 and groups["block3_conv1_bn"] == 2
    after = {group for name, group in groups.items() if name.startswith(("decoder_", "logits"))}
    assert after == {3} == {groups["probabilities"]}
    kernels = {one.path for one in model.trainable_variables if one.name == "kernel"}
    assert kernels - models.normalized_kernels(model) == {"logits/kernel"}


def test_weights_of_another_run_and_other_bands(monkeypatch, tmp_path):
    import dataclasses

    small = dataclasses.replace(models.MODELS["segnet_small"], arguments={"blocks": ((2, 4), (1, 8))})
    monkeypatch.setitem(models.MODELS, "segnet_small", small)
    source, _ = models.build("segnet_small", network_spec(seed=1))
    models.inference_model(source, 64).save(tmp_path / "own.keras")
    model, report = models.build("segnet_small", network_spec(weights=tmp_path / "own.keras", num_classes=7))
    assert report.initialized == ("logits",) and "decoder_block1_conv1_bn" in report.loaded
    bands = (*RGB, "B08")
    model, report = models.build("segnet_small", network_spec(bands=bands, weights=tmp_path / "own.keras"))
    assert report.inflated == ("block1_conv1",) and report.initialized == ()
    assert model.get_layer("block1_conv1").kernel.shape == (3, 3, 4, 4)
    with pytest.raises(OptionError, match="output_stride: 8 for model 'segnet_small'; expected a DeepLabv3"):
        models.inference_model(model, None, 8)


def test_what_it_learns_holds_at_other_sizes():
    random = np.random.default_rng(0)

    def scenes(count, size):
        row, column = np.mgrid[:size, :size]
        centres, radii = random.uniform(0, size, (count, 2, 1, 1)), random.uniform(0.2, 0.5, (count, 1, 1)) * size
        labels = ((row - centres[:, 0]) ** 2 + (column - centres[:, 1]) ** 2 < radii**2).astype("int32")
        return (1000 + 800 * labels[..., None] + random.normal(0, 150, (count, size, size, 3))).astype("uint16"), labels

    model = reduced("segnet", num_classes=2)
    trained = models.logits_model(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained.compile(keras.optimizers.Adam(0.01), loss)
    image, labels = scenes(48, 32)
    losses = trained.fit(image, labels, epochs=8, batch_size=4, shuffle=False, verbose=0).history["loss"]
    assert losses[0] > 2 * losses[-1]
    for size in (48, 55):
        image, labels = scenes(8, size)
        right = np.asarray(models.inference_model(model)(image)).argmax(axis=-1) == labels
        assert right.mean() > 0.95, (size, right.mean())
