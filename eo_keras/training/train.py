"""Training of a model, from options to run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

from eo_keras.data import pipeline as pipelines
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.training import distribution, notices, workers
from eo_keras.training.options import TrainingOptions
from eo_keras.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class TrainingReport:
    """Result of a training run.

    Attributes:
        card: the kept model's card; None if no epoch has been completed.
        history: one entry an epoch, see `runs.HISTORY_NAME`.
        seconds: time taken by this process.
        resumed_from: number of steps that were already done.
        stopped: whether the run was stopped before its end.
    """

    card: model_cards.ModelCard | None
    history: tuple[dict[str, Any], ...]
    seconds: float
    resumed_from: int = 0
    stopped: bool = False


def train(
    options: TrainingOptions,
    *,
    flags_text: str = "",
    progress: Callable[[str, int, int], None] | None = None,
    report: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
    dry_run: bool = False,
) -> TrainingReport | None:
    """Trains a model and writes a run folder.

    Under strategy `multi_worker` every worker calls this with the same options; the first one writes the run folder,
    which the others must be able to read when a run is resumed.

    Args:
        options: options of the run.
        flags_text: content of the folder's `flags.txt`.
        progress: called with (stage, done, total) steps.
        report: called with lines for the user, before training and after each epoch.
        stop: called after every step; whether to save a checkpoint and return.
        dry_run: check and report everything, but train and write nothing.

    Returns:
        Its result; None in a dry run.

    Raises:
        OptionError: if options cannot work together.
        RecordsError: if the records cannot be used.
        BandError: if they do not hold the bands.
        SourceError: if the weights cannot be read.
        RunError: if the run folder holds something else, is in use, or its checkpoint does not fit.
        StorageError: if the run folder cannot be written.
        TrainingError: if the loss is not finite; the step is named. Or if another worker is not reached or lost.
    """
    started, report = time.monotonic(), report or (lambda line: None)
    worker = distribution.this_worker(options.strategy)
    if worker.is_chief:
        runs.check_folder(options.run_dir, resume=options.resume, overwrite=options.overwrite)
    stop = stop or (lambda: False)
    if worker.count > 1 and not workers.meet(worker, options.worker_wait, report, stop):
        return TrainingReport(None, (), time.monotonic() - started, stopped=True)
    # Before TensorFlow touches a device, or the workers would not find each other.
    distribution.prepare_devices(
        virtual_devices=options.virtual_devices, deterministic=options.deterministic, seed=options.seed
    )
    with workers.interruptible() if worker.count > 1 else contextlib.nullcontext():
        strategy = distribution.make_strategy(options.strategy, virtual_devices=options.virtual_devices)
    records = pipelines.RecordDataset(options.records_dir)
    with workers.named_when_lost(worker):
        trainer = Trainer(options, records, strategy, worker, stop)
    for line in notices.lines(trainer):
        report(line)
    if not options.resume:
        # Before anything is written: a resumed run has taken steps already.
        with workers.named_when_lost(worker):
            trainer.trace()
    if dry_run:
        return None
    folder = contextlib.nullcontext()
    if worker.is_chief:
        folder = runs.run_folder(
            options.run_dir, resume=options.resume, overwrite=options.overwrite, flags_text=flags_text
        )
    with workers.named_when_lost(worker), folder as output:
        trainer.output = output or trainer.output
        if options.resume:
            trainer.restore(report)
        resumed_from = trainer.steps_done
        try:
            stopped = trainer.run(progress, report, flags_text)
        finally:
            trainer.report_warnings(report)
    history = tuple(trainer.selection.history)
    card = model_cards.read_model_card(options.run_dir) if history and worker.is_chief else None
    return TrainingReport(card, history, time.monotonic() - started, resumed_from, stopped)
