"""Files written whole or not at all, checksums, and folders that one process holds at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from eo_keras.errors import EOKerasError, StorageError

TEMPORARY_PREFIX = ".partial-"
"""Names of unfinished files begin with this; whatever is found under such a name is nobody's result."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def storage_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns the operating system's refusals to write below `path` into a `StorageError`."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in _FULL:
            raise StorageError(
                where,
                "no room is left to write to (disk full, or over its quota or size limit)",
                remedy="free some space or choose another folder, then run the same command again",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise StorageError(
                where, f"it cannot be written to ({error.strerror})", remedy="choose a folder that you may write to"
            ) from error
        raise


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a new file for writing that takes its name only when it is whole.

    The bytes go to a temporary name in the same folder and reach the disk before the rename; after an exception
    nothing is left.

    Args:
        path: the file's final name; its folder must exist.

    Yields:
        A binary file to write to.

    Raises:
        StorageError: if the disk is full or the folder may not be written to.
    """
    path = pathlib.Path(path)
    with storage_errors(path):
        descriptor, temporary = tempfile.mkstemp(prefix=f"{TEMPORARY_PREFIX}{path.name}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files for the owner alone; a result is for whoever may read the folder.
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a whole file atomically; see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a whole UTF-8 text file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a JSON file atomically, indented, so that people can read it too."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def make_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Creates a folder and those above it.

    Raises:
        StorageError: if it cannot be created.
    """
    path = pathlib.Path(path)
    with storage_errors(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise StorageError(path, "there is a file of this name", "a folder", "choose another folder") from None
    return path


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Returns the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FolderLock:
    """Holds a folder for this process, as a context manager; released by the system when the process ends, however.

    Args:
        folder: the folder to hold; it must exist.
        error: the error class raised when another process holds it.
    """

    NAME = ".lock"

    def __init__(self, folder: str | os.PathLike[str], error: type[EOKerasError]):
        self._path = pathlib.Path(folder) / self.NAME
        self._error = error
        self._file: BinaryIO | None = None

    def __enter__(self) -> FolderLock:
        with storage_errors(self._path):
            self._file = open(self._path, "ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise self._error(
                self._path.parent,
                "another process is writing to this folder",
                remedy="wait until it has ended, or choose another folder",
            ) from None
        return self

    def __exit__(self, *exception) -> None:
        # The name is removed while the lock is still held, so that no second process can hold a removed file's lock
        # believing that it holds the folder for longer than one failed attempt.
        self._path.unlink(missing_ok=True)
        self._file.close()
