"""One training run: devices, data, model, the loop over steps, checkpoints, and the run folder that comes out.

The loop is our own and not `keras.Model.fit`: a loss counts over the global batch, batches depend on seed and step
alone, several workers take part, a run goes on to the bit where it was stopped, and a step that goes wrong is named.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from eo_keras import models, tasks
from eo_keras.data import holdouts
from eo_keras.data import pipeline as pipelines
from eo_keras.errors import OptionError, RunError
from eo_keras.plots import curves
from eo_keras.records import data_card as cards
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.sensors.sentinel2 import parse_bands
from eo_keras.tasks.predictor import Predictor
from eo_keras.training import checkpoints, distribution, moments, notices, phases, transfer, workers
from eo_keras.training import epoch as epochs
from eo_keras.training import step as stepping
from eo_keras.training.epoch import EpochProgress
from eo_keras.training.options import TrainingOptions, check_resumable, check_task
from eo_keras.training.tensorboard import NUM_SAMPLES, TensorBoardLogger

_CHECK_STEPS = 20
"""After so many steps the losses are fetched from the device; to do so at each step would hold a GPU up."""


@dataclasses.dataclass(frozen=True)
class TrainingReport:
    """What a run came to.

    Attributes:
        card: the kept model's card; None if no epoch has been completed.
        history: one entry an epoch, see `runs.HISTORY_NAME`.
        seconds: time taken by this process.
        resumed_from: number of steps that were already done.
        stopped: whether the run was asked to stop before its end.
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
    which the others must be able to read when a run is gone on with.

    Args:
        options: what to do.
        flags_text: what goes into the folder's `flags.txt`.
        progress: called with (stage, done, total) steps.
        report: called with lines for the user: what is going to be done, and one an epoch.
        stop: asked after every step whether to save a checkpoint and return.
        dry_run: check and report everything, but train and write nothing.

    Returns:
        What it came to; None in a dry run.

    Raises:
        OptionError: if options cannot work together.
        RecordsError: if the records cannot be used.
        BandError: if they do not hold the bands.
        SourceError: if the weights cannot be read.
        RunError: if the run folder holds something else, is in use, or its checkpoint does not fit.
        StorageError: if the run folder cannot be written.
        TrainingError: if the loss is not finite; the step is named. Or if another worker does not come or is lost.
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
        training = _Training(options, records, strategy, worker, stop)
    for line in notices.lines(training):
        report(line)
    if not options.resume:
        # Before anything is written: a resumed run has taken steps already.
        with workers.named_when_lost(worker):
            training.trace()
    if dry_run:
        return None
    folder = contextlib.nullcontext()
    if worker.is_chief:
        folder = runs.run_folder(
            options.run_dir, resume=options.resume, overwrite=options.overwrite, flags_text=flags_text
        )
    with workers.named_when_lost(worker), folder as output:
        training.output = output or training.output
        if options.resume:
            training.restore(report)
        resumed_from = training.steps_done
        try:
            stopped = training.run(progress, report, flags_text)
        finally:
            training.tell(report)
    card = model_cards.read_model_card(options.run_dir) if training.history and worker.is_chief else None
    return TrainingReport(card, tuple(training.history), time.monotonic() - started, resumed_from, stopped)


class _Training:
    """The parts of a run, and the loop over them."""

    def __init__(
        self,
        options: TrainingOptions,
        records: pipelines.RecordDataset,
        strategy: tf.distribute.Strategy,
        worker: distribution.Worker = distribution.ALONE,
        stop: Callable[[], bool] = lambda: False,
    ):
        distribution.check_batch_size(options.batch_size, strategy)
        options.check_devices(strategy.num_replicas_in_sync)
        self.options, self.records, self.strategy, self.worker = options, records, strategy, worker
        self.asked_to_stop = distribution.StopConsensus(stop, strategy, worker)
        self.output = runs.output_folder(options.run_dir)
        self.card = records.card
        check_task(options, self.card)
        self.task, self.bands = tasks.of(self.card), parse_bands(options.bands, self.card.bands)
        if too_large := [size for size in options.progressive_sizes if size >= self.card.patch_size]:
            raise OptionError("progressive_sizes", f"{too_large[0]}", f"less than the patches' {self.card.patch_size}")
        self._open_pipelines()
        self.steps = options.steps_per_epoch or self.pipeline.steps
        with strategy.scope():
            self._build()
        # Of several workers the first one alone looks at validation examples, on a device of its own.
        with contextlib.nullcontext() if worker.count > 1 else strategy.scope():
            self.twin = models.inference_model(self.model, self.card.patch_size)
        names = self.card.legend.class_names
        self.predictor = Predictor(self.twin, self.task, names, None if worker.count > 1 else strategy)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.committed: dict[str, Any] | None = None
        self.under_way = EpochProgress()

    @property
    def steps_done(self) -> int:
        """Number of steps that were taken so far."""
        return len(self.history) * self.steps + len(self.under_way.losses)

    def _open_pipelines(self) -> None:
        options, kept, held_out = self.options, None, None
        self.validation_name = None
        if "val" in self.card.splits and self.card.splits["val"].examples:
            split, self.validation_name = "val", "the split val"
        elif options.validation_from_train:
            split = "train"
            division = holdouts.hold_out(self.records, options.validation_from_train, options.seed)
            kept, held_out, self.validation_name = division.kept, division.held_out, division.name
        settings = pipelines.PipelineOptions(
            batch_size=options.batch_size,
            bands=self.bands,
            seed=options.seed,
            augmentation=self.task.augmentation(options),
            cache=options.cache_gb > 0,
            cache_limit_bytes=int(options.cache_gb * 1e9),
        )
        self.pipeline = pipelines.TrainingDataset(
            self.records, settings, part=kept, input_context=self.worker.input_context
        )
        self.validation, self.validation_count = None, 0
        if self.validation_name:
            # One limit for all that is kept.
            left = settings.cache_limit_bytes - self.pipeline.kept_bytes
            settings = dataclasses.replace(settings, cache_limit_bytes=left)
            self.validation = pipelines.evaluation(self.records, settings, split, part=held_out, with_keys=True)
            self.validation_count = self.records.count(split, held_out)
        else:
            few = dataclasses.replace(settings, batch_size=min(8, options.batch_size), cache=False)
            self.sample = pipelines.evaluation(self.records, few, "train").take(1)

    def _build(self) -> None:
        options, card = self.options, self.card
        self.start = transfer.start_of(options, self.records)
        spec = models.NetworkSpec.of_card(
            card,
            self.bands,
            patch_size=options.input_size(card),
            stem=options.stem,
            weights=self.start.weights,
            synchronized=self.strategy.num_replicas_in_sync > 1,
            dtype_policy=options.dtype_policy,
            dropout=options.dropout,
            seed=options.seed,
            **self.task.network(options),
        )
        self.model, self.initialisation = models.build(options.model, spec)
        self.few_values = None
        if not options.frozen_batch_norm:
            smallest = min(filter(None, map(self._image_size, range(options.epochs))))
            self.few_values = moments.check_batch(self.model, smallest, options.batch_size)
        self.normalisation = self.model.get_layer("normalisation")
        self.averages = []
        if options.ema:
            self.averages = [tf.Variable(weight.numpy(), trainable=False) for weight in self.model.weights]
        loss = self.task.loss(options, card)
        self.stepper = stepping.TrainStep(self.model, self.strategy, options, loss, self.averages)
        self.phases = phases.make_phases(options, self.model, self.steps)
        distribution.desynchronize_dropout(models.seed_states(self.model), self.strategy, self.worker)
        self.groups = {
            "weights": self.model.weights,
            "random": models.seed_states(self.model),
            "averages": self.averages,
            **{f"optimizer-{phase.title}": phase.optimizer.variables for phase in self.phases},
        }

    def _phase_of(self, epoch: int) -> phases.Phase:
        return next(phase for phase in reversed(self.phases) if epoch >= phase.first_epoch)

    def _image_size(self, epoch: int) -> int:
        """Returns height and width of what an epoch is trained on."""
        return self.task.crop(self.options) or self.options.image_size(epoch) or self.card.patch_size

    def trace(self) -> None:
        """Traces the run's steps, each kind of them once, so that a run that cannot take them is refused.

        Raises:
            OptionError: if a step cannot be computed.
        """
        if self.worker.count > 1:
            return  # All workers would have to trace at the same place.
        sizes = {epoch: self.options.image_size(epoch) for epoch in range(self.options.epochs)}
        kinds = {(self._phase_of(epoch).title, size): epoch for epoch, size in sizes.items()}
        for (_, size), epoch in kinds.items():
            dataset = distribution.distributed(self.strategy, self.worker, self.pipeline.steps_from(0, 1, size=size))
            self.stepper.enter(self._phase_of(epoch))
            try:
                self.stepper.trace(*dataset.element_spec)
            except (ValueError, TypeError, tf.errors.OpError) as error:
                raise OptionError(
                    "training",
                    f"a step cannot be computed ({str(error).splitlines()[0]})",
                    "options that fit the records and the model",
                ) from error

    def run(self, progress, report, flags_text: str) -> bool:
        """Trains the epochs that are left; tells whether it was stopped before the last one."""
        options = self.options
        if len(self.history) == options.epochs:
            report(f"all {options.epochs} epochs are already done")
            self._draw_curves()  # Which a run lacks that was killed at its very end.
            return False
        self.tell(report)
        monitor = TensorBoardLogger(self.output, flags_text)
        for epoch in range(len(self.history), options.epochs):
            if not self._take_steps(epoch, progress, monitor):
                report(f"stopped behind step {self.steps_done}, which is saved; go on with `resume`")
                return True
            row = self.under_way.row(epoch, options.batch_size, self._rate)
            points = self.under_way.curves(epoch, self._rate, self.steps)
            improved = False
            if self.worker.is_chief:
                improved = self._end_epoch(row, points, monitor, progress)
            self.history.append(row)
            self.under_way = EpochProgress()
            if self.worker.is_chief:
                self.committed = checkpoints.commit(self.output, self._state(), self.committed)
                self._write_history()
                if improved:
                    self._write_card()
            self.tell(report)
            report(epochs.line(row, self.task.metrics, improved))
            if self.worker.is_chief and (matter := self._moments_matter(row)):
                report(f"warning: {matter}")
            if epoch + 1 < options.epochs and self.asked_to_stop():
                report(f"stopped behind epoch {epoch + 1}, which is saved; go on with `resume`")
                return True
        self._draw_curves()
        if self.worker.is_chief:
            # What lies on the disk may have been damaged since it was written.
            checkpoints.check_whole(self.options.run_dir, runs.read_state(self.options.run_dir))
        return False

    def tell(self, report) -> None:
        """Tells what in the run folder was left alone or got another name."""
        for line in self.output.take_warnings():
            report(f"warning: {line}")

    def _draw_curves(self) -> None:
        if self.worker.is_chief:
            names = list(self.history[0])
            columns = {name: [math.nan if row[name] is None else row[name] for row in self.history] for name in names}
            title = f"{self.options.model} on {self.card.dataset}"
            figure = curves.training_curves_png(columns, title, self.task.loss_note(self.options), self.task.metrics)
            self.output.write({runs.CURVES_NAME: figure})

    def _take_steps(self, epoch: int, progress, monitor: TensorBoardLogger) -> bool:
        """Takes the steps that are left of an epoch; tells whether it came to the epoch's end."""
        options, part, first = self.options, self.under_way, epoch * self.steps
        self.stepper.enter(self._phase_of(epoch))
        done, started = len(part.losses), time.monotonic()
        dataset = self.pipeline.steps_from(first + done, self.steps - done, size=options.image_size(epoch))
        batches = iter(distribution.distributed(self.strategy, self.worker, dataset))
        pending: list[Any] = []
        for number, batch in enumerate(pipelines.reading(self.records, batches), done + 1):
            pending.append(self.stepper(*batch))
            last = number == self.steps
            due = bool(options.checkpoint_steps) and (first + number) % options.checkpoint_steps == 0
            stop = self.asked_to_stop.after(first + number)
            if len(pending) == _CHECK_STEPS or last or due or stop:
                part.add(pending, first, epoch)
                pending.clear()
                if self.worker.is_chief and not last:
                    monitor.steps(epoch + 1, part.curves(epoch, self._rate, self.steps))
            if progress:
                progress(f"epoch {epoch + 1}/{options.epochs}", number, self.steps)
            if (due or stop) and not last:
                part.seconds += time.monotonic() - started
                if self.worker.is_chief:
                    self._write_variables()
                    self.committed = checkpoints.commit(self.output, self._state(), self.committed)
                if stop:
                    return False
                started = time.monotonic()
        part.seconds += time.monotonic() - started
        return True

    def _rate(self, epoch: int, step: int) -> float:
        return self._phase_of(epoch).rate(epoch, step)

    def _end_epoch(self, row: dict[str, Any], points: list, monitor: TensorBoardLogger, progress) -> bool:
        """Validates an epoch and writes all but the state, which makes it count; tells whether it is the best yet."""
        epoch, started, found, metric = row["epoch"], time.monotonic(), None, self.task.monitor
        models.copy_weights(self.model, self.twin, self.averages or None)
        if self.validation is not None:
            stage = f"epoch {epoch} validation"
            found = self.predictor(self.records, self.validation, stage, progress, samples=NUM_SAMPLES)
            scores = self.task.validation(found.predictions)
            epochs.check_validation(scores, epoch - 1)
            row |= {f"val_{name}": value for name, value in scores.items()}
        else:
            ((image, *_),) = self.sample
            epochs.check_probabilities(self.twin(image, training=False).numpy(), epoch - 1)
        row["seconds"] = round(row["seconds"] + time.monotonic() - started, 3)
        improved = self.best is None or found is None
        if not improved:
            improved = epochs.rank(row, metric) > epochs.rank(self.history[self.best["epoch"] - 1], metric)
        if improved:
            self.best = {
                "split": self.validation_name,
                "metric": metric.name if self.validation_name else None,
                "value": row[metric.column] if self.validation_name else None,
                "epoch": epoch,
            }
        with self.output.new_path(f"{runs.CHECKPOINT_DIR}/{checkpoints.model_name(epoch)}") as path:
            runs.save_model(self.twin, path)
        self._write_variables()
        pictures = {}
        if found and (improved or epoch == self.options.epochs):
            pictures = self.task.figures(found, self.card, self.bands, f"Validation, epoch {epoch}")
        monitor.epoch(row, points, pictures)
        return improved

    def _moments_matter(self, row: dict[str, Any]) -> str | None:
        """Tells whether validation fails because batch normalisation's moving moments do not describe the network."""
        if self.validation is None or not row["val_loss"] > moments.FAR * row["loss"]:
            return None
        return moments.disagreement(self.twin, next(iter(self.validation)))

    def _write_variables(self) -> None:
        with self.output.new_path(f"{runs.CHECKPOINT_DIR}/{checkpoints.step_name(self.steps_done)}") as path:
            checkpoints.write_variables(path, self.groups)

    def _write_history(self) -> None:
        self.output.write({runs.HISTORY_NAME: runs.history_bytes(self.history)})

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": len(self.history),
            "variables": checkpoints.step_name(self.steps_done),
            "best": self.best,
            "history": self.history,
            "under_way": dataclasses.asdict(self.under_way),
            "data_fingerprint": self.card.fingerprint,
            "options": self.options.comparable(),
        }

    def restore(self, report: Callable[[str], None]) -> None:
        """Goes back to the newest checkpoint that is whole.

        Raises:
            RunError: if it was made with other options or other records, or is damaged.
        """
        folder = pathlib.Path(self.options.run_dir)
        check_resumable(self.options, runs.read_state(folder), self.card.fingerprint)
        state, problem = checkpoints.choose(folder)
        checkpoints.read_variables(folder / runs.CHECKPOINT_DIR / state["variables"], self.groups)
        distribution.desynchronize_dropout(self.groups["random"], self.strategy, self.worker)
        self.history, self.best, self.committed = state["history"], state["best"], copy.deepcopy(state)
        if self.best and self.best["split"] != self.validation_name:
            raise RunError(
                folder,
                f"its epochs were chosen by {self.best['split']}",
                f"{self.validation_name}, which this version holds out",
                "train again in another run folder",
            )
        self.under_way = EpochProgress(**state["under_way"])
        if problem:
            report(f"warning: {problem}")
            report(f"warning: going on from the checkpoint before it, behind step {self.steps_done}")
        if self.worker.is_chief:
            checkpoints.publish(self.output, state)
            TensorBoardLogger.cut(self.output, len(self.history))
            self._write_history()
            if self.best and self.best["epoch"] != runs.epoch_of_card(folder):
                self._write_card()

    def _write_card(self) -> None:
        """Writes the card of the best model."""
        options, card, layer = self.options, self.card, self.normalisation
        written = model_cards.ModelCard(
            model=options.model,
            task=card.task,
            dataset=card.dataset,
            data_fingerprint=card.fingerprint,
            bands=self.bands,
            dtype=card.dtype,
            level=card.level,
            reflectance=card.reflectance,
            nodata=card.nodata,
            resolution_m=card.resolution_m,
            patch_size=card.patch_size,
            normalisation={"mean": layer.mean, "std": layer.std, "scale": layer.scale},
            legend=card.legend,
            parameters=self.twin.count_params(),
            initialisation=self.initialisation.summary(),
            flags=cards.to_json(options),
            selection=dict(self.best),
            scores={},
            versions=runs.versions(),
            attribution=card.attribution,
        )
        self.output.write(model_cards.contents(written))
