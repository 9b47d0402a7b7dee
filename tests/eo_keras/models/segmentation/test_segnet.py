"""SegNet: its layers against the papers, any size, weights by VGG-16's names, blocks by depth."""

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.errors import OptionError
from eo_keras.models.pretrained.weights import load_backbones
from tests.harness.networks import (
    RGB,
    compile_for_labels,
    images,
    network_spec,
    outputs_of,
    reduced,
    several_images,
    several_inputs,
    without_weights,
)


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


NAMES = ("s2", "s1")


def vfusenet(**choices):
    return reduced("segnet", several_inputs(NAMES, ratios={"s1": 2}, seed=3, fusion="vfusenet", **choices))


def test_vfusenet_pools_the_sums_of_all_encoders():
    model = vfusenet()
    for number in (1, 2, 3):
        summed = model.get_layer(f"virtual_sum_block{number}")
        assert model.get_layer(f"virtual_block{number}_pool").input is summed.output
        assert len(summed.input) == 3
        _, indices, reference = model.get_layer(f"decoder_block{number}_unpool").input
        assert indices is model.get_layer(f"virtual_block{number}_pool").output[1] and reference is summed.output
    # The stacked features of both first blocks; then its own pooled sums alone.
    assert model.get_layer("virtual_block1_conv1").kernel.shape == (3, 3, 2 * 4, 4)
    assert model.get_layer("virtual_block2_conv1").kernel.shape == (3, 3, 4, 8)
    groups = models.depth_groups(model)
    assert groups["s2_block1_conv1"] == groups["s1_block1_conv1"] == 0 < groups["s1_block3_conv1"]
    assert groups["logits"] == max(groups.values()) > groups["virtual_block3_conv1"]


def test_vfusenet_of_any_size_is_saved_and_learns_everywhere(tmp_path):
    model = vfusenet(distance_classes=5, distance_head="cascaded")
    image = several_images(NAMES, 37, 50, {"s1": 2})
    expected, distances = outputs_of(model, image)
    assert expected.shape == (2, 37, 50, 4) and distances.shape == (2, 37, 50, 5)
    models.inference_model(model).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(outputs_of(loaded, image)[0], expected, atol=1e-6)
    tf = pytest.importorskip("tensorflow")
    trained = models.logits_model(model)
    with tf.GradientTape() as tape:
        loss = tf.add_n([tf.reduce_mean(output[..., 0] ** 2) for output in trained(image, training=True)])
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(one is not None and np.abs(one).max() > 0 for one in gradients)


def test_other_fusions_are_refused():
    told = "fusion: 'attention' for segnet_small; expected one of early, late, late_learned, residual, vfusenet"
    with pytest.raises(OptionError, match=told):
        models.build("segnet_small", several_inputs(NAMES, fusion="attention"))
    with pytest.raises(OptionError, match="dates: 'siamese' for segnet_small; expected one of stacked"):
        models.build("segnet_small", several_inputs(("s2", "s2_before"), dates="siamese"))


def test_what_a_missing_modality_would_have_added_is_0():
    model, image = vfusenet(), several_images(NAMES, 32, 32, {"s1": 2})
    image["s1"][1] = np.nan
    parts = [f"s1_present_block{number}" for number in (1, 2, 3)]
    inside = keras.Model(model.inputs, [model.get_layer(name).output for name in parts])
    for features in inside(image):
        assert np.abs(features[0]).max() > 0 and not np.any(features[1])
    assert np.isfinite(outputs_of(model, image)[0]).all()


def test_a_backbone_of_one_input_starts_each_encoder_of_several(tmp_path):
    source = reduced("segnet", network_spec(seed=1, num_classes=4))
    models.inference_model(source, 64).save(tmp_path / "own.keras")
    model = reduced("segnet", several_inputs(("s2", "rgb"), seed=2, fusion="vfusenet"))
    inputs = {"s2": RGB, "rgb": RGB}
    report = load_backbones(model, tmp_path / "own.keras", inputs, {"s2_": ("s2",), "rgb_": ("rgb",)})
    assert {"s2_block1_conv1", "rgb_block1_conv1", "virtual_block2_conv1"} <= {*report.loaded}
    assert "virtual_block1_conv1" in report.initialized
    own = np.asarray(source.get_layer("block1_conv1").kernel)
    for prefix in ("s2_", "rgb_"):
        np.testing.assert_array_equal(model.get_layer(f"{prefix}block1_conv1").kernel, own)


def test_what_it_learns_holds_at_other_sizes():
    random = np.random.default_rng(0)

    def scenes(count, size):
        row, column = np.mgrid[:size, :size]
        centres, radii = random.uniform(0, size, (count, 2, 1, 1)), random.uniform(0.2, 0.5, (count, 1, 1)) * size
        labels = ((row - centres[:, 0]) ** 2 + (column - centres[:, 1]) ** 2 < radii**2).astype("int32")
        return (1000 + 800 * labels[..., None] + random.normal(0, 150, (count, size, size, 3))).astype("uint16"), labels

    model = reduced("segnet", num_classes=2)
    trained = models.logits_model(model)
    compile_for_labels(trained)
    image, labels = scenes(48, 32)
    losses = trained.fit(image, labels, epochs=8, batch_size=4, shuffle=False, verbose=0).history["loss"]
    assert losses[0] > 2 * losses[-1]
    for size in (48, 55):
        image, labels = scenes(8, size)
        right = np.asarray(models.inference_model(model)(image)).argmax(axis=-1) == labels
        assert right.mean() > 0.95, (size, right.mean())
