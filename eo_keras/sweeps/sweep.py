"""A sweep: one training run a point of a grid of settings, one after the other, kept in one folder.

    sweep.json          the base's flags, all runs with their results, and the summary; see `report`
    flags/NAME.flags    the flags of a run
    logs/NAME.log       output of its process
    NAME/               its run folder, such as lr=0.05,wd=0.001,seed=1
    tensorboard/        TensorBoard's table of hyperparameters, see `tensorboard`

The caller trains a run in a process of its own, for TensorFlow holds one set of devices a process.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from eo_keras import models, tasks
from eo_keras.core import files
from eo_keras.core.number_format import duration
from eo_keras.core.options import result_names, with_present_names
from eo_keras.core.output_folders import OutputFolder
from eo_keras.core.serialization import to_json
from eo_keras.errors import RunError
from eo_keras.metrics.metric import METRICS
from eo_keras.records import data_card as cards
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.sweeps import report as sweep_report
from eo_keras.sweeps.grid import PlannedRun, check, format_value, has_split
from eo_keras.sweeps.state import (
    FAILED,
    FINISHED,
    FLAGS_DIR,
    INTERRUPTED,
    KIND,
    LOGS_DIR,
    WAITING,
    RunStatus,
    Sweep,
    read_sweep,
    replaced,
)
from eo_keras.training.options import TrainingOptions, check_resumable

NEW, RESUME = "new", "resume"
"""Start of a run: in a folder without a checkpoint, or from the checkpoint in its folder."""


def read_status(planned: PlannedRun, data_fingerprint: str) -> tuple[RunStatus, str]:
    """Reads the progress of a run.

    Returns:
        Its status, and how to start it: `NEW` or `RESUME`.

    Raises:
        RunError: if its folder holds another run or something else, or its checkpoint cannot be read.
    """
    options = planned.options
    folder, monitor = pathlib.Path(options.run_dir), tasks.trained(models.MODELS[options.model], options).monitor
    result = RunStatus(planned.name, dict(planned.settings), metric=monitor.name)
    try:
        if not runs.has_checkpoint(folder):
            if (folder / runs.MODEL_NAME).exists():
                return _finished(planned, result, data_fingerprint), RESUME
            runs.check_folder(folder, resume=False, overwrite=False)
            return result, NEW
        state = runs.read_state(folder)
        check_resumable(planned.options, state, data_fingerprint)
    except RunError as error:
        where, found, expected, _ = error.args
        remedy = f"move {folder} away, and the run is trained again, or sweep into another folder"
        raise RunError(where, found, expected, remedy) from None
    path = folder / runs.CHECKPOINT_DIR / runs.STATE_NAME
    best, history = state["best"], state["history"]
    result = dataclasses.replace(
        result,
        status=INTERRUPTED,
        epochs=state["epoch"],
        seconds=sum(row["seconds"] for row in history) + state["under_way"].get("seconds", 0.0),
        ended=round((path if path.is_file() else folder).stat().st_mtime, 3),
    )
    if best is not None:
        result = _scored(result, best["epoch"], history)
    # The card is written after the state: a run that was killed between the two is finished by resuming it.
    if state["epoch"] >= planned.options.epochs and best and runs.epoch_of_card(folder) == best["epoch"]:
        result = dataclasses.replace(result, status=FINISHED)
    return result, RESUME


def _finished(planned: PlannedRun, result: RunStatus, data_fingerprint: str) -> RunStatus:
    """Returns the status of a run whose checkpoints are gone, by its card and its history.

    Raises:
        RunError: if it is another run, or was not trained to its end.
    """
    folder = pathlib.Path(planned.options.run_dir)
    card = model_cards.read_model_card(folder)
    check_resumable(
        planned.options, {"options": card.flags, "data_fingerprint": card.data_fingerprint}, data_fingerprint
    )
    history = runs.read_history(folder)
    if len(history) != planned.options.epochs:
        raise RunError(
            folder,
            f"it holds a model of {len(history)} of {planned.options.epochs} epochs, and no checkpoint to resume from",
        )
    result = dataclasses.replace(
        result,
        status=FINISHED,
        epochs=len(history),
        seconds=sum(row["seconds"] for row in history),
        ended=round((folder / runs.MODEL_NAME).stat().st_mtime, 3),
    )
    return _scored(result, card.selection["epoch"], history)


def _scored(result: RunStatus, best: int, history: Sequence[Mapping[str, Any]]) -> RunStatus:
    kept, last, name = history[best - 1], history[-1], f"val_{result.metric}"
    return dataclasses.replace(
        result,
        epoch=best,
        score=kept[name],
        loss=kept["val_loss"],
        last_score=last[name],
        last_loss=last["val_loss"],
    )


def output_folder(folder: str | os.PathLike[str]) -> OutputFolder:
    """Returns the `OutputFolder` of a sweep."""
    return OutputFolder(folder, KIND, RunError, overwritable=False)


def _names(plan: Sequence[PlannedRun]) -> list[str]:
    return [*sweep_report.NAMES, *map(_log, plan), *map(_flags, plan)]


def _log(planned: PlannedRun) -> str:
    return f"{LOGS_DIR}/{planned.name}.log"


def _flags(planned: PlannedRun) -> str:
    return f"{FLAGS_DIR}/{planned.name}.flags"


def open_sweep(folder: str | os.PathLike[str], base: Mapping[str, Any], plan: Sequence[PlannedRun]) -> Sweep:
    """Checks all runs of a sweep before the first one starts, and reads their progress; writes nothing.

    Args:
        folder: the sweep's folder; runs in it of an earlier sweep over the same base are kept.
        base: the base's flags by name.
        plan: the runs.

    Raises:
        EOKerasError: if a run cannot be trained, naming it, or the folder holds a sweep over another base.
    """
    plan, card = _checked(plan)
    first = plan[0].options
    varied = tuple(plan[0].settings)
    base = {name: value for name, value in to_json(base).items() if name not in varied}
    earlier = read_sweep(folder)
    if earlier is not None:
        _check_same(pathlib.Path(folder), earlier, base, varied, card.fingerprint)
    known = {result.name: result for result in earlier.results} if earlier else {}
    for planned in plan:
        result, _ = read_status(planned, card.fingerprint)
        before = known.get(planned.name)
        if before is not None:
            result = dataclasses.replace(result, wall_seconds=before.wall_seconds)
            if before.status == FAILED and result.status != FINISHED:
                result = dataclasses.replace(result, status=FAILED, problem=before.problem, ended=before.ended)
        known[planned.name] = result
    output_folder(folder).check(writes=_names(plan))
    validation = "the split val"
    if not has_split(card):
        validation = f"{first.validation_from_train:.1%} of the split train, held out, other examples for each seed"
    return Sweep(base, card.fingerprint, validation, tuple(known.values()))


def _check_same(
    folder: pathlib.Path, earlier: Sweep, base: Mapping[str, Any], varied: tuple[str, ...], fingerprint: str
) -> None:
    remedy = "sweep into another folder, or use the base that this one was begun with"
    if earlier.varied != varied:
        raise RunError(folder, f"it holds a sweep over {', '.join(earlier.varied)}", ", ".join(varied), remedy)
    before, changing = with_present_names(TrainingOptions, earlier.base), result_names(TrainingOptions)
    for name in dict.fromkeys((*before, *base)):
        was, now = _text(before.get(name)), _text(base.get(name))
        if name in changing and was != now:
            found = f"its sweep was begun with `{name}={was}` in the base"
            raise RunError(folder, found, f"`{name}={now}`, as the base says now", remedy)
    if earlier.data_fingerprint != fingerprint:
        raise RunError(
            folder,
            f"its sweep was begun on other records ({earlier.data_fingerprint[:12]})",
            f"the records of now ({fingerprint[:12]})",
            "sweep into another folder, or name the records that this one was begun on",
        )


def _text(value: Any) -> str:
    """Returns a flag's value as text, lists as numbers separated by commas."""
    return ",".join(map(format_value, value)) if isinstance(value, list) else format_value(value)


def _checked(plan: Sequence[PlannedRun]) -> tuple[list[PlannedRun], cards.DataCard]:
    """Returns the runs after `grid.check`, and the card of their records."""
    card = cards.read_data_card(plan[0].options.records_dir)
    return [check(planned, card) for planned in plan], card


def sweep(
    folder: str | os.PathLike[str],
    base: Mapping[str, Any],
    plan: Sequence[PlannedRun],
    run: Callable[[PlannedRun, str], str],
    *,
    report: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
    stop_on_error: bool = False,
) -> Sweep:
    """Trains all runs of a plan that are not finished yet, and writes the results after each one.

    Args:
        folder: the sweep's folder, made where it is missing.
        base: the base's flags by name.
        plan: the runs, in the order in which they shall be trained.
        run: trains one run, given how to start it, and returns an empty text, or the reason of a failure.
        report: called with lines for the user.
        stop: called after each run; whether to return.
        stop_on_error: whether to return after the first run that fails.

    Returns:
        The sweep with all results.

    Raises:
        EOKerasError: before the first run, see `open_sweep`, or if the folder is in use.
        StorageError: if the folder cannot be written.
    """
    report, stop = report or (lambda line: None), stop or (lambda: False)
    plan, _ = _checked(plan)
    open_sweep(folder, base, plan)
    output = output_folder(folder)
    with output.held(writes=_names(plan)):
        current = open_sweep(folder, base, plan)
        for name in (FLAGS_DIR, LOGS_DIR):
            files.make_folder(output.path(name))
        # Each log is written by its run's process.
        output.announce(_log(planned) for planned in plan)
        sweep_report.write(current, output)
        for number, planned, result in _unfinished(current, plan):
            report(f"run {number} of {len(plan)}: {planned.name}")
            output.write({_flags(planned): planned.flags_text.encode("utf-8")})
            begun = time.monotonic()
            _, mode = read_status(planned, current.data_fingerprint)
            problem = run(planned, mode)
            wall = round(time.monotonic() - begun, 3) if mode != RESUME else None
            result, _ = read_status(planned, current.data_fingerprint)
            if result.status == FINISHED:
                result = dataclasses.replace(result, wall_seconds=wall)
            elif not stop():
                problem = problem or "its process ended without an error, and left the run unfinished"
                result = dataclasses.replace(result, status=FAILED, problem=problem, ended=round(time.time(), 3))
            current = replaced(current, result)
            sweep_report.write(current, output)
            for line in output.take_warnings():
                report(f"warning: {line}")
            report(_line(result, planned, remaining_seconds(current, plan)))
            if stop() or (stop_on_error and result.status == FAILED):
                break
    return current


def _unfinished(current: Sweep, plan: Sequence[PlannedRun]) -> Iterator[tuple[int, PlannedRun, RunStatus]]:
    results = {result.name: result for result in current.results}
    for number, planned in enumerate(plan, 1):
        if results[planned.name].status != FINISHED:
            yield number, planned, results[planned.name]


def remaining_seconds(current: Sweep, plan: Sequence[PlannedRun]) -> float | None:
    """Estimates the seconds that the remaining runs take, from the finished ones; None without any.

    Failed ones do not count: they are tried again only when the sweep is started again.
    """
    results = {result.name: result for result in current.results}
    taken = [one.wall_seconds or one.seconds for one in current.results if one.status == FINISHED]
    if not taken:
        return None
    left = 0.0
    for planned in plan:
        result = results[planned.name]
        if result.status in (WAITING, INTERRUPTED):
            left += 1 - result.epochs / planned.options.epochs
    return left * math.fsum(taken) / len(taken)


def _line(result: RunStatus, planned: PlannedRun, remaining: float | None) -> str:
    if result.status == FINISHED:
        text = f"  kept epoch {result.epoch}: validation {METRICS[result.metric].title} {result.score:.2%}, "
        text += f"loss {result.loss:.4f}"
        text += f", {duration(result.seconds)}"
    elif result.status == FAILED:
        text = f"  failed: {result.problem}"
    else:
        text = f"  interrupted after {result.epochs} of {planned.options.epochs} epochs; the same command resumes it"
    return text + (f"; about {duration(remaining)} left" if remaining else "")
