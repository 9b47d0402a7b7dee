"""Source files of a city: hashed for the card, and verified by the checksums of their containers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable

from eo_keras.core import containers
from eo_keras.core.system_files import is_litter
from eo_keras.errors import SourceError
from eo_keras.geo import checksums, vrt_files
from eo_keras.geo.scenes import Scene
from eo_keras.records import data_card as cards

_METADATA = re.compile(r"(.*/)?MTD_MSI\w+\.xml")


def of_scenes(scenes: Iterable[Scene]) -> tuple[list[cards.SourceFile], list[str]]:
    """Hashes and checks the files of scenes.

    Returns:
        The files, each zip and each plain file once, sorted by path; and warnings.

    Raises:
        SourceError: if one is damaged.
    """
    used: dict[str, set[str]] = {}
    for scene in scenes:
        for layer in (*scene.layers, *filter(None, [scene.scl])):
            for inner in (layer.path, *_sources_of_vrt(layer.path)):
                path, member = containers.place_of(inner)
                used.setdefault(path, set()).update({member} - {""})
    found, unchecked = [], []
    for path, members in sorted(used.items()):
        if members:
            sha256, manifest = _of_zip(path, members)
        else:
            sha256, manifest = _of_file(path)
        found.append(cards.SourceFile(os.path.basename(path), os.path.getsize(path), sha256))
        if manifest is not None and not manifest.is_of_these:
            unchecked.append(manifest.path)
    return found, [
        f"{path}: it lists other sizes of all images, so that they were rewritten since and could not be checked"
        for path in dict.fromkeys(unchecked)
    ]


def sources_of_vrt(path: str) -> list[str]:
    """Lists the source files of a VRT, sorted; none of another file, or of an unusable VRT."""
    return sorted({containers.place_of(source)[0] for source in _sources_of_vrt(path)})


def _sources_of_vrt(path: str) -> list[str]:
    if not path.lower().endswith(".vrt"):
        return []
    with contextlib.suppress(SourceError):  # Opening it raises the same error.
        return vrt_files.sources_of(path)
    return []


def _of_zip(path: str, members: set[str]) -> tuple[str, checksums.Manifest | None]:
    manifest = checksums.manifest_of(path)
    listed = dict(manifest.files) if manifest is not None and manifest.is_of_these else {}
    return checksums.sha256_of_zip(path, members | set(filter(_METADATA.fullmatch, listed)), listed), manifest


def _of_file(path: str) -> tuple[str, checksums.Manifest | None]:
    above = checksums.manifest_above(path)
    if above is None or not above[0].is_of_these:
        return checksums.sha256_of_file(path), above[0] if above else None
    manifest, name = above
    folder = os.path.dirname(manifest.path)
    for other in filter(_METADATA.fullmatch, manifest.files):
        if os.path.isfile(os.path.join(folder, other)):
            checksums.sha256_of_file(os.path.join(folder, other), manifest.files[other])
    return checksums.sha256_of_file(path, manifest.files.get(name)), manifest


def of_vectors(path: str) -> cards.SourceFile:
    """Hashes a file, zip or folder of land use; the checksums in a zip are verified.

    Raises:
        SourceError: if a zip is damaged.
    """
    if os.path.isdir(path):
        return _of_folder(path)
    sha256 = checksums.sha256_of_zip(path) if containers.is_zip(path) else checksums.sha256_of_file(path)
    return cards.SourceFile(os.path.basename(path), os.path.getsize(path), sha256)


def _of_folder(path: str) -> cards.SourceFile:
    # A FileGDB is a folder.
    whole, size = hashlib.sha256(), 0
    for inner in sorted(file for file in pathlib.Path(path).rglob("*") if file.is_file()):
        name = inner.relative_to(path).as_posix()
        if not is_litter(name):
            data = inner.read_bytes()
            whole.update(f"{name}\0{len(data)}\0".encode() + data)
            size += len(data)
    return cards.SourceFile(os.path.basename(path.rstrip("/")), size, whole.hexdigest())
