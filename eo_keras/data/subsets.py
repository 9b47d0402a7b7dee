"""Subsets of a split: holdouts by key, and the shards of one of several workers."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from eo_keras.errors import OptionError, RecordsError

_HASH_BUCKETS = 2**31 - 1
_WIDE = 2**62  # So many that no two of a data set's keys share one.


@dataclasses.dataclass(frozen=True)
class Holdout:
    """One of the two parts of a split, kept or held out.

    Attributes:
        fraction: about this share of the examples is held out.
        seed: another seed gives another division.
        held_out: whether this is the part that is held out, or the one that is kept.
        keys: the keys of its examples, where `eo_keras.data.holdouts` has chosen them; None where a hash
            of the keys does.
    """

    fraction: float
    seed: int
    held_out: bool
    keys: frozenset[str] | None = None

    def __post_init__(self):
        """Checks the values."""
        if not 0 < self.fraction < 1:
            raise OptionError("holdout", f"a fraction of {self.fraction}", "a number between 0 and 1")

    def contains(self, keys: Any) -> tf.Tensor:
        """Tells for every key (string tensor or strings) whether its example belongs to this subset."""
        if self.keys is None:
            return (_draw(keys, self.seed) < int(self.fraction * _HASH_BUCKETS)) == self.held_out
        with tf.init_scope():
            own = np.sort(tf.strings.to_hash_bucket_fast(sorted(self.keys), _WIDE).numpy())
        hashes = tf.strings.to_hash_bucket_fast(keys, _WIDE)
        places = tf.minimum(tf.searchsorted(own, tf.reshape(hashes, [-1])), len(own) - 1)
        return tf.gather(own, tf.reshape(places, tf.shape(hashes))) == hashes


def _draw(keys: Any, seed: int) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(tf.strings.join([f"validation/{seed}/", keys]), _HASH_BUCKETS)


def draw(names: Sequence[str], seed: int) -> np.ndarray:
    """Returns a pseudo-random number in [0, 1) for each name, by hash of name and seed; float64 (names,).

    An example whose key has less than the fraction is held out by `holdout`.
    """
    return _draw(list(names), seed).numpy() / _HASH_BUCKETS


def holdout(fraction: float, seed: int) -> tuple[Holdout, Holdout]:
    """Returns the kept and the held-out examples; every example is in exactly one."""
    return Holdout(fraction, seed, False), Holdout(fraction, seed, True)


@dataclasses.dataclass(frozen=True)
class WorkerShard:
    """Shards that one of several workers reads.

    Attributes:
        number: number of the worker, from 0.
        workers: number of workers.
    """

    number: int = 0
    workers: int = 1

    def of(self, shards: Sequence[Any]) -> Sequence[Any]:
        """Returns the shards of this worker."""
        return shards[self.number :: self.workers]


WHOLE = WorkerShard()


def check_workers(
    folder: str | os.PathLike[str], split: str, shards: int | None, batch_size: int, workers: int
) -> None:
    """Checks that a batch and a split's shards can be divided among the workers.

    Args:
        folder: the records folder.
        split: name of the split.
        shards: number of its shards; None where every worker reads all of them.
        batch_size: examples in a batch.
        workers: number of workers.

    Raises:
        OptionError: if the batch size is no multiple of it.
        RecordsError: if there are fewer shards.
    """
    if batch_size % workers:
        raise OptionError(
            "batch_size",
            f"{batch_size} is not divisible by {workers} workers",
            f"a multiple of {workers}, for instance {-(-batch_size // workers) * workers}",
        )
    if shards is not None and shards < workers:
        raise RecordsError(
            folder,
            f"the split '{split}' has {shards} shards for {workers} workers",
            "a shard or more for every worker",
            "use fewer workers, or build the records again with a smaller `shard_mb`",
        )


def epoch_seed(seed: int, epoch: int, share: WorkerShard) -> int:
    """Returns a seed by hash of seed, epoch and worker."""
    worker = f"/{share.number}" if share.workers > 1 else ""
    text = f"order/{seed}/{epoch}{worker}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")
