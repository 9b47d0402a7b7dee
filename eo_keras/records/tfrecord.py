"""TFRecord framing and tf.train.Example without TensorFlow.

A TFRecord file is a sequence of (length as uint64, masked CRC-32C of the length, data, masked CRC-32C of the data),
all little-endian. `tf.train.Example` is declared here again for the protobuf library, in a descriptor pool of its own,
because importing TensorFlow for it costs seconds in every worker process.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from eo_keras.core import files
from eo_keras.errors import RecordsError

FRAMING_BYTES = 16
"""Bytes that the framing adds to every record."""

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8


def masked_crc(data: bytes) -> int:
    """Returns the CRC-32C of `data`, rotated and offset as the TFRecord format demands."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def write_record(file: BinaryIO, data: bytes) -> None:
    """Appends one record to an open TFRecord file."""
    file.write(framed(data))


def framed(data: bytes) -> bytes:
    """Returns a record with the framing of TFRecord files: length and checksums."""
    length = _LENGTH.pack(len(data))
    return b"".join((length, _CHECKSUM.pack(masked_crc(length)), data, _CHECKSUM.pack(masked_crc(data))))


def read_records(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, every checksum verified.

    Raises:
        RecordsError: if the file ends inside a record or a checksum does not agree.
    """
    size = files.size(path)
    with files.open_for_reading(path) as file:
        number = 0
        while header := file.read(_LENGTH.size + _CHECKSUM.size):
            whole = len(header) == _LENGTH.size + _CHECKSUM.size
            if not whole or _CHECKSUM.unpack(header[_LENGTH.size :])[0] != masked_crc(header[: _LENGTH.size]):
                raise _damaged(path, number)
            (length,) = _LENGTH.unpack(header[: _LENGTH.size])
            if length > size:
                raise _damaged(path, number)
            data = file.read(length)
            checksum = file.read(_CHECKSUM.size)
            if len(checksum) != _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != masked_crc(data):
                raise _damaged(path, number)
            yield data
            number += 1


def read_record_at(path: str | os.PathLike[str], offset: int, length: int) -> bytes:
    """Returns one record of a TFRecord file, its checksums verified.

    Args:
        path: the file.
        offset: its first byte, framing included.
        length: its length, framing included.

    Raises:
        RecordsError: if there is no such record.
    """
    with files.open_for_reading(path) as file:
        file.seek(offset)
        data = file.read(length)
    record = data[_LENGTH.size + _CHECKSUM.size : -_CHECKSUM.size]
    if len(data) != length or data != framed(record):
        raise RecordsError(path, f"the record at byte {offset:,} is cut off or damaged", "a whole TFRecord file")
    return record


def _damaged(path, number: int) -> RecordsError:
    return RecordsError(
        path, f"record {number} is cut off or damaged", "a whole TFRecord file", "build the records again"
    )


def _declare_example():
    """Declares tensorflow/core/example/{example,feature}.proto with their field numbers."""
    file = descriptor_pb2.FileDescriptorProto(name="eo_keras/example.proto", package="tensorflow", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields, nested_in=None):
        declared = (nested_in.nested_type if nested_in is not None else file.message_type).add(name=name)
        for number, (field_name, kind, repeated, type_name) in enumerate(fields, start=1):
            declared.field.add(
                name=field_name,
                number=number,
                type=kind,
                label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL,
                type_name=type_name,
            )
        return declared

    message("BytesList", ("value", field.TYPE_BYTES, True, None))
    message("FloatList", ("value", field.TYPE_FLOAT, True, None))
    message("Int64List", ("value", field.TYPE_INT64, True, None))
    feature = message(
        "Feature",
        ("bytes_list", field.TYPE_MESSAGE, False, ".tensorflow.BytesList"),
        ("float_list", field.TYPE_MESSAGE, False, ".tensorflow.FloatList"),
        ("int64_list", field.TYPE_MESSAGE, False, ".tensorflow.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for member in feature.field:
        member.oneof_index = 0
    features = message("Features", ("feature", field.TYPE_MESSAGE, True, ".tensorflow.Features.FeatureEntry"))
    entry = message(
        "FeatureEntry",
        ("key", field.TYPE_STRING, False, None),
        ("value", field.TYPE_MESSAGE, False, ".tensorflow.Feature"),
        nested_in=features,
    )
    entry.options.map_entry = True
    message("Example", ("features", field.TYPE_MESSAGE, False, ".tensorflow.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _declare_example()


def encode_example(features: Mapping[str, bytes | int]) -> bytes:
    """Serializes features as a `tf.train.Example`; the same features always give the same bytes.

    Args:
        features: byte strings become a `bytes_list` of one value, integers an `int64_list` of one value.
    """
    example = _Example()
    for key, value in features.items():
        feature = example.features.feature[key]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return example.SerializeToString(deterministic=True)


def decode_example(data: bytes) -> dict[str, bytes | int]:
    """Parses the bytes of `encode_example`."""
    return {key: values[0] for key, values in decode_lists(data).items()}


def decode_lists(data: bytes) -> dict[str, Sequence[Any]]:
    """Reads the features of any `tf.train.Example`: of each a list of bytes, of integers or of float32 numbers."""
    found = {}
    for key, feature in _Example.FromString(data).features.feature.items():
        kind = feature.WhichOneof("kind")
        found[key] = getattr(feature, kind).value if kind else ()
    return found
