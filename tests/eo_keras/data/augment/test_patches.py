import collections

import numpy as np
import pytest
import tensorflow as tf

from eo_keras.data.augment.patches import Augmentation, augment_batch, cut_out, move_pixels, scale_brightness, shrink
from eo_keras.errors import OptionError

RNG = np.random.default_rng(3)


def _symmetries(image):
    """The eight symmetries by NumPy, by the number that `move_pixels` gives them."""
    result = []
    for number in range(8):
        changed = image[:, ::-1] if number & 1 else image
        changed = changed[::-1] if number & 2 else changed
        result.append(changed.transpose(1, 0, 2) if number & 4 else changed)
    return result


def test_numbers_are_numpys_rotations_and_flips():
    image = RNG.integers(1, 60000, (6, 6, 3), dtype=np.uint16)
    moved = move_pixels(tf.constant(np.stack([image] * 8)), tf.range(8), None).numpy()
    rotations = [np.rot90(image, turns) for turns in range(4)]
    expected = rotations + [np.fliplr(rotated) for rotated in rotations]
    assert {array.tobytes() for array in moved} == {array.tobytes() for array in expected}
    assert len({array.tobytes() for array in moved}) == 8
    np.testing.assert_array_equal(moved, np.stack(_symmetries(image)))


def test_shifts_are_crops_of_a_reflect_padded_image():
    bound, height, width = 5, 7, 9
    image = RNG.integers(0, 256, (height, width, 2), dtype=np.uint8)
    shifts = np.array([(down, right) for down in range(-bound, bound + 1) for right in range(-bound, bound + 1)])
    moved = move_pixels(tf.constant(np.stack([image] * len(shifts))), None, tf.constant(shifts, tf.int32)).numpy()
    padded = np.pad(image, ((bound, bound), (bound, bound), (0, 0)), mode="reflect")
    for (down, right), result in zip(shifts, moved, strict=True):
        top, left = bound + down, bound + right
        np.testing.assert_array_equal(result, padded[top : top + height, left : left + width])


def test_symmetry_and_shift_together():
    image = RNG.integers(0, 256, (8, 8, 1), dtype=np.uint8)
    shifts = tf.constant([(2, -3)] * 8)
    moved = move_pixels(tf.constant(np.stack([image] * 8)), tf.range(8), shifts).numpy()
    for changed, result in zip(_symmetries(image), moved, strict=True):
        padded = np.pad(changed, ((3, 3), (3, 3), (0, 0)), mode="reflect")
        np.testing.assert_array_equal(result, padded[5:13, 0:8])


def test_every_symmetry_is_drawn_equally_often():
    image = RNG.integers(0, 256, (4, 4, 1), dtype=np.uint8)
    images = tf.constant(np.stack([image] * 8000))
    drawn = augment_batch(images, tf.constant([1, 2]), Augmentation(max_shift=0, brightness=0)).numpy()
    counts = collections.Counter(array.tobytes() for array in drawn)
    assert set(counts) == {array.tobytes() for array in _symmetries(image)}
    assert all(880 < count < 1120 for count in counts.values())


def test_every_shift_is_drawn():
    image = np.arange(100, dtype=np.uint8).reshape(10, 10, 1)
    images = tf.constant(np.stack([image] * 2000))
    drawn = augment_batch(images, tf.constant([1, 2]), Augmentation(dihedral=False, max_shift=2, brightness=0)).numpy()
    centres = collections.Counter(int(value) for value in drawn[:, 5, 5, 0])
    assert set(centres) == {10 * row + column for row in range(3, 8) for column in range(3, 8)}


def test_brightness_factors():
    images = tf.fill((5000, 2, 2, 1), tf.constant(1000, tf.uint16))
    drawn = augment_batch(
        images, tf.constant([1, 2]), Augmentation(dihedral=False, max_shift=0, brightness=0.2)
    ).numpy()
    factors = drawn[:, 0, 0, 0] / 1000
    assert abs(factors.mean() - 1) < 0.01
    assert 0.8 <= factors.min() < 0.81 and 1.19 < factors.max() <= 1.2
    assert (drawn == drawn[:, :1, :1]).all(), "one factor an image"


@pytest.mark.parametrize("dtype", [tf.uint8, tf.uint16])
def test_brightness_rounds_and_keeps_nodata_apart(dtype):
    top = dtype.max
    images = tf.constant([[[[0, 0], [0, 9], [1, top], [5, 7]]]], dtype)
    np.testing.assert_array_equal(
        scale_brightness(images, tf.constant([1.1]))[0, 0], [[0, 0], [1, 10], [1, top], [6, 8]]
    )
    dark = scale_brightness(images, tf.constant([0.1]))
    assert dark.dtype == dtype
    np.testing.assert_array_equal(dark[0, 0, :2], [[0, 0], [1, 1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_batch_depends_on_its_seed_alone(dtype):
    images = tf.constant(RNG.integers(0, 256, (16, 12, 12, 4)).astype(dtype))
    first, again, other = (augment_batch(images, tf.constant([7, step]), Augmentation()) for step in (4, 4, 5))
    assert first.dtype == images.dtype and first.shape == images.shape
    np.testing.assert_array_equal(first, again)
    assert (first.numpy() != other.numpy()).any()


def test_brightness_does_not_change_the_geometry_drawn():
    images = tf.constant(RNG.integers(1, 50, (16, 12, 12, 1), dtype=np.uint16) * 1000)
    plain = augment_batch(images, tf.constant([7, 4]), Augmentation(brightness=0))
    bright = augment_batch(images, tf.constant([7, 4]), Augmentation(brightness=0.001))
    np.testing.assert_array_equal(plain, np.round(bright.numpy() / 1000).astype(np.uint16) * 1000)


def test_nothing_switched_on_changes_nothing():
    images = tf.constant(RNG.integers(0, 256, (3, 5, 7, 2), dtype=np.uint8))
    np.testing.assert_array_equal(augment_batch(images, tf.constant([1, 1]), Augmentation(False, 0, 0)), images)


def test_what_does_not_fit_is_refused():
    oblong = tf.zeros((2, 4, 6, 1), tf.uint8)
    with pytest.raises(OptionError, match="not square"):
        augment_batch(oblong, tf.constant([1, 1]), Augmentation(max_shift=0))
    with pytest.raises(OptionError, match="less than the images' 4 pixels"):
        augment_batch(oblong, tf.constant([1, 1]), Augmentation(dihedral=False, max_shift=4))
    with pytest.raises(OptionError, match="max_shift: -1; expected 0 or more"):
        Augmentation(max_shift=-1)
    with pytest.raises(OptionError, match=r"brightness: 1.0; expected a number in"):
        Augmentation(brightness=1.0)


def test_shrinking_averages_valid_pixels():
    images = RNG.integers(1, 60000, (3, 8, 8, 2)).astype(np.uint16)
    expected = images.reshape(3, 4, 2, 4, 2, 2).astype(np.float64).mean(axis=(2, 4))
    found = shrink(tf.constant(images), 4)
    assert found.dtype == tf.uint16 and found.shape == (3, 4, 4, 2)
    np.testing.assert_allclose(found.numpy(), expected, atol=0.51)


def test_shrinking_to_no_whole_share_keeps_the_mean():
    images = RNG.integers(1, 256, (2, 64, 64, 3)).astype(np.uint8)
    found = shrink(tf.constant(images), 48).numpy()
    np.testing.assert_allclose(found.mean(axis=(1, 2)), images.mean(axis=(1, 2)), rtol=0.01)


def test_shrinking_leaves_no_data_out():
    images = np.full((1, 4, 4, 2), 1000, np.uint16)
    images[0, :2, :2] = 0  # A whole block without data stays so.
    images[0, 2, 2] = 0  # A pixel without data takes no part in its block's average.
    images[0, 0, 2] = (0, 1000)  # 0 in one band is a number.
    found = shrink(tf.constant(images), 2).numpy()[0]
    np.testing.assert_array_equal(found, [[[0, 0], [750, 1000]], [[1000, 1000], [1000, 1000]]])


def test_a_square_is_cut_out_and_the_rest_stays():
    images = tf.constant(np.random.default_rng(1).integers(1, 255, (3, 20, 20, 2)).astype(np.uint8))
    places = tf.constant([[0.5, 0.5], [0.0, 0.99], [0.2, 0.1]])
    cut = cut_out(images, places, 6).numpy()
    expected = images.numpy().copy()
    expected[0, 7:13, 7:13] = 0
    expected[1, :3, 16:] = 0
    expected[2, 1:7, :5] = 0
    np.testing.assert_array_equal(cut, expected)


def test_cutting_out_changes_no_other_draw():
    images = tf.constant(np.random.default_rng(2).integers(1, 255, (8, 16, 16, 3)).astype(np.uint8))
    seed = tf.constant([3, 4], tf.int64)
    plain = augment_batch(images, seed, Augmentation(True, 3, 0.2)).numpy()
    cut = augment_batch(images, seed, Augmentation(True, 3, 0.2, cutout=5)).numpy()
    gone = (cut == 0).all(-1)
    np.testing.assert_array_equal(cut[~gone], plain[~gone])
    counts = gone.sum((1, 2))
    assert (counts > 0).all() and (counts <= 25).all() and len(set(counts)) > 1
    with pytest.raises(OptionError, match="cutout: 16 pixels; expected less than the images' 16"):
        augment_batch(images, seed, Augmentation(cutout=16))
