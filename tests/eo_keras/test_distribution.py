"""Strategies. Each case is a process of its own: only one mirrored strategy fits in a process."""

import csv

import numpy as np
import pytest

from eo_keras import distribution, runs
from eo_keras.errors import OptionError
from tests.launch.commands import assert_one_line_error, launch


def test_names_and_batches():
    with pytest.raises(OptionError, match="'tpu'; expected one of auto, none, mirrored"):
        distribution.make_strategy("tpu")
    with pytest.raises(OptionError, match="none, with 2 virtual devices"):
        distribution.make_strategy("none", virtual_devices=2)
    with pytest.raises(OptionError, match="virtual_devices: -1"):
        distribution.prepare_devices(virtual_devices=-1)
    assert distribution.make_strategy("auto").num_replicas_in_sync == 1


def train(records, run_dir, devices):
    """Twenty epochs of a single step, so that the history holds every step's loss, in double precision."""
    arguments = {
        "records_dir": records,
        "run_dir": run_dir,
        "model": "resnet14",
        "dtype_policy": "float64",
        "virtual_devices": devices,
        "strategy": "mirrored",
        "batch_size": 16,
        "epochs": 20,
        "steps_per_epoch": 1,
        "validation_from_train": 0.2,
        "learning_rate": 0.02,
        "warmup_epochs": 2,
        "ema": 0.9,
        "progressive_sizes": "32",
        "progressive_epochs": "18",
    }
    words = [f"--{name}={value}" for name, value in arguments.items()]
    return launch("train", "--deterministic", *words)


def history(folder, column):
    with open(folder / "history.csv") as file:
        return np.array([float(row[column]) for row in csv.DictReader(file)])


def test_two_devices_train_as_one(rgb_records, tmp_path):
    for devices in (1, 2):
        done = train(rgb_records, tmp_path / str(devices), devices)
        assert done.returncode == 0, done.stderr
        assert f"device: {devices} x float64, batch of 16" in done.stdout
    one, two = tmp_path / "1", tmp_path / "2"
    losses = history(one, "loss")
    assert len(losses) == 20 and losses[-1] < losses[0]
    np.testing.assert_allclose(history(two, "loss"), losses, rtol=1e-6)
    np.testing.assert_allclose(history(two, "val_loss"), history(one, "val_loss"), rtol=1e-6)
    # Batch normalisation's moving statistics included: those of one device alone would be of half the batches.
    models = [runs.load_model(folder / runs.LAST_MODEL_NAME) for folder in (one, two)]
    assert [weight.name for weight in models[0].weights].count("moving_mean") > 10
    for first, second in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-6, atol=1e-9)


def test_a_batch_that_two_devices_cannot_share(rgb_records, tmp_path):
    places = (f"--records_dir={rgb_records}", f"--run_dir={tmp_path / 'r'}")
    done = launch("train", *places, "--virtual_devices=2", "--batch_size=15")
    assert_one_line_error(done, "15 is not divisible by 2 devices")
    assert not (tmp_path / "r").exists()
