"""Plan of the shards: the shard and place of every example. Depends on keys, sizes and options alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tfrecords_builder.splits.draws import hash_order
from tfrecords_builder.splits.types import TEST, TRAIN, VAL

MIN_TRAINING_SHARDS = 8
"""Smallest number of shards of a large split, so that workers of a distributed training have files of their own."""


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its file name, and the positions of its examples in the scan, in order."""

    name: str
    split: str
    positions: tuple[int, ...]


def plan_shards(
    dataset: str,
    keys: Sequence[str],
    sizes: Sequence[int],
    assignment: Sequence[str | None],
    *,
    shard_mb: float,
    seed: int,
) -> list[ShardPlan]:
    """Distributes every split's examples over shards of about equal size, in an order fixed by hash of key and seed.

    Args:
        dataset: beginning of the shards' names.
        keys: the examples' keys.
        sizes: the examples' sizes in bytes.
        assignment: the examples' splits; None is left out.
        shard_mb: size of a shard in megabytes (10^6 bytes); training gets at least `MIN_TRAINING_SHARDS` shards.
        seed: changes the order.
    """
    shards = []
    for split in (TRAIN, VAL, TEST):
        positions = [position for position, name in enumerate(assignment) if name == split]
        if not positions:
            continue
        positions.sort(key=lambda position: hash_order(keys[position], seed))
        count = math.ceil(sum(sizes[position] for position in positions) / (shard_mb * 1e6))
        if split == TRAIN:
            count = max(count, MIN_TRAINING_SHARDS)
        count = min(max(count, 1), len(positions))
        for number in range(count):
            first, end = (len(positions) * edge // count for edge in (number, number + 1))
            name = f"{dataset}-{split}.tfrecord-{number:05d}-of-{count:05d}"
            shards.append(ShardPlan(name, split, tuple(positions[first:end])))
    return shards
