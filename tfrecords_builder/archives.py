"""Source archives read alike: a zip without unpacking it, or a folder."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import zipfile
import zlib

from eo_keras.errors import SourceError

MAX_MEMBER_BYTES = 16 << 20
"""A member said to be larger is refused before it is inflated: no patch comes near it."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A file inside an archive: its path with forward slashes, relative to the archive, and its size in bytes."""

    path: str
    bytes: int


class Archive:
    """A zip file or a folder of files. Opened anew in each process, since open files do not cross to workers.

    Args:
        path: the zip file or the folder.

    Raises:
        SourceError: if there is no such file or folder, or the file is not a whole zip.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """See the class."""
        self.path = pathlib.Path(path)
        self._zip: zipfile.ZipFile | None = None
        if self.path.is_dir():
            return
        if not self.path.exists():
            raise SourceError(
                path,
                "there is no such file or folder",
                "the published archive (.zip), or a folder with its content",
                "see python -m launch.download --help",
            )
        try:
            self._zip = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise SourceError(
                path,
                f"it cannot be read as a zip ({error})",
                "the published archive, whole",
                "download it again: python -m launch.download continues or repeats it and verifies the checksum",
            ) from None

    @property
    def is_zip(self) -> bool:
        """Whether the archive is a zip file."""
        return self._zip is not None

    def members(self) -> list[Member]:
        """Lists all files, sorted by path.

        Raises:
            SourceError: if a zip member's path would lead out of its folder.
        """
        if self._zip is None:
            return sorted(self._folder_members(), key=lambda member: member.path)
        members = []
        for info in self._zip.infolist():
            parts = info.filename.replace("\\", "/").split("/")
            if ".." in parts or info.filename.startswith(("/", "\\")) or ":" in parts[0]:
                raise SourceError(
                    self.path,
                    f"the member {info.filename!r} has a path that leaves its folder",
                    "paths inside the archive only",
                    "do not trust this archive; download the published one",
                )
            if not info.is_dir():
                members.append(Member(info.filename, info.file_size))
        return sorted(members, key=lambda member: member.path)

    def _folder_members(self):
        for folder, folders, names in os.walk(self.path, followlinks=True):
            folders.sort()
            relative = pathlib.Path(folder).relative_to(self.path)
            for name in names:
                yield Member((relative / name).as_posix(), os.path.getsize(os.path.join(folder, name)))

    def read(self, member: str) -> bytes:
        """Returns a member's bytes; a zip's own checksum is verified.

        Raises:
            SourceError: if the member is gone, damaged, encrypted or far larger than any patch.
        """
        where = f"{self.path}: {member}"
        try:
            if self._zip is None:
                path = self.path / member
                self._check_size(where, path.stat().st_size)
                return path.read_bytes()
            info = self._zip.getinfo(member)
            self._check_size(where, info.file_size)
            return self._zip.read(info)
        except (KeyError, FileNotFoundError):
            raise SourceError(
                where, "the file is gone since the source was listed", remedy="build again from a source at rest"
            ) from None
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
            raise SourceError(
                where, f"it cannot be read ({error})", "a whole archive", "download or copy the source again"
            ) from None

    def _check_size(self, where: str, size: int) -> None:
        if size > MAX_MEMBER_BYTES:
            raise SourceError(where, f"it has {size:,} bytes", f"a patch of at most {MAX_MEMBER_BYTES:,} bytes")
