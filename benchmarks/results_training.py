"""The section of docs/results.md on training steps, made of the JSON files of benchmarks.train_step."""

import json
import pathlib

from benchmarks import comparison, train_step_jax, train_step_works
from benchmarks.measured import measured


def section(folder: pathlib.Path, runs_and_machine) -> list[str]:
    """Returns the section's lines, as far as it was measured.

    Args:
        folder: the folder of the JSON files.
        runs_and_machine: turns a file's content into a sentence on repetitions, machine and versions.
    """
    lines, repeat = [], []
    if (path := folder / "train_step.json").is_file():
        found = json.loads(path.read_text())
        lines += [
            "",
            "## Training steps",
            "",
            f"Patches of {found['patch_size']}x{found['patch_size']} pixels, batches of {found['batch_size']}. Ours is "
            "`launch.train` itself, with records, augmentation, metrics and progress, validation and checkpoints left "
            f"out; the peers take steps on one batch in memory. {runs_and_machine(found)} The commands and every run "
            "are in [train_step.json](results/train_step.json).",
            "",
            *comparison.table(found["works"]),
            "",
            *(f"* {train_step_works.verdict_line(one)}." for one in found["targets"]),
        ]
        for profile in found.get("profiles", []):
            lines += ["", *(f"* {line[0].upper()}{line[1:]}." for line in train_step_works.profile_lines(profile))]
        command = f"python -m benchmarks.train_step --runs={found['runs']} --steps={found['steps']}"
        # Records that a measured run was trained on have a name; others are those that the command generates.
        known = {one.result["data_fingerprint"]: one.flags["records_dir"] for one in measured(folder)}
        if (name := known.get(found["records"]["data_fingerprint"])) is not None:
            command += f" --records_dir={name}"
        repeat.append(command + (" --profile" if "profiles" in found else ""))
    if (path := folder / "train_step_jax.json").is_file():
        found = json.loads(path.read_text())
        lines += [
            "",
            "### Every classifier under JAX",
            "",
            f"{found['steps']} steps on one batch of {found['batch_size']} in memory, {found['optimizer']}, by JAX "
            f"{found['versions']['jax']} on a {found['platform']}; then the saved `.keras` file asked about the same "
            "images under TensorFlow.",
            "",
            *train_step_jax.table(found),
        ]
        repeat.append(
            f"KERAS_BACKEND=jax python -m benchmarks.train_step --models=all --batch_size={found['batch_size']} "
            f"--steps={found['steps']}"
        )
    if repeat:
        lines += ["", "Repeat it:", "", "```", "make bench-peers", *repeat, "```"]
    return lines
