"""Writing of a shard from the source and the plan, committed by a rename.

Beside every finished shard the build's state holds its length, its SHA-256 and, of training shards, the histograms of
its numbers, from which the card's statistics are made.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import BinaryIO

import numpy as np

from eo_keras.core import files
from eo_keras.records import tfrecord
from eo_keras.records.statistics import Histograms
from tfrecords_builder.sources.source import Context, Facts, PlannedExample
from tfrecords_builder.storage import manifest

_COUNTED_TOGETHER = 64  # Images: counting many at once is several times faster, and so many fill a few megabytes.


@dataclasses.dataclass(frozen=True)
class ShardContext:
    """Values that all shards of a build share."""

    build: Context
    facts: Facts
    output_dir: str


@dataclasses.dataclass(frozen=True)
class ShardUnit:
    """One shard to write: its name, its examples in order, and whether they are counted for the statistics."""

    name: str
    examples: tuple[PlannedExample, ...]
    counted: bool

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.examples)

    def digest(self) -> str:
        """Returns a hash over the planned content of the shard."""
        whole = hashlib.sha256(f"{self.name} {self.counted}".encode())
        for example in self.examples:
            whole.update(example.key.encode() + b"\0" + example.digest)
        return whole.hexdigest()


class _HashingWriter:
    """A binary file that hashes and counts the bytes written to it."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)
        self.bytes += len(data)


def histograms_of(facts: Facts) -> dict[str, Histograms]:
    """Returns empty histograms of each modality."""
    return {one.name: Histograms(len(one.bands), one.dtype) for one in facts.modalities}


def write_shard(context: ShardContext, unit: ShardUnit) -> None:
    """Writes a shard and its entry in the state, unless both exist and are complete.

    Raises:
        SourceError: if an example has changed since the scan.
        StorageError: if the disk is full.
    """
    build, facts = context.build, context.facts
    if manifest.is_whole(build.state_dir, context.output_dir, unit.name, unit.digest()):
        return
    histograms, uncounted = histograms_of(facts), []
    with files.atomic_file(files.join(context.output_dir, unit.name), scratch=build.state_dir) as file:
        writer = _HashingWriter(file)
        for example in build.source.examples(build, facts, unit.examples):
            tfrecord.write_record(writer, example.record)
            if not unit.counted:
                continue
            for name, numbers in example.others().items():
                histograms[name].add(numbers)
            pixels, validity = example.pixels()
            if validity is not None:
                histograms[facts.modality].add(pixels, validity)
                continue
            uncounted.append(pixels)
            if len(uncounted) == _COUNTED_TOGETHER:
                histograms[facts.modality].add(np.stack(uncounted))
                uncounted.clear()
        if uncounted:
            histograms[facts.modality].add(np.stack(uncounted))
    manifest.note(build.state_dir, unit.name, unit.digest(), writer.bytes, writer.sha256.hexdigest(), histograms)
