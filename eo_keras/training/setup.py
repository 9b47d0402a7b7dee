"""Set-up of a training run: its examples and its network."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import tensorflow as tf

from eo_keras import models
from eo_keras.data import holdouts
from eo_keras.data import pipeline as pipelines
from eo_keras.data.augment.options import Masking, Translation
from eo_keras.records.inputs import InputBands, sides
from eo_keras.training import distribution, moments
from eo_keras.training.transfer import Start


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Options of a run's examples and batches.

    Attributes:
        batch_size: examples in a step, over all devices together.
        inputs: the inputs.
        seed: seed of order, augmentation and the examples held out.
        augmentation: changes to training images, see `eo_keras.data.augment`; None for none.
        cache_gb: limit in gigabytes of the examples that are kept in memory.
        validation_from_train: fraction of the training examples that is held out where there is no split val.
        modality_dropout: probability that a sensor is taken away from a training image.
        distance: whether training labels hold classes of distances beside those of masks.
        pretext: what is predicted in place of the labels, see `eo_keras.data.pipeline.PipelineOptions`; None for them.
        train_fraction: fraction of the training examples that are left which is trained on.
        train_per_class: number of these of each class which is trained on; None for all.
    """

    batch_size: int
    inputs: tuple[InputBands, ...]
    seed: int
    augmentation: Any
    cache_gb: float
    validation_from_train: float
    modality_dropout: float = 0.0
    distance: bool = False
    pretext: Masking | Translation | None = None
    train_fraction: float = 1.0
    train_per_class: int | None = None


class TrainingData:
    """Training and validation examples of a run.

    Args:
        records: the records folder.
        options: options of examples and batches.
        worker: this worker, whose share of every batch is read.

    Attributes:
        records: the records folder.
        card: its card.
        inputs: the inputs of the network.
        predicted: images that it predicts; empty where it predicts classes, or the inputs themselves.
        lacking: whether training examples may lack some of the inputs.
        train: batches of the training examples.
        validation: batches of the validation examples in order, with keys; None without any.
        validation_name: name of the validation examples, such as `the split val`; None without any.
        validation_count: their number.
        sample: without validation examples, one small batch of training images as they are.

    Raises:
        RecordsError: if the records cannot be used.
        BandError: if they lack a band.
        OptionError: if there are too few examples.
    """

    def __init__(
        self,
        records: pipelines.RecordDataset,
        options: DataOptions,
        worker: distribution.Worker = distribution.ALONE,
    ):
        self.records, self.card, self.inputs, self.predicted = records, records.card, options.inputs, ()
        if isinstance(options.pretext, Translation):
            self.inputs, self.predicted = sides(options.inputs, options.pretext.sensor)
        removed = options.pretext.sensor if isinstance(options.pretext, Masking) else options.modality_dropout
        missing = [self.card.modalities[one.modality].missing.get("train", 0) for one in self.inputs]
        self.lacking = len(self.inputs) > 1 and bool(removed or any(missing))
        kept = held_out = self.validation_name = self.validation = self.sample = None
        if "val" in self.card.splits and self.card.splits["val"].examples:
            split, self.validation_name = "val", "the split val"
        elif options.validation_from_train:
            split = "train"
            division = holdouts.hold_out(records, options.validation_from_train, options.seed)
            kept, held_out, self.validation_name = division.kept, division.held_out, division.name
        if options.train_fraction < 1:
            kept = holdouts.fraction_of(records, kept, options.train_fraction, options.seed)
        if options.train_per_class:
            kept = holdouts.of_each_class(records, kept, options.train_per_class, options.seed)
        settings = pipelines.PipelineOptions(
            batch_size=options.batch_size,
            inputs=options.inputs,
            seed=options.seed,
            augmentation=options.augmentation,
            cache=options.cache_gb > 0,
            cache_limit_bytes=int(options.cache_gb * 1e9),
            modality_dropout=options.modality_dropout,
            distance=options.distance,
            pretext=options.pretext,
        )
        self.train = pipelines.TrainingDataset(records, settings, part=kept, input_context=worker.input_context)
        self.validation_count = 0
        if self.validation_name:
            # One limit for all that is kept.
            left = settings.cache_limit_bytes - self.train.kept_bytes
            settings = dataclasses.replace(settings, cache_limit_bytes=left, distance=False)
            self.validation = pipelines.evaluation(records, settings, split, part=held_out, with_keys=True)
            self.validation_count = records.count(split, held_out)
        else:
            few = dataclasses.replace(settings, batch_size=min(8, options.batch_size), cache=False)
            self.sample = pipelines.evaluation(records, few, "train").take(1)


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """Options of a run's network.

    Attributes:
        model: a name of `eo_keras.models.MODELS`.
        stem: mode of matching bands with pretrained kernels.
        start: its initial weights.
        dtype_policy: precision.
        dropout: fraction of the features dropped before the last layer; None for the network's own.
        seed: seed of the initial weights.
        arguments: fields of `eo_keras.models.NetworkSpec` that the task sets.
        frozen_batch_norm: whether batch normalization keeps its statistics.
        averaged: whether a moving average of the weights is kept.
        batch_size: examples in a step.
        image_sizes: heights, equal to the widths, of the images that are trained on, in pixels.
        fixed_size: the only size that the trained model takes; None for any.
    """

    model: str
    stem: str
    start: Start
    dtype_policy: str
    dropout: float | None
    seed: int
    arguments: dict[str, Any]
    frozen_batch_norm: bool
    averaged: bool
    batch_size: int
    image_sizes: frozenset[int]
    fixed_size: int | None


class Network:
    """Training and inference models of a run.

    Args:
        options: options of the network.
        data: the examples that it is made for.
        strategy: the strategy in whose scope its variables are made.
        worker: this worker.

    Attributes:
        name: a name of `eo_keras.models.MODELS`.
        model: the model that is trained.
        inference: the model that is validated and saved, for images of the records' size.
        averages: variables parallel to `model.weights` that hold their moving averages; empty without any.
        start: its initial weights.
        initialization: report of loaded and initialized layers.
        warning: a warning about unreliable batch normalization; None for none.
        normalization: its layers that normalize bands, by the inputs' names.

    Raises:
        OptionError: if an option does not fit the network.
        SourceError: if the weights cannot be read.
    """

    def __init__(
        self,
        options: NetworkOptions,
        data: TrainingData,
        strategy: tf.distribute.Strategy,
        worker: distribution.Worker = distribution.ALONE,
    ):
        card = data.card
        self.name, self.start, self.warning, self.averages = options.model, options.start, None, []
        with strategy.scope():
            spec = models.NetworkSpec.of_inputs(
                card,
                data.inputs,
                patch_size=options.fixed_size,
                stem=options.stem,
                weights=options.start.weights,
                synchronized=strategy.num_replicas_in_sync > 1,
                dtype_policy=options.dtype_policy,
                dropout=options.dropout,
                seed=options.seed,
                lacking=data.lacking,
                **options.arguments,
            )
            self.model, self.initialization = models.build(options.model, spec)
            if not options.frozen_batch_norm:
                self.warning = moments.check_batch(self.model, min(options.image_sizes), options.batch_size)
            if options.averaged:
                self.averages = [tf.Variable(weight.numpy(), trainable=False) for weight in self.model.weights]
        self.normalization = models.normalizations(self.model)
        # Of several workers the first one alone looks at validation examples, on a device of its own.
        with contextlib.nullcontext() if worker.count > 1 else strategy.scope():
            self.inference = models.inference_model(self.model, card.patch_size)

    def update_inference(self) -> None:
        """Copies the weights, or their moving averages, into the model that is validated and saved."""
        models.copy_weights(self.model, self.inference, self.averages or None)
