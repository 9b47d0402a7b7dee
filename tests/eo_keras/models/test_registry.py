"""The registry of networks and the specification they are built from."""

import dataclasses
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.errors import BandError, OptionError, SourceError
from tests.harness import tiny
from tests.harness.networks import BLOCKS, images, network_spec, outputs_of, reduced, without_weights

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def registry_of_users():
    with tiny.absent():
        yield


@pytest.mark.parametrize("name", models.MODELS)
def test_parameters_are_those_of_the_registry(name):
    model = without_weights(models.MODELS[name], name, network_spec(num_classes=10, auxiliary=False))
    assert model.name == name and model.count_params() == models.MODELS[name].parameters


def test_tasks_weights_and_help():
    assert set(models.list_models("classification")) | set(models.list_models("segmentation")) == set(models.MODELS)
    dense = [name for name in models.MODELS if name.startswith(("deeplab_", "segnet", "unet"))]
    assert models.list_models("segmentation") == dense
    assert models.list_models() == list(models.MODELS)
    assert [name for name, entry in models.MODELS.items() if entry.imagenet] == [
        "resnet50", "resnet101", "inception_v3", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
        "deeplab_resnet50", "deeplab_resnet101", "deeplab_efficientnet_lite0", "segnet",
    ]  # fmt: skip
    text = models.describe()
    assert re.match(
        "classification: resnet50, .*; segmentation: deeplab_resnet50, .*. ImageNet weights: resnet50", text
    )
    assert all(re.search(rf"\b{name}\b", text) for name in models.MODELS)


def test_the_documentation_holds_the_table_of_networks():
    table = models.markdown_table()
    assert (
        table.count("\n") == len(models.MODELS) + 2 and "| `resnet50` | classification | 23.6 million | yes |" in table
    )
    assert [page for page in (ROOT / "docs").rglob("*.md") if table in page.read_text()]


def test_an_entry_added_and_another_runs_weights(monkeypatch, tmp_path):
    entry = dataclasses.replace(models.MODELS["googlenet"], arguments={"width": 1 / 16, "table": BLOCKS})
    monkeypatch.setitem(models.MODELS, "small", entry)
    source, report = models.build("small", network_spec(dropout=0.3, patch_size=32, seed=1))
    assert source.output_names == ["probabilities", "aux1_logits", "aux2_logits"] and source.name == "small"
    assert report.source == "random" and report.initialized[0] == "conv1_conv" and "aux2_logits" in report.initialized
    assert report.summary() == f"All {len(report.initialized)} layers start from random weights."
    assert source.input_shape == (None, 32, 32, 3)

    models.inference_model(source).save(tmp_path / "own.keras")
    model, report = models.build("small", network_spec(weights=tmp_path / "own.keras", seed=2))
    assert {name.split("_")[0] for name in report.initialized} == {"aux1", "aux2"}
    np.testing.assert_allclose(outputs_of(model, images())[0], outputs_of(source, images())[0], atol=1e-6)

    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    with pytest.raises(SourceError, match="no model of this package, and keras.applications has no weights for this"):
        models.build("small", network_spec(weights=tmp_path / "other.keras"))


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("resnet51", {}, "model: 'resnet51'; expected one of resnet50, resnet101, "),
        ("resnet14", {"patch_size": 16}, "patch_size: 16 pixels; expected at least 32"),
        ("resnet14", {"stem": "by_colour"}, "stem: 'by_colour'"),
        ("resnet14", {"output_stride": 16}, "output_stride: 16 for resnet14, which has none; expected one of deeplab_"),
        ("segnet_small", {"output_stride": 16}, "output_stride: 16 for segnet_small, which has none"),
        ("resnet14", {"distance_classes": 5}, "distance_classes: 5 for resnet14, a classification network; expected a"),
        ("resnet14", {"weights": "imagenet"}, "no ImageNet weights for resnet14; expected one of resnet50, resnet101"),
        ("deeplab_xception65", {"weights": "imagenet"}, "no ImageNet weights for deeplab_xception65"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(name, choices, message):
    with pytest.raises(OptionError, match=message):
        models.build(name, network_spec(**choices))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"dtype": "float64"}, "dtype: 'float64'; expected one of uint8, uint16, float32"),
        ({"num_classes": 1}, "num_classes: 1"),
        ({"dropout": 1}, "dropout: 1; expected at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout: -0.1"),
        ({"dtype_policy": "bfloat16"}, "dtype_policy: 'bfloat16'"),
        ({"output_stride": 4}, "output_stride: 4; expected one of 8, 16"),
        ({"distance_classes": 1}, "distance_classes: 1; expected an odd number of 3 or more"),
        ({"distance_classes": 8}, "distance_classes: 8; expected an odd number of 3 or more"),
        ({"distance_head": "serial"}, "distance_head: 'serial'; expected one of parallel, cascaded"),
    ],
)
def test_specifications_are_refused_by_field(choices, message):
    with pytest.raises(OptionError, match=message):
        network_spec(**choices)


def test_bands_inputs_and_means_must_fit():
    three = models.Normalization((1500.0,) * 3, (800.0,) * 3)
    with pytest.raises(BandError, match="3 means; expected one for each of the 2 bands"):
        network_spec(("B04", "B03"), normalization=three)
    with pytest.raises(BandError, match="no bands, or one of them twice"):
        models.build("resnet14", network_spec(("B04", "B04")))


def test_a_saved_model_opens_after_importing_eo_keras_models_alone(tmp_path):
    """As the card of every model says, and before anything else has loaded Keras."""
    model = models.inference_model(reduced("deeplab_resnet50"))
    model.save(tmp_path / "model.keras")
    script = f"""
import sys
import eo_keras.models
eo_keras.models.describe(), eo_keras.models.NetworkSpec
assert not {{"keras", "tensorflow", "jax"}} & set(sys.modules)
import keras
model = keras.saving.load_model(r"{tmp_path / "model.keras"}", compile=False)
kinds = {{type(layer).__name__ for layer in model.layers}}
assert {{"BandNormalization", "BatchNormalization", "BroadcastLike", "ResizeLike"}} <= kinds, kinds
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
