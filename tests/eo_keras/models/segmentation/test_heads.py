"""Heads of distance classes on SegNet and DeepLabv3+: layers, logits, what learns, and what is served."""

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.models.layers.factory import is_head
from tests.harness.networks import images, outputs_of, reduced, weights_of

NAMES = ("segnet", "deeplab_resnet50")
SCORES = {"segnet": ("logits", "distance_logits"), "deeplab_resnet50": ("decoder_scores", "decoder_distance_scores")}


@pytest.fixture(scope="module", params=[(name, head) for name in NAMES for head in models.DISTANCE_HEADS], ids=str)
def network(request):
    """A network, its head, and the model of weights large enough to tell pixels apart."""
    name, head = request.param
    model = reduced(name, distance_classes=5, distance_head=head, synchronized=False)
    for layer in map(model.get_layer, SCORES[name]):
        layer.kernel.assign(layer.kernel * 100)
    return name, head, model


def test_outputs(network):
    name, head, model = network
    assert model.output_names == ["probabilities", "distance_logits"]
    assert [one.shape for one in model.outputs] == [(None, None, None, 4), (None, None, None, 5)]
    inner = keras.Model(model.input, [model.outputs, models.logits_model(model).outputs])
    (probabilities, distances), (logits, same) = (list(map(np.asarray, one)) for one in inner(images(2, 33, 40)))
    assert {one.dtype for one in (probabilities, distances)} == {np.dtype("float32")}
    assert probabilities.shape == (2, 33, 40, 4) and distances.shape == (2, 33, 40, 5)
    np.testing.assert_array_equal(distances, same)
    np.testing.assert_allclose(keras.ops.softmax(logits), probabilities, atol=1e-6)


def test_a_cascade_gives_the_distance_to_the_mask_and_a_parallel_head_does_not(network):
    name, head, model = network
    own, distance = map(model.get_layer, SCORES[name])
    assert own.kernel.shape[2] - distance.kernel.shape[2] == (5 if head == "cascaded" else 0)
    before, bias = outputs_of(model, images())[0], np.asarray(distance.bias)
    try:
        distance.bias.assign(bias + 10)
        moved = np.abs(outputs_of(model, images())[0] - before).max()
        # Through a ReLU: what lies below 0 is no different.
        distance.bias.assign(bias - 1e4)
        low = outputs_of(model, images())[0]
        distance.bias.assign(bias - 2e4)
        np.testing.assert_array_equal(outputs_of(model, images())[0], low)
    finally:
        distance.bias.assign(bias)
    assert (moved > 1e-4) == (head == "cascaded")


def test_other_layers_start_as_without_the_head(network):
    name, head, model = network
    without = weights_of(reduced(name))
    mine = weights_of(model)
    added = {path.split("/")[0] for path in mine.keys() - without.keys()}
    assert added == {SCORES[name][1]}
    for path, value in without.items():
        if path.split("/")[0] != SCORES[name][0]:
            np.testing.assert_array_equal(mine[path], value, err_msg=path)


def test_the_served_model_has_the_mask_alone(network, tmp_path):
    name, head, model = network
    inference = models.inference_model(model, 32)
    inference.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.output_names == ["probabilities"]
    np.testing.assert_allclose(outputs_of(loaded, images())[0], outputs_of(model, images())[0], atol=1e-6)
    left = {layer.name for layer in loaded.layers if "distance" in layer.name}
    assert (SCORES[name][1] in left) == bool(left) == (head == "cascaded")
    cooler = models.with_temperature(inference, 2.0)
    assert outputs_of(cooler, images())[0].shape == (2, 32, 32, 4)


def test_the_head_of_distances_is_part_of_the_head(network):
    name, head, model = network
    assert all(map(is_head, SCORES[name]))
    groups = models.depth_groups(models.logits_model(model))
    assert {groups[layer] for layer in SCORES[name]} == {max(groups.values())} == {groups["distance_logits"]}
    models.set_trainable(model, only_head=True, frozen_batch_norm=False)
    names = {one.path.split("/")[0] for one in model.trainable_variables}
    models.set_trainable(model, only_head=False, frozen_batch_norm=False)
    assert set(SCORES[name]) <= names and all(map(is_head, names))


def test_every_weight_learns_from_both_losses(network):
    tf = pytest.importorskip("tensorflow")
    name, head, model = network
    trained = models.logits_model(model)
    with tf.GradientTape(persistent=True) as tape:
        losses = [tf.reduce_mean(output[..., 0] ** 2) for output in trained(images(), training=True)]
    own, distance = SCORES[name]
    of_mask, of_distance = (tape.gradient(loss, model.trainable_variables) for loss in losses)
    paths = [one.path for one in model.trainable_variables]
    for path, first, second in zip(paths, of_mask, of_distance, strict=True):
        assert (first is not None and np.abs(first).max() > 0) == (head == "cascaded" or not path.startswith(distance))
        assert (second is not None and np.abs(second).max() > 0) == (path.split("/")[0] != own)


def test_weights_of_a_run_with_another_head(tmp_path):
    source = reduced("segnet", distance_classes=5, distance_head="cascaded", seed=1)
    models.inference_model(source, 32).save(tmp_path / "cascaded.keras")

    def report_of(**choices):
        model = reduced("segnet", distance_classes=5, seed=2, **choices)
        return models.load_backbone(model, tmp_path / "cascaded.keras", ("B04", "B03", "B02"))

    assert report_of(distance_head="cascaded").initialized == ()
    assert report_of(distance_head="parallel").initialized == ("logits",)
