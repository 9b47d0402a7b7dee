"""Ends a training run by signals, resumes it, and compares the result with an undisturbed run, to the bit.

    python -m tests.harness.killing RECORDS FOLDER [--moments=10]

A process of its own: each run is a fork of it, made before TensorFlow touches a device. One run is killed after a step,
resumed, ended by SIGTERM after a later step, and resumed again. `--moments`: instead so many runs, each killed at a
moment drawn from its whole length, with files half written as it happens.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import random
import signal
import time

import numpy as np

from launch.app import StopOnSignal, import_tensorflow_quietly

import_tensorflow_quietly()

import tensorflow as tf  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from eo_keras.data.augment.options import Augmentation, CropAugmentation  # noqa: E402
from eo_keras.records import data_card as cards  # noqa: E402
from eo_keras.runs import event_files  # noqa: E402
from eo_keras.runs import folder as runs  # noqa: E402
from eo_keras.training import train as training  # noqa: E402
from eo_keras.training.options import (  # noqa: E402
    ClassificationOptions,
    OptimizerOptions,
    SegmentationOptions,
    TrainingOptions,
)
from tests.harness import figures, tiny  # noqa: E402

EPOCHS, STEPS = 3, 4
ENDS = ((signal.SIGKILL, 7), (signal.SIGTERM, 10))
"""Signals, and the steps after which they arrive: both within an epoch, and the kill after a checkpoint."""

TIMES = ("seconds", "images_per_second")
OF_TASK = {
    "classification": {
        "model": tiny.CLASSIFIER,
        "classification": ClassificationOptions(
            Augmentation(True, 4, 0.1), progressive_sizes=(32,), progressive_epochs=(2,)
        ),
        "label_smoothing": 0.1,
        "validation_from_train": 0.2,
    },
    "segmentation": {
        "model": tiny.SEGMENTER,
        "segmentation": SegmentationOptions(loss="cross_entropy+dice", augmentation=CropAugmentation(crop=32)),
    },
}


def options(records, folder, **changes):
    """Returns options under which everything with a state takes part: optimizer, averages, dropout, order, sizes."""
    tiny.register()
    card = cards.read_data_card(records)
    of_task = OF_TASK[card.task]
    if card.distance:
        segmentation = dataclasses.replace(of_task["segmentation"], distance_head="cascaded")
        of_task = {"model": tiny.SEGNET, "segmentation": segmentation}
    return TrainingOptions(
        str(records),
        str(folder),
        batch_size=4,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        optimizer=OptimizerOptions("rmsprop", 0.002, clip_norm=1.0, warmup_epochs=1),
        dropout=0.3,
        ema=0.8,
        checkpoint_steps=3,
        deterministic=True,
        seed=5,
        **of_task,
        **changes,
    )


def start(chosen, end=None):
    """Starts a run in a process of its own, which sends itself a signal after a step."""
    process = os.fork()
    if process:
        return process

    def progress(stage, done, total):
        word, _, count = stage.partition(" ")
        if end and word == "epoch" and "validation" not in stage:
            if (int(count.split("/")[0]) - 1) * STEPS + done == end[1]:
                os.kill(os.getpid(), end[0])

    code = 1
    try:
        with figures.undrawn(), StopOnSignal() as stop:
            report = training.train(chosen, flags_text="--model=tiny\n", progress=progress, stop=stop.received)
        code = 143 if report.stopped else 0
    finally:
        os._exit(code)


def wait(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def can_resume(folder):
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
    """Returns what differs between two finished runs."""
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
    parser.add_argument("--moments", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    records, folder, draw = arguments.records, arguments.folder, random.Random(arguments.seed)
    started = time.monotonic()
    assert wait(start(options(records, folder / "whole"))) == 0
    length = time.monotonic() - started
    results, ends = {}, {}
    if not arguments.moments:
        run = folder / "signals"
        ends[run.name] = [wait(start(options(records, run, resume=can_resume(run)), end)) for end in (*ENDS, None)]
    for number in range(arguments.moments):
        run = folder / f"moment-{number}"
        process = start(options(records, run))
        time.sleep(draw.uniform(0.3, 1.0) * length)
        os.kill(process, signal.SIGKILL)
        ends[run.name] = [wait(process)]
        # Without a checkpoint there is nothing to resume from, and the same command starts over.
        assert wait(start(options(records, run, resume=can_resume(run)))) == 0
    for name, codes in ends.items():
        results[name] = {"codes": codes, "differences": differences(folder / "whole", folder / name)}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
