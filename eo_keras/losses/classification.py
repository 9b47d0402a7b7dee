"""Losses of classification, one number per example; the caller weighs and sums them. Only Keras is used here."""

from __future__ import annotations

from keras import ops


def softmax_cross_entropy(labels, logits, *, label_smoothing: float = 0.0):
    """Returns the cross-entropy of softmax(logits) with true labels, example by example.

    Args:
        labels: (batch,) integers.
        logits: (batch, classes) real numbers.
        label_smoothing: this share of the target is spread evenly over all classes (Szegedy et al. 2015, arXiv
            1512.00567, section 7).

    Returns:
        (batch,) of the logits' dtype, nats.
    """
    log_probabilities = ops.log_softmax(logits, axis=-1)
    loss = -ops.squeeze(ops.take_along_axis(log_probabilities, ops.expand_dims(labels, -1), axis=-1), -1)
    if not label_smoothing:
        return loss
    return (1 - label_smoothing) * loss - label_smoothing * ops.mean(log_probabilities, axis=-1)
