"""What every architecture keeps to: precision, saving, twins, dropout, any size; on reduced networks."""

import functools

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.errors import OptionError, SourceError
from eo_keras.models import Normalization
from eo_keras.models.backbones.compact import build_compact
from eo_keras.models.backbones.googlenet import build_googlenet
from eo_keras.models.backbones.inception_v3 import build_inception_v3
from eo_keras.models.backbones.resnet import build_resnet, resnet_features
from eo_keras.models.backbones.xception import build_xception, xception_features
from eo_keras.models.segmentation.deeplab import build_deeplab

TABLE = (("3a", (64, 96, 128, 16, 32, 32)), ("4a", (192, 96, 208, 16, 48, 64)), ("4d", (112, 144, 288, 32, 64, 64)))
OWN_RATES = {
    "googlenet": {"aux1_dropout": 0.7, "aux2_dropout": 0.7, "dropout": 0.4},
    "inception_v3": {"dropout": 0.2},
    "deeplab_resnet": {"dropout": 0.1},
    "deeplab_xception": {"dropout": 0.1},
}
RGB = ("B04", "B03", "B02")
REDUCED = {
    "resnet": functools.partial(build_resnet, blocks=(1, 1), width=8, zero_last_gamma=False),
    "compact": functools.partial(build_compact, stem=(4, 6), widths=(8, 12), blocks=(1, 2), zero_last_gamma=False),
    "googlenet": functools.partial(build_googlenet, width=1 / 16, table=TABLE),
    "inception_v3": functools.partial(build_inception_v3, blocks=(1, 1, 1), width=1 / 16),
    "xception": functools.partial(build_xception, middle=0, width=1 / 16, zero_last_gamma=False),
    "deeplab_resnet": functools.partial(
        build_deeplab,
        backbone=functools.partial(resnet_features, blocks=(1, 1, 1, 1), width=4, zero_last_gamma=False),
        depth=8,
        low_depth=4,
    ),
    "deeplab_xception": functools.partial(
        build_deeplab,
        backbone=functools.partial(xception_features, middle=0, width=1 / 16, zero_last_gamma=False),
        depth=8,
        low_depth=4,
    ),
}
SYNCHRONIZED = keras.config.backend() == "tensorflow"


def reduced(name, **options):
    arguments = {
        "bands": RGB,
        "num_classes": 4,
        "normalisation": Normalization((1500.0,) * 3, (800.0,) * 3),
        "input_dtype": "uint16",
        "seed": 3,
    }
    return REDUCED[name](**(arguments | options))


def images(count=2, size=32):
    return np.random.default_rng(0).integers(1, 3000, (count, size, size, 3)).astype("uint16")


def rates(model):
    return {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}


def answers(model, image):
    return [np.asarray(output) for output in keras.tree.flatten(model(image, training=False))]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("name", REDUCED)
def test_precision_twin_and_saved_twin(name, policy, tmp_path):
    model = reduced(name, dtype_policy=policy, synchronized=SYNCHRONIZED)
    exact, compute = ("float64",) * 2 if policy == "float64" else ("float32", keras.DTypePolicy(policy).compute_dtype)
    heads = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense) or layer.name == "decoder_scores"]
    assert heads
    assert {layer.compute_dtype for layer in [*heads, *map(model.get_layer, ("logits", "probabilities"))]} == {exact}
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    convolutions = [layer for layer in model.layers if isinstance(layer, kinds) and layer not in heads]
    assert {layer.compute_dtype for layer in convolutions} == {compute}
    assert not any(layer.use_bias for layer in convolutions)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(layer.synchronized == SYNCHRONIZED for layer in norms) and len(norms) == len(convolutions)
    assert rates(model) == OWN_RATES.get(name, {})
    assert model.output_names[0] == "probabilities" and model.input.name == "image"

    given = answers(model, images())
    assert {answer.dtype for answer in given} == {np.dtype(exact)}
    assert given[0].shape == ((2, 32, 32, 4) if name.startswith("deeplab") else (2, 4))
    np.testing.assert_allclose(given[0].sum(axis=-1), 1, atol=1e-6)
    twin = models.inference_model(model, 32)
    if policy == "float32":
        twin.save(tmp_path / "twin.keras")
        twin = keras.saving.load_model(tmp_path / "twin.keras", safe_mode=True)
    found = answers(twin, images())
    assert len(found) == 1 and found[0].dtype == exact
    np.testing.assert_allclose(found[0], given[0], atol=0.05 if policy == "mixed_bfloat16" else 1e-6)
    assert not any(getattr(layer, "synchronized", False) for layer in twin.layers)
    assert {layer.compute_dtype for layer in twin.layers if layer.weights} == {exact}
    assert twin.get_layer("normalisation").bands == RGB
    assert len(twin.variables) == len(twin.weights)  # No random state is carried along.


@pytest.mark.parametrize("name", REDUCED)
def test_saved_model_answers_alike_at_any_size(name, tmp_path):
    model = reduced(name, dropout=0.25)
    auxiliary = ("aux1_dropout", "aux2_dropout") if name == "googlenet" else ()
    assert rates(model) == dict.fromkeys((*auxiliary, "dropout"), 0.25)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    image = np.random.default_rng(0).integers(1, 3000, (1, 37, 65, 3)).astype("uint16")
    for one, other in zip(answers(model, image), answers(again, image), strict=True):
        assert one.shape == ((1, 37, 65, 4) if name.startswith("deeplab") else (1, 4))
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_seeds(name):
    options = {"table": TABLE[1:2]} if name == "googlenet" else {"blocks": (0, 0, 1)}
    model, again, other = (reduced(name, seed=seed, **options) for seed in (1, 1, 2))
    for one, same in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(model.get_layer("conv1_conv").kernel, other.get_layer("conv1_conv").kernel)


def test_dropout_that_leaves_nothing():
    with pytest.raises(OptionError, match="dropout: 1; expected at least 0 and below 1"):
        reduced("resnet", dropout=1)


def test_dropout_acts_in_training_only_and_repeatably():
    image = images()
    first, again, other = (
        models.logits_model(reduced("compact", dropout=0.5, seed=seed, blocks=(1, 1))) for seed in (1, 1, 2)
    )
    other.set_weights(first.get_weights())
    first_masks, again_masks, other_masks = (
        [np.asarray(model(image, training=True)) for _ in range(2)] for model in (first, again, other)
    )
    np.testing.assert_array_equal(first_masks, again_masks)
    assert not np.allclose(first_masks[0], first_masks[1])
    assert not np.allclose(first_masks[0], other_masks[0])
    np.testing.assert_array_equal(first(image, training=False), first(image, training=False))


def build(name, **options):
    return models.build(
        name,
        **{
            "bands": RGB,
            "num_classes": 4,
            "normalisation": Normalization((1500.0,) * 3, (800.0,) * 3),
            "input_dtype": "uint16",
        }
        | options,
    )


def test_registry(monkeypatch, tmp_path):
    tasks = {task: [name for name, entry in models.MODELS.items() if entry.task == task] for task in models.TASKS}
    assert tasks == {
        "classification": [
            "resnet50", "resnet101", "inception_v3", "googlenet", "resnet14", "compact", "xception65"
        ],
        "segmentation": [
            "deeplab_resnet50", "deeplab_resnet101", "deeplab_resnet14", "deeplab_xception65", "deeplab_xception_small"
        ],
    }  # fmt: skip
    assert [name for name, entry in models.MODELS.items() if entry.imagenet] == [
        "resnet50", "resnet101", "inception_v3", "deeplab_resnet50", "deeplab_resnet101"
    ]  # fmt: skip
    with pytest.raises(
        OptionError, match="no ImageNet weights for googlenet; expected one of resnet50, resnet101, inc"
    ):
        build("googlenet", weights="imagenet")
    with pytest.raises(OptionError, match="dropout: -0.1"):
        build("googlenet", dropout=-0.1)
    entry = models.ModelInfo("small", build_googlenet, {"width": 1 / 16, "table": TABLE})
    monkeypatch.setitem(models.MODELS, "small", entry)
    source, report = build("small", dropout=0.3, patch_size=32, seed=1)
    assert source.output_names == ["probabilities", "aux1_logits", "aux2_logits"]
    assert report.source == "random" and "aux2_logits" in report.initialised
    assert source.get_layer("aux2_dropout").rate == 0.3

    models.inference_model(source).save(tmp_path / "own.keras")
    model, report = build("small", weights=tmp_path / "own.keras", seed=2)
    assert {name.split("_")[0] for name in report.initialised} == {"aux1", "aux2"}
    np.testing.assert_allclose(answers(model, images())[0], answers(source, images())[0], atol=1e-6)

    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    with pytest.raises(SourceError, match="no model of this package, and keras.applications has no weights for this"):
        build("small", weights=tmp_path / "other.keras")
