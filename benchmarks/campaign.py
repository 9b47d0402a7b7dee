r"""Trains and evaluates the planned runs of a campaign, and writes their scores into one JSON file.

A plan is a folder docs/results/campaigns/NAME; benchmarks.campaign_plan says what is in it. The first seed goes through
all rows before the second one begins. Each run is a folder RUNS_DIR/ROW-SEED, made by launch.train and evaluated once
by launch.evaluate. The same command again resumes where it was interrupted: evaluated runs are kept, an interrupted one
is resumed, failed ones are tried again. results.json is written after each run; benchmarks.report makes the page of it.
Rows in it that another machine made are kept, where a plan compares none: a campaign may be spread over machines.

Examples:
  python -m benchmarks.campaign --plan=docs/results/campaigns/ombria --runs_dir=runs/ombria
  python -m benchmarks.campaign --plan=docs/results/campaigns/ombria --runs_dir=runs/ombria --rows=late,early --seeds=1
  python -m benchmarks.campaign --plan=docs/results/campaigns/ombria --runs_dir=runs/ombria --collect
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import campaign_curve, campaign_plan, campaign_scores, harness
from benchmarks.campaign_plan import EVALUATED, INTERRUPTED, TRAINED, Plan, PlannedRun
from eo_keras.core import files
from eo_keras.errors import EOKerasError, OptionError
from eo_keras.sweeps import sweep as sweeps
from launch import app, path_flags, sweep

FLAGS = flags.FLAGS

_LOGS_DIR, _FLAGS_DIR = "logs", "flags"
_LIMIT_SECONDS = 6 * 3600

_TO_DO = {
    EVALUATED: "nothing, it is evaluated",
    TRAINED: "evaluate",
    INTERRUPTED: "resume and evaluate",
    campaign_plan.WAITING: "train and evaluate",
}


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path("plan", None, "Folder of the plan.", required=True, **where)
    path_flags.define_path("runs_dir", None, "Folder of the run folders.", required=True, **where)
    path_flags.define_path(
        "records_dir", None, "Records folder instead of the plan's; {fold} and {seed} are replaced.", **where
    )
    path_flags.define_path(
        "output",
        None,
        "JSON file to write. Default: results.json in the plan's folder; in --runs_dir where scores in that one would "
        "be lost.",
        **where,
    )
    flags.DEFINE_list("rows", [], "Rows to run. Default: all.", **where)
    flags.DEFINE_list("seeds", [], "Seeds to run. Default: all.", **where)
    flags.DEFINE_bool("next", False, "Run the next open run alone.", **where)
    flags.DEFINE_bool("collect", False, "Run nothing: only write the scores of what is evaluated.", **where)
    flags.DEFINE_integer("resamples", campaign_scores.RESAMPLES, "Resamples of intervals.", lower_bound=1, **where)


def train(run: PlannedRun, show: Callable[[str], None], stop: Callable[[], bool]) -> str:
    """Trains a run, or resumes it, in a process of its own.

    Returns:
        An empty text if it ended well, otherwise its last error line.
    """
    flags_file = run.folder.parent / _FLAGS_DIR / f"{run.name}.flags"
    for folder in (flags_file.parent, _log(run).parent):
        files.make_folder(folder)
    files.write_text(flags_file, run.training.flags_text)
    mode = sweeps.RESUME if run.state() == INTERRUPTED else sweeps.NEW
    return sweep.train_in_process(run.training, mode, _log(run), flags_file, show=show, stop=stop)


def evaluate(run: PlannedRun) -> None:
    """Evaluates a trained run; evaluations that are there are kept.

    Raises:
        MeasurementError: if one fails.
    """
    for words in run.evaluation_commands():
        said, _ = harness.run_command([sys.executable, "-m", *words], _LIMIT_SECONDS)
        with files.storage_errors(_log(run)), open(_log(run), "a", encoding="utf-8") as log:
            log.write(said)


def _log(run: PlannedRun) -> pathlib.Path:
    return run.folder.parent / _LOGS_DIR / f"{run.name}.log"


def collect(
    plan: Plan,
    planned: Sequence[PlannedRun],
    output: pathlib.Path,
    resamples: int,
    made_elsewhere: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Writes the scores of all evaluated runs of a plan.

    Args:
        plan: the plan.
        planned: its runs.
        output: the JSON file.
        resamples: number of resamples of intervals.
        made_elsewhere: rows of the plan's results file that are kept.

    Raises:
        RunError: if a run has other flags than the plan says, or evaluations do not fit each other.
        StorageError: if the file cannot be written.
    """
    found = campaign_scores.results(plan, campaign_plan.complete(planned), resamples, made_elsewhere)
    files.make_folder(output.parent)
    files.write_json(output, found)
    if plan.curve:
        files.write_bytes(output.parent / campaign_plan.CURVE_NAME, campaign_curve.curve_png(plan, found))
    listed = ", ".join(f"{row['name']} {','.join(map(str, row['seeds']))}" for row in found["rows"]) or "none yet"
    app.say(f"{output}: rows and seeds {listed}")


def run_open(
    planned: Sequence[PlannedRun],
    *,
    report: Callable[[str], None],
    stop: Callable[[], bool],
    after: Callable[[], None],
    only_next: bool = False,
) -> list[str]:
    """Trains and evaluates all runs that are open, one after the other.

    Args:
        planned: the runs, in order.
        report: called with lines for the user.
        stop: whether to return; a training that is interrupted by it has saved its state.
        after: called after each run that was evaluated.
        only_next: whether to return after the first one.

    Returns:
        A line for each run that failed.
    """
    failed = []
    for run in planned:
        if stop():
            break
        state = run.state()
        if state == EVALUATED:
            continue
        report(f"{run.name}: {_TO_DO[state]}")
        problem = ""
        if state != TRAINED:
            problem = train(run, lambda line: report(f"  {line}") if line.startswith("epoch") else None, stop)
        if stop():
            break  # It was interrupted, which is no failure.
        if not problem:
            try:
                evaluate(run)
                after()
            except EOKerasError as error:
                problem = str(error)
        if problem:
            failed.append(f"{run.name}: {problem}")
            report(f"  failed: {problem}")
        if only_next:
            break
    return failed


def rows_made_elsewhere(plan: Plan, planned: Sequence[PlannedRun], here: Collection[str]) -> list[dict[str, Any]]:
    """Returns the rows of the plan's results file whose runs are elsewhere: on another machine, or moved away.

    They are of the plan's flags and of the same records. A plan that compares has none, for that needs the runs.

    Args:
        plan: the plan.
        planned: its runs.
        here: names of the rows of which runs were begun here, or will be.
    """
    if plan.compare:
        return []
    of_name = {run.name: run for run in planned}

    def as_planned(row, run):
        found = of_name.get(run["name"])
        return found and (run["data_fingerprint"], row["flags"]) == (found.data_fingerprint, found.row.flags)

    return [
        row for row in _kept_rows(plan) if row["name"] not in here and all(as_planned(row, run) for run in row["runs"])
    ]


def default_output(
    plan: Plan, runs_dir: str, states: Mapping[str, str], made_elsewhere: Sequence[Mapping[str, Any]] = ()
) -> pathlib.Path:
    """Returns the file that scores are written to: in the plan's folder unless scores there would be lost.

    Args:
        plan: the plan.
        runs_dir: folder of the run folders.
        states: state of each planned run, by name.
        made_elsewhere: rows of the file there that are kept.
    """
    kept = {row["name"] for row in made_elsewhere}
    names = [run["name"] for row in _kept_rows(plan) if row["name"] not in kept for run in row["runs"]]
    if all(states.get(name) == EVALUATED for name in names):
        return plan.folder / campaign_plan.RESULTS_NAME
    return pathlib.Path(runs_dir) / campaign_plan.RESULTS_NAME


def _kept_rows(plan: Plan) -> list[dict[str, Any]]:
    path = plan.folder / campaign_plan.RESULTS_NAME
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []


def _chosen(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Returns the runs of the rows and seeds that the flags name, all by default."""
    kinds = {"rows": [run.row.name for run in planned], "seeds": [str(run.seed) for run in planned]}
    for name, there in kinds.items():
        if absent := [value for value in FLAGS[name].value if value not in there]:
            raise OptionError(f"--{name}", f"{absent[0]}", f"some of {', '.join(dict.fromkeys(there))}")
    return [
        run
        for run, row, seed in zip(planned, *kinds.values(), strict=True)
        if row in (FLAGS.rows or [row]) and seed in (FLAGS.seeds or [seed])
    ]


def main() -> None:
    """Runs the command."""
    plan = campaign_plan.read_plan(FLAGS.plan)
    app.import_tensorflow_quietly()
    planned = campaign_plan.planned_runs(plan, FLAGS.runs_dir, FLAGS.records_dir)
    chosen = _chosen(planned)
    # What another run's folder holds shows before hours are spent on the first.
    states = {run.name: run.state() for run in planned}
    begun = [run for run in planned if states[run.name] != campaign_plan.WAITING]
    here = {run.row.name for run in (begun if FLAGS.collect else [*begun, *chosen])}
    # A file of the user's own holds the scores of the runs here alone.
    kept = [] if FLAGS.output else rows_made_elsewhere(plan, planned, here)
    output = pathlib.Path(FLAGS.output or default_output(plan, FLAGS.runs_dir, states, kept))
    if FLAGS.dry_run:
        left = [run for run in chosen if states[run.name] != EVALUATED]
        for run in left[:1] if FLAGS.next else chosen:
            print(f"  {run.name}: {_TO_DO[states[run.name]]}")
        print(f"dry run: {len(left)} of {len(chosen)} runs are open; would write {output}")
        return
    if FLAGS.collect:
        collect(plan, planned, output, FLAGS.resamples, kept)
        return
    with app.StopOnSignal() as stop:
        failed = run_open(
            chosen,
            report=app.say,
            stop=stop.received,
            after=lambda: collect(plan, planned, output, FLAGS.resamples, kept),
            only_next=FLAGS.next,
        )
        if stop.received():
            raise app.Stopped(stop.signal)
    if failed:
        raise EOKerasError(
            f"{len(failed)} of {len(chosen)} runs",
            f"failed, the first of them {failed[0]}",
            remedy=f"see {pathlib.Path(FLAGS.runs_dir) / _LOGS_DIR}; the same command tries again",
        )


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
