"""Files of a source that belong together by name: images, their masks and their heights."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Mapping, Sequence

from eo_keras.errors import OptionError, SourceError
from tfrecords_builder.sources.archive import Archive, Member
from tfrecords_builder.sources.footprints.rasters import SUFFIXES
from tfrecords_builder.sources.items import members_of, nothing_found
from tfrecords_builder.splits.types import TEST, TRAIN, VAL

_SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}


@dataclasses.dataclass(frozen=True)
class Group:
    """Files of one place.

    Attributes:
        key: a name of their own.
        name: the part of their names that is equal.
        split: `train`, `val` or `test` by the name of a folder above them; empty where none says so.
        members: the files by kind.
    """

    key: str
    name: str
    split: str
    members: Mapping[str, Member]


def pattern(option: str, text: str) -> re.Pattern[str]:
    """Returns the regular expression for a pattern such as `images/*` or `lab/lab_*.tif`, at any depth of folders.

    Args:
        option: the option's name, for errors.
        text: the pattern; its one `*` stands for the part of the name by which files belong together. Without an
            ending, those of images are added.

    Raises:
        OptionError: if it has none or several, or one in the name of a folder.
    """
    text = text.strip().removeprefix("./")
    folder, _, file = text.rpartition("/")
    if text.count("*") != 1 or "*" not in file or folder.startswith("/"):
        raise OptionError(
            option, f"'{text}'", "a folder and a name with one *, such as images/* or lab/lab_*.tif, from the source on"
        )
    before, after = (re.escape(part) for part in file.split("*"))
    ending = "" if posixpath.splitext(file)[1] else rf"(?:{'|'.join(map(re.escape, SUFFIXES))})"
    inside = re.escape(f"{folder}/") if folder else ""
    return re.compile(rf"(?P<root>(?:.*/)?){inside}{before}(?P<name>[^/]+?){after}(?i:{ending})")


def find_groups(archive: Archive, kinds: Mapping[str, str]) -> list[Group]:
    """Lists the files of an archive by place.

    Args:
        archive: the archive.
        kinds: for each kind of files its pattern; the first one are the images. The keys are names of options.

    Returns:
        The places, sorted by key, each with a file of every kind.

    Raises:
        OptionError: if a pattern is none.
        SourceError: if there are no images, two files have one name, or some lack their counterparts: all that do are
            counted, and the first is named.
    """
    patterns = {kind: pattern(kind, text) for kind, text in kinds.items()}
    members = members_of(archive)
    found: dict[str, dict[tuple[str, str], Member]] = {kind: {} for kind in kinds}
    for kind, expression in patterns.items():
        for member in members:
            if not (match := expression.fullmatch(member.path)):
                continue
            if (other := found[kind].setdefault((match["root"], match["name"]), member)) is not member:
                raise SourceError(
                    archive.path,
                    f"{other.path} and {member.path} are both the file of {kinds[kind]} called {match['name']}",
                    "one file each",
                    "move one of them out of the source",
                )
    first = next(iter(kinds))
    if not found[first]:
        raise nothing_found(
            archive.path,
            [member.path for member in members],
            f"it holds no file {kinds[first]}",
            "images as GeoTIFF or PNG",
            f"say how their names read, such as `{first}=images/*.tif`",
        )
    _check_pairs(archive, kinds, found)
    roots = sorted({root for root, _ in found[first]})
    return sorted(
        (
            Group(
                f"{_prefix(root, roots)}{name}",
                name,
                _split_of(root),
                {kind: found[kind][root, name] for kind in kinds},
            )
            for root, name in found[first]
        ),
        key=lambda group: group.key,
    )


def _check_pairs(
    archive: Archive, kinds: Mapping[str, str], found: Mapping[str, Mapping[tuple[str, str], Member]]
) -> None:
    first, *others = kinds
    for kind in others:
        lone = {
            one: [member for place, member in sorted(found[one].items()) if place not in found[other]]
            for one, other in ((first, kind), (kind, first))
        }
        if not any(lone.values()):
            continue
        one, other = (first, kind) if lone[first] else (kind, first)
        counted = [f"{len(lone[each]):,} of {len(found[each]):,} {kinds[each]}" for each in (one, other) if lone[each]]
        raise SourceError(
            f"{archive.path}: {lone[one][0].path}",
            f"no file {kinds[other]} has its name; {' and '.join(counted)} lack their counterpart",
            "a file of the same name in each folder",
            "copy what is missing, move what has no counterpart out, give the inner folder that is complete as "
            f"`source`, or say how the names read, such as `{kind}={kinds[kind]}`",
        )


def _words(folder: str) -> set[str]:
    return set(re.split(r"[^a-z]+", folder.lower()))


def _split_of(root: str) -> str:
    """Returns the split that the innermost folder with such a name says."""
    for folder in reversed(root.split("/")):
        splits = {_SPLIT_OF_WORD[word] for word in _words(folder) if word in _SPLIT_OF_WORD}
        if len(splits) == 1:
            return splits.pop()
    return ""


def _prefix(root: str, roots: Sequence[str]) -> str:
    """Returns the names of the folders that tell a root from the others, but for those of splits."""
    common = posixpath.commonpath([f"/{one}" for one in roots])
    folders = f"/{root}".rstrip("/").removeprefix(common).strip("/").split("/")
    return "".join(f"{one}_" for one in folders if one and not _words(one) & _SPLIT_OF_WORD.keys())
