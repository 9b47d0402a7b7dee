"""From a records folder to batches: one training epoch, or one ordered pass over a split.

What a batch holds is a function of the options, the epoch and the step alone, not of what was read before, so that a
resumed run sees what the uninterrupted one would have seen. Numbers stay in their stored type; models cast them.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from eo_keras import records as codec
from eo_keras import sentinel2
from eo_keras.augment import Augmentation, augment_batch, shrink
from eo_keras.cards import DataCard, Split, read_data_card
from eo_keras.dense_augment import DenseAugmentation, augment_maps
from eo_keras.errors import OptionError, RecordsError
from eo_keras.parts import WHOLE, Part, Share, check_workers, draw_of_epoch

_PARSE_BATCH = 256
_READ_BUFFER_BYTES = 256 << 10  # What a processor's cache holds: every record is copied out of it once more.
_PARALLEL_READS = 8
_SHUFFLE_BYTES = 32 << 20  # New memory costs more time than reading: a larger buffer slows large images down.
_PARALLEL_CALLS = max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2)
"""As many as there are processors for this process."""


@dataclasses.dataclass(frozen=True)
class PipelineOptions:
    """How records become batches.

    Attributes:
        batch_size: examples in a batch, over all devices together.
        bands: names of the bands to deliver, in this order; None for all that are stored.
        seed: what order and augmentation are drawn from.
        augmentation: changes to training images, of tiles to their masks too, or None.
        shuffle_buffer: number of examples among which a streaming pipeline draws; 32 MB at most. The builder has mixed
            all shards already, and every epoch takes them in another order, several at once. Kept in memory, every
            epoch's draw is perfect.
        cache: whether to keep the parsed examples in memory.
        cache_limit_bytes: beyond this size, examples are streamed from the files in spite of `cache`.
    """

    batch_size: int
    bands: tuple[str, ...] | None = None
    seed: int = 1
    augmentation: Augmentation | DenseAugmentation | None = None
    shuffle_buffer: int = 1_000
    cache: bool = True
    cache_limit_bytes: int = 4 << 30

    def __post_init__(self):
        """Refuses values that make no sense."""
        for name in ("batch_size", "shuffle_buffer"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)}", "1 or more")


class Records:
    """A records folder.

    Attributes:
        folder: its path.
        card: its card.
    """

    def __init__(self, records_dir: str | pathlib.Path):
        """Reads the card.

        Raises:
            RecordsError: if the folder or its card is missing, or the card cannot be read.
        """
        self.folder = pathlib.Path(records_dir)
        self.card: DataCard = read_data_card(self.folder)
        self._part_counts: dict[tuple[str, Part, Share], int] = {}

    def split(self, name: str) -> Split:
        """Returns a split's entry in the card.

        Raises:
            RecordsError: if there is no such split or it is empty.
        """
        available = ", ".join(other for other, split in self.card.splits.items() if split.examples)
        if name not in self.card.splits:
            raise RecordsError(self.folder, f"there is no split '{name}'", f"one of {available}")
        if not self.card.splits[name].examples:
            raise RecordsError(self.folder, f"the split '{name}' is empty", f"one of {available}")
        return self.card.splits[name]

    def files(self, split: str, share: Share = WHOLE) -> list[str]:
        """Returns the paths of a share of a split's shards, after checking that they exist and are of full length.

        Raises:
            RecordsError: if the split is unknown or empty, or a shard is missing or of another length.
        """
        return [str(codec.check_shard(self.folder, shard)) for shard in share.of(self.split(split).shards)]

    def count(self, split: str, part: Part | None = None, share: Share = WHOLE) -> int:
        """Returns the number of examples in a split, or in a part or share of it; a part is read once to count it."""
        if part is None:
            whole = self.split(split)
            return whole.examples if share == WHOLE else sum(shard.examples for shard in share.of(whole.shards))
        if (split, part, share) not in self._part_counts:
            serialised = _serialised(self.files(split, share)).batch(_PARSE_BATCH)
            batches = serialised.map(_keys, num_parallel_calls=_PARALLEL_CALLS)
            held_out = dataclasses.replace(part, held_out=True)
            masks = list(reading(self, batches.map(held_out.contains)))
            # One pass settles both parts.
            counts = {True: sum(int(mask.numpy().sum()) for mask in masks)}
            counts[False] = sum(int(mask.shape[0]) for mask in masks) - counts[True]
            for side, number in counts.items():
                self._part_counts[split, dataclasses.replace(part, held_out=side), share] = number
        return self._part_counts[split, part, share]

    def bands(self, bands: tuple[str, ...] | None) -> tuple[str, ...]:
        """Returns the band names that a selection means.

        Raises:
            BandError: if a name is unknown, named twice or not stored here.
        """
        return self.card.bands if bands is None else sentinel2.parse_bands(",".join(bands), self.card.bands)


def reading(records: Records, dataset: Any) -> Iterator[Any]:
    """Yields a dataset's elements, and turns TensorFlow's errors about damaged records into ours.

    Raises:
        RecordsError: if a record is damaged, is not what the card says, or there are too few or too many; where the
            checksums tell which record it is, it is named.
    """
    try:
        yield from dataset
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError) as error:
        # TensorFlow names neither the shard nor the record.
        for split in records.card.splits.values():
            for shard in split.shards:
                collections.deque(codec.read_examples(codec.check_shard(records.folder, shard)), maxlen=0)
        problem = error.message.split("\n")[0][:200]
        raise RecordsError(
            records.folder,
            f"a record is damaged or not what the card says ({problem})",
            "whole TFRecord files as the card describes them",
            "copy the folder again, or build the records again",
        ) from None


class TrainingPipeline:
    """The batches of a training run, epoch by epoch.

    With `options.cache` the selected bands of all examples are read once, when the pipeline is made, and stay in
    memory in their stored type. Else every epoch reads the shards in an order of its own and draws from a buffer; that
    order depends on TensorFlow's global seed too.

    Of several workers (`input_context`), each delivers its share of every batch. From memory, which then holds all
    examples on every worker, the shares together are the very batch that one process would see. Streaming, each worker
    reads shards of its own, and all take as many steps as the one with the fewest examples can.

    Attributes:
        bands: names of the delivered bands.
        examples: number of examples to draw from, on this worker.
        batch_size: examples in this worker's share of a batch.
        steps: full batches in an epoch; the examples that are left over differ from epoch to epoch.
        in_memory: whether the examples are kept in memory.
    """

    def __init__(
        self,
        records: Records,
        options: PipelineOptions,
        split: str = "train",
        part: Part | None = None,
        input_context: tf.distribute.InputContext | None = None,
    ):
        """Checks everything that can be checked before the first batch, and fills the memory.

        Raises:
            RecordsError: if the split or one of its shards cannot be used, or there are fewer shards than workers.
            BandError: if a band is not stored.
            OptionError: if there are too few examples for a batch, the workers cannot share a batch evenly, or the
                augmentation does not fit the images.
        """
        self._records, self._options, self._split, self._part = records, options, split, part
        workers = input_context.num_input_pipelines if input_context else 1
        self._worker = Share(input_context.input_pipeline_id, workers) if input_context else WHOLE
        self.in_memory = options.cache and _fits(records, options, records.count(split, part))
        # Whose shards are read.
        self._share = WHOLE if self.in_memory else self._worker
        shards = len(records.split(split).shards)
        check_workers(records.folder, split, None if self.in_memory else shards, options.batch_size, workers)
        self._files = records.files(split, self._share)
        self.bands = records.bands(options.bands)
        size = records.card.patch_size
        if options.augmentation is not None:
            options.augmentation.check_size(size, size)
        self.examples = records.count(split, part, self._share)
        self.batch_size = options.batch_size // workers
        fewest, readers = self.examples, 1
        if not self.in_memory:
            fewest, readers = min(records.count(split, part, Share(k, workers)) for k in range(workers)), workers
        self.steps = fewest // (options.batch_size // readers)
        if not self.steps:
            whose = f"of the split '{split}'" if readers == 1 else f"that a worker has of the split '{split}'"
            raise OptionError(
                "batch_size",
                f"{options.batch_size // readers} is more than the {fewest} examples {whose}",
                f"{fewest * readers} or less",
                "choose a smaller batch",
            )
        if self.in_memory:
            self._images, self._labels = self._load()
        self._producers: dict[int | None, Callable[..., Any]] = {}

    def epoch(self, number: int, first_step: int = 0, *, size: int | None = None) -> tf.data.Dataset:
        """Returns the batches of one epoch: `(image, label)`, shapes (batch, height, width, band) and (batch,).

        The labels of tiles are (batch, height, width), and both are of the augmentation's crops.

        Args:
            number: which epoch, from 0.
            first_step: the number of batches to leave out, for a run that goes on in the midst of an epoch.
            size: height and width to which the augmented images are averaged down; None leaves them as they are.
        """
        options = self._options
        seed = draw_of_epoch(options.seed, number, self._share)
        if self.in_memory:
            order = np.random.default_rng(seed).permutation(self.examples)[: self.steps * options.batch_size]
            order = order.reshape(self.steps, self._worker.workers, self.batch_size)[first_step:, self._worker.number]
            order = tf.data.Dataset.from_tensor_slices(order)
            # As an element and not as a constant of the function, which is copied whenever that is serialised.
            batches = tf.data.Dataset.zip(order, tf.data.Dataset.from_tensors((self._images, self._labels)).repeat())
        else:
            files = np.random.default_rng(seed).permutation(self._files).tolist()
            split = self._records.split(self._split)
            example_bytes = sum(shard.bytes for shard in split.shards) // split.examples
            buffer = min(self.examples, options.shuffle_buffer, max(1, _SHUFFLE_BYTES // example_bytes))
            batches = _serialised(files, self._part, parallel=_PARALLEL_READS)
            batches = batches.shuffle(buffer, seed=seed, reshuffle_each_iteration=False)
            # Skipped while still serialised: no image is decoded in vain.
            batches = batches.batch(self.batch_size, drop_remainder=True).skip(first_step)
            if self._share != WHOLE:
                # Another worker may have fewer examples.
                batches = batches.take(self.steps - first_step)
            batches = batches.apply(tf.data.experimental.assert_cardinality(max(0, self.steps - first_step)))
        steps = tf.data.Dataset.range(number * self.steps + first_step, (number + 1) * self.steps)

        batches = tf.data.Dataset.zip(steps, batches)
        batches = batches.map(self._producer(size, batches.element_spec), num_parallel_calls=_PARALLEL_CALLS)
        return _finish(batches, shared=self._worker != WHOLE)

    def _producer(self, size: int | None, spec: Any) -> Callable[..., Any]:
        """Returns what turns a step's number and its examples into a batch.

        It is traced once: to do so in every epoch takes longer than to read a small data set.
        """
        if size in self._producers:
            return self._producers[size]
        options, card, worker, share = self._options, self._records.card, self._worker, self._share

        def produce(step, batch):
            places = None
            if self.in_memory:
                places, (image, labels) = batch
                label = tf.gather(labels, places)
            else:
                image, label, _ = _parse(batch, card, self.bands)
            if options.augmentation is not None:
                # Who reads shards of its own draws by itself; else the draws are those of the whole batch.
                draw = tf.stack([tf.constant(options.seed, tf.int64), step * share.workers + share.number])
                first, total = worker.number * self.batch_size, options.batch_size
                drawn = (first, total) if share == WHOLE else (0, self.batch_size)
                if isinstance(options.augmentation, DenseAugmentation):
                    image = image if places is None else tf.gather(image, places)
                    image, label = augment_maps(image, label, draw, options.augmentation, drawn)
                else:
                    image = augment_batch(image, draw, options.augmentation, places, drawn)
            elif places is not None:
                image = tf.gather(image, places)
            if size is not None and size < card.patch_size:
                image = shrink(image, size)
            return image, label

        self._producers[size] = tf.function(produce, input_signature=spec, autograph=False)
        return self._producers[size]

    def steps_from(self, first: int, count: int, *, size: int | None = None) -> tf.data.Dataset:
        """Returns batches number `first` to `first + count - 1` of an endless row of epochs; `size` as for `epoch`."""
        parts = []
        while count > 0:
            number, skipped = divmod(first, self.steps)
            taken = min(count, self.steps - skipped)
            parts.append(self.epoch(number, skipped, size=size).take(taken))
            first, count = first + taken, count - taken
        return functools.reduce(lambda one, other: one.concatenate(other), parts)

    def _load(self) -> tuple[tf.Tensor, tf.Tensor]:
        card = self._records.card
        images = np.empty((self.examples, card.patch_size, card.patch_size, len(self.bands)), card.dtype)
        dense = card.task == "segmentation"
        labels = np.empty((self.examples, *(2 * (card.patch_size,) if dense else ())), np.uint8 if dense else np.int32)
        dataset = _serialised(self._files, self._part).batch(_PARSE_BATCH)
        dataset = dataset.map(lambda batch: _parse(batch, card, self.bands)[:2], num_parallel_calls=_PARALLEL_CALLS)
        filled = 0
        for image, label in reading(self._records, dataset.prefetch(2)):
            end = filled + len(label)
            if end <= self.examples:
                images[filled:end], labels[filled:end] = image, label
            filled = end
        if filled != self.examples:
            raise RecordsError(
                self._records.folder,
                f"the split '{self._split}' holds {filled} examples",
                f"{self.examples}, as the card says",
                "build the records again",
            )
        # The processor's memory: a GPU has better use for its own.
        with tf.device("CPU:0"):
            return tf.convert_to_tensor(images), tf.convert_to_tensor(labels)


def evaluation(
    records: Records, options: PipelineOptions, split: str, *, part: Part | None = None, with_keys: bool = False
) -> tf.data.Dataset:
    """Returns one ordered pass over a split: `(image, label, weight)`, or `(image, label, weight, key)`.

    Every batch is full: the last one is filled up with zero images of weight 0, label 0 and empty key, so that every
    example counts once and shapes are static. With `options.cache`, a second pass over the same object comes from
    memory.

    Raises:
        RecordsError: if the split or one of its shards cannot be used, or the part is empty.
        BandError: if a band is not stored.
    """
    files, bands, size = records.files(split), records.bands(options.bands), options.batch_size
    examples = records.count(split, part)
    if not examples:
        raise RecordsError(records.folder, f"no example of the split '{split}' is in this part", remedy="hold out more")

    def produce(batch):
        values = _parse(batch, records.card, bands)
        present = tf.shape(batch)[0]
        padded = [*values[:2], tf.ones(present, tf.float32), values[2]][: 4 if with_keys else 3]
        return tuple(_pad(value, size - present, size) for value in padded)

    dataset = _serialised(files, part).batch(size).map(produce, num_parallel_calls=_PARALLEL_CALLS)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-examples // size)))
    if options.cache and _fits(records, options, examples):
        dataset = dataset.cache()
    return _finish(dataset)


def _serialised(files: list[str], part: Part | None = None, parallel: int | None = None) -> tf.data.Dataset:
    """Returns the serialised examples of shards, or those of a part, in an order that is always the same."""
    parallel = min(parallel, len(files)) if parallel else None
    dataset = tf.data.TFRecordDataset(files, buffer_size=_READ_BUFFER_BYTES, num_parallel_reads=parallel)
    if part is not None:
        dataset = dataset.batch(_PARSE_BATCH)
        dataset = dataset.map(lambda batch: tf.boolean_mask(batch, part.contains(_keys(batch)))).unbatch()
    # Parallel reads are put in order by this, also where the caller forgets it.
    return _finish(dataset, prefetch=False)


def _keys(serialised: tf.Tensor) -> tf.Tensor:
    return tf.io.parse_example(serialised, {codec.KEY: tf.io.FixedLenFeature([], tf.string)})[codec.KEY]


def _parse(serialised: tf.Tensor, card: DataCard, bands: tuple[str, ...]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Parses a batch and selects bands on the stored integers."""
    parsed = codec.parse_batch(serialised, card, with_keys=True)
    image = parsed["image"]
    if bands != card.bands:
        image = tf.gather(image, [card.bands.index(band) for band in bands], axis=-1)
    return image, parsed["label"], parsed["key"]


def _pad(values: tf.Tensor, missing: tf.Tensor, size: int) -> tf.Tensor:
    shape = tf.concat([[missing], tf.shape(values)[1:]], axis=0)
    zero = tf.constant("" if values.dtype == tf.string else 0, values.dtype)
    return tf.ensure_shape(tf.concat([values, tf.fill(shape, zero)], axis=0), (size, *values.shape[1:]))


def _finish(dataset: tf.data.Dataset, *, prefetch: bool = True, shared: bool = False) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # The thread that tunes parallelism sleeps for longer and longer, and the end of every epoch waits for it.
    options.autotune.enabled = False
    # Rewriting a dataset's graph copies all that is kept in memory, at the start of every epoch, and makes nothing in
    # these graphs faster.
    options.experimental_optimization.apply_default_optimizations = False
    # Shards of a split may be fewer than the workers, and an epoch in memory has no files at all. Where every worker
    # reads shards of its own already, nothing is left to divide.
    policy = tf.data.experimental.AutoShardPolicy
    options.experimental_distribute.auto_shard_policy = policy.OFF if shared else policy.DATA
    return (dataset.prefetch(2) if prefetch else dataset).with_options(options)


def _fits(records: Records, options: PipelineOptions, examples: int) -> bool:
    card = records.card
    pixels = examples * card.patch_size**2
    size = pixels * len(records.bands(options.bands)) * np.dtype(card.dtype).itemsize
    return size <= options.cache_limit_bytes
