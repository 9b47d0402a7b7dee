import keras
import numpy as np
import pytest
import tensorflow as tf

from eo_keras.data import pipeline as pipelines
from eo_keras.errors import OptionError
from eo_keras.evaluation import evaluate as evaluation
from eo_keras.evaluation import tta


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
    answering = tta.answering(model, "d4")
    np.testing.assert_allclose(answering(tf.constant(images), training=False), expected, atol=1e-6)
    traced = tf.function(lambda batch: answering(batch, training=False))(tf.constant(images))
    np.testing.assert_allclose(traced, expected, atol=1e-6)
    # A pixel next to the corner has eight different images: each symmetry must come once.
    for k in range(8):
        turned = np.stack([symmetries(image)[k] for image in images])
        np.testing.assert_allclose(answering(tf.constant(turned)), expected, atol=1e-6)


def test_the_corner_pixel(images):
    model = model_of(lambda image: image[:, 0, 0, :])
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1], 0].astype(float) / 255
    found = np.asarray(tta.answering(model, "d4")(tf.constant(images)))
    np.testing.assert_allclose(found[:, 0], corners.mean(axis=1), atol=1e-6)


def test_a_symmetric_model_answers_as_before(images):
    model = model_of(lambda image: keras.ops.mean(keras.ops.cast(image, "float32"), axis=(1, 2)))
    np.testing.assert_allclose(tta.answering(model, "d4")(tf.constant(images)), np.asarray(model(images)), atol=1e-6)


def test_the_answerer_asks_it(finished, rgb_records):
    from eo_keras.runs import folder as runs

    run, records = runs.open_run(finished[0].run_dir), pipelines.RecordDataset(rgb_records)
    result = evaluation.evaluate(run, records, batch_size=16, symmetries="d4")
    assert result.tta == "d4" and len(result.answers.keys) == 40
    stored = [image for image, *_ in pipelines.evaluation(records, pipelines.PipelineOptions(40), "test")][0].numpy()
    versions = [np.asarray(run.model(np.stack([symmetries(image)[k] for image in stored]))) for k in range(8)]
    np.testing.assert_allclose(result.answers.probabilities, np.mean(versions, axis=0), atol=1e-5)


def test_what_cannot_be_averaged():
    assert tta.answering(None, "none") is None
    with pytest.raises(OptionError, match="'d8'; expected one of none, d4"):
        tta.answering(None, "d8")
    with pytest.raises(OptionError, match="images of 4 x 6 pixels; expected square images"):
        tta.answering(keras.Sequential([keras.Input((4, 6, 1)), keras.layers.Flatten()]), "d4")
