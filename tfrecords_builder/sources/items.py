"""Items of an archive, and the content of one item."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from eo_keras.core.system_files import is_litter
from eo_keras.errors import SourceError
from eo_keras.records.example import PixelLabels
from tfrecords_builder.sources.archive import Archive, Member

_COPY = re.compile(r"^copy[ _]of[ _]|([ _-]+copy)?[ _]*(\(\d+\))?$|[ _-]+copy[ _]*\d*$")
"""Pattern of the texts that file managers add to the name of a copy."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One example of a source.

    Attributes:
        key: its name, such as `AnnualCrop_1`.
        class_name: its class; empty where every pixel has one.
        member: its image's file inside the archive.
        bytes: the files' size.
        stamp: a value that changes with the files, see `archive.Member`.
        mask: the file of its pixels' classes, or empty.
        others: the files of its further modalities, as pairs of a modality's name and its file.
        split: the split that the archive assigns it to (`train`, `val`, `test`), or empty.
        site: the place that it belongs to, such as a city, where whole places can be split; or empty.
    """

    key: str
    class_name: str
    member: str
    bytes: int
    stamp: str
    mask: str = ""
    split: str = ""
    others: tuple[tuple[str, str], ...] = ()
    site: str = ""


@dataclasses.dataclass(frozen=True)
class Content:
    """Content of an example's record.

    Attributes:
        image: the first modality: the untouched JPEG, or raw little-endian numbers; empty where it is missing.
        tile: its mask, where every pixel has a class.
        others: raw little-endian numbers of the further modalities by name, those that are missing left out.
    """

    image: bytes
    tile: PixelLabels | None = None
    others: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    def hashed(self) -> bytes:
        """Returns the bytes that are hashed to detect a changed source: the content of all files."""
        others = b"".join(name.encode() + self.others[name] for name in sorted(self.others))
        return self.image + others + (b"" if self.tile is None else self.tile.mask.tobytes())


@dataclasses.dataclass(frozen=True)
class Patch:
    """One example as read.

    Attributes:
        content: the content of its record.
        pixels: the numbers of the first modality, (height, width, bands).
        crs: `EPSG:n` or WKT, None where the file has none.
        transform: affine transform (a, b, c, d, e, f), None where the file has none.
    """

    content: Content
    pixels: np.ndarray
    crs: str | None = None
    transform: tuple[float, ...] | None = None


def sorted_by_key(where: str, items: Iterable[Item]) -> list[Item]:
    """Returns items in the order of their keys.

    Raises:
        SourceError: if two have one key, but for its case and the marks of a copy.
    """
    ordered = sorted(items, key=lambda item: item.key)
    known: dict[str, Item] = {}
    for item in ordered:
        if (other := known.setdefault(_folded(item.key), item)) is not item:
            same = f"have one key, {item.key}" if item.key == other.key else "differ in upper and lower case alone"
            raise _copies(where, other, item, same)
    for key, item in known.items():
        if (other := known.get(_COPY.sub("", key), item)) is not item:
            raise _copies(where, other, item, "are called as an image and its copy are")
    return ordered


def _folded(key: str) -> str:
    return unicodedata.normalize("NFC", key).casefold()


def _copies(where: str, first: Item, second: Item, found: str) -> SourceError:
    return SourceError(
        where,
        f"{first.member} and {second.member} {found}",
        "one file a key",
        "rename one of them, or move it out of the source",
    )


def members_of(archive: Archive) -> list[Member]:
    """Lists an archive's files without litter."""
    return [member for member in archive.members() if not is_litter(member.path)]


def nothing_found(where: str, paths: Sequence[str], found: str, expected: str, remedy: str) -> SourceError:
    """Returns the error of an archive without any item; other zips in it are named."""
    if inner := [path for path in paths if path.lower().endswith(".zip")]:
        return SourceError(where, f"{found}, but other zips ({inner[0]})", expected, "unpack it, and give one of those")
    return SourceError(where, found, expected, remedy)
