"""Promises of all networks, on reduced ones: precision, seeds, outputs, saving, gradients, what learns."""

import hashlib

import keras
import numpy as np
import pytest

from eo_keras import models
from tests.harness.networks import REDUCED, check_network, images, network_spec, reduced, reduced_info, weights_of


def _names():
    """Returns all names; slow are classifiers whose backbone a DeepLabv3+ has too."""
    return [pytest.param(name, marks=pytest.mark.slow) if f"deeplab_{name}" in REDUCED else name for name in REDUCED]


@pytest.mark.parametrize("name", _names())
def test_network(name, tmp_path):
    check_network(name, tmp_path)


def test_every_architecture_has_a_reduced_network():
    def kinds(names):
        return {(info.function, info.arguments.get("backbone")) for info in map(models.MODELS.get, names)}

    assert kinds(REDUCED) == kinds(models.MODELS)


def test_dropout_acts_in_training_only_and_repeatably():
    image, info = images(), reduced_info("compact", blocks=(1, 1))
    first, again, other = (
        models.logits_model(info("compact", network_spec(dropout=0.5, seed=seed))) for seed in (1, 1, 2)
    )
    other.set_weights(first.get_weights())
    first_masks, again_masks, other_masks = (
        [np.asarray(model(image, training=True)) for _ in range(2)] for model in (first, again, other)
    )
    np.testing.assert_array_equal(first_masks, again_masks)
    assert not np.allclose(first_masks[0], first_masks[1])
    assert not np.allclose(first_masks[0], other_masks[0])
    np.testing.assert_array_equal(first(image, training=False), first(image, training=False))


@pytest.mark.parametrize(
    ("name", "weights", "total", "logits"),
    [
        ("resnet50", "7eebf52a93115529", 1949.44398, 1.318691),
        ("xception65", "f09d5cd64997befa", 11402.49716, 0.110637),
        ("deeplab_resnet50", "c30a5a8bd25b683e", 8242.41366, 5.904666),
        ("deeplab_xception65", "0cfaa1c2111db62b", 13881.89608, 7.365361),
    ],
)
def test_a_seed_gives_the_network_that_it_always_gave(name, weights, total, logits):
    """Names, shapes and initial values of weights, and a prediction, as before backbones were lists of stages."""
    model = reduced(name)
    found = weights_of(model)
    listed = "\n".join(f"{path} {found[path].shape}" for path in sorted(found))
    assert hashlib.sha256(listed.encode()).hexdigest()[:16] == weights
    assert sum(np.abs(value).sum(dtype="float64") for value in found.values()) == pytest.approx(total, rel=1e-6)
    output = keras.Model(model.input, model.get_layer("logits").output)(images(2, 33, 41))
    assert np.abs(np.asarray(output)).sum(dtype="float64") == pytest.approx(logits, rel=1e-4)
