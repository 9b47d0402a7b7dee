"""Networks and losses under JAX, without TensorFlow: one process for all of them."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from eo_keras import models
from tests.eo_keras.losses.test_segmentation import OPTIONS, gradient_of, loss_of, maps
from tests.eo_keras.models.layers.test_unpooling import pooled, spread, unpooling_case
from tests.harness.networks import UNDER_JAX, fused_images, images, outputs_of, reduced, reduced_fusion

SCRIPT = pathlib.Path(__file__).parents[2] / "harness" / "under_jax.py"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of reduced networks as TensorFlow saves them, with weights that tell the images apart."""
    folder = tmp_path_factory.mktemp("jax")
    for name in UNDER_JAX:
        model = reduced(name)
        head = model.get_layer("decoder_scores" if name.startswith("deeplab_") else "logits")
        head.kernel.assign(head.kernel * 100)
        model.save(folder / f"{name}.keras")
    model = reduced_fusion("attention", "siamese")
    head = model.get_layer("decoder_scores")
    head.kernel.assign(head.kernel * 100)
    model.save(folder / "fused.keras")
    return folder


@pytest.fixture(scope="module")
def found(saved):
    """What the process wrote."""
    pytest.importorskip("jax")
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # To optimize each small function takes far longer than to run it.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(saved)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return np.load(saved / "found.npz")


@pytest.mark.parametrize("name", UNDER_JAX)
def test_a_saved_network_predicts_the_same(name, saved, found):
    model = keras.saving.load_model(saved / f"{name}.keras")
    expected = outputs_of(model, images(2, 33, 41))[0]
    assert np.ptp(expected) > 0.05  # It differs from class to class.
    np.testing.assert_allclose(found[f"{name}/probabilities"], expected, atol=1e-4)
    assert int(found[f"{name}/macs"]) == models.count_macs(model, 33, 41)


def test_a_saved_fusion_predicts_the_same(saved, found):
    expected = outputs_of(keras.saving.load_model(saved / "fused.keras"), fused_images())[0]
    assert np.ptp(expected) > 0.05 and np.abs(expected[0] - expected[1]).max() > 0.01
    np.testing.assert_allclose(found["fused/probabilities"], expected, atol=1e-4)


def test_another_output_stride(saved, found):
    model = keras.saving.load_model(saved / "deeplab_resnet50.keras")
    expected = outputs_of(models.inference_model(model, None, 8), images(2, 33, 41))[0]
    np.testing.assert_allclose(found["deeplab_resnet50/stride8"], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_training_steps_and_the_saved_network(name, saved, found):
    values = found[f"steps/{name}/losses"]
    assert len(values) == 4 and values[-1] < values[0]
    model = keras.saving.load_model(saved / f"{name}.keras", safe_mode=True)
    logits = np.asarray(keras.Model(model.input, model.get_layer("logits").output)(found["steps/images"]))
    np.testing.assert_allclose(found[f"steps/{name}/logits"], logits, atol=1e-4 * np.abs(logits).max())


def test_gradients_of_unpooling_and_of_the_weights_of_tasks(found):
    image, factors = unpooling_case()
    _, _, pixels = pooled(image)
    taken = np.empty(pixels.shape[:-1])
    for place in np.ndindex(taken.shape):
        taken[place] = factors[place[0], *pixels[place], place[-1]]
    np.testing.assert_array_equal(found["unpooling/gradient"], spread(taken, pixels, image.shape[1:3]))
    np.testing.assert_allclose(found["weights/gradient"], [1 - 0.5, 1 - 2 * np.exp(-1)], rtol=1e-6)


@pytest.mark.parametrize("number", range(len(OPTIONS)), ids=str)
def test_losses_and_gradients_of_segmentation(number, found):
    for case, ignored in (("some", 0.3), ("all", 2.0)):
        labels, logits = maps(ignored=ignored)
        expected = loss_of(OPTIONS[number], labels, logits)
        np.testing.assert_allclose(found[f"losses/{case}"][number], expected, rtol=1e-8)
        gradient = gradient_of(OPTIONS[number], labels, logits)
        np.testing.assert_allclose(found[f"gradients/{case}"][number], gradient, rtol=1e-7, atol=1e-9)


def test_a_label_outside_the_legend_and_correct_pixels(found):
    labels, logits = maps()
    assert found["outside"].shape == (len(OPTIONS),) and np.isnan(found["outside"]).all()
    assert int(found["correct"]) == (logits.argmax(-1) == labels)[labels != 255].sum()
