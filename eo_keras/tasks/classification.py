"""Task of classification: one class for an image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from eo_keras.errors import RunError
from eo_keras.losses import classification
from eo_keras.metrics.by_location import Locations
from eo_keras.metrics.classification import score_classification
from eo_keras.metrics.confusion import confusion_matrix
from eo_keras.metrics.metric import ACCURACY
from eo_keras.metrics.outcomes import ExampleOutcomes
from eo_keras.metrics.predictions import ClassPredictions, PredictedSample, read_predictions
from eo_keras.metrics.scores import Scores
from eo_keras.plots import classification as plots
from eo_keras.records.data_card import DataCard
from eo_keras.records.inputs import InputBands
from eo_keras.records.targets import TARGETS
from eo_keras.runs.model_card import ModelCard
from eo_keras.tasks import training_loss
from eo_keras.tasks.task import EvaluationOptions, LossFn, Predicted, StepLoss, TaskOptions

_MISTAKES = 40


class ClassScorer:
    """Scorer of images: probabilities and labels in the order in which they were added."""

    def __init__(self):
        self._keys: list[str] = []
        self._labels: list[np.ndarray] = []
        self._probabilities: list[np.ndarray] = []

    def keep(self, probabilities: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the probabilities."""
        return (probabilities,)

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
    """Task of one class for an image, with cross-entropy and accuracy. See `eo_keras.tasks.task.Task`."""

    name = "classification"
    description = "records of one class an image"
    targets = TARGETS[name]
    monitor = ACCURACY
    metrics = (ACCURACY,)
    evaluation_options = frozenset(("tta", "coordinates"))
    predicts_classes = True
    batch_size = 256
    samples = 0
    figure_names = ("confusion_matrix.png", "mistakes.png")

    def augmentation(self, options: TaskOptions) -> Any:
        """Returns the changes to patches."""
        return options.classification.augmentation or None

    def crop(self, options: TaskOptions) -> int | None:
        """Returns None: patches are not cropped."""
        return None

    def image_size(self, options: TaskOptions, epoch: int) -> int | None:
        """Returns the image size of progressive resizing."""
        return options.classification.image_size(epoch)

    def network(self, options: TaskOptions, card: DataCard) -> Mapping[str, Any]:
        """Returns the size to which patches are enlarged."""
        return {"input_size": options.classification.input_size}

    def with_distances(self, options: TaskOptions) -> bool:
        """Returns False: images have one class."""
        return False

    def companion(self, options: TaskOptions, card: DataCard) -> None:
        """Returns None: there is one task."""
        return None

    def loss(self, options: TaskOptions, card: DataCard | None = None, companion: None = None) -> LossFn:
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
                loss += options.classification.aux_weight * loss_of(label, others)
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
        return training_loss.note(options, augmented=bool(options.classification.augmentation))

    def validation_scoring(self, inputs: Sequence[InputBands], predicted: Sequence[InputBands]) -> dict[str, Any]:
        """Returns no options."""
        return {}

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

    def evaluated_as(self, options: EvaluationOptions, card: ModelCard) -> dict[str, Any]:
        """Returns no entries."""
        return {}

    def evaluated_model(self, model: keras.Model, options: EvaluationOptions) -> keras.Model:
        """Returns the model itself."""
        return model

    def scoring(self, options: EvaluationOptions, examples: int) -> dict[str, Any]:
        """Returns no options."""
        return {}

    def with_places(self, predictions: ClassPredictions, places: Locations | None, card: DataCard) -> ClassPredictions:
        """Returns the predictions unchanged: intervals take the images to be independent."""
        return predictions

    def scores(self, predictions: ClassPredictions, class_names: Sequence[str], resamples: int) -> Scores:
        """Returns the scores of probabilities."""
        return score_classification(predictions.labels, predictions.probabilities, class_names, resamples=resamples)

    def outcomes(self, predictions: ClassPredictions, resamples: int) -> ExampleOutcomes:
        """Returns whether each image is predicted correctly, for comparison."""
        return ExampleOutcomes.of(predictions)

    def probabilities(self, predictions: ClassPredictions) -> ClassPredictions:
        """Returns all predictions."""
        return predictions

    def correct(self, predictions: ClassPredictions) -> np.ndarray:
        """Returns whether each image is predicted correctly."""
        return predictions.correct

    def highlights(self, predictions: ClassPredictions) -> list[str]:
        """Returns the keys of the most confident mistakes, the most confident first."""
        incorrect = np.flatnonzero(~predictions.correct)
        order = np.argsort(-predictions.confidences[incorrect], kind="stable")[:_MISTAKES]
        return [predictions.keys[number] for number in incorrect[order]]

    def report_figures(
        self,
        predictions: ClassPredictions,
        scores: Scores,
        samples: Sequence[PredictedSample],
        card: DataCard,
        bands: Sequence[str],
        title: str,
    ) -> dict[str, bytes]:
        """Draws the confusion matrix and the most confident mistakes."""
        names = card.legend.class_names
        place_of = {key: place for place, key in enumerate(predictions.keys)}
        images = [
            plots.to_display(sample.image, bands, card.dtype, stretched=card.reflectance is None) for sample in samples
        ]
        captions = predictions.captions([place_of[sample.key] for sample in samples], names)
        total = int(np.count_nonzero(~predictions.correct))
        return {
            "confusion_matrix.png": plots.confusion_matrix_png(scores.confusion, names, title),
            "mistakes.png": plots.mistakes_png(images, *captions, title, total=total),
        }

    def calibrated(self, predictions: ClassPredictions, temperature: float) -> ClassPredictions:
        """Returns the same predictions with scaled probabilities."""
        return predictions.calibrated(temperature)

    def to_csv(self, predictions: ClassPredictions, class_names: Sequence[str]) -> str:
        """Returns a line an image: key, true and predicted class, and all probabilities."""
        return predictions.to_csv(class_names)

    def read_csv(self, path: str | os.PathLike[str], scores: Scores) -> ClassPredictions:
        """Reads the CSV of `to_csv`."""
        predictions, class_names = read_predictions(path)
        if class_names != scores.class_names:
            raise RunError(path, f"its classes are {', '.join(class_names)}", ", ".join(scores.class_names))
        return predictions


TASK = Classification()
