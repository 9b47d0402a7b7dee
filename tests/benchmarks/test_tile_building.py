"""The measurements of tiles and of DeepLabv3+ on small inputs, without the peers."""

import json
import subprocess
import sys

from tests.harness import tiny
from tests.launch.commands import start


def run(module, *arguments):
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_building_tiles_is_measured(tmp_path):
    small = ("--size=640", "--tile_size=64", "--rounds=1", "--memory_size=640", "--num_workers=1", "--peers_python=")
    done = run("tile_building", *small, f"--output={tmp_path / 'a.json'}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["speed"]["tiles"] == 100 and found["speed"]["tiles_per_second"]["median"] > 0.5
    assert found["speed"]["polygons"] > 20
    # More than an interpreter, less than a scene of Sentinel-2.
    assert 3e7 < found["memory"]["peak_bytes"] < 1.5e9


def test_a_side_of_deeplab_prints_its_figures():
    for what in ("step", "forward"):
        small = (f"--model={tiny.SEGMENTER}", "--size=64", "--steps=1", "--batch_size=2")
        done = start("benchmarks.dense_step", f"--side={what}", *small).wait()
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.strip().splitlines()[-1])
        assert found["examples"] == 2 and found["seconds"] > 0 and 1e4 < found["parameters"] < 1e5
        assert found["count_macs"] > 1e6
