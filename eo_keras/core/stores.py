"""Other file systems, such as object stores, by fsspec: errors as `StorageError`, files read in ranges."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

from eo_keras.errors import EOKerasError, StorageError

_Path = str | os.PathLike[str]

_BUCKETS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "cos", "obs", "tos", "swift")
"""Protocols of object stores, where no folder is made: making one might make a bucket."""

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_STORAGE_CONNECTION_STRING",
    "az": "AZURE_STORAGE_CONNECTION_STRING",
}

_LEAST_BYTES, _MOST_BYTES = 64 << 10, 8 << 20
"""Bytes of the first and of the largest request of a file that is read from front to back."""


def protocol(url: _Path) -> str:
    """Returns the protocol of a URL, such as `s3`."""
    return os.fspath(url).partition("://")[0].rpartition("::")[2].lower()


@contextlib.contextmanager
def opened(url: _Path) -> Iterator[tuple[Any, str]]:
    """Yields fsspec's file system of a URL and the path inside it; turns errors into `StorageError`. A context manager.

    Raises:
        StorageError: if no file system of that kind is known or installed, or it cannot be used; a file that is not
            there stays a `FileNotFoundError`.
    """
    import fsspec

    try:
        # A cached listing would not show files that other processes write or replace.
        system, inner = fsspec.core.url_to_fs(os.fspath(url), use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise StorageError(
            url, f"it cannot be opened ({error})", "a local path, or a URL of a file system that fsspec knows"
        ) from None
    except Exception as error:
        raise _storage_error(url, error) from error
    try:
        yield system, inner
    except (EOKerasError, FileNotFoundError):
        raise
    except Exception as error:  # Every store has its own errors.
        raise _storage_error(url, error) from error


def _storage_error(url: _Path, error: Exception) -> StorageError:
    kind, said = type(error).__name__, " ".join(str(error).split())
    shown = f"{kind}: {said[:300]}" if said else kind
    variables = _CREDENTIALS.get(protocol(url), "")
    if "credential" in f"{kind} {said}".lower():
        remedy = f"give the store's credentials{variables and f', such as {variables},'} to every process that reads it"
        return StorageError(url, f"the store asks for credentials, and none are found ({shown})", remedy=remedy)
    if isinstance(error, PermissionError):
        remedy = f"check what the store's credentials{variables and f' ({variables})'} may do there"
        return StorageError(url, f"the store refuses access ({shown})", remedy=remedy)
    if isinstance(error, (ConnectionError, TimeoutError)) or any(
        word in kind for word in ("Connect", "Timeout", "Endpoint", "DNS")
    ):
        setting = ", such as AWS_ENDPOINT_URL" if protocol(url).startswith("s3") else ""
        remedy = f"check the network and the store's address{setting}, then run the same command again"
        return StorageError(url, f"the store cannot be reached ({shown})", remedy=remedy)
    return StorageError(
        url, f"the store cannot do that ({shown})", remedy="check the URL, the name of its bucket among it"
    )


def make_folder(url: _Path) -> None:
    """Makes a folder and those above it, where the file system has folders; never a bucket.

    Raises:
        StorageError: if it cannot be made.
    """
    if protocol(url) not in _BUCKETS:
        with opened(url) as (system, inner):
            system.makedirs(inner, exist_ok=True)


def write(url: _Path, data: bytes) -> None:
    """Writes a whole file in one piece.

    Raises:
        StorageError: if it cannot be written.
    """
    try:
        with opened(url) as (system, inner):
            system.pipe_file(inner, data)
    except FileNotFoundError as error:
        raise StorageError(
            url,
            f"there is nothing to write to ({error})",
            "a bucket or folder that is there; buckets are not made here",
            "check its name, or make it",
        ) from None


class RangeReader(io.RawIOBase):
    """File opened for reading at any position, with few requests and few superfluous bytes.

    Reads out of order request the bytes that are read, or those up to the end given to `expect`; reads from front to
    back request ever larger ranges.

    Args:
        url: the file.

    Raises:
        FileNotFoundError: if there is no such file.
        StorageError: if the store cannot be used.
    """

    def __init__(self, url: _Path):
        super().__init__()
        self._url = url
        with opened(url) as (system, inner):
            size = system.info(inner)["size"]
            if size is None:
                raise OSError("the server does not say how long the file is")
        self._size, self._place, self._until, self._ahead = int(size), 0, 0, 0
        self._start, self._held = 0, b""

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position that is read next."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the position, and returns it."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError(f"a place before the file's first byte: {origin + offset}")
        self._place = origin + offset
        return self._place

    def expect(self, end: int) -> None:
        """Sets the position up to which the next bytes will be read."""
        self._until = end

    def read(self, size: int | None = -1) -> bytes:
        """Returns the next bytes: `size` of them, or all that are left.

        Raises:
            StorageError: if the store does not give them.
        """
        start = self._place
        end = self._size if size is None or size < 0 else min(start + size, self._size)
        if start >= end:
            return b""
        if not self._start <= start <= end <= self._start + len(self._held):
            self._hold(start, end)
        self._place = end
        return self._held[start - self._start : end - self._start]

    def readinto(self, buffer) -> int:
        """Fills a buffer, and returns the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _hold(self, start: int, end: int) -> None:
        held_to = self._start + len(self._held)
        if self._start <= start <= held_to + _LEAST_BYTES:
            self._ahead = min(max(2 * self._ahead, _LEAST_BYTES), _MOST_BYTES)
        else:
            self._ahead = 0
        end = min(max(end, self._until if self._until > start else 0, start + self._ahead), self._size)
        with opened(self._url) as (system, inner):
            data = system.cat_file(inner, start=start, end=end)
            if len(data) != end - start:
                raise OSError(f"of bytes {start} to {end}, {len(data)} were received; not every server supports ranges")
        self._start, self._held = start, data
