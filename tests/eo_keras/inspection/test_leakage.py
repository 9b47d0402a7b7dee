import io
import itertools

import numpy as np
import pytest
from PIL import Image
from rasterio.warp import transform

from eo_keras.geo.footprints import Footprints
from eo_keras.inspection import leakage

SCALE = 0.001
EDGE = 640.0


def pictures(count, seed=0, size=64):
    """Pictures of blobs of all sizes, each of another place; uint8 (count, size, size, 3)."""
    rng = np.random.default_rng(seed)
    whole = np.zeros((count, size, size, 1))
    for cells in (4, 8, 16, 32):
        blobs = rng.normal(0, 1, (count, cells, cells, 1))
        whole += blobs.repeat(-(-size // cells), 1).repeat(-(-size // cells), 2)[:, :size, :size]
    return np.clip(110 + 22 * whole + rng.normal(0, 2, (count, size, size, 3)), 1, 255).astype(np.uint8)


def compressed(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def squares(*corners):
    """Patches whose lower left is given, in metres from a place in Bohemia where UTM is true to 0.04 %."""
    unit = np.array([[0, EDGE], [EDGE, EDGE], [EDGE, 0], [0, 0]])
    xs, ys = np.moveaxis(np.array(corners, np.float64)[:, None] + unit + (500_000, 5_500_000), -1, 0)
    degrees = np.stack(transform("EPSG:32633", "EPSG:4326", xs.ravel(), ys.ravel()), axis=-1)
    return Footprints.of_degrees(degrees.reshape(-1, 4, 2))


def inventory(images, splits, *, footprints=None, classes=None):
    return leakage.Inventory(
        keys=tuple(f"p{number}" for number in range(len(images))),
        splits=tuple(splits),
        classes=tuple(classes or ["Forest"] * len(images)),
        fingerprints=leakage.fingerprint(np.asarray(images), SCALE),
        footprints=footprints,
        pixel_m=10.0,
    )


@pytest.mark.parametrize("block", [(3, 5), (64, 64)])
@pytest.mark.parametrize("bits", [0, 7, 30, 64])
def test_the_search_finds_what_comparing_one_by_one_finds(monkeypatch, block, bits):
    monkeypatch.setattr(leakage, "_BLOCK", block)
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 2**64, count, dtype=np.uint64) for count in (23, 31))
    # Each of them near one of the others, by flipping one bit more every time.
    second[:23] = first ^ np.array([(1 << number) - 1 for number in range(23)], np.uint64)
    expected = {
        (i, j)
        for i, j in itertools.product(range(23), range(31))
        if (int(first[i]) ^ int(second[j])).bit_count() <= bits
    }
    found = [
        pair for rows, columns in leakage.close_hashes(first, second, bits) for pair in zip(rows, columns, strict=True)
    ]
    assert len(found) == len(expected) and {(int(i), int(j)) for i, j in found} == expected
    assert expected or bits == 0


@pytest.mark.parametrize("size", [64, 50, 20])
def test_one_transform_gives_the_hashes_of_all_turns(size):
    images = pictures(6, size=size)
    all_turns = leakage.fingerprint(images, SCALE)
    for turn in range(8):
        of_turned = leakage.fingerprint(leakage.turned(images, turn), SCALE)
        # Sums in another order may move a number across the median, which is one bit and its partner.
        assert np.bitwise_count(of_turned.hashes[:, 0] ^ all_turns.hashes[:, turn]).max() <= 2
        np.testing.assert_allclose(of_turned.details, leakage.turned(all_turns.details, turn), atol=0.01)


def test_turns_are_what_their_names_say():
    image = np.arange(9).reshape(1, 3, 3)
    expected = {
        "upright": image,
        "mirrored left to right": image[:, :, ::-1],
        "mirrored top to bottom": image[:, ::-1],
        "turned by 180 degrees": np.rot90(image, 2, (1, 2)),
        "mirrored at the main diagonal": image.transpose(0, 2, 1),
        "turned clockwise by 90 degrees": np.rot90(image, -1, (1, 2)),
        "turned anticlockwise by 90 degrees": np.rot90(image, 1, (1, 2)),
        "mirrored at the other diagonal": np.rot90(image, 2, (1, 2)).transpose(0, 2, 1),
    }
    assert tuple(expected) == leakage.TURNS
    for turn, picture in enumerate(expected.values()):
        np.testing.assert_array_equal(leakage.turned(image, turn), picture)


COPIES = {
    "brighter": (lambda image: np.clip(image.astype(int) + 25, 0, 255).astype(np.uint8), "upright"),
    "contrast": (lambda image: np.clip(20 + 0.75 * image, 0, 255).astype(np.uint8), "upright"),
    "compressed": (lambda image: compressed(image, 75), "upright"),
    "turned": (lambda image: np.rot90(image).copy(), "turned clockwise by 90 degrees"),
    "mirrored": (lambda image: image[:, ::-1].copy(), "mirrored left to right"),
    "turned and brighter": (lambda image: np.rot90(image, 2) // 2 + 60, "turned by 180 degrees"),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_near_duplicate_across_splits_is_found_with_its_symmetry(kind):
    change, turn = COPIES[kind]
    images = pictures(60)
    images[40] = change(images[7])
    report = leakage.find_leaks(inventory(images, ["train"] * 40 + ["test"] * 20, classes=["Forest"] * 59 + ["River"]))
    (pair,) = report.pairs
    assert (pair.part, pair.other, pair.patches, pair.exact, pair.near) == ("test", "train", 20, 0, 1)
    (copy,) = report.copies
    assert (copy.kind, copy.key, copy.part, copy.other_key, copy.other_part) == ("near", "p40", "test", "p7", "train")
    assert copy.turn == turn and copy.same_class and copy.correlation > 0.8 and copy.bits <= 10
    assert report.copies_found == 1


def test_exact_duplicates_count_as_such_and_only_across_splits():
    images = pictures(30)
    images[20] = images[3]
    images[21] = images[3]
    images[5] = images[4]
    splits = ["train"] * 15 + ["val"] * 6 + ["test"] * 9
    report = leakage.find_leaks(inventory(images, splits, classes=["Forest"] * 20 + ["River"] * 10))
    counts = {(pair.part, pair.other): (pair.patches, pair.exact, pair.near) for pair in report.pairs}
    assert counts == {("test", "train"): (9, 1, 0), ("val", "train"): (6, 1, 0), ("test", "val"): (9, 1, 0)}
    assert {copy.kind for copy in report.copies} == {"exact"}
    assert [copy.same_class for copy in report.copies] == [False, True, False]
    assert {(copy.key, copy.other_key) for copy in report.copies} == {("p20", "p3"), ("p21", "p3"), ("p21", "p20")}


def test_unrelated_images_are_no_duplicates():
    report = leakage.find_leaks(inventory(pictures(400), ["train"] * 300 + ["test"] * 100))
    assert report.copies == () and report.pairs[0].near == 0


def test_the_border_of_two_fields_is_no_copy_of_another_border():
    """Such pictures have near hashes and correlated brightness, and are of different places."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    borders = [np.where(rows + columns > 70 + shift, 60, 160) for shift in (0, 2)]
    first, second = (
        np.clip(border[..., None] + rng.normal(0, 4, (64, 64, 3)), 0, 255).astype(np.uint8) for border in borders
    )
    found = inventory([first, second], ["train", "test"])
    hashes = found.fingerprints.hashes[:, 0]
    assert np.bitwise_count(hashes[0] ^ hashes[1]) <= 20
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9
    assert leakage.find_leaks(found, leakage.LeakOptions(near_copy_bits=24)).copies == ()


def test_even_pictures_are_counted_and_not_compared():
    rng = np.random.default_rng(0)
    images = pictures(40)
    images[:30] = 60
    images[5:30] += rng.integers(0, 2, (25, 64, 64, 1), dtype=np.uint8)  # Half a number of noise.
    report = leakage.find_leaks(inventory(images, ["train"] * 20 + ["test"] * 20))
    assert report.too_even == {"train": 20, "test": 10}
    assert report.pairs[0].near == 0
    all_alike = leakage.find_leaks(inventory(np.full((10, 64, 64, 3), 7, np.uint8), ["train"] * 5 + ["test"] * 5))
    assert (all_alike.pairs[0].exact, all_alike.pairs[0].near) == (5, 0)


def test_thresholds_are_kept():
    images = pictures(20)
    images[15] = images[3]
    images[15, :16, :16] //= 2  # A shadow in the corner.
    found = inventory(images, ["train"] * 10 + ["test"] * 10)
    (copy,) = leakage.find_leaks(found).copies
    assert copy.bits > 0
    tight = leakage.LeakOptions(near_copy_bits=copy.bits - 1)
    assert leakage.find_leaks(found, tight).copies == ()
    assert leakage.find_leaks(found, leakage.LeakOptions(least_correlation=copy.correlation + 0.01)).copies == ()


def test_sixteen_bits_and_the_bands_that_are_shown():
    images = np.random.default_rng(0).integers(300, 3000, (4, 64, 64, 5), dtype=np.uint16)
    shown = leakage.fingerprint(images, 1e-4, (3, 2, 1))
    images[..., 4] += 1000
    again = leakage.fingerprint(images, 1e-4, (3, 2, 1))
    np.testing.assert_array_equal(shown.hashes, again.hashes)
    assert (shown.digests != again.digests).any(axis=1).all()
    assert shown.contrast == pytest.approx(1e-4 * images[..., 1:4].mean(-1).std((1, 2)), rel=1e-4)


def test_neighbours_are_counted_by_distance():
    places = squares(
        (0, 0), (EDGE + 10, 0), (EDGE + 200, 0), (EDGE + 900, 0), (0, -EDGE - 990), (EDGE + 3000, 0), (100, 100)
    )
    images = pictures(7)
    found = inventory(images, ["train"] + ["test"] * 6, footprints=places)
    (pair,) = leakage.find_leaks(found, leakage.LeakOptions(neighbour_km=0.15)).pairs
    assert pair.neighbours == {"0": 2, "0.15": 2, "0.64": 3, "1": 5, "2": 5, "5": 6}
    assert pair.overlapping == 1
    assert pair.median_km == pytest.approx(0.55, abs=3e-4)
    (without,) = leakage.find_leaks(inventory(images, ["train"] + ["test"] * 6)).pairs
    assert (without.neighbours, without.overlapping, without.median_km) == (None, None, None)


def test_one_split_has_nothing_to_leak():
    report = leakage.find_leaks(inventory(pictures(4), ["train"] * 4))
    assert report.pairs == () and report.copies == () and report.too_even == {"train": 0}


def test_the_list_of_duplicates_is_limited(monkeypatch):
    monkeypatch.setattr(leakage, "MOST_LISTED", 3)
    images = np.repeat(pictures(1), 12, axis=0)
    report = leakage.find_leaks(inventory(images, ["train"] * 4 + ["test"] * 8))
    assert len(report.copies) == 3 and report.copies_found == 8 and report.pairs[0].exact == 8
