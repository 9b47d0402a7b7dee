"""The measurement of maps on small scenes, without the peer."""

import json
import pathlib
import subprocess
import sys

import pytest
import rasterio
from absl import flags

from benchmarks import harness, mapping, report
from benchmarks.harness import OURS, PEER
from eo_keras.geo import scenes
from tests.harness import tiny
from tests.launch.commands import start

SIZE = 132


@pytest.fixture(autouse=True)
def small_tile(monkeypatch):
    """The smallest city, repeated."""
    monkeypatch.setattr(mapping, "_TILE", 240)


@pytest.fixture
def set_flags(monkeypatch):
    """A function that sets the command's flags; the tiny networks are known."""
    tiny.register()

    def write(*arguments):
        found = flags.FlagValues()
        mapping.define_flags(found)
        found(["name", f"--rows={SIZE}", f"--width={SIZE}", f"--peer_size={SIZE}", "--window=64", *arguments])
        monkeypatch.setattr(mapping, "FLAGS", found)

    return write


def side(command):
    """Runs a side's command in a fork that has TensorFlow loaded; returns its figures."""
    done = start(command[2], *command[3:]).wait()
    assert done.returncode == 0, done.stderr
    return harness.figures(done.stdout)


def test_a_map_and_the_model_alone_are_measured(tmp_path, set_flags):
    set_flags(f"--model={tiny.SEGMENTER}")
    (tmp_path / "output").mkdir()
    work = mapping.speed_work(tmp_path)
    assert work.targets == {OURS: 0.9}
    with rasterio.open(tmp_path / f"scene-{SIZE}-{SIZE}.tif") as scene:
        assert (scene.height, scene.width, scene.descriptions) == (SIZE, SIZE, mapping.BANDS_OF_SCENE)
        assert scene.read().min() > 0
    ours, alone = side(work.sides[OURS].command), side(work.sides[PEER].command)
    # Cells of 48 pixels.
    assert ours["windows"] == alone["windows"] == 9 and ours["examples"] == alone["examples"] == SIZE**2 / 1e6
    assert ours["peak_bytes"] > 0 and ours["seconds"] >= ours["stages"]["map"] > 0
    with rasterio.open(tmp_path / "output" / "map.tif") as found:
        assert found.shape == (SIZE, SIZE)


def test_a_wide_product_of_few_pixels_repeats_a_tile(tmp_path):
    path = mapping.write_product(tmp_path / "product", 60, 1200)
    scene = scenes.open_scene(path)
    assert (scene.level, scene.grid.height, scene.grid.width, len(scene.bands)) == ("L1C", 60, 1200, 13)
    assert mapping.write_product(tmp_path / "product", 60, 1200) == path


def test_the_peer_has_the_same_scene_and_windows(tmp_path, set_flags):
    set_flags(f"--peer_model={tiny.SEGMENTER}")
    work = mapping.peer_work(tmp_path, "/peers/python")
    program, script, *options = work.sides[PEER].command
    assert program == "/peers/python" and {"--window=64", "--overlap=16", "--encoder=resnet50"} <= {*options}
    assert f"--scene={tmp_path / f'scene-{SIZE}-{SIZE}.tif'}" in work.sides[OURS].command
    compile(pathlib.Path(script).read_text(), script, "exec")


def test_the_page_says_what_was_reached_and_missed(tmp_path):
    def sides(ours, theirs, peaks):
        named = zip((OURS, PEER), (ours, theirs), peaks, strict=True)
        ratio = {"ratio": {"median": ours / theirs, "low": 0.1, "high": 9.0}, "target": 0.9}
        return {
            name: {"title": name, "rates": [rate], "median": rate, "low": rate, "high": rate}
            | {"runs": [{"peak_bytes": peak}]}
            | (ratio if name == OURS else {})
            for name, rate, peak in named
        }

    work = {"title": "a scene", "unit": "Mpixel/s", "timed": "all", "digits": 2}
    content = {
        "runs": 1,
        "window": 256,
        "classes": 10,
        "machine": harness.machine(),
        "works": {"peer": work | {"sides": sides(0.95, 1.0, (1e9, 4e9))}},
        "memory": [
            {"rows": rows, "width": 9, "peak_bytes": peak, "seconds": 1} for rows, peak in ((5, 1e9), (9, 1.05e9))
        ],
    }
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps(content))
    text = " ".join(report._mapping(path))
    assert "1.00 GB of 4.00 GB, 25.0%; at most 20 % missed" in text
    assert "10 % reached: they differ by 5.0%" in text and "| 5 x 9 | 1.00 GB | 1 s |" in text


@pytest.mark.slow
def test_the_whole_command(tmp_path):
    command = [sys.executable, "-m", "benchmarks.mapping", "--only=speed", "--only=memory", "--only=input", "--runs=1"]
    command += ["--rows=300", "--width=420", "--memory_rows=200,300", "--input_rows=300", f"--work_dir={tmp_path}/w"]
    output = tmp_path / "mapping.json"
    done = subprocess.run(
        [*command, f"--output={output}"], capture_output=True, text=True, check=False, cwd=harness.ROOT
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert list(found["works"]) == ["speed", "input"] and [one["rows"] for one in found["memory"]] == [200, 300]
    assert str(tmp_path) not in json.dumps([work["sides"][OURS]["command"] for work in found["works"].values()])
