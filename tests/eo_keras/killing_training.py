"""Kills a training run, goes on with it, and compares what comes out with an undisturbed one, to the bit.

    python -m tests.eo_keras.killing_training RECORDS FOLDER --steps=3,7 --moments=0

A process of its own: each run is a fork of it, made before TensorFlow touches a device, so that TensorFlow is imported
but once. `--steps`: one killed run whose processes are killed behind these steps, one after the other. `--moments`: so
many runs, each killed at a moment drawn from its whole length, with files half written as it happens.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import time

import numpy as np

from launch.app import import_tensorflow_quietly

import_tensorflow_quietly()

import tensorflow as tf  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from eo_keras.data.augment.options import Augmentation  # noqa: E402
from eo_keras.runs import event_files  # noqa: E402
from eo_keras.runs import folder as runs  # noqa: E402
from eo_keras.training import train as training  # noqa: E402
from eo_keras.training.options import ClassificationOptions, OptimizerOptions, TrainingOptions  # noqa: E402

EPOCHS, STEPS = 4, 5
TIMES = ("seconds", "images_per_second")


def options(records, folder, **changes):
    """Everything that has a state of its own: optimizer slots, averages, dropout, order, best so far, sizes."""
    return TrainingOptions(
        str(records),
        str(folder),
        model="resnet14",
        batch_size=8,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        validation_from_train=0.2,
        optimizer=OptimizerOptions("rmsprop", 0.002, clip_norm=1.0, warmup_epochs=1),
        classification=ClassificationOptions(
            Augmentation(True, 4, 0.1), progressive_sizes=(32,), progressive_epochs=(3,)
        ),
        dropout=0.3,
        label_smoothing=0.1,
        ema=0.8,
        checkpoint_steps=3,
        deterministic=True,
        seed=5,
        **changes,
    )


def start(chosen, kill_behind=None):
    """Starts a run in a process of its own; it kills itself behind a step of the run, if asked to."""
    process = os.fork()
    if process:
        return process

    def progress(stage, done, total):
        word, _, count = stage.partition(" ")
        if word == "epoch" and "validation" not in stage:
            step = (int(count.split("/")[0]) - 1) * STEPS + done
            if step == kill_behind:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        training.train(chosen, flags_text="--model=resnet14\n", progress=progress)
        code = 0
    finally:
        os._exit(code)


def wait(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def can_go_on(folder):
    return (folder / runs.CHECKPOINT_DIR / runs.STATE_NAME).is_file()


def curves(folder):
    """All scalars of TensorBoard, as (step, value) in the order in which they are read."""
    found = {}
    for part in ("train", "validation"):
        events = EventAccumulator(str(folder / event_files.TENSORBOARD_DIR / part), {"tensors": 0}).Reload()
        for tag in events.Tags()["tensors"]:
            if tag.startswith(("epoch/", "step/")) and tag != "epoch/images_per_second":
                numbers = [(event.step, tf.make_ndarray(event.tensor_proto).item()) for event in events.Tensors(tag)]
                found[part, tag] = numbers
    return found


def differences(one, other):
    """Says what differs between two finished runs."""
    found = []
    states = [runs.read_state(folder) for folder in (one, other)]
    rows = [[{k: v for k, v in row.items() if k not in TIMES} for row in state["history"]] for state in states]
    found += ["history"] * (rows[0] != rows[1]) + ["best"] * (states[0]["best"] != states[1]["best"])
    found += ["history.csv"] * (len((other / runs.HISTORY_NAME).read_text().splitlines()) != EPOCHS + 1)
    found += ["TensorBoard"] * (curves(one) != curves(other))
    files = [
        folder / runs.CHECKPOINT_DIR / state["variables"] for folder, state in zip((one, other), states, strict=True)
    ]
    with np.load(files[0]) as first, np.load(files[1]) as second:
        if set(first.files) != set(second.files):
            found.append("variables")
        found += [name for name in first.files if first[name].tobytes() != second[name].tobytes()]
    for name in (runs.MODEL_NAME, runs.LAST_MODEL_NAME):
        weights = [runs.load_model(folder / name).get_weights() for folder in (one, other)]
        if any((first != second).any() for first, second in zip(*weights, strict=True)):
            found.append(name)
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("records", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", default="")
    parser.add_argument("--moments", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    records, folder, draw = arguments.records, arguments.folder, random.Random(arguments.seed)
    started = time.monotonic()
    assert wait(start(options(records, folder / "whole"))) == 0
    length = time.monotonic() - started
    results, killed = {}, {}
    if arguments.steps:
        run = folder / "steps"
        for step in map(int, arguments.steps.split(",")):
            assert wait(start(options(records, run, resume=can_go_on(run)), step)) == -signal.SIGKILL
            killed["steps"] = killed.get("steps", 0) + 1
        assert wait(start(options(records, run, resume=can_go_on(run)))) == 0
    for number in range(arguments.moments):
        run = folder / f"moment-{number}"
        process = start(options(records, run))
        time.sleep(draw.uniform(0.3, 1.0) * length)
        os.kill(process, signal.SIGKILL)
        killed[run.name] = int(wait(process) == -signal.SIGKILL)
        # Without a checkpoint there is nothing to go on from, and the same command begins again.
        assert wait(start(options(records, run, resume=can_go_on(run)))) == 0
    for run in sorted(folder.iterdir()):
        if run.name != "whole":
            results[run.name] = {"kills": killed[run.name], "differences": differences(folder / "whole", run)}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
