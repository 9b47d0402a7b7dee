r"""Trains a grid of settings, one run after the other, and ranks them on validation examples.

--base is a flag file of launch.train: all that the runs have in common. It is not given as --flagfile, which would be
read as flags of this command. Every other flag of launch.train that holds one value may be varied too, by --vary.

Each run is a folder in --sweep_dir, such as lr=0.05,wd=0.001,seed=1. The same command again resumes where it was
interrupted: finished runs are kept, an interrupted one is resumed, failed ones are tried again. Further values may be
given later. The test split is never evaluated. docs/guides/sweep.md explains the results.

Examples:
  python -m launch.sweep --base=eurosat_rgb_resnet50_scratch.flags --records_dir=records/rgb \
      --sweep_dir=runs/sweep --learning_rate=0.02,0.05,0.1 --weight_decay=0.001,0.005 --seed=1,2,3
  python -m launch.sweep --base=runs/a/flags.txt --sweep_dir=runs/smoothing --vary=label_smoothing=0,0.1 --seed=1,2,3
  tensorboard --logdir=runs/sweep
"""

from __future__ import annotations

import os
import pathlib
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from eo_keras.core import files
from eo_keras.core.options import Option, all_fields
from eo_keras.errors import EOKerasError, OptionError
from eo_keras.records import data_card as cards
from eo_keras.sweeps import grid, report, state
from eo_keras.sweeps import sweep as sweeps
from eo_keras.training.options import TrainingOptions
from launch import app, flag_files, options, path_flags, train

FLAGS = flags.FLAGS

_SAME_IN_ALL_RUNS = {
    "records_dir": "runs on other records cannot be compared",
    "validation_from_train": "runs must be compared on equally many examples",
}
_LISTS = ("learning_rate", "weight_decay", "seed")
_SHOWN = ("epoch", "warning")
"""Prefixes of the lines of a run that are shown; all lines are in its log."""

_ASKED_EVERY = 0.2
"""Seconds between two checks of whether to stop."""


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path(
        "base",
        None,
        "Flag file of launch.train that all runs begin with; not to be given as --flagfile.",
        required=True,
        **where,
    )
    path_flags.define_path("sweep_dir", None, "Folder of the sweep: new, or one to resume.", required=True, **where)
    path_flags.define_path("records_dir", None, "Records folder made by launch.build. Default: the base's.", **where)
    flags.DEFINE_list("learning_rate", [], "Learning rates, such as 0.02,0.05,0.1. Default: the base's.", **where)
    flags.DEFINE_list("weight_decay", [], "Weight decays. Default: the base's.", **where)
    flags.DEFINE_list(
        "seed", [], "Seeds; the table holds means and deviations over them. Default: the base's.", **where
    )
    flags.DEFINE_multi_string(
        "vary",
        [],
        "NAME=V1,V2: another flag of launch.train with its values; none stands for leaving it out",
        **where,  # absl itself adds that the flag may be repeated.
    )
    flags.DEFINE_bool("stop_on_error", False, "Whether to end after the first run that fails.", **where)


def training_flags(base: str, records_dir: str | None, overrides: Mapping[str, Any] | None = None) -> flags.FlagValues:
    """Reads the base's flag file as launch.train would, with some flags set otherwise.

    Raises:
        OptionError: if it is missing, holds anything but flags of launch.train, or a value cannot be parsed.
    """
    values = flags.FlagValues()
    train.define_flags(values)
    app.define_flags(values)
    # The base's own folder, and how it was begun, do not apply to the runs.
    argv = [train.__name__, "--records_dir=", "--run_dir=", f"--flagfile={base}"]
    if records_dir is not None:
        argv.append(f"--records_dir={records_dir}")
    given = overrides or {}
    argv += [f"--{name}={grid.format_value(value)}" for name, value in given.items() if value is not None]
    try:
        flag_files.parse(values, argv, named_by="--base")
    except flags.Error as error:
        raise OptionError(f"--base={base}", f"{error}", "a flag file of launch.train") from None
    if not values.records_dir:
        raise OptionError("--records_dir", "neither it nor the base names records", "a folder made by launch.build")
    for name in (name for name, value in given.items() if value is None):
        values[name].value = None
    return values


def varied_flags(flag_values: flags.FlagValues, base: flags.FlagValues) -> dict[str, list[Any]]:
    """Returns the values of each varied flag, parsed as launch.train's flag.

    Raises:
        OptionError: if a flag is unknown, cannot be varied or is given twice, or a value cannot be parsed.
    """
    given = [(name, flag_values[name].value) for name in _LISTS if flag_values[name].present or flag_values[name].value]
    for text in flag_values.vary:
        name, equals, rest = text.partition("=")
        if not equals:
            raise OptionError("--vary", f"'{text}'", "NAME=V1,V2")
        given.append((name.strip().removeprefix("--"), [value.strip() for value in rest.split(",")] if rest else []))
    varied: dict[str, list[Any]] = {}
    known = {field.name: field.option for field in all_fields(TrainingOptions)}
    present = options.aliases(base)
    for name, texts in given:
        name = present.get(name, name)
        if name not in known:
            raise OptionError(
                f"--vary={name}", "launch.train has no such flag", remedy="see python -m launch.train --help"
            )
        if reason := _not_varied(name, known[name]):
            raise OptionError(f"--vary={name}", f"it cannot be varied: {reason}", "another flag")
        if isinstance(base[name].parser, flags.BaseListParser):
            raise OptionError(f"--vary={name}", "it holds a list, whose commas would divide the values", "another flag")
        if name in varied:
            raise OptionError(f"--{name}", "it is varied twice", "all of its values at one place")
        varied[name] = [_value(base[name], text) for text in texts]
    return varied


def _not_varied(name: str, declared: Option) -> str:
    """Returns the reason why a flag cannot be varied; an empty text where it can."""
    if not declared.repeatable:
        return "the sweep sets it itself"
    if name in _SAME_IN_ALL_RUNS:
        return _SAME_IN_ALL_RUNS[name]
    return "" if declared.affects_result else "it does not change what is computed"


def _value(flag: flags.Flag, text: str) -> Any:
    if text == "none" and flag.default is None:
        return None
    try:
        value = flag.parser.parse(text)
        if text == "" or value in (float("inf"), float("-inf")) or value != value:
            raise ValueError("no finite number" if text else "no value")
    except (ValueError, TypeError) as error:
        raise OptionError(f"--{flag.name}", f"'{text}' ({error})", f"values of kind {flag.flag_type()}") from None
    return value


def make_plan(
    base: str, records_dir: str | None, sweep_dir: str, points: Sequence[Mapping[str, Any]]
) -> list[grid.PlannedRun]:
    """Returns a run for each point of the grid.

    Raises:
        OptionError: if launch.train would refuse its flags; the run is named.
    """
    plan = []
    for point in points:
        name = grid.run_name(point)
        try:
            values = training_flags(base, records_dir, point)
            values.run_dir, values.resume, values.overwrite = os.path.join(sweep_dir, name), False, False
            plan.append(grid.PlannedRun(point, options.read(TrainingOptions, values), app.flags_text(values)))
        except EOKerasError as error:
            raise grid.named(name, error) from None
    return plan


def train_in_process(
    planned: grid.PlannedRun,
    mode: str,
    log: str | os.PathLike[str],
    flags_file: str | os.PathLike[str],
    *,
    show: Callable[[str], None],
    stop: Callable[[], bool],
) -> str:
    """Trains a run by launch.train in its own process; to stop, sends SIGTERM and waits for the checkpoint.

    Args:
        planned: the run.
        mode: how it is started, see `sweeps.read_status`.
        log: file to which the output of the process is appended.
        flags_file: file of its flags.
        show: called with each line.
        stop: called several times a second; whether to stop.

    Returns:
        An empty text if it ended well, otherwise its last error line.
    """
    command = [sys.executable, "-m", train.__name__, f"--flagfile={flags_file}", f"--run_dir={planned.options.run_dir}"]
    command += ["--resume"] if mode == sweeps.RESUME else []
    last, signaled, rest = "", False, b""
    with files.storage_errors(log), open(log, "ab", buffering=0) as file:
        file.write(f"$ {' '.join(command[1:])}\n".encode())
        # In a process group of its own: of Ctrl-C in a terminal the run would hear twice, and end at once.
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
        ) as process:
            try:
                ended = False
                while not ended:
                    if stop() and not signaled:
                        process.send_signal(signal.SIGTERM)
                        signaled = True
                    if not select.select([process.stdout], [], [], _ASKED_EVERY)[0]:
                        continue
                    block = os.read(process.stdout.fileno(), 1 << 16)
                    file.write(block)
                    ended = not block
                    *lines, rest = (rest + block + (b"\n" if ended and rest else b"")).split(b"\n")
                    for line in (line.decode(errors="replace").rstrip() for line in lines):
                        show(line)
                        if line and (": error: " in line or ": error: " not in last):
                            last = line
            except BaseException:
                # Whether it has received one before or not, a second signal ends it at once.
                process.kill()
                raise
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        memory = ", perhaps by the system for want of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{memory}"
    if process.returncode:
        return last.partition(": error: ")[2] or last or f"its process ended with code {process.returncode}"
    return ""


def main() -> None:
    """Runs the command."""
    base = training_flags(FLAGS.base, FLAGS.records_dir)
    varied = varied_flags(FLAGS, base)
    points = grid.expand(varied)
    cards.read_data_card(base.records_dir)
    app.import_tensorflow_quietly()
    plan = make_plan(FLAGS.base, FLAGS.records_dir, FLAGS.sweep_dir, points)
    current = sweeps.open_sweep(FLAGS.sweep_dir, app.own_flags(base), plan)
    _describe(current, plan, varied)
    if FLAGS.dry_run:
        print(f"dry run: {len(plan)} runs fit, nothing was written to {FLAGS.sweep_dir}")
        return
    folder = pathlib.Path(FLAGS.sweep_dir)

    def say(line: str) -> None:
        app.say(line)

    with app.StopOnSignal() as stop:

        def run(planned: grid.PlannedRun, mode: str) -> str:
            return train_in_process(
                planned,
                mode,
                folder / state.LOGS_DIR / f"{planned.name}.log",
                folder / state.FLAGS_DIR / f"{planned.name}.flags",
                show=lambda line: say(f"  {line}") if line.startswith(_SHOWN) else None,
                stop=stop.received,
            )

        current = sweeps.sweep(
            folder,
            app.own_flags(base),
            plan,
            run,
            report=say,
            stop=stop.received,
            stop_on_error=FLAGS.stop_on_error,
        )
    _print_results(current)
    if stop.received():
        raise app.Stopped(stop.signal)
    names = {planned.name for planned in plan}
    if failed := [one for one in current.results if one.status == state.FAILED and one.name in names]:
        log = folder / state.LOGS_DIR / f"{failed[0].name}.log"
        raise EOKerasError(
            f"{len(failed)} of {len(plan)} runs",
            f"failed, the first of them {failed[0].name}: {failed[0].problem}",
            remedy=f"see {log}; the same command tries again",
        )


def _describe(current: state.Sweep, plan: Sequence[grid.PlannedRun], varied: Mapping[str, Sequence[Any]]) -> None:
    results = {result.name: result for result in current.results}
    for name, values in varied.items():
        print(f"{name}: {', '.join(grid.format_value(value) for value in values)}")
    what = current.monitor.title
    print(f"chosen: the setting by {what} on validation examples ({current.validation}), never by the test split")
    statuses = [results[planned.name].status for planned in plan]
    counts = ", ".join(f"{statuses.count(one)} {one}" for one in dict.fromkeys(statuses))
    print(f"runs:   {len(plan)} ({counts})", flush=True)
    if FLAGS.dry_run:
        for planned in plan:
            print(f"  {planned.name}  {results[planned.name].status}")


def _print_results(current: state.Sweep) -> None:
    """Prints the table, and the command of the next step."""
    table = report.table(current)
    print("\n".join(["", *table.lines(), "", *report.cautions(current)]))
    print(f"{FLAGS.sweep_dir}: {report.TABLE_NAME}, {report.CSV_NAME}, {report.FIGURE_NAME}")
    best = report.best_of(report.settings_of(current.results))
    if best is not None and all(one.status in (state.FINISHED, state.FAILED) for one in current.results):
        first = next(one for one in current.results if best.values.items() <= one.settings.items())
        # The commas of a pattern would divide it.
        pattern = first.name.replace(",", "?")
        if grid.SEED in current.varied and len(first.settings) > 1:
            pattern = f"{pattern.rpartition('=')[0]}=*"
        app.say(f"next: python -m launch.evaluate --run_dir='{os.path.join(FLAGS.sweep_dir, pattern)}' --split=test")


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
