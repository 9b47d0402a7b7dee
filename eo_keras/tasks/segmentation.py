"""Task of semantic segmentation: one class for every pixel."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from eo_keras import models
from eo_keras.errors import OptionError
from eo_keras.legends.catalogue import IGNORE
from eo_keras.losses import class_weights as weighting
from eo_keras.losses import segmentation
from eo_keras.losses.uncertainty import TaskWeights
from eo_keras.metrics import by_location, calibration, objects
from eo_keras.metrics.by_location import Locations
from eo_keras.metrics.mask_predictions import MaskPredictions, read_mask_predictions
from eo_keras.metrics.metric import ACCURACY, MIOU
from eo_keras.metrics.outcomes import PlaceOutcomes
from eo_keras.metrics.predictions import ClassPredictions, PredictedSample
from eo_keras.metrics.scores import Scores
from eo_keras.metrics.segmentation import SegmentationScorer
from eo_keras.plots import classification as plots
from eo_keras.plots import segmentation as mask_plots
from eo_keras.records.data_card import DataCard
from eo_keras.records.inputs import InputBands, later_dates, parse_inputs
from eo_keras.records.targets import TARGETS
from eo_keras.runs.model_card import ModelCard
from eo_keras.tasks import training_loss
from eo_keras.tasks.options import SegmentationOptions
from eo_keras.tasks.task import EvaluationOptions, LossFn, Predicted, StepLoss, TaskOptions

MASK, DISTANCE = "mask", "distance"
"""Names of the two tasks of a network that predicts distances too."""

_SAMPLED_PIXELS = 200_000
_FEWEST_OF_TILE, _MOST_OF_TILE = 16, 1024
"""Numbers of labeled pixels whose probabilities are kept for calibration: of all tiles, and of one tile."""


class MaskScorer:
    """Scorer of tiles: pixel counts, cross-entropy, and probabilities of a sample of pixels; no mask is kept.

    Args:
        class_names: names of the classes in the legend's order.
        sampled: number of labeled pixels of a tile, drawn at random, whose probabilities are kept; 0 for none.
        **options: options of `SegmentationScorer`.
    """

    def __init__(self, class_names: Sequence[str], sampled: int = 0, **options: Any):
        self._scorer = SegmentationScorer(class_names, **options)
        self._sampled, self._entropy, self._pixels = sampled, 0.0, 0
        self._labels: list[np.ndarray] = []
        self._probabilities: list[np.ndarray] = []

    def keep(self, probabilities: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns masks, sums of cross-entropy over labeled pixels, their number, and the sample."""
        classes = probabilities.shape[-1]
        predictions = tf.cast(tf.argmax(probabilities, axis=-1, output_type=tf.int32), tf.uint8)
        known = tf.not_equal(label, IGNORE)
        # The scorer refuses a label outside the legend; here it must not stop a device.
        safe = tf.where(label < classes, tf.cast(label, tf.int32), 0)
        true = tf.gather(probabilities, safe, axis=-1, batch_dims=3)
        entropy = -tf.math.log(tf.maximum(tf.cast(true, tf.float32), np.finfo(np.float32).tiny))
        # In double precision: millions of pixels are added up.
        summed = tf.reduce_sum(tf.where(known, tf.cast(entropy, tf.float64), 0), axis=(1, 2))
        kept = predictions, summed, tf.reduce_sum(tf.cast(known, tf.int64), axis=(1, 2))
        return (*kept, *self._sample(probabilities, label, known)) if self._sampled else kept

    def _sample(self, probabilities: tf.Tensor, label: tf.Tensor, known: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns probabilities (batch, sampled, classes) and labels (batch, sampled); missing ones are `IGNORE`.

        The pixels are the same in every run: of a fixed random order of all, the first that are labeled.
        """
        batch, pixels = tf.shape(label)[0], tf.shape(label)[1] * tf.shape(label)[2]
        order = tf.random.stateless_uniform((pixels,), (0, 0), alg="philox")
        priority = tf.where(tf.reshape(known, (batch, pixels)), order, -1.0)
        priority, places = tf.math.top_k(priority, tf.minimum(self._sampled, pixels))
        flat = tf.reshape(probabilities, (batch, pixels, probabilities.shape[-1]))
        labels = tf.gather(tf.reshape(label, (batch, pixels)), places, batch_dims=1)
        labels = tf.where(priority < 0, tf.constant(IGNORE, label.dtype), labels)
        return tf.gather(flat, places, batch_dims=1), labels

    def add(self, keys: Sequence[str], labels: np.ndarray, kept: Sequence[np.ndarray]) -> np.ndarray:
        """Adds tiles; see `Scorer`."""
        predictions, entropy, pixels, *sample = kept
        self._entropy += float(entropy.sum())
        self._pixels += int(pixels.sum())
        for key, label, prediction in zip(keys, labels, predictions, strict=True):
            self._scorer.add(key, label, prediction)
        if sample:
            probabilities, true = sample
            self._labels.append(true[true != IGNORE].astype(np.int64))
            self._probabilities.append(probabilities[true != IGNORE])
        return predictions

    def merge(self, other: MaskScorer) -> None:
        """Adds all tiles of another scorer."""
        self._scorer.merge(other._scorer)
        self._entropy += other._entropy
        self._pixels += other._pixels
        self._labels += other._labels
        self._probabilities += other._probabilities

    def result(self) -> MaskPredictions:
        """Returns the predictions of all tiles."""
        sample = None
        if self._labels:
            sample = ClassPredictions(np.concatenate(self._labels), np.concatenate(self._probabilities))
        return MaskPredictions(self._scorer, self._entropy / max(1, self._pixels), sample=sample)


class Segmentation:
    """Task of one class for every pixel, with losses over masks and mIoU. See `eo_keras.tasks.task.Task`."""

    name = "segmentation"
    description = "records of one class a pixel"
    targets = TARGETS[name]
    monitor = MIOU
    metrics = (ACCURACY, MIOU)
    evaluation_options = frozenset(
        ("output_stride", "scales", "flip", "boundary_tolerances", "boundary_width", "object_class")
    )
    predicts_classes = True
    batch_size = 8  # A tile has as many pixels as 16 patches and more.
    samples = 16
    figure_names = ("class_scores.png", "confusion_matrix.png", "maps.png")

    def augmentation(self, options: TaskOptions) -> Any:
        """Returns the changes to tiles and their masks."""
        return options.segmentation.augmentation

    def crop(self, options: TaskOptions) -> int | None:
        """Returns the crops' height and width in pixels."""
        augmentation = options.segmentation.augmentation
        return None if augmentation is None else augmentation.crop

    def image_size(self, options: TaskOptions, epoch: int) -> int | None:
        """Returns None: all crops have one size."""
        return None

    def network(self, options: TaskOptions, card: DataCard) -> Mapping[str, Any]:
        """Returns the output stride, for networks that have one, the head of distance classes, and further outputs."""
        chosen, fields = options.segmentation, {}
        if models.MODELS[options.model].output_strides:
            fields["output_stride"] = chosen.output_stride
        elif chosen.output_stride != SegmentationOptions().output_stride:
            found = f"{chosen.output_stride} for `model={options.model}`, which has none"
            raise OptionError("output_stride", found, remedy="leave it out")
        if chosen.predicts_distances:
            if card.distance is None:
                raise OptionError(
                    "distance_head",
                    f"{chosen.distance_head} on records without distances",
                    "records with a distance class of every pixel",
                    "build them with `distance_classes`, or leave `distance_head` out",
                )
            fields |= {"distance_classes": card.distance.classes, "distance_head": chosen.distance_head}
        if chosen.stream_weight:
            if options.fusion not in models.LATE_FUSIONS:
                raise OptionError(
                    "stream_weight",
                    f"{chosen.stream_weight:g} with `fusion={options.fusion or 'early'}`, which has no network for "
                    "each sensor",
                    f"a `fusion` out of {', '.join(models.LATE_FUSIONS)}",
                    "leave it out, or choose one",
                )
            fields["stream_logits"] = True
        return fields

    def with_distances(self, options: TaskOptions) -> bool:
        """Returns whether the network predicts distances."""
        return options.segmentation.predicts_distances

    def companion(self, options: TaskOptions, card: DataCard) -> TaskWeights | None:
        """Returns the weights of masks and distances, where both are predicted."""
        if not options.segmentation.predicts_distances:
            return None
        fixed = options.segmentation.distance_weight
        dtype = "float64" if options.dtype_policy == "float64" else "float32"
        return TaskWeights((MASK, DISTANCE), None if fixed is None else (1.0, fixed), dtype)

    def loss(self, options: TaskOptions, card: DataCard, companion: TaskWeights | None = None) -> LossFn:
        """Returns the chosen loss over all labeled pixels of the global batch, with weights that of distances too."""
        chosen = segmentation.DenseLossOptions(
            kind=options.segmentation.loss,
            class_weights=class_weights(options.segmentation, card),
            focal_gamma=options.segmentation.focal_gamma,
            label_smoothing=options.label_smoothing,
        )
        mask = MaskLoss(segmentation.DenseLoss(chosen, len(card.legend)))
        if weight := options.segmentation.stream_weight:
            names = later_dates(one.name for one in parse_inputs(options.bands, card))
            mask = dataclasses.replace(mask, streams=tuple(names), stream_weight=weight)
        if companion is None:
            return pixel_loss(mask)
        distance = segmentation.DenseLoss(segmentation.DenseLossOptions(), card.distance.classes)
        return distance_loss(mask, distance, companion)

    def loss_note(self, options: TaskOptions) -> str:
        """Returns why the losses must not be compared number by number."""
        chosen, special = options.segmentation, []
        if chosen.loss != "cross_entropy":
            special.append(f"the loss {chosen.loss}")
        if chosen.class_weights != "none":
            special.append(f"class weights ({chosen.class_weights})")
        if chosen.predicts_distances:
            special.append("the weighted loss of distances")
        if chosen.stream_weight:
            special.append("the weighted losses of single sensors")
        return training_loss.note(options, augmented=chosen.augmentation is not None, special=special)

    def validation_scoring(self, inputs: Sequence[InputBands], predicted: Sequence[InputBands]) -> dict[str, Any]:
        """Returns no options."""
        return {}

    def scorer(self, class_names: Sequence[str], **options: Any) -> MaskScorer:
        """Returns a scorer without tiles; without options one of areas alone, as validation needs. See `MaskScorer`."""
        return MaskScorer(class_names, **(options or {"areas_only": True}))

    def validation(self, predictions: MaskPredictions) -> dict[str, float]:
        """Returns mean cross-entropy, accuracy and mean intersection over union."""
        scores = predictions.scorer.scores(resamples=1)
        return {"loss": predictions.cross_entropy} | {metric.name: scores.value(metric.name) for metric in self.metrics}

    def figures(self, predicted: Predicted, card: DataCard, bands: Sequence[str], title: str) -> dict[str, bytes]:
        """Draws the confusion matrix over all pixels, and the samples with masks, predictions and errors."""
        confusion = predicted.predictions.scorer.confusion
        return {
            "confusion_matrix": plots.confusion_matrix_png(
                confusion, card.legend.class_names, title, "pixels", small=True
            ),
            "samples": mask_plots.maps_png(predicted.samples, card, bands, title, panels=8),
        }

    def served_model(self, model: keras.Model) -> keras.Model:
        """Returns the model for images of any size."""
        return models.inference_model(model, None)

    def served(self, probabilities: tf.Tensor, class_names: Sequence[str]) -> dict[str, tf.Tensor]:
        """Returns `probabilities`, and the number of each pixel's most probable class as uint8."""
        class_id = tf.argmax(probabilities, axis=-1, output_type=tf.int64)
        return {"probabilities": probabilities, "class_id": tf.cast(class_id, tf.uint8)}

    def evaluated_as(self, options: EvaluationOptions, card: ModelCard) -> dict[str, Any]:
        """Returns output stride, None for a network without one, and how boundaries and objects are scored."""
        info, stride = models.MODELS.get(card.model), options.output_stride
        if stride is None and (info is None or info.output_strides):
            stride = card.flags["segmentation"]["output_stride"]
        return {
            "output_stride": stride,
            "boundary_tolerances": list(options.boundary_tolerances),
            "boundary_width": options.boundary_width,
            "object_class": objects.object_class(card.legend.class_names, options.object_class),
        }

    def evaluated_model(self, model: keras.Model, options: EvaluationOptions) -> keras.Model:
        """Returns the model, or one of another output stride or for images of any size."""
        if options.output_stride is None and options.tta_name == "none":
            return model
        return models.inference_model(model, None, options.output_stride)

    def scoring(self, options: EvaluationOptions, examples: int) -> dict[str, Any]:
        """Returns the scorer's options, and the number of sampled pixels of a tile: of all about `_SAMPLED_PIXELS`."""
        return {
            "sampled": min(max(_SAMPLED_PIXELS // max(1, examples), _FEWEST_OF_TILE), _MOST_OF_TILE),
            "tolerances": options.boundary_tolerances,
            "width": options.boundary_width,
            "object_class": options.object_class,
        }

    def with_places(self, predictions: MaskPredictions, places: Locations | None, card: DataCard) -> MaskPredictions:
        """Returns predictions with the ground of each tile, the unit of the bootstrap."""
        if places is None:
            return predictions
        grounds = by_location.grounds(places, predictions.keys, card.patch_size * card.resolution_m)
        return dataclasses.replace(predictions, places=grounds)

    def scores(self, predictions: MaskPredictions, class_names: Sequence[str], resamples: int) -> Scores:
        """Returns the scores of pixel counts, and of the sampled probabilities."""
        scores = predictions.scorer.scores(
            resamples=resamples, places=predictions.places, negative_log_likelihood=predictions.cross_entropy
        )
        if predictions.sample is None:
            return scores
        sample = predictions.sample
        reliability = calibration.reliability(sample.labels, sample.probabilities)
        found = calibration.score_probabilities(sample.labels, sample.probabilities, reliability).estimates()
        # The likelihood is that of all pixels.
        return dataclasses.replace(scores, overall={**found, **scores.overall}, reliability=reliability)

    def outcomes(self, predictions: MaskPredictions, resamples: int) -> PlaceOutcomes:
        """Returns the counts of each tile."""
        return PlaceOutcomes.of(predictions.scorer, predictions.places, resamples=resamples)

    def probabilities(self, predictions: MaskPredictions) -> ClassPredictions:
        """Returns the probabilities of the sampled pixels."""
        return predictions.sample

    def correct(self, predictions: MaskPredictions) -> None:
        """Returns None: it is not defined for a tile."""
        return None

    def highlights(self, predictions: MaskPredictions) -> list[str]:
        """Returns no keys."""
        return []

    def report_figures(
        self,
        predictions: MaskPredictions,
        scores: Scores,
        samples: Sequence[PredictedSample],
        card: DataCard,
        bands: Sequence[str],
        title: str,
    ) -> dict[str, bytes]:
        """Draws scores by class, the confusion matrix over all pixels, and the first tiles with masks and errors."""
        drawn = (
            mask_plots.class_scores_png(scores, card.legend, title),
            plots.confusion_matrix_png(scores.confusion, card.legend.class_names, title, "pixels"),
            mask_plots.maps_png(samples, card, bands, title, object_class=scores.details["object_class"]),
        )
        return dict(zip(self.figure_names, drawn, strict=True))

    def calibrated(self, predictions: MaskPredictions, temperature: float) -> MaskPredictions:
        """Returns the predictions unchanged: pixel counts do not depend on the temperature."""
        return predictions

    def to_csv(self, predictions: MaskPredictions, class_names: Sequence[str]) -> str:
        """Returns a line a tile: key, place, and its counts by class."""
        return predictions.to_csv()

    def read_csv(self, path: str | os.PathLike[str], scores: Scores) -> MaskPredictions:
        """Reads the CSV of `to_csv`, which holds no sampled probabilities."""
        return read_mask_predictions(path, scores)


@dataclasses.dataclass(frozen=True)
class MaskLoss:
    """Loss of a mask over all labeled pixels of the global batch, and the weighted ones of each modality's own mask.

    Attributes:
        loss: the loss of each.
        streams: names of the modalities whose networks return logits of their own, in the order of the outputs.
        stream_weight: weight of the loss of each, where that of the joined logits has 1.
    """

    loss: segmentation.DenseLoss
    streams: tuple[str, ...] = ()
    stream_weight: float = 0.0

    def __call__(self, label: tf.Tensor, logits: tf.Tensor, own: Sequence[tf.Tensor]) -> tuple[Any, Any, dict]:
        """Returns the loss of the joined logits, the weighted sum of the others, and each by its name in the history.

        Args:
            label: (batch, height, width).
            logits: the joined ones (batch, height, width, classes).
            own: those of each modality.
        """
        value, parts, others = _over_all(self.loss, label, logits), {}, 0.0
        for name, one in zip(self.streams, own, strict=True):
            parts[f"{name}_loss"] = _over_all(self.loss, label, one)
            others += self.stream_weight * parts[f"{name}_loss"]
        return value, others, {f"{MASK}_loss": value, **parts} if parts else {}


def pixel_loss(mask: MaskLoss) -> LossFn:
    """Returns a loss over all labeled pixels of the global batch; an example of weight 0 is ignored as a whole."""

    def step_loss(outputs: Sequence[tf.Tensor], label: tf.Tensor, weight: tf.Tensor | None) -> StepLoss:
        logits, *own = outputs
        label = _counted(label, weight)
        value, others, parts = mask(label, logits, own)
        return _step_loss(value + others, label, logits, parts)

    return step_loss


def distance_loss(mask: MaskLoss, distance: segmentation.DenseLoss, weights: TaskWeights) -> LossFn:
    """Returns the weighted sum of the losses of masks and distances, each over all labeled pixels of the global batch.

    Losses of each modality's own mask are added as they are: the learned weights are those of the joined one.

    Labels are (batch, height, width, 2): class of the mask and distance class, `IGNORE` where it is not known. What is
    predicted correctly is counted of the masks.
    """

    def step_loss(outputs: Sequence[tf.Tensor], label: tf.Tensor, weight: tf.Tensor | None) -> StepLoss:
        logits, distance_logits, *own = outputs
        label, distance_label = (_counted(label[..., place], weight) for place in (0, 1))
        value, others, parts = mask(label, logits, own)
        losses = {MASK: value, DISTANCE: _over_all(distance, distance_label, distance_logits)}
        value = weights.combine(losses, tf.distribute.get_replica_context().num_replicas_in_sync) + others
        parts |= {f"{name}_loss": loss for name, loss in losses.items()}
        parts |= {f"{name}_weight": tf.cast(one, value.dtype) for name, one in weights.weights().items()}
        return _step_loss(value, label, logits, parts)

    return step_loss


def _counted(label: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
    """Returns labels (batch, height, width) in which examples of weight 0 are ignored as a whole."""
    if weight is None:
        return label
    return tf.where((weight > 0)[:, tf.newaxis, tf.newaxis], label, tf.cast(IGNORE, label.dtype))


def _over_all(loss: segmentation.DenseLoss, label: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return loss.combine(segmentation.whole_sums(loss.terms(label, logits), training_loss.all_reduced))


def _step_loss(
    value: tf.Tensor, label: tf.Tensor, logits: tf.Tensor, parts: Mapping[str, tf.Tensor] | None = None
) -> StepLoss:
    """Returns a loss over all pixels, which is the same on every replica."""
    replicas = tf.cast(tf.distribute.get_replica_context().num_replicas_in_sync, value.dtype)
    return StepLoss(
        value,
        value / replicas,
        segmentation.right_pixels(label, logits),
        training_loss.count(tf.not_equal(label, tf.cast(IGNORE, label.dtype))),
        {name: part / replicas for name, part in (parts or {}).items()},
    )


def class_weights(options: SegmentationOptions, card: DataCard) -> tuple[float, ...] | None:
    """Returns the weight of a pixel of each class, from the training split's counts in the card; None for 1 each."""
    counts = [card.splits["train"].classes.get(name, 0) for name in card.legend.class_names]
    if options.class_weights == "median_frequency":
        return weighting.median_frequency_weights(counts)
    if options.class_weights == "effective_number":
        return weighting.effective_number_weights(counts, options.effective_beta)
    return None


TASK = Segmentation()
