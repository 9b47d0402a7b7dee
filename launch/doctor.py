"""Checks this machine before a build or a training run, and names remedies.

Checked are the versions, the processor, its memory and cores, oneDNN and GPUs as TensorFlow uses them, the speeds of
bfloat16 and of the disk, the space on it, and the flags of a training run. Exit code 0: nothing stands in the way; 2:
there is a problem.

Examples:
  python -m launch.doctor
  python -m launch.doctor --dataset=eurosat_ms --source=data/EuroSAT_MS.zip --output_dir=records/ms
  python -m launch.doctor --check_flags=runs/a/flags.txt
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from absl import flags

from eo_keras.doctor import machine as doctor
from eo_keras.errors import EOKerasError, OptionError
from eo_keras.training.options import TrainingOptions
from launch import app, flag_files, options, path_flags, train
from tfrecords_builder import disk_usage

if TYPE_CHECKING:
    from eo_keras.doctor.tensorflow import Machine

FLAGS = flags.FLAGS


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    where = {"flag_values": flag_values, "module_name": __name__}
    path_flags.define_path("output_dir", ".", "Folder whose disk is measured: where records or runs shall go.", **where)
    flags.DEFINE_string(
        "dataset", None, "Data set whose build must fit on the disk, see launch.build; with --source.", **where
    )
    path_flags.define_path(
        "source", None, "Archive that the build shall read; only its listing is read.", urls=True, **where
    )
    path_flags.define_path(
        "check_flags",
        None,
        "Flag file of launch.train, such as a run's flags.txt: is any of it known to break here?",
        **where,
    )


def main() -> None:
    """Runs the command."""
    if (FLAGS.dataset is None) != (FLAGS.source is None):
        raise OptionError("--source", "one of --source and --dataset is missing", "both or none")
    given = training_flags(FLAGS.check_flags) if FLAGS.check_flags is not None else None
    needed, subject = None, ""
    if FLAGS.source is not None:
        usage = disk_usage.expected(FLAGS.dataset, FLAGS.source)
        needed, subject = usage.bytes, f"a build of {usage.patches:,} patches of {FLAGS.dataset}"
    variables = dict(os.environ)
    findings = []

    def show(area: str, probe, *arguments) -> list[doctor.Check]:
        checks = doctor.examine(area, probe, *arguments)
        findings.extend(checks)
        for finding in checks:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            app.say(f"{finding.area:<10} {finding.level:<8} {finding.what}{remedy}")
        return checks

    show("versions", doctor.versions)
    show("versions", doctor.gdal)
    show("processor", doctor.processor)
    show("memory", doctor.memory)
    show("limits", doctor.open_files)
    show("space", doctor.space, FLAGS.output_dir, needed, subject)
    if not FLAGS.dry_run:
        show("disk", doctor.disk, FLAGS.output_dir)
    # Without the instructions that it needs, TensorFlow would end this process too.
    if not any(finding.area == "processor" and finding.level == doctor.PROBLEM for finding in findings):
        show("TensorFlow", _examine_tensorflow, variables, given)
    if FLAGS.dry_run:
        print(f"dry run: would write {doctor.TEST_BYTES / 1e6:.0f} MB to {FLAGS.output_dir}, read and remove them")
    problems = [finding for finding in findings if finding.level == doctor.PROBLEM]
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise EOKerasError("this machine", f"{count}, the first of them: {problems[0].area}, {problems[0].what}")
    warnings = sum(finding.level == doctor.WARNING for finding in findings)
    print(f"nothing stands in the way; {warnings} warning{'' if warnings == 1 else 's'}")


def _examine_tensorflow(variables: dict[str, str], given: flags.FlagValues | None) -> list[doctor.Check]:
    findings = []

    def examine(area: str, probe, *arguments) -> None:
        findings.extend(doctor.examine(area, probe, *arguments))

    try:
        app.import_tensorflow_quietly()
        from eo_keras.doctor import tensorflow as doctor_tensorflow
    except Exception as error:
        what = f"TensorFlow or Keras cannot be imported ({type(error).__name__}: {error})"
        remedy = "pip install --upgrade eo-keras, in a new environment"
        return [doctor.Check("TensorFlow", doctor.PROBLEM, what, remedy)]
    examine("variables", doctor_tensorflow.environment, variables)
    examine("oneDNN", doctor_tensorflow.onednn)
    gpus = []
    # What it returns is no finding; only its failure is one.
    examine("GPU", lambda: gpus.extend(doctor_tensorflow.gpus()) or ())
    examine("GPU", doctor_tensorflow.devices, tuple(gpus))
    device, speed = "GPU:0" if gpus else "CPU:0", None

    def measure() -> list[doctor.Check]:
        nonlocal speed
        speed = doctor_tensorflow.bfloat16_speed(device)
        return doctor_tensorflow.bfloat16(speed, gpus[0].name if gpus else "the processor")

    examine("bfloat16", measure)
    if given is not None:
        findings += check_flags(given, doctor_tensorflow.this_machine(tuple(gpus), speed))
    return findings


def check_flags(given: flags.FlagValues, machine: Machine) -> list[doctor.Check]:
    """Checks flags of launch.train on a machine; flags that it refuses are problems with the same message."""
    from eo_keras.doctor import tensorflow as doctor_tensorflow

    def message(error: EOKerasError) -> str:
        return app.error_text(error, given)

    try:
        chosen = options.read(TrainingOptions, given)
    except EOKerasError as error:
        return [doctor.Check("flags", doctor.PROBLEM, message(error))]
    return doctor_tensorflow.check_training(chosen, machine, message)


def training_flags(path: str) -> flags.FlagValues:
    """Reads a flag file as launch.train would."""
    values = flags.FlagValues()
    train.define_flags(values)
    # A run's flags.txt lacks the flag of its own folder, which the command requires.
    argv = [train.__name__, "--records_dir=", "--run_dir=", f"--flagfile={path}"]
    flag_files.parse(values, argv, named_by="--check_flags")
    return values


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
