"""Mosaics: regions of one class, paved with patches of that class alone, and their land use."""

import numpy as np
import pytest

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import scenes
from eo_keras.geo.scene_reader import SceneReader
from eo_keras.legends import crosswalk
from eo_keras.legends.catalogue import EUROSAT
from tfrecords_builder.sources.urban_atlas import land_use as urban_atlas
from tfrecords_builder.sources.urban_atlas.sites import read_cities
from tfrecords_builder.synthetic import archives, mosaics

OPTIONS = mosaics.MosaicOptions(size=200, region=80, wander=12.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eurosat")
    archives.write_eurosat_archive(folder / "rgb.zip", kind="rgb", patches_per_class=6)
    for part, numbers in (("train", (1, 2)), ("val", (3, 4)), ("test", (5, 6))):
        keys = [f"{name}_{number}.jpg" for name in EUROSAT.class_names for number in numbers]
        (folder / f"list-{part}.txt").write_text("\n".join(keys))
    return folder


def test_regions_cover_the_mosaic_and_their_borders_wind():
    found, classes = mosaics.regions(OPTIONS, 0)
    assert found.shape == (200, 200) and found.max() < len(classes)
    assert 4 <= len(np.unique(found)) <= 20
    again, other = mosaics.regions(OPTIONS, 0)[0], mosaics.regions(OPTIONS, 1)[0]
    assert np.array_equal(found, again) and not np.array_equal(found, other)


def test_every_pixel_is_one_of_a_patch_of_its_class(source):
    patches = mosaics.Patches(source / "rgb.zip", [f"{name}_1" for name in EUROSAT.class_names])
    found, classes = mosaics.regions(OPTIONS, 0)
    image = mosaics.paint(found, classes, patches, (1, 2))
    colours = {
        label: {tuple(pixel) for pixel in patches.read(name, 0).reshape(-1, 3)}
        for label, name in enumerate(EUROSAT.class_names)
    }
    for row, column in np.random.default_rng(1).integers(0, 200, (300, 2)):
        assert tuple(image[row, column]) in colours[classes[found[row, column]]]


def test_numbers_are_those_that_the_jpegs_were_made_of():
    from eo_keras.sensors.radiometry import stretch_like_eurosat_jpeg

    grey = np.arange(1, 256, dtype=np.uint8)
    np.testing.assert_array_equal(stretch_like_eurosat_jpeg(mosaics.digital_numbers(grey)), grey)


def test_what_is_written_is_a_list_of_cities(source, tmp_path):
    path = mosaics.write_mosaics(
        str(source / "rgb.zip"), str(source / "list"), tmp_path, {"train": 1, "val": 1, "test": 1}, OPTIONS
    )
    cities = read_cities(path)
    assert [city.split for city in cities] == ["train", "val", "test"]
    scene = scenes.open_scene(cities[0].scenes[0])
    assert scene.bands == ("B04", "B03", "B02") and scene.date.year == 2018
    land_use = urban_atlas.read_land_use(cities[0].vectors, crosswalk.CODE_MAPS["full"], scene.grid.crs, "keep")
    found, classes = mosaics.regions(OPTIONS, 0)
    codes = np.array([crosswalk.CODE_MAPS["full"].labels[mosaics.CODES[name]] for name in EUROSAT.class_names])
    np.testing.assert_array_equal(land_use.labels(scene.grid), codes[classes[found]])
    with SceneReader(scene) as reader:
        image, mask = reader.read(0, 0, 200, 200)
    assert (mask == 1).all() and 100 < image.mean() < 2750


def test_lists_and_archives_must_agree(source, tmp_path):
    with pytest.raises(SourceError, match="it lacks 1 patches, first Forest_99"):
        mosaics.Patches(source / "rgb.zip", ["Forest_99"])
    with pytest.raises(SourceError, match="the list names no patch of"):
        mosaics.Patches(source / "rgb.zip", ["Forest_1"])
    with pytest.raises(SourceError, match="the list cannot be read"):
        mosaics.write_mosaics(str(source / "rgb.zip"), str(tmp_path / "no"), tmp_path, {"train": 1}, OPTIONS)
    with pytest.raises(OptionError, match="mosaic"):
        mosaics.MosaicOptions(size=10)
