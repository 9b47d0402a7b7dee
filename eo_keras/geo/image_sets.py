"""Image files of places: of several modalities, those that belong together by their names."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence

from eo_keras.core import files
from eo_keras.core.system_files import is_litter
from eo_keras.errors import OptionError, SourceError
from eo_keras.geo.images import SUFFIXES, find_images, images_below

Patterns = Mapping[str, Sequence[str | os.PathLike[str]]]
"""Files, patterns or folders by the modality that they show."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Images of one place.

    Attributes:
        name: the part of their names that is equal, with folders, without ending.
        files: the image of each modality; one that is missing is left out.
    """

    name: str
    files: Mapping[str, pathlib.Path]


def by_modality(texts: Sequence[str | os.PathLike[str]], modalities: Sequence[str]) -> Patterns:
    """Returns patterns by their modality, which `NAME:` before them says; that of an only one need not be said.

    Args:
        texts: such as `s2:floods/S2_*.png`.
        modalities: the modalities of a model; those without patterns get none.

    Raises:
        OptionError: if one has no modality of these.
    """
    found: dict[str, list[str]] = {name: [] for name in modalities}
    for text in map(os.fspath, texts):
        name, _, pattern = text.partition(":")
        if name in found and pattern:
            found[name].append(files.expand_home(pattern))
        elif len(found) == 1:
            found[modalities[0]].append(text)
        else:
            raise OptionError(
                "images",
                f"'{text}' does not say which of the model's images it shows",
                f"{', '.join(modalities)} and a colon before the files",
                f"say, for instance, `images={modalities[0]}:{text}`",
            )
    return found


def find_places(patterns: Patterns, optional: Collection[str] = ()) -> list[Place]:
    """Lists places by their image files, sorted by name.

    Args:
        patterns: by modality, files, folders (all images below) or patterns. Of several modalities, a pattern has one
            `*`, in the name of the file, for the part by which images belong together; in folders, that is the path
            from the folder on without the ending; single files are of one place.
        optional: modalities that a place may lack.

    Raises:
        OptionError: if a modality that is not optional has no patterns, or a pattern no or several `*`, where there are
            several modalities.
        SourceError: if there are no images, two of a modality have one name, or some places lack an image that is not
            optional: all that do are counted, and the first is named.
    """
    if len(patterns) == 1:
        ((name, texts),) = patterns.items()
        found = {name: _below_one_folder(find_images(texts))}
    else:
        found = {name: _named(name, texts) for name, texts in patterns.items()}
    if missing := [name for name, texts in patterns.items() if not texts and name not in optional]:
        raise OptionError(
            "images",
            f"there are none of {', '.join(missing)}",
            f"those of {', '.join(patterns)}: the model was trained without a missing one",
            f"say, for instance, `images={missing[0]}:FOLDER`",
        )
    names = sorted({place for named in found.values() for place in named})
    if not names:
        raise SourceError(
            "images",
            "there is none",
            f"files, or folders with names in {', '.join(SUFFIXES)}",
            "check the folders and patterns",
        )
    for modality, named in found.items():
        lacking = [place for place in names if place not in named]
        if lacking and modality not in optional:
            beside = next(one[lacking[0]] for one in found.values() if lacking[0] in one)
            raise SourceError(
                beside,
                f"there is no image {modality} of its name ('{lacking[0]}'); {len(lacking):,} of {len(names):,} places "
                "lack theirs",
                "all images that the model takes: it was trained without a missing one",
                "add them, predict by a model that was trained with `modality_dropout`, or give a `stand_in`",
            )
    places = []
    for place in names:
        images = {name: named[place] for name, named in found.items() if place in named}
        places.append(Place(place or next(iter(images.values())).stem, images))
    return places


def _below_one_folder(paths: Sequence[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Returns images by their paths without ending, from the innermost folder on that holds all of them."""
    common = pathlib.Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))
    return _unique("images", [(os.path.relpath(path.with_suffix(""), common), path) for path in paths])


def _named(modality: str, texts: Sequence[str | os.PathLike[str]]) -> dict[str, pathlib.Path]:
    """Returns images of a modality by the part of the name by which they belong to others."""
    found = []
    for text in map(os.fspath, texts):
        path = pathlib.Path(text)
        if path.is_dir():
            found += [(file.relative_to(path).with_suffix("").as_posix(), file) for file in images_below(path)]
        elif path.is_file():
            found.append(("", path))
        else:
            found += _matching(modality, path)
    return _unique(modality, found)


def _matching(modality: str, pattern: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
    if "*" not in str(pattern):
        raise SourceError(
            pattern, f"there is no such image or folder of {modality}", "one, or a pattern in quotes", "check its name"
        )
    if pattern.name.count("*") != 1 or "*" in str(pattern.parent):
        raise OptionError(
            "images",
            f"'{pattern}' of {modality}",
            "a file, a folder, or a pattern with one *, in the name of the file, by which images belong together",
            f"say, for instance, `images={modality}:{pattern.parent / '*.tif'}`",
        )
    if not pattern.parent.is_dir():
        raise SourceError(pattern.parent, "there is no such folder", "the folder of the images", "check its name")
    before, after = map(re.escape, pattern.name.split("*"))
    ending = "" if pattern.suffix else rf"(?:{'|'.join(map(re.escape, SUFFIXES))})"
    expression = re.compile(rf"{before}(.+?){after}(?i:{ending})")
    matches = [(expression.fullmatch(path.name), path) for path in sorted(pattern.parent.iterdir())]
    return [(match[1], path) for match, path in matches if match and path.is_file() and not is_litter(path.name)]


def _unique(modality: str, found: Sequence[tuple[str, pathlib.Path]]) -> dict[str, pathlib.Path]:
    named: dict[str, pathlib.Path] = {}
    for name, path in found:
        if (other := named.setdefault(name, path)) is not path:
            raise SourceError(
                path,
                f"{other} is an image of {modality} too" + (f" of the same name ('{name}')" if name else ""),
                "one image of a modality for each place",
                "move one of them away, or give a pattern with one * in place of single files",
            )
    return named
