import json

import pytest

from eo_keras.records import data_card as cards
from tests.launch.commands import assert_one_line_error, launch
from tfrecords_builder import build
from tfrecords_builder.splits import split as splits
from tfrecords_builder.synthetic import archives


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Records of the generated world, split at random and by place, and the coordinates of its patches."""
    folder = tmp_path_factory.mktemp("inspected")
    source = archives.write_eurosat_archive(folder / "rgb.zip", kind="rgb", patches_per_class=8)
    coordinates = archives.write_coordinates(folder / "coordinates.csv", patches_per_class=8)
    methods = {
        "random": splits.SplitOptions(),
        "spatial": splits.SplitOptions(split="spatial", coordinates=str(coordinates)),
    }
    for name, split in methods.items():
        build.build(build.BuildOptions("eurosat_rgb", str(source), str(folder / name), split))
    return folder


def test_a_page_and_its_numbers(folders, tmp_path):
    page = tmp_path / "pages" / "random.html"
    result = launch(
        "inspect",
        f"--records_dir={folders / 'random'}",
        f"--against={folders / 'spatial'}",
        f"--coordinates={folders / 'coordinates.csv'}",
        f"--output={page}",
        "--samples=3",
        "--neighbour_km=3",
        "--verify",
    )
    assert result.returncode == 0 and result.stderr == "", result
    assert "B04" in result.stdout and "with a neighbor within 3 km" in result.stdout
    assert "with the records and SHA-256 of the card" in result.stdout
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and text.count("<img ") == 6
    value = json.loads(page.with_suffix(".json").read_text())
    assert value["name"] == "random" and value["against"]["name"] == "spatial"
    assert value["fingerprint"] == cards.read_data_card(folders / "random").fingerprint
    (random,), (spatial,) = value["leaks"]["pairs"], value["against"]["leaks"]["pairs"]
    assert (random["patches"], spatial["patches"]) == (20, 16)
    assert random["neighbours"]["1"] > spatial["neighbours"]["1"]


def test_a_dry_run_writes_nothing_and_verifies_if_told(folders, tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    for path in (folders / "random").iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    arguments = (f"--records_dir={folder}", f"--output={tmp_path / 'page.html'}", "--dry_run")
    result = launch("inspect", *arguments)
    assert result.returncode == 0 and "would write" in result.stdout, result
    shard = min(folder.glob("*.tfrecord-*"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    assert launch("inspect", *arguments).returncode == 0
    damaged = launch("inspect", *arguments, "--verify")
    assert damaged.returncode == 2 and f"{shard.name}: record 0 is cut off or damaged" in damaged.stderr
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output=page.png"], "does not end in .html"),
        (["--neighbour_km=-1"], "--neighbour_km"),
        (["--near_copy_bits=65"], "--near_copy_bits"),
        (["--samples=11"], "--samples"),
        (["--against=nowhere"], "there is no such folder"),
    ],
)
def test_mistakes_are_one_line(folders, arguments, words):
    assert_one_line_error(launch("inspect", f"--records_dir={folders / 'random'}", *arguments), words)
