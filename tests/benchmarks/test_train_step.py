"""Training steps side by side: ratios and targets by hand, and the JSON's shape."""

import json
import subprocess
import sys

import pytest

from benchmarks import harness, train_step
from benchmarks.harness import OURS, PEER
from benchmarks.train_step import TORCH


def _measured():
    def side(title, *rates):
        runs = [{"examples": rate, "seconds": 1} for rate in rates]
        spread = {"median": sorted(rates)[1], "low": min(rates), "high": max(rates)}
        return {"title": title, "command": "c", "rates": list(rates), **spread, "runs": runs}

    sides = {
        OURS: side("launch.train: all", 27, 30, 24),
        "devices_2": side("two", 20, 20, 20),
        PEER: side("Keras: bare", 30, 30, 30),
        # As harness.measure leaves it: with a ratio to Keras.
        TORCH: side("PyTorch: bare", 25, 40, 30) | {"ratio": {"median": 1, "low": 1, "high": 1}},
    }
    return {"title": "the work", "unit": "images/s", "timed": "inside", "sides": sides}


def test_ratios_are_taken_round_by_round_to_each_peer():
    found = train_step.by_peer(_measured(), "net")
    assert list(found) == ["net_keras", "net_torch"]
    keras, torch = (work["sides"] for work in found.values())
    assert keras.keys() == torch.keys() == {OURS, "devices_2", PEER}
    assert keras[OURS]["ratio"] == {"median": 0.9, "low": 0.8, "high": 1.0} and keras[OURS]["target"] == 0.97
    # Rounds: 1.08, 0.75, 0.8.
    assert torch[OURS]["ratio"] == {"median": 0.8, "low": 0.75, "high": 1.08} and torch[OURS]["target"] == 1
    assert torch["devices_2"]["ratio"]["median"] == pytest.approx(2 / 3) and "target" not in torch["devices_2"]
    assert torch[PEER]["title"] == "PyTorch: bare" and "ratio" not in torch[PEER]
    assert "| 27 (24 to 30) images/s | 0.90 (0.80 to 1.00) | 0.97 (missed) |" in "\n".join(harness.table(found))
    # Figures of other precisions are shown without a target.
    assert "target" not in train_step.by_peer(_measured(), "net", torch_target=False)["net_torch"]["sides"][OURS]


def test_a_target_is_reached_by_the_median():
    first, second = train_step.verdicts(train_step.by_peer(_measured(), "net"))
    assert first == {"what": "the work: launch.train beside Keras", "ratio": 0.9, "target": 0.97, "reached": False}
    assert train_step.verdict_line(second).endswith("beside PyTorch: 0.800 times, target 1 MISSED")
    measured = _measured()
    measured["sides"][OURS]["rates"] = [29.1, 29.1, 50]
    first, _ = train_step.verdicts(train_step.by_peer(measured, "net"))
    assert first["reached"] and "0.970 times, target 0.97 reached" in train_step.verdict_line(first)


def test_earlier_works_of_the_same_machine_and_settings_are_kept(tmp_path):
    path = str(tmp_path / "train_step.json")
    result = {"runs": 3, "batch_size": 64, "patch_size": 64, "records": {"train_examples": 1600}, "machine": {"a": 1}}
    works = train_step.by_peer(_measured(), "a")
    train_step.write(path, result, works)
    written = train_step.write(path, result, train_step.by_peer(_measured(), "b"))
    assert written == json.loads((tmp_path / "train_step.json").read_text())
    assert list(written["works"]) == ["a_keras", "a_torch", "b_keras", "b_torch"]
    assert len(written["targets"]) == 4
    written = train_step.write(path, result | {"machine": {"a": 2}}, works)
    assert list(written["works"]) == ["a_keras", "a_torch"]


def test_the_first_division_of_the_processor_is_ours_and_every_peer_is_there():
    settings = train_step.Settings("resnet50", "float32", 8, 3, "records", (0, 2), "/peers/python")
    sides = train_step.make_work(settings).sides
    assert list(sides) == [OURS, "devices_2", PEER, TORCH]
    assert "--virtual_devices=0" in sides[OURS].command and "--virtual_devices=2" in sides["devices_2"].command
    program, script, *options = sides[TORCH].command
    assert program == "/peers/python" and "--steps=3" in options
    compile(open(script).read(), script, "exec")
    for other in ({"model": "compact"}, {"peers_python": None}):
        settings = train_step.Settings(**{**vars(settings), **other})
        assert TORCH not in train_step.make_work(settings).sides


@pytest.mark.slow
def test_the_whole_command(tmp_path):
    output = tmp_path / "train_step.json"
    command = [sys.executable, "-m", "benchmarks.train_step", "--models=resnet14", "--batch_size=8", "--steps=2"]
    command += ["--runs=1", "--peers_python=", "--patches_per_class=20", f"--work_dir={tmp_path}"]
    done = subprocess.run(
        [*command, "--policies=float32", f"--output={output}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=harness.ROOT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert found["records"]["train_examples"] == 160 and found["steps"] == 2
    work = found["works"]["resnet14_float32_keras"]
    assert work["sides"].keys() == {OURS, "devices_2", PEER} and all(s["median"] > 0 for s in work["sides"].values())
    assert str(tmp_path) not in output.read_text()
    assert found["targets"] == train_step.verdicts(found["works"]) and len(found["targets"]) == 1
