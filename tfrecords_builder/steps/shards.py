"""Writes one shard: a function of the source, the plan and the shard's number, committed by a rename.

Beside every finished shard the build's state holds its length, its SHA-256 and, of training shards, the histograms of
its numbers, from which the card's statistics are made.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from eo_keras.core import files
from eo_keras.errors import SourceError
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from eo_keras.records.statistics import Histograms
from tfrecords_builder.sources.items import Item, hashed
from tfrecords_builder.steps import scan
from tfrecords_builder.storage import manifest

_COUNTED_TOGETHER = 64  # Images: counting many at once is several times faster, and so many fill a few megabytes.


@dataclasses.dataclass(frozen=True)
class ShardContext:
    """What all shards of a build share."""

    source: scan.SourceContext
    output_dir: str


@dataclasses.dataclass(frozen=True)
class PlannedExample:
    """One example to write: its place in the source, the hash of what the scan saw there, and its place on the map."""

    item: Item
    stored_digest: bytes
    crs: str | None
    transform: tuple[float, ...] | None


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
        """Returns a hash over what the shard will hold."""
        whole = hashlib.sha256(f"{self.name} {self.counted}".encode())
        for example in self.examples:
            whole.update(example.item.key.encode() + b"\0" + example.stored_digest)
        return whole.hexdigest()


class _HashingWriter:
    """A binary file that hashes and counts what passes through."""

    def __init__(self, file):
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)
        self.bytes += len(data)


def write_shard(context: ShardContext, unit: ShardUnit) -> None:
    """Writes a shard and what the state holds about it, unless both are there already and whole.

    Raises:
        SourceError: if a patch has changed since the scan.
        StorageError: if there is no room for the shard.
    """
    if manifest.is_whole(context.source.state_dir, context.output_dir, unit.name, unit.digest()):
        return
    source = context.source.source
    archive = scan.open_archive(context.source.path, context.source.opening)
    histograms, uncounted = Histograms(len(source.bands), source.dtype), []
    labels = {name: label for label, name in enumerate(source.legend.class_names)}
    path = files.join(context.output_dir, unit.name)
    with files.atomic_file(path, scratch=context.source.state_dir) as file:
        writer = _HashingWriter(file)
        for planned in unit.examples:
            item, where = planned.item, f"{context.source.path}: {planned.item.member}"
            stored, tile = source.read_stored(archive, item)
            if scan.stored_digest(context.source, archive, item, hashed(stored, tile)) != planned.stored_digest:
                raise SourceError(
                    where,
                    "the image has changed while records were built from it",
                    remedy="build again from a source at rest",
                )
            label = labels[item.class_name] if tile is None else None
            example = records.Example(stored, label, item.key, planned.crs, planned.transform, tile)
            tfrecord.write_record(writer, records.encode(example))
            if unit.counted and tile is not None:
                histograms.add(source.pixels(stored, where), tile.validity)
            elif unit.counted:
                uncounted.append(source.pixels(stored, where))
                if len(uncounted) == _COUNTED_TOGETHER or planned is unit.examples[-1]:
                    histograms.add(np.stack(uncounted))
                    uncounted.clear()
    manifest.note(
        context.source.state_dir, unit.name, unit.digest(), writer.bytes, writer.sha256.hexdigest(), histograms
    )


def prepare(source: str, opening: str) -> None:
    """Opens a source in a process that will be asked for shards of it; this module has been imported by then."""
    scan.open_archive(source, opening)
