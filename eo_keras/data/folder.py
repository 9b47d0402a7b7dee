"""Records folder opened for TensorFlow: its splits, their serialized examples, and errors about damage."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from eo_keras.core import files
from eo_keras.core.processors import worker_count
from eo_keras.data.subsets import WHOLE, Holdout, WorkerShard
from eo_keras.errors import RecordsError
from eo_keras.records import example as codec
from eo_keras.records.data_card import DataCard, Split, read_data_card
from eo_keras.records.inputs import InputBands, first_modality, parse_inputs, text_of

PARSE_BATCH = 256
"""Number of examples that are parsed together."""

PARALLEL_CALLS = max(2, worker_count())
"""Number of parallel calls: the processors of this process."""

unconverted = tf.autograph.experimental.do_not_convert
"""Marks a function of a dataset, which has no control flow on tensors: AutoGraph takes half a second to see that."""

_READ_BUFFER_BYTES = 256 << 10  # What a processor's cache holds: every record is copied out of it once more.


class RecordDataset:
    """A records folder.

    Attributes:
        folder: its path.
        card: its card.
    """

    def __init__(self, records_dir: str | pathlib.Path):
        """Reads the card.

        Raises:
            RecordsError: if the folder or its card is missing, or the card cannot be read, or the folder lies elsewhere
                than on a disk of this machine.
        """
        here = files.local(records_dir)
        if here is None:
            raise RecordsError(
                records_dir,
                "TensorFlow does not read records from there",
                "a folder on a disk of this machine, or one that is mounted",
                "copy it here, or mount the store (rclone mount, for instance), and name that folder",
            )
        self.folder = here
        self.card: DataCard = read_data_card(self.folder)
        self._part_counts: dict[tuple[str, Holdout, WorkerShard], int] = {}

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

    def files(self, split: str, share: WorkerShard = WHOLE) -> list[str]:
        """Returns the paths of a share of a split's shards, after checking that they exist and are of full length.

        Raises:
            RecordsError: if the split is unknown or empty, or a shard is missing or of another length.
        """
        return [codec.check_shard(self.folder, shard) for shard in share.of(self.split(split).shards)]

    def count(self, split: str, part: Holdout | None = None, share: WorkerShard = WHOLE) -> int:
        """Returns the number of examples in a split, or in a holdout or share of it; a holdout is read to count it."""
        if part is None:
            whole = self.split(split)
            return whole.examples if share == WHOLE else sum(shard.examples for shard in share.of(whole.shards))
        if part.keys is not None and share == WHOLE:
            return len(part.keys)
        if (split, part, share) not in self._part_counts:
            batches = serialized(self.files(split, share)).batch(PARSE_BATCH)
            contained = unconverted(lambda records: part.contains(keys_of(records)))
            masks = list(reading(self, batches.map(contained, num_parallel_calls=PARALLEL_CALLS)))
            counts = {part: sum(int(mask.numpy().sum()) for mask in masks)}
            if part.keys is None:
                # One pass counts both parts.
                other = dataclasses.replace(part, held_out=not part.held_out)
                counts[other] = sum(int(mask.shape[0]) for mask in masks) - counts[part]
            for side, number in counts.items():
                self._part_counts[split, side, share] = number
        return self._part_counts[split, part, share]

    def inputs(
        self, bands: tuple[str, ...] | None = None, inputs: tuple[InputBands, ...] | None = None
    ) -> tuple[InputBands, ...]:
        """Returns the inputs of a selection, checked.

        Args:
            bands: names of bands of the first modality; None for all of it.
            inputs: the inputs themselves, in place of bands; None for these.

        Raises:
            BandError: if a name is unknown, named twice or not stored here.
        """
        if inputs is None:
            return first_modality(self.card, bands)
        checked = parse_inputs(text_of(inputs, self.card), self.card)
        return tuple(dataclasses.replace(one, bands=found.bands) for one, found in zip(inputs, checked, strict=True))


def reading(records: RecordDataset, dataset: Any) -> Iterator[Any]:
    """Yields a dataset's elements, and turns TensorFlow's errors about damaged records into `RecordsError`.

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


def serialized(
    files: Sequence[str] | tf.Tensor, part: Holdout | None = None, parallel: int | None = None
) -> tf.data.Dataset:
    """Returns the serialized examples of shards, or those of a holdout, in a fixed order.

    Args:
        files: paths of the shards.
        part: the part; None for all.
        parallel: number of shards that are read at once, at most their number; None for one after the other.
    """
    dataset = tf.data.TFRecordDataset(files, buffer_size=_READ_BUFFER_BYTES, num_parallel_reads=parallel)
    if part is not None:
        kept = unconverted(lambda batch: tf.boolean_mask(batch, part.contains(keys_of(batch))))
        dataset = dataset.batch(PARSE_BATCH).map(kept).unbatch()
    # Parallel reads are put in order by this, also where the caller forgets it.
    return finished(dataset, prefetch=False)


@unconverted
def keys_of(serialized: tf.Tensor) -> tf.Tensor:
    """Returns the keys (batch,) of a batch of serialized examples."""
    return tf.io.parse_example(serialized, {codec.KEY: tf.io.FixedLenFeature([], tf.string)})[codec.KEY]


def finished(dataset: tf.data.Dataset, *, prefetch: bool = True, shared: bool = False) -> tf.data.Dataset:
    """Sets the options of every dataset of this package: a fixed order, no tuning, sharding by data."""
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
