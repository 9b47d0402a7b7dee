"""Pre-training without labels: the numbers of masked pixels, told from other pixels and other sensors.

The network is that of segmentation, whose last layer predicts the standardized numbers of all inputs in place of
classes. Its weights start a segmentation network of the same inputs, which has layers of the same names. Labels are not
used: those of training are replaced by the numbers that were masked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from eo_keras.errors import OptionError
from eo_keras.losses import reconstruction
from eo_keras.losses.segmentation import whole_sums
from eo_keras.metrics.metric import EXPLAINED_VARIANCE
from eo_keras.metrics.reconstruction import ReconstructionSums, mean_of
from eo_keras.models.spec import Normalization
from eo_keras.plots.reconstruction import reconstruction_png
from eo_keras.records.data_card import DataCard
from eo_keras.records.inputs import InputBands, parse_inputs
from eo_keras.tasks import segmentation, training_loss
from eo_keras.tasks.options import SegmentationOptions
from eo_keras.tasks.task import Companion, LossFn, Predicted, StepLoss, TaskOptions

SHOWN = 4
"""Number of examples in a figure."""


class ReconstructionScorer:
    """Scorer of reconstructions; no image is kept.

    Args:
        class_names: not used.
        inputs: the inputs, in the order of the channels.
    """

    def __init__(self, class_names: Sequence[str], inputs: Sequence[InputBands]):
        self._sums = ReconstructionSums(inputs)

    def keep(self, outputs: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the predicted numbers."""
        return (outputs,)

    def add(self, keys: Sequence[str], labels: np.ndarray, kept: Sequence[np.ndarray]) -> np.ndarray:
        """Adds examples; returns the predicted numbers."""
        (outputs,) = kept
        # Those of a translation hold what was predicted from too.
        self._sums.add(labels[..., : outputs.shape[-1]], outputs)
        return outputs

    def merge(self, other: ReconstructionScorer) -> None:
        """Adds all examples of another scorer."""
        self._sums.merge(other._sums)

    def result(self) -> ReconstructionSums:
        """Returns the sums over all examples."""
        return self._sums


class Pretext:
    """Task of predicting masked numbers, with the explained variance. See `eo_keras.tasks.task.TrainingTask`."""

    name = "pretext"
    description = "pre-training"
    monitor = EXPLAINED_VARIANCE
    metrics = (EXPLAINED_VARIANCE,)
    predicts_classes = False

    def augmentation(self, options: TaskOptions) -> Any:
        """Returns the changes to tiles, those of segmentation."""
        return segmentation.TASK.augmentation(options)

    def crop(self, options: TaskOptions) -> int | None:
        """Returns the crops' height and width in pixels, those of segmentation."""
        return segmentation.TASK.crop(options)

    def image_size(self, options: TaskOptions, epoch: int) -> int | None:
        """Returns None: all crops have one size."""
        return None

    def network(self, options: TaskOptions, card: DataCard) -> Mapping[str, Any]:
        """Returns the fields of a segmentation network, and that it predicts numbers."""
        check_decoder(options, card)
        smallest = min(card.modalities[one.modality].patch_size for one in parse_inputs(options.bands, card))
        if options.pretraining.mask_size * smallest // card.patch_size < 1:
            found = f"{options.pretraining.mask_size} pixels, less than one of the coarsest input"
            raise OptionError("mask_size", found, f"{card.patch_size // smallest} or more")
        bands = sum(len(one.bands) for one in parse_inputs(options.bands, card))
        return {**network_without_labels(options, card), "reconstruction": bands}

    def with_distances(self, options: TaskOptions) -> bool:
        """Returns False: labels are not used."""
        return False

    def companion(self, options: TaskOptions, card: DataCard) -> Companion | None:
        """Returns None: there is one task."""
        return None

    def loss(self, options: TaskOptions, card: DataCard, companion: None = None) -> LossFn:
        """Returns the mean squared error of masked numbers, a mean of that of each input."""
        return reconstruction_loss([len(one.bands) for one in parse_inputs(options.bands, card)])

    def loss_note(self, options: TaskOptions) -> str:
        """Returns what the losses are, and why they must not be compared number by number."""
        return (
            "Mean squared errors of masked numbers, standardized by band. Training: a mean over the steps of the "
            "epoch, while the network changes. Validation: of images as they are, always masked alike, by the network "
            "at the epoch's end."
        )

    def validation_scoring(self, inputs: Sequence[InputBands], predicted: Sequence[InputBands]) -> dict[str, Any]:
        """Returns the inputs, all of which are predicted."""
        return {"inputs": inputs}

    def scorer(self, class_names: Sequence[str], **options: Any) -> ReconstructionScorer:
        """Returns a scorer without examples; see `ReconstructionScorer`."""
        return ReconstructionScorer(class_names, **options)

    def validation(self, predictions: ReconstructionSums) -> dict[str, float | None]:
        """Returns mean squared error and explained variance: means over the inputs, and of several those of each."""
        errors, variances = predictions.errors(), predictions.explained_variances()
        found = {"loss": mean_of(errors), EXPLAINED_VARIANCE.name: mean_of(variances)}
        if len(variances) > 1:
            found |= {f"{EXPLAINED_VARIANCE.name}_{name}": value for name, value in variances.items()}
        return found

    def figures(
        self, predicted: Predicted, card: DataCard, bands: Sequence[str] | Mapping[str, Sequence[str]], title: str
    ) -> dict[str, bytes]:
        """Draws the first examples: each input, masked, and reconstructed."""
        statistics = statistics_of(predicted.predictions.inputs, card)
        return {"samples": reconstruction_png(predicted.samples[:SHOWN], statistics, title)}


def check_decoder(options: TaskOptions, card: DataCard) -> None:
    """Checks that networks of the records predict pixels.

    Raises:
        OptionError: if they do not.
    """
    if not card.targets.per_pixel:
        raise OptionError(
            "pretext",
            f"{options.pretraining.pretext} on records of {card.targets.examples}, whose networks have no decoder",
            "records of one class a pixel",
        )


def network_without_labels(options: TaskOptions, card: DataCard) -> Mapping[str, Any]:
    """Returns the fields of a segmentation network, after checking that no option is about labels.

    Raises:
        OptionError: if one is.
    """
    given, default = options.segmentation, SegmentationOptions()
    chosen = {
        field: getattr(given, field)
        for field in ("loss", "class_weights", "focal_gamma", "distance_head", "distance_weight", "stream_weight")
        if getattr(given, field) != getattr(default, field)
    }
    if options.label_smoothing:
        chosen["label_smoothing"] = options.label_smoothing
    for field, value in chosen.items():
        raise OptionError(field, f"{value}, which does not apply to training without labels", remedy="leave it out")
    return segmentation.TASK.network(options, card)


def statistics_of(
    inputs: Sequence[InputBands], card: DataCard
) -> dict[str, tuple[tuple[str, ...], np.ndarray, np.ndarray]]:
    """Returns names of the bands, means and standard deviations, by the inputs' names, for figures."""
    found = {}
    for one in inputs:
        own = Normalization.of_statistics(card.modalities[one.modality].statistics, one.bands, card.dataset)
        found[one.name] = (one.bands, np.array(own.mean), np.array(own.std))
    return found


def reconstruction_loss(groups: Sequence[int]) -> LossFn:
    """Returns a loss over all masked numbers of the global batch; an example of weight 0 is left out as a whole.

    Args:
        groups: number of bands of each input.
    """

    def step_loss(outputs: Sequence[tf.Tensor], label: tf.Tensor, weight: tf.Tensor | None) -> StepLoss:
        (found,) = outputs
        if weight is not None:
            label = tf.where((weight > 0)[:, tf.newaxis, tf.newaxis, tf.newaxis], label, float("nan"))
        sums = whole_sums(reconstruction.terms(label, found, groups), training_loss.all_reduced)
        value = reconstruction.combine(sums)
        share = value / tf.cast(tf.distribute.get_replica_context().num_replicas_in_sync, value.dtype)
        # No classes are predicted, correctly or not.
        nothing = tf.constant(0, tf.int32)
        return StepLoss(value, share, nothing, nothing)

    return step_loss


TASK = Pretext()
