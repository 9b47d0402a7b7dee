"""One training run: devices, data, model, the loop over steps, checkpoints, and the run folder that comes out.

The loop is our own and not `keras.Model.fit`: a loss counts over the global batch, batches depend on seed and step
alone, and a step that goes wrong is named.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from eo_keras import cards, distribution, files, losses, models, parts, pipelines, reports, runs, schedules
from eo_keras.errors import OptionError, RunError, TrainingError
from eo_keras.evaluation import Answerer, first_images
from eo_keras.monitoring import SHOWN, Monitor, answer_pictures
from eo_keras.sentinel2 import parse_bands
from eo_keras.training_options import TrainingOptions, check_resumable

_CHECK_STEPS = 20
"""After so many steps the losses are fetched from the device; to do so at each step would hold a GPU up."""


@dataclasses.dataclass(frozen=True)
class TrainingReport:
    """What a run came to.

    Attributes:
        card: the kept model's card.
        history: one entry an epoch, see `runs.HISTORY_NAME`.
        seconds: time taken by this process.
        resumed_from: number of epochs that were already done.
    """

    card: cards.ModelCard
    history: tuple[dict[str, Any], ...]
    seconds: float
    resumed_from: int = 0


def train(
    options: TrainingOptions,
    *,
    flags_text: str = "",
    progress: Callable[[str, int, int], None] | None = None,
    report: Callable[[str], None] | None = None,
    dry_run: bool = False,
) -> TrainingReport | None:
    """Trains a model and writes a run folder.

    Args:
        options: what to do.
        flags_text: what goes into the folder's `flags.txt`.
        progress: called with (stage, done, total) steps.
        report: called with lines for the user: what is going to be done, and one an epoch.
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
        TrainingError: if the loss is not finite; the step is named.
    """
    started, report = time.monotonic(), report or (lambda line: None)
    runs.check_folder(options.run_dir, resume=options.resume, overwrite=options.overwrite)
    records = pipelines.Records(options.records_dir)
    distribution.prepare_devices(
        virtual_devices=options.virtual_devices, deterministic=options.deterministic, seed=options.seed
    )
    strategy = distribution.make_strategy(options.strategy, virtual_devices=options.virtual_devices)
    training = _Training(options, records, strategy)
    for line in training.describe():
        report(line)
    if dry_run:
        return None
    existed = pathlib.Path(options.run_dir).exists()
    folder = files.make_folder(options.run_dir)
    try:
        with files.FolderLock(folder, RunError):
            # Looked at again, for another process may have begun a run before this one took the lock.
            runs.check_folder(folder, resume=options.resume, overwrite=options.overwrite)
            if options.resume:
                training.restore()
                resumed_from = len(training.history)
            else:
                runs.clear_folder(folder)
                files.write_text(folder / runs.FLAGS_NAME, flags_text)
                files.write_json(folder / runs.ENVIRONMENT_NAME, runs.environment())
                resumed_from = 0
            training.run(progress, report, flags_text)
    except BaseException:
        if not existed and not any(folder.iterdir()):
            folder.rmdir()
        raise
    card = cards.read_model_card(folder)
    return TrainingReport(card, tuple(training.history), time.monotonic() - started, resumed_from)


class _Training:
    """The parts of a run, and the loop over them."""

    def __init__(self, options: TrainingOptions, records: pipelines.Records, strategy: tf.distribute.Strategy):
        distribution.check_batch_size(options.batch_size, strategy)
        self.options, self.records, self.strategy = options, records, strategy
        self.folder = pathlib.Path(options.run_dir)
        self.card = records.card
        self.bands = parse_bands(options.bands, self.card.bands)
        replicas = strategy.num_replicas_in_sync
        if options.dtype_policy == "mixed_float16" and replicas > 1:
            raise OptionError(
                "dtype_policy",
                f"mixed_float16 on {replicas} devices: Keras cannot scale the loss under a strategy",
                "mixed_bfloat16 or float32",
            )
        if too_large := [size for size in options.progressive_sizes if size >= self.card.patch_size]:
            raise OptionError("progressive_sizes", f"{too_large[0]}", f"less than the patches' {self.card.patch_size}")
        self._open_pipelines()
        self.steps = options.steps_per_epoch or self.pipeline.steps
        self.schedule = schedules.make_schedule(options.optimizer, options.epochs, self.steps)
        with strategy.scope():
            self._build(replicas)
        self.answerer = Answerer(self.twin, strategy)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.train_step = tf.function(self._train_step)

    def _open_pipelines(self) -> None:
        options, kept, held_out = self.options, None, None
        self.validation_name = None
        if "val" in self.card.splits and self.card.splits["val"].examples:
            split, self.validation_name = "val", "the split val"
        elif options.validation_from_train:
            split = "train"
            kept, held_out = parts.holdout(options.validation_from_train, options.seed)
            self.validation_name = f"{options.validation_from_train:.1%} of the split train, held out by key"
        settings = pipelines.PipelineOptions(
            batch_size=options.batch_size,
            bands=self.bands,
            seed=options.seed,
            augmentation=options.augmentation,
            cache=options.cache_gb > 0,
            cache_limit_bytes=int(options.cache_gb * 1e9) or 1,
        )
        self.pipeline = pipelines.TrainingPipeline(self.records, settings, part=kept)
        self.validation, self.validation_count = None, 0
        if self.validation_name:
            self.validation = pipelines.evaluation(self.records, settings, split, part=held_out, with_keys=True)
            self.validation_count = self.records.count(split, held_out)

    def _build(self, replicas: int) -> None:
        options, card = self.options, self.card
        model, self.initialisation = models.build(
            options.model,
            bands=self.bands,
            num_classes=len(card.legend),
            normalisation=models.Normalisation.of_card(card, self.bands),
            input_dtype=card.dtype,
            patch_size=None if options.progressive_sizes else card.patch_size,
            stem=options.stem,
            weights=options.weights,
            synchronized=replicas > 1,
            dtype_policy=options.dtype_policy,
            seed=options.seed,
        )
        self.twin = models.inference_twin(model, card.patch_size)
        self.normalisation = model.get_layer("normalisation")
        # The loss is computed from logits: the logarithm of a rounded softmax would lose what is small.
        self.model = keras.Model(model.input, model.get_layer("logits").output)
        self.optimizer = schedules.make_optimizer(options.optimizer, self.schedule)
        if options.dtype_policy == "mixed_float16":
            self.optimizer = keras.optimizers.LossScaleOptimizer(self.optimizer)
        self.optimizer.build(self.model.trainable_variables)
        self.averages = []
        if options.ema:
            self.averages = [tf.Variable(weight.numpy(), trainable=False) for weight in self.model.weights]
        self.checkpoint = tf.train.Checkpoint(model=self.model, optimizer=self.optimizer, averages=self.averages)

    def describe(self) -> list[str]:
        """Says in lines of text what is going to be done."""
        options = self.options
        phases = zip(options.progressive_sizes, options.progressive_epochs, strict=True)
        sizes = ", ".join(f"{count} at {size}x{size} pixels" for size, count in phases)
        chooses = f"{self.validation_count:,} examples ({self.validation_name})" if self.validation else "the last one"
        memory = "kept in memory" if self.pipeline.in_memory else "streamed from the files"
        return [
            f"data:   {self.card.dataset}, {self.pipeline.examples:,} training examples, {memory}",
            f"bands:  {','.join(self.bands)}, {self.card.dtype}, {self.card.patch_size}x{self.card.patch_size} pixels",
            f"model:  {options.model}, {self.model.count_params():,} weights. {self.initialisation.summary()}",
            f"device: {self.strategy.num_replicas_in_sync} x {options.dtype_policy}, batch of {options.batch_size}",
            f"run:    {options.epochs} epochs of {self.steps} steps{sizes and f', the first {sizes}'}",
            f"chosen: the epoch by {chooses}",
        ]

    def _train_step(self, image: Any, label: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes one step on a distributed batch; returns its loss, and how many answers were right."""

        def replica_step(image, label):
            with tf.GradientTape() as tape:
                logits = self.model(image, training=True)
                loss = losses.softmax_cross_entropy(label, logits, label_smoothing=self.options.label_smoothing)
                # A share of the global batch's mean: the strategy adds the devices' gradients up.
                loss = tf.reduce_sum(loss) / self.options.batch_size
                scaled = self.optimizer.scale_loss(loss)
            variables = self.model.trainable_variables
            self.optimizer.apply(tape.gradient(scaled, variables), variables)
            right = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.cast(label, tf.int32))
            return loss, tf.reduce_sum(tf.cast(right, tf.int32))

        result = self.strategy.run(replica_step, (image, label))
        if self.averages:
            # Shorter memory at first, or the average would long be one of the initial weights.
            step = tf.cast(self.optimizer.iterations, tf.float32)
            decay = tf.minimum(self.options.ema, (1 + step) / (10 + step))

            def move(average, weight, decay):
                decay = tf.cast(decay, average.dtype)
                average.assign(decay * average + (1 - decay) * tf.cast(weight, average.dtype))

            for average, weight in zip(self.averages, self.model.weights, strict=True):
                self.strategy.extended.update(average, move, args=(weight.value, decay), group=False)
        return tuple(self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for value in result)

    def run(self, progress, report, flags_text: str) -> None:
        """Trains the epochs that are left."""
        if len(self.history) == self.options.epochs:
            report(f"all {self.options.epochs} epochs are already done")
            return
        monitor = Monitor(self.folder / runs.TENSORBOARD_DIR)
        if not self.history:
            monitor.text("flags", flags_text)
        for epoch in range(len(self.history), self.options.epochs):
            row, steps = self._train_epoch(epoch, progress)
            self.twin.set_weights([weight.numpy() for weight in self.averages or self.model.weights])
            started, answers = time.monotonic(), None
            if self.validation is not None:
                answers = self.answerer(self.records, self.validation, f"epoch {epoch + 1} validation", progress)
            row["val_loss"] = answers.cross_entropy() if answers else None
            row["val_accuracy"] = answers.accuracy() if answers else None
            row["seconds"] += round(time.monotonic() - started, 3)
            improved = self.best is None or answers is None or _rank(row) > _rank(self.history[self.best["epoch"] - 1])
            self._commit(row, improved)
            last = epoch + 1 == self.options.epochs
            pictures = {}
            if answers and (improved or last):
                images = first_images(self.validation, SHOWN)
                pictures = answer_pictures(answers, images, self.card, self.bands, f"Validation, epoch {epoch + 1}")
            monitor.epoch(row, steps, pictures)
            report(_line(row, improved))
        monitor.close()
        columns = {name: [math.nan if row[name] is None else row[name] for row in self.history] for name in row}
        curves = reports.training_curves_png(columns, f"{self.options.model} on {self.card.dataset}")
        files.write_bytes(self.folder / runs.CURVES_NAME, curves)

    def _train_epoch(self, epoch: int, progress) -> tuple[dict[str, Any], list[tuple[int, float, float]]]:
        first, started = epoch * self.steps, time.monotonic()
        dataset = self.pipeline.steps_from(first, self.steps, size=self.options.image_size(epoch))
        batches = iter(self.strategy.experimental_distribute_dataset(dataset))
        pending: list[Any] = []
        losses_of_steps: list[float] = []
        right = 0
        for number, batch in enumerate(pipelines.reading(self.records, batches), 1):
            pending.append(self.train_step(*batch))
            if len(pending) == _CHECK_STEPS or number == self.steps:
                for loss, count in pending:
                    step = first + len(losses_of_steps) + 1
                    losses_of_steps.append(float(loss))
                    right += int(count)
                    if not math.isfinite(losses_of_steps[-1]):
                        self._fail(epoch, step, losses_of_steps[-1])
                pending.clear()
            if progress:
                progress(f"epoch {epoch + 1}/{self.options.epochs}", number, self.steps)
        seconds = time.monotonic() - started
        examples = self.steps * self.options.batch_size
        row = {
            "epoch": epoch + 1,
            "step": first + self.steps,
            "loss": float(np.mean(losses_of_steps)),
            "accuracy": right / examples,
            "val_loss": None,
            "val_accuracy": None,
            "learning_rate": float(self.schedule(first + self.steps - 1)),
            "images_per_second": round(examples / seconds, 2),
            "seconds": round(seconds, 3),
        }
        shown = range(0, self.steps, max(1, self.steps // 50))
        return row, [(first + k + 1, losses_of_steps[k], float(self.schedule(first + k))) for k in shown]

    def _fail(self, epoch: int, step: int, loss: float) -> None:
        kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "no epoch had been completed"
        raise TrainingError(
            f"step {step} (epoch {epoch + 1})",
            f"the loss is {loss}",
            "a finite number",
            f"{kept}; start again with a lower learning_rate, a longer warm-up or dtype_policy float32",
        )

    def _commit(self, row: dict[str, Any], improved: bool) -> None:
        """Writes what an epoch came to; the state's file, written in one go, is what makes it count."""
        self.history.append(row)
        if improved:
            self.best = {
                "split": self.validation_name,
                "metric": "accuracy" if self.validation_name else None,
                "value": row["val_accuracy"],
                "epoch": row["epoch"],
            }
            runs.save_model(self.twin, self.folder / runs.MODEL_NAME)
            cards.write_card(self._model_card(), self.folder)
        folder = files.make_folder(self.folder / runs.CHECKPOINT_DIR)
        runs.save_model(self.twin, self.folder / runs.LAST_MODEL_NAME)
        name = f"epoch-{row['epoch']:05d}"
        with runs.storage_errors(folder / name):
            self.checkpoint.write(str(folder / name))
        state = {
            "epoch": row["epoch"],
            "checkpoint": name,
            "best": self.best,
            "history": self.history,
            "data_fingerprint": self.card.fingerprint,
            "options": self.options.comparable(),
        }
        files.write_json(folder / runs.STATE_NAME, state)
        for path in folder.glob("epoch-*"):
            if path.is_dir():  # What TensorFlow leaves of a write that was cut off.
                shutil.rmtree(path)
            elif path.name.split(".")[0] != name:
                path.unlink()
        runs.append_history(self.folder, row)

    def restore(self) -> None:
        """Goes back to the checkpoint.

        Raises:
            RunError: if it was made with other options or other records, or is damaged.
        """
        state = runs.read_state(self.folder)
        check_resumable(self.options, state, self.card.fingerprint)
        prefix = self.folder / runs.CHECKPOINT_DIR / state["checkpoint"]
        try:
            self.checkpoint.read(str(prefix)).assert_consumed()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            problem = str(error).split("\n")[0][:200]
            raise RunError(
                prefix, f"the checkpoint cannot be read ({problem})", remedy="start the run again with --overwrite"
            ) from None
        self.history, self.best = state["history"], state["best"]
        runs.write_history(self.folder, self.history)

    def _model_card(self) -> cards.ModelCard:
        options, card, layer = self.options, self.card, self.normalisation
        return cards.ModelCard(
            model=options.model,
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


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    """Orders epochs: by accuracy on the validation examples, of equals by loss."""
    return row["val_accuracy"], -row["val_loss"]


def _line(row: dict[str, Any], improved: bool) -> str:
    text = f"epoch {row['epoch']:>3}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.2%}"
    if row["val_accuracy"] is not None:
        text += f", validation {row['val_loss']:.4f} {row['val_accuracy']:.2%}{' (best)' if improved else ''}"
    return f"{text}, learning rate {row['learning_rate']:.2g}, {row['images_per_second']:,.0f} images/s"
