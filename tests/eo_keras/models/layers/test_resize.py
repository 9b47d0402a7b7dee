"""Maps in the size of others: against numpy's interpolation, in every precision, and gradients."""

import keras
import numpy as np
import pytest

from eo_keras.models.layers.resize import BroadcastLike, ResizeLike

RANDOM = np.random.default_rng(0)


def interpolated(values, ratio, height, width):
    """Bilinear interpolation by numpy, axis by axis; behind the last place it keeps the value."""
    for axis, size in ((1, height), (2, width)):
        places = np.arange(values.shape[axis]) * ratio
        values = np.apply_along_axis(lambda line: np.interp(np.arange(size), places, line), axis, values)  # noqa: B023
    return values


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12), ("bfloat16", 0.02)])
@pytest.mark.parametrize("size", [(12, 20), (9, 17), (10, 19), (1, 3)])
def test_values(size, dtype, tolerance):
    grid = [-(-one // 4) for one in size]
    values = RANDOM.normal(size=(2, *grid, 3)).astype("float32")
    resized = ResizeLike(4, dtype=dtype)(values, np.zeros((2, *size, 1), "uint16"))
    assert keras.backend.standardize_dtype(resized.dtype) == dtype
    found = keras.ops.convert_to_numpy(keras.ops.cast(resized, "float64"))
    expected = interpolated(values.astype("float64"), 4, *size)
    assert found.shape == (2, *size, 3)
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
    np.testing.assert_allclose(found[:, ::4, ::4], values, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
def test_an_image_of_a_coarser_resolution_lies_on_the_middle_of_its_pixels(dtype, tolerance):
    values = RANDOM.normal(size=(2, 5, 4, 3)).astype("float32")
    layer = ResizeLike(2, 0.5, dtype=dtype)
    found = np.asarray(layer(values, np.zeros((2, 10, 7, 1))))
    expected = keras.ops.image.resize(values, (10, 8), data_format="channels_last")
    np.testing.assert_allclose(found, np.asarray(expected)[:, :, :7], atol=max(tolerance, 1e-6))
    assert ResizeLike.from_config(layer.get_config()).offset == 0.5
    assert "offset" not in ResizeLike(2).get_config()


def test_what_is_cut_off_changes_nothing_else():
    values = RANDOM.normal(size=(1, 5, 5, 2)).astype("float32")
    resized = {size: np.asarray(ResizeLike(2)(values, np.zeros((1, size, size, 1)))) for size in (9, 10)}
    np.testing.assert_array_equal(resized[10][:, :9, :9], resized[9])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12), ("bfloat16", 0.01)])
def test_gradient_and_sizes_that_are_not_known_before(dtype, tolerance, compiled):
    tf = pytest.importorskip("tensorflow")
    layer, values = ResizeLike(4, dtype=dtype), RANDOM.normal(size=(1, 3, 4, 2))
    others = RANDOM.normal(size=(1, 10, 13, 2))
    signature = None if compiled else [tf.TensorSpec((None, None, None, 2), dtype)] * 2

    @tf.function(jit_compile=compiled, autograph=False, input_signature=signature)
    def gradient(inputs, weights):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(layer(inputs, weights) * weights)
        return tape.gradient(loss, inputs)

    found = tf.cast(gradient(tf.cast(values, dtype), tf.cast(others, dtype)), "float64").numpy()
    # The layer is linear: its gradient is what each single value contributes.
    expected = np.zeros_like(values)
    for place in np.ndindex(values.shape):
        single = np.zeros_like(values)
        single[place] = 1
        expected[place] = (interpolated(single, 4, 10, 13) * others).sum()
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


def test_one_pixel_is_spread():
    pixel = RANDOM.normal(size=(2, 1, 1, 3)).astype("float32")
    found = np.asarray(BroadcastLike()(pixel, np.zeros((2, 4, 5, 7))))
    np.testing.assert_array_equal(found, np.tile(pixel, (1, 4, 5, 1)))


def test_saved_layers_predict_alike_at_any_size(tmp_path):
    image = keras.Input((None, None, 2))
    small = keras.layers.Conv2D(2, 3, strides=3, padding="same")(image)
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True)(image)
    outputs = [ResizeLike(3, dtype="mixed_bfloat16")(small, image), BroadcastLike(dtype="float32")(mean, image)]
    model = keras.Model(image, outputs)
    assert [output.shape for output in model.outputs] == [(None, None, None, 2)] * 2
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [layer.dtype_policy.name for layer in again.layers[-2:]] == ["mixed_bfloat16", "float32"]
    pixels = RANDOM.normal(size=(1, 7, 11, 2)).astype("float32")
    for one, other in zip(model(pixels), again(pixels), strict=True):
        assert one.shape == (1, 7, 11, 2)
        np.testing.assert_array_equal(keras.ops.cast(one, "float32"), keras.ops.cast(other, "float32"))
