"""SHA-256 of files, with verification of the checksums in containers in the same pass.

A zip lists the CRC-32 of each member, which GDAL does not look at, and a Sentinel-2 product the MD5 or SHA3-256 of each
file, in `manifest.safe`. JPEG 2000 has no checksum of its own: damage shows as wrong numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any
from xml.etree import ElementTree

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from eo_keras.core import containers
from eo_keras.errors import SourceError

MANIFEST = "manifest.safe"

_BLOCK = 1 << 20
_MOST_BYTES = 2**25  # Real manifests have 100 kB.
_DEEPEST = 6
_LOCAL_HEADER = struct.Struct("<26xHH")
_IMAGES = (".jp2", ".tif", ".tiff")
_ALGORITHMS = {"MD5": "md5", "SHA3-256": "sha3_256", "SHA-256": "sha256", "SHA256": "sha256"}
_REMEDY = "it is damaged: download or copy it again"


@dataclasses.dataclass(frozen=True)
class Listed:
    """Entry of a file in a manifest.

    Attributes:
        bytes: its size, or None.
        algorithm: name of the hash, as `hashlib` calls it.
        digest: the hash, hexadecimal.
    """

    bytes: int | None
    algorithm: str
    digest: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Manifest of a product.

    Attributes:
        path: the manifest.
        files: by their paths in the folder or zip that holds the product.
        is_of_these: whether it lists the images that are there: of a product whose images have been rewritten since,
            no size is right.
    """

    path: str
    files: Mapping[str, Listed]
    is_of_these: bool


def manifest_of(path: str | os.PathLike[str]) -> Manifest | None:
    """Returns the manifest of the product in a folder or zip, or None where there is none.

    Raises:
        SourceError: if the zip or the manifest is damaged.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        manifests = [MANIFEST] if os.path.isfile(os.path.join(path, MANIFEST)) else []
        sizes = _SizesOfFolder(path)
    else:
        with containers.open_zip(path) as archive:
            sizes = {name: info.file_size for name, info in containers.zip_members(archive, path).items()}
        manifests = [name for name in sizes if posixpath.basename(name) == MANIFEST]
    if len(manifests) != 1:
        return None
    where = os.path.join(path, manifests[0]) if os.path.isdir(path) else f"{path}: {manifests[0]}"
    try:
        root = defusedxml.ElementTree.fromstring(
            containers.read_member(path, manifests[0], _MOST_BYTES), forbid_dtd=True
        )
    except (DefusedXmlException, ElementTree.ParseError, ValueError) as error:
        raise SourceError(where, f"no whole XML file ({error})", "the product's manifest", _REMEDY) from None
    files = dict(_listed(root, posixpath.dirname(manifests[0])))
    images = [(sizes.get(name), listed.bytes) for name, listed in files.items() if name.lower().endswith(_IMAGES)]
    there = [pair for pair in images if pair[0] is not None]
    return Manifest(where, files, not there or any(listed in (size, None) for size, listed in there))


class _SizesOfFolder:
    """The sizes of a folder's files, by their paths in it."""

    def __init__(self, folder: str):
        self._folder = folder

    def get(self, name: str) -> int | None:
        try:
            return os.path.getsize(os.path.join(self._folder, name))
        except OSError:
            return None


def _listed(root: ElementTree.Element, folder: str) -> Iterator[tuple[str, Listed]]:
    for stream in root.iter():
        if _tag(stream) != "byteStream":
            continue
        href = next((item.get("href") for item in stream.iter() if _tag(item) == "fileLocation"), None)
        checksum = next((item for item in stream.iter() if _tag(item) == "checksum"), None)
        if not href or checksum is None or not checksum.text:
            continue
        algorithm = _ALGORITHMS.get((checksum.get("checksumName") or "").upper().replace("_", "-"))
        name = posixpath.normpath(posixpath.join(folder, href))
        if algorithm and not name.startswith(("../", "/")):
            size = stream.get("size") or ""
            yield name, Listed(int(size) if size.isdigit() else None, algorithm, checksum.text.strip().lower())


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def manifest_above(path: str | os.PathLike[str]) -> tuple[Manifest, str] | None:
    """Returns the manifest of the product that a file lies in, and the file's path in it; None where there is none."""
    here = pathlib.Path(os.path.abspath(path))
    for folder in list(here.parents)[:_DEEPEST]:
        manifest = manifest_of(folder) if (folder / MANIFEST).is_file() else None
        if manifest is not None:
            return manifest, here.relative_to(folder).as_posix()
    return None


def sha256_of_file(path: str | os.PathLike[str], listed: Listed | None = None) -> str:
    """Returns a file's hexadecimal SHA-256.

    Args:
        path: the file.
        listed: its entry in a manifest, or None.

    Raises:
        SourceError: if it is another file than the listed one.
    """
    whole, check = hashlib.sha256(), _Check(os.fspath(path), listed)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            whole.update(block)
            check.update(block)
    check.end()
    return whole.hexdigest()


def sha256_of_zip(
    path: str | os.PathLike[str], members: Iterable[str] | None = None, listed: Mapping[str, Listed] | None = None
) -> str:
    """Returns a zip's hexadecimal SHA-256.

    Args:
        path: the zip.
        members: those whose own checksums are verified; None for all, and all members of zips in it.
        listed: the manifest of its members, or None.

    Raises:
        SourceError: if a member is damaged, or another file than the listed one.
    """
    with containers.open_zip(path) as archive, open(path, "rb") as file:
        infos = containers.zip_members(archive, path)
        chosen = [(name, infos[name]) for name in (infos if members is None else members)]
        for _, info in chosen:
            containers.check_readable(info, path, by_gdal=True)
        whole = _sha256_checking(file, os.fspath(path), chosen, listed or {})
        if members is None:
            _check_inner_zips(archive, os.fspath(path), infos)
    return whole


def _sha256_checking(
    file: IO[bytes], path: str, chosen: list[tuple[str, zipfile.ZipInfo]], listed: Mapping[str, Listed]
) -> str:
    """Hashes a zip from its first byte to its last, and checks members in the same pass."""
    whole = hashlib.sha256()

    def blocks(length: int | None) -> Iterator[bytes]:
        while length is None or length > 0:
            block = file.read(_BLOCK if length is None else min(_BLOCK, length))
            if not block:
                return
            whole.update(block)
            length = None if length is None else length - len(block)
            yield block

    places = sorted((_data_start(file, info), name, info) for name, info in chosen)
    file.seek(0)
    for start, name, info in places:
        where = f"{path}: {name}"
        if start < file.tell():
            raise SourceError(where, "it lies within another member", "a whole zip", _REMEDY)
        for _ in blocks(start - file.tell()):
            pass
        check = _Check(where, listed.get(name), info)
        for block in blocks(info.compress_size):
            check.update_packed(block)
        check.end()
    for _ in blocks(None):
        pass
    return whole.hexdigest()


def _data_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    name, extra = _LOCAL_HEADER.unpack(header) if len(header) == _LOCAL_HEADER.size else (0, 0)
    return info.header_offset + _LOCAL_HEADER.size + name + extra


class _Check:
    """Running checksums of one file, compared with the expected ones at its end."""

    def __init__(self, where: str, listed: Listed | None, info: zipfile.ZipInfo | None = None):
        self._where, self._listed, self._info = where, listed, info
        self._hash: Any = hashlib.new(listed.algorithm, usedforsecurity=False) if listed else None
        self._unpacker = _unpacker(info.compress_type) if info else None
        self._crc, self._bytes = 0, 0

    def update(self, block: bytes) -> None:
        self._bytes += len(block)
        if self._info is not None:
            self._crc = zlib.crc32(block, self._crc)
        if self._hash is not None:
            self._hash.update(block)

    def update_packed(self, block: bytes) -> None:
        if self._unpacker is None:
            self.update(block)
            return
        try:
            # More bytes than declared are damage, and may never end.
            while block and self._bytes <= self._info.file_size:
                self.update(self._unpacker.decompress(block, _BLOCK))
                block = self._unpacker.unconsumed_tail
        except zlib.error as error:
            raise SourceError(self._where, f"it cannot be unpacked ({error})", "a whole file", _REMEDY) from None

    def end(self) -> None:
        if self._unpacker is not None:
            self.update(self._unpacker.flush())
        if self._info is not None:
            self._compare("size", f"{self._bytes:,}", f"{self._info.file_size:,}", "the zip's directory")
            self._compare("CRC-32", f"{self._crc:08x}", f"{self._info.CRC:08x}", "the zip's directory")
        if self._listed is not None:
            said = self._bytes if self._listed.bytes is None else self._listed.bytes
            self._compare("size", f"{self._bytes:,}", f"{said:,}", MANIFEST)
            name = self._listed.algorithm.upper().replace("_", "-")
            self._compare(name, self._hash.hexdigest(), self._listed.digest, MANIFEST)

    def _compare(self, name: str, actual: str, expected: str, by: str) -> None:
        if actual != expected:
            raise SourceError(self._where, f"its {name} is {actual}", f"{expected}, which {by} says", _REMEDY)


def _unpacker(method: int) -> Any:
    return None if method == zipfile.ZIP_STORED else zlib.decompressobj(-zlib.MAX_WBITS)


def _check_inner_zips(archive: zipfile.ZipFile, path: str, infos: Mapping[str, zipfile.ZipInfo]) -> None:
    for name, info in infos.items():
        if not name.lower().endswith(".zip"):
            continue
        where = f"{path}: {name}"
        with archive.open(info) as file, containers.open_zip(where, file) as inner:
            members = containers.zip_members(inner, where)
            for member, packed in members.items():
                containers.check_readable(packed, where)
                try:
                    with inner.open(packed) as opened:
                        while opened.read(_BLOCK):
                            pass
                # Damage makes zipfile and its decompressors raise any error.
                except Exception as error:
                    problem = f"it cannot be read ({error})"
                    raise SourceError(f"{where}: {member}", problem, "a whole file", _REMEDY) from None
            _check_inner_zips(inner, where, members)
