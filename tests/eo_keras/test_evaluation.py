import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from eo_keras import cards, evaluation, legends, pipelines, records, runs
from eo_keras.errors import BandError, LegendError, RecordsError


@pytest.fixture(scope="module")
def run(finished):
    return runs.open_run(finished[0].run_dir)


@pytest.fixture(scope="module")
def data(rgb_records):
    return pipelines.Records(rgb_records)


@pytest.fixture(scope="module")
def result(run, data):
    return evaluation.evaluate(run, data, "test", batch_size=7)


@pytest.fixture(scope="module")
def stored(data):
    """Images and labels of the test split by key, read without TensorFlow."""
    found = {}
    for shard in data.card.splits["test"].shards:
        for example in records.read_examples(data.folder / shard.name):
            found[example.key] = records.decode_image(example, data.card), example.label
    return found


def test_every_example_is_asked_about_once(result, stored, run):
    answers = result.answers
    assert len(answers.keys) == len(set(answers.keys)) == 40 == result.scores.count
    images = np.stack([stored[key][0] for key in answers.keys])
    np.testing.assert_array_equal(answers.labels, [stored[key][1] for key in answers.keys])
    np.testing.assert_allclose(answers.probabilities, run.model.predict(images, verbose=0), atol=1e-5)
    assert result.scores.accuracy == np.mean(answers.predictions == answers.labels)


def test_the_batch_size_does_not_change_the_scores(result, run, data):
    other = evaluation.evaluate(run, data, "test", batch_size=1000)
    assert other.answers.keys == result.answers.keys
    np.testing.assert_allclose(other.answers.probabilities, result.answers.probabilities, atol=1e-5)


def test_mistakes_are_the_surest_errors_with_their_own_images(result, stored):
    answers = result.answers
    wrong = np.flatnonzero(answers.predictions != answers.labels)
    assert set(result.mistakes) == set(wrong) and len(wrong) > 0
    confidences = answers.probabilities[result.mistakes].max(axis=1)
    assert (np.diff(confidences) <= 0).all()
    for number, image in zip(result.mistakes, result.mistaken_images, strict=True):
        np.testing.assert_array_equal(image, stored[answers.keys[number]][0])


def test_the_folder(result, tmp_path):
    evaluation.write_evaluation(result, tmp_path / "test")
    assert {path.name for path in (tmp_path / "test").iterdir()} == {
        "metrics.json",
        "predictions.csv",
        "confusion_matrix.png",
        "reliability.png",
        "mistakes.png",
    }
    content = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert content["scores"] == result.scores.to_json()
    assert content["selection"]["split"] == "20.0% of the split train, held out by key"
    assert content["data_fingerprint"] == content["trained_on"] and content["warnings"] == []
    with open(tmp_path / "test" / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert np.mean([row["true"] == row["predicted"] for row in rows]) == result.scores.accuracy
    assert [row["key"] for row in rows] == list(result.answers.keys)
    for path in (tmp_path / "test").glob("*.png"):
        assert Image.open(path).size[0] > 300


def test_what_a_reader_has_to_know(run, data, result):
    assert result.warnings == []
    assert "were trained on" in evaluation.evaluate(run, data, "train").warnings[0]
    other = dataclasses.replace(result, card=dataclasses.replace(result.card, fingerprint="another"))
    assert "may have been trained on" in other.warnings[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "uint16"}, "dtype is uint16; expected uint8"),
        ({"level": "L2A"}, "level is L2A; expected L1C"),
        ({"patch_size": 32}, "patch_size is 32; expected 64"),
        ({"reflectance": cards.Reflectance(1.0)}, "reflectance is Reflectance"),
    ],
)
def test_records_of_other_numbers(run, data, change, words):
    with pytest.raises(RecordsError, match=words):
        evaluation.check_records(dataclasses.replace(data.card, **change), run.card, data.folder)


def test_records_of_other_classes_or_without_the_bands(run, data, rgb_records, tmp_path):
    legend = legends.Legend("other", data.card.legend.classes[::-1])
    with pytest.raises(LegendError, match="legend 'other' has the classes SeaLake, River"):
        evaluation.check_records(dataclasses.replace(data.card, legend=legend), run.card, data.folder)
    other = dataclasses.replace(run, card=dataclasses.replace(run.card, bands=("B08", "B04", "B03")))
    with pytest.raises(BandError, match="does not hold B08"):
        evaluation.evaluate(other, data)
    with pytest.raises(RecordsError, match="no split 'val'|is empty"):
        evaluation.evaluate(run, data, "val")


def test_cross_entropy_by_hand():
    answers = evaluation.Answers(np.array([0, 1]), np.array([[0.5, 0.5], [1.0, 0.0]], np.float32))
    assert answers.cross_entropy() == pytest.approx((np.log(2) - np.log(np.finfo(np.float32).tiny)) / 2)
    assert answers.accuracy() == 0.5
