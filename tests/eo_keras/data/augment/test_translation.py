"""Images of a sensor in the place of labels: which are delivered, which predicted, in which numbers and size."""

import numpy as np
import pytest

from eo_keras.data.augment.options import CropAugmentation, Translation
from eo_keras.data.augment.translation import TranslatedImages
from eo_keras.data.pipeline import PipelineOptions, RecordDataset, TrainingDataset, evaluation
from eo_keras.errors import OptionError
from eo_keras.records.data_card import read_data_card
from eo_keras.records.inputs import parse_inputs, sides
from tests.harness import modalities

SIZE = modalities.SIZE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("modal") / "records"
    modalities.write(path, {"train": 6, "test": 3}, lacking={1: ("height",)})
    return path


@pytest.fixture(scope="module")
def card(folder):
    return read_data_card(folder)


def statistics_of(card, name):
    found = card.modalities[name].statistics
    return np.array([one.mean for one in found]), np.array([one.std for one in found])


def test_both_dates_of_a_sensor_are_predicted(card):
    taken, predicted = sides(parse_inputs("all", card), "s2")
    assert [one.name for one in taken] == ["s1", "height"] and [one.name for one in predicted] == ["s2", "s2_before"]
    taken, predicted = sides(parse_inputs("s1:VV;height:all", card), "height")
    assert [(one.name, one.modality, one.bands) for one in taken] == [("image", "s1", ("VV",))]
    for text, sensor in (("all", "s3"), ("s2:all;s2_before:all", "s2")):
        with pytest.raises(
            OptionError, match=f"translated_sensor: '{sensor}' of bands of .*; expected one sensor of two"
        ):
            sides(parse_inputs(text, card), sensor)
    with pytest.raises(OptionError, match="'s1' of 64 pixels, from images of 32; expected a sensor that is no finer"):
        TranslatedImages(Translation("s1"), card, parse_inputs("s1:all;height:all", card))


def test_numbers_are_standardized_and_of_the_size_of_the_finest_image(folder, card):
    options = PipelineOptions(2, inputs=parse_inputs("s1:all;height:all", card), pretext=Translation("height"))
    found = [batch for batch in evaluation(RecordDataset(folder), options, "test")]
    (image, label, weight), (_, last, filled) = found
    assert image.shape == (2, SIZE, SIZE, 2) and label.shape == (2, SIZE, SIZE, 3)
    assert weight.numpy().tolist() == [1, 1] and filled.numpy().tolist() == [1, 0]
    for place in range(2):
        images = modalities.images_of(6 + place)[1]
        np.testing.assert_array_equal(image[place], images["s1"])
        mean, std = statistics_of(card, "height")
        heights = (np.kron(images["height"], np.ones((2, 2, 1))) - mean) / std
        np.testing.assert_allclose(label[place, ..., :1], heights, atol=1e-5)
        mean, std = statistics_of(card, "s1")
        np.testing.assert_allclose(label[place, ..., 1:], np.nan_to_num((images["s1"] - mean) / std), atol=1e-5)
    # Nothing is to be predicted of an image that only fills the batch.
    filling = last.numpy()[1]
    assert np.isnan(filling[..., :1]).all() and (filling[..., 1:] == 0).all()


def test_in_training_both_sides_move_alike_and_what_is_missing_is_not_predicted(folder, card):
    options = PipelineOptions(
        6,
        inputs=parse_inputs("s1:all;height:all", card),
        pretext=Translation("height"),
        augmentation=CropAugmentation(crop=SIZE, scale_min=1.0, scale_max=1.0, band_jitter=0.5),
    )
    ((image, label),) = TrainingDataset(RecordDataset(folder), options).epoch(0)
    mean, std = statistics_of(card, "height")
    heights = label.numpy()[..., 0] * std + mean
    lacking = np.isnan(heights).all(axis=(1, 2))
    assert lacking.sum() == 1
    for radar, height in zip(image.numpy()[~lacking], heights[~lacking], strict=True):
        # Of class 2 backscatter and heights alike are high; heights keep their meters.
        both, high = np.isfinite(radar[..., 1]) & np.isfinite(height), height > 5
        difference = radar[both & high, 1].mean() - radar[both & ~high, 1].mean()
        assert difference == pytest.approx(6, abs=0.3)
        assert 9 < height[both].max() < 11 and height[both & ~high].max() < 2
