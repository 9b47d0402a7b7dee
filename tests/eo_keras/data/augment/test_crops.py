"""Crops of tiles: image and mask stay together, no data stays no data, and a draw repeats."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from eo_keras.data.augment.crops import CropAugmentation, augment_tiles, crop_image, crop_label
from eo_keras.errors import OptionError
from eo_keras.legends.catalogue import IGNORE

SIZE, BATCH = 64, 8


def tiles(dtype=np.uint16):
    """Labels in squares, and images that tell the label: the number is 100 (label + 1) in one band."""
    random = np.random.default_rng(1)
    labels = random.integers(0, 4, (BATCH, SIZE // 16, SIZE // 16)).repeat(16, 1).repeat(16, 2).astype(np.uint8)
    images = np.stack([50 * (labels.astype(int) + 1), np.full(labels.shape, 200)], axis=-1).astype(dtype)
    return images, labels


def augment(images, labels, options, draw=(1, 2), drawn=None):
    drawn = drawn or (0, len(images))
    found = augment_tiles(tf.constant(images), tf.constant(labels), tf.constant(draw, tf.int64), options, drawn)
    return tuple(part.numpy() for part in found)


@functools.cache
def traced(options, count):
    return tf.function(lambda *given: augment_tiles(*given, options, (0, count)), autograph=False)


def augment_many(images, labels, options, draw=(1, 2)):
    """Does in a graph what `augment` does, many times as fast."""
    given = tf.constant(images), tf.constant(labels), tf.constant(draw, tf.int64)
    return tuple(part.numpy() for part in traced(options, len(images))(*given))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_crops_without_scaling_are_cut_out_exactly(dtype):
    images, labels = tiles(dtype)
    options = CropAugmentation(crop=32, scale_min=1, scale_max=1, band_jitter=0)
    image, label = augment(images, labels, options)
    assert image.shape == (BATCH, 32, 32, 2) and image.dtype == dtype
    assert label.shape == (BATCH, 32, 32) and label.dtype == np.uint8
    np.testing.assert_array_equal(image[..., 0], 50 * (label.astype(int) + 1))
    assert (image[..., 1] == 200).all()


def test_scaled_masks_stay_on_their_images():
    images, labels = tiles()
    image, label = augment(images, labels, CropAugmentation(crop=48, scale_min=0.6, scale_max=2, band_jitter=0))
    known = label != IGNORE
    told = np.rint(image[..., 0] / 50) - 1
    # Between two squares, interpolation makes numbers of its own; a pixel off, it would be a fifth.
    alike = np.ones(known.shape, bool)
    for axis in (1, 2):
        for step in (-2, -1, 1, 2):
            alike &= np.roll(label, step, axis) == label
    assert (known & alike).mean() > 0.4
    assert (told[known & alike] == label[known & alike]).mean() > 0.98
    assert (told[known] == label[known]).mean() > 0.9
    assert set(np.unique(label)) <= {0, 1, 2, 3, IGNORE}
    # What lies beyond the tile has neither numbers nor a class.
    assert (image[~known] == 0).all() and (image[known] > 0).all()


def test_a_draw_repeats_and_another_differs():
    images, labels = tiles()
    options = CropAugmentation(crop=32)
    first, again = augment(images, labels, options), augment(images, labels, options)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (augment(images, labels, options, (1, 3))[1] != first[1]).any()
    images[0, 20:30, 10:40] = 0  # What lies beside no data takes a path of its own.
    first = augment(images, labels, options)
    in_graph = tf.function(augment_tiles, autograph=False)(
        tf.constant(images), tf.constant(labels), tf.constant((1, 2), tf.int64), options, (0, BATCH)
    )
    for one, other in zip(first, in_graph, strict=True):
        np.testing.assert_array_equal(other.numpy(), one)


def test_workers_that_share_a_batch_draw_its_parts():
    images, labels = tiles()
    options = CropAugmentation(crop=32)
    whole = augment(images, labels, options)
    half = BATCH // 2
    second = augment(images[half:], labels[half:], options, drawn=(half, BATCH))
    np.testing.assert_array_equal(second[0], whole[0][half:])


def test_examples_of_a_batch_are_changed_each_in_its_own_way():
    images, labels = tiles()
    same = np.repeat(images[:1], BATCH, 0), np.repeat(labels[:1], BATCH, 0)
    _, label = augment(*same, CropAugmentation(crop=32))
    assert len({one.tobytes() for one in label}) == BATCH


def test_all_symmetries_of_the_square_are_drawn():
    # A tile without symmetry, and crops of all of it.
    label = np.arange(64, dtype=np.uint8).reshape(1, 8, 8).repeat(8, 1).repeat(8, 2)
    image = np.ones((1, 64, 64, 1), np.uint16)
    options = CropAugmentation(crop=64, scale_min=1, scale_max=1, band_jitter=0)
    found = {augment_many(image, label, options, (1, draw))[1].tobytes() for draw in range(60)}
    assert len(found) == 8
    still = CropAugmentation(crop=64, scale_min=1, scale_max=1, band_jitter=0, dihedral=False)
    np.testing.assert_array_equal(augment(image, label, still)[1], label)


def ramps(count, size):
    """Tiles whose numbers tell the column and the row: 100 apart from one to the next."""
    steps = (1000 + 100 * np.arange(size)).astype(np.uint16)
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    return np.stack([np.stack([columns, rows], -1)] * count), np.zeros((count, size, size), np.uint8)


def test_scales_cover_their_range_evenly():
    images, labels = ramps(300, 160)
    options = CropAugmentation(crop=64, scale_min=0.5, scale_max=2, dihedral=False, band_jitter=0)
    image, _ = augment_many(images, labels, options)
    steps = (image[:, 32, 42, 0].astype(float) - image[:, 32, 22, 0]) / 20
    scales = 100 / steps
    assert 0.49 < scales.min() < 0.52 and 1.93 < scales.max() < 2.05
    # In the logarithm: as many below 1 as above.
    share = [(scales < limit).mean() for limit in (2**-0.5, 1, 2**0.5)]
    np.testing.assert_allclose(share, [0.25, 0.5, 0.75], atol=0.08)
    # One scale for both axes.
    down = (image[:, 42, 32, 1].astype(float) - image[:, 22, 32, 1]) / 20
    np.testing.assert_allclose(down, steps, rtol=0.02)


def test_every_place_is_drawn():
    """Windows of 32 of 34 pixels begin at three places along each axis; and tiles lie at three places within 34."""
    images, labels = ramps(300, 34)
    options = CropAugmentation(crop=32, scale_min=1, scale_max=1, dihedral=False, band_jitter=0)
    image, _ = augment_many(images, labels, options)
    corners, counts = np.unique(image[:, 0, 0], axis=0, return_counts=True)
    assert corners.tolist() == [[1000 + 100 * c, 1000 + 100 * r] for c in range(3) for r in range(3)]
    assert counts.min() > 15
    images, labels = ramps(300, 32)
    image, label = augment_many(
        images, labels, CropAugmentation(34, scale_min=1, scale_max=1, dihedral=False, band_jitter=0)
    )
    firsts = [tuple(np.argwhere(one == 0)[0]) for one in label]
    assert set(firsts) == {(row, column) for row in range(3) for column in range(3)}
    for (row, column), one in zip(firsts, image, strict=True):
        np.testing.assert_array_equal(one[row : row + 32, column : column + 32], images[0])
        assert (one == 0).all(-1).sum() == 34**2 - 32**2


@pytest.mark.parametrize(("window", "size"), [(40, 40), (40, 23), (40, 80), (37, 64), (64, 32)])
@pytest.mark.parametrize("corner", [(3, 8), (-7, 30), (-20, -20)])
def test_windows_by_numpy(window, size, corner):
    """Every pixel's class, its having data, and its number, by the positions of centres."""
    random = np.random.default_rng(2)
    label = random.integers(0, 9, (50, 60)).astype(np.uint8)
    rows, columns = np.meshgrid(np.arange(50), np.arange(60), indexing="ij")
    # Numbers that rise evenly: interpolated ones are those of the position.
    image = np.stack([3000 + 40 * rows + 7 * columns, np.full(rows.shape, 5)], -1).astype(np.uint16)
    found = crop_image(tf.constant(image), len(label), tf.constant(corner), window, size)
    found_label = crop_label(tf.constant(label), tf.constant(corner), window, size)
    centres = [(np.arange(size) + 0.5) * window / size + first for first in corner]
    places = [np.floor(one).astype(int) for one in centres]
    inside = np.outer(*((place >= 0) & (place < edge) for place, edge in zip(places, label.shape, strict=True)))
    clipped = [np.clip(place, 0, edge - 1) for place, edge in zip(places, label.shape, strict=True)]
    np.testing.assert_array_equal(found_label, np.where(inside, label[np.ix_(*clipped)], IGNORE))
    assert ((found.numpy() != 0).all(-1) == inside).all() and (found.numpy()[~inside] == 0).all()
    expected = 3000 + 40 * (centres[0][:, None] - 0.5) + 7 * (centres[1][None] - 0.5)
    # Where the kernel reaches over the window's or the tile's edge, it is cut.
    reach = int(np.ceil(max(1, window / size)))
    lows = [max(first, 0) + reach for first in corner]
    highs = [min(first + window, edge) - reach for first, edge in zip(corner, label.shape, strict=True)]
    within = np.outer(*((c >= low) & (c <= high) for c, low, high in zip(centres, lows, highs, strict=True)))
    assert within.sum() > 50
    # A kernel over an uneven number of pixels is off by up to a tenth of one.
    bound = 0.51 if window <= size or window % size == 0 else 0.51 + 0.1 * (40 + 7)
    np.testing.assert_allclose(found.numpy()[..., 0][within], expected[within], atol=bound)


def test_no_data_is_neither_interpolated_nor_lost():
    random = np.random.default_rng(4)
    image = np.full((40, 40, 3), 900, np.uint16)
    image[..., 1] = 0  # A band may be 0 where there is data.
    gaps = random.random((40, 40)) < 0.2
    gaps[10:20, 10:20] = True
    image[gaps] = 0
    label = np.zeros((40, 40), np.uint8)
    for size in (20, 27, 40, 80, 93):
        found = crop_image(tf.constant(image), len(label), tf.constant([0, 0]), 40, size)
        places = np.floor((np.arange(size) + 0.5) * 40 / size).astype(int)
        np.testing.assert_array_equal((found.numpy() == 0).all(-1), gaps[np.ix_(places, places)])
        # Beside a gap, numbers are not drawn down to 0.
        assert set(np.unique(found.numpy()[..., 0])) == {0, 900} and found.numpy()[..., 1].max() == 1


def test_numbers_stay_within_their_type():
    image = np.full((1, 40, 40, 2), 255, np.uint8)
    options = CropAugmentation(crop=32, band_jitter=0.9)
    found = [augment_many(image, image[..., 0], options, (1, draw))[0] for draw in range(20)]
    found = np.concatenate([one[(one != 0).any(-1)] for one in found])
    assert found.max() == 255 and found.min() >= 1 and len(np.unique(found)) > 10


def test_jitter_changes_bands_and_keeps_no_data():
    images, labels = tiles()
    images[:, :10] = 0
    options = CropAugmentation(crop=64, scale_min=1, scale_max=1, dihedral=False, band_jitter=0.2)
    image, _ = augment(images, labels, options)
    assert (image[:, :10] == 0).all()
    ratio = image[:, 10:].astype(float) / images[:, 10:]
    assert 0.6 < ratio.min() and ratio.max() < 1.48
    means = ratio.mean((1, 2))
    assert np.abs(means[:, 0] - means[:, 1]).max() > 0.02 and means.std() > 0.05


def test_jitter_is_common_to_all_bands_and_of_each_by_itself():
    images, labels = np.full((300, 32, 32, 2), 10_000, np.uint16), np.zeros((300, 32, 32), np.uint8)
    options = CropAugmentation(crop=32, scale_min=1, scale_max=1, dihedral=False, band_jitter=0.2)
    image, _ = augment_many(images, labels, options)
    assert (image == image[:, :1, :1]).all()
    factors = image[:, 0, 0] / 10_000
    np.testing.assert_allclose(factors.mean(axis=0), 1, atol=0.03)
    # Products of two equal spreads, one of them shared: half of what the bands do, they do together.
    assert 0.35 < np.corrcoef(factors.T)[0, 1] < 0.65
    assert 0.64 <= factors.min() < 0.75 and 1.3 < factors.max() <= 1.44


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": 8}, "crop: 8; expected 32 or more"),
        ({"scale_min": 2, "scale_max": 1}, "scale_min: 2; expected at most `scale_max=1`"),
        ({"scale_min": 0.01}, "scale_min: 0.01; expected a number in"),
        ({"band_jitter": 1}, "band_jitter"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(OptionError, match=said):
        CropAugmentation(**changes)


def test_crops_that_are_not_given_are_as_large_as_the_tiles_up_to_256():
    assert [CropAugmentation().for_tiles(size).crop for size in (64, 256, 512)] == [64, 256, 256]
    assert CropAugmentation(crop=48).for_tiles(64).crop == 48


def test_tiles_that_are_too_small_are_refused():
    CropAugmentation(crop=128, scale_max=2).check_size(64, 64)
    with pytest.raises(OptionError, match="at most 128"):
        CropAugmentation(crop=129, scale_max=2).check_size(64, 64)
