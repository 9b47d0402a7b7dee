"""A model with a stand-in: which images are completed, by which numbers, and how it is saved."""

import keras
import numpy as np
import pytest

from eo_keras import models
from tests.harness.networks import outputs_of, reduced, reduced_fusion, several_images, several_inputs

NAMES, RATIOS = ("s2", "s2_before", "s1"), {"s2": 2, "s2_before": 2}
IMAGES = [models.PredictedImage(name, models.Normalization((1500.0,) * 3, (800.0,) * 3)) for name in NAMES[:2]]


@pytest.fixture(scope="module")
def networks():
    """A model of coarser optical and of radar images, and one that predicts the former from the latter."""
    model = reduced_fusion("late", None, names=NAMES, ratios=RATIOS)
    spec = several_inputs(("s1", "height"), reconstruction=6, seed=5)
    (radar,) = (one for name, one in spec.inputs.items() if name == "s1")
    generator = reduced("unet", models.NetworkSpec({models.IMAGE: radar}, 2, reconstruction=6, seed=5))
    generator.get_layer("reconstruction").bias.assign([-3.0, 0.0, 0.5, 1.0, 2.0, 100.0])
    return model, generator, models.with_stand_in(model, generator, {models.IMAGE: "s1"}, IMAGES)


def test_missing_images_are_completed_and_no_others(networks):
    model, generator, completing = networks
    images = several_images(NAMES, 32, 40, RATIOS, count=4)
    images["s2"][1], images["s2_before"][1] = 0, 0
    images["s2"][2] = 0
    images["s2"][3], images["s1"][3] = 0, np.nan
    images["s2"][0, :5] = 0  # No data in a part of an image is no missing image.
    (found,) = outputs_of(completing, images)

    (predicted,) = outputs_of(generator, images["s1"])
    numbers = predicted.reshape(4, 16, 2, 20, 2, 6).mean(axis=(2, 4)) * 800 + 1500
    numbers = np.clip(np.round(numbers), 1, 65535).astype(np.uint16)
    assert numbers.min() == 1 and numbers.max() == 65535
    by_hand = {name: image.copy() for name, image in images.items()}
    by_hand["s2"][1], by_hand["s2_before"][1] = numbers[1, ..., :3], numbers[1, ..., 3:]
    by_hand["s2"][2] = numbers[2, ..., :3]
    np.testing.assert_allclose(found, outputs_of(model, by_hand)[0], atol=1e-5)
    plain = outputs_of(model, images)[0]
    np.testing.assert_array_equal(found[[0, 3]], plain[[0, 3]])
    assert np.abs(found[1] - plain[1]).max() > 1e-3


def test_saved_it_predicts_the_same(networks, tmp_path):
    *_, completing = networks
    images = several_images(NAMES, 32, 32, RATIOS)
    images["s2"][:] = 0
    completing.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_allclose(outputs_of(again, images)[0], outputs_of(completing, images)[0], atol=1e-6)
