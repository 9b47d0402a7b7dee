r"""Measures one side of benchmarks.train_step in a process of its own, and prints it as one line of JSON.

run: launch.train on a records folder; what counts is the rate of its history, after an epoch that does not.
keras: Keras's own compile and train_on_batch on one batch in memory, the same network, optimizer and batch.
profile: what a step of ours spends its time on.

Example: python -m benchmarks.train_step_side --side=run --records_dir=records/rgb --steps=20
"""

import csv
import json
import math
import pathlib
import tempfile
import time

from absl import flags

from benchmarks import measuring, works
from benchmarks.train_step_works import PATCH_SIZE, POLICIES, WARM_STEPS
from eo_keras.records import data_card as cards
from eo_keras.runs import folder as runs
from launch import app, path_flags

FLAGS = flags.FLAGS

flags.DEFINE_enum("side", None, ["run", "keras", "profile"], "What is measured.", required=True)
path_flags.define_path("records_dir", None, "Records folder.", required=True)
flags.DEFINE_string("model", "resnet50", "Architecture.")
flags.DEFINE_integer("batch_size", 64, "Examples in a step.", lower_bound=1)
flags.DEFINE_integer("steps", 20, "Steps that are timed.", lower_bound=1)
flags.DEFINE_enum("dtype_policy", "float32", POLICIES, "Precision.")
flags.DEFINE_integer("virtual_devices", 0, "run: devices to split the processor into; 0 leaves it whole.")


def _run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder) / "run"
        command = works.module(
            "launch.train",
            records_dir=FLAGS.records_dir,
            run_dir=run_dir,
            model=FLAGS.model,
            batch_size=FLAGS.batch_size,
            epochs=2,
            steps_per_epoch=FLAGS.steps,
            dtype_policy=FLAGS.dtype_policy,
            virtual_devices=FLAGS.virtual_devices,
        )
        measuring.run_command(command)
        with open(run_dir / runs.HISTORY_NAME, encoding="utf-8", newline="") as file:
            # In the first epoch the step was traced and the memory was asked for.
            last = list(csv.DictReader(file))[-1]
    examples = FLAGS.batch_size * FLAGS.steps
    measuring.report(examples, examples / float(last["images_per_second"]), last_loss=float(last["loss"]))


def _keras() -> None:
    app.import_tensorflow_quietly()
    import keras
    import numpy as np

    from eo_keras import models
    from eo_keras.training import options as training_options

    card = cards.read_data_card(FLAGS.records_dir)
    options = training_options.TrainingOptions(FLAGS.records_dir, "").optimizer
    spec = models.NetworkSpec.of_card(card, patch_size=PATCH_SIZE, dtype_policy=FLAGS.dtype_policy, seed=1)
    model, _ = models.build(FLAGS.model, spec)
    model = models.logits_model(model)
    model.compile(
        keras.optimizers.SGD(
            options.learning_rate, options.momentum, options.nesterov, weight_decay=options.weight_decay
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # Keras would choose XLA, which on a processor takes seven times as long.
        jit_compile=False,
    )
    generator = np.random.default_rng(1)
    image = generator.integers(1, 256, (FLAGS.batch_size, PATCH_SIZE, PATCH_SIZE, len(card.bands))).astype(card.dtype)
    label = np.arange(FLAGS.batch_size) % len(card.legend)
    losses = [float(model.train_on_batch(image, label)) for _ in range(WARM_STEPS)]
    started = time.perf_counter()
    losses += [float(model.train_on_batch(image, label)) for _ in range(FLAGS.steps)]
    seconds = time.perf_counter() - started
    if not all(map(math.isfinite, losses)):
        raise measuring.MeasurementError("--side=keras", f"a loss is not finite: {losses}")
    measuring.report(FLAGS.batch_size * FLAGS.steps, seconds, first_loss=losses[0], last_loss=losses[-1])


def _profile() -> None:
    app.import_tensorflow_quietly()
    from benchmarks import train_step_profile

    found = train_step_profile.profile(
        FLAGS.records_dir, FLAGS.model, FLAGS.dtype_policy, FLAGS.batch_size, FLAGS.steps
    )
    print(json.dumps(found), flush=True)


def main() -> None:
    """Measures."""
    {"run": _run, "keras": _keras, "profile": _profile}[FLAGS.side]()


if __name__ == "__main__":
    app.run(main)
