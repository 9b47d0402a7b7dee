"""Training steps side by side: the works, their targets, and the whole command."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks import harness, train_step
from benchmarks.harness import OURS, PEER


def settings(**changes):
    return train_step.Settings(
        **{"model": "resnet50", "dtype_policy": "float32", "batch_size": 8, "steps": 3, "records_dir": "records"}
        | {"virtual_devices": (0, 2), "peers_python": "/peers/python"}
        | changes
    )


def test_the_first_division_of_the_processor_is_ours_and_every_peer_is_there():
    works = train_step.make_works(settings())
    assert list(works) == ["resnet50_float32_keras", "resnet50_float32_torch"]
    keras, torch = works.values()
    assert list(keras.sides) == [OURS, "devices_2", PEER] and list(torch.sides) == [OURS, PEER]
    assert keras.sides[OURS] == torch.sides[OURS] and "--virtual_devices=0" in keras.sides[OURS].command
    assert "--virtual_devices=2" in keras.sides["devices_2"].command and "--side=keras" in keras.sides[PEER].command
    program, script, *options = torch.sides[PEER].command
    assert program == "/peers/python" and "--steps=3" in options
    compile(pathlib.Path(script).read_text(), script, "exec")
    assert keras.targets == {OURS: 0.97} and torch.targets == {OURS: 1.0}


@pytest.mark.parametrize("changes", [{"model": "compact"}, {"peers_python": None}])
def test_pytorch_is_left_out_where_it_is_not_there_or_lacks_the_network(changes):
    assert [name.rpartition("_")[2] for name in train_step.make_works(settings(**changes))] == ["keras"]


def test_half_precision_need_not_be_as_fast_as_pytorch():
    keras, torch = train_step.make_works(settings(dtype_policy="mixed_bfloat16")).values()
    assert keras.targets == {OURS: 0.97} and torch.targets == {}


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
    assert work["sides"][OURS]["target"] == 0.97
    assert str(tmp_path) not in output.read_text()
