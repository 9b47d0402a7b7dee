"""Datasets in the form that `keras.Model.fit` takes, over the same pipeline that training uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from eo_keras.data.folder import RecordDataset, finished, reading, unconverted
from eo_keras.data.pipeline import PipelineOptions, TrainingDataset, evaluation
from eo_keras.legends.catalogue import IGNORE


def shuffled_dataset(
    records: RecordDataset, options: PipelineOptions, split: str, *, one_hot: bool = False
) -> tf.data.Dataset:
    """Returns full batches of a split in a new order, with new augmentation, each time it is iterated.

    The first pass is epoch 0 of `TrainingDataset`, the second one epoch 1, and so on.

    Args:
        records: the records folder.
        options: batch size, bands, seed and augmentation.
        split: name of the split.
        one_hot: whether labels are one-hot vectors.

    Returns:
        What `ordered_dataset` returns, all batches of `options.batch_size`.

    Raises:
        RecordsError: if the split cannot be used.
        BandError: if a band is not stored.
        OptionError: if there are too few examples for a batch, or the augmentation does not fit the images.
    """
    pipeline = TrainingDataset(records, options, split)
    first, numbers = pipeline.epoch(0), itertools.count()

    def batches() -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        yield from reading(records, pipeline.epoch(next(numbers)))

    dataset = tf.data.Dataset.from_generator(batches, output_signature=first.element_spec)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(pipeline.steps))
    return finished(dataset.map(_targets(len(records.card.legend), one_hot)))


def ordered_dataset(
    records: RecordDataset, options: PipelineOptions, split: str, *, one_hot: bool = False
) -> tf.data.Dataset:
    """Returns every example of a split once, in stored order; the last batch may be smaller.

    Args:
        records: the records folder.
        options: batch size and bands.
        split: name of the split.
        one_hot: whether labels are one-hot vectors.

    Returns:
        Batches `(image, label)`: digital numbers (batch, height, width, band) in their stored dtype; labels int32
        (batch,), or one-hot float32 (batch, class). Where every pixel has a class, `(image, label, weight)`: labels
        uint8 (batch, height, width), or one-hot (batch, height, width, class), and weights float32 (batch, height,
        width), 0 for pixels without a class (whose label is 0 then).

    Raises:
        RecordsError: if the split cannot be used.
        BandError: if a band is not stored.
    """
    targets = _targets(len(records.card.legend), one_hot)

    @unconverted
    def unpadded(image: Any, label: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, ...]:
        present = tf.reduce_sum(tf.cast(weight, tf.int32))
        return targets(tf.nest.map_structure(lambda one: one[:present], image), label[:present])

    return finished(evaluation(records, options, split).map(unpadded))


def _targets(classes: int, one_hot: bool) -> Callable[..., Any]:
    """Returns a function that converts a batch of images and labels to targets and weights of Keras."""

    @unconverted
    def targets(image: Any, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        if label.shape.rank == 1:
            return image, tf.one_hot(label, classes) if one_hot else label
        known = label != IGNORE
        label = tf.where(known, label, tf.zeros((), label.dtype))
        return image, tf.one_hot(label, classes) if one_hot else label, tf.cast(known, tf.float32)

    return targets
