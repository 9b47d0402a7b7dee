"""Sums over replicas for losses of several tasks, and a note on terms of a training loss."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from eo_keras.tasks.task import TaskOptions


def all_reduced(value: tf.Tensor) -> tf.Tensor:
    """Returns the sum of a tensor over all replicas; called in a replica's context."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def count(flags: tf.Tensor) -> tf.Tensor:
    """Returns the number of true values in a bool tensor, int32."""
    return tf.reduce_sum(tf.cast(flags, tf.int32))


def note(options: TaskOptions, *, augmented: bool, special: Sequence[str] = ()) -> str:
    """Returns a note on why the losses of training and validation are not comparable.

    Args:
        options: the run's options.
        augmented: whether training images are changed.
        special: terms of the training loss besides cross-entropy.
    """
    found = list(special)
    if options.label_smoothing:
        found.append(f"label smoothing {options.label_smoothing:g}")
    with_them = f", with {' and '.join(found)}" if found else ""
    images = "augmented images" if augmented else "images as they are"
    return (
        f"Training: a mean over the steps of the epoch, while the network changes, of {images}{with_them}. Validation: "
        "cross-entropy of images as they are, by the network at the epoch's end. So validation may lie below training."
    )
