"""Masking for pre-training: how much, where, drawn from what, and what is to be predicted."""

import numpy as np
import pytest
import tensorflow as tf

from eo_keras.data.augment.masking import MaskedImages
from eo_keras.data.augment.options import CropAugmentation, Masking
from eo_keras.data.pipeline import PipelineOptions, RecordDataset, TrainingDataset, evaluation
from eo_keras.records.data_card import read_data_card
from eo_keras.records.inputs import parse_inputs
from tests.harness import modalities

SIZE, BLOCK = modalities.SIZE, 16
MASKING = Masking(size=BLOCK, ratio=0.5, sensor=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("modal") / "records"
    modalities.write(path, {"train": 6, "test": 3}, lacking={1: ("s1",)})
    return path


@pytest.fixture(scope="module")
def card(folder):
    return read_data_card(folder)


def images_of(numbers, names):
    images = [modalities.images_of(number)[1] for number in numbers]
    return {name: tf.constant(np.stack([one[name.split("_2")[0]] for one in images])) for name in names}


def masked(card, text, masking=MASKING, numbers=(0, 1, 2), step=0, drawn=None):
    inputs = parse_inputs(text, card)
    images = images_of(numbers, [one.name for one in inputs])
    drawn = drawn or (0, len(numbers))
    found, targets = MaskedImages(masking, card, inputs)(images, tf.constant([5, step], tf.int64), drawn)
    return images, {name: one.numpy() for name, one in found.items()}, targets.numpy()


def data_in(image):
    image = np.asarray(image)
    return np.isfinite(image).all(-1) if image.dtype.kind == "f" else (image != 0).any(-1)


def test_half_of_the_blocks_of_each_modality_are_masked(card):
    images, found, targets = masked(card, "all")
    assert targets.shape == (3, SIZE, SIZE, 9) and targets.dtype == np.float32
    hidden = {}
    for name, image in images.items():
        gone = data_in(image) & ~data_in(found[name])
        np.testing.assert_array_equal(found[name][~gone], np.asarray(image)[~gone])
        side = image.shape[1] // 4
        blocks = gone.reshape(3, 4, side, 4, side).any(axis=(2, 4))
        np.testing.assert_array_equal(blocks.sum(axis=(1, 2)), [8, 8, 8])
        hidden[name] = blocks
    # Each example and each modality has draws of its own.
    assert len({blocks[place].tobytes() for blocks in hidden.values() for place in range(3)}) == 12


def test_targets_are_the_standardized_numbers_of_masked_pixels_with_data(card):
    images, found, targets = masked(card, "all", numbers=range(6))
    first = 0
    for name, image in images.items():
        statistics = {one.band: one for one in card.modalities[name].statistics}
        bands = card.modalities[name].bands
        numbers = np.asarray(image, np.float64)
        expected = (numbers - [statistics[band].mean for band in bands]) / [statistics[band].std for band in bands]
        gone = data_in(image) & ~data_in(found[name])
        expected = np.where(gone[..., None], expected, np.nan)
        ratio = SIZE // image.shape[1]
        expected = expected.repeat(ratio, axis=1).repeat(ratio, axis=2)
        np.testing.assert_allclose(targets[..., first : first + len(bands)], expected, atol=1e-3)
        first += len(bands)
    # The corner of s2 that holds no data is never a target.
    assert np.isnan(targets[:, :4, :8, :3]).all() and np.isfinite(targets[:, :4, :8, 3:6]).any()


def test_draws_depend_on_seed_and_step_alone(card):
    for text in ("all", "s1:all;height:all"):
        _, _, whole = masked(card, text, Masking(BLOCK, 0.5, 0.5))
        _, _, again = masked(card, text, Masking(BLOCK, 0.5, 0.5))
        np.testing.assert_array_equal(again, whole)
        # The second of two devices, which has the last example.
        _, _, part = masked(card, text, Masking(BLOCK, 0.5, 0.5), numbers=(2,), drawn=(2, 3))
        np.testing.assert_array_equal(part, whole[2:])
        _, _, later = masked(card, text, Masking(BLOCK, 0.5, 0.5), step=1)
        assert not np.array_equal(np.isnan(later), np.isnan(whole))


def test_views_of_one_modality_are_masked_alike(card):
    _, found, _ = masked(card, "s2:all;s1:all;s2:all")
    np.testing.assert_array_equal(data_in(found["s2"]), data_in(found["s2_2"]))


def test_a_sensor_is_masked_as_a_whole_with_its_dates(card):
    gone = []
    for step in range(40):
        _, found, _ = masked(card, "all", Masking(BLOCK, 0.3, 0.5), numbers=(0, 1, 2, 3), step=step)
        gone += [[not data_in(one[place]).any() for one in found.values()] for place in range(4)]
    gone = np.array(gone)
    np.testing.assert_array_equal(gone[:, 0], gone[:, 1])
    by_sensor = gone[:, 1:]
    assert by_sensor.sum(axis=1).max() == 1
    # Half of 160 examples lose one, and each sensor a third of these: within four standard deviations.
    assert 55 <= by_sensor.sum() <= 105 and (by_sensor.sum(axis=0) >= 12).all()


def test_one_input_keeps_pixels(card):
    images = tf.constant(modalities.images_of(0)[1]["s1"][None])
    inputs = parse_inputs("s1:all", card)
    found, targets = MaskedImages(Masking(BLOCK, 0.5, 1.0), card, inputs)(images, tf.constant([5, 0], tf.int64), (0, 1))
    assert data_in(found).any() and targets.shape == (1, SIZE, SIZE, 2)


def test_batches_hold_what_was_masked_in_place_of_labels(folder, card):
    options = PipelineOptions(2, inputs=parse_inputs("s1:all;height:all", card), pretext=MASKING)
    records = RecordDataset(folder)
    passes = [list(evaluation(records, options, "test", with_keys=True)) for _ in range(2)]
    for (image, target, weight, _), (other, other_target, *_) in zip(*passes, strict=True):
        np.testing.assert_array_equal(image["s1"], other["s1"])
        np.testing.assert_array_equal(target, other_target)
        for place in range(2):
            assert np.isfinite(target[place]).any() == (weight[place] > 0)


@pytest.mark.parametrize("cache", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_resumed_run_sees_what_the_uninterrupted_one_would_have_seen(folder, card, cache):
    options = PipelineOptions(
        2,
        inputs=parse_inputs("s2:all;height:all", card),
        pretext=MASKING,
        augmentation=CropAugmentation(crop=32),
        modality_dropout=0.3,
        cache=cache,
    )
    data = TrainingDataset(RecordDataset(folder), options)
    steps = list(data.steps_from(0, 5))
    for (image, target), (later, later_target) in zip(steps[3:], data.steps_from(3, 2), strict=True):
        assert target.shape == (2, 32, 32, 4) and target.dtype == tf.float32
        tf.nest.map_structure(np.testing.assert_array_equal, (image, target), (later, later_target))
        known = np.isfinite(target)[..., :3].all(-1)
        assert not known[data_in(image["s2"])].any()
    assert any(np.isfinite(target).any() for _, target in steps)
