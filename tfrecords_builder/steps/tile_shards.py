"""Writes one shard of tiles: records copied from the files of their rows, in the plan's order."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from eo_keras.core import files
from eo_keras.errors import SourceError
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from eo_keras.records.statistics import Histograms
from tfrecords_builder.sources.urban_atlas.tiles import digest
from tfrecords_builder.storage import manifest


@dataclasses.dataclass(frozen=True)
class TileShardContext:
    """What all shards of a build share."""

    state_dir: str
    output_dir: str
    bands: int


@dataclasses.dataclass(frozen=True)
class Piece:
    """One record to copy: the file of its row, where it begins there, its length with framing, and its hash."""

    row: str
    offset: int
    length: int
    digest: bytes


@dataclasses.dataclass(frozen=True)
class TileShardUnit:
    """One shard to write: its name, its records in order, and whether they are counted for the statistics."""

    name: str
    pieces: tuple[Piece, ...]
    counted: bool

    def __len__(self) -> int:
        """Returns the number of tiles."""
        return len(self.pieces)

    def digest(self) -> str:
        """Returns a hash over what the shard will hold."""
        whole = hashlib.sha256(f"{self.name} {self.counted}".encode())
        for piece in self.pieces:
            whole.update(piece.digest)
        return whole.hexdigest()


def write_shard(context: TileShardContext, unit: TileShardUnit) -> None:
    """Writes a shard and what the state holds about it, unless both are there already and whole.

    Raises:
        SourceError: if the state has been damaged.
        StorageError: if there is no room for the shard.
    """
    if manifest.is_whole(context.state_dir, context.output_dir, unit.name, unit.digest()):
        return
    histograms = Histograms(context.bands, "uint16")
    whole, size = hashlib.sha256(), 0
    path = files.join(context.output_dir, unit.name)
    with files.atomic_file(path, scratch=context.state_dir) as file:
        for piece in unit.pieces:
            framed = _read(context, piece)
            file.write(framed)
            whole.update(framed)
            size += len(framed)
            if unit.counted:
                example = records.decode(_unframed(framed))
                numbers = np.frombuffer(example.image, "<u2").astype(np.uint16, copy=False)
                histograms.add(numbers.reshape(-1, context.bands), example.tile.validity.ravel())
    manifest.note(context.state_dir, unit.name, unit.digest(), size, whole.hexdigest(), histograms)


def _read(context: TileShardContext, piece: Piece) -> bytes:
    path = files.join(context.state_dir, piece.row)
    try:
        with files.open_for_reading(path) as file:
            file.seek(piece.offset)
            framed = file.read(piece.length)
    except FileNotFoundError:
        framed = b""
    record = _unframed(framed)
    if digest(record) != piece.digest or framed != tfrecord.framed(record):
        # What is not there is cut by the next call.
        files.remove(path)
        raise SourceError(
            path,
            "what was cut from a scene has been damaged",
            remedy="keep other programs out of the output folder, and run the same command again",
        )
    return framed


def _unframed(framed: bytes) -> bytes:
    # A record's length and its checksum come before it, and its own checksum behind.
    return framed[tfrecord.FRAMING_BYTES - 4 : -4]
