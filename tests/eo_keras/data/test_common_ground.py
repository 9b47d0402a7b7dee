"""What two data sets have in common is found where it is there, of patches and of tiles, by places and by pixels."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from eo_keras.data.common_ground import Side, compare
from eo_keras.legends.catalogue import HSL4
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from eo_keras.sensors.radiometry import Reflectance

BANDS = ("B04", "B03", "B02")


def side(folder, images, bands=BANDS, corners=None, crs="EPSG:32633", tiles=False, jpeg=False):
    """Writes images (N, H, H, bands) as the examples of one shard."""
    folder.mkdir()
    path, size = folder / "t-test.tfrecord-00000-of-00001", images.shape[1]
    with open(path, "wb") as file:
        for number, image in enumerate(images):
            data = image.astype(image.dtype.newbyteorder("<")).tobytes()
            if jpeg:
                stream = io.BytesIO()
                Image.fromarray(image).save(stream, "JPEG", quality=95)
                data = stream.getvalue()
            place = {}
            if corners is not None:
                x, y = corners[number]
                place = {"crs": crs, "transform": (10.0, 0.0, 500_000.0 + x, 0.0, -10.0, 5_500_000.0 - y)}
            tile = None
            if tiles:
                tile = records.PixelLabels(
                    np.zeros((size, size), np.uint8), np.ones((size, size), np.uint8), "A", "", "p"
                )
            tfrecord.write_record(
                file, records.encode(records.Example(data, None if tiles else 0, f"{number}", tile=tile, **place))
            )
    content = path.read_bytes()
    shard = cards.Shard(path.name, len(images), len(content), hashlib.sha256(content).hexdigest())
    split = cards.Split(len(images), dict.fromkeys(HSL4.class_names, 0), (shard,))
    card = cards.DataCard(
        "t", "1", "segmentation" if tiles else "classification", bands, str(images.dtype), "jpeg" if jpeg else "raw",
        "L1C", True, Reflectance(1e-4), 0, 10.0, size, corners is not None, HSL4, {"test": split}, {}, (), (),
        (), "nobody",
    )  # fmt: skip
    return Side(card, (str(path),))


def textures(count, size=64, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(120 + rng.normal(0, 20, (count, size, size, 3)).cumsum(axis=1) / 3, 1, 255).astype(np.uint8)


def mosaic(patches, left, top, size=160):
    """A tile of reflectances that shows patches of bytes side by side, cut where it ends."""
    rows = [np.concatenate(patches[row : row + 4], axis=1) for row in (0, 4, 8, 12)]
    whole = np.concatenate(rows, axis=0).astype(float)
    return np.round((whole - 1) * 2750 / 254).astype(np.uint16)[top : top + size, left : left + size]


@pytest.mark.parametrize("jpeg", [True, False], ids=["JPEGs", "raw patches"])
def test_tiles_put_together_of_patches_are_found_by_their_pixels(tmp_path, jpeg):
    patches = textures(40)
    first = side(tmp_path / "a", patches, jpeg=jpeg)
    shown = patches
    if jpeg:
        shown = np.stack(
            [records.decode_image(example, first.card) for example in records.read_examples(first.paths[0])]
        )
    tiles = np.stack(
        [
            mosaic(shown[:16], 13, 31),
            mosaic(textures(16, seed=1), 0, 0),
            mosaic(shown[20:36], 0, 0)[:, ::-1],  # Another picture by its pixels.
            mosaic(np.concatenate([textures(15, seed=2), shown[39:]]), 90, 70),
        ]
    )
    found = compare(first, side(tmp_path / "b", tiles, tiles=True))
    assert (found.keys, found.by) == (("0", "3"), ("pixels",))
    # By one band, in another place of the file.
    one = side(tmp_path / "c", tiles[..., :1], bands=("B04",), tiles=True)
    assert compare(first, one).keys == ("0", "3")


def test_patches_are_compared_with_patches_and_tiles_with_tiles(tmp_path):
    patches = textures(12)
    first = side(tmp_path / "a", patches)
    again = np.concatenate([textures(5, seed=3), patches[4:6]])
    assert compare(first, side(tmp_path / "b", again)).keys == ("5", "6")
    tiles = side(tmp_path / "c", textures(3, 128, seed=4), tiles=True)
    assert compare(tiles, tiles).keys == ("0", "1", "2") and compare(first, tiles).keys == ()


def test_places_are_compared_across_reference_systems(tmp_path):
    patches = side(tmp_path / "a", textures(3), corners=[(0, 0), (5000, 0), (9000, 0)])
    # A tile of 1.6 km over the second, one that borders on the first, and one far away.
    corners = [(4000, -200), (640, 0), (50_000, 0)]
    tiles = side(tmp_path / "b", textures(3, 160, seed=1), corners=corners, tiles=True)
    found = compare(patches, tiles)
    assert (found.keys, found.by) == (("0",), ("places", "pixels"))
    # The same numbers of another zone are another place.
    other = side(tmp_path / "c", textures(3, 160, seed=1), corners=corners, crs="EPSG:32634", tiles=True)
    assert compare(patches, other).keys == ()


def test_what_cannot_be_compared_is_said(tmp_path):
    patches = side(tmp_path / "a", textures(3))
    other = side(tmp_path / "b", textures(3), bands=("B08", "B11", "B12"), tiles=True)
    assert compare(patches, other).by == ()
    # Fields without texture look alike everywhere.
    even = np.kron(np.random.default_rng(0).integers(1, 255, (4, 8, 8, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, None, :, None], (4, 64, 64, 3))
    for number, images in enumerate((even, ramp)):
        found = compare(side(tmp_path / f"e{number}", images), side(tmp_path / f"f{number}", images, tiles=True))
        assert (found.keys, found.by) == ((), ())


@pytest.mark.real_data
def test_mosaics_of_real_patches_are_found(real_data, tmp_path):
    with zipfile.ZipFile(real_data / "eurosat" / "EuroSAT_RGB.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::30]
        patches = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names])
    first = side(tmp_path / "a", patches[:600])
    tiles = np.stack([mosaic(patches[start : start + 16], 20, 11) for start in range(0, 880, 16)])
    found = compare(first, side(tmp_path / "b", tiles, tiles=True))
    # Calm water and plain fields of the first 600 may say too little; no picture of the others is taken for one.
    assert not {int(key) for key in found.keys} & set(range(38, 55)) and len(found.keys) >= 30
