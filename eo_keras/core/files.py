"""Atomic writes, checksums and a lock, on local disks and on any file system of fsspec.

A path is a local one, a `file://` URL, or another URL such as `s3://bucket/records` or `memory://records`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO

from eo_keras.core import stores
from eo_keras.errors import EOKerasError, StorageError

TEMPORARY_PREFIX = ".partial-"
"""Prefix of the names of unfinished files."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_Path = str | os.PathLike[str]


def local(path: _Path) -> pathlib.Path | None:
    """Returns the local path of a path or a `file://` URL, or None for another file system."""
    text = os.fspath(path)
    if "://" not in text:
        return pathlib.Path(text)
    return pathlib.Path(text.removeprefix("file://")) if text.startswith("file://") else None


def expand_home(path: str, beside: _Path = "") -> str:
    """Replaces a leading `~` or `~user` by the home folder, as a shell does; URLs have none.

    Args:
        path: a path, a pattern or a URL.
        beside: the folder that a relative path starts from.

    Returns:
        The path. What begins with a `~` and is there under this very name stays as it is.

    Raises:
        StorageError: if there is no such user.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.lexists(os.path.join(beside, path)):
        user = expanded[1:].partition("/")[0]
        raise StorageError(
            path,
            f"there is no user '{user}'" if user else "the home folder is not known",
            "a path; ~ stands for your home folder and ~user for another one's",
            f"write ./{path} for what lies in the current folder",
        )
    return expanded


def absolute(path: _Path) -> str:
    """Returns a path that is valid in every process: an absolute local path, or the URL unchanged."""
    here = local(path)
    return os.fspath(path) if here is None else os.path.abspath(here)


def join(folder: _Path, *names: str) -> str:
    """Joins the names of inner folders and a file to a folder."""
    if local(folder) is None:
        return "/".join([os.fspath(folder).rstrip("/"), *names])
    return os.path.join(folder, *names)


def exists(path: _Path) -> bool:
    """Returns whether there is such a file or folder."""
    here = local(path)
    if here is not None:
        return here.exists()
    with stores.opened(path) as (system, inner):
        return system.exists(inner)


def is_folder(path: _Path) -> bool:
    """Returns whether there is such a folder."""
    here = local(path)
    if here is not None:
        return here.is_dir()
    with stores.opened(path) as (system, inner):
        return system.isdir(inner)


def size(path: _Path) -> int:
    """Returns a file's size in bytes.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    here = local(path)
    if here is not None:
        return here.stat().st_size
    with stores.opened(path) as (system, inner):
        return system.size(inner)


def list_names(folder: _Path) -> list[str]:
    """Returns the names of the files and folders in a folder, sorted; none where there is no such folder."""
    here = local(folder)
    if here is not None:
        return sorted(path.name for path in here.iterdir()) if here.is_dir() else []
    with stores.opened(folder) as (system, inner):
        paths = system.ls(inner, detail=False) if system.isdir(inner) else []
    return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)


def open_for_reading(path: _Path) -> BinaryIO:
    """Opens a file for reading at any position."""
    here = local(path)
    if here is not None:
        return open(here, "rb")
    return stores.RangeReader(path)


def read_bytes(path: _Path) -> bytes:
    """Returns a whole file's bytes."""
    here = local(path)
    if here is not None:
        return here.read_bytes()
    with stores.opened(path) as (system, inner):
        return system.cat_file(inner)


def remove(path: _Path) -> None:
    """Removes a file, or a folder with its content; a missing path is no error.

    Raises:
        StorageError: if it may not be removed.
    """
    here = local(path)
    if here is None:
        with stores.opened(path) as (system, inner):
            if system.exists(inner):
                system.rm(inner, recursive=True)
        return
    with storage_errors(here), contextlib.suppress(FileNotFoundError):
        if here.is_dir():
            shutil.rmtree(here)
        else:
            here.unlink()


@contextlib.contextmanager
def storage_errors(path: _Path) -> Iterator[None]:
    """Turns errors of writing below `path` into a `StorageError`; a context manager."""
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
def atomic_file(path: _Path, *, durable: bool = True, scratch: _Path | None = None) -> Iterator[BinaryIO]:
    """Opens a new file for writing that gets its name when it is complete.

    On a local disk, the bytes go to a temporary name in the same folder and reach the disk before the rename; after an
    exception nothing is left. On other file systems the file is kept in memory and handed over at the end in one piece.

    Args:
        path: the file's final name; its folder must exist.
        durable: whether to wait until the bytes are on the disk. Without, a power failure can leave an empty file.
        scratch: folder of the same disk for the temporary name. Default: the file's own.

    Yields:
        A binary file to write to.

    Raises:
        StorageError: if the disk is full or the folder may not be written to.
    """
    path_here = local(path)
    if path_here is None:
        buffer = io.BytesIO()
        yield buffer
        stores.write(path, buffer.getvalue())
        return
    with storage_errors(path_here):
        folder = path_here.parent if scratch is None else local(scratch)
        temporary = folder / f"{TEMPORARY_PREFIX}{path_here.name}-{secrets.token_hex(8)}"
        # Not tempfile.mkstemp, whose files only the owner may read. The system applies the umask; reading it would set
        # it, for all threads.
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path_here)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def write_bytes(path: _Path, data: bytes, *, durable: bool = True) -> None:
    """Writes a whole file atomically; see `atomic_file`."""
    with atomic_file(path, durable=durable) as file:
        file.write(data)


def write_text(path: _Path, text: str) -> None:
    """Writes a whole UTF-8 text file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: _Path, value: Any) -> None:
    """Writes an indented JSON file atomically."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Returns the bytes that `write_json` writes."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def make_folder(path: _Path) -> pathlib.Path | str:
    """Creates a folder and those above it, and returns it; object stores have none, and buckets are not made.

    Raises:
        StorageError: if it cannot be created.
    """
    here = local(path)
    if here is None:
        stores.make_folder(path)
        return os.fspath(path)
    with storage_errors(here):
        try:
            here.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise StorageError(here, "there is a file of this name", "a folder", "choose another folder") from None
    return here


def sha256_of_bytes(data: bytes) -> str:
    """Returns the hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: _Path) -> str:
    """Returns the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open_for_reading(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class FolderLock:
    """Lock of a local folder, a context manager; the system releases it when the process ends.

    Other file systems know no such locks: there, nothing is held.

    Args:
        folder: the folder to hold; it must exist.
        error: the error class raised when another process holds it.
    """

    NAME = ".eo_keras.lock"

    def __init__(self, folder: _Path, error: type[EOKerasError]):
        here = local(folder)
        self._path = None if here is None else here / self.NAME
        self._error = error
        self._file: int | None = None

    def __enter__(self) -> FolderLock:
        # Between opening and locking, the holder may end and remove the name: the lock of a file without a name
        # protects nothing, and a third process would lock the next file of that name.
        while self._path is not None and not self._lock():
            pass
        return self

    def _lock(self) -> bool:
        """Locks the file; returns whether it still has its name."""
        with storage_errors(self._path):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            raise self._error(
                self._path.parent,
                "another process is writing to this folder",
                remedy="wait until it has ended, or choose another folder",
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                self._close()
                raise
        if self._is_named():
            return True
        self._close()
        return False

    def _is_named(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        os.close(self._file)
        self._file = None

    def __exit__(self, *exception) -> None:
        if self._path is None:
            return
        # While it is still locked, so that no other process's file is removed. A file with content is not ours.
        if self._is_named() and not os.fstat(self._file).st_size:
            self._path.unlink(missing_ok=True)
        self._close()
