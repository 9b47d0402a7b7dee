"""Pooling with places and unpooling: against loops over windows, in every precision, gradients, saving, any size."""

import keras
import numpy as np
import pytest

from eo_keras.models.layers.unpooling import MaxPoolingWithIndices, MaxUnpooling

RANDOM = np.random.default_rng(0)


def pooled(values):
    """Maxima, their places in the windows and in the map, by loops; the first of equal ones."""
    batch, height, width, channels = values.shape
    shape = (batch, -(-height // 2), -(-width // 2), channels)
    maxima, places, pixels = np.empty(shape), np.empty(shape, int), np.empty((*shape, 2), int)
    for place in np.ndindex(shape):
        image, row, column, channel = place
        window = {
            2 * down + right: (2 * row + down, 2 * column + right)
            for down in (0, 1)
            for right in (0, 1)
            if 2 * row + down < height and 2 * column + right < width
        }
        first = max(window, key=lambda one: (values[image, *window[one], channel], -one))
        maxima[place], places[place], pixels[place] = values[image, *window[first], channel], first, window[first]
    return maxima, places, pixels


def spread(values, pixels, size):
    """Values at pixels of a map, 0 elsewhere."""
    result = np.zeros((values.shape[0], *size, values.shape[-1]))
    for place in np.ndindex(values.shape):
        result[place[0], *pixels[place], place[-1]] = values[place]
    return result


def unpooling_case():
    """Whole numbers of which many are equal, in a map of odd size, and factors of what is unpooled."""
    random = np.random.default_rng(5)
    return (random.integers(-3, 4, (2, 7, 9, 3)).astype("float32") for _ in range(2))


def numbers(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float64"))


def test_maxima_and_places_by_hand():
    image = np.array([[1, 2, 5, 5], [4, 3, 5, 5], [-1, -2, 0, 7], [-3, -1, 7, 0]], "float32")[None, :, :, None]
    maxima, places = MaxPoolingWithIndices()(image)
    assert maxima[0, :, :, 0].numpy().tolist() == [[4, 5], [-1, 7]]
    # Of equal values the first: the upper row before the lower one, the left column before the right one.
    assert places[0, :, :, 0].numpy().tolist() == [[2, 0], [0, 1]]
    values = np.array([[10, 20], [30, 40]], "float32")[None, :, :, None]
    found = MaxUnpooling()(values, places, image)[0, :, :, 0].numpy().tolist()
    assert found == [[0, 0, 20, 0], [10, 0, 0, 0], [30, 0, 0, 40], [0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 4), (1, 1)])
def test_values_and_gradients(size, dtype):
    tf = pytest.importorskip("tensorflow")
    # Small whole numbers: many are equal, and bfloat16 holds them and their products exactly.
    image = RANDOM.integers(-3, 4, (2, *size, 3)).astype("float64")
    maxima, places, pixels = pooled(image)
    upper, lower = (RANDOM.integers(-5, 6, shape).astype("float64") for shape in (maxima.shape, image.shape))
    given, values = tf.cast(image, dtype), tf.cast(upper, dtype)
    with tf.GradientTape() as tape:
        tape.watch([given, values])
        found, indices = MaxPoolingWithIndices(dtype=dtype)(given)
        unpooled = MaxUnpooling(dtype=dtype)(values, indices, given)
        loss = tf.reduce_sum(found * values) + tf.reduce_sum(unpooled * tf.cast(lower, dtype))
    to_image, to_values = map(numbers, tape.gradient(loss, [given, values]))
    assert (found.dtype, indices.dtype, unpooled.dtype) == (dtype, "uint8", dtype)
    np.testing.assert_array_equal(numbers(found), maxima)
    np.testing.assert_array_equal(indices, places)
    np.testing.assert_array_equal(numbers(unpooled), spread(upper, pixels, size))
    np.testing.assert_array_equal(to_image, spread(upper, pixels, size))
    taken = np.array([lower[place[0], *pixels[place], place[-1]] for place in np.ndindex(upper.shape)])
    np.testing.assert_array_equal(to_values, maxima + taken.reshape(upper.shape))


@pytest.mark.parametrize("compiled", [False, True])
def test_sizes_that_are_not_known_before(compiled):
    tf = pytest.importorskip("tensorflow")
    signature = None if compiled else [tf.TensorSpec((None, None, None, 2), "float32")]

    @tf.function(jit_compile=compiled, autograph=False, input_signature=signature)
    def there_and_back(image):
        maxima, indices = MaxPoolingWithIndices()(image)
        return MaxUnpooling()(maxima, indices, image)

    for size in ((4, 6), (5, 3)):
        image = RANDOM.normal(size=(1, *size, 2)).astype("float32")
        maxima, _, pixels = pooled(image)
        np.testing.assert_array_equal(there_and_back(image), spread(maxima, pixels, size))


def test_saved_and_cloned_layers_do_the_same(tmp_path):
    image = keras.Input((None, None, 2))
    maxima, indices = MaxPoolingWithIndices(dtype="mixed_bfloat16", name="pool")(image)
    model = keras.Model(image, [indices, MaxUnpooling(dtype="mixed_bfloat16", name="unpool")(maxima, indices, image)])
    assert [(one.shape, one.dtype) for one in model.outputs] == [
        ((None, None, None, 2), "uint8"),
        ((None, None, None, 2), "bfloat16"),
    ]
    fixed = keras.Function(model.inputs, model.outputs).compute_output_spec([keras.KerasTensor((1, 7, 4, 2))])
    assert [one.shape for one in fixed] == [(1, 4, 2, 2), (1, 7, 4, 2)]
    model.save(tmp_path / "model.keras")
    pixels = RANDOM.normal(size=(1, 7, 4, 2)).astype("float32")
    expected = model(pixels)
    for other in (keras.saving.load_model(tmp_path / "model.keras", safe_mode=True), keras.models.clone_model(model)):
        assert [other.get_layer(name).dtype_policy.name for name in ("pool", "unpool")] == ["mixed_bfloat16"] * 2
        for one, same in zip(expected, other(pixels), strict=True):
            np.testing.assert_array_equal(numbers(one), numbers(same))
