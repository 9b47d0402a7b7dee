"""The normalisation layer: its numbers, no data, precision and configuration."""

import types

import keras
import numpy as np
import pytest

from eo_keras.errors import BandError
from eo_keras.models import BandNormalization, Normalization
from eo_keras.models.layers.normalization import Presence


def test_numbers_with_scale():
    layer = BandNormalization((1000.0, 2000.0), (100.0, 500.0), scale=(1.0, 57.0))
    image = np.array([[[[1200, 1000], [1000, 2000]]]], dtype="uint16")
    np.testing.assert_allclose(np.asarray(layer(image)), [[[[2.0, -114.0], [0.0, 0.0]]]], rtol=1e-6)


def test_no_data_becomes_zero_only_where_all_bands_are_zero():
    layer = BandNormalization((1000.0, 2000.0), (100.0, 500.0))
    image = np.array([[[[0, 0], [0, 2000], [1000, 0]]]], dtype="uint16")
    np.testing.assert_array_equal(np.asarray(layer(image)), [[[[0.0, 0.0], [-10.0, 0.0], [0.0, -4.0]]]])


def test_a_pixel_that_is_not_finite_is_no_data_in_a_float_image():
    layer = BandNormalization((-10.0, 0.0), (5.0, 10.0), scale=(1.0, 2.0))
    nan, inf = float("nan"), float("inf")
    image = np.array([[[[-5, 20], [nan, 20], [0, 0], [nan, nan], [-inf, 0]]]], "float32")
    expected = [[[[1.0, 4.0], [0, 0], [2.0, 0.0], [0, 0], [0, 0]]]]
    np.testing.assert_array_equal(np.asarray(layer(image)), np.array(expected, "float32"))
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        given = tf.constant(image)
        with tf.GradientTape() as tape:
            tape.watch(given)
            loss = tf.reduce_sum(layer(given) ** 2)
        gradient = tape.gradient(loss, given).numpy()
        np.testing.assert_allclose(gradient[0, 0], [[0.4, 1.6], [0, 0], [0.8, 0], [0, 0], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_presence_of_examples(policy):
    counts = np.zeros((3, 2, 2, 2), "uint16")
    counts[0, 1, 1, 0], counts[1] = 1, 7
    values = np.full((3, 2, 2, 2), np.nan, "float32")
    values[0, 0, 0], values[2, 0, 0, 1] = 0, 1  # Of the last one no pixel has all its bands.
    for image, expected in ((counts, [1, 1, 0]), (values, [1, 0, 0])):
        found = Presence(dtype=policy)(image)
        assert found.shape == (3, 1, 1, 1)
        assert keras.ops.convert_to_numpy(found).ravel().tolist() == expected


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float32"])
def test_neighbouring_numbers_stay_different_under_low_precision(policy):
    layer = BandNormalization((1200.0,), (300.0,), dtype=policy)
    values = layer(np.array([[[[1118], [1121], [2594], [2597]]]], dtype="uint16"))
    assert keras.backend.standardize_dtype(values.dtype) == "float32"
    values = np.asarray(values).ravel()
    assert values[1] - values[0] == pytest.approx(0.01, rel=1e-4)
    assert values[3] - values[2] == pytest.approx(0.01, rel=1e-4)


def test_float64_policy_computes_in_float64():
    values = np.asarray(BandNormalization((1.0,), (3.0,), dtype="float64")(np.array([[[[2]]]], dtype="uint16")))
    assert values.dtype == np.float64
    assert values.item() == 1 / 3


def test_global_low_precision_policy_is_not_followed():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert BandNormalization((1.0,), (3.0,)).compute_dtype == "float32"
    finally:
        keras.config.set_dtype_policy(before)


def test_configuration_comes_back():
    layer = BandNormalization((1.5, 2.5), (3.0, 4.0), scale=(5.0, 6.0), bands=("B04", "B8A"), dtype="float64")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer), safe_mode=True)
    assert again.get_config() == layer.get_config()
    assert again.get_config()["bands"] == ["B04", "B8A"]
    assert not again.weights and "ratio" not in again.get_config()
    coarse = BandNormalization((1.5,), (3.0,), ratio=2).get_config()
    assert BandNormalization.from_config(coarse).ratio == coarse["ratio"] == 2


def test_wrong_number_of_bands():
    layer = BandNormalization((1.0, 2.0), (1.0, 1.0), bands=("B04", "B03"))
    with pytest.raises(BandError, match="an input of 3 bands; expected 2 bands: B04,B03"):
        layer(np.ones((1, 2, 2, 3), "uint16"))


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
def test_std_must_be_above_zero(std):
    with pytest.raises(BandError, match="B03 has a standard deviation"):
        BandNormalization((1.0, 2.0), (1.0, std), bands=("B04", "B03"))


def test_lengths_must_agree():
    with pytest.raises(BandError, match="2 values of mean but 1 of std"):
        BandNormalization((1.0, 2.0), (1.0,))


def test_statistics_of_a_card_are_taken_by_name():
    bands = [("B02", 1100.0, 330.0), ("B03", 1040.0, 390.0), ("B04", 950.0, 590.0)]
    entries = [types.SimpleNamespace(band=band, mean=mean, std=std) for band, mean, std in bands]
    card = types.SimpleNamespace(dataset="d", statistics=entries)
    assert Normalization.of_card(card, ("B04", "B02")) == Normalization((950.0, 1100.0), (590.0, 330.0))
    with pytest.raises(BandError, match="none of B08; expected one of B02, B03, B04"):
        Normalization.of_card(card, ("B04", "B08"))
