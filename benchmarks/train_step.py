r"""Measures training steps: launch.train beside bare loops of Keras and of PyTorch.

Every side is a process of its own, and all sides run one after the other in each round, in turned order in every second
one. Ours is launch.train itself on a records folder, with augmentation, metrics and progress; what counts is the rate
in its history after an epoch that does not count. The peers take steps on one batch in memory and do nothing else.
PyTorch lives in the peers' environment: make bench-peers.

With --side one side is measured in this process and printed as a line of JSON: `run` is launch.train, `keras` is
Keras's own compile and train_on_batch with the same network, optimizer and batch.

Example: python -m benchmarks.train_step --runs=5 --steps=20
"""

import csv
import dataclasses
import math
import pathlib
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import harness
from benchmarks.harness import OURS, PEER, Side, Work
from eo_keras.core import files
from eo_keras.doctor import machine as doctor
from eo_keras.errors import OptionError
from eo_keras.records import data_card as cards
from eo_keras.runs import folder as runs
from launch import app, path_flags

FLAGS = flags.FLAGS

TARGETS = {"keras": 0.97, "torch": 1.0}
"""What share of a peer's rate the whole run should at least reach."""

POLICIES = ("float32", "mixed_bfloat16")
PATCH_SIZE = 64
"""Of EuroSAT and of the generated world."""

WARM_STEPS = 3
"""Steps that the bare loops take before they are timed; our run takes a whole epoch."""

_IN_TORCH = ("resnet50", "resnet101")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is trained, and on which sides.

    Attributes:
        model: a name of `eo_keras.models.MODELS`.
        dtype_policy: one of `POLICIES`.
        batch_size: examples in a step.
        steps: steps that are timed on each side.
        records_dir: the records folder that our run reads.
        virtual_devices: numbers of devices to split the processor into, a side of ours each; the first is compared
            with the targets. 0 leaves the processor whole.
        peers_python: the peers' interpreter; None leaves PyTorch out.
    """

    model: str
    dtype_policy: str
    batch_size: int
    steps: int
    records_dir: str
    virtual_devices: tuple[int, ...] = (0, 2)
    peers_python: str | None = None

    @property
    def title(self) -> str:
        """What the table calls it."""
        return f"{self.model} in {self.dtype_policy}, {PATCH_SIZE}x{PATCH_SIZE} pixels, batches of {self.batch_size}"

    def targets(self, peer: str) -> dict[str, float]:
        """Returns the ratio to reach beside a peer; PyTorch's bfloat16 is measured without one."""
        return {OURS: TARGETS[peer]} if peer == "keras" or self.dtype_policy == "float32" else {}


def make_records(work_dir: pathlib.Path, patches_per_class: int) -> pathlib.Path:
    """Returns a records folder of the generated world's RGB patches, made unless it is there already."""
    from tfrecords_builder.synthetic import archives

    folder, source = work_dir / f"records-{patches_per_class}", work_dir / f"eurosat_rgb-{patches_per_class}.zip"
    if not (folder / cards.DATA_CARD_NAME).is_file():
        print(f"generating {10 * patches_per_class:,} patches", flush=True)
        archives.write_eurosat_archive(source, kind="rgb", patches_per_class=patches_per_class)
        harness.run_command(harness.module("launch.build", dataset="eurosat_rgb", source=source, output_dir=folder))
    return folder


def describe_records(records_dir: str) -> dict[str, Any]:
    """Returns facts of a records folder that are kept with the figures.

    Raises:
        RecordsError: if it has no card.
        MeasurementError: if its patches are not what the peers train on.
    """
    card = cards.read_data_card(records_dir)
    found = (card.patch_size, len(card.bands), len(card.legend))
    if found != (PATCH_SIZE, 3, 10):
        raise harness.MeasurementError(
            "--records_dir",
            "patches of {0}x{0} pixels, {1} bands and {2} classes".format(*found),
            f"what the peers train on: {PATCH_SIZE}x{PATCH_SIZE} pixels, 3 bands and 10 classes",
            "build them with launch.build --dataset=eurosat_rgb, or leave --records_dir out",
        )
    return {
        "dataset": card.dataset,
        "data_fingerprint": card.fingerprint,
        "train_examples": card.splits["train"].examples,
        "bands": list(card.bands),
    }


def side_command(side: str, settings: Settings, **more: Any) -> tuple[str, ...]:
    """Returns the command that measures one side of ours, or the bare loop of Keras."""
    given = {"models": settings.model, "policies": settings.dtype_policy, "batch_size": settings.batch_size}
    given |= {"steps": settings.steps, "records_dir": settings.records_dir}
    return harness.module("benchmarks.train_step", side=side, **given, **more)


def make_works(settings: Settings) -> dict[str, Work]:
    """Returns a work for each peer: Keras's bare loop, with every division of the processor, and PyTorch's."""
    ours = {}
    for place, devices in enumerate(settings.virtual_devices):
        split = f", processor split into {devices} devices" if devices else ""
        ours[f"devices_{devices}" if place else OURS] = Side(
            f"launch.train: records, augmentation, metrics, progress{split}",
            side_command("run", settings, virtual_devices=devices),
        )
    sides = {
        "keras": ours
        | {PEER: Side("Keras: compile, then train_on_batch on one array", side_command("keras", settings))}
    }
    if settings.peers_python and settings.model in _IN_TORCH:
        command = harness.peer(
            settings.peers_python,
            "train_step.py",
            model=settings.model,
            batch_size=settings.batch_size,
            steps=settings.steps,
            dtype_policy=settings.dtype_policy,
            warm_steps=WARM_STEPS,
        )
        title = "PyTorch: torchvision's network, channels_last, on one array"
        sides["torch"] = {OURS: ours[OURS], PEER: Side(title, command)}
    key, timed = (
        f"{settings.model}_{settings.dtype_policy}",
        "steps after the first ones, without validation and checkpoints",
    )
    return {
        f"{key}_{name}": Work(settings.title, "images/s", timed, chosen, settings.targets(name))
        for name, chosen in sides.items()
    }


def _run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder) / "run"
        command = harness.module(
            "launch.train",
            records_dir=FLAGS.records_dir,
            run_dir=run_dir,
            model=FLAGS.models[0],
            batch_size=FLAGS.batch_size,
            epochs=2,
            steps_per_epoch=FLAGS.steps,
            dtype_policy=FLAGS.policies[0],
            virtual_devices=FLAGS.virtual_devices[0],
        )
        harness.run_command(command)
        with open(run_dir / runs.HISTORY_NAME, encoding="utf-8", newline="") as file:
            # In the first epoch the step was traced and the memory was allocated.
            last = list(csv.DictReader(file))[-1]
    examples = FLAGS.batch_size * FLAGS.steps
    harness.report(examples, examples / float(last["images_per_second"]), last_loss=float(last["loss"]))


def _keras() -> None:
    app.import_tensorflow_quietly()
    import keras
    import numpy as np

    from eo_keras import models
    from eo_keras.training import options as training_options

    card = cards.read_data_card(FLAGS.records_dir)
    options = training_options.TrainingOptions(FLAGS.records_dir, "").optimizer
    spec = models.NetworkSpec.of_card(card, patch_size=PATCH_SIZE, dtype_policy=FLAGS.policies[0], seed=1)
    model = models.logits_model(models.build(FLAGS.models[0], spec)[0])
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
        raise harness.MeasurementError("--side=keras", f"a loss is not finite: {losses}")
    harness.report(FLAGS.batch_size * FLAGS.steps, seconds, first_loss=losses[0], last_loss=losses[-1])


def _policies(default: list[str]) -> list[str]:
    chosen = FLAGS.policies or default
    for policy in chosen:
        if policy not in POLICIES:
            raise OptionError("policies", f"'{policy}'", f"some of {', '.join(POLICIES)}")
    return chosen


def _models() -> list[str]:
    """Returns the models to train; imports Keras."""
    from eo_keras import models

    # The peers and the data of this benchmark are of patches.
    patches = [name for name, model in models.MODELS.items() if model.task == "classification"]
    chosen = patches if FLAGS.models == ["all"] else FLAGS.models
    if unknown := [name for name in chosen if name not in patches]:
        raise OptionError("models", f"'{unknown[0]}'", f"all, or some of {', '.join(patches)}")
    return chosen


def _side_by_side() -> None:
    app.import_tensorflow_quietly()
    has_bfloat16 = doctor.has_bfloat16()
    policies = _policies([*POLICIES] if has_bfloat16 else ["float32"])
    names = _models()
    try:
        devices = tuple(int(number) for number in FLAGS.virtual_devices)
    except ValueError:
        raise OptionError("virtual_devices", ",".join(FLAGS.virtual_devices), "numbers separated by commas") from None
    if not devices:
        raise OptionError("virtual_devices", "none are given", "0 for the whole processor")
    python = harness.peers_python(FLAGS.peers_python) if FLAGS.peers_python else None
    if FLAGS.dry_run:
        print(
            f"dry run: would train {', '.join(names)} in {', '.join(policies)}, {FLAGS.runs} rounds; to {FLAGS.output}"
        )
        return
    work_dir = pathlib.Path(FLAGS.work_dir).resolve()
    if FLAGS.records_dir:
        records = pathlib.Path(FLAGS.records_dir).resolve()
    else:
        records = make_records(files.make_folder(work_dir), FLAGS.patches_per_class)
    facts = {
        "steps": FLAGS.steps,
        "batch_size": FLAGS.batch_size,
        "patch_size": PATCH_SIZE,
        "warm_steps": WARM_STEPS,
        "bfloat16": has_bfloat16,
        "records": describe_records(str(records)),
    }
    paths = {str(records): "RECORDS_DIR"} | ({python: "PEERS_PYTHON"} if python else {})
    works = {}
    for name in names:
        for policy in policies:
            steps = FLAGS.steps if policy == "float32" or has_bfloat16 else min(FLAGS.steps, FLAGS.slow_steps)
            works |= make_works(Settings(name, policy, FLAGS.batch_size, steps, str(records), devices, python))
    harness.record(FLAGS.output, works.items(), FLAGS.runs, facts, paths)


_SIDES = {"run": _run, "keras": _keras}


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    flags.DEFINE_list("models", ["resnet50"], "Architectures to train, or all classifiers.", **where)
    flags.DEFINE_list(
        "policies",
        None,
        "Precisions to train in: float32, mixed_bfloat16. Default: float32; mixed_bfloat16 too where the processor has "
        "it.",
        **where,
    )
    flags.DEFINE_integer("batch_size", 64, "Examples in a step.", lower_bound=1, **where)
    flags.DEFINE_integer("steps", 20, "Steps that are timed on each side.", lower_bound=1, **where)
    flags.DEFINE_integer(
        "slow_steps", 2, "Steps in mixed_bfloat16 where the processor has no instructions for it.", **where
    )
    path_flags.define_path("output", "docs/results/train_step.json", "JSON file to write.", **where)
    flags.DEFINE_integer("runs", 5, "Rounds.", lower_bound=1, **where)
    flags.DEFINE_list(
        "virtual_devices",
        ["0", "2"],
        "Numbers of devices to split the processor into, each a side of ours; 0 leaves it whole. The first is the one "
        "that is compared with the targets.",
        **where,
    )
    path_flags.define_path(
        "records_dir", None, "Records folder of RGB patches. Default: one of the generated world.", **where
    )
    flags.DEFINE_integer("patches_per_class", 200, "Size of the generated world's records.", lower_bound=20, **where)
    path_flags.define_path("work_dir", "data/train_step", "Folder that generated records are kept in.", **where)
    path_flags.define_path(
        "peers_python", ".venv-peers/bin/python", "The peers' interpreter; empty leaves PyTorch out.", **where
    )
    flags.DEFINE_enum(
        "side",
        None,
        list(_SIDES),
        "Measure one side only, of the first model and precision; needs --records_dir.",
        **where,
    )


def main() -> None:
    """Measures."""
    if FLAGS.side:
        _SIDES[FLAGS.side]()
    else:
        _side_by_side()


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
