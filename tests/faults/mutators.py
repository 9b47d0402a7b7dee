"""Deterministic damage to zips, JPEGs, TIFFs, TFRecords and cards: functions of a random generator and a file's bytes.

A mutator that finds nothing to damage returns the bytes unchanged.
"""

import dataclasses
import json
import struct
from collections.abc import Callable

import numpy as np

from eo_keras import tfrecord

Mutator = Callable[[np.random.Generator, bytes], bytes]

HEADERS = (
    b"PK\x03\x04\x14\x00\x00\x00\x08\x00",
    b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    b"II*\x00\x08\x00\x00\x00",
    b"MM\x00*\x00\x00\x00\x08",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",
)
"""How files of other formats begin."""


def put(data: bytes, place: int, form: str, *values: int) -> bytes:
    """Returns the bytes with numbers packed over them at a place."""
    changed = bytearray(data)
    struct.pack_into(form, changed, place, *values)
    return bytes(changed)


def flipped(rng, data: bytes, count: int, start: int = 0, stop: int | None = None) -> bytes:
    """Returns the bytes with bits inverted between two places."""
    start, stop = max(start, 0), len(data) if stop is None else min(stop, len(data))
    if stop <= start:
        return data
    changed = bytearray(data)
    for bit in {int(bit) for bit in rng.integers(8 * start, 8 * stop, count)}:
        changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def _pick(rng, values):
    return values[int(rng.integers(len(values)))]


def _number(rng, bits: int, near: int = 0) -> int:
    """Returns a number of so many bits: an extreme one, a neighbour of what was there, or any."""
    top = (1 << bits) - 1
    return _pick(rng, (0, 1, top, top >> 1, (near + 1) & top, max(near - 1, 0), int(rng.integers(top))))


def one_bit(rng, data):
    """Any one bit."""
    return flipped(rng, data, 1)


def many_bits(rng, data):
    """Two to 64 bits."""
    return flipped(rng, data, int(rng.integers(2, 65)))


def cut(rng, data):
    """The end is missing, perhaps all of it."""
    return data[: int(rng.integers(len(data)))] if data else data


def zeroed(rng, data):
    """A block of zeros, as a disk leaves behind that lost a sector."""
    start, length = int(rng.integers(len(data))), _pick(rng, (8, 64, 512, 4096))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def foreign_header(rng, data):
    """It begins like a file of another format."""
    header = _pick(rng, [header for header in HEADERS if not data.startswith(header[:4])])
    return header + data[len(header) :]


def missing_piece(rng, data):
    """Some bytes from the midst are missing."""
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 65))
    return data[:start] + data[start + length :]


def added_bytes(rng, data):
    """Foreign bytes in the midst or behind the end."""
    place = _pick(rng, (len(data), int(rng.integers(len(data)))))
    return data[:place] + rng.bytes(int(rng.integers(1, 65))) + data[place:]


ANY: dict[str, Mutator] = {
    "one bit": one_bit,
    "many bits": many_bits,
    "cut": cut,
    "zeroed block": zeroed,
    "foreign header": foreign_header,
    "missing piece": missing_piece,
    "added bytes": added_bytes,
}


@dataclasses.dataclass(frozen=True)
class ZipEntry:
    """Where a zip's member lies: its central entry, its local header, its name, and the bytes of its central entry."""

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
    entry = _pick(rng, zip_entries(data))
    return flipped(rng, data, 1, entry.central + 46, entry.central + 46 + len(entry.name))


def _zip_local_bits(rng, data):
    entry = _pick(rng, zip_entries(data))
    return flipped(rng, data, int(rng.integers(1, 4)), entry.local, entry.local + 30 + len(entry.name))


def _zip_offsets(rng, data):
    one, two = (zip_entries(data)[place] for place in rng.permutation(len(zip_entries(data)))[:2])
    return put(put(data, one.central + 42, "<I", two.local), two.central + 42, "<I", one.local)


def _zip_duplicate(rng, data):
    raws = [entry.raw for entry in zip_entries(data)]
    return _with_directory(data, [*raws, _pick(rng, raws)])


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
    entry = _pick(rng, zip_entries(data))
    place = _pick(rng, (entry.central + 20, entry.central + 24, entry.local + 18, entry.local + 22))
    return put(data, place, "<I", _number(rng, 32, struct.unpack_from("<I", data, place)[0]))


def _zip_checksum(rng, data):
    entry = _pick(rng, zip_entries(data))
    return put(data, entry.central + 16, "<I", int(rng.integers(1 << 32)))


def _zip_method(rng, data):
    entry = _pick(rng, zip_entries(data))
    place, values = _pick(rng, ((10, (0, 8, 1, 6, 9, 12, 14, 93, 99)), (8, (1, 8, 0x20, 0x41, 0x800, 0x2000))))
    return put(data, entry.central + place, "<H", _pick(rng, values))


def _zip_end(rng, data):
    place, form, bits = _pick(rng, ((4, "<H", 16), (8, "<H", 16), (10, "<H", 16), (12, "<I", 32), (16, "<I", 32)))
    old = struct.unpack_from(form, data, _end(data) + place)[0]
    return put(data, _end(data) + place, form, _number(rng, bits, old))


def _renamed(data: bytes, entry: ZipEntry, name: bytes) -> bytes:
    assert len(name) == len(entry.name)
    for place in (entry.central + 46, entry.local + 30):
        data = data[:place] + name + data[place + len(name) :]
    return data


def _zip_new_name(rng, data):
    entry = _pick(rng, zip_entries(data))
    dot = entry.name.rindex(b".")
    return _renamed(data, entry, entry.name[: dot - 1] + b"9" + entry.name[dot:])


def _zip_odd_name(rng, data):
    entry = _pick(rng, zip_entries(data))
    piece = _pick(rng, (b"../", b"\0", b"\xff\xfe", b"..\\", b"/", b"C:", b"//", b" ", b"\n", b"\xc3\xa9", b"a"))
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


def _jpeg_segments(data: bytes) -> tuple[list[tuple[int, int, int]], int]:
    """Returns (place, marker, length) of every segment, and where the entropy-coded data begin."""
    segments, place = [], 2
    while True:
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        segments.append((place, marker, length))
        place += 2 + length
        if marker == 0xDA:
            return segments, place


def _jpeg_marker(rng, data):
    place, _, _ = _pick(rng, _jpeg_segments(data)[0])
    return put(data, place + 1, "B", int(rng.integers(0xC0, 0xFF)))


def _jpeg_length(rng, data):
    place, _, length = _pick(rng, _jpeg_segments(data)[0])
    return put(data, place + 2, ">H", _number(rng, 16, length))


def _jpeg_frame(rng, data):
    frames = [place for place, marker, _ in _jpeg_segments(data)[0] if marker in (0xC0, 0xC1, 0xC2)]
    if rng.integers(2):
        return put(data, frames[0] + _pick(rng, (5, 7)), ">H", _pick(rng, (0, 1, 8, 32, 56, 63, 65, 72, 128, 65535)))
    return put(data, frames[0] + int(rng.integers(4, 19)), "B", _number(rng, 8))


def _jpeg_tables(rng, data):
    place, _, length = _pick(rng, [part for part in _jpeg_segments(data)[0] if part[1] in (0xC4, 0xDB)])
    return flipped(rng, data, int(rng.integers(1, 4)), place + 4, place + 2 + length)


def _jpeg_scan_bits(rng, data):
    return flipped(rng, data, int(rng.integers(1, 9)), _jpeg_segments(data)[1], len(data) - 2)


def _jpeg_stray_marker(rng, data):
    place = int(rng.integers(_jpeg_segments(data)[1], len(data) - 4))
    return put(data, place, "BB", 0xFF, _pick(rng, (0xD0, 0xD3, 0xD7, 0xD8, 0xD9, 0xDA, 0xC4, 0xFE, 0x01)))


def _jpeg_end(rng, data):
    return data[: -int(rng.integers(1, 65))]


def _jpeg_repeated(rng, data):
    start = int(rng.integers(_jpeg_segments(data)[1], len(data) - 4))
    return data[: start + int(rng.integers(1, 257))] + data[start:]


JPEG: dict[str, Mutator] = ANY | {
    "jpeg: marker": _jpeg_marker,
    "jpeg: segment length": _jpeg_length,
    "jpeg: frame header": _jpeg_frame,
    "jpeg: tables": _jpeg_tables,
    "jpeg: bits in scan": _jpeg_scan_bits,
    "jpeg: stray marker": _jpeg_stray_marker,
    "jpeg: end missing": _jpeg_end,
    "jpeg: scan repeated": _jpeg_repeated,
}

_TIFF_TYPES = {1: "B", 2: "B", 3: "<H", 4: "<I", 5: "<I", 12: "<d"}


def _tiff_tags(data: bytes) -> tuple[int, dict[int, int]]:
    """Returns where the first directory begins, and the place of every tag's entry in it."""
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    places = [start + 2 + 12 * number for number in range(count)]
    return start, {struct.unpack_from("<H", data, place)[0]: place for place in places}


def _tiff_value(data: bytes, entry: int, index: int = 0) -> tuple[int, str]:
    """Returns where a tag's value of some number lies, and its form."""
    kind, count = struct.unpack_from("<HI", data, entry + 2)
    form = _TIFF_TYPES[kind]
    size = struct.calcsize(form)
    inline = count * size <= 4
    return (entry + 8 if inline else struct.unpack_from("<I", data, entry + 8)[0]) + index % count * size, form


def _tiff_set(rng, data: bytes, tags: tuple[int, ...], values) -> bytes:
    places = _tiff_tags(data)[1]
    place, form = _tiff_value(data, places[_pick(rng, [tag for tag in tags if tag in places])], int(rng.integers(13)))
    top = (1 << 8 * struct.calcsize(form)) - 1
    return put(data, place, form, min(values(struct.unpack_from(form, data, place)[0]), top))


def _tiff_size(rng, data):
    return _tiff_set(rng, data, (256, 257), lambda old: _pick(rng, (0, 1, 32, 63, 65, 128, 65535, 2**31, 2**32 - 1)))


def _tiff_offsets(rng, data):
    return _tiff_set(
        rng, data, (273, 279, 324, 325), lambda old: _pick(rng, (0, 8, old + 2, len(data) - 8, len(data), 2**32 - 1))
    )


def _tiff_compression(rng, data):
    codes = (0, 2, 4, 5, 6, 7, 8, 32773, 32946, 34712, 34887, 34925, 50000, 50001, 65535)
    return _tiff_set(rng, data, (259,), lambda old: _pick(rng, codes))


def _tiff_form(rng, data):
    return _tiff_set(rng, data, (258, 262, 277, 278, 284, 339), lambda old: _number(rng, 4, old))


def _tiff_tag(rng, data):
    entry = _pick(rng, list(_tiff_tags(data)[1].values()))
    place, form, bits = _pick(rng, ((0, "<H", 16), (2, "<H", 4), (4, "<I", 32), (8, "<I", 32)))
    return put(data, entry + place, form, _number(rng, bits, struct.unpack_from(form, data, entry + place)[0]))


def _tiff_directory(rng, data):
    start, tags = _tiff_tags(data)
    following = start + 2 + 12 * len(tags)
    if rng.integers(2):
        return put(data, following, "<I", _pick(rng, (start, 8, 1, len(data) - 2, 2**32 - 1)))
    return put(data, _pick(rng, (start, 4)), "<H", _number(rng, 16))


def _tiff_header(rng, data):
    return flipped(rng, data, int(rng.integers(1, 4)), 0, 8)


def _tiff_byte_order(rng, data):
    return _pick(rng, (b"MM\0*", b"MM*\0", b"II+\0")) + data[4:]


def _tiff_head(rng, data):
    start, tags = _tiff_tags(data)
    return flipped(rng, data, int(rng.integers(1, 4)), start, start + 6 + 12 * len(tags))


def _tiff_place(rng, data):
    places = _tiff_tags(data)[1]
    entry = _pick(rng, [places[tag] for tag in (33550, 33922, 34735, 34736, 34737) if tag in places])
    place, form = _tiff_value(data, entry)
    count = struct.unpack_from("<I", data, entry + 4)[0]
    return flipped(rng, data, 1, place, place + count * struct.calcsize(form))


TIFF: dict[str, Mutator] = ANY | {
    "tiff: width or height": _tiff_size,
    "tiff: strip offsets": _tiff_offsets,
    "tiff: compression": _tiff_compression,
    "tiff: form of the numbers": _tiff_form,
    "tiff: a tag": _tiff_tag,
    "tiff: directories": _tiff_directory,
    "tiff: header": _tiff_header,
    "tiff: byte order": _tiff_byte_order,
    "tiff: bits in directory": _tiff_head,
    "tiff: place on the map": _tiff_place,
}


def _records(data: bytes) -> list[bytes]:
    """Returns the records of an undamaged TFRecord file with their framing."""
    found, place = [], 0
    while place < len(data):
        end = place + tfrecord.FRAMING_BYTES + struct.unpack_from("<Q", data, place)[0]
        found.append(data[place:end])
        place = end
    return found


def _record_changed(rng, data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    whole = _records(data)
    place = int(rng.integers(len(whole)))
    whole[place] = change(whole[place])
    return b"".join(whole)


def _framed(length: int, content: bytes) -> bytes:
    head = struct.pack("<Q", length)
    checks = [struct.pack("<I", tfrecord.masked_crc(part)) for part in (head, content)]
    return head + checks[0] + content + checks[1]


def _record_length(rng, data):
    return _record_changed(rng, data, lambda record: flipped(rng, record, 1, 0, 8))


def _record_false_length(rng, data):
    def change(record):
        length = _pick(rng, (0, len(record) - 17, len(record) - 15, 1 << 20, 1 << 33, (1 << 63) - 1, (1 << 64) - 1))
        return _framed(length, record[12:-4])

    return _record_changed(rng, data, change)


def _record_checksum(rng, data):
    places = _pick(rng, ((8, 12), (-4, None)))

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
    whole = _records(data)
    del whole[int(rng.integers(len(whole)))]
    return b"".join(whole)


def _records_doubled(rng, data):
    whole = _records(data)
    return b"".join([*whole, _pick(rng, whole)])


def _records_replaced(rng, data):
    whole = _records(data)
    one, two = rng.permutation(len(whole))[:2] if len(whole) > 1 else (0, 0)
    whole[one] = whole[two]
    return b"".join(whole)


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
"""Damage under valid checksums: only a shard's SHA-256 in the card can tell, which a training run does not compute."""


def _card_digit(rng, data):
    digits = [place for place, byte in enumerate(data) if 48 <= byte <= 57]
    place = _pick(rng, digits)
    return put(data, place, "B", 48 + (data[place] - 48 + int(rng.integers(1, 10))) % 10)


def _card_value(rng, data):
    """Puts something else in place of any value, at any depth."""
    card = json.loads(data)
    node = card
    while True:
        key = _pick(rng, list(node) if isinstance(node, dict) else range(len(node)))
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
    depth = _pick(rng, (200, 100_000))
    return b"[" * depth + b"]" * depth


def _card_letter(rng, data):
    letters = [place for place, byte in enumerate(data) if chr(byte).isalpha()]
    return put(data, _pick(rng, letters), "B", int(rng.integers(97, 123)))


CARD: dict[str, Mutator] = ANY | {
    "card: a digit": _card_digit,
    "card: a letter": _card_letter,
    "card: a value": _card_value,
    "card: nesting": _card_nested,
}
