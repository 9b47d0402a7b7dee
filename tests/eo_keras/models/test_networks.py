"""Promises of all networks, on reduced ones: precision, seeds, outputs, saving, gradients, what learns."""

import numpy as np
import pytest

from eo_keras import models
from tests.harness.networks import REDUCED, check_network, images, network_spec, reduced_info


@pytest.mark.parametrize("name", REDUCED)
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
