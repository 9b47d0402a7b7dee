"""Whose a records folder is: what a build replaces, what it refuses, and that the rest stays to the byte."""

import os
import shutil

import pytest

from eo_keras.core import files
from eo_keras.core.output_folders import MANIFEST_NAME
from eo_keras.errors import RecordsError
from eo_keras.records import data_card as cards
from tests.harness.building import built
from tests.kept import contents
from tfrecords_builder import build
from tfrecords_builder.storage import manifest, output


@pytest.fixture(scope="module")
def records(rgb_zip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "r"
    built("eurosat_rgb", rgb_zip, folder)
    return folder


@pytest.fixture
def copied(records, tmp_path):
    return shutil.copytree(records, tmp_path / "r")


TFDS = {
    "my_set-train.tfrecord-00000-of-00001": b"train",
    "my_set-test.tfrecord-00000-of-00001": b"test",
    "dataset_info.json": b"{}",
    "features.json": b"{}",
    "label.labels.txt": b"a\n",
}


@pytest.mark.parametrize(
    "theirs",
    [TFDS, {"eurosat_rgb-train.tfrecord-00000-of-00008": b"x"}, {"card.json": b"{}"}, {".build/build.json": b"{}"}],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_elses_is_refused_where_names_meet(make, rgb_zip, tmp_path, theirs, overwrite):
    folder = make.folder(tmp_path / "r", theirs)
    with pytest.raises(RecordsError, match="which this program did not write"):
        output.check(str(folder), overwrite=False)  # As a dry run does.
    with pytest.raises(RecordsError, match="this program did not"):
        built("eurosat_rgb", rgb_zip, folder, overwrite=overwrite)
    assert theirs.items() <= contents(folder).items()


def test_overwrite_writes_beside_what_is_somebody_elses(make, rgb_zip, tmp_path):
    theirs = {
        "my_set-train.tfrecord-00000-of-00001": b"train",
        ".ipynb_checkpoints/a.ipynb": b"{}",
        "sub/card.json": b"",
    }
    folder = make.folder(tmp_path / "r", theirs)
    with pytest.raises(RecordsError, match="my_set-train.*`overwrite"):
        built("eurosat_rgb", rgb_zip, folder)
    card = built("eurosat_rgb", rgb_zip, folder, overwrite=True)
    assert cards.read_data_card(folder) == card
    built("eurosat_rgb", rgb_zip, folder, overwrite=True, seed=2)
    assert theirs.items() <= contents(folder).items()


def test_records_without_a_manifest_are_not_removed(copied, rgb_zip):
    """As an earlier version wrote them."""
    (copied / MANIFEST_NAME).unlink()
    before = contents(copied)
    for overwrite in (False, True):
        with pytest.raises(RecordsError, match="[Mm]ove.* away"):
            built("eurosat_rgb", rgb_zip, copied, overwrite=overwrite)
    assert contents(copied) == before


def test_a_changed_shard_is_kept_under_another_name(copied, rgb_zip):
    shard = min(copied.glob("*.tfrecord-*"))
    shard.write_bytes(b"damaged, or somebody's")
    report = build.build(build.BuildOptions("eurosat_rgb", str(rgb_zip), str(copied), overwrite=True))
    assert shard.with_name(f"{shard.name}.kept-1").read_bytes() == b"damaged, or somebody's"
    assert any(f"kept as {shard.name}.kept-1" in line for line in report.warnings)
    for part in report.card.splits.values():
        for one in part.shards:
            assert files.sha256_of_file(copied / one.name) == one.sha256


@pytest.mark.parametrize("moment", ["locked", "state", "announced", "shard"])
def test_killed_in_its_first_moments_the_same_command_goes_on(records, rgb_zip, tmp_path, monkeypatch, moment):
    class Killed(BaseException):
        pass

    def killed(*arguments, **words):
        raise Killed

    where = {
        "locked": (build.BuildState, "begin"),
        "state": (build.scan, "scan"),
        "announced": (build.engines.LocalEngine, "run"),
        "shard": (manifest, "note"),
    }
    with monkeypatch.context() as patched, pytest.raises(Killed):
        # What a kill leaves out: whatever is done on the way out.
        patched.setattr(output.OutputFolder, "_forget_if_empty", lambda self: None)
        patched.setattr(*where[moment], killed)
        built("eurosat_rgb", rgb_zip, tmp_path / "r")
    assert (tmp_path / "r" / MANIFEST_NAME).exists()
    (tmp_path / "r" / files.FolderLock.NAME).touch()
    built("eurosat_rgb", rgb_zip, tmp_path / "r")
    assert contents(tmp_path / "r") == contents(records)


def test_a_link_to_a_folder_is_that_folder(rgb_zip, tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "r").symlink_to(tmp_path / "big")
    built("eurosat_rgb", rgb_zip, tmp_path / "r")
    assert (tmp_path / "r").is_symlink() and (tmp_path / "big" / "card.json").exists()
    built("eurosat_rgb", rgb_zip, tmp_path / "r", overwrite=True)
    assert (tmp_path / "r").is_symlink() and os.path.exists(tmp_path / "big" / "card.json")
