"""Protocols of a task, its scorer and its options.

A task is one object without state. Training, evaluation and serving call its methods and never compare its name: a new
task is a module of this package, its labels' layout in `eo_keras.records.targets`, and networks in the model registry.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from eo_keras.metrics.by_location import Locations
from eo_keras.metrics.metric import Metric
from eo_keras.metrics.outcomes import Outcomes
from eo_keras.metrics.predictions import ClassPredictions, PredictedSample
from eo_keras.metrics.scores import Scores
from eo_keras.records.data_card import DataCard
from eo_keras.records.inputs import InputBands
from eo_keras.records.targets import Targets
from eo_keras.runs.model_card import ModelCard
from eo_keras.tasks.options import ClassificationOptions, PretextOptions, SegmentationOptions

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class StepLoss:
    """One replica's contribution to the loss of the global batch.

    Attributes:
        objective: scalar that the replica differentiates; gradients summed over all replicas are those of the loss.
        value: its share of the loss; the shares of all replicas add up to it.
        correct: number of correct predictions, int32.
        counted: number of predictions, int32.
        parts: its shares of what the loss is made of, such as `mask_loss` and `mask_weight`, by the names of columns in
            the history; empty for a loss of one task.
    """

    objective: tf.Tensor
    value: tf.Tensor
    correct: tf.Tensor
    counted: tf.Tensor
    parts: Mapping[str, tf.Tensor] = dataclasses.field(default_factory=dict)


LossFn = Callable[[Sequence["tf.Tensor"], "tf.Tensor", "tf.Tensor | None"], StepLoss]
"""Function that computes the loss of a replica's share of a batch, in the replica's context, from outputs before the
softmax (the classifier's first, then those of auxiliary classifiers), labels, and weights or None."""


class TaskOptions(Protocol):
    """Options of a training run that tasks read; see `eo_keras.training.options.TrainingOptions`."""

    model: str
    bands: str
    batch_size: int
    dtype_policy: str
    label_smoothing: float
    fusion: str | None
    modality_dropout: float
    seed: int
    classification: ClassificationOptions
    segmentation: SegmentationOptions
    pretraining: PretextOptions


class Companion(Protocol):
    """Protocol of what is trained beside a network and belongs to training alone.

    Attributes:
        variables: its trainable variables.
    """

    variables: Sequence[keras.Variable]


class Scorer(Protocol):
    """Protocol of a scorer, which collects predictions batch by batch."""

    def keep(self, probabilities: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the tensors of a batch that are kept, computed on the device; the first axis counts examples.

        Args:
            probabilities: a model's output.
            label: the labels of the batch.
        """
        ...

    def add(self, keys: Sequence[str], labels: np.ndarray, kept: Sequence[np.ndarray]) -> np.ndarray:
        """Adds examples.

        Args:
            keys: their keys.
            labels: their labels.
            kept: result of `keep`.

        Returns:
            The predicted classes, of the labels' shape.
        """
        ...

    def merge(self, other: Any) -> None:
        """Adds all examples of another scorer of the same task."""
        ...

    def result(self) -> Any:
        """Returns the predictions of all examples."""
        ...


@dataclasses.dataclass(frozen=True)
class Predicted:
    """Predictions of a pass over a dataset.

    Attributes:
        predictions: the scorer's result.
        samples: some of the first examples.
        images_per_second: examples a second.
    """

    predictions: Any
    samples: tuple[PredictedSample, ...]
    images_per_second: float


class EvaluationOptions(Protocol):
    """Options of an evaluation that tasks read; see `eo_keras.evaluation.options.EvaluationOptions`."""

    output_stride: int | None
    boundary_tolerances: tuple[float, ...]
    boundary_width: float | None
    object_class: str | None
    resamples: int

    @property
    def tta_name(self) -> str:
        """Name of the test-time augmentation."""
        ...


class TrainingTask(Protocol):
    """Protocol of what a run trains: all of a task that training calls.

    Attributes:
        name: its name; of a task of records, in cards and in metrics.json.
        description: the records that it is for, such as "records of one class an image", or what it does with them.
        monitor: the score that chooses the epoch and compares runs.
        metrics: the scores of validation, the monitor among them and the loss not.
        predicts_classes: whether outputs are probabilities of classes, and labels classes.
    """

    name: str
    description: str
    monitor: Metric
    metrics: tuple[Metric, ...]
    predicts_classes: bool

    def augmentation(self, options: TaskOptions) -> Any:
        """Returns the changes to training images (see `eo_keras.data.augment`), or None."""
        ...

    def crop(self, options: TaskOptions) -> int | None:
        """Returns height and width in pixels of the crops that are trained on; None for whole images."""
        ...

    def image_size(self, options: TaskOptions, epoch: int) -> int | None:
        """Returns the image size of an epoch in pixels, or None for the size of the examples.

        Args:
            options: the options.
            epoch: number of the epoch, from 0.
        """
        ...

    def network(self, options: TaskOptions, card: DataCard) -> Mapping[str, Any]:
        """Returns the fields of `eo_keras.models.NetworkSpec` that belong to this task.

        Raises:
            OptionError: if an option does not fit the network or the records.
        """
        ...

    def with_distances(self, options: TaskOptions) -> bool:
        """Returns whether training labels hold classes of distances beside those of masks."""
        ...

    def companion(self, options: TaskOptions, card: DataCard) -> Companion | None:
        """Returns what the loss needs and training changes besides the network, such as weights of several tasks.

        None where there is nothing; called in the strategy's scope.
        """
        ...

    def loss(self, options: TaskOptions, card: DataCard, companion: Any = None) -> LossFn:
        """Returns the loss of a training step.

        Args:
            options: the options.
            card: the card of the records.
            companion: result of `companion`.

        Raises:
            OptionError: if an option does not fit the records.
        """
        ...

    def loss_note(self, options: TaskOptions) -> str:
        """Returns a note on why the losses of training and validation are not comparable."""
        ...

    def validation_scoring(self, inputs: Sequence[InputBands], predicted: Sequence[InputBands]) -> dict[str, Any]:
        """Returns the scorer's options for validation in training.

        Args:
            inputs: the network's inputs.
            predicted: images that it predicts; empty for classes, and where it predicts its inputs.
        """
        ...

    def scorer(self, class_names: Sequence[str], **options: Any) -> Scorer:
        """Returns a scorer without examples.

        Args:
            class_names: names of the classes in the legend's order.
            **options: options of the scorer.
        """
        ...

    def validation(self, predictions: Any) -> dict[str, float | None]:
        """Returns loss (of classes mean cross-entropy, in nats) and scores of predictions, by the metrics' names."""
        ...

    def figures(self, predicted: Predicted, card: DataCard, bands: Sequence[str], title: str) -> dict[str, bytes]:
        """Draws predictions of validation examples as PNG images by name: a confusion matrix, and the samples."""
        ...


class Task(TrainingTask, Protocol):
    """Protocol of a task of records: what evaluation and serving call besides training.

    Attributes:
        targets: layout of the labels in records.
        evaluation_options: names of the options of an evaluation that apply to this task alone.
        batch_size: default number of examples in a batch where nothing is trained.
        samples: number of the first examples that figures of an evaluation show.
        figure_names: names of these figures.
    """

    targets: Targets
    evaluation_options: frozenset[str]
    batch_size: int
    samples: int
    figure_names: tuple[str, ...]

    def served_model(self, model: keras.Model) -> keras.Model:
        """Returns the model of an export, for images of any size where the task allows it."""
        ...

    def served(self, probabilities: tf.Tensor, class_names: Sequence[str]) -> dict[str, tf.Tensor]:
        """Returns the outputs of the served signature, from a model's float32 output."""
        ...

    def evaluated_as(self, options: EvaluationOptions, card: ModelCard) -> dict[str, Any]:
        """Returns entries of metrics.json that distinguish evaluations of a model, besides the augmentation."""
        ...

    def evaluated_model(self, model: keras.Model, options: EvaluationOptions) -> keras.Model:
        """Returns the model that an evaluation runs."""
        ...

    def scoring(self, options: EvaluationOptions, examples: int) -> dict[str, Any]:
        """Returns the scorer's options for an evaluation of a number of examples with probabilities for calibration."""
        ...

    def with_places(self, predictions: Any, places: Locations | None, card: DataCard) -> Any:
        """Returns predictions with the ground of each example, where scores depend on it."""
        ...

    def scores(self, predictions: Any, class_names: Sequence[str], resamples: int) -> Scores:
        """Returns the scores of predictions, with intervals by a number of resamples."""
        ...

    def outcomes(self, predictions: Any, resamples: int) -> Outcomes:
        """Returns the outcomes by which two models are compared."""
        ...

    def probabilities(self, predictions: Any) -> ClassPredictions:
        """Returns the probabilities for calibration: those of all predictions, or of a sample."""
        ...

    def correct(self, predictions: Any) -> np.ndarray | None:
        """Returns whether each example is predicted correctly, bool (N,); None where that is not defined."""
        ...

    def highlights(self, predictions: Any) -> list[str]:
        """Returns keys of examples for the figures of an evaluation, besides the first ones."""
        ...

    def report_figures(
        self,
        predictions: Any,
        scores: Scores,
        samples: Sequence[PredictedSample],
        card: DataCard,
        bands: Sequence[str],
        title: str,
    ) -> dict[str, bytes]:
        """Draws an evaluation as PNG images by name.

        Args:
            predictions: the predictions, calibrated where a temperature was fitted.
            scores: their scores.
            samples: the first examples, or those of `highlights`.
            card: the card of the records folder.
            bands: the bands of the samples.
            title: title of the figures.
        """
        ...

    def calibrated(self, predictions: Any, temperature: float) -> Any:
        """Returns predictions with calibrated probabilities, where they are kept."""
        ...

    def to_csv(self, predictions: Any, class_names: Sequence[str]) -> str:
        """Returns predictions as the text of `predictions.csv`."""
        ...

    def read_csv(self, path: str | os.PathLike[str], scores: Scores) -> Any:
        """Reads the CSV of `to_csv`.

        Args:
            path: the file.
            scores: the scores of the same evaluation.

        Raises:
            RunError: if the file is missing or is no such file.
        """
        ...
