"""Workers that live on from build to build, in a folder of their own, as those of a cluster do."""

import concurrent.futures
import contextlib
import hashlib
import multiprocessing
import os
import pathlib
import shutil

import numpy as np
import pytest

from eo_keras.core import engines
from eo_keras.core.engine_options import EngineOptions
from eo_keras.errors import SourceError
from eo_keras.legends.catalogue import EUROSAT
from eo_keras.records import data_card as cards
from tests.harness import products, towns
from tests.harness.building import all_examples, built, bytes_of
from tfrecords_builder import build
from tfrecords_builder.sources import archive as archives
from tfrecords_builder.sources.urban_atlas.options import UrbanAtlasOptions
from tfrecords_builder.steps import scan


class Standing:
    """An engine whose process outlives its builds."""

    def __init__(self, pool):
        self._pool = pool

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def run(self, function, context, units):
        for position, future in enumerate([self._pool.submit(function, context, unit) for unit in units]):
            future.result()
            yield position


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn, initializer=os.chdir, initargs=(elsewhere,)) as pool:
        yield pool


@pytest.fixture
def standing(pool, monkeypatch, tmp_path):
    """Lets all builds run in the standing process, on paths that are relative to a folder that it does not run in."""
    monkeypatch.setattr(EngineOptions, "make_engine", lambda *arguments: Standing(pool))
    monkeypatch.chdir(tmp_path)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_archive_replaced_between_two_builds_is_read_again(standing, make, tmp_path):
    members = make.rgb(per_class=3, classes=EUROSAT.class_names)
    names = list(members)
    # Same names, lengths and times, other images.
    turned = dict(zip(names, [members[name] for name in names[1:] + names[:1]], strict=True))
    for number, content in enumerate((members, turned)):
        make.zip(tmp_path / "new.zip", content)
        os.utime(tmp_path / "new.zip", ns=(10**18, 10**18))
        os.replace(tmp_path / "new.zip", tmp_path / "a.zip")
        card = built("eurosat_rgb", "a.zip", f"records-{number}")
        assert card.sources[0].sha256 == sha256(tmp_path / "a.zip")
        images = {example.key: example.image for example in all_examples(card, tmp_path / f"records-{number}")}
        for name, data in content.items():
            assert images[pathlib.PurePath(name).stem] == data


def test_an_archive_that_changes_while_it_is_read_is_refused(monkeypatch, make, tmp_path):
    path, members = make.zip(tmp_path / "a.zip", make.rgb(per_class=3)), make.rgb(per_class=3)
    opened, original = [], archives.Archive.read

    def replace_then_read(self, member):
        if not opened:
            opened.append(make.zip(tmp_path / "b.zip", {name: members[name] for name in reversed(members)}))
            os.replace(opened[0], path)
        return original(self, member)

    monkeypatch.setattr(archives.Archive, "read", replace_then_read)
    with pytest.raises(SourceError, match="a.zip: it has changed while records were built from it"):
        built("eurosat_rgb", path, tmp_path / "r")
    assert not (tmp_path / "r" / cards.DATA_CARD_NAME).exists()


def tile_options(folder, **kwargs):
    return build.BuildOptions("urban_atlas", UrbanAtlasOptions("cities.csv", tile_size=48, **kwargs), str(folder))


def test_scenes_and_land_use_replaced_between_two_builds_are_read_again(standing, monkeypatch, tmp_path):
    lines = [towns.write_town(tmp_path, name, place=place) for place, name in enumerate("AB")]
    towns.write_list(tmp_path, *lines)
    shutil.copy(tmp_path / "A_UA2018.gpkg", tmp_path / "kept.gpkg")
    first = build.build(tile_options("first")).card
    # Land use alone, then the scene too; nothing else changes.
    towns.write_land_use(tmp_path / "A_UA2018.gpkg", 96, products.CORNER, codes=lambda row, column: "31000")
    second = build.build(tile_options("second")).card
    for parts in (first, second):
        assert sum(split.examples for split in parts.splits.values()) == 8
    shutil.rmtree(tmp_path / "A")
    towns.write_town(tmp_path, "A", xml=products.metadata("L1C", "02.04", -1000, date="2018-07-01"))
    os.replace(tmp_path / "kept.gpkg", tmp_path / "A_UA2018.gpkg")
    third = build.build(tile_options("third")).card
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    build.build(tile_options("third-alone"))
    assert bytes_of(tmp_path / "third") == bytes_of(tmp_path / "third-alone")
    of_a = [
        {example.key: example for example in all_examples(card, tmp_path / name) if example.tile.city == "A"}
        for name, card in (("first", first), ("second", second), ("third", third))
    ]
    forest = first.legend.class_names.index("Forest")
    for key, example in of_a[1].items():
        assert (example.tile.mask == forest).all()
        assert example.image == of_a[0][key].image != of_a[2][key].image
        np.testing.assert_array_equal(of_a[0][key].tile.mask, of_a[2][key].tile.mask)


def test_land_use_that_changes_while_tiles_are_cut_is_refused(monkeypatch, tmp_path):
    towns.write_list(tmp_path, *(towns.write_town(tmp_path, name, place=place) for place, name in enumerate("AB")))
    original = engines.LocalEngine.run

    def run(self, function, context, units):
        if function is scan.scan_unit:
            towns.write_land_use(tmp_path / "A_UA2018.gpkg", 96, products.CORNER, codes=lambda row, column: "31000")
        return original(self, function, context, units)

    monkeypatch.setattr(engines.LocalEngine, "run", run)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="A_UA2018.gpkg: it has changed while tiles were cut"):
        build.build(tile_options("r"))
    with contextlib.suppress(FileNotFoundError):
        assert cards.DATA_CARD_NAME not in os.listdir(tmp_path / "r")
