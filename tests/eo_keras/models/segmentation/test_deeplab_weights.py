"""Weights for DeepLabv3+: of classifiers, of other segmentation networks, of keras.applications."""

import dataclasses

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.errors import SourceError
from eo_keras.models.backbones.resnet import build_resnet
from tests.eo_keras.models.segmentation.small_deeplab import RESNET, reduced
from tests.harness.networks import RGB, images, network_spec, without_weights


def registered(monkeypatch, name, **choices):
    """Builds a network of the registry, whose backbone and head are made small."""
    small = RESNET | ({"backbone": "resnet", "depth": 16, "low_depth": 8} if name.startswith("deeplab") else {})
    monkeypatch.setitem(models.MODELS, name, dataclasses.replace(models.MODELS[name], arguments=small))
    return models.build(name, network_spec(zero_last_gamma=name == "resnet50", **choices))


def test_a_classifier_becomes_the_backbone(monkeypatch, tmp_path):
    path = tmp_path / "classifier.keras"
    classifier = build_resnet(network_spec(zero_last_gamma=False, seed=1), **RESNET)
    models.inference_model(classifier, 64).save(path)
    model, report = registered(monkeypatch, "deeplab_resnet50", weights=path, seed=2)
    backbone = {layer.name for layer in classifier.layers if layer.weights} - {"logits"}
    assert set(report.loaded) == backbone and not report.inflated
    assert all(name.startswith(("aspp_", "decoder_")) for name in report.initialized)
    assert "decoder_scores" in report.initialized and "logits" not in report.initialized
    image = images(1, 64, 96)
    coarse, fine = (
        np.asarray(keras.Model(one.input, one.get_layer("conv5_block1_out").output)(image))
        for one in (classifier, model)
    )
    np.testing.assert_allclose(fine[:, ::2, ::2], coarse, rtol=1e-4, atol=1e-4 * coarse.max())

    bands = ("B04", "B03", "B02", "B08")
    model, report = registered(monkeypatch, "deeplab_resnet50", bands=bands, weights=path)
    assert report.inflated == ("conv1_conv",) and len(report.loaded) == len(backbone) - 1


def test_a_dense_model_is_loaded_whole_and_serves_a_classifier(monkeypatch, tmp_path):
    path = tmp_path / "dense.keras"
    source = reduced(seed=1)
    models.inference_model(source, 64).save(path)
    model, report = registered(monkeypatch, "deeplab_resnet50", weights=path, seed=2)
    assert report.initialized == () and "decoder_scores" in report.loaded
    np.testing.assert_allclose(model(images()), source(images()), atol=1e-6)
    _, report = registered(monkeypatch, "deeplab_resnet50", weights=path, num_classes=7)
    assert report.initialized == ("decoder_scores",)
    _, report = registered(monkeypatch, "resnet50", weights=path)
    assert report.initialized == ("logits",)
    # Of another backbone the head would fit, and the features that it was trained on would be missing.
    other = reduced({"backbone": "xception", "middle": 1, "width": 0.5}, name="other")
    assert (
        other.get_layer("decoder_unit2_pointwise").kernel.shape
        == source.get_layer("decoder_unit2_pointwise").kernel.shape
    )
    with pytest.raises(SourceError, match="has the name and shape of one in the backbone of model 'other'"):
        models.load_backbone(other, path, RGB)


def test_keras_applications_fit_by_name_and_shape():
    original = without_weights(keras.applications.ResNet50, weights=None, include_top=False, input_shape=(64, 64, 3))
    model = without_weights(models.MODELS["deeplab_resnet50"], "deeplab_resnet50", network_spec())
    own = {layer.name: [tuple(one.shape) for one in layer.weights] for layer in model.layers if layer.weights}
    for layer in original.layers:
        if layer.weights:  # Theirs have biases, which batch normalisation takes over.
            shapes = [tuple(one.shape) for one in layer.weights]
            assert own.pop(layer.name) == (shapes[:1] if isinstance(layer, keras.layers.Conv2D) else shapes)
    assert all(name.startswith(("aspp_", "decoder_")) for name in own)
