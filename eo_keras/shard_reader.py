"""Examples of a records folder read by their number, in any order, without TensorFlow.

An index of every record's place makes a perfect draw over any number of examples possible: a shuffle buffer of stored
images costs more time than all the rest of a pipeline, for its memory is asked of the system anew in every epoch.
Every record's checksum is verified whenever it is read.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
import pathlib
import struct
import weakref
from collections.abc import Iterator, Sequence

import google_crc32c
import numpy as np

from eo_keras import records as codec
from eo_keras.cards import DataCard, Shard
from eo_keras.errors import RecordsError
from eo_keras.tfrecord import FRAMING_BYTES, masked_crc

_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CHECKSUM.size
_ALIGNMENT = 64
"""TensorFlow takes NumPy's memory as it is where it begins at a multiple of this, else it makes a copy."""

_MASK_DELTA = 0xA282EAD8
"""What the TFRecord format adds to a rotated checksum."""

_OPEN_FILES = 256
"""Of more shards than this, none is kept open: a process may have 1024 open files by default."""

_REMEDY = "copy the folder again, or build the records again"


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """Where the examples of one shard lie; arrays have one entry an example.

    Attributes:
        path: the shard.
        starts: place of the serialised example in the file, in bytes.
        sizes: its length.
        image_starts: place of the stored image in the file.
        image_sizes: its length.
        labels: the classes' places in the legend.
        keys: the keys as bytes.
    """

    path: pathlib.Path
    starts: np.ndarray
    sizes: np.ndarray
    image_starts: np.ndarray
    image_sizes: np.ndarray
    labels: np.ndarray
    keys: tuple[bytes, ...]


def index_shard(folder: str | os.PathLike[str], shard: Shard, card: DataCard) -> ShardIndex:
    """Goes through a shard without reading its images.

    Raises:
        RecordsError: if the shard is missing, of another length, damaged between its images, or holds something else
            than the card says; shard and record are named.
    """
    path = codec.check_shard(folder, shard)
    rows, keys = [], []
    with open(path, "rb") as file:
        # An empty file cannot be mapped.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if shard.bytes else b""
        at = 0
        while at < len(data):
            header = data[at : at + _HEADER_BYTES]
            size = _LENGTH.unpack_from(header)[0] if len(header) == _HEADER_BYTES else len(data)
            end = at + size + FRAMING_BYTES
            if end > len(data) or _CHECKSUM.unpack_from(header, _LENGTH.size)[0] != masked_crc(header[: _LENGTH.size]):
                raise _damaged(path, len(rows))
            start = at + _HEADER_BYTES
            try:
                features = _features(data, start, start + size)
                image, key = features[codec.IMAGE], features[codec.KEY]
                rows.append((start, size, image[0], image[1] - image[0], _varint(data, features[codec.LABEL][0])[0]))
                keys.append(data[slice(*key)])
            except (LookupError, ValueError) as error:
                if _CHECKSUM.unpack(data[end - _CHECKSUM.size : end])[0] != masked_crc(data[start : start + size]):
                    raise _damaged(path, len(rows)) from None
                raise RecordsError(
                    path, f"record {len(rows)} is not one of ours ({error})", remedy="build the records again"
                ) from None
            at = end
    if len(rows) != shard.examples:
        raise RecordsError(path, f"it holds {len(rows)} examples", f"{shard.examples}, as the card says", _REMEDY)
    table = np.array(rows, np.int64).reshape(-1, 5).T
    if card.encoding == "raw":
        expected = card.patch_size**2 * len(card.bands) * np.dtype(card.dtype).itemsize
        for number in np.flatnonzero(table[3] != expected)[:1]:
            raise RecordsError(
                path,
                f"the image of record {number} has {table[3][number]} bytes",
                f"{expected} bytes: {card.patch_size} x {card.patch_size} {card.dtype} of {len(card.bands)} bands",
                "build the records again",
            )
    return ShardIndex(path, *table[:4], table[4].astype(np.int32), tuple(keys))


def aligned(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Returns an array without content, where TensorFlow need not copy it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    return memory[-memory.ctypes.data % _ALIGNMENT :][:size].view(dtype).reshape(shape)


class ShardReader:
    """The examples of some shards, numbered through.

    Attributes:
        labels: (example,) int32, the classes' places in the legend.
        keys: the examples' keys as bytes.
        damage: the last damage that was found while reading; None if there was none.
    """

    def __init__(self, indices: Sequence[ShardIndex], card: DataCard):
        """Takes the shards' indices in the order in which their examples are numbered."""
        self._paths, self._card = [index.path for index in indices], card
        counts = [len(index.labels) for index in indices]
        self._shards = np.repeat(np.arange(len(counts)), counts)
        self._places = np.concatenate([np.arange(count) for count in counts])
        columns = ("starts", "sizes", "image_starts", "image_sizes", "labels")
        joined = [np.concatenate([getattr(index, name) for index in indices]) for name in columns]
        starts, sizes, image_starts, image_sizes, self.labels = joined
        # Lengths of what lies before the image in a record, of the image, and of what lies behind it.
        before = image_starts - starts
        self._layout = np.stack([starts, before, image_sizes, sizes - before - image_sizes + _CHECKSUM.size], axis=-1)
        self.keys = [key for index in indices for key in index.keys]
        self.damage: RecordsError | None = None
        self._files: dict[int, int] = {}
        weakref.finalize(self, _close, self._files)

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.labels)

    def images(self, numbers: np.ndarray) -> np.ndarray:
        """Reads raw images: (example, height, width, band) of the card's dtype.

        Raises:
            RecordsError: if a record is damaged or cannot be read.
        """
        size, card = self._card.patch_size, self._card
        length = size * size * len(card.bands) * np.dtype(card.dtype).itemsize
        memory = aligned((len(numbers), length), "uint8")
        for pixels, number, layout in zip(memory, numbers, self._layout[numbers].tolist(), strict=True):
            start, before, _, after = layout
            # The image goes straight to its place in the batch.
            around = np.empty(before + after, np.uint8)
            head, tail = around[:before], around[before:]
            if self._read(number, [head, pixels, tail], start) != before + length + after:
                self._fail(number)
            crc = google_crc32c.extend(google_crc32c.value(head), pixels)
            tail = tail.tobytes()
            self._verify(number, google_crc32c.extend(crc, tail[: -_CHECKSUM.size]), tail)
        numbers_of = np.dtype(card.dtype).newbyteorder("<")
        return memory.view(numbers_of).reshape(-1, size, size, len(card.bands)).astype(card.dtype, copy=False)

    def jpegs(self, numbers: np.ndarray) -> np.ndarray:
        """Reads encoded images: an array of bytes objects.

        Raises:
            RecordsError: if a record is damaged or cannot be read.
        """
        found = np.empty(len(numbers), object)
        for i, (start, before, length, after) in enumerate(self._layout[numbers].tolist()):
            number = numbers[i]
            data = bytearray(before + length + after)
            if self._read(number, [data], start) != len(data):
                self._fail(number)
            data = bytes(data)
            self._verify(number, google_crc32c.value(data[: -_CHECKSUM.size]), data)
            found[i] = data[before : before + length]
        return found

    def _read(self, number: int, parts: list[np.ndarray | bytearray], start: int) -> int:
        """Fills some memory with what lies in an example's shard from `start` on; returns the number of bytes."""
        shard = int(self._shards[number])
        try:
            if len(self._paths) > _OPEN_FILES:
                with open(self._paths[shard], "rb", buffering=0) as file:
                    return os.preadv(file.fileno(), parts, start)
            if (file := self._files.get(shard)) is None:
                opened = os.open(self._paths[shard], os.O_RDONLY)
                # Another thread may have been quicker.
                if (file := self._files.setdefault(shard, opened)) != opened:
                    os.close(opened)
            return os.preadv(file, parts, start)
        except OSError as error:
            self.damage = RecordsError(
                self._paths[shard], f"record {self._places[number]} cannot be read ({error.strerror})", remedy=_REMEDY
            )
            raise self.damage from None

    def _verify(self, number: int, crc: int, data: bytes) -> None:
        masked = (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF
        if _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)[0] != masked:
            self._fail(number)

    def _fail(self, number: int) -> None:
        self.damage = _damaged(self._paths[self._shards[number]], self._places[number])
        raise self.damage


def _close(files: dict[int, int]) -> None:
    for file in files.values():
        os.close(file)


def _damaged(path: pathlib.Path, number: int) -> RecordsError:
    return RecordsError(path, f"record {number} is cut off or damaged", "a whole TFRecord file", _REMEDY)


def _features(data: mmap.mmap | bytes, start: int, end: int) -> dict[str, tuple[int, int]]:
    """Returns where the values of a serialised `tf.train.Example` lie: features of one value each, by name.

    To parse the message would copy every image.
    """
    found = {}
    for _, *features in _fields(data, start, end):
        for _, *entry in _fields(data, *features):
            (_, *name), (_, *feature) = _fields(data, *entry)
            ((_, *values),) = _fields(data, *feature)
            ((_, *value),) = _fields(data, *values)
            found[data[slice(*name)].decode()] = tuple(value)
    return found


def _fields(data: mmap.mmap | bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields number, begin and end of a protobuf message's fields."""
    while at < end:
        tag, at = _varint(data, at)
        if tag & 7 == 2:
            size, at = _varint(data, at)
        elif tag & 7 == 0:
            size = _varint(data, at)[1] - at
        else:
            raise ValueError(f"a field of wire type {tag & 7}")
        if at + size > end:
            raise ValueError("a field that goes beyond its message")
        yield tag >> 3, at, at + size
        at += size


def _varint(data: mmap.mmap | bytes, at: int) -> tuple[int, int]:
    """Returns a variable-length integer and where the next one begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
