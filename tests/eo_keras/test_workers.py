"""Several workers, each a process that runs the command, train as one process does."""

import csv
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from eo_keras import distribution, runs
from eo_keras.errors import OptionError
from tests.launch.commands import assert_one_line_error, launch

FLAGS = {
    "model": "resnet14",
    "dtype_policy": "float64",
    "batch_size": 16,
    "epochs": 2,
    "steps_per_epoch": 5,
    "validation_from_train": 0.2,
    "learning_rate": 0.02,
    "clip_norm": 1.0,
    "ema": 0.9,
    "progressive_sizes": "32",
    "progressive_epochs": "1",
}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(records, run_dir, *words, config=None):
    environment = os.environ | {"TF_CONFIG": json.dumps(config)} if config else os.environ
    given = [f"--{name}={value}" for name, value in (FLAGS | {"records_dir": records, "run_dir": run_dir}).items()]
    return subprocess.Popen(
        [sys.executable, "-m", "launch.train", "--deterministic", *given, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def history(folder, column):
    with open(folder / runs.HISTORY_NAME) as file:
        return np.array([float(row[column]) for row in csv.DictReader(file)])


def test_two_workers_train_as_one_process(rgb_records, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    workers = [
        start(
            rgb_records,
            two,
            "--strategy=multi_worker",
            config={"cluster": cluster, "task": {"type": "worker", "index": number}},
        )
        for number in range(2)
    ]
    said = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert "2 x float64 on 2 workers, of which this is number 2" in said[1][0]
    assert "the first worker wrote the run" in said[1][0]
    alone = start(rgb_records, one)
    out, err = alone.communicate(timeout=300)
    assert alone.returncode == 0, err
    np.testing.assert_allclose(history(two, "loss"), history(one, "loss"), rtol=1e-6)
    np.testing.assert_allclose(history(two, "val_loss"), history(one, "val_loss"), rtol=1e-6)
    np.testing.assert_array_equal(history(two, "accuracy"), history(one, "accuracy"))
    models = [runs.load_model(folder / runs.LAST_MODEL_NAME) for folder in (one, two)]
    for first, second in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-6, atol=1e-9)
    # The run says all that a run of one process says, and only once.
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert len(list((two / runs.TENSORBOARD_DIR / "validation").iterdir())) == 2


@pytest.mark.parametrize(
    ("config", "worker"),
    [
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}, (1, 2)),
        ({"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}, (0, 2)),
        ({"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 1}}, (2, 3)),
    ],
)
def test_which_worker_this_is(monkeypatch, config, worker):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert distribution.this_worker("multi_worker") == distribution.Worker(*worker)
    assert distribution.this_worker("mirrored") is distribution.ALONE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "the environment variable TF_CONFIG is not set"),
        ("{", "TF_CONFIG cannot be understood"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "TF_CONFIG cannot be understood"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "there is no worker 1"),
    ],
)
def test_configurations_that_cannot_be_understood(monkeypatch, text, words):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(OptionError, match=words):
        distribution.this_worker("multi_worker")


def test_the_command_says_what_is_missing(rgb_records, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    places = (f"--records_dir={rgb_records}", f"--run_dir={tmp_path / 'r'}")
    assert_one_line_error(launch("train", *places, "--strategy=multi_worker"), "TF_CONFIG is not set")


def test_an_address_that_is_taken(rgb_records, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = {
            "cluster": {"worker": [f"127.0.0.1:{taken.getsockname()[1]}"]},
            "task": {"type": "worker", "index": 0},
        }
        worker = start(rgb_records, tmp_path / "r", "--strategy=multi_worker", config=config)
        _, error = worker.communicate(timeout=120)
    assert worker.returncode == 2 and "the workers cannot be connected" in error, error
    assert error.rstrip().count("\n") == 0
