"""Writes one shard: a function of the source, the plan and the shard's number, committed by a rename."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib

from eo_keras import cards, files, records, tfrecord
from eo_keras.errors import SourceError
from tfrecords_builder import scan
from tfrecords_builder.sources import SOURCES
from tfrecords_builder.sources.eurosat import Item


@dataclasses.dataclass(frozen=True)
class ShardContext:
    """What all shards of a build share."""

    source: scan.SourceContext
    output_dir: str


@dataclasses.dataclass(frozen=True)
class ShardUnit:
    """One shard to write: its name, and its examples as (item, hash of what the scan saw), in order."""

    name: str
    examples: tuple[tuple[Item, bytes], ...]


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


def write_shard(context: ShardContext, unit: ShardUnit) -> cards.Shard:
    """Writes a shard and returns its entry in the card.

    Raises:
        SourceError: if a patch has changed since the scan.
        StorageError: if there is no room for the shard.
    """
    source = SOURCES[context.source.dataset]
    archive = scan.open_archive(context.source.path)
    with files.atomic_file(pathlib.Path(context.output_dir) / unit.name) as file:
        writer = _HashingWriter(file)
        for item, expected in unit.examples:
            patch = source.read(archive, item)
            if scan.digest(patch.stored) != expected:
                raise SourceError(
                    f"{context.source.path}: {item.member}",
                    "the image has changed while records were built from it",
                    remedy="build again from a source at rest",
                )
            example = records.Example(
                patch.stored, source.legend.label_of(item.class_name), item.key, patch.crs, patch.transform
            )
            tfrecord.write_record(writer, records.encode(example))
    return cards.Shard(unit.name, len(unit.examples), writer.bytes, writer.sha256.hexdigest())
