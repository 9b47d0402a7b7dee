"""The measurements of tiles and of DeepLabv3+ on small inputs, without the peers."""

import json
import pathlib
import subprocess
import sys

from absl import flags

from benchmarks import dense_step, fusion
from benchmarks.harness import OURS, PEER
from tests.harness import tiny
from tests.launch.commands import start


def run(module, *arguments):
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_building_tiles_is_measured(tmp_path):
    small = ("--size=640", "--tile_size=64", "--runs=1", "--memory_size=640", "--num_workers=1", "--peers_python=")
    done = run("tile_building", *small, f"--output={tmp_path / 'a.json'}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    ours = found["works"]["tiles"]["sides"]["ours"]
    assert ours["runs"][0]["examples"] == 100 and ours["median"] > 0.5 and "ratio" not in ours
    assert str(tmp_path) not in ours["command"] and "--cities=WORK_DIR/cities.csv" in ours["command"]
    assert found["polygons"] > 20
    # More than an interpreter, less than a scene of Sentinel-2.
    assert 3e7 < found["memory"]["peak_bytes"] < 1.5e9


def test_a_side_of_deeplab_prints_its_figures():
    for what in ("step", "forward"):
        small = (f"--model={tiny.SEGMENTER}", "--size=64", "--steps=1", "--batch_size=2")
        done = start("benchmarks.dense_step", f"--side={what}", *small).wait()
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.strip().splitlines()[-1])
        assert found["examples"] == 2 and found["seconds"] > 0 and 1e4 < found["parameters"] < 1e5
        assert found["multiply_adds"] > 1e6


def test_networks_of_several_sensors_print_their_figures(monkeypatch):
    small = (f"--model={tiny.SEGMENTER}", "--size=64", "--steps=1", "--batch_size=2", "--what=forward")
    done = start("benchmarks.fusion", "--network=late", *small).wait()
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    assert figures["examples"] == 2 and 1e4 < figures["parameters"] < 1e5
    found = flags.FlagValues()
    fusion.define_flags(found)
    found(["name"])
    monkeypatch.setattr(fusion, "FLAGS", found)
    works = fusion.make_works()
    assert list(works) == ["step", "forward"]
    assert list(works["step"].sides) == [PEER, *(name for name in fusion.NETWORKS if name != fusion.SINGLE)]


def test_deeplab_is_measured_beside_its_peer(monkeypatch):
    found = flags.FlagValues()
    dense_step.define_flags(found)
    found(["name", "--steps=2"])
    monkeypatch.setattr(dense_step, "FLAGS", found)
    works = dense_step.make_works("/peers/python")
    assert list(works) == ["step", "forward"]
    for what, work in works.items():
        assert {f"--side={what}", "--steps=2"} <= {*work.sides[OURS].command}
        program, script, *options = work.sides[PEER].command
        assert program == "/peers/python" and {f"--what={what}", "--steps=2"} <= {*options}
        compile(pathlib.Path(script).read_text(), script, "exec")
