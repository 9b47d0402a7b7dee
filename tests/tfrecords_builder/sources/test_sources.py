"""What every source owes the build."""

import dataclasses
import shutil

from eo_keras.core import options
from tests.harness import archives, towns
from tests.harness.building import built
from tests.harness.sources import check_source
from tests.tfrecords_builder.sources import test_footprints as test_footprints_of
from tests.tfrecords_builder.sources.test_ombria import NAMED, members
from tfrecords_builder.sources import SOURCES
from tfrecords_builder.synthetic import footprints as districts


def in_zip(content, name):
    """Function that writes a zip in which the second half of a member is missing."""

    def damaged(folder):
        cut = content | {name: content[name][: len(content[name]) // 2]}
        return archives.write_zip(folder / "a.zip", cut), name

    return damaged


def test_eurosat_rgb(rgb_zip, tmp_path, monkeypatch):
    damaged = in_zip(archives.rgb_members(), "EuroSAT_RGB/River/River_3.jpg")
    check_source("eurosat_rgb", rgb_zip, tmp_path, monkeypatch, damaged, beam=False)


def test_eurosat_ms(ms_zip, tmp_path, monkeypatch):
    damaged = in_zip(archives.ms_members(), "EuroSAT_MS/River/River_3.tif")
    check_source("eurosat_ms", ms_zip, tmp_path, monkeypatch, damaged, split="spatial", test_fraction=0.3)


def test_ombria(tmp_path, monkeypatch):
    content = members()
    damaged = in_zip(content, "OMBRIA/OmbriaS2/train/MASK/S2_mask_0001.png")
    archive = archives.write_zip(tmp_path / "ombria.zip", content)
    check_source("ombria_s2", archive, tmp_path, monkeypatch, damaged, beam=False, **NAMED)


def test_footprints(tmp_path, monkeypatch):
    content = test_footprints_of.members("")
    damaged = in_zip(content, "train_data/images/tyrol-w2_3.png")
    archive = archives.write_zip(tmp_path / "inria.zip", content)
    check_source("footprints", archive, tmp_path, monkeypatch, damaged, beam=False, **test_footprints_of.NAMED)


def test_footprints_with_heights_cut_from_large_images(tmp_path, monkeypatch):
    districts.write_footprints(tmp_path / "city", {"train": 3, "test": 1}, size=64)

    def damaged(other):
        copy = shutil.copytree(tmp_path / "city", other / "city")
        heights = copy / "train" / "height" / "brinehaven1.tif"
        heights.write_bytes(heights.read_bytes()[:-3000])
        return copy, heights.name

    named = {"height_files": "height/*", "tile_size": 48}
    check_source("footprints", tmp_path / "city", tmp_path, monkeypatch, damaged, beam=False, **named)


def test_urban_atlas(tmp_path, monkeypatch):
    folder = tmp_path / "towns"
    folder.mkdir()
    lines = [towns.write_town(folder, name, place=place) for place, name in enumerate("AB")]
    cities = towns.write_list(folder, *lines)

    def damaged(other):
        copy = shutil.copytree(folder, other / "towns")
        (scene,) = (copy / "B").rglob("*_B04.tif")
        scene.write_bytes(scene.read_bytes()[: scene.stat().st_size * 6 // 10])
        return copy / cities.name, scene.name

    check_source("urban_atlas", cities, tmp_path, monkeypatch, damaged, keeps_state=True, tile_size=48)


def test_tfds(rgb_zip, tmp_path, monkeypatch):
    """A records folder of this program is a prepared data set too."""
    built("eurosat_rgb", rgb_zip, tmp_path / "records")

    def damaged(other):
        copy = shutil.copytree(tmp_path / "records", other / "records")
        shard = next(copy.glob("*-train.tfrecord-00003-*"))
        shard.write_bytes(shard.read_bytes()[:-5])
        return copy, shard.name

    named = {"band_order": "B04,B03,B02", "scene_level": "L1C"}
    check_source("tfds", tmp_path / "records", tmp_path, monkeypatch, damaged, **named)


def test_every_option_of_a_source_is_declared():
    """Its flags are made of the declarations, and a forgotten one would have no flag."""
    for source in SOURCES.values():
        declared = [field.name for field in options.fields(source.Options)]
        assert set(declared) == {field.name for field in dataclasses.fields(source.Options)}
