"""Strategies. Each case is a process of its own: only one mirrored strategy fits in a process."""

import numpy as np
import pytest

from eo_keras.errors import OptionError
from eo_keras.training import distribution
from tests.harness.replicas import DISTANCES, EVERY_KIND, FUSED, REDUCED, STEPS
from tests.launch.commands import assert_one_line_error, launch, start


def test_names_and_batches():
    with pytest.raises(OptionError, match="'tpu'; expected one of auto, none, mirrored"):
        distribution.make_strategy("tpu")
    with pytest.raises(OptionError, match="none, with 2 virtual devices"):
        distribution.make_strategy("none", virtual_devices=2)
    with pytest.raises(OptionError, match="virtual_devices: -1"):
        distribution.prepare_devices(virtual_devices=-1)
    assert distribution.make_strategy("auto").num_replicas_in_sync == 1


def assert_two_train_as_one(folder, *words):
    """Trains on one device and on two, and compares."""
    done = start("tests.harness.replicas", folder / "found.npz", *words).wait()
    assert done.returncode == 0, done.stderr
    found = dict(np.load(folder / "found.npz"))
    names = {key.split("/")[0] for key in found}
    for name in names:
        one, two = (
            {key.split("/")[2]: value for key, value in found.items() if key.startswith(f"{name}/{devices}/")}
            for devices in ("one", "two")
        )
        assert len(one["losses"]) == len(set(one["losses"])) == STEPS, name
        np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(two["right"], one["right"], err_msg=name)
        np.testing.assert_allclose(two["metrics"], one["metrics"], rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(two["parts"], one["parts"], rtol=1e-6, err_msg=name)
        parts = 4 if name in DISTANCES else 3 if "translation" in name else 0
        parts += 2 if FUSED.get(name, {}).get("stream_logits") else 0
        assert one["parts"].shape == (STEPS, parts), name
        for kind in ("statistics", "weights", "averages"):
            np.testing.assert_allclose(two[kind], one[kind], rtol=1e-5, atol=1e-6, err_msg=f"{name} {kind}")
        # Moments that stayed at their start would be equal without any synchronization.
        assert np.abs(one["statistics"]).max() > 0.01
    return names


def test_two_devices_train_as_one(tmp_path):
    """Batches with an empty device, uneven batches, clipping, synchronized moments, averages, and final metrics."""
    assert assert_two_train_as_one(tmp_path, *EVERY_KIND) == set(EVERY_KIND)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--full",)])
def test_two_devices_train_every_network_as_one(tmp_path, words):
    assert len(assert_two_train_as_one(tmp_path, *words)) >= len(REDUCED)


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
