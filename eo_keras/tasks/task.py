"""The protocol of a task, and what its parts exchange.

A task is one object without state. Training, evaluation and serving call its methods and never ask for its name: a new
task is a module of this package, its labels' layout in `eo_keras.records.targets`, and networks in the model registry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from eo_keras.metrics.metric import Metric
from eo_keras.metrics.predictions import PredictedSample
from eo_keras.records.data_card import DataCard
from eo_keras.records.targets import Targets

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class StepLoss:
    """One replica's contribution to the loss of the global batch.

    Attributes:
        objective: what the replica differentiates: its gradients, added up over all replicas, are those of the loss.
        value: its share of the loss; the shares of all replicas add up to it.
        correct: number of correct predictions, int32.
        counted: number of predictions, int32.
    """

    objective: tf.Tensor
    value: tf.Tensor
    correct: tf.Tensor
    counted: tf.Tensor


LossFn = Callable[[Sequence["tf.Tensor"], "tf.Tensor", "tf.Tensor | None"], StepLoss]
"""Computes the loss of a replica's share of a batch, in the context of the replica, from a model's outputs before the
softmax (the classifier's first, then those of auxiliary classifiers), labels, and weights or None."""


class TaskOptions(Protocol):
    """The options of a training run that tasks read; see `eo_keras.training.options.TrainingOptions`."""

    batch_size: int
    label_smoothing: float
    aux_weight: float
    augmentation: Any
    segmentation: Any


class Scorer(Protocol):
    """Collects what is kept of predictions, batch by batch."""

    def add(self, keys: Sequence[str], labels: np.ndarray, kept: Sequence[np.ndarray]) -> np.ndarray:
        """Adds examples.

        Args:
            keys: their keys.
            labels: their labels.
            kept: what `Task.keep` returned for them.

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


class Task(Protocol):
    """A task.

    Attributes:
        name: its name in cards and in metrics.json.
        description: the records that it is for, such as "records of one class an image".
        targets: layout of the labels in records.
        monitor: the score that chooses the epoch and compares runs.
        metrics: the scores of validation, the monitor among them and the loss not.
        options: names of the training options that apply to this task alone.
        batch_size: default number of examples in a batch where nothing is trained.
    """

    name: str
    description: str
    targets: Targets
    monitor: Metric
    metrics: tuple[Metric, ...]
    options: frozenset[str]
    batch_size: int

    def augmentation(self, options: TaskOptions) -> Any:
        """Returns the changes to training images (see `eo_keras.data.augment`), or None."""
        ...

    def crop(self, options: TaskOptions) -> int | None:
        """Returns height and width in pixels of the crops that are trained on; None for whole images."""
        ...

    def network(self, options: TaskOptions) -> Mapping[str, Any]:
        """Returns arguments of `eo_keras.models.build` that this task alone has."""
        ...

    def loss(self, options: TaskOptions, card: DataCard) -> LossFn:
        """Returns the loss of a training step."""
        ...

    def loss_note(self, options: TaskOptions) -> str:
        """Returns why the losses of training and validation must not be compared number by number."""
        ...

    def keep(self, probabilities: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns what a scorer needs of a batch, computed on the device; the first axis counts examples.

        Args:
            probabilities: a model's output.
            label: the labels of the batch.
        """
        ...

    def scorer(self, class_names: Sequence[str], **options: Any) -> Scorer:
        """Returns a scorer without examples.

        Args:
            class_names: names of the classes in the legend's order.
            **options: options of the scorer.
        """
        ...

    def validation(self, predictions: Any) -> dict[str, float]:
        """Returns loss (mean cross-entropy, in nats) and scores of predictions, by the names of the metrics."""
        ...

    def figures(self, predicted: Predicted, card: DataCard, bands: Sequence[str], title: str) -> dict[str, bytes]:
        """Draws predictions of validation examples as PNG images by name: a confusion matrix, and the samples."""
        ...

    def served_model(self, model: keras.Model) -> keras.Model:
        """Returns the model that an export holds: for images of any size where the task allows it."""
        ...

    def served(self, probabilities: tf.Tensor, class_names: Sequence[str]) -> dict[str, tf.Tensor]:
        """Returns the outputs of the served signature, from a model's float32 output."""
        ...
