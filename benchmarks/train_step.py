r"""Measures training steps: launch.train beside bare loops of Keras and of PyTorch; or, under JAX, all models.

Under TensorFlow every side is a process of its own, and all sides run one after the other in each round, in turned
order in every second one. Ours is launch.train itself on a records folder, with augmentation, metrics and progress;
what counts is the rate that its history tells. The peers take steps on one batch in memory and do nothing else. PyTorch
lives in the peers' environment: make bench-peers.

Under JAX (KERAS_BACKEND=jax) each model takes some steps on one batch in the device's memory and is saved; another
process then asks the saved models under TensorFlow about the same images.

Examples:
  python -m benchmarks.train_step --runs=5 --steps=20
  python -m benchmarks.train_step --policies=float32 --profile
  KERAS_BACKEND=jax python -m benchmarks.train_step --models=all --batch_size=16
  python -m benchmarks.train_step --check_saved=runs/train_step_jax
"""

import contextlib
import datetime
import json
import os
import pathlib
import sys
import tempfile
from typing import Any

from absl import flags

from benchmarks import comparison, measuring, train_step_jax, train_step_works
from eo_keras.core import files
from eo_keras.doctor import machine as doctor
from eo_keras.errors import OptionError
from launch import app, path_flags

FLAGS = flags.FLAGS

flags.DEFINE_list("models", ["resnet50"], "Architectures to train, or all.")
flags.DEFINE_list(
    "policies",
    None,
    "Precisions to train in: float32, mixed_bfloat16. Default: float32; mixed_bfloat16 too where the processor has it.",
)
flags.DEFINE_integer("batch_size", 64, "Examples in a step.", lower_bound=1)
flags.DEFINE_integer("steps", 20, "Steps that are timed on each side; under JAX, all but the first of them.")
flags.DEFINE_integer("slow_steps", 2, "Steps in mixed_bfloat16 where the processor has no instructions for it.")
path_flags.define_path(
    "output", None, "JSON file to write. Default: docs/results/train_step.json, train_step_jax.json under JAX."
)
flags.DEFINE_integer("runs", 5, "Rounds.", lower_bound=1)
flags.DEFINE_list(
    "virtual_devices",
    ["0", "2"],
    "Numbers of devices to split the processor into, each a side of ours; 0 leaves it whole. The first is the one that "
    "is compared with the targets.",
)
path_flags.define_path("records_dir", None, "Records folder of RGB patches. Default: one of the generated world.")
flags.DEFINE_integer("patches_per_class", 200, "Size of the generated world's records.", lower_bound=20)
path_flags.define_path("work_dir", "data/train_step", "Folder that generated records are kept in.")
path_flags.define_path("peers_python", ".venv-peers/bin/python", "The peers' interpreter; empty leaves PyTorch out.")
flags.DEFINE_bool("profile", False, "Whether to tell, too, what a step of the first model spends its time on.")
flags.DEFINE_enum("optimizer", "sgd", list(train_step_jax.RATES), "JAX: the optimizer.")
path_flags.define_path("saved_dir", None, "JAX: folder to keep the trained models in. Default: a temporary one.")
path_flags.define_path("check_saved", None, "Only ask the models of a --saved_dir under TensorFlow, and compare.")


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _policies(default: list[str]) -> list[str]:
    chosen = FLAGS.policies or default
    for policy in chosen:
        if policy not in train_step_works.POLICIES:
            raise OptionError("policies", f"'{policy}'", f"some of {', '.join(train_step_works.POLICIES)}")
    return chosen


def _models() -> list[str]:
    """Returns the models that are asked for; imports Keras."""
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
    policies = _policies([*train_step_works.POLICIES] if has_bfloat16 else ["float32"])
    names = _models()
    try:
        devices = tuple(int(number) for number in FLAGS.virtual_devices)
    except ValueError:
        raise OptionError("virtual_devices", ",".join(FLAGS.virtual_devices), "numbers separated by commas") from None
    if not devices:
        raise OptionError("virtual_devices", "none are given", "0 for the whole processor")
    python = measuring.peers_python(FLAGS.peers_python) if FLAGS.peers_python else None
    output = FLAGS.output or "docs/results/train_step.json"
    if FLAGS.dry_run:
        print(f"dry run: would train {', '.join(names)} in {', '.join(policies)}, {FLAGS.runs} rounds; to {output}")
        return
    work_dir = pathlib.Path(FLAGS.work_dir).resolve()
    if FLAGS.records_dir:
        records = pathlib.Path(FLAGS.records_dir).resolve()
    else:
        records = train_step_works.make_records(files.make_folder(work_dir), FLAGS.patches_per_class)
    result: dict[str, Any] = {
        "runs": FLAGS.runs,
        "steps": FLAGS.steps,
        "batch_size": FLAGS.batch_size,
        "patch_size": train_step_works.PATCH_SIZE,
        "warm_steps": train_step_works.WARM_STEPS,
        "records": train_step_works.describe_records(str(records)),
        "machine": measuring.machine() | {"bfloat16": has_bfloat16},
    }
    names_of_paths = {str(records): "RECORDS_DIR"} | ({python: "PEERS_PYTHON"} if python else {})
    measured: dict[str, Any] = {}

    def settings_of(name: str, policy: str) -> train_step_works.Settings:
        steps = FLAGS.steps if policy == "float32" or has_bfloat16 else min(FLAGS.steps, FLAGS.slow_steps)
        return train_step_works.Settings(
            name, policy, FLAGS.batch_size, steps, str(records), devices, peers_python=python
        )

    for name in names:
        for policy in policies:
            settings = settings_of(name, policy)
            print(settings.title, flush=True)
            found = train_step_works.measure(settings, FLAGS.runs, names_of_paths)
            measured |= {key: work | {"steps": settings.steps, "date": _today()} for key, work in found.items()}
            # Written after every one, for all of them take long.
            written = train_step_works.write(output, result, measured)
    if FLAGS.profile:
        result["profiles"] = []
        for policy in policies:
            command = train_step_works.side_command("profile", settings_of(names[0], policy))
            found, _ = measuring.run_command(command)
            result["profiles"].append(measuring.figures(found))
            print("\n".join(train_step_works.profile_lines(result["profiles"][-1])))
        written = train_step_works.write(output, result, measured)
    print("\n".join(comparison.table(written["works"])))
    for one in written["targets"]:
        print(train_step_works.verdict_line(one))


def _under_jax() -> None:
    train_step_jax.keep_tensorflow_out()
    names, policies = _models(), _policies(["float32"])
    if FLAGS.steps < 2:
        raise OptionError("steps", f"{FLAGS.steps}", "2 or more: the first one is not timed")
    output = FLAGS.output or "docs/results/train_step_jax.json"
    if FLAGS.dry_run:
        print(f"dry run: would train {', '.join(names)} in {', '.join(policies)} under JAX and write {output}")
        return
    result: dict[str, Any] = {
        "steps": FLAGS.steps,
        "batch_size": FLAGS.batch_size,
        "patch_size": train_step_works.PATCH_SIZE,
        "optimizer": FLAGS.optimizer,
        "date": _today(),
        "machine": measuring.machine(),
        **train_step_jax.device(),
        "models": {name: {} for name in names},
    }
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(FLAGS.saved_dir or stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        train_step_jax.begin(files.make_folder(folder))
        for name in names:
            for policy in policies:
                settings = train_step_jax.Settings(policy, FLAGS.optimizer, FLAGS.batch_size, FLAGS.steps)
                found = train_step_jax.train(name, settings, folder)
                result["models"][name][policy] = found
                print(f"{name} in {policy}: {train_step_jax.line(found)}", flush=True)
        train_step_jax.keep_tensorflow_out()
        command = (sys.executable, "-m", "benchmarks.train_step", f"--check_saved={folder}")
        differences = measuring.figures(measuring.run_command(command)[0])
    for name in names:
        for policy, found in result["models"][name].items():
            found |= differences[train_step_jax.key(name, policy)]
    files.write_json(output, result)
    print("\n".join(train_step_jax.table(result)))


def _check() -> None:
    train_step_jax.choose_tensorflow()
    app.import_tensorflow_quietly()
    print(json.dumps(train_step_jax.check_saved(pathlib.Path(FLAGS.check_saved))), flush=True)


def main() -> None:
    """Measures."""
    if FLAGS.check_saved:
        _check()
    elif os.environ.get("KERAS_BACKEND") == "jax":
        _under_jax()
    else:
        _side_by_side()


if __name__ == "__main__":
    app.run(main)
