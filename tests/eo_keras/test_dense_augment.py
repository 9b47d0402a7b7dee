"""Crops of tiles: image and mask stay together, no data stays no data, and a draw repeats."""

import numpy as np
import pytest
import tensorflow as tf

from eo_keras.dense_augment import DenseAugmentation, augment_maps
from eo_keras.errors import OptionError
from eo_keras.legends import IGNORE

SIZE, BATCH = 64, 8


def tiles(dtype=np.uint16):
    """Labels in squares, and images that tell the label: the number is 100 (label + 1) in one band."""
    random = np.random.default_rng(1)
    labels = random.integers(0, 4, (BATCH, SIZE // 16, SIZE // 16)).repeat(16, 1).repeat(16, 2).astype(np.uint8)
    images = np.stack([50 * (labels.astype(int) + 1), np.full(labels.shape, 200)], axis=-1).astype(dtype)
    return images, labels


def augment(images, labels, options, draw=(1, 2), drawn=None):
    drawn = drawn or (0, len(images))
    found = augment_maps(tf.constant(images), tf.constant(labels), tf.constant(draw, tf.int64), options, drawn)
    return tuple(part.numpy() for part in found)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_crops_without_scaling_are_cut_out_exactly(dtype):
    images, labels = tiles(dtype)
    options = DenseAugmentation(crop=32, scale_min=1, scale_max=1, jitter=0)
    image, label = augment(images, labels, options)
    assert image.shape == (BATCH, 32, 32, 2) and image.dtype == dtype
    assert label.shape == (BATCH, 32, 32) and label.dtype == np.uint8
    np.testing.assert_array_equal(image[..., 0], 50 * (label.astype(int) + 1))
    assert (image[..., 1] == 200).all()


def test_scaled_masks_stay_on_their_images():
    images, labels = tiles()
    image, label = augment(images, labels, DenseAugmentation(crop=48, scale_min=0.6, scale_max=2, jitter=0))
    known = label != IGNORE
    told = np.rint(image[..., 0] / 50) - 1
    # Between two squares, interpolation makes numbers of its own.
    assert (told[known] == label[known]).mean() > 0.9
    assert set(np.unique(label)) <= {0, 1, 2, 3, IGNORE}
    # What lies beyond the tile has neither numbers nor a class.
    assert (image[~known] == 0).all() and (image[known] > 0).all()


def test_a_draw_repeats_and_another_differs():
    images, labels = tiles()
    options = DenseAugmentation(crop=32)
    first, again = augment(images, labels, options), augment(images, labels, options)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (augment(images, labels, options, (1, 3))[1] != first[1]).any()
    in_graph = tf.function(
        lambda: augment_maps(
            tf.constant(images), tf.constant(labels), tf.constant((1, 2), tf.int64), options, (0, BATCH)
        )
    )()
    np.testing.assert_array_equal(in_graph[1].numpy(), first[1])


def test_workers_that_share_a_batch_draw_its_parts():
    images, labels = tiles()
    options = DenseAugmentation(crop=32)
    whole = augment(images, labels, options)
    half = BATCH // 2
    second = augment(images[half:], labels[half:], options, drawn=(half, BATCH))
    np.testing.assert_array_equal(second[0], whole[0][half:])


def test_examples_of_a_batch_are_changed_each_in_its_own_way():
    images, labels = tiles()
    same = np.repeat(images[:1], BATCH, 0), np.repeat(labels[:1], BATCH, 0)
    _, label = augment(*same, DenseAugmentation(crop=32))
    assert len({one.tobytes() for one in label}) == BATCH


def test_all_symmetries_of_the_square_are_drawn():
    # A tile without symmetry, and crops of all of it.
    label = np.arange(64, dtype=np.uint8).reshape(1, 8, 8).repeat(8, 1).repeat(8, 2)
    image = np.ones((1, 64, 64, 1), np.uint16)
    options = DenseAugmentation(crop=64, scale_min=1, scale_max=1, jitter=0)
    found = {augment(image, label, options, (1, draw))[1].tobytes() for draw in range(60)}
    assert len(found) == 8
    still = DenseAugmentation(crop=64, scale_min=1, scale_max=1, jitter=0, symmetries=False)
    np.testing.assert_array_equal(augment(image, label, still)[1], label)


def test_scales_cover_their_range():
    # A line of known length: how long it comes out tells the scale.
    label = np.full((200, 128, 128), 0, np.uint8)
    label[:, :, :64] = 1
    images = np.ones((200, 128, 128, 1), np.uint16)
    options = DenseAugmentation(crop=64, scale_min=0.5, scale_max=2, symmetries=False, jitter=0)
    _, found = augment(images, label, options)
    seen = (found != IGNORE).mean(axis=(1, 2))
    # Below scale 0.5 a crop would be larger than the tile; at 0.5 it is all of it.
    assert seen.min() > 0.95
    both = np.array([len(np.unique(one)) == 2 for one in found])
    # The more of the tile a crop shows, the surer both halves are in it.
    assert 0.5 < both.mean() < 0.95


def test_jitter_changes_bands_and_keeps_no_data():
    images, labels = tiles()
    images[:, :10] = 0
    options = DenseAugmentation(crop=64, scale_min=1, scale_max=1, symmetries=False, jitter=0.2)
    image, _ = augment(images, labels, options)
    assert (image[:, :10] == 0).all()
    ratio = image[:, 10:].astype(float) / images[:, 10:]
    assert 0.6 < ratio.min() and ratio.max() < 1.48
    means = ratio.mean((1, 2))
    assert np.abs(means[:, 0] - means[:, 1]).max() > 0.02 and means.std() > 0.05


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": 8}, "crop: 8 pixels"),
        ({"scale_min": 2, "scale_max": 1}, "scale_min and scale_max"),
        ({"scale_min": 0.01}, "scale_min and scale_max"),
        ({"jitter": 1}, "jitter"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(OptionError, match=said):
        DenseAugmentation(**changes)


def test_tiles_that_are_too_small_are_refused():
    DenseAugmentation(crop=128, scale_max=2).check_size(64, 64)
    with pytest.raises(OptionError, match="at most 128"):
        DenseAugmentation(crop=129, scale_max=2).check_size(64, 64)
