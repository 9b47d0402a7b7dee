"""Tests of how tiles are brought to other sizes before a model is asked."""

import numpy as np
import pytest
import tensorflow as tf

from eo_keras.evaluation.segmentation_evaluate import rescaled


@pytest.mark.parametrize("size", [10, 20, 30, 60])
def test_pixels_beside_no_data_keep_their_numbers(size):
    images = np.full((1, 40, 40, 2), 900, np.uint16)
    images[:, :13] = 0
    found = rescaled(tf.constant(images), tf.constant([size, size])).numpy()
    assert set(np.unique(found)) == {0, 900}
    known = found.any(axis=-1)[0]
    nearest = (np.arange(size) * 2 + 1) * 40 // (2 * size)
    np.testing.assert_array_equal(known, np.repeat(nearest[:, None] >= 13, size, axis=1))


def test_smaller_tiles_are_averaged():
    image = np.random.default_rng(0).integers(100, 10_000, (1, 32, 32, 3)).astype(np.uint16)
    half = rescaled(tf.constant(image), tf.constant([16, 16])).numpy()
    assert half.dtype == np.uint16
    assert half.std() < 0.75 * image.std()
    assert abs(half.mean() / image.mean() - 1) < 0.01
