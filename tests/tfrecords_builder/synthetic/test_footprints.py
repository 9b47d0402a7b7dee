"""Generated districts: the same from one seed, in agreement with their polygons, and not to be told by color."""

import hashlib

import numpy as np
import pytest
import rasterio

from eo_keras.errors import OptionError
from eo_keras.geo import polygons
from eo_keras.geo.rasterize import Rasterizer
from tfrecords_builder.synthetic import footprints


@pytest.fixture(scope="module")
def districts():
    return [footprints.make_district(number) for number in range(8)]


def test_a_mask_is_the_polygons_and_heights_stand_on_them(districts):
    for district in districts:
        burnt = Rasterizer(district.footprints, np.ones(len(district.footprints), np.uint8), 0).rasterize(district.grid)
        np.testing.assert_array_equal(district.mask, burnt * 255)
        inside = district.mask == 255
        # A pixel on an outline is a roof in part alone.
        assert (district.heights[inside] > 1).mean() > 0.97 and district.heights.min() == 0
        # Trees stand up beside the buildings, so that heights are not the mask.
        assert 0.02 < (district.heights[~inside] > 2).mean() < 0.4
        assert district.image.min() >= 1
    share = np.mean([district.mask == 255 for district in districts])
    assert 0.1 < share < 0.35
    # Districts are different, and lie apart.
    assert len({district.image.tobytes() for district in districts}) == len(districts)
    assert len({district.grid.transform for district in districts}) == len(districts)


def test_shadows_lie_on_the_side_of_buildings_away_from_the_sun():
    """Beside buildings the ground is darker on one side than on the other; on the whole it is darker than elsewhere."""
    found = []
    for number in range(4):
        district = footprints.make_district(number)
        inside, light = district.mask == 255, district.image.mean(axis=-1)
        means = []
        for down, right in ((0, 4), (0, -4), (4, 0), (-4, 0)):
            moved = np.roll(inside, (down, right), (0, 1)) & ~inside & (district.heights < 0.5)
            means.append(light[moved].mean())
        found.append(min(means) / max(means))
    assert max(found) < 0.9


def test_a_color_does_not_tell_a_roof(districts):
    """The best classifier of single colors that half of the districts allow finds few footprints in the other half."""

    def colours(part):
        codes = [(one.image // 24).astype(np.int64) @ (121, 11, 1) for one in part]
        return np.stack(codes), np.stack([one.mask == 255 for one in part])

    codes, labels = colours(districts[::2])
    inside = np.bincount(codes[labels], minlength=1331)
    is_roof = inside > np.bincount(codes[~labels], minlength=1331)
    codes, labels = colours(districts[1::2])
    found = is_roof[codes]
    assert (found & labels).sum() / (found | labels).sum() < 0.35


def test_files_are_those_of_the_layout_and_of_the_seed(tmp_path):
    parts = {"train_data": 2, "test_data": 1}
    hashes = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        footprints.write_footprints(folder, parts, size=48, seed=3)
        hashes.append(
            {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}
        )
    assert hashes[0] == hashes[1]
    assert sorted(hashes[0]) == sorted(
        ["footprints.gpkg"]
        + [
            f"{part}/{kind}/{name}.tif"
            for part, names in (("train_data", ("alderford1", "brinehaven1")), ("test_data", ("coldmere1",)))
            for name in names
            for kind in ("images", "gt", "height")
        ]
    )
    found = polygons.read_polygons(tmp_path / "one" / "footprints.gpkg", None)
    district = footprints.make_district(2, size=48, seed=3)
    with rasterio.open(tmp_path / "one" / "test_data" / "gt" / "coldmere1.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), district.mask)
        assert mask.crs.to_string() == found.crs and tuple(mask.transform)[:6] == district.grid.transform
    burnt = Rasterizer(found.geometries, np.full(len(found), 255, np.uint8), 0).rasterize(district.grid)
    np.testing.assert_array_equal(burnt, district.mask)
    with rasterio.open(tmp_path / "one" / "test_data" / "height" / "coldmere1.tif") as heights:
        np.testing.assert_array_equal(heights.read(1), district.heights)
    with pytest.raises(OptionError, match="it is not empty"):
        footprints.write_footprints(tmp_path / "one", parts)
    with pytest.raises(OptionError, match="size: 16; expected at least 32"):
        footprints.write_footprints(tmp_path / "three", parts, size=16)
