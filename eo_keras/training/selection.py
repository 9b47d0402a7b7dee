"""Selection of the epoch that a run keeps: validation, history, and their files in the run folder."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from eo_keras.core.output_folders import OutputFolder
from eo_keras.models.spec import Normalization
from eo_keras.plots import curves
from eo_keras.records.data_card import IMAGE, DataCard
from eo_keras.records.example import feature_of
from eo_keras.records.inputs import InputBands, shown_bands
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.tasks.predictor import Predictor
from eo_keras.tasks.task import TrainingTask
from eo_keras.training import checkpoints, moments
from eo_keras.training import epoch as epochs
from eo_keras.training.setup import Network, TrainingData
from eo_keras.training.tensorboard import NUM_SAMPLES, TensorBoardLogger


@dataclasses.dataclass(frozen=True)
class SelectionOptions:
    """Options of the selection.

    Attributes:
        epochs: length of the run in epochs.
        loss_note: a note for figures on the losses of training and validation.
        flags: all options as JSON, for the model card.
    """

    epochs: int
    loss_note: str
    flags: Mapping[str, Any]


class Selection:
    """Selection of the best epoch by validation.

    Args:
        options: options of the run.
        data: the examples.
        network: the network.
        task: the task.
        strategy: the strategy that validation runs under; None for one device.

    Attributes:
        history: one entry an epoch, see `runs.HISTORY_NAME`.
        best: split, metric, value and number of the kept epoch; None before the first one ends.
    """

    def __init__(
        self,
        options: SelectionOptions,
        data: TrainingData,
        network: Network,
        task: TrainingTask,
        strategy: tf.distribute.Strategy | None,
    ):
        self._options, self._data, self._network, self._task = options, data, network, task
        scoring = task.validation_scoring(data.inputs, data.predicted)
        self._predictor = Predictor(network.inference, task, data.card.legend.class_names, strategy, **scoring)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    def end_epoch(
        self,
        row: dict[str, Any],
        points: list[tuple[int, dict[str, float]]],
        output: OutputFolder,
        logger: TensorBoardLogger,
        progress: Callable[[str, int, int], None] | None,
    ) -> bool:
        """Validates an epoch and writes its model, which is used once a checkpoint names it.

        Args:
            row: the epoch's line of the history, to which the scores are added.
            points: some of its steps, for TensorBoard.
            output: the run folder.
            logger: writes TensorBoard's files.
            progress: called with (stage, done, total) batches.

        Returns:
            Whether it is the best epoch so far.

        Raises:
            TrainingError: if a score is not finite.
        """
        epoch, started, predicted, monitor = row["epoch"], time.monotonic(), None, self._task.monitor
        data, name = self._data, self._data.validation_name
        self._network.update_inference()
        if data.validation is not None:
            stage = f"epoch {epoch} validation"
            predicted = self._predictor(data.records, data.validation, stage, progress, samples=NUM_SAMPLES)
            scores = self._task.validation(predicted.predictions)
            epochs.check_validation(scores, epoch - 1)
            row |= {f"val_{name}": value for name, value in scores.items()}
        else:
            ((image, *_),) = data.sample
            epochs.check_probabilities(self._network.inference(image, training=False).numpy(), epoch - 1)
        row["seconds"] = round(row["seconds"] + time.monotonic() - started, 3)
        improved = self.best is None or predicted is None
        if not improved:
            improved = epochs.rank(row, monitor) > epochs.rank(self.history[self.best["epoch"] - 1], monitor)
        if improved:
            self.best = {
                "split": name,
                "metric": monitor.name if name else None,
                "value": row[monitor.column] if name else None,
                "epoch": epoch,
            }
        with output.new_path(f"{runs.CHECKPOINT_DIR}/{checkpoints.model_name(epoch)}") as path:
            runs.save_model(self._network.inference, path)
        pictures = {}
        if predicted and (improved or epoch == self._options.epochs):
            pictures = self._task.figures(predicted, data.card, shown_bands(data.inputs), f"Validation, epoch {epoch}")
        logger.epoch(row, points, pictures)
        return improved

    def warning(self, row: Mapping[str, Any]) -> str | None:
        """Returns a warning where an epoch's validation fails because of batch normalization's moving moments."""
        if self._data.validation is None or not self._task.predicts_classes:
            return None
        # Of several tasks, validation has the loss of masks alone.
        training = row.get("mask_loss", row["loss"])
        if not row["val_loss"] > moments.FAR * training:
            return None
        return moments.disagreement(self._network.inference, next(iter(self._data.validation)))

    def write_history(self, output: OutputFolder) -> None:
        """Writes the history as CSV."""
        output.write({runs.HISTORY_NAME: runs.history_bytes(self.history)})

    def write_curves(self, output: OutputFolder) -> None:
        """Draws the history."""
        names = list(self.history[0])
        columns = {name: [math.nan if row[name] is None else row[name] for row in self.history] for name in names}
        title = f"{self._network.name} on {self._data.card.dataset}"
        figure = curves.training_curves_png(columns, title, self._options.loss_note, self._task.metrics)
        output.write({runs.CURVES_NAME: figure})

    def write_card(self, output: OutputFolder) -> None:
        """Writes the card of the best epoch's model."""
        card, layers = self._data.card, self._network.normalization
        first, *others = inputs = [
            _input(card, one, {name: getattr(layers[one.name], name) for name in ("mean", "std", "scale")})
            for one in self._data.inputs
        ]
        named = others or first.modality != IMAGE
        written = model_cards.ModelCard(
            model=self._network.name,
            task=card.task,
            dataset=card.dataset,
            data_fingerprint=card.fingerprint,
            bands=first.bands,
            dtype=first.dtype,
            level=first.level,
            reflectance=first.reflectance,
            nodata=card.nodata,
            resolution_m=card.resolution_m,
            patch_size=card.patch_size,
            normalisation=first.normalisation,
            legend=card.legend,
            parameters=self._network.inference.count_params(),
            initialisation=self._network.initialization.summary(),
            flags=self._options.flags,
            selection=dict(self.best),
            scores={},
            versions=runs.versions(),
            attribution=card.attribution,
            records=first.records,
            inputs=tuple(inputs) if named else (),
            predicted=tuple(_predicted(card, one) for one in self._data.predicted),
        )
        output.write(model_cards.contents(written))


def _predicted(card: DataCard, given: InputBands) -> model_cards.ModelInput:
    """Returns the card's entry of a predicted image."""
    statistics = card.modalities[given.modality].statistics
    return _input(card, given, dataclasses.asdict(Normalization.of_statistics(statistics, given.bands, card.dataset)))


def _input(card: DataCard, given: InputBands, normalization: Mapping[str, Sequence[float]]) -> model_cards.ModelInput:
    """Returns the card's entry of an image."""
    modality = card.modalities[given.modality]
    return model_cards.ModelInput(
        name=given.name,
        modality=given.modality,
        sensor=modality.sensor,
        bands=given.bands,
        dtype=modality.dtype,
        units=modality.units,
        level=modality.level,
        reflectance=modality.reflectance,
        resolution_m=modality.resolution_m,
        patch_size=modality.patch_size,
        normalisation=normalization,
        records=modality.images,
        feature=feature_of(card, given.modality),
        missing=modality.missing.get("train", 0),
    )
