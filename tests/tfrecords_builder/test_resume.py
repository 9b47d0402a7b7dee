"""Builds that are killed, disturbed, raced, or run out of room, and called again."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest

from eo_keras.errors import RecordsError, SourceError
from eo_keras.records import data_card as cards
from tests.harness.building import bytes_of, interrupt_build
from tfrecords_builder import build, sources
from tfrecords_builder.splits.split import SplitOptions
from tfrecords_builder.steps import shards
from tfrecords_builder.storage import output

HERE = pathlib.Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(HERE.parents[1])}


def options(source, output_dir, dataset="eurosat_rgb", **kwargs):
    kwargs = {"split": SplitOptions()} | kwargs
    own = {"no_verify": kwargs.pop("no_verify")} if "no_verify" in kwargs else {}
    source = sources.SOURCES[dataset].Options(str(source), **own)
    return build.BuildOptions(dataset, source, str(output_dir), **kwargs)


def killed(source, folder, *, kills, workers, dataset="eurosat_rgb"):
    arguments = [dataset, source, folder, kills, 1, workers]
    result = subprocess.run(
        [sys.executable, HERE / "killing.py", *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    print(found)
    assert found["kills"] == found["equal"] == kills, found
    return found


def test_killed_at_20_moments_and_called_again_it_ends_as_if_undisturbed(make, tmp_path):
    source = make.zip(tmp_path / "a.zip", make.rgb(per_class=300))
    found = killed(source, tmp_path, kills=20, workers=1)
    assert found["kept_shards"] > 0 and found["stages"].keys() >= {"scanning", "writing"}


def test_a_killed_pool_is_resumed_too(make, tmp_path):
    killed(make.folder(tmp_path / "a", make.ms()), tmp_path, kills=3, workers=2, dataset="eurosat_ms")


@pytest.mark.real_data
@pytest.mark.slow
def test_all_27000_jpegs_killed_at_20_moments(real_data, tmp_path):
    found = killed(real_data / "eurosat" / "EuroSAT_RGB.zip", tmp_path, kills=20, workers=2)
    assert found["kept_shards"] > 0


@pytest.fixture
def interrupted(monkeypatch):
    """A function that begins a build and interrupts it after some shards."""
    return functools.partial(interrupt_build, monkeypatch)


def test_finished_shards_are_kept_if_they_are_whole_and_written_again_if_not(interrupted, rgb_zip, tmp_path):
    build.build(options(rgb_zip, tmp_path / "whole"))
    chosen, folder = options(rgb_zip, tmp_path / "r"), tmp_path / "r"
    interrupted(chosen, 4)
    finished = sorted(folder.glob("*.tfrecord-*"))
    assert len(finished) == 4
    flipped = bytearray(finished[1].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    finished[1].write_bytes(flipped)
    finished[2].write_bytes(finished[2].read_bytes()[:-5])
    finished[3].unlink()
    untouched = finished[0].stat().st_mtime_ns
    report = build.build(chosen)
    assert report.kept_shards == 4 and finished[0].stat().st_mtime_ns == untouched
    assert bytes_of(folder) == bytes_of(tmp_path / "whole")


def test_a_damaged_state_is_made_again(interrupted, rgb_zip, tmp_path):
    build.build(options(rgb_zip, tmp_path / "whole"))
    chosen = options(rgb_zip, tmp_path / "r")
    interrupted(chosen, 3)
    for path in (tmp_path / "r" / ".build").glob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    assert build.build(chosen).kept_shards == 0
    assert bytes_of(tmp_path / "r") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": SplitOptions(seed=2)}, "`seed` was 1, is now 2"),
        ({"split": SplitOptions(test_fraction=0.3)}, "`test_fraction` was 0.2, is now 0.3"),
        ({"shard_mb": 1.0}, "`shard_mb` was 16.0, is now 1.0"),
        ({"no_verify": True}, "`no_verify` was False, is now True"),
    ],
)
def test_another_flag_is_refused_unless_overwritten(interrupted, rgb_zip, tmp_path, change, words):
    interrupted(options(rgb_zip, tmp_path / "r"), 2)
    with pytest.raises(RecordsError, match=f"unfinished build of something else .{words}.*`overwrite"):
        build.build(options(rgb_zip, tmp_path / "r", **change))
    report = build.build(options(rgb_zip, tmp_path / "r", overwrite=True, **change))
    build.build(options(rgb_zip, tmp_path / "other", **change))
    assert report.kept_shards == 0 and bytes_of(tmp_path / "r") == bytes_of(tmp_path / "other")


def test_the_number_of_workers_and_the_engine_are_free_to_change(interrupted, rgb_zip, tmp_path):
    interrupted(options(rgb_zip, tmp_path / "r"), 2)
    assert build.build(options(rgb_zip, tmp_path / "r", num_workers=2)).kept_shards == 2


def test_a_changed_source_or_list_is_refused(interrupted, make, rgb_zip, tmp_path):
    folder = make.folder(tmp_path / "s", make.rgb())
    interrupted(options(folder, tmp_path / "r"), 2)
    path = folder / "EuroSAT_RGB" / "River" / "River_3.jpg"
    path.write_bytes(make.jpeg(77))
    with pytest.raises(RecordsError, match="EuroSAT_RGB/River/River_3.jpg has changed since"):
        build.build(options(folder, tmp_path / "r"))
    for part, keys in (("train", range(1, 8)), ("test", range(8, 11))):
        (tmp_path / f"l-{part}.txt").write_text("".join(f"River_{n}.jpg\n" for n in keys))
    listed = options(rgb_zip, tmp_path / "l", split=SplitOptions("lists", lists=str(tmp_path / "l")))
    interrupted(listed, 1)
    (tmp_path / "l-test.txt").write_text("River_8.jpg\n")
    with pytest.raises(RecordsError, match="unfinished build of something else .*l-test.txt has changed since"):
        build.build(listed)


def test_a_state_of_another_layout_is_refused_and_not_misread(interrupted, rgb_zip, tmp_path):
    interrupted(options(rgb_zip, tmp_path / "r"), 2)
    path = tmp_path / "r" / ".build" / "build.json"
    described = json.loads(path.read_text())
    del described["state_layout"]  # As builds left it whose patches and tiles had states of their own.
    path.write_text(json.dumps(described))
    with pytest.raises(RecordsError, match=r"the layout of unfinished builds was not given, is now 2.*`overwrite"):
        build.build(options(rgb_zip, tmp_path / "r"))
    assert build.build(options(rgb_zip, tmp_path / "r", overwrite=True)).kept_shards == 0


def test_options_in_lists_are_known_again(interrupted, make, tmp_path):
    chosen = options(make.zip(tmp_path / "a.zip", make.rgb()), tmp_path / "r", split=SplitOptions(fold="2/5"))
    interrupted(chosen, 2)
    assert build.build(chosen).kept_shards == 2


def test_an_image_that_is_refused_while_shards_are_written_may_be_copied_again(make, tmp_path):
    members = make.rgb()
    folder = make.folder(tmp_path / "s", {name: data[: len(data) // 2] for name, data in members.items()})
    # Without the check of all images, damage is found in training images, when they are counted.
    chosen = options(folder, tmp_path / "r", no_verify=True)
    with pytest.raises(SourceError, match="jpg: it cannot be decoded.*Copy or download the source again"):
        build.build(chosen)
    make.folder(folder, members)
    build.build(chosen)
    build.build(dataclasses.replace(chosen, output_dir=str(tmp_path / "whole")))
    assert bytes_of(tmp_path / "r") == bytes_of(tmp_path / "whole")


def test_a_source_that_is_refused_leaves_nothing_and_may_be_repaired(make, tmp_path):
    folder = make.folder(tmp_path / "s", make.rgb())
    path = folder / "EuroSAT_RGB" / "River" / "River_3.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:400])
    with pytest.raises(SourceError, match="River_3.jpg: it cannot be decoded"):
        build.build(options(folder, tmp_path / "r"))
    assert not (tmp_path / "r").exists()
    path.write_bytes(whole)
    assert build.build(options(folder, tmp_path / "r")).card.splits["train"].examples == 24


@pytest.mark.parametrize(
    ("disturb", "words"),
    [
        (lambda path, make: path.unlink(), "the file is gone since the source was listed"),
        (lambda path, make: path.write_bytes(make.jpeg(99)), "the image has changed while records were built"),
        (lambda path, make: path.write_bytes(path.read_bytes()[:300]), "the image has changed while records were"),
    ],
)
@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_a_source_file_that_vanishes_changes_or_is_cut_mid_build(monkeypatch, make, tmp_path, disturb, words, encoding):
    jpeg = encoding == "jpeg"
    folder = make.folder(tmp_path / "s", make.rgb() if jpeg else make.ms())
    path = next(folder.rglob("River_3.*"))
    original = build.scan.scan

    def scan_and_disturb(*arguments):
        found = original(*arguments)
        disturb(path, make)
        return found

    monkeypatch.setattr(build.scan, "scan", scan_and_disturb)
    words = words if jpeg or "gone" in words else "River_3.tif: it cannot be read"
    with pytest.raises(SourceError, match=words):
        build.build(options(folder, tmp_path / "r", "eurosat_rgb" if jpeg else "eurosat_ms"))
    assert not (tmp_path / "r" / cards.DATA_CARD_NAME).exists()


def test_of_two_builds_for_one_folder_one_wins_and_the_other_says_so(make, tmp_path):
    source = make.zip(tmp_path / "a.zip", make.rgb(per_class=300))
    build.build(options(source, tmp_path / "whole"))
    command = [sys.executable, "-m", "launch.build", "--dataset=eurosat_rgb", f"--source={source}", "--num_workers=1"]
    racing = [
        subprocess.Popen(
            [*command, f"--output_dir={tmp_path / 'r'}"],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    errors = [process.communicate()[1].decode() for process in racing]
    assert sorted(process.returncode for process in racing) == [0, 2]
    assert any(words in "".join(errors) for words in ("another process is writing", "holds another build")), errors
    assert bytes_of(tmp_path / "r") == bytes_of(tmp_path / "whole")


def test_a_full_disk_is_said_and_the_build_goes_on_when_there_is_room(ms_zip, tmp_path):
    code = (
        "import sys, resource, signal; from tfrecords_builder import build; from eo_keras import errors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (330000, 330000))\n"
        "try: build.build(build.BuildOptions('eurosat_ms', sys.argv[1], sys.argv[2]))\n"
        "except errors.StorageError as error: print(error)"
    )
    arguments = [sys.executable, "-c", code, str(ms_zip), str(tmp_path / "m")]
    result = subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT)
    assert "no room is left" in result.stdout and "then run the same command again" in result.stdout, result.stderr
    assert not (tmp_path / "m" / "card.json").exists()
    assert not list((tmp_path / "m").glob(".partial-*"))
    build.build(options(ms_zip, tmp_path / "whole", "eurosat_ms"))
    # Shards of three examples fitted under the limit; the test split's of six did not.
    assert build.build(options(ms_zip, tmp_path / "m", "eurosat_ms")).kept_shards == 8
    assert bytes_of(tmp_path / "m") == bytes_of(tmp_path / "whole")


def test_a_shard_of_other_examples_is_not_taken_for_finished():
    units = [
        shards.ShardUnit("x", (shards.PlannedExample("a", None, digest),), counted)
        for digest in (b"1", b"2")
        for counted in (True, False)
    ]
    assert len({unit.digest() for unit in units}) == 4


def test_the_card_waits_for_every_shard(rgb_zip, tmp_path, monkeypatch):
    seen = []
    original = output.finish

    def finish(folder, card):
        seen.append(sorted(path.name for path in pathlib.Path(folder.folder).glob("*.tfrecord-*")))
        original(folder, card)

    monkeypatch.setattr(output, "finish", finish)
    card = build.build(options(rgb_zip, tmp_path / "r")).card
    assert seen == [sorted(shard.name for part in card.splits.values() for shard in part.shards)]
