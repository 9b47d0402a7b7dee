import keras
import numpy as np
import pytest
import tensorflow as tf

from eo_keras.data import pipeline as pipelines
from eo_keras.errors import OptionError
from eo_keras.evaluation import evaluate as evaluation
from eo_keras.evaluation import tta
from eo_keras.evaluation.options import EvaluationOptions

D4 = EvaluationOptions(tta="d4")


def model_of(read, size=4):
    """A model whose first class has the probability that `read` takes from an image, a number from 0 to 255."""
    image = keras.Input((size, size, 1), dtype="uint8")
    share = keras.ops.cast(read(image), "float32") / 255
    return keras.Model(image, keras.ops.concatenate([share, 1 - share], axis=-1))


def symmetries(image):
    turned = [np.rot90(image, turns) for turns in range(4)]
    return turned + [np.flip(one, axis=1) for one in turned]


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)


def test_the_answer_is_the_mean_over_turned_and_mirrored_images(images):
    model = model_of(lambda image: image[:, 0, 1, :])
    expected = np.mean(
        [np.asarray(model(np.stack([symmetries(image)[k] for image in images]))) for k in range(8)], axis=0
    )
    assert np.abs(expected - np.asarray(model(images))).max() > 0.05
    averaged = tta.wrap(model, D4)
    np.testing.assert_allclose(averaged(tf.constant(images), training=False), expected, atol=1e-6)
    traced = tf.function(lambda batch: averaged(batch, training=False))(tf.constant(images))
    np.testing.assert_allclose(traced, expected, atol=1e-6)
    # A pixel next to the corner has eight different images: each symmetry must come once.
    for k in range(8):
        turned = np.stack([symmetries(image)[k] for image in images])
        np.testing.assert_allclose(averaged(tf.constant(turned)), expected, atol=1e-6)


def test_the_corner_pixel(images):
    model = model_of(lambda image: image[:, 0, 0, :])
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1], 0].astype(float) / 255
    found = np.asarray(tta.wrap(model, D4)(tf.constant(images)))
    np.testing.assert_allclose(found[:, 0], corners.mean(axis=1), atol=1e-6)


def test_a_symmetric_model_answers_as_before(images):
    model = model_of(lambda image: keras.ops.mean(keras.ops.cast(image, "float32"), axis=(1, 2)))
    np.testing.assert_allclose(tta.wrap(model, D4)(tf.constant(images)), np.asarray(model(images)), atol=1e-6)


def test_an_evaluation_averages(finished, rgb_records):
    from eo_keras.runs import folder as runs

    run, records = runs.open_run(finished[0].run_dir), pipelines.RecordDataset(rgb_records)
    result = evaluation.evaluate(run, records, EvaluationOptions(batch_size=16, tta="d4"))
    stored = [image for image, *_ in pipelines.evaluation(records, pipelines.PipelineOptions(40), "test")][0].numpy()
    versions = [np.asarray(run.model(np.stack([symmetries(image)[k] for image in stored]))) for k in range(8)]
    np.testing.assert_allclose(result.predictions.probabilities, np.mean(versions, axis=0), atol=1e-5)


def test_models_without_square_images_are_not_averaged():
    assert tta.wrap(None, EvaluationOptions()) is None
    with pytest.raises(OptionError, match="images of 4 x 6 pixels; expected square images"):
        tta.wrap(keras.Sequential([keras.Input((4, 6, 1)), keras.layers.Flatten()]), D4)


@pytest.mark.parametrize("size", [10, 20, 30, 60])
def test_pixels_beside_no_data_keep_their_numbers(size):
    images = np.full((1, 40, 40, 2), 900, np.uint16)
    images[:, :13] = 0
    found = tta.rescaled(tf.constant(images), tf.constant([size, size])).numpy()
    assert set(np.unique(found)) == {0, 900}
    known = found.any(axis=-1)[0]
    nearest = (np.arange(size) * 2 + 1) * 40 // (2 * size)
    np.testing.assert_array_equal(known, np.repeat(nearest[:, None] >= 13, size, axis=1))


def test_smaller_tiles_are_averaged():
    image = np.random.default_rng(0).integers(100, 10_000, (1, 32, 32, 3)).astype(np.uint16)
    half = tta.rescaled(tf.constant(image), tf.constant([16, 16])).numpy()
    assert half.dtype == np.uint16
    assert half.std() < 0.75 * image.std()
    assert abs(half.mean() / image.mean() - 1) < 0.01
