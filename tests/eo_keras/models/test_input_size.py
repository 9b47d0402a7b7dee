"""Patches that the model enlarges: by numbers, saved, and what does not fit."""

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.errors import OptionError
from tests.harness.networks import images, network_spec, outputs_of, reduced, several_images, several_inputs


def test_standardized_bands_are_interpolated(tmp_path):
    model = reduced("compact", network_spec(seed=3, input_size=48, patch_size=32, zero_last_gamma=False))
    image = images(2, 32, 32)
    stem = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    found = np.asarray(keras.Model(model.input, stem.input)(image))
    assert found.shape == (2, 48, 48, 3) and found.dtype == np.float32
    # At 1.5 times, pixel 3 i + 1 of the larger image lies on pixel 2 i + 0.5 of the smaller one.
    standardized = np.asarray(model.get_layer("normalisation")(image))
    middle = (standardized[:, :-1:2, :-1:2] + standardized[:, 1::2, :-1:2]) / 2
    middle = (middle + (standardized[:, :-1:2, 1::2] + standardized[:, 1::2, 1::2]) / 2) / 2
    np.testing.assert_allclose(found[:, 1::3, 1::3], middle, atol=1e-5)
    whole = reduced("compact", network_spec(seed=3, patch_size=48, zero_last_gamma=False))
    assert [one.shape for one in whole.weights] == [one.shape for one in model.weights]
    models.inference_model(model, 32).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(outputs_of(loaded, image)[0], outputs_of(model, image)[0], atol=1e-6)


def test_stacked_inputs_are_enlarged_together():
    spec = several_inputs(("s2", "s1"), ratios={"s1": 2}, input_size=64, seed=3)
    model = reduced("compact", spec)
    (found,) = outputs_of(model, several_images(("s2", "s1"), 32, 32, {"s1": 2}))
    assert found.shape == (2, 4)
    assert model.get_layer("enlarged").output.shape == (None, 64, 64, 5)


def test_sizes_that_do_not_fit():
    with pytest.raises(OptionError, match="input_size: 24 pixels; expected the patches' 32 or more"):
        network_spec(input_size=24, patch_size=32)
    for name in ("deeplab_resnet14", "unet_small"):
        with pytest.raises(OptionError, match=f"input_size: 64 for {name}, a segmentation network"):
            models.build(name, network_spec(input_size=64))
    # Small patches become large enough.
    model, _ = models.build("resnet14", network_spec(input_size=32, patch_size=8))
    assert model.output.shape == (None, 4)
