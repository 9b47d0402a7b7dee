"""Classification: one class for an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from eo_keras.losses import classification
from eo_keras.metrics.confusion import confusion_matrix
from eo_keras.metrics.metric import ACCURACY
from eo_keras.metrics.predictions import ClassPredictions
from eo_keras.plots import classification as plots
from eo_keras.records.data_card import DataCard
from eo_keras.records.targets import TARGETS
from eo_keras.tasks import training_loss
from eo_keras.tasks.task import LossFn, Predicted, StepLoss, TaskOptions


class ClassScorer:
    """Probabilities and labels of images, in the order in which they were added."""

    def __init__(self):
        self._keys: list[str] = []
        self._labels: list[np.ndarray] = []
        self._probabilities: list[np.ndarray] = []

    def add(self, keys: Sequence[str], labels: np.ndarray, kept: Sequence[np.ndarray]) -> np.ndarray:
        """Adds images; see `Scorer`."""
        (probabilities,) = kept
        self._keys += keys
        self._labels.append(labels)
        self._probabilities.append(probabilities)
        return probabilities.argmax(axis=-1)

    def merge(self, other: ClassScorer) -> None:
        """Adds all images of another scorer."""
        self._keys += other._keys
        self._labels += other._labels
        self._probabilities += other._probabilities

    def result(self) -> ClassPredictions:
        """Returns the predictions of all images."""
        labels = np.concatenate(self._labels).astype(np.int64)
        return ClassPredictions(labels, np.concatenate(self._probabilities), tuple(self._keys))


class Classification:
    """One class for an image: cross-entropy, chosen by accuracy. See `eo_keras.tasks.task.Task`."""

    name = "classification"
    description = "records of one class an image"
    targets = TARGETS[name]
    monitor = ACCURACY
    metrics = (ACCURACY,)
    options = frozenset(("shift", "brightness", "cutout", "aux_weight", "progressive_sizes", "progressive_epochs"))
    batch_size = 256

    def augmentation(self, options: TaskOptions) -> Any:
        """Returns the changes to patches."""
        return options.augmentation

    def crop(self, options: TaskOptions) -> int | None:
        """Returns None: patches are trained on as a whole."""
        return None

    def network(self, options: TaskOptions) -> Mapping[str, Any]:
        """Returns no arguments."""
        return {}

    def loss(self, options: TaskOptions, card: DataCard | None = None) -> LossFn:
        """Returns softmax cross-entropy, as a mean over the examples of the global batch."""

        def loss_of(label: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            return classification.softmax_cross_entropy(label, logits, label_smoothing=options.label_smoothing)

        def loss(outputs: Sequence[tf.Tensor], label: tf.Tensor, weight: tf.Tensor | None) -> StepLoss:
            logits, *auxiliary = outputs
            total = options.batch_size
            if weight is not None:
                total = training_loss.all_reduced(tf.reduce_sum(weight))
            loss = loss_of(label, logits)
            for others in auxiliary:
                loss += options.aux_weight * loss_of(label, others)
            if weight is not None:
                loss *= tf.cast(weight, loss.dtype)
            # A share of the global batch's mean: the strategy adds the replicas' gradients up.
            loss = tf.math.divide_no_nan(tf.reduce_sum(loss), tf.cast(total, loss.dtype))
            correct = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.cast(label, tf.int32))
            counted = tf.ones_like(correct) if weight is None else weight > 0
            return StepLoss(loss, loss, training_loss.count(correct & counted), training_loss.count(counted))

        return loss

    def loss_note(self, options: TaskOptions) -> str:
        """Returns why the losses must not be compared number by number."""
        return training_loss.note(options, augmented=options.augmentation is not None)

    def keep(self, probabilities: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the probabilities."""
        return (probabilities,)

    def scorer(self, class_names: Sequence[str]) -> ClassScorer:
        """Returns a scorer without images."""
        return ClassScorer()

    def validation(self, predictions: ClassPredictions) -> dict[str, float]:
        """Returns mean cross-entropy and accuracy."""
        return {"loss": predictions.cross_entropy(), "accuracy": predictions.accuracy()}

    def figures(self, predicted: Predicted, card: DataCard, bands: Sequence[str], title: str) -> dict[str, bytes]:
        """Draws the confusion matrix over all images, and the samples with true and predicted class."""
        predictions, names = predicted.predictions, card.legend.class_names
        confusion = confusion_matrix(predictions.labels, predictions.predictions, len(names))
        images = [
            plots.to_display(sample.image, bands, card.dtype, stretched=card.reflectance is None)
            for sample in predicted.samples
        ]
        return {
            "confusion_matrix": plots.confusion_matrix_png(confusion, names, title, small=True),
            "samples": plots.samples_png(images, *predictions.captions(range(len(images)), names), title, columns=4),
        }

    def served_model(self, model: keras.Model) -> keras.Model:
        """Returns the model itself, for images of the patches' size."""
        return model

    def served(self, probabilities: tf.Tensor, class_names: Sequence[str]) -> dict[str, tf.Tensor]:
        """Returns `probabilities`, and number and name of the most probable class."""
        class_id = tf.argmax(probabilities, axis=-1, output_type=tf.int64)
        names = tf.gather(tf.constant(class_names), class_id)
        return {"probabilities": probabilities, "class_id": class_id, "class_name": names}


TASK = Classification()
