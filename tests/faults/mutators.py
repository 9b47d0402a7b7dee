"""Deterministic damage to any file, to JPEGs and to TIFFs: functions of a random generator and a file's bytes.

A mutator that finds nothing to damage returns the bytes unchanged.
"""

import struct
from collections.abc import Callable

import numpy as np

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
"""First bytes of files of other formats."""


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


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def number(rng, bits: int, near: int = 0) -> int:
    """Returns a number of so many bits: an extreme one, one next to `near`, or any."""
    top = (1 << bits) - 1
    return pick(rng, (0, 1, top, top >> 1, (near + 1) & top, max(near - 1, 0), int(rng.integers(top))))


def one_bit(rng, data):
    """Inverts one bit."""
    return flipped(rng, data, 1)


def many_bits(rng, data):
    """Inverts two to 64 bits."""
    return flipped(rng, data, int(rng.integers(2, 65)))


def cut(rng, data):
    """Cuts the end off, perhaps everything."""
    return data[: int(rng.integers(len(data)))] if data else data


def zeroed(rng, data):
    """Writes a block of zeros, as a disk does that lost a sector."""
    start, length = int(rng.integers(len(data))), pick(rng, (8, 64, 512, 4096))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def foreign_header(rng, data):
    """Puts the first bytes of another format at the beginning."""
    header = pick(rng, [header for header in HEADERS if not data.startswith(header[:4])])
    return header + data[len(header) :]


def missing_piece(rng, data):
    """Removes some bytes in the middle."""
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 65))
    return data[:start] + data[start + length :]


def added_bytes(rng, data):
    """Inserts random bytes in the middle or after the end."""
    place = pick(rng, (len(data), int(rng.integers(len(data)))))
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
    place, _, _ = pick(rng, _jpeg_segments(data)[0])
    return put(data, place + 1, "B", int(rng.integers(0xC0, 0xFF)))


def _jpeg_length(rng, data):
    place, _, length = pick(rng, _jpeg_segments(data)[0])
    return put(data, place + 2, ">H", number(rng, 16, length))


def _jpeg_frame(rng, data):
    frames = [place for place, marker, _ in _jpeg_segments(data)[0] if marker in (0xC0, 0xC1, 0xC2)]
    if rng.integers(2):
        return put(data, frames[0] + pick(rng, (5, 7)), ">H", pick(rng, (0, 1, 8, 32, 56, 63, 65, 72, 128, 65535)))
    return put(data, frames[0] + int(rng.integers(4, 19)), "B", number(rng, 8))


def _jpeg_tables(rng, data):
    place, _, length = pick(rng, [part for part in _jpeg_segments(data)[0] if part[1] in (0xC4, 0xDB)])
    return flipped(rng, data, int(rng.integers(1, 4)), place + 4, place + 2 + length)


def _jpeg_scan_bits(rng, data):
    return flipped(rng, data, int(rng.integers(1, 9)), _jpeg_segments(data)[1], len(data) - 2)


def _jpeg_stray_marker(rng, data):
    place = int(rng.integers(_jpeg_segments(data)[1], len(data) - 4))
    return put(data, place, "BB", 0xFF, pick(rng, (0xD0, 0xD3, 0xD7, 0xD8, 0xD9, 0xDA, 0xC4, 0xFE, 0x01)))


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
    """Returns the positions of the first directory and of every tag's entry in it."""
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    places = [start + 2 + 12 * number for number in range(count)]
    return start, {struct.unpack_from("<H", data, place)[0]: place for place in places}


def _tiff_value(data: bytes, entry: int, index: int = 0) -> tuple[int, str]:
    """Returns the position of one of a tag's values, and its format."""
    kind, count = struct.unpack_from("<HI", data, entry + 2)
    form = _TIFF_TYPES[kind]
    size = struct.calcsize(form)
    inline = count * size <= 4
    return (entry + 8 if inline else struct.unpack_from("<I", data, entry + 8)[0]) + index % count * size, form


def _tiff_set(rng, data: bytes, tags: tuple[int, ...], values) -> bytes:
    places = _tiff_tags(data)[1]
    place, form = _tiff_value(data, places[pick(rng, [tag for tag in tags if tag in places])], int(rng.integers(13)))
    top = (1 << 8 * struct.calcsize(form)) - 1
    return put(data, place, form, min(values(struct.unpack_from(form, data, place)[0]), top))


def _tiff_size(rng, data):
    return _tiff_set(rng, data, (256, 257), lambda old: pick(rng, (0, 1, 32, 63, 65, 128, 65535, 2**31, 2**32 - 1)))


def _tiff_offsets(rng, data):
    return _tiff_set(
        rng, data, (273, 279, 324, 325), lambda old: pick(rng, (0, 8, old + 2, len(data) - 8, len(data), 2**32 - 1))
    )


def _tiff_compression(rng, data):
    codes = (0, 2, 4, 5, 6, 7, 8, 32773, 32946, 34712, 34887, 34925, 50000, 50001, 65535)
    return _tiff_set(rng, data, (259,), lambda old: pick(rng, codes))


def _tiff_form(rng, data):
    return _tiff_set(rng, data, (258, 262, 277, 278, 284, 339), lambda old: number(rng, 4, old))


def _tiff_tag(rng, data):
    entry = pick(rng, list(_tiff_tags(data)[1].values()))
    place, form, bits = pick(rng, ((0, "<H", 16), (2, "<H", 4), (4, "<I", 32), (8, "<I", 32)))
    return put(data, entry + place, form, number(rng, bits, struct.unpack_from(form, data, entry + place)[0]))


def _tiff_directory(rng, data):
    start, tags = _tiff_tags(data)
    following = start + 2 + 12 * len(tags)
    if rng.integers(2):
        return put(data, following, "<I", pick(rng, (start, 8, 1, len(data) - 2, 2**32 - 1)))
    return put(data, pick(rng, (start, 4)), "<H", number(rng, 16))


def _tiff_header(rng, data):
    return flipped(rng, data, int(rng.integers(1, 4)), 0, 8)


def _tiff_byte_order(rng, data):
    return pick(rng, (b"MM\0*", b"MM*\0", b"II+\0")) + data[4:]


def _tiff_head(rng, data):
    start, tags = _tiff_tags(data)
    return flipped(rng, data, int(rng.integers(1, 4)), start, start + 6 + 12 * len(tags))


def _tiff_place(rng, data):
    places = _tiff_tags(data)[1]
    entry = pick(rng, [places[tag] for tag in (33550, 33922, 34735, 34736, 34737) if tag in places])
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
