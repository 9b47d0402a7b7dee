"""What differs between training a classifier of patches and one of pixels: loss, validation and what is shown.

The loop of `eo_keras.training.train` is the same for both. A task says how a step's loss adds up over devices,
which score of the validation examples chooses the epoch, and which pictures TensorBoard shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from eo_keras.data import pipeline as pipelines
from eo_keras.evaluation.evaluate import Answerer, sample_images
from eo_keras.evaluation.segmentation_evaluate import DenseAnswerer
from eo_keras.legends.catalogue import IGNORE
from eo_keras.losses import class_weights as weighting
from eo_keras.losses import classification, segmentation
from eo_keras.records.data_card import DataCard
from eo_keras.training.options import SegmentationOptions, TrainingOptions, check_task
from eo_keras.training.tensorboard import NUM_SAMPLES, answer_pictures, dense_pictures

_Progress = Callable[[str, int, int], None] | None
_Pictures = Callable[[str], dict[str, bytes]]


@dataclasses.dataclass(frozen=True)
class StepLoss:
    """What one device makes of its part of a batch.

    Attributes:
        minimised: its gradients, added up over all devices, are those of the loss of the whole batch.
        share: its share of that loss: the shares add up to it.
        right: how many answers are right, int32.
        counted: of how many, int32.
    """

    minimised: tf.Tensor
    share: tf.Tensor
    right: tf.Tensor
    counted: tf.Tensor


Step = Callable[[Sequence[tf.Tensor], tf.Tensor, tf.Tensor | None], StepLoss]
"""Computes the loss of a device's part of a batch, in the context of its replica, from outputs, labels and weights."""


class Task(Protocol):
    """A task; see the module."""

    metric: str
    """Column of the history that chooses the epoch, without `val_`; larger is better."""

    def step(self, outputs: Sequence[tf.Tensor], label: tf.Tensor, weight: tf.Tensor | None) -> StepLoss:
        """See `Step`."""
        ...

    def prepare(self, twin: keras.Model, strategy: tf.distribute.Strategy | None) -> None:
        """Takes the model that is validated, made in the strategy's scope."""
        ...

    def validate(
        self, records: pipelines.RecordDataset, dataset: Any, stage: str, progress: _Progress
    ) -> tuple[dict[str, float], _Pictures]:
        """Asks about the validation examples: columns of the history, and what draws pictures with a title."""
        ...


def make_task(options: TrainingOptions, card: DataCard, bands: tuple[str, ...]) -> Task:
    """Returns the task of a run.

    Raises:
        OptionError: if the model or an option is for another task than the records, or options do not fit the legend.
    """
    check_task(options, card)
    return (Segmentation if card.task == "segmentation" else Classification)(options, card, bands)


def classification_loss(options: TrainingOptions) -> Step:
    """Returns how a step computes the loss of classifiers of patches: a mean over the examples of the whole batch."""

    def loss_of(label: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return classification.softmax_cross_entropy(label, logits, label_smoothing=options.label_smoothing)

    def step(outputs: Sequence[tf.Tensor], label: tf.Tensor, weight: tf.Tensor | None) -> StepLoss:
        logits, *auxiliary = outputs
        total = options.batch_size
        if weight is not None:
            total = _all_reduced(tf.reduce_sum(weight))
        loss = loss_of(label, logits)
        for others in auxiliary:
            loss += options.aux_weight * loss_of(label, others)
        if weight is not None:
            loss *= tf.cast(weight, loss.dtype)
        # A share of the global batch's mean: the strategy adds the devices' gradients up.
        loss = tf.math.divide_no_nan(tf.reduce_sum(loss), tf.cast(total, loss.dtype))
        right = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.cast(label, tf.int32))
        counted = tf.ones_like(right) if weight is None else weight > 0
        return StepLoss(loss, loss, _count(right & counted), _count(counted))

    return step


class Classification:
    """One class for a patch: cross-entropy, chosen by accuracy."""

    metric = "accuracy"

    def __init__(self, options: TrainingOptions, card: DataCard, bands: tuple[str, ...]):
        """See the class."""
        self._card, self._bands = card, bands
        self._loss = classification_loss(options)
        self._answerer: Answerer | None = None

    def step(self, outputs: Sequence[tf.Tensor], label: tf.Tensor, weight: tf.Tensor | None) -> StepLoss:
        """See `Task`."""
        return self._loss(outputs, label, weight)

    def prepare(self, twin: keras.Model, strategy: tf.distribute.Strategy | None) -> None:
        """See `Task`."""
        self._answerer = Answerer(twin, strategy)

    def validate(
        self, records: pipelines.RecordDataset, dataset: Any, stage: str, progress: _Progress
    ) -> tuple[dict[str, float], _Pictures]:
        """See `Task`."""
        answers = self._answerer(records, dataset, stage, progress)

        def draw(title: str) -> dict[str, bytes]:
            return answer_pictures(answers, sample_images(dataset, NUM_SAMPLES), self._card, self._bands, title)

        return {"val_loss": answers.cross_entropy(), "val_accuracy": answers.accuracy()}, draw


def segmentation_loss(loss: segmentation.DenseLoss) -> Step:
    """Returns how a step computes the loss of maps, over all labelled pixels of the whole batch.

    An example of weight 0 is ignored as a whole.
    """

    def step(outputs: Sequence[tf.Tensor], label: tf.Tensor, weight: tf.Tensor | None) -> StepLoss:
        (logits,) = outputs
        ignored = tf.cast(IGNORE, label.dtype)
        if weight is not None:
            label = tf.where((weight > 0)[:, tf.newaxis, tf.newaxis], label, ignored)
        value = loss.combine(segmentation.whole_sums(loss.terms(label, logits), _all_reduced))
        # The same on every device.
        share = value / tf.cast(tf.distribute.get_replica_context().num_replicas_in_sync, value.dtype)
        return StepLoss(value, share, segmentation.right_pixels(label, logits), _count(tf.not_equal(label, ignored)))

    return step


class Segmentation:
    """A class for every pixel: see `eo_keras.losses.segmentation`, chosen by the mean intersection over union."""

    metric = "miou"

    def __init__(self, options: TrainingOptions, card: DataCard, bands: tuple[str, ...]):
        """See the class."""
        self._card, self._bands = card, bands
        chosen = segmentation.DenseLossOptions(
            kind=options.segmentation.loss,
            class_weights=class_weights(options.segmentation, card),
            focal_gamma=options.segmentation.focal_gamma,
            label_smoothing=options.label_smoothing,
        )
        self._loss = segmentation_loss(segmentation.DenseLoss(chosen, len(card.legend)))
        self._answerer: DenseAnswerer | None = None

    def step(self, outputs: Sequence[tf.Tensor], label: tf.Tensor, weight: tf.Tensor | None) -> StepLoss:
        """See `Task`."""
        return self._loss(outputs, label, weight)

    def prepare(self, twin: keras.Model, strategy: tf.distribute.Strategy | None) -> None:
        """See `Task`."""
        self._answerer = DenseAnswerer(twin, self._card.legend.class_names, strategy)

    def validate(
        self, records: pipelines.RecordDataset, dataset: Any, stage: str, progress: _Progress
    ) -> tuple[dict[str, float], _Pictures]:
        """See `Task`."""
        answers = self._answerer(records, dataset, stage, progress, shown=NUM_SAMPLES)

        def draw(title: str) -> dict[str, bytes]:
            return dense_pictures(answers, self._card, self._bands, title)

        return {
            "val_loss": answers.cross_entropy,
            "val_accuracy": answers.accuracy,
            "val_miou": answers.miou,
        }, draw


def what_differs(options: TrainingOptions, dense: bool) -> str:
    """Says what a training loss holds and a validation loss does not: nobody should compare them number by number."""
    special, augmentation = [], options.segmentation.augmentation if dense else options.augmentation
    if dense and options.segmentation.loss != "cross_entropy":
        special.append(f"the loss {options.segmentation.loss}")
    if dense and options.segmentation.class_weights != "none":
        special.append(f"class weights ({options.segmentation.class_weights})")
    if options.label_smoothing:
        special.append(f"label smoothing {options.label_smoothing:g}")
    with_them = f", with {' and '.join(special)}" if special else ""
    images = "augmented images" if augmentation is not None else "images as they are"
    return (
        f"Training: a mean over the steps of the epoch, while the network changes, of {images}{with_them}. Validation: "
        "cross-entropy of images as they are, by the network at the epoch's end. So validation may lie below training."
    )


def class_weights(options: SegmentationOptions, card: DataCard) -> tuple[float, ...] | None:
    """Returns what a pixel of each class counts, from the training split's counts in the card; None for 1 each."""
    counts = [card.splits["train"].classes.get(name, 0) for name in card.legend.class_names]
    if options.class_weights == "median_frequency":
        return weighting.median_frequency_weights(counts)
    if options.class_weights == "effective_number":
        return weighting.effective_number_weights(counts, options.effective_beta)
    return None


def _all_reduced(value: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def _count(flags: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(flags, tf.int32))
