"""Batches from a records folder: training epochs, or one ordered pass over a split.

What a batch holds is a function of the options, the epoch and the step alone, not of what was read before, so that a
resumed run sees what the uninterrupted one would have seen. Numbers stay in their stored type; models cast them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from eo_keras.data.augment.crops import CropAugmentation, augment_tiles
from eo_keras.data.augment.inputs import drop_modalities, photometry_of
from eo_keras.data.augment.masking import MaskedImages
from eo_keras.data.augment.options import Masking, Translation
from eo_keras.data.augment.patches import Augmentation, augment_batch, shrink
from eo_keras.data.augment.translation import TranslatedImages
from eo_keras.data.folder import PARALLEL_CALLS, PARSE_BATCH, RecordDataset, finished, reading, serialized, unconverted
from eo_keras.data.parse import by_name, no_data, parse_batch, unwrapped
from eo_keras.data.subsets import WHOLE, Holdout, WorkerShard, check_workers, epoch_seed
from eo_keras.errors import OptionError, RecordsError
from eo_keras.records.data_card import DataCard
from eo_keras.records.inputs import InputBands

_PARALLEL_READS = 8
_SHUFFLE_BYTES = 32 << 20  # New memory costs more time than reading: a larger buffer slows large images down.
_PARSE_BYTES = 2 << 20  # Of examples that are parsed together to be kept in memory; a few such batches are under way.
_ALIGNMENT = 64  # Bytes, as TensorFlow's kernels need for a tensor that they did not allocate.


@dataclasses.dataclass(frozen=True)
class PipelineOptions:
    """Options of the batches of records.

    Attributes:
        batch_size: examples in a batch, over all devices together.
        bands: names of the bands of the first modality to deliver, in this order; None for all that are stored.
        inputs: the inputs to deliver, see `eo_keras.records.inputs`, in place of `bands`; None for these. Of several,
            the batches hold a dictionary of images by the inputs' names.
        seed: seed of order and augmentation.
        augmentation: changes to training images, of tiles to their masks too, or None.
        shuffle_buffer: number of examples among which a streaming pipeline draws; 32 MB at most. The builder has mixed
            all shards already, and every epoch takes them in another order, several at once. Kept in memory, every
            epoch's draw is perfect.
        cache: whether to keep the parsed examples in memory.
        cache_limit_bytes: beyond this size of images and labels, see `kept_bytes`, examples are streamed from the files
            in spite of `cache`.
        modality_dropout: probability that a sensor is taken away from a training image, see
            `eo_keras.data.augment.inputs.drop_modalities`.
        without: sensors whose images `evaluation` delivers without data, all dates and views of them; see
            `InputBands.sensor_name`.
        distance: whether the labels of training tiles are (batch, height, width, 2): the mask's class and that of the
            distance from the boundaries of objects.
        pretext: what is predicted in place of the labels: numbers that are masked, see `eo_keras.data.augment.masking`,
            or the images of a sensor, which are then not delivered, see `eo_keras.data.augment.translation`; None for
            the labels.
    """

    batch_size: int
    bands: tuple[str, ...] | None = None
    seed: int = 1
    augmentation: Augmentation | CropAugmentation | None = None
    shuffle_buffer: int = 1_000
    cache: bool = True
    cache_limit_bytes: int = 4 << 30
    inputs: tuple[InputBands, ...] | None = None
    modality_dropout: float = 0.0
    without: tuple[str, ...] = ()
    distance: bool = False
    pretext: Masking | Translation | None = None

    def __post_init__(self):
        """Checks the values."""
        for name in ("batch_size", "shuffle_buffer"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)}", "1 or more")


class TrainingDataset:
    """Batches of a training run, epoch by epoch.

    With `options.cache` the selected bands of all examples are read once, when the pipeline is made, and stay in
    memory in their stored type. Else every epoch reads the shards in an order of its own and draws from a buffer; that
    order depends on TensorFlow's global seed too.

    Of several workers (`input_context`), each delivers its share of every batch. From memory, which then holds all
    examples on every worker, the shares together are the very batch that one process would see. Streaming, each worker
    reads shards of its own, and all take as many steps as the one with the fewest examples can.

    Attributes:
        inputs: the inputs that are read: those delivered, and of a translation those predicted.
        examples: number of examples to draw from, on this worker.
        batch_size: examples in this worker's share of a batch.
        steps: full batches in an epoch; the examples that are left over differ from epoch to epoch.
        in_memory: whether the examples are kept in memory.
        kept_bytes: bytes of memory that they take; 0 where they are streamed.
    """

    def __init__(
        self,
        records: RecordDataset,
        options: PipelineOptions,
        split: str = "train",
        part: Holdout | None = None,
        input_context: tf.distribute.InputContext | None = None,
    ):
        """Checks the options and reads the examples that are kept in memory.

        Raises:
            RecordsError: if the split or one of its shards cannot be used, or there are fewer shards than workers.
            BandError: if a band is not stored.
            OptionError: if there are too few examples for a batch, the workers cannot share a batch evenly, or the
                augmentation does not fit the images.
        """
        size = records.card.patch_size
        if isinstance(options.augmentation, CropAugmentation):
            options = dataclasses.replace(options, augmentation=options.augmentation.for_tiles(size))
        self._records, self._options, self._split, self._part = records, options, split, part
        workers = input_context.num_input_pipelines if input_context else 1
        self._worker = WorkerShard(input_context.input_pipeline_id, workers) if input_context else WHOLE
        needed = kept_bytes(records, options, records.count(split, part))
        self.in_memory = options.cache and needed <= options.cache_limit_bytes
        self.kept_bytes = needed if self.in_memory else 0
        # Whose shards are read.
        self._share = WHOLE if self.in_memory else self._worker
        shards = len(records.split(split).shards)
        check_workers(records.folder, split, None if self.in_memory else shards, options.batch_size, workers)
        self._files = records.files(split, self._share)
        self.inputs = records.inputs(options.bands, options.inputs)
        self._photometry = photometry_of(records.card, self.inputs)
        self._pretext = _pretext(records.card, options, self.inputs)
        if isinstance(options.pretext, Translation):
            # Nothing tells by how much the brightness of what is predicted was changed.
            own = [one.name for one in self.inputs if one.sensor_name == options.pretext.sensor]
            self._photometry |= dict.fromkeys(own)
        if options.augmentation is not None:
            options.augmentation.check_size(size, size)
        self.examples = records.count(split, part, self._share)
        self.batch_size = options.batch_size // workers
        fewest, readers = self.examples, 1
        if not self.in_memory:
            fewest, readers = min(records.count(split, part, WorkerShard(k, workers)) for k in range(workers)), workers
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

        Of several inputs, `image` is a dictionary of images by their names.

        The labels of tiles are (batch, height, width), and both are of the augmentation's crops.

        Args:
            number: number of the epoch, from 0.
            first_step: the number of batches to leave out, for a run that is resumed within an epoch.
            size: height and width to which the augmented images are averaged down; None leaves them as they are.
        """
        return self.steps_from(number * self.steps + first_step, self.steps - first_step, size=size)

    def steps_from(self, first: int, count: int, *, size: int | None = None) -> tf.data.Dataset:
        """Returns batches `first` to `first + count - 1` of an endless sequence of epochs; `size` as for `epoch`."""
        count = max(0, count)
        batches = self._orders(first, count) if self.in_memory else self._streamed(first, count)
        batches = tf.data.Dataset.zip(tf.data.Dataset.range(first, first + count), batches)
        batches = batches.map(self._producer(size, batches.element_spec), num_parallel_calls=PARALLEL_CALLS)
        return finished(batches, shared=self._worker != WHOLE)

    def _passes(self, first: int, count: int) -> range:
        """Returns the numbers of the epochs that steps are taken from."""
        return range(first // self.steps, -(-(first + count) // self.steps))

    def _orders(self, first: int, count: int) -> tf.data.Dataset:
        """Returns the indices of the examples of each batch, and the examples in memory."""
        drawn, share = self.steps * self._options.batch_size, (self._worker.workers, self.batch_size)
        orders = np.empty((count, self.batch_size), np.int32)
        for number in self._passes(first, count):
            seed = epoch_seed(self._options.seed, number, self._share)
            order = np.random.default_rng(seed).permutation(self.examples)[:drawn]
            order = order.reshape(self.steps, *share)[:, self._worker.number]
            start = number * self.steps
            rows = slice(max(first, start) - first, min(first + count, start + self.steps) - first)
            orders[rows] = order[first + rows.start - start : first + rows.stop - start]
        # As an element and not as a constant of the function, which is copied whenever that is serialized.
        examples = tf.data.Dataset.from_tensors((self._images, self._labels)).repeat()
        return tf.data.Dataset.zip(tf.data.Dataset.from_tensor_slices(orders), examples)

    def _streamed(self, first: int, count: int) -> tf.data.Dataset:
        """Returns batches of serialized examples of several epochs, as one dataset, faster than a chain of them."""
        options, passes = self._options, self._passes(first, count)
        split = self._records.split(self._split)
        example_bytes = sum(shard.bytes for shard in split.shards) // split.examples
        buffer = min(self.examples, options.shuffle_buffer, max(1, _SHUFFLE_BYTES // example_bytes))
        seeds = np.array([epoch_seed(options.seed, number, self._share) for number in passes], np.int64)
        orders = [np.random.default_rng(seed).permutation(len(self._files)) for seed in seeds.tolist()]
        orders = np.array(orders, np.int32).reshape(len(passes), len(self._files))

        @unconverted
        def one_pass(order: tf.Tensor, seed: tf.Tensor, skipped: tf.Tensor) -> tf.data.Dataset:
            files = tf.gather(tf.constant(self._files), order)
            batches = serialized(files, self._part, parallel=min(_PARALLEL_READS, len(self._files)))
            batches = batches.shuffle(buffer, seed=seed, reshuffle_each_iteration=False)
            # Skipped while still serialized, without decoding images. Another worker may have fewer examples.
            batches = batches.batch(self.batch_size, drop_remainder=True)
            return batches.take(self.steps).skip(skipped)

        skips = np.zeros(len(passes), np.int64)
        skips[:1] = first % self.steps
        batches = tf.data.Dataset.from_tensor_slices((orders, seeds, skips)).flat_map(one_pass).take(count)
        return batches.apply(tf.data.experimental.assert_cardinality(count))

    def _producer(self, size: int | None, spec: Any) -> Callable[..., Any]:
        """Returns the function from a step's number and its examples to a batch.

        It is traced once: to do so in every epoch takes longer than to read a small data set.
        """
        if size in self._producers:
            return self._producers[size]
        options, card, worker, share = self._options, self._records.card, self._worker, self._share
        inputs, photometry, pretext = self.inputs, self._photometry, self._pretext

        def produce(step, batch):
            places = None
            if self.in_memory:
                places, (image, labels) = batch
                label = tf.gather(labels, places)
            else:
                image, label, _ = _parse(batch, card, inputs, options.distance, True)
            # Who reads shards of its own draws by itself; else the draws are those of the whole batch.
            draw = tf.stack([tf.constant(options.seed, tf.int64), step * share.workers + share.number])
            first, total = worker.number * self.batch_size, options.batch_size
            drawn = (first, total) if share == WHOLE else (0, self.batch_size)
            if isinstance(options.augmentation, Augmentation):
                image = augment_batch(image, draw, options.augmentation, places, drawn, photometry)
            elif places is not None:
                image = tf.nest.map_structure(lambda one: tf.gather(one, places), image)
            if isinstance(options.augmentation, CropAugmentation):
                image, label = augment_tiles(image, label, draw, options.augmentation, drawn, photometry)
            if options.modality_dropout and len(inputs) > 1:
                image = drop_modalities(image, inputs, options.modality_dropout, draw, drawn)
            if size is not None and size < card.patch_size:
                image = tf.nest.map_structure(lambda one: shrink(one, size * one.shape[1] // card.patch_size), image)
            return (image, label) if pretext is None else pretext(image, draw, drawn)

        self._producers[size] = tf.function(produce, input_signature=spec, autograph=False)
        return self._producers[size]

    def _load(self) -> tuple[Any, tf.Tensor]:
        card = self._records.card
        images = {name: _aligned((self.examples, *shape), dtype) for name, shape, dtype in _layout(card, self.inputs)}
        images = unwrapped(images)
        targets = (2,) if self._options.distance else ()
        labels = _aligned((self.examples, *card.targets.shape(card.patch_size), *targets), card.targets.dtype)
        stored_bytes = sum(
            one.patch_size**2 * len(one.bands) * np.dtype(one.dtype).itemsize for one in card.modalities.values()
        )
        dataset = serialized(self._files, self._part).batch(max(1, min(PARSE_BATCH, _PARSE_BYTES // stored_bytes)))
        dataset = dataset.map(
            unconverted(lambda batch: _parse(batch, card, self.inputs, self._options.distance, True)[:2]),
            num_parallel_calls=PARALLEL_CALLS,
        )
        filled = 0
        for image, label in reading(self._records, dataset.prefetch(1)):
            end = filled + len(label)
            if end <= self.examples:
                for kept, found in zip(tf.nest.flatten(images), tf.nest.flatten(image), strict=True):
                    kept[filled:end] = found
                labels[filled:end] = label
            filled = end
        if filled != self.examples:
            raise RecordsError(
                self._records.folder,
                f"the split '{self._split}' holds {filled} examples",
                f"{self.examples}, as the card says",
                "build the records again",
            )
        return tf.nest.map_structure(_shared, images), _shared(labels)


def evaluation(
    records: RecordDataset,
    options: PipelineOptions,
    split: str,
    *,
    part: Holdout | None = None,
    with_keys: bool = False,
) -> tf.data.Dataset:
    """Returns one ordered pass over a split: `(image, label, weight)`, or `(image, label, weight, key)`.

    Every batch is full: the last one is filled up with images of no data, of weight 0, label 0 and empty key, so that
    every example counts once and shapes are static. With `options.cache`, a second pass over the same object comes
    from memory. What is masked (`options.pretext`) is the same in each.

    Raises:
        RecordsError: if the split or one of its shards cannot be used, or the part is empty.
        BandError: if a band is not stored.
    """
    files, size = records.files(split), options.batch_size
    inputs = records.inputs(options.bands, options.inputs)
    examples = records.count(split, part)
    if not examples:
        raise RecordsError(records.folder, f"no example of the split '{split}' is in this part", remedy="hold out more")

    @unconverted
    def produce(batch):
        values = _parse(batch, records.card, inputs)
        present = tf.shape(batch)[0]
        found = by_name(values[0])
        for one in inputs:
            if one.sensor_name in options.without:
                found[one.name] = tf.fill(tf.shape(found[one.name]), no_data(found[one.name].dtype))
        image = {name: _pad(one, size - present, size, no_data(one.dtype)) for name, one in found.items()}
        image = unwrapped(image)
        padded = [values[1], tf.ones(present, tf.float32), values[2]][: 3 if with_keys else 2]
        return image, *(_pad(value, size - present, size) for value in padded)

    dataset = serialized(files, part).batch(size).map(produce, num_parallel_calls=PARALLEL_CALLS)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-examples // size)))
    # Batches are kept as they are, the last one filled up.
    if options.cache and kept_bytes(records, options, -(-examples // size) * size) <= options.cache_limit_bytes:
        dataset = dataset.cache()
    pretext = _pretext(records.card, options, inputs)
    if pretext is None:
        return finished(dataset)

    @unconverted
    def replaced(number, batch):
        image, _, *others = batch
        return *pretext(image, tf.stack([tf.constant(options.seed, tf.int64), number]), (0, size)), *others

    return finished(dataset.enumerate().map(replaced, num_parallel_calls=PARALLEL_CALLS))


def _pretext(
    card: DataCard, options: PipelineOptions, inputs: Sequence[InputBands]
) -> MaskedImages | TranslatedImages | None:
    if options.pretext is None:
        return None
    kind = TranslatedImages if isinstance(options.pretext, Translation) else MaskedImages
    return kind(options.pretext, card, inputs)


def _parse(
    serialized: tf.Tensor,
    card: DataCard,
    inputs: Sequence[InputBands],
    distance: bool = False,
    training: bool = False,
) -> tuple[Any, tf.Tensor, tf.Tensor]:
    """Parses a batch and selects bands on the stored numbers."""
    parsed = parse_batch(serialized, card, inputs, with_keys=True, with_distances=distance, only_seen=training)
    return parsed["image"], parsed["label"], parsed["key"]


def _layout(card: DataCard, inputs: Sequence[InputBands]) -> Iterator[tuple[str, tuple[int, int, int], str]]:
    """Yields name, shape (height, width, bands) and dtype of each input."""
    for one in inputs:
        modality = card.modalities[one.modality]
        yield one.name, (modality.patch_size, modality.patch_size, len(one.bands)), modality.dtype


def _pad(values: tf.Tensor, missing: tf.Tensor, size: int, zero: Any = None) -> tf.Tensor:
    shape = tf.concat([[missing], tf.shape(values)[1:]], axis=0)
    zero = tf.constant("" if values.dtype == tf.string else 0, values.dtype) if zero is None else zero
    return tf.ensure_shape(tf.concat([values, tf.fill(shape, zero)], axis=0), (size, *values.shape[1:]))


def kept_bytes(records: RecordDataset, options: PipelineOptions, examples: int) -> int:
    """Returns the bytes of memory for the selected bands and labels of a number of examples."""
    card = records.card
    inputs = records.inputs(options.bands, options.inputs)
    image = sum(math.prod(shape) * np.dtype(dtype).itemsize for _, shape, dtype in _layout(card, inputs))
    label = math.prod(card.targets.shape(card.patch_size)) * np.dtype(card.targets.dtype).itemsize
    label *= 2 if options.distance else 1
    return examples * (image + label)


def _aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Returns a new array with the memory alignment of TensorFlow's kernels."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _shared(array: np.ndarray) -> tf.Tensor:
    """Returns a tensor on the CPU that shares the memory of an array.

    TensorFlow's own conversion copies what it is given twice.
    """
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
