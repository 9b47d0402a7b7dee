import keras
import numpy as np
import pytest
import tensorflow as tf

from eo_keras.models.layers.batch_norm import BatchNormalization


def pair(**options):
    """Our layer and Keras's, with the same random weights."""
    layers = [
        kind(epsilon=1e-3, momentum=0.9, **options) for kind in (BatchNormalization, keras.layers.BatchNormalization)
    ]
    rng = np.random.default_rng(0)
    for layer in layers:
        layer.build((None, 5, 7, 6))
    weights = [rng.uniform(0.5, 2, weight.shape) for weight in layers[0].weights]
    for layer in layers:
        layer.set_weights(weights)
    return layers


def images(shape=(3, 5, 7, 6)):
    rng = np.random.default_rng(1)
    return rng.normal(rng.uniform(-3, 3, shape[-1]), rng.uniform(0.1, 9, shape[-1]), shape).astype("float32")


def step(layer, x, training=True):
    """Outputs, gradients of input and weights, and the moving statistics after one call."""
    x = tf.constant(x)
    factors = tf.constant(np.random.default_rng(2).normal(size=x.shape).astype("float32"))
    values = [weight.value for weight in layer.trainable_weights]

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=training)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") * factors)
        return outputs, tape.gradient(loss, [x, *values])

    outputs, gradients = run()
    return [outputs, *gradients, *(weight.value for weight in layer.non_trainable_weights)]


def kernels(layer, x):
    graph = tf.function(lambda image: layer(image, training=True)).get_concrete_function(tf.constant(x)).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize(
    "options", [{}, {"scale": False}, {"center": False}, {"dtype": "mixed_bfloat16"}, {"dtype": "mixed_float16"}]
)
def test_training_equals_keras_and_is_one_kernel(options):
    ours, theirs = pair(**options)
    assert "FusedBatchNormV3" in kernels(ours, images()) and "FusedBatchNormV3" not in kernels(theirs, images())
    ours, theirs = pair(**options)
    rounding = 4e-3 if options.get("dtype") else 1e-5
    for one, other in zip(step(ours, images()), step(theirs, images()), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_allclose(tf.cast(one, "float32"), tf.cast(other, "float32"), rtol=rounding, atol=rounding)


def test_the_moving_variance_follows_the_sample_and_not_the_population():
    ours, _ = pair()
    x = images((1, 1, 3, 6))
    before = keras.ops.convert_to_numpy(ours.moving_variance)
    ours(x, training=True)
    np.testing.assert_allclose(ours.moving_variance, 0.9 * before + 0.1 * x.reshape(3, 6).var(axis=0), rtol=1e-5)


def test_one_pixel_has_no_variance():
    ours, theirs = pair()
    for layer in (ours, theirs):
        layer(images((1, 1, 1, 6)), training=True)
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-6)
    assert np.isfinite(ours.moving_variance).all()


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"synchronized": True}])
def test_the_rest_is_left_to_keras(options):
    ours, theirs = pair(**options)
    assert "FusedBatchNormV3" not in kernels(ours, images())
    for one, other in zip(step(ours, images()), step(theirs, images()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_inference_and_frozen_layers_are_left_to_keras():
    ours, theirs = pair()
    np.testing.assert_array_equal(ours(images(), training=False), theirs(images(), training=False))
    ours.trainable = theirs.trainable = False
    before = [keras.ops.convert_to_numpy(weight) for weight in ours.weights]
    np.testing.assert_array_equal(ours(images(), training=True), theirs(images(), training=True))
    for weight, value in zip(ours.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_saved_model_loads(tmp_path):
    image = keras.Input((5, 7, 6))
    model = keras.Model(image, BatchNormalization(name="bn")(image))
    model(images(), training=True)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded.get_layer("bn")) is BatchNormalization
    np.testing.assert_array_equal(loaded(images()), model(images()))


def test_moments_are_those_of_the_examples_that_are_present():
    """Outputs, gradients and moving statistics of some examples do not depend on others beside them."""
    alone, among = pair()[0], pair()[0]
    x, rows = images((5, 5, 7, 6)), [0, 2, 3]
    present = np.isin(np.arange(5), rows).astype("float32").reshape(-1, 1, 1, 1)
    x[[1, 4]] *= 100
    factors = np.random.default_rng(2).normal(size=x.shape).astype("float32") * present

    def run(layer, x, factors, **present):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True, **present)
            loss = tf.reduce_sum(outputs * factors)
        gradients = tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_weights)])
        return [outputs, gradients[0]], [*gradients[1:], *(weight.value for weight in layer.non_trainable_weights)]

    expected, statistics = run(alone, x[rows], factors[rows])
    found, own = run(among, x, factors, present=tf.constant(present))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy()[rows], other, rtol=1e-4, atol=1e-4)
    for one, other in zip(own, statistics, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found[1].numpy()[[1, 4]], 0)


def test_without_any_example_that_is_present_nothing_is_learned():
    layer = pair()[0]
    before = [weight.numpy() for weight in layer.weights]
    outputs = layer(images(), training=True, present=np.zeros((3, 1, 1, 1), "float32"))
    assert np.isfinite(outputs).all()
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
