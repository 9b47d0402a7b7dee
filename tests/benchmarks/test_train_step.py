"""Training steps side by side: ratios and targets by hand, the JSON's shape, and steps under JAX."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import comparison, measuring, train_step_jax, train_step_works
from benchmarks.comparison import OURS, PEER
from benchmarks.train_step_profile import BACKWARD, FORWARD, KINDS, UPDATE, WAIT, kernel_shares, kind_of, parts
from benchmarks.train_step_works import TORCH


def _measured():
    def side(title, *rates):
        runs = [{"examples": rate, "seconds": 1} for rate in rates]
        spread = {"median": sorted(rates)[1], "low": min(rates), "high": max(rates)}
        return {"title": title, "command": "c", "rates": list(rates), **spread, "runs": runs}

    sides = {
        OURS: side("launch.train: all", 27, 30, 24),
        "devices_2": side("two", 20, 20, 20),
        PEER: side("Keras: bare", 30, 30, 30),
        # As comparison.measure leaves it: with a ratio to Keras.
        TORCH: side("PyTorch: bare", 25, 40, 30) | {"ratio": {"median": 1, "low": 1, "high": 1}},
    }
    return {"title": "the work", "unit": "images/s", "timed": "inside", "sides": sides}


def test_ratios_are_taken_round_by_round_to_each_peer():
    found = train_step_works.by_peer(_measured(), "net")
    assert list(found) == ["net_keras", "net_torch"]
    keras, torch = (work["sides"] for work in found.values())
    assert keras.keys() == torch.keys() == {OURS, "devices_2", PEER}
    assert keras[OURS]["ratio"] == {"median": 0.9, "low": 0.8, "high": 1.0} and keras[OURS]["target"] == 0.97
    # Rounds: 1.08, 0.75, 0.8.
    assert torch[OURS]["ratio"] == {"median": 0.8, "low": 0.75, "high": 1.08} and torch[OURS]["target"] == 1
    assert torch["devices_2"]["ratio"]["median"] == pytest.approx(2 / 3) and "target" not in torch["devices_2"]
    assert torch[PEER]["title"] == "PyTorch: bare" and "ratio" not in torch[PEER]
    assert "| 27 (24 to 30) images/s | 0.90 (0.80 to 1.00) | 0.97 (missed) |" in "\n".join(comparison.table(found))
    # Figures of other precisions are told without a target.
    assert "target" not in train_step_works.by_peer(_measured(), "net", torch_target=False)["net_torch"]["sides"][OURS]


def test_a_target_is_reached_by_the_median():
    first, second = train_step_works.verdicts(train_step_works.by_peer(_measured(), "net"))
    assert first == {"what": "the work: launch.train beside Keras", "ratio": 0.9, "target": 0.97, "reached": False}
    assert train_step_works.verdict_line(second).endswith("beside PyTorch: 0.800 times, target 1 MISSED")
    measured = _measured()
    measured["sides"][OURS]["rates"] = [29.1, 29.1, 50]
    first, _ = train_step_works.verdicts(train_step_works.by_peer(measured, "net"))
    assert first["reached"] and "0.970 times, target 0.97 reached" in train_step_works.verdict_line(first)


def test_earlier_works_of_the_same_machine_and_settings_are_kept(tmp_path):
    path = str(tmp_path / "train_step.json")
    result = {"runs": 3, "batch_size": 64, "patch_size": 64, "records": {"train_examples": 1600}, "machine": {"a": 1}}
    works = train_step_works.by_peer(_measured(), "a")
    train_step_works.write(path, result | {"profiles": [{"b": 2}]}, works)
    written = train_step_works.write(path, result, train_step_works.by_peer(_measured(), "b"))
    assert written == json.loads((tmp_path / "train_step.json").read_text())
    assert list(written["works"]) == ["a_keras", "a_torch", "b_keras", "b_torch"] and written["profiles"] == [{"b": 2}]
    assert len(written["targets"]) == 4
    written = train_step_works.write(path, result | {"machine": {"a": 2}}, works)
    assert list(written["works"]) == ["a_keras", "a_torch"] and "profiles" not in written


def test_the_first_division_of_the_processor_is_ours_and_every_peer_is_there():
    settings = train_step_works.Settings("resnet50", "float32", 8, 3, "records", (0, 2), "/peers/python")
    sides = train_step_works.make_work(settings).sides
    assert list(sides) == [OURS, "devices_2", PEER, TORCH]
    assert "--virtual_devices=0" in sides[OURS].command and "--virtual_devices=2" in sides["devices_2"].command
    program, script, *options = sides[TORCH].command
    assert program == "/peers/python" and "--steps=3" in options
    compile(open(script).read(), script, "exec")
    for other in ({"model": "compact"}, {"peers_python": None}):
        settings = train_step_works.Settings(**{**vars(settings), **other})
        assert TORCH not in train_step_works.make_work(settings).sides


def test_kernels_are_sorted_by_layer_and_direction():
    events = [
        ("net/conv1_conv_1/convolution:_MklNativeConv2D", 1.0),
        ("gradient_tape/net/conv1_conv_1/convolution/Conv2DBackpropFilter:_MklNativeConv2DBackpropFilter", 2.0),
        ("net/conv1_bn_1/moments/mean:Mean", 3.0),
        ("gradient_tape/net/conv1_bn_1/moments/sub:Sub", 4.0),
        ("sgd/Mul_2:Mul", 5.0),
        ("net/conv1_bn_1/Cast:Cast", 4.0),
        ("AddN_3:AddN", 1.0),
        ("ExecutorState::Process", 100.0),
        ("EagerLocalExecute: __inference_step_1", 100.0),
        ("FunctionRun", 100.0),
    ]
    seconds, shares = kernel_shares(events)
    assert seconds == 20 and list(shares.values()) == [0.05, 0.1, 0.15, 0.2, 0.25, 0.2, 0.05]
    assert list(shares) == list(KINDS) and kernel_shares([]) == (0, dict.fromkeys(KINDS, 0))
    assert kind_of("adam/Mul", "Mul", "adam") == KINDS[4] and kind_of("adam/Mul", "Mul") == KINDS[6]


def test_parts_of_a_step_are_differences():
    found = parts(1.0, 3.0, 3.5, 0.5)
    assert found["step_seconds"] == 4.0 and found["seconds"] == {FORWARD: 1.0, BACKWARD: 2.0, UPDATE: 0.5, WAIT: 0.5}
    assert found["shares"][BACKWARD] == 0.5 and sum(found["shares"].values()) == 1


JAX_SCRIPT = """
import dataclasses, json, pathlib, sys
from benchmarks import train_step_jax
train_step_jax.keep_tensorflow_out()
from eo_keras import models
resnet = models.MODELS["resnet14"]
models.MODELS["tiny"] = dataclasses.replace(resnet, arguments={"blocks": (1,), "width": 8})
folder = pathlib.Path(sys.argv[1])
train_step_jax.begin(folder)
how = {"batch_size": 10, "steps": 4, "patch_size": 32}
found = {
    "sgd": train_step_jax.train("tiny", train_step_jax.Settings(**how), folder),
    "muon": train_step_jax.train("tiny", train_step_jax.Settings("mixed_bfloat16", "muon", **how), folder),
}
assert sys.modules["tensorflow"] is None
print(json.dumps(found))
"""


def test_steps_under_jax_and_the_saved_models_under_tensorflow(tmp_path):
    pytest.importorskip("jax")
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # To optimise each small function takes far longer than to run it.
        "PYTHONPATH": str(measuring.ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", JAX_SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = measuring.figures(done.stdout)
    for one in found.values():
        assert len(one["losses"]) == 4 and one["falling"] and one["images_per_second"] > 0
    differences = train_step_jax.check_saved(tmp_path)
    assert differences.keys() == {"tiny-float32", "tiny-mixed_bfloat16"}
    for one in differences.values():
        assert one["largest_difference"] < 1e-4 and one["largest_logit_difference"] < 1e-4
    row = found["sgd"] | {"largest_difference": 2e-4, "largest_logit_difference": 0.0}
    table = train_step_jax.table({"models": {"tiny": {"float32": row}}})
    assert len(table) == 3 and "2.0e-04 (more than 0.0001) | 0.0e+00 |" in table[2]


def test_models_that_were_never_saved_are_told(tmp_path):
    with pytest.raises(measuring.MeasurementError, match="--saved_dir"):
        train_step_jax.check_saved(tmp_path)


@pytest.mark.slow
def test_the_whole_command(tmp_path):
    output = tmp_path / "train_step.json"
    command = [sys.executable, "-m", "benchmarks.train_step", "--models=resnet14", "--batch_size=8", "--steps=2"]
    command += ["--runs=1", "--peers_python=", "--patches_per_class=20", f"--work_dir={tmp_path}", "--profile"]
    done = subprocess.run(
        [*command, "--policies=float32", f"--output={output}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=measuring.ROOT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert found["records"]["train_examples"] == 160 and found["steps"] == 2
    work = found["works"]["resnet14_float32_keras"]
    assert work["sides"].keys() == {OURS, "devices_2", PEER} and all(s["median"] > 0 for s in work["sides"].values())
    (profile,) = found["profiles"]
    assert profile["dtype_policy"] == "float32" and profile["kernel_seconds"] > 0
    assert sum(profile["kernels"].values()) == pytest.approx(1)
    assert str(tmp_path) not in output.read_text()
    assert found["targets"] == train_step_works.verdicts(found["works"]) and len(found["targets"]) == 1
