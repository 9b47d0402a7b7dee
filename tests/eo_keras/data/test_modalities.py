"""Batches of several modalities: selection, missing ones, augmentation of all alike, modality dropout."""

import numpy as np
import pytest
import tensorflow as tf

from eo_keras.data.augment.options import Augmentation, CropAugmentation
from eo_keras.data.augment.patches import augment_batch
from eo_keras.data.pipeline import PipelineOptions, RecordDataset, TrainingDataset, evaluation
from eo_keras.errors import BandError, OptionError
from eo_keras.legends.catalogue import IGNORE
from eo_keras.records.data_card import read_data_card
from eo_keras.records.inputs import parse_inputs, text_of
from tests.harness import modalities

ALL = {"s2": 3, "s2_before": 3, "s1": 2, "height": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("modal") / "records"
    modalities.write(path, {"train": 6, "test": 3}, lacking={1: ("s1",), 2: ("s2", "s2_before"), 7: ("height",)})
    return path


def options(folder, text="all", **others):
    return PipelineOptions(2, inputs=parse_inputs(text, read_data_card(folder)), **others)


def test_modalities_and_bands_are_chosen_by_name(folder):
    card = read_data_card(folder)
    assert [(one.name, len(one.bands)) for one in parse_inputs("all", card)] == list(ALL.items())
    chosen = parse_inputs("s2:B02,B04;s1:vh;s2:RGB", card)
    assert [(one.name, one.modality, one.bands) for one in chosen] == [
        ("s2", "s2", ("B02", "B04")),
        ("s1", "s1", ("VH",)),
        ("s2_2", "s2", ("B04", "B03", "B02")),
    ]
    assert parse_inputs(text_of(chosen, card), card) == chosen
    two = parse_inputs("s2:B04;s2_before:B04;s2:B03;s2_before:B03", card)
    assert [one.name for one in two] == ["s2", "s2_before", "s2_2", "s2_2_before"]
    (alone,) = parse_inputs("s1:all", card)
    assert (alone.name, alone.modality) == ("image", "s1")
    assert parse_inputs("RGB", card)[0].modality == "s2"
    for text, told in (
        ("s3:B01", "no modality 's3'; expected modalities out of s2, s2_before, s1, height"),
        ("s1:VV,B04", "'B04' is no Sentinel-1 band"),
        ("s2:RGB;height", "'height' has no modality"),
        ("s1:HH", "does not hold HH"),
    ):
        with pytest.raises(BandError, match=told):
            parse_inputs(text, card)


@pytest.mark.parametrize("cache", [True, False])
def test_batches_hold_what_records_hold(folder, cache):
    data, seen = RecordDataset(folder), 0
    for image, label, weight, key in evaluation(data, options(folder, cache=cache), "test", with_keys=True):
        assert {name: values.shape[-1] for name, values in image.items()} == ALL
        for place in np.flatnonzero(weight):
            number = int(key[place].numpy().decode().split("-")[1])
            mask, images = modalities.images_of(number)
            if number == 7:
                images["height"][:] = np.nan
            for name, expected in images.items():
                np.testing.assert_array_equal(image[name][place], expected)
            # Some modality sees every pixel.
            np.testing.assert_array_equal(label[place], mask)
            seen += 1
        for place in np.flatnonzero(weight == 0):
            assert not image["s2"][place].numpy().any() and np.isnan(image["s1"][place]).all()
    assert seen == 3


def test_pixels_that_no_input_sees_are_scored_but_not_trained_on(folder):
    data = RecordDataset(folder)
    ((radar, label, *_),) = evaluation(data, options(folder, "s1:all"), "test").take(1)
    ((_, same, *_),) = evaluation(data, options(folder, "s2:all"), "test").take(1)
    # Models of one sensor and of several are compared on the same pixels.
    assert np.isnan(radar).any() and not (label == IGNORE).numpy().any()
    np.testing.assert_array_equal(label, same)
    batches = list(TrainingDataset(data, options(folder, "s1:all")).epoch(0))
    for radar, label in batches:
        np.testing.assert_array_equal(label == IGNORE, np.isnan(radar).any(axis=-1))
    lacking = [(label[place] == IGNORE).numpy().all() for _, label in batches for place in range(2)]
    assert sum(lacking) == 1


def test_a_sensor_is_taken_away_with_both_dates(folder):
    for image, _, _ in evaluation(RecordDataset(folder), options(folder, without=("s2", "height")), "test"):
        assert not image["s2"].numpy().any() and not image["s2_before"].numpy().any()
        assert np.isnan(image["height"]).all() and np.isfinite(image["s1"]).any()


@pytest.mark.parametrize("cache", [True, False])
def test_all_inputs_show_the_same_crop(tmp_path, cache):
    modalities.write(tmp_path / "r", {"train": 4})
    crop = CropAugmentation(crop=32, scale_min=0.7, scale_max=1.6, band_jitter=0.05)
    pipeline = TrainingDataset(RecordDataset(tmp_path / "r"), options(tmp_path / "r", augmentation=crop, cache=cache))
    checked = 0
    for image, label in (batch for number in range(3) for batch in pipeline.epoch(number)):
        assert [image[name].shape[1] for name in ALL] == [32, 32, 32, 16]
        label, bright = label.numpy(), image["s2"].numpy()[..., 0]
        radar, height = image["s1"].numpy(), image["height"].numpy()[..., 0]
        # Away from edges between classes, every input shows the mask's class.
        inner = tf.nn.max_pool2d(tf.cast(label[..., None], tf.float32), 5, 1, "SAME")[..., 0] == label
        inner &= -tf.nn.max_pool2d(-tf.cast(label[..., None], tf.float32), 5, 1, "SAME")[..., 0] == label
        inner = inner.numpy() & (label != IGNORE)
        known = inner & (bright > 0)
        for values, low, high, where, threshold in (
            (bright, label != 1, label == 1, known, 1400),
            (radar[..., 0], label != 2, label == 2, inner & np.isfinite(radar[..., 0]), -9),
        ):
            assert (values[where & low] < threshold).mean() > 0.97 and (values[where & high] > threshold).mean() > 0.97
        coarse, seen = label[:, ::2, ::2], inner[:, ::2, ::2] & np.isfinite(height)
        assert ((height > 5) == (coarse == 2))[seen].mean() > 0.97
        # Heights are not changed by the jitter.
        assert abs(np.median(height[seen & (coarse == 2)]) - 9.5) < 0.1
        checked += known.sum()
    assert checked > 1000


def test_crops_of_a_coarser_input_are_whole_pixels(folder):
    crop = CropAugmentation(crop=33)
    with pytest.raises(OptionError, match="33 pixels, of another input 16.5; expected a multiple of 2"):
        next(iter(TrainingDataset(RecordDataset(folder), options(folder, augmentation=crop)).epoch(0)))


def test_patches_of_several_inputs_move_together():
    places = np.stack(np.meshgrid(np.arange(1, 33), np.arange(1, 33), indexing="ij"), axis=-1)
    fine = np.broadcast_to(places, (16, 32, 32, 2)).astype(np.uint16)
    coarse = fine[:, ::2, ::2].astype(np.float32)
    cut = Augmentation(dihedral=True, max_shift=6, brightness=0.0, cutout=8)
    found = augment_batch({"s2": tf.constant(fine), "height": tf.constant(coarse)}, tf.constant([3, 1]), cut)
    fine, coarse = found["s2"].numpy(), found["height"].numpy()
    kept = np.isfinite(coarse).all(axis=-1)
    assert 0.8 < kept.mean() < 1
    # Of a coarse pixel, the four fine ones have the rows and columns that it covers, in whatever order.
    least = fine.reshape(16, 16, 2, 16, 2, 2).min(axis=(2, 4))
    whole = kept & (fine.reshape(16, 16, 2, 16, 2, 2) > 0).all(axis=(2, 4, 5))
    assert whole.mean() > 0.5
    inside = whole & (np.abs(least - coarse) <= 1).all(axis=-1)
    assert inside.sum() > 0.9 * whole.sum()


def test_modality_dropout_keeps_a_sensor_and_its_rate(tmp_path):
    modalities.write(tmp_path / "r", {"train": 6})
    data, chosen = RecordDataset(tmp_path / "r"), options(tmp_path / "r", modality_dropout=0.4)
    pipeline, gone = TrainingDataset(data, chosen), []
    for image, _ in pipeline.steps_from(0, 150):
        lacks = {
            name: ~np.isfinite(values).any(axis=(1, 2, 3))
            if values.dtype == tf.float32
            else ~values.numpy().any(axis=(1, 2, 3))
            for name, values in image.items()
        }
        np.testing.assert_array_equal(lacks["s2"], lacks["s2_before"])
        gone.append(np.stack([lacks["s2"], lacks["s1"], lacks["height"]], axis=-1))
    gone = np.concatenate(gone)
    assert gone.sum(axis=1).max() == 2
    # 0.4 of each, less those kept where all three would have gone.
    np.testing.assert_allclose(gone.mean(axis=0), 0.4 - 0.4**3 / 3, atol=0.08)
    first, again = (next(iter(TrainingDataset(data, chosen).epoch(2)))[0] for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
