"""What every source lists and reads: the items of an archive, and one item as an example needs it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np

from eo_keras.errors import SourceError
from eo_keras.litter import is_litter
from eo_keras.records import Tile
from tfrecords_builder.archives import Archive, Member


@dataclasses.dataclass(frozen=True)
class Item:
    """One example of a source.

    Attributes:
        key: its name, such as `AnnualCrop_1`.
        class_name: its class; empty where every pixel has one.
        member: its image's file inside the archive.
        bytes: the files' size.
        stamp: what changes when a file does, see `archives.Member`.
        mask: the file of its pixels' classes, or empty.
        part: the part that the archive gives it to (`train`, `val`, `test`), or empty.
    """

    key: str
    class_name: str
    member: str
    bytes: int
    stamp: str
    mask: str = ""
    part: str = ""


@dataclasses.dataclass(frozen=True)
class Patch:
    """One example as read.

    Attributes:
        stored: the bytes that a record holds: the untouched JPEG, or raw little-endian numbers.
        pixels: the numbers, (height, width, bands).
        crs: `EPSG:n` or WKT, None where the file has none.
        transform: affine transform (a, b, c, d, e, f), None where the file has none.
        tile: what it has besides where every pixel has a class.
    """

    stored: bytes
    pixels: np.ndarray
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    tile: Tile | None = None


def hashed(stored: bytes, tile: Tile | None) -> bytes:
    """Returns what is hashed of an example, by which a changed source is noticed: all that its files say."""
    return stored if tile is None else stored + tile.mask.tobytes()


def sorted_by_key(where: str, items: Iterable[Item]) -> list[Item]:
    """Returns items in the order of their keys.

    Raises:
        SourceError: if two have one key.
    """
    ordered = sorted(items, key=lambda item: item.key)
    for first, second in itertools.pairwise(ordered):
        if first.key == second.key:
            raise SourceError(
                where,
                f"{first.member} and {second.member} have one key, {first.key}",
                "one file a key",
                "remove or rename one of them",
            )
    return ordered


def members_of(archive: Archive) -> list[Member]:
    """Lists an archive's files without litter."""
    return [member for member in archive.members() if not is_litter(member.path)]
