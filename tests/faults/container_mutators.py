"""Deterministic damage to zips, TFRecords and cards; see `mutators`."""

import dataclasses
import json
import struct
from collections.abc import Callable

from eo_keras.records import tfrecord
from tests.faults.mutators import ANY, Mutator, flipped, number, pick, put


@dataclasses.dataclass(frozen=True)
class ZipEntry:
    """Positions of a zip member's central entry and local header, its name, and the bytes of its central entry."""

    central: int
    local: int
    name: bytes
    raw: bytes


def zip_entries(data: bytes) -> list[ZipEntry]:
    """Reads the central directory of an undamaged zip."""
    entries, place = [], struct.unpack_from("<I", data, _end(data) + 16)[0]
    for _ in range(struct.unpack_from("<H", data, _end(data) + 10)[0]):
        lengths = struct.unpack_from("<HHH", data, place + 28)
        raw = data[place : place + 46 + sum(lengths)]
        entries.append(ZipEntry(place, *struct.unpack_from("<I", raw, 42), raw[46 : 46 + lengths[0]], raw))
        place += len(raw)
    return entries


def _end(data: bytes) -> int:
    return data.rfind(b"PK\5\6")


def _with_directory(data: bytes, raws: list[bytes]) -> bytes:
    start, directory = zip_entries(data)[0].central, b"".join(raws)
    end = put(data[_end(data) :], 8, "<HHII", len(raws), len(raws), len(directory), start)
    return data[:start] + directory + end


def _zip_directory_bits(rng, data):
    return flipped(rng, data, int(rng.integers(1, 4)), zip_entries(data)[0].central)


def _zip_directory_name(rng, data):
    entry = pick(rng, zip_entries(data))
    return flipped(rng, data, 1, entry.central + 46, entry.central + 46 + len(entry.name))


def _zip_local_bits(rng, data):
    entry = pick(rng, zip_entries(data))
    return flipped(rng, data, int(rng.integers(1, 4)), entry.local, entry.local + 30 + len(entry.name))


def _zip_offsets(rng, data):
    one, two = (zip_entries(data)[place] for place in rng.permutation(len(zip_entries(data)))[:2])
    return put(put(data, one.central + 42, "<I", two.local), two.central + 42, "<I", one.local)


def _zip_duplicate(rng, data):
    raws = [entry.raw for entry in zip_entries(data)]
    return _with_directory(data, [*raws, pick(rng, raws)])


def _zip_replaced(rng, data):
    raws = [entry.raw for entry in zip_entries(data)]
    one, two = rng.permutation(len(raws))[:2]
    raws[one] = raws[two]
    return _with_directory(data, raws)


def _zip_left_out(rng, data):
    raws = [entry.raw for entry in zip_entries(data)]
    del raws[int(rng.integers(len(raws)))]
    return _with_directory(data, raws)


def _zip_sizes(rng, data):
    entry = pick(rng, zip_entries(data))
    place = pick(rng, (entry.central + 20, entry.central + 24, entry.local + 18, entry.local + 22))
    return put(data, place, "<I", number(rng, 32, struct.unpack_from("<I", data, place)[0]))


def _zip_checksum(rng, data):
    entry = pick(rng, zip_entries(data))
    return put(data, entry.central + 16, "<I", int(rng.integers(1 << 32)))


def _zip_method(rng, data):
    entry = pick(rng, zip_entries(data))
    place, values = pick(rng, ((10, (0, 8, 1, 6, 9, 12, 14, 93, 99)), (8, (1, 8, 0x20, 0x41, 0x800, 0x2000))))
    return put(data, entry.central + place, "<H", pick(rng, values))


def _zip_end(rng, data):
    place, form, bits = pick(rng, ((4, "<H", 16), (8, "<H", 16), (10, "<H", 16), (12, "<I", 32), (16, "<I", 32)))
    old = struct.unpack_from(form, data, _end(data) + place)[0]
    return put(data, _end(data) + place, form, number(rng, bits, old))


def _renamed(data: bytes, entry: ZipEntry, name: bytes) -> bytes:
    assert len(name) == len(entry.name)
    for place in (entry.central + 46, entry.local + 30):
        data = data[:place] + name + data[place + len(name) :]
    return data


def _zip_new_name(rng, data):
    entry = pick(rng, zip_entries(data))
    dot = entry.name.rindex(b".")
    return _renamed(data, entry, entry.name[: dot - 1] + b"9" + entry.name[dot:])


def _zip_odd_name(rng, data):
    entry = pick(rng, zip_entries(data))
    piece = pick(rng, (b"../", b"\0", b"\xff\xfe", b"..\\", b"/", b"C:", b"//", b" ", b"\n", b"\xc3\xa9", b"a"))
    place = int(rng.integers(len(entry.name) - len(piece)))
    return _renamed(data, entry, entry.name[:place] + piece + entry.name[place + len(piece) :])


ZIP: dict[str, Mutator] = ANY | {
    "zip: bits in directory": _zip_directory_bits,
    "zip: bit in directory's name": _zip_directory_name,
    "zip: bits in local header": _zip_local_bits,
    "zip: offsets swapped": _zip_offsets,
    "zip: entry duplicated": _zip_duplicate,
    "zip: entry replaced by another": _zip_replaced,
    "zip: entry left out": _zip_left_out,
    "zip: sizes": _zip_sizes,
    "zip: checksum": _zip_checksum,
    "zip: method or flags": _zip_method,
    "zip: end record": _zip_end,
    "zip: member renamed": _zip_new_name,
    "zip: odd name": _zip_odd_name,
}

WHOLE_ZIPS = ("zip: entry left out", "zip: member renamed", "zip: odd name")
"""Mutators that leave a zip without contradictions, with other members than before."""


def _records(data: bytes) -> list[bytes]:
    """Returns the records of an undamaged TFRecord file with their framing."""
    records, place = [], 0
    while place < len(data):
        end = place + tfrecord.FRAMING_BYTES + struct.unpack_from("<Q", data, place)[0]
        records.append(data[place:end])
        place = end
    return records


def _record_changed(rng, data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    records = _records(data)
    place = int(rng.integers(len(records)))
    records[place] = change(records[place])
    return b"".join(records)


def _framed(length: int, content: bytes) -> bytes:
    head = struct.pack("<Q", length)
    checks = [struct.pack("<I", tfrecord.masked_crc(part)) for part in (head, content)]
    return head + checks[0] + content + checks[1]


def _record_length(rng, data):
    return _record_changed(rng, data, lambda record: flipped(rng, record, 1, 0, 8))


def _record_false_length(rng, data):
    def change(record):
        length = pick(rng, (0, len(record) - 17, len(record) - 15, 1 << 20, 1 << 33, (1 << 63) - 1, (1 << 64) - 1))
        return _framed(length, record[12:-4])

    return _record_changed(rng, data, change)


def _record_checksum(rng, data):
    places = pick(rng, ((8, 12), (-4, None)))

    def change(record):
        start = places[0] % len(record)
        return flipped(rng, record, 1, start, start + 4)

    return _record_changed(rng, data, change)


def _record_data(rng, data):
    return _record_changed(rng, data, lambda record: flipped(rng, record, 1, 12, len(record) - 4))


def _record_forged(rng, data):
    def change(record):
        head = min(len(record), 300) if rng.integers(2) else len(record)
        content = flipped(rng, record, int(rng.integers(1, 4)), 12, head - 4)[12:-4]
        return _framed(len(content), content)

    return _record_changed(rng, data, change)


def _records_lost(rng, data):
    records = _records(data)
    del records[int(rng.integers(len(records)))]
    return b"".join(records)


def _records_doubled(rng, data):
    records = _records(data)
    return b"".join([*records, pick(rng, records)])


def _records_replaced(rng, data):
    records = _records(data)
    one, two = rng.permutation(len(records))[:2] if len(records) > 1 else (0, 0)
    records[one] = records[two]
    return b"".join(records)


TFRECORD: dict[str, Mutator] = ANY | {
    "tfrecord: length": _record_length,
    "tfrecord: false length with its checksum": _record_false_length,
    "tfrecord: checksum": _record_checksum,
    "tfrecord: data": _record_data,
    "tfrecord: record lost": _records_lost,
    "tfrecord: record doubled": _records_doubled,
}

FORGED: dict[str, Mutator] = {
    "tfrecord: other content with its checksum": _record_forged,
    "tfrecord: record replaced by another": _records_replaced,
}
"""Damage under valid checksums: found only by a shard's SHA-256 in the card, which a training run does not compute."""


def _card_digit(rng, data):
    digits = [place for place, byte in enumerate(data) if 48 <= byte <= 57]
    place = pick(rng, digits)
    return put(data, place, "B", 48 + (data[place] - 48 + int(rng.integers(1, 10))) % 10)


def _card_value(rng, data):
    """Replaces one value at any depth."""
    card = json.loads(data)
    node = card
    while True:
        key = pick(rng, list(node) if isinstance(node, dict) else range(len(node)))
        if not (isinstance(node[key], (dict, list)) and node[key]) or rng.integers(4) == 0:
            break
        node = node[key]
    values = (None, True, -1, 0, 10**30, 1e300, float("nan"), float("inf"), "", "../x", "a" * 5000, [], {}, [[]])
    change = int(rng.integers(len(values) + 1))
    if change == len(values):
        del node[key]
    else:
        node[key] = values[change]
    return json.dumps(card, indent=2, ensure_ascii=False).encode() + b"\n"


def _card_nested(rng, data):
    depth = pick(rng, (200, 100_000))
    return b"[" * depth + b"]" * depth


def _card_letter(rng, data):
    letters = [place for place, byte in enumerate(data) if chr(byte).isalpha()]
    return put(data, pick(rng, letters), "B", int(rng.integers(97, 123)))


CARD: dict[str, Mutator] = ANY | {
    "card: a digit": _card_digit,
    "card: a letter": _card_letter,
    "card: a value": _card_value,
    "card: nesting": _card_nested,
}
