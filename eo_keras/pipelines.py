"""From a records folder to batches: one training epoch, or one ordered pass over a split.

What a batch holds is a function of the options, the epoch and the step alone, not of what was read before, so that a
resumed run sees what the uninterrupted one would have seen. Numbers stay in their stored type; models cast them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from eo_keras import records as codec
from eo_keras import sentinel2
from eo_keras.augment import Augmentation, augment_batch, shrink
from eo_keras.cards import DataCard, Shard, Split, read_data_card
from eo_keras.errors import OptionError, RecordsError
from eo_keras.shard_reader import ShardIndex, ShardReader, aligned, index_shard

_LOAD_BATCH = 256
_HASH_BUCKETS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class PipelineOptions:
    """How records become batches.

    Attributes:
        batch_size: examples in a batch, over all devices and workers together.
        bands: names of the bands to deliver, in this order; None for all that are stored.
        seed: what order and augmentation are drawn from.
        augmentation: changes to training images, or None.
        cache: whether to keep the parsed examples in memory.
        cache_limit_bytes: beyond this size, examples are streamed from the files in spite of `cache`.
    """

    batch_size: int
    bands: tuple[str, ...] | None = None
    seed: int = 1
    augmentation: Augmentation | None = None
    cache: bool = True
    cache_limit_bytes: int = 4 << 30

    def __post_init__(self):
        """Refuses values that make no sense."""
        if self.batch_size < 1:
            raise OptionError("batch_size", f"{self.batch_size}", "1 or more")


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the two parts into which a split's examples fall by a hash of their keys.

    Attributes:
        fraction: about this share of the examples is held out.
        seed: another seed gives another division.
        held_out: whether this is the part that is held out, or the one that is kept.
    """

    fraction: float
    seed: int
    held_out: bool

    def __post_init__(self):
        """Refuses values that make no sense."""
        if not 0 < self.fraction < 1:
            raise OptionError("holdout", f"a fraction of {self.fraction}", "a number between 0 and 1")

    def contains(self, keys: Any) -> tf.Tensor:
        """Tells for every key (string tensor or strings) whether its example belongs to this part."""
        hashes = tf.strings.to_hash_bucket_fast(tf.strings.join([f"validation/{self.seed}/", keys]), _HASH_BUCKETS)
        return (hashes < int(self.fraction * _HASH_BUCKETS)) == self.held_out


def holdout(fraction: float, seed: int) -> tuple[Part, Part]:
    """Returns the part that is kept and the part that is held out; every example is in exactly one."""
    return Part(fraction, seed, False), Part(fraction, seed, True)


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
        self._indices: dict[str, ShardIndex] = {}
        self._readers: list[ShardReader] = []

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

    def files(self, split: str) -> list[str]:
        """Returns the paths of a split's shards, after checking that they exist and are of full length.

        Raises:
            RecordsError: if the split is unknown or empty, or a shard is missing or of another length.
        """
        return [str(codec.check_shard(self.folder, shard)) for shard in self.split(split).shards]

    def reader(self, split: str, shards: Sequence[Shard] | None = None) -> ShardReader:
        """Returns a reader of a split's shards, or of some of them; a shard is gone through at its first use.

        Raises:
            RecordsError: if the split is unknown or empty, or a shard cannot be used.
        """
        chosen = self.split(split).shards if shards is None else shards
        for shard in chosen:
            if shard.name not in self._indices:
                self._indices[shard.name] = index_shard(self.folder, shard, self.card)
        reader = ShardReader([self._indices[shard.name] for shard in chosen], self.card)
        self._readers.append(reader)
        return reader

    def damage(self) -> RecordsError | None:
        """Returns the damage that a reader came upon since the last call; None if there was none."""
        found = [reader.damage for reader in self._readers if reader.damage is not None]
        for reader in self._readers:
            reader.damage = None
        return found[0] if found else None

    def count(self, split: str, part: Part | None = None) -> int:
        """Returns the number of examples in a split, or in a part of it; the latter goes through the split once."""
        return self.split(split).examples if part is None else len(_members(self.reader(split), part))

    def bands(self, bands: tuple[str, ...] | None) -> tuple[str, ...]:
        """Returns the band names that a selection means.

        Raises:
            BandError: if a name is unknown, named twice or not stored here.
        """
        return self.card.bands if bands is None else sentinel2.parse_bands(",".join(bands), self.card.bands)


def reading(records: Records, dataset: Any) -> Iterator[Any]:
    """Yields a dataset's elements, and turns TensorFlow's errors about damaged records into ours.

    Raises:
        RecordsError: if a record is damaged or is not what the card says; shard and record are named where the
            record's checksum tells.
    """
    try:
        yield from dataset
    except tf.errors.OpError as error:
        if (damage := records.damage()) is not None:
            raise damage from None
        if not isinstance(error, (tf.errors.DataLossError, tf.errors.InvalidArgumentError)):
            raise
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
    memory in their stored type. Else every batch is read from the shards when its turn comes. The batches are the same.

    Of several workers (`input_context`), each reads the shards of its own number and every so-manieth after that, and
    delivers its share of every batch. All take as many steps as the one with the fewest examples can.

    Attributes:
        bands: names of the delivered bands.
        examples: number of examples to draw from, on this worker.
        batch_size: examples in one of this worker's batches.
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
        self._records, self._options, self._split = records, options, split
        self._worker, self._workers = 0, 1
        if input_context is not None:
            self._worker, self._workers = input_context.input_pipeline_id, input_context.num_input_pipelines
        self._own_shards = input_context is not None
        records.files(split)
        self.bands = records.bands(options.bands)
        size = records.card.patch_size
        if options.augmentation is not None:
            options.augmentation.check_size(size, size)
        self.batch_size, left_over = divmod(options.batch_size, self._workers)
        if left_over:
            raise OptionError(
                "batch_size",
                f"{options.batch_size} is not divisible by {self._workers} workers",
                f"a multiple of {self._workers}",
            )
        shards = records.split(split).shards
        if len(shards) < self._workers:
            raise RecordsError(
                records.folder,
                f"the split '{split}' has {len(shards)} shards for {self._workers} workers",
                "a shard or more for each worker",
                "use fewer workers, or build the records again with a smaller --shard_mb",
            )
        shares = [shards[worker :: self._workers] for worker in range(self._workers)]
        if part is None:
            counts = [sum(shard.examples for shard in share) for share in shares]
        else:
            counts = [len(_members(records.reader(split, share), part)) for share in shares]
        self.examples = counts[self._worker]
        self.steps = min(counts) // self.batch_size
        if not self.steps:
            whose = f"of the split '{split}'" if self._workers == 1 else f"that a worker has of the split '{split}'"
            raise OptionError(
                "batch_size",
                f"{self.batch_size} is more than the {min(counts)} examples {whose}",
                f"{min(counts)} or less",
                "choose a smaller batch",
            )
        self._reader = records.reader(split, shares[self._worker])
        self._numbers = _members(self._reader, part)
        self._read = _reading_function(self._reader, records.card, self.bands)
        self._labels = tf.constant(self._reader.labels[self._numbers])
        self.in_memory = options.cache and _fits(records, options, self.examples)
        if self.in_memory:
            self._images = self._load()
        self._producers: dict[int | None, Callable[..., Any]] = {}

    def epoch(self, number: int, first_step: int = 0, *, size: int | None = None) -> tf.data.Dataset:
        """Returns the batches of one epoch: `(image, label)`, shapes (batch, height, width, band) and (batch,).

        Args:
            number: which epoch, from 0.
            first_step: the number of batches to leave out, for a run that goes on in the midst of an epoch.
            size: height and width to which the augmented images are averaged down; None leaves them as they are.
        """
        order = np.random.default_rng(self._order_seed(number)).permutation(self.examples)
        order = order[: self.steps * self.batch_size].reshape(self.steps, self.batch_size)
        steps = np.arange(number * self.steps, (number + 1) * self.steps)
        parts = [tf.data.Dataset.from_tensor_slices(values[first_step:]) for values in (steps, order)]
        if self.in_memory:
            # As an element and not as a constant of the function, which is copied whenever that is serialised.
            parts.append(tf.data.Dataset.from_tensors(self._images).repeat())
        dataset = tf.data.Dataset.zip(*parts)
        dataset = dataset.map(self._producer(size), num_parallel_calls=tf.data.AUTOTUNE)
        return _finish(dataset, sharded=self._own_shards)

    def steps_from(self, first: int, count: int, *, size: int | None = None) -> tf.data.Dataset:
        """Returns batches number `first` to `first + count - 1` of an endless row of epochs; `size` as for `epoch`."""
        parts = []
        while count > 0:
            number, skipped = divmod(first, self.steps)
            taken = min(count, self.steps - skipped)
            parts.append(self.epoch(number, skipped, size=size).take(taken))
            first, count = first + taken, count - taken
        return functools.reduce(lambda one, other: one.concatenate(other), parts)

    def _order_seed(self, epoch: int) -> int:
        """Returns a number that seed, epoch and worker determine; neighbours have nothing in common."""
        worker = f"/{self._worker}" if self._workers > 1 else ""
        text = f"order/{self._options.seed}/{epoch}{worker}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")

    def _producer(self, size: int | None) -> Callable[..., Any]:
        """Returns what turns a step and the places of its examples into a batch.

        It is traced once and not in every epoch, which would take longer than to read a small data set.
        """
        size = size if size is not None and size < self._records.card.patch_size else None
        if size in self._producers:
            return self._producers[size]
        options, numbers = self._options, tf.constant(self._numbers)

        def produce(step, places, *memory):
            label = tf.gather(self._labels, places)
            if memory:
                image, chosen = memory[0], places
            else:
                image, chosen = self._read(tf.gather(numbers, places)), None
            if options.augmentation is not None:
                # Every worker draws by itself.
                draw = tf.stack([tf.constant(options.seed, tf.int64), step * self._workers + self._worker])
                image = augment_batch(image, draw, options.augmentation, chosen)
            elif chosen is not None:
                image = tf.gather(image, chosen)
            return (image if size is None else shrink(image, size)), label

        signature = [tf.TensorSpec((), tf.int64), tf.TensorSpec((self.batch_size,), tf.int64)]
        if self.in_memory:
            signature.append(tf.TensorSpec(self._images.shape, self._images.dtype))
        self._producers[size] = tf.function(produce, input_signature=signature, autograph=False)
        return self._producers[size]

    def _load(self) -> tf.Tensor:
        card = self._records.card
        images = aligned((self.examples, card.patch_size, card.patch_size, len(self.bands)), card.dtype)
        dataset = tf.data.Dataset.from_tensor_slices(self._numbers).batch(_LOAD_BATCH)
        dataset = dataset.map(self._read, num_parallel_calls=tf.data.AUTOTUNE)
        filled = 0
        for image in reading(self._records, _finish(dataset)):
            images[filled : filled + len(image)] = image
            filled += len(image)
        # The processor's memory, for a GPU has better use for its own; and as it is, for a copy would need twice as
        # much of it.
        return tf.experimental.dlpack.from_dlpack(images.__dlpack__())


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
    bands, size, reader = records.bands(options.bands), options.batch_size, records.reader(split)
    numbers = _members(reader, part)
    if not len(numbers):
        raise RecordsError(records.folder, f"no example of the split '{split}' is in this part", remedy="hold out more")
    read, labels, keys = _reading_function(reader, records.card, bands), tf.constant(reader.labels), None
    if with_keys:
        keys = tf.constant(reader.keys, tf.string)

    def produce(batch):
        present = tf.shape(batch)[0]
        values = [read(batch), tf.gather(labels, batch), tf.ones(present, tf.float32)]
        if with_keys:
            values.append(tf.gather(keys, batch))
        return tuple(_pad(value, size - present, size) for value in values)

    dataset = tf.data.Dataset.from_tensor_slices(numbers).batch(size)
    dataset = dataset.map(produce, num_parallel_calls=tf.data.AUTOTUNE)
    if options.cache and _fits(records, options, len(numbers)):
        dataset = dataset.cache()
    return _finish(dataset)


def _members(reader: ShardReader, part: Part | None) -> np.ndarray:
    """Returns the numbers of the examples that belong to a part, in order; of all without a part."""
    if part is None or not len(reader):
        return np.arange(len(reader))
    return np.flatnonzero(part.contains(tf.constant(reader.keys, tf.string)).numpy())


def _reading_function(reader: ShardReader, card: DataCard, bands: tuple[str, ...]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns what reads the images of some examples in a dataset, and selects bands on the stored integers."""

    def read(numbers):
        if card.encoding == "jpeg":
            stored = tf.numpy_function(reader.jpegs, [numbers], tf.string, stateful=False)
            image = codec.decode_jpegs(tf.ensure_shape(stored, numbers.shape), card)
        else:
            image = tf.numpy_function(reader.images, [numbers], tf.dtypes.as_dtype(card.dtype), stateful=False)
            image = tf.ensure_shape(image, (numbers.shape[0], card.patch_size, card.patch_size, len(card.bands)))
        if bands != card.bands:
            image = tf.gather(image, [card.bands.index(band) for band in bands], axis=-1)
        return image

    return read


def _pad(values: tf.Tensor, missing: tf.Tensor, size: int) -> tf.Tensor:
    shape = tf.concat([[missing], tf.shape(values)[1:]], axis=0)
    zero = tf.constant("" if values.dtype == tf.string else 0, values.dtype)
    return tf.ensure_shape(tf.concat([values, tf.fill(shape, zero)], axis=0), (size, *values.shape[1:]))


def _finish(dataset: tf.data.Dataset, *, sharded: bool = False) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # Rewriting a data set's graph would copy all that is kept in memory, at the start of every epoch; nothing in these
    # graphs is made faster by it.
    options.experimental_optimization.apply_default_optimizations = False
    # There are no files that a strategy could divide. Workers that have shards of their own must not divide them again.
    policy = tf.data.experimental.AutoShardPolicy
    options.experimental_distribute.auto_shard_policy = policy.OFF if sharded else policy.DATA
    return dataset.prefetch(2).with_options(options)


def _fits(records: Records, options: PipelineOptions, examples: int) -> bool:
    card = records.card
    pixels = examples * card.patch_size**2
    size = pixels * len(records.bands(options.bands)) * np.dtype(card.dtype).itemsize
    return size <= options.cache_limit_bytes
