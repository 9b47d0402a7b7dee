"""Strategies. Each case is a process of its own: only one mirrored strategy fits in a process."""

import subprocess
import sys

import numpy as np
import pytest

from eo_keras import models
from eo_keras.errors import OptionError
from eo_keras.training import distribution
from tests.launch.commands import assert_one_line_error, launch


def test_names_and_batches():
    with pytest.raises(OptionError, match="'tpu'; expected one of auto, none, mirrored"):
        distribution.make_strategy("tpu")
    with pytest.raises(OptionError, match="none, with 2 virtual devices"):
        distribution.make_strategy("none", virtual_devices=2)
    with pytest.raises(OptionError, match="virtual_devices: -1"):
        distribution.prepare_devices(virtual_devices=-1)
    assert distribution.make_strategy("auto").num_replicas_in_sync == 1


def replicas(folder, *words):
    """Trains on one device and on two, side by side, and returns what came out of each."""
    outputs = [folder / f"{devices}.npz" for devices in (1, 2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.eo_keras.replicas", str(devices), str(output), *words],
            stderr=subprocess.PIPE,
            text=True,
        )
        for devices, output in zip((1, 2), outputs, strict=True)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return [dict(np.load(output)) for output in outputs]


def assert_same(one, two, names):
    assert {name.split("/")[0] for name in one} == set(names) and set(one) == set(two)
    for name in names:
        losses = one[f"{name}/losses"]
        assert len(losses) == 20 and len(set(losses)) == 20, name
        np.testing.assert_allclose(two[f"{name}/losses"], losses, rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(two[f"{name}/right"], one[f"{name}/right"], err_msg=name)
        np.testing.assert_allclose(two[f"{name}/metrics"], one[f"{name}/metrics"], rtol=1e-6, err_msg=name)
        for kind in ("statistics", "weights", "averages"):
            first, second = one[f"{name}/{kind}"], two[f"{name}/{kind}"]
            np.testing.assert_allclose(second, first, rtol=1e-5, atol=1e-6, err_msg=f"{name} {kind}")
        # The gradient was cut, and there is something to be right about: else the test would show nothing.
        assert np.abs(one[f"{name}/statistics"]).max() > 0.01


def test_two_devices_train_as_one(tmp_path):
    """Batches with an empty device, uneven batches, clipping, synchronised statistics, averages, and final metrics."""
    one, two = replicas(tmp_path)
    assert_same(one, two, ["resnet50", "inception_v3", "googlenet", "compact"])


@pytest.mark.slow
def test_two_devices_train_full_networks_as_one(tmp_path):
    one, two = replicas(tmp_path, "--full")
    assert_same(one, two, models.MODELS)


def test_a_batch_that_two_devices_cannot_share(rgb_records, tmp_path):
    places = (f"--records_dir={rgb_records}", f"--run_dir={tmp_path / 'r'}")
    done = launch("train", *places, "--virtual_devices=2", "--batch_size=15")
    assert_one_line_error(done, "15 is not divisible by 2 devices")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dtype_policy=mixed_float16"], "mixed_float16 on 2 devices: Keras cannot scale the loss"),
        (
            ["--jit_compile"],
            "jit_compile: true on 2 devices: TensorFlow cannot compile a step across devices",
        ),
    ],
)
def test_what_cannot_work_on_two_devices_is_refused_before_training(rgb_records, tmp_path, words, message):
    places = (f"--records_dir={rgb_records}", f"--run_dir={tmp_path / 'r'}")
    assert_one_line_error(launch("train", *places, "--virtual_devices=2", "--batch_size=16", *words), message)
    assert not (tmp_path / "r").exists()
