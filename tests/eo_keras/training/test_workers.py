"""Several workers, each a process that runs the command, train as one process does."""

import concurrent.futures
import csv
import json
import os
import signal
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from eo_keras.errors import OptionError, TrainingError
from eo_keras.runs import event_files
from eo_keras.runs import folder as runs
from eo_keras.training import distribution, workers
from tests.harness import tiny
from tests.launch.commands import assert_one_line_error, launch, start

FLAGS = {
    "model": tiny.CLASSIFIER,
    "dtype_policy": "float64",
    "batch_size": 16,
    "epochs": 2,
    "steps_per_epoch": 4,
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


def begin(records, run_dir, *words, config=None):
    given = [f"--{name}={value}" for name, value in (FLAGS | {"records_dir": records, "run_dir": run_dir}).items()]
    variables = {"TF_CONFIG": json.dumps(config)} if config else None
    return start("launch.train", "--deterministic", *given, *words, variables=variables)


def history(folder, column):
    with open(folder / runs.HISTORY_NAME) as file:
        return np.array([float(row[column]) for row in csv.DictReader(file)])


def test_two_workers_train_as_one_process(rgb_records, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    workers = [
        begin(
            rgb_records,
            two,
            "--strategy=multi_worker",
            config={"cluster": cluster, "task": {"type": "worker", "index": number}},
        )
        for number in range(2)
    ]
    alone = begin(rgb_records, one).wait()
    first, second = (worker.wait() for worker in workers)
    assert [done.returncode for done in (first, second, alone)] == [0, 0, 0], (first, second, alone)
    assert "2 x float64 on 2 workers, of which this is number 2" in second.stdout
    assert "the first worker wrote the run" in second.stdout
    np.testing.assert_allclose(history(two, "loss"), history(one, "loss"), rtol=1e-6)
    np.testing.assert_allclose(history(two, "val_loss"), history(one, "val_loss"), rtol=1e-6)
    np.testing.assert_array_equal(history(two, "accuracy"), history(one, "accuracy"))
    models = [runs.load_model(folder / runs.LAST_MODEL_NAME) for folder in (one, two)]
    for first, second in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-6, atol=1e-9)
    # The run says all that a run of one process says, and only once.
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert len(list((two / event_files.TENSORBOARD_DIR / "validation").iterdir())) == 2


def told(monkeypatch, ports):
    """The workers of a cluster on this machine."""
    cluster = {"chief": [f"127.0.0.1:{ports[0]}"], "worker": [f"127.0.0.1:{port}" for port in ports[1:]]}
    found = []
    for number in range(len(ports)):
        task = {"type": "worker", "index": number - 1} if number else {"type": "chief", "index": 0}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
        found.append(distribution.this_worker("multi_worker"))
    return found


def test_workers_meet_whoever_comes_first(monkeypatch):
    ports, all_met = free_ports(3), threading.Barrier(3)

    def meet(worker):
        met = workers.meet(worker, 30)
        # From here on TensorFlow listens at the address.
        with socket.create_server(("127.0.0.1", ports[worker.number])):
            all_met.wait(30)
        return met

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        begun = []
        for worker in reversed(told(monkeypatch, ports)):
            begun.append(pool.submit(meet, worker))
            time.sleep(0.3)
        assert [one.result() for one in begun] == [True] * 3


def test_a_worker_that_never_comes_is_named_and_waited_for_aloud(monkeypatch):
    monkeypatch.setattr(workers, "_SAY_AFTER_SECONDS", 0.0)
    cluster, lines = told(monkeypatch, free_ports(2)), []
    names = [f"worker {number + 1} ({cluster[0].addresses[number]})" for number in range(2)]
    with pytest.raises(TrainingError) as raised:
        workers.meet(cluster[1], 1.2, lines.append)
    assert str(raised.value).startswith(f"{names[0]}: not there after ")
    assert "Connection refused" in str(raised.value) and "`worker_wait=SECONDS" in str(raised.value)
    assert lines == [f"waiting for {names[0]}; 1 s more at most"]
    # A signal is heard meanwhile.
    asked = iter([False, True])
    assert not workers.meet(cluster[0], 60, stop=lambda: next(asked))


def test_an_address_that_another_program_has(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (worker,) = told(monkeypatch, [taken.getsockname()[1]])
        with pytest.raises(OptionError, match="worker 1 .* is this one, and another program listens there"):
            workers.meet(worker, 1)


@pytest.mark.parametrize(
    ("kind", "said", "words"),
    [
        # The second worker's own last words name the third one, which is there still.
        (tf.errors.UnavailableError, "from remote target /job:worker/replica:0/task:1", r"worker 2 \(.*\): was lost"),
        (tf.errors.AbortedError, "Collective ops is aborted", r"worker 2 \(.*\): was lost"),
        (tf.errors.InternalError, "a fault of its own", None),
    ],
)
def test_a_lost_worker_is_named(monkeypatch, kind, said, words):
    with socket.create_server(("127.0.0.1", 0)) as there:
        first, second = free_ports(2)
        cluster = told(monkeypatch, [first, second if words else there.getsockname()[1], there.getsockname()[1]])
        with pytest.raises(TrainingError if words else kind, match=words or said) as raised:
            with workers.named_when_lost(cluster[0]):
                raise kind(None, None, said)
    if words:
        assert "worker 3" not in str(raised.value)
        assert str(raised.value).endswith("then start all workers again with `resume`")


def both(records, run_dir, *words):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    tasks = [{"cluster": cluster, "task": {"type": "worker", "index": number}} for number in range(2)]
    return cluster, [
        begin(records, run_dir, "--strategy=multi_worker", "--epochs=2000", *words, config=config) for config in tasks
    ]


def wait_for_epochs(run_dir, count):
    until = time.monotonic() + 200
    while not (run_dir / runs.HISTORY_NAME).exists() or len(history(run_dir, "loss")) < count:
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.mark.slow
def test_a_signal_to_one_worker_ends_all_in_good_order_and_a_killed_one_is_named(rgb_records, tmp_path):
    _, started = both(rgb_records, tmp_path / "r")
    wait_for_epochs(tmp_path / "r", 2)
    os.kill(started[1].pid, signal.SIGTERM)
    ended = [worker.wait() for worker in started]
    assert [done.returncode for done in ended] == [143, 143], ended
    assert all("checkpoint saved; continue with --resume" in done.stdout and not done.stderr for done in ended), ended
    assert "another worker was stopped" in ended[0].stdout
    done = len(history(tmp_path / "r", "loss"))
    cluster, started = both(rgb_records, tmp_path / "r", "--resume")
    wait_for_epochs(tmp_path / "r", done + 1)
    os.kill(started[1].pid, signal.SIGKILL)
    left, _ = (worker.wait() for worker in started)
    error = left.stderr
    assert left.returncode == 2, error
    assert f"launch.train: error: worker 2 ({cluster['worker'][1]}): was lost. See what it said" in error
    assert error.rstrip().count("\n") == 0 and error.rstrip().endswith("--resume")


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
        done = begin(rgb_records, tmp_path / "r", "--strategy=multi_worker", config=config).wait()
    assert_one_line_error(done, "the workers cannot be connected")
