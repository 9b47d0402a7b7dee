"""The training loop: steps, epochs and checkpoints.

The loop is our own and not `keras.Model.fit`: a loss counts over the global batch, batches depend on seed and step
alone, several workers take part, a run resumes to the bit where it was stopped, and a step that fails is named.
"""

from __future__ import annotations

import copy
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from eo_keras import models, tasks
from eo_keras.core.serialization import to_json
from eo_keras.data import pipeline as pipelines
from eo_keras.errors import OptionError, RunError
from eo_keras.records.inputs import parse_inputs
from eo_keras.runs import folder as runs
from eo_keras.tasks.task import TrainingTask
from eo_keras.training import checkpoints, distribution, phases, transfer
from eo_keras.training import epoch as epochs
from eo_keras.training import step as stepping
from eo_keras.training.epoch import EpochProgress
from eo_keras.training.options import TrainingOptions, check_resumable
from eo_keras.training.selection import Selection, SelectionOptions
from eo_keras.training.setup import DataOptions, Network, NetworkOptions, TrainingData
from eo_keras.training.tensorboard import TensorBoardLogger
from eo_keras.training.validate import validate

_CHECK_STEPS = 20
"""Number of steps after which losses are fetched from the device; each fetch blocks a GPU."""

Progress = Callable[[str, int, int], None] | None


class Trainer:
    """A training run: set-up, loop, and selection of the epoch that is kept.

    Making one checks the options, opens the records and builds the network; nothing is written. Then `restore` resumes
    from a checkpoint, and `run` trains. A single step is `train_step`, after `train_step.enter(phases[0])`.

    Args:
        options: options of the run.
        records: the records folder.
        strategy: the strategy.
        worker: this worker.
        stop: called after every step; whether to save a checkpoint and return.

    Attributes:
        options: the options, defaults that depend on the records replaced by their values.
        task: the task.
        data: training and validation examples.
        network: the model.
        steps: steps in an epoch.
        phases: the phases of the run.
        train_step: takes a step.
        selection: history and best epoch.
        output: the run folder.

    Raises:
        OptionError: if options cannot work together, or do not fit the records.
        RecordsError: if the records cannot be used.
        BandError: if they lack a band.
        SourceError: if the weights cannot be read.
    """

    def __init__(
        self,
        options: TrainingOptions,
        records: pipelines.RecordDataset,
        strategy: tf.distribute.Strategy,
        worker: distribution.Worker = distribution.ALONE,
        stop: Callable[[], bool] = lambda: False,
    ):
        options = validate(options, records.card, strategy.num_replicas_in_sync)
        self.options, self.strategy, self.worker = options, strategy, worker
        self.task = tasks.trained(records.card, options)
        self.output = runs.output_folder(options.run_dir)
        self.data = TrainingData(records, _data_options(options, self.task, records), worker)
        self.steps = options.steps_per_epoch or self.data.train.steps
        self.network = Network(_network_options(options, self.task, records), self.data, strategy, worker)
        with strategy.scope():
            companion = self.task.companion(options, records.card)
            of_loss = () if companion is None else companion.variables
            self.train_step = stepping.TrainStep(
                self.network.model,
                strategy,
                stepping.StepOptions(options.ema, options.frozen_batch_norm, options.jit_compile),
                self.task.loss(options, records.card, companion),
                self.network.averages,
            )
            self.phases = phases.make_phases(_phase_options(options), self.network.model, self.steps, of_loss)
            distribution.desynchronize_dropout(models.seed_states(self.network.model), strategy, worker)
        self._groups = {
            "weights": self.network.model.weights,
            "random": models.seed_states(self.network.model),
            "averages": self.network.averages,
            "loss": of_loss,
            **{f"optimizer-{phase.title}": phase.optimizer.variables for phase in self.phases},
        }
        selecting = SelectionOptions(options.epochs, self.task.loss_note(options), to_json(options))
        alone = None if worker.count > 1 else strategy
        self.selection = Selection(selecting, self.data, self.network, self.task, alone)
        self._stop = distribution.StopConsensus(stop, strategy, worker)
        self._committed: dict[str, Any] | None = None
        self._epoch = EpochProgress()

    @property
    def steps_done(self) -> int:
        """Number of steps that were taken so far."""
        return len(self.selection.history) * self.steps + len(self._epoch.losses)

    def phase_of(self, epoch: int) -> phases.Phase:
        """Returns the phase of an epoch, counted from 0."""
        return next(phase for phase in reversed(self.phases) if epoch >= phase.first_epoch)

    def trace(self) -> None:
        """Traces each kind of the run's steps once, so that errors are raised before training.

        Raises:
            OptionError: if a step cannot be computed.
        """
        if self.worker.count > 1:
            return  # All workers would have to trace at the same place.
        sizes = {epoch: self.task.image_size(self.options, epoch) for epoch in range(self.options.epochs)}
        kinds = {(self.phase_of(epoch).title, size): epoch for epoch, size in sizes.items()}
        for (_, size), epoch in kinds.items():
            dataset = distribution.distributed(self.strategy, self.worker, self.data.train.steps_from(0, 1, size=size))
            self.train_step.enter(self.phase_of(epoch))
            try:
                self.train_step.trace(*dataset.element_spec)
            except (ValueError, TypeError, tf.errors.OpError) as error:
                raise OptionError(
                    "training",
                    f"a step cannot be computed ({str(error).splitlines()[0]})",
                    "options that fit the records and the model",
                ) from error

    def run(self, progress: Progress, report: Callable[[str], None], flags_text: str = "") -> bool:
        """Trains the epochs that are left.

        Args:
            progress: called with (stage, done, total) steps.
            report: called with lines for the user.
            flags_text: the run's flags, shown by TensorBoard.

        Returns:
            Whether it was stopped before the last one.

        Raises:
            TrainingError: if the loss is not finite; the step is named.
            StorageError: if the run folder cannot be written.
        """
        options, selection, chief = self.options, self.selection, self.worker.is_chief
        if len(selection.history) == options.epochs:
            report(f"all {options.epochs} epochs are already done")
            if chief:
                selection.write_curves(self.output)  # Which a run lacks that was killed at its very end.
            return False
        self.report_warnings(report)
        logger = TensorBoardLogger(self.output, flags_text)
        for epoch in range(len(selection.history), options.epochs):
            if not self._take_steps(epoch, progress, logger):
                report(f"stopped after step {self.steps_done}; checkpoint saved; continue with `resume`")
                return True
            row = self._epoch.row(epoch, options.batch_size, self._rate)
            points, improved = self._epoch.curves(epoch, self._rate, self.steps), False
            if chief:
                improved = selection.end_epoch(row, points, self.output, logger, progress)
                self._write_variables(self.steps_done)
            selection.history.append(row)
            self._epoch = EpochProgress()
            if chief:
                self._commit()
                selection.write_history(self.output)
                if improved:
                    selection.write_card(self.output)
            self.report_warnings(report)
            report(epochs.line(row, self.task.metrics, improved))
            if chief and (warning := selection.warning(row)):
                report(f"warning: {warning}")
            if epoch + 1 < options.epochs and self._stop():
                report(f"stopped after epoch {epoch + 1}; checkpoint saved; continue with `resume`")
                return True
        if chief:
            selection.write_curves(self.output)
            # What lies on the disk may have been damaged since it was written.
            checkpoints.check_whole(options.run_dir, runs.read_state(options.run_dir))
        return False

    def report_warnings(self, report: Callable[[str], None]) -> None:
        """Reports files of the run folder that were left or renamed."""
        for line in self.output.take_warnings():
            report(f"warning: {line}")

    def _take_steps(self, epoch: int, progress: Progress, logger: TensorBoardLogger) -> bool:
        """Takes the steps that are left of an epoch; returns whether its end was reached."""
        options, done_so_far, first = self.options, self._epoch, epoch * self.steps
        self.train_step.enter(self.phase_of(epoch))
        done, started = len(done_so_far.losses), time.monotonic()
        size = self.task.image_size(options, epoch)
        dataset = self.data.train.steps_from(first + done, self.steps - done, size=size)
        batches = iter(distribution.distributed(self.strategy, self.worker, dataset))
        pending: list[Any] = []
        for number, batch in enumerate(pipelines.reading(self.data.records, batches), done + 1):
            pending.append(self.train_step(*batch))
            last = number == self.steps
            due = bool(options.checkpoint_steps) and (first + number) % options.checkpoint_steps == 0
            stop = self._stop.after(first + number)
            if len(pending) == _CHECK_STEPS or last or due or stop:
                done_so_far.add(pending, first, epoch)
                pending.clear()
                if self.worker.is_chief and not last:
                    logger.steps(epoch + 1, done_so_far.curves(epoch, self._rate, self.steps))
            if progress:
                progress(f"epoch {epoch + 1}/{options.epochs}", number, self.steps)
            if (due or stop) and not last:
                done_so_far.seconds += time.monotonic() - started
                if self.worker.is_chief:
                    self._write_variables(self.steps_done)
                    self._commit()
                if stop:
                    return False
                started = time.monotonic()
        done_so_far.seconds += time.monotonic() - started
        return True

    def _rate(self, epoch: int, step: int) -> float:
        return self.phase_of(epoch).rate(epoch, step)

    def _write_variables(self, step: int) -> None:
        with self.output.new_path(f"{runs.CHECKPOINT_DIR}/{checkpoints.step_name(step)}") as path:
            checkpoints.write_variables(path, self._groups)

    def _commit(self) -> None:
        """Completes the checkpoint that was written last."""
        state = {
            "epoch": len(self.selection.history),
            "variables": checkpoints.step_name(self.steps_done),
            "best": self.selection.best,
            "history": self.selection.history,
            "under_way": dataclasses.asdict(self._epoch),
            "data_fingerprint": self.data.card.fingerprint,
            "options": self.options.comparable(),
        }
        self._committed = checkpoints.commit(self.output, state, self._committed)

    def restore(self, report: Callable[[str], None]) -> None:
        """Restores the newest complete checkpoint.

        Args:
            report: called with lines for the user.

        Raises:
            RunError: if it was made with other options or other records, or is damaged.
        """
        folder, selection = pathlib.Path(self.options.run_dir), self.selection
        check_resumable(self.options, runs.read_state(folder), self.data.card.fingerprint)
        state, problem = checkpoints.choose(folder)
        checkpoints.read_variables(folder / runs.CHECKPOINT_DIR / state["variables"], self._groups)
        distribution.desynchronize_dropout(self._groups["random"], self.strategy, self.worker)
        selection.history, selection.best, self._committed = state["history"], state["best"], copy.deepcopy(state)
        if selection.best and selection.best["split"] != self.data.validation_name:
            raise RunError(
                folder,
                f"its epochs were chosen by {selection.best['split']}",
                f"{self.data.validation_name}, which this version holds out",
                "train again in another run folder",
            )
        self._epoch = EpochProgress(**state["under_way"])
        if problem:
            report(f"warning: {problem}")
            report(f"warning: resuming from the checkpoint before it, after step {self.steps_done}")
        if self.worker.is_chief:
            checkpoints.publish(self.output, state)
            TensorBoardLogger.cut(self.output, len(selection.history))
            selection.write_history(self.output)
            if selection.best and selection.best["epoch"] != runs.epoch_of_card(folder):
                selection.write_card(self.output)


def _data_options(options: TrainingOptions, task: TrainingTask, records: pipelines.RecordDataset) -> DataOptions:
    return DataOptions(
        batch_size=options.batch_size,
        inputs=parse_inputs(options.bands, records.card),
        seed=options.seed,
        augmentation=task.augmentation(options),
        cache_gb=options.cache_gb,
        validation_from_train=options.validation_from_train,
        modality_dropout=options.modality_dropout,
        distance=task.with_distances(options),
        pretext=options.pretraining.replaces_labels,
        train_fraction=options.train_fraction,
        train_per_class=options.classification.train_per_class,
    )


def _network_options(options: TrainingOptions, task: TrainingTask, records: pipelines.RecordDataset) -> NetworkOptions:
    size, crop = records.card.patch_size, task.crop(options)
    sizes = frozenset(task.image_size(options, epoch) or crop or size for epoch in range(options.epochs))
    return NetworkOptions(
        model=options.model,
        stem=options.stem,
        start=transfer.start_of(options.weights, options.segmentation.backbone_run, records),
        dtype_policy=options.dtype_policy,
        dropout=options.dropout,
        seed=options.seed,
        arguments={"fusion": options.fusion, "dates": options.dates, **task.network(options, records.card)},
        frozen_batch_norm=options.frozen_batch_norm,
        averaged=options.ema > 0,
        batch_size=options.batch_size,
        image_sizes=sizes,
        fixed_size=size if crop is None and len(sizes) == 1 else None,
    )


def _phase_options(options: TrainingOptions) -> phases.PhaseOptions:
    return phases.PhaseOptions(
        epochs=options.epochs,
        head_epochs=options.head_epochs,
        head_optimizer=options.head_optimizer(),
        optimizer=options.optimizer,
        frozen_batch_norm=options.frozen_batch_norm,
        scale_loss=options.dtype_policy == "mixed_float16",
        head_only=options.head_only,
    )
