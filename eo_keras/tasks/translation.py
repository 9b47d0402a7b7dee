"""Prediction of one sensor's images from those of the others: a stand-in where that sensor is missing.

Image translation by a conditional GAN (Isola et al. 2017, CVPR, arXiv 1611.07004). Bischke et al. 2018 (CBMI, arXiv
1808.03195) fill missing heights so for building footprints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from eo_keras.errors import OptionError
from eo_keras.losses import adversarial, reconstruction
from eo_keras.losses.adversarial import Adversary
from eo_keras.losses.segmentation import whole_sums
from eo_keras.models.discriminator import build_discriminator
from eo_keras.plots.reconstruction import translation_png
from eo_keras.records.data_card import DataCard
from eo_keras.records.inputs import InputBands, parse_inputs, sides
from eo_keras.tasks import training_loss
from eo_keras.tasks.pretext import SHOWN, Pretext, check_decoder, network_without_labels, statistics_of
from eo_keras.tasks.task import LossFn, Predicted, StepLoss, TaskOptions


class Translation(Pretext):
    """Task of predicting a sensor's images, with the explained variance. See `eo_keras.tasks.task.TrainingTask`."""

    name = "translation"
    description = "training of a stand-in"

    def network(self, options: TaskOptions, card: DataCard) -> Mapping[str, Any]:
        """Returns the fields of a segmentation network, and how many bands it predicts."""
        check_decoder(options, card)
        if options.modality_dropout:
            found = f"{options.modality_dropout:g}, which does not apply to the training of a stand-in"
            raise OptionError("modality_dropout", found, remedy="leave it out")
        return {**network_without_labels(options, card), "reconstruction": sum(_groups(options, card))}

    def companion(self, options: TaskOptions, card: DataCard) -> Adversary | None:
        """Returns a new discriminator; None without an adversarial loss."""
        if not options.pretraining.adversarial_weight:
            return None
        taken, _ = _sides(options, card)
        bands = sum(len(one.bands) for one in taken)
        dtype = "float64" if options.dtype_policy == "float64" else "float32"
        return Adversary(build_discriminator(bands, sum(_groups(options, card)), seed=options.seed, dtype=dtype))

    def loss(self, options: TaskOptions, card: DataCard, companion: Adversary | None = None) -> LossFn:
        """Returns the mean absolute error, a mean of that of each image, and the adversarial loss."""
        return translation_loss(_groups(options, card), companion, options.pretraining.adversarial_weight)

    def loss_note(self, options: TaskOptions) -> str:
        """Returns what the losses are, and why they must not be compared."""
        return (
            "Training: mean absolute error of standardized numbers and the weighted adversarial loss, a mean over the "
            "steps of the epoch. Validation: mean squared error, by the network at the epoch's end."
        )

    def validation_scoring(self, inputs: Sequence[InputBands], predicted: Sequence[InputBands]) -> dict[str, Any]:
        """Returns the predicted images."""
        return {"inputs": predicted}

    def figures(
        self, predicted: Predicted, card: DataCard, bands: Sequence[str] | Mapping[str, Sequence[str]], title: str
    ) -> dict[str, bytes]:
        """Draws the first examples: what the network takes, the true images and the predicted ones."""
        statistics = statistics_of(predicted.predictions.inputs, card)
        return {"samples": translation_png(predicted.samples[:SHOWN], bands, statistics, title)}


def _sides(options: TaskOptions, card: DataCard) -> tuple[tuple[InputBands, ...], tuple[InputBands, ...]]:
    return sides(parse_inputs(options.bands, card), options.pretraining.translated_sensor)


def _groups(options: TaskOptions, card: DataCard) -> list[int]:
    """Returns the number of bands of each predicted image."""
    _, predicted = _sides(options, card)
    return [len(one.bands) for one in predicted]


def translation_loss(groups: Sequence[int], adversary: Adversary | None, adversarial_weight: float) -> LossFn:
    """Returns a loss over all numbers of the global batch; an example of weight 0 is left out as a whole.

    Args:
        groups: number of bands of each predicted image.
        adversary: the discriminator, or None.
        adversarial_weight: weight of the adversarial loss.
    """
    bands = sum(groups)

    def step_loss(outputs: Sequence[tf.Tensor], label: tf.Tensor, weight: tf.Tensor | None) -> StepLoss:
        (found,) = outputs
        label = tf.cast(label, found.dtype)
        true, condition = label[..., :bands], label[..., bands:]
        counted = tf.ones(tf.shape(found)[0]) if weight is None else tf.cast(weight > 0, tf.float32)
        true = tf.where(counted[:, tf.newaxis, tf.newaxis, tf.newaxis] > 0, true, float("nan"))
        terms = reconstruction.terms(true, found, groups, absolute=True)
        if adversary is not None:
            known = tf.math.is_finite(true)
            terms |= adversary.terms(condition, *(tf.where(known, one, 0.0) for one in (true, found)), counted)
        sums = whole_sums(terms, training_loss.all_reduced)
        value = objective = reconstruction.combine(sums)
        parts = {}
        if adversary is not None:
            judged, telling = adversarial.combine(sums)
            parts = {"absolute_error": value, "adversarial_loss": judged, "discriminator_loss": telling}
            value += adversarial_weight * judged
            objective = value + telling
        replicas = tf.cast(tf.distribute.get_replica_context().num_replicas_in_sync, value.dtype)
        # No classes are predicted, correctly or not.
        nothing = tf.constant(0, tf.int32)
        shares = {name: part / replicas for name, part in parts.items()}
        return StepLoss(objective, value / replicas, nothing, nothing, shares)

    return step_loss


TASK = Translation()
