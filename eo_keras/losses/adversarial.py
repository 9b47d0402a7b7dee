"""Adversarial loss of predicted images: how well a discriminator tells them from true ones. Only Keras is used here."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class Adversary:
    """Discriminator that is trained beside a network, and the terms of both losses.

    As in Isola et al. 2017 (CVPR, arXiv 1611.07004, section 3.3): the discriminator's loss is half the cross-entropy of
    true and predicted images; the network's is the cross-entropy of its images being taken for true ones, which does
    not vanish where the discriminator is sure (Goodfellow et al. 2014, arXiv 1406.2661, section 3).

    One sum of both losses is differentiated: predictions are constants to the discriminator's loss, and the
    discriminator's weights to the network's.

    Args:
        discriminator: see `eo_keras.models.discriminator`; made in a strategy's scope. It belongs to training.

    Attributes:
        variables: its trainable variables.
    """

    def __init__(self, discriminator: keras.Model):
        self._discriminator = discriminator
        self.variables = tuple(discriminator.trainable_variables)

    def terms(self, condition: Any, true: Any, predicted: Any, counted: Any) -> dict[str, Any]:
        """Returns sums over this device's patches; they are added to those of other devices.

        Args:
            condition: what was predicted from, standardized numbers `(batch, height, width, bands)`.
            true: true images, standardized, 0 where there is no data `(batch, height, width, bands)`.
            predicted: predicted images, 0 at the same places.
            counted: 1 for each example that counts, else 0 `(batch,)`.

        Returns:
            `adversarial` and `discriminator`, sums of cross-entropies in nats, and `patches`, how many.
        """
        model = self._discriminator
        fixed = [ops.stop_gradient(ops.convert_to_tensor(variable)) for variable in self.variables]
        pairs = (
            ops.concatenate([condition, true], axis=-1),
            ops.concatenate([condition, ops.stop_gradient(predicted)], axis=-1),
        )
        on_true, on_predicted = (model(pair, training=True) for pair in pairs)
        judged, _ = model.stateless_call(fixed, [], ops.concatenate([condition, predicted], axis=-1), training=True)
        weight = ops.reshape(ops.cast(counted, judged.dtype), (-1, 1, 1, 1))

        def total(logits):
            return ops.sum(weight * ops.softplus(logits))

        return {
            "adversarial": total(-judged),
            "discriminator": (total(-on_true) + total(on_predicted)) / 2,
            "patches": ops.sum(weight * ops.ones_like(judged)),
        }


def combine(terms: Any) -> tuple[Any, Any]:
    """Returns the mean cross-entropies of the network and of the discriminator over all patches.

    Args:
        terms: of `Adversary.terms`, over all devices.
    """
    patches = ops.maximum(terms["patches"], 1.0)
    return terms["adversarial"] / patches, terms["discriminator"] / patches
