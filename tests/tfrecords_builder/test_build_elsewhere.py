"""Builds on other file systems, and without the check: the records are the same."""

import os

import pytest

from eo_keras.errors import OptionError, RecordsError, SourceError
from eo_keras.records import data_card as cards
from tests.harness.building import built, bytes_of


def test_source_and_records_may_lie_in_any_file_system(make, rgb_zip, tmp_path):
    import fsspec

    built("eurosat_rgb", rgb_zip, tmp_path / "local")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/place/EuroSAT_RGB.zip", rgb_zip.read_bytes())
    built("eurosat_rgb", "memory://place/EuroSAT_RGB.zip", "memory://place/records")
    names = [path.rpartition("/")[2] for path in memory.ls("/place/records", detail=False)]
    assert sorted(names) == sorted(os.listdir(tmp_path / "local"))
    for name in names:
        assert memory.cat_file(f"/place/records/{name}") == (tmp_path / "local" / name).read_bytes(), name
    assert cards.read_data_card("memory://place/records") == cards.read_data_card(tmp_path / "local")
    with pytest.raises(RecordsError, match="holds another build"):
        built("eurosat_rgb", "memory://place/EuroSAT_RGB.zip", "memory://place/records")
    for name, data in make.ms().items():
        memory.pipe_file(f"/folder/{name}", data)
    in_memory = built("eurosat_ms", "memory://folder", "memory://place/ms")
    assert in_memory.splits == built("eurosat_ms", make.folder(tmp_path / "s", make.ms()), tmp_path / "m").splits
    with pytest.raises(OptionError, match="seen by one process alone; expected `engine=local` `num_workers=1"):
        built("eurosat_rgb", rgb_zip, "memory://place/other", num_workers=2)
    with pytest.raises(SourceError, match="memory://place/none.zip: there is no such file"):
        built("eurosat_rgb", "memory://place/none.zip", "memory://place/other")
    with pytest.raises(SourceError, match="Protocol not known: nosuch"):
        built("eurosat_rgb", "nosuch://a.zip", tmp_path / "n")


def test_without_the_check_the_same_records_come_of_a_sound_source(make, rgb_zip, tmp_path):
    built("eurosat_rgb", rgb_zip, tmp_path / "checked")
    built("eurosat_rgb", rgb_zip, tmp_path / "unchecked", no_verify=True)
    assert bytes_of(tmp_path / "checked") == bytes_of(tmp_path / "unchecked")
    # Damage in training images is still found, since they are decoded for the statistics.
    members = make.rgb()
    damaged = {name: data[:400] if "Forest" in name else data for name, data in members.items()}
    with pytest.raises(SourceError, match="Forest_.*cannot be decoded"):
        built("eurosat_rgb", make.zip(tmp_path / "a.zip", damaged), tmp_path / "d", no_verify=True)
