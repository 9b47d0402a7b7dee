"""Checks of batch normalization in a run: values in a batch, and moving against batch moments."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from eo_keras import models
from eo_keras.errors import OptionError
from eo_keras.legends.catalogue import IGNORE

FEW_VALUES = 4
"""Number of values of a channel below which moments are unreliable."""

FAR = 3.0
"""Factor between two losses from which one is far above the other."""


def check_batch(model: keras.Model, size: int, batch_size: int) -> str | None:
    """Checks the number of values of a channel in a batch, at the batch normalization with the fewest.

    Batch normalization is synchronized: it takes its moments over the batch of all devices together. Every batch of
    training is full.

    Args:
        model: the model that is trained.
        size: height and width of the smallest training images in pixels.
        batch_size: examples in a batch, over all devices together.

    Returns:
        A warning where they are few; None where they are enough.

    Raises:
        OptionError: if it is one value, whose deviation from its own mean is 0 whatever the image shows.
    """
    name, pixels = models.fewest_values(model, size)
    values = pixels * batch_size
    branch = " in the branch that sees the mean of the whole image" if name == "aspp_mean_bn" else ""
    where = f"the batch normalisation {name}{branch}"
    if values == 1:
        raise OptionError(
            "batch_size",
            f"{batch_size}: {where} would have one value of a channel to take moments over",
            f"2 or more, better {2 * FEW_VALUES}",
            "or keep batch normalisation as weights hold it, by frozen_batch_norm",
        )
    if values >= FEW_VALUES:
        return None
    return f"{where} takes its moments over {values} values of a channel, which is unreliable: increase `batch_size`"


def disagreement(model: keras.Model, batch: Any) -> str | None:
    """Compares a network's losses by the moments of a batch and by its moving moments.

    Args:
        model: the model that is validated; its moving moments stay as they are.
        batch: `(image, label, weight, ...)` of `eo_keras.data.pipeline.evaluation`.

    Returns:
        What is the matter, in words; None where both do alike.
    """
    label, weight = (np.asarray(part) for part in batch[1:3])
    image = tf.nest.map_structure(lambda one: np.asarray(one)[weight > 0], batch[0])
    label = label[weight > 0]
    moving, own = (_loss(model, image, label, training) for training in (False, True))
    # One that is not finite is no better than any number.
    if not own * FAR < moving:
        return None
    return (
        f"of a batch of validation examples the loss is {moving:.4g} by the moving moments of batch normalisation and "
        f"{own:.4g} by the batch's own: the moving ones do not describe the network. Lower the learning_rate, take a "
        "longer warm-up, or train on"
    )


def _loss(model: keras.Model, image: Any, label: np.ndarray, training: bool) -> float:
    values = [[tf.constant(one.numpy()) for one in some] for some in _variables(model)]
    image = tf.nest.map_structure(tf.constant, image)
    outputs, _ = model.stateless_call(*values, image, training=training)
    outputs, known = keras.ops.convert_to_numpy(outputs), np.ones(label.shape, bool)
    if label.ndim > 1:
        known = label != IGNORE
    true = np.take_along_axis(outputs, np.where(known, label, 0).astype(np.int64)[..., None], axis=-1)[..., 0]
    return float(-np.log(np.maximum(true[known], np.finfo(np.float32).tiny)).mean()) if known.any() else float("nan")


def _variables(model: keras.Model) -> tuple[list[Any], list[Any]]:
    return model.trainable_variables, model.non_trainable_variables
