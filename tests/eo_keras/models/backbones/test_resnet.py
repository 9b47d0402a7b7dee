"""ResNets: shapes, policies, seeds, saving, and the same answers under JAX."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from eo_keras.errors import BandError, OptionError
from eo_keras.models import Normalization, build, inference_model
from eo_keras.models.backbones.resnet import build_resnet
from eo_keras.models.layers.factory import POLICIES
from eo_keras.sensors.sentinel2 import EUROSAT_ORDER

MEAN = tuple(1000.0 + 50 * band for band in range(13))
STD = tuple(200.0 + 10 * band for band in range(13))


def reduced(bands=EUROSAT_ORDER, **options):
    arguments = {
        "bands": bands,
        "num_classes": 5,
        "normalisation": Normalization(MEAN[: len(bands)], STD[: len(bands)]),
        "input_dtype": "uint16",
        "blocks": (1, 1),
        "width": 8,
        "seed": 7,
    }
    return build_resnet(**(arguments | options))


def images(count=2, height=64, width=64, bands=13, seed=0):
    return np.random.default_rng(seed).integers(1, 3000, (count, height, width, bands)).astype("uint16")


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_give_exact_probabilities_and_leave_the_global_policy_alone(policy):
    before = keras.config.dtype_policy().name
    model = reduced(dtype_policy=policy)
    assert keras.config.dtype_policy().name == before
    expected = "float64" if policy == "float64" else "float32"
    probabilities = model.predict(images(), verbose=0)
    assert probabilities.shape == (2, 5)
    assert probabilities.dtype == expected
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert model.get_layer("logits").compute_dtype == expected
    assert model.get_layer("conv2_block1_2_conv").compute_dtype == keras.DTypePolicy(policy).compute_dtype
    assert model.input.dtype == "uint16"
    assert model.input.name == "image"
    assert model.layers[-1].name == "probabilities"


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_any_size(size):
    model = reduced(blocks=(1, 1, 1, 1))
    image = images(1, *size)
    features = keras.Model(model.input, model.get_layer("conv5_block1_out").output).predict(image, verbose=0)
    assert features.shape == (1, -(-size[0] // 32), -(-size[1] // 32), 8 * 8 * 4)
    assert model.predict(image, verbose=0).sum() == pytest.approx(1, abs=1e-6)


def test_saved_model_answers_alike_and_knows_its_bands(tmp_path):
    model = reduced()
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.saving.load_model(path, safe_mode=True)
    np.testing.assert_allclose(again.predict(images(), verbose=0), model.predict(images(), verbose=0), atol=1e-6)
    assert again.get_layer("normalisation").bands == EUROSAT_ORDER


def test_seeds():
    first, again, other = (reduced(seed=seed).get_weights() for seed in (1, 1, 2))
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(first[0], other[0])
    model = reduced(seed=1)
    shapes_alike = [
        layer.get_weights()[0] for layer in model.layers if layer.name in ("conv2_block1_0_conv", "conv2_block1_3_conv")
    ]
    assert shapes_alike[0].shape == shapes_alike[1].shape
    assert not np.array_equal(*shapes_alike)  # Each layer draws from its own seed.


def test_blocks_start_as_identity_from_scratch():
    gammas = {
        layer.name: layer.gamma.numpy() if hasattr(layer.gamma, "numpy") else np.asarray(layer.gamma)
        for layer in reduced().layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    for name, gamma in gammas.items():
        assert (gamma == (0 if name.endswith("_3_bn") else 1)).all(), name
    assert (np.asarray(reduced(zero_last_gamma=False).get_layer("conv3_block1_3_bn").gamma) == 1).all()


def test_he_normal_spread():
    kernel = np.asarray(reduced(width=32).get_layer("conv1_conv").kernel)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (7 * 7 * 13)), rel=0.03)


def test_trains_on_logits():
    model = reduced(blocks=(1,), bands=("B04", "B03", "B02"))
    trained = keras.Model(model.input, model.get_layer("logits").output)
    trained.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    image, labels = images(8, 32, 32, 3), np.arange(8) % 5
    losses = trained.fit(image, labels, epochs=15, batch_size=8, verbose=0).history["loss"]
    assert losses[0] == pytest.approx(np.log(5), abs=0.5)
    assert losses[-1] < losses[0] / 2
    # The two models share their layers: what was trained is what is saved.
    np.testing.assert_allclose(
        model.predict(image, verbose=0), keras.ops.softmax(trained.predict(image, verbose=0)), atol=1e-6
    )


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64"])
def test_inference_twin_is_plain_and_of_the_same_weights(policy):
    model = reduced(
        blocks=(1,),
        bands=("B04", "B03", "B02"),
        dtype_policy=policy,
        zero_last_gamma=False,
        synchronized=keras.config.backend() == "tensorflow",
    )
    twin = inference_model(model, 32)
    assert twin.input_shape == (None, 32, 32, 3) and twin.input.dtype == model.input.dtype
    exact = "float64" if policy == "float64" else "float32"
    assert {layer.compute_dtype for layer in twin.layers if layer.weights} == {exact}
    assert not any(getattr(layer, "synchronized", False) for layer in twin.layers)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    image = images(4, 32, 32, 3)
    tolerance = 0.05 if policy == "mixed_bfloat16" else 1e-6
    np.testing.assert_allclose(
        twin.predict(image, verbose=0), np.asarray(model.predict(image, verbose=0), "float32"), atol=tolerance
    )
    # A copy, not the same layers under another name.
    twin.get_layer("logits").kernel.assign(twin.get_layer("logits").kernel * 0)
    assert np.abs(np.asarray(model.get_layer("logits").kernel)).max() > 0


def test_options_are_refused_by_name():
    good = {
        "bands": ("B04", "B03", "B02"),
        "num_classes": 10,
        "normalisation": Normalization(MEAN[:3], STD[:3]),
        "input_dtype": "uint16",
    }
    with pytest.raises(OptionError, match="'resnet51'; expected one of resnet50, resnet101, "):
        build("resnet51", **good)
    for change, message in (
        ({"input_dtype": "float32"}, "input_dtype: 'float32'"),
        ({"num_classes": 1}, "num_classes: 1"),
        ({"patch_size": 16}, "patch_size: 16 pixels"),
        ({"dtype_policy": "bfloat16"}, "dtype_policy: 'bfloat16'"),
        ({"stem": "by_colour"}, "stem: 'by_colour'"),
        ({"weights": "imagenet"}, "no ImageNet weights for resnet14; expected one of resnet50"),
    ):
        with pytest.raises(OptionError, match=message):
            build("resnet14", **(good | change))
    with pytest.raises(BandError, match="3 means; expected one for each of the 2 bands"):
        build("resnet14", **(good | {"bands": ("B04", "B03")}))


def test_small_network_of_the_registry():
    model, report = build(
        "resnet14", bands=EUROSAT_ORDER, num_classes=10, normalisation=Normalization(MEAN, STD), input_dtype="uint16",
        patch_size=64, seed=0, synchronized=keras.config.backend() == "tensorflow",
    )  # fmt: skip
    assert model.count_params() == 2_031_082 + 10 * 7 * 7 * 32
    assert model.input_shape == (None, 64, 64, 13)
    assert report.source == "random"
    assert report.initialised[0] == "conv1_conv"
    assert report.initialised[-1] == "logits"
    assert report.summary() == f"All {len(report.initialised)} layers start from random weights."


@pytest.mark.slow
def test_resnet101_has_the_parameters_of_the_original():
    model, _ = build(
        "resnet101", bands=("B04", "B03", "B02"), num_classes=10, normalisation=Normalization(MEAN[:3], STD[:3]),
        input_dtype="uint16", patch_size=64,
    )  # fmt: skip
    original = keras.applications.ResNet101(weights=None, include_top=False, input_shape=(64, 64, 3))
    biases = sum(layer.bias.shape[0] for layer in original.layers if isinstance(layer, keras.layers.Conv2D))
    assert model.count_params() == original.count_params() - biases + 2048 * 10 + 10
    assert original.count_params() == pytest.approx(42.6e6, rel=0.002)
    weighted = [layer.name for layer in original.layers if layer.weights]
    assert [layer.name for layer in model.layers if layer.weights] == [*weighted, "logits"]
    strides = {layer.name: layer.strides for layer in original.layers if isinstance(layer, keras.layers.Conv2D)}
    assert strides == {layer.name: layer.strides for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}


JAX_SCRIPT = """
import sys
sys.modules["tensorflow"] = None
import jax, keras, numpy as np
from eo_keras import models
from eo_keras.errors import OptionError
from eo_keras.losses.classification import softmax_cross_entropy
from eo_keras.models.backbones.compact import build_compact
from eo_keras.models.backbones.googlenet import build_googlenet
from eo_keras.models.backbones.inception_v3 import build_inception_v3
from eo_keras.models.backbones.resnet import build_resnet
from eo_keras.training.optimizers import OptimizerOptions, make_optimizer, make_schedule
folder = sys.argv[1]
assert keras.config.backend() == "jax"
image = np.load(folder + "/image.npy")
common = dict(bands=("B04", "B03", "B02"), num_classes=4, normalisation=models.Normalisation((900.,) * 3, (300.,) * 3),
              input_dtype="uint16")
# One channel nearly everywhere, and few blocks: JAX compiles each shape of a kernel anew.
for network in (
    build_compact(**common, stem=(8, 8), widths=(8,), blocks=(1,), dropout=0.5),
    build_googlenet(**common, width=0.001, table=[("4a", (1,) * 6)]),
    build_inception_v3(**common, width=0.001, blocks=(0, 0, 1), enlarge=2),
):
    training = models.training_model(network)
    assert [output.shape for output in training.outputs] == [(None, 4)] * len(network.outputs)
    twin = models.inference_twin(network)
    assert abs(twin.predict(image[..., :3], verbose=0).sum(axis=1) - 1).max() < 1e-6
    assert models.depth_groups(network)["logits"] > 0
    if models.seed_states(training):
        parts = [[variable.value for variable in variables]
                 for variables in (training.trainable_variables, training.non_trainable_variables)]
        states = jax.jit(lambda image: training.stateless_call(*parts, image, training=True)[1])(image[..., :3])
        assert any(state.shape == (2,) and state[1] == 1 for state in states)  # Dropout has drawn once.
common |= dict(blocks=(1,), width=8)
built = build_resnet(**common, seed=3, dtype_policy="mixed_bfloat16").predict(image[..., :3], verbose=0)
assert built.dtype == np.float32 and abs(built.sum(axis=1) - 1).max() < 1e-6, built
try:
    build_resnet(**common, synchronized=True)
except OptionError as error:
    assert "synchronised batch normalisation under the jax backend" in str(error)
else:
    raise AssertionError("synchronized was taken")
losses = np.asarray(softmax_cross_entropy(np.array([1, 0]), np.array([[0.0, 1.0], [0.0, 1.0]]), label_smoothing=0.1))
assert abs(losses - [0.363262, 1.263262]).max() < 1e-5, losses
weight = keras.Variable(np.ones(2), name="kernel")
optimizer = make_optimizer(OptimizerOptions(warmup_epochs=0), make_schedule(OptimizerOptions(), 2, 10), [weight])
optimizer.apply([np.ones(2, np.float32)], [weight])
assert float(weight[0]) < 1
model = keras.saving.load_model(folder + "/model.keras", safe_mode=True)
np.save(folder + "/answer.npy", model.predict(image, verbose=0))
"""


def test_the_same_model_under_jax_without_tensorflow(tmp_path):
    pytest.importorskip("jax")
    model = reduced(zero_last_gamma=False)
    model.get_layer("logits").kernel.assign(model.get_layer("logits").kernel * 50)  # Answers that differ by class.
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", images())
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # To optimise each small function takes far longer than to run it.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-c", JAX_SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = model.predict(images(), verbose=0)
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), expected, atol=1e-4)
