"""Archives of source files: a zip, read without unpacking, or a folder; on a local disk or a file system of fsspec."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import os
import zipfile
from typing import BinaryIO

from eo_keras.core import containers, files, stores
from eo_keras.errors import SourceError, StorageError

MAX_MEMBER_BYTES = 16 << 20
"""Largest declared size of a member in bytes; larger ones are refused before they are inflated."""

_REMEDY = "download it again: python -m launch.download continues or repeats it and verifies the checksum"

_VERSIONS = ("ETag", "etag", "version_id", "md5Hash", "md5", "checksum", "mtime", "LastModified", "last_modified")
"""Names of the entries of fsspec's file information that change with a file."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A file inside an archive.

    Attributes:
        path: its path with forward slashes, relative to the archive.
        bytes: its size.
        stamp: a value that changes with the file: a zip's CRC-32, or a file's time of change.
    """

    path: str
    bytes: int
    stamp: str


class Archive:
    """A zip file or a folder of files. Opened in each process, since open files cannot be pickled.

    Args:
        path: the zip file or the folder: a local path or a URL.

    Raises:
        SourceError: if there is no such file or folder, or the file is not a whole zip with paths inside it alone.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        self._local = files.local(path)
        self._zip: zipfile.ZipFile | None = None
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self._directory = b""
        self._ends: list[int] = []
        try:
            if files.is_folder(path):
                return
            there = files.exists(path)
        except StorageError as error:
            raise SourceError(*error.args) from None
        if not there:
            raise SourceError(
                path,
                "there is no such file or folder",
                "the published archive (.zip), or a folder with its content",
                "see python -m launch.download --help",
            )
        file = None if self._local is not None else files.open_for_reading(path)
        self._zip = containers.open_zip(self._local or self.path, file, _REMEDY)
        self._infos = containers.zip_members(self._zip, path)
        self._directory = _directory_digest(self._zip.fp, self._zip.start_dir)
        if file is not None:
            # Where one member ends, the next one begins, or the directory.
            self._ends = sorted({self._zip.start_dir, *(info.header_offset for info in self._zip.infolist())})

    @property
    def is_zip(self) -> bool:
        """Whether the archive is a zip file."""
        return self._zip is not None

    def local_path(self, member: str) -> str | None:
        """Returns the path of a member's file on a local disk; None of what lies in a zip or in a store."""
        return None if self.is_zip or self._local is None else os.path.join(self._local, member)

    def check_unchanged(self) -> None:
        """Checks that the zip has not been replaced.

        A directory holds names, lengths and checksums of all members, so that one of the same bytes is of the same
        content; times of change are less sure, for copies can keep them.

        Raises:
            SourceError: if the zip's directory is not the one that was read when it was opened.
        """
        if self._zip is None:
            return
        try:
            with files.open_for_reading(self.path) as file:
                now = _directory_digest(file, self._zip.start_dir)
        except (OSError, StorageError):
            now = b""
        if now != self._directory:
            raise SourceError(
                self.path,
                "it has changed while records were built from it",
                remedy="build again from a source at rest, with `overwrite`",
            )

    def members(self) -> list[Member]:
        """Lists all files, sorted by path; of a zip, without litter.

        Raises:
            SourceError: if a member of a zip is encrypted or packed by an unknown method.
        """
        if self._zip is not None:
            members = self._zip_members()
        elif self._local is not None:
            members = self._folder_members()
        else:
            members = self._remote_members()
        return sorted(members, key=lambda member: member.path)

    def _zip_members(self):
        for name, info in self._infos.items():
            containers.check_readable(info, self.path)
            yield Member(name, info.file_size, f"{info.CRC:08x}")

    def _folder_members(self):
        pending = [(os.fspath(self._local), "")]
        while pending:
            folder, prefix = pending.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir():
                            pending.append((entry.path, f"{prefix}{entry.name}/"))
                        else:
                            status = entry.stat()
                            yield Member(prefix + entry.name, status.st_size, str(status.st_mtime_ns))
            except OSError as error:
                raise SourceError(
                    error.filename or folder, f"it cannot be read ({error.strerror})", "a source at rest"
                ) from None

    def _remote_members(self):
        with stores.opened(self.path) as (system, inner):
            listed = system.find(inner, detail=True)
        root = inner.rstrip("/") + "/"
        for path, info in listed.items():
            stamp = next((str(info[name]) for name in _VERSIONS if info.get(name)), str(info.get("created", "")))
            yield Member(path.removeprefix(root), int(info["size"]), stamp)

    def read(self, member: str) -> bytes:
        """Returns a member's bytes; a zip's own checksum is verified.

        Raises:
            SourceError: if the member is gone, damaged, encrypted or far larger than any patch.
            StorageError: if it lies in a store that cannot be reached.
        """
        try:
            if self._zip is not None:
                info = self._infos[member]
                self._check_size(member, info.file_size)
                if self._ends:
                    self._zip.fp.expect(self._ends[bisect.bisect_right(self._ends, info.header_offset)])
                return self._zip.read(info)
            if self._local is not None:
                with open(os.path.join(self._local, member), "rb", buffering=0) as file:
                    self._check_size(member, os.fstat(file.fileno()).st_size)
                    data = file.read()
            else:
                data = files.read_bytes(files.join(self.path, member))
            self._check_size(member, len(data))
            return data
        except (KeyError, FileNotFoundError):
            raise SourceError(
                f"{self.path}: {member}",
                "the file is gone since the source was listed",
                remedy="build again from a source at rest",
            ) from None
        except (SourceError, StorageError):
            raise
        # Damage makes zipfile and its decompressors raise exceptions of any kind.
        except Exception as error:
            raise SourceError(
                f"{self.path}: {member}",
                f"it cannot be read ({error})",
                "a whole archive",
                "download or copy the source again",
            ) from None

    def _check_size(self, member: str, size: int) -> None:
        if size > MAX_MEMBER_BYTES:
            raise SourceError(
                f"{self.path}: {member}",
                f"it has {size:,} bytes",
                f"a patch of at most {MAX_MEMBER_BYTES:,} bytes",
                "images that are cut into tiles may be larger in a folder on a local disk: unpack the archive there",
            )


def _directory_digest(file: BinaryIO, start: int) -> bytes:
    file.seek(start)
    return hashlib.sha256(file.read()).digest()
