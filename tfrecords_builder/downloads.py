"""Download of published archives by URL: resumed after an interruption, renamed after their checksum is verified."""

from __future__ import annotations

import hashlib
import http.client
import os
import pathlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from eo_keras.core import files
from eo_keras.core.output_folders import FILES, OutputFolder
from eo_keras.errors import SourceError
from tfrecords_builder.sources import SOURCES
from tfrecords_builder.sources.source import PublishedFile

CHUNK_BYTES = 1 << 20
ATTEMPTS = 4
TIMEOUT_SECONDS = 60
PARTIAL_FOLDER = ".partial"
"""Folder of unfinished downloads, inside the output folder."""
_PASSING = (408, 429, 500, 502, 503, 504)
"""HTTP status codes of temporary failures, after which the request is repeated."""


PUBLISHED = {name: source.facts.published for name, source in SOURCES.items() if source.facts.published is not None}
"""The published archives by data set."""


def download(
    file: PublishedFile,
    output_dir: str | pathlib.Path,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    pause_seconds: float = 2.0,
) -> pathlib.Path:
    """Downloads a file unless it exists; an interrupted download is resumed.

    Args:
        file: the published file.
        output_dir: folder for it, made if need be.
        progress: called with ("downloading", bytes done, bytes in all).
        pause_seconds: wait before the second attempt, doubled for each further one.

    Returns:
        The file's path; its size and checksum are the published ones.

    Raises:
        SourceError: if the server does not give the file, or gives another one.
        StorageError: if it cannot be written.
    """
    path = pathlib.Path(output_dir) / file.name
    output = OutputFolder(output_dir, FILES, SourceError)
    if path.exists():
        _verify(path, file, "move it away, then run the same command again")
        return path
    with output.held(overwrite=True, writes=[file.name]):
        partial = output.scratch(PARTIAL_FOLDER) / file.name
        try:
            _fetch_with_retries(file, partial, progress, pause_seconds)
            try:
                _verify(partial, file, "run the same command again; the other file has been removed")
            except SourceError:
                partial.unlink()
                raise
            with files.storage_errors(path):
                partial.replace(path)
        finally:
            if not files.list_names(partial.parent):
                output.drop_scratch(PARTIAL_FOLDER)
    return path


def fetched_bytes(file: PublishedFile, output_dir: str | pathlib.Path) -> int:
    """Returns the number of bytes of an interrupted download."""
    output = OutputFolder(output_dir, FILES, SourceError)
    partial = output.path(f"{PARTIAL_FOLDER}/{file.name}")
    return partial.stat().st_size if output.has_scratch(PARTIAL_FOLDER) and partial.is_file() else 0


def _fetch_with_retries(file: PublishedFile, partial: pathlib.Path, progress, pause_seconds: float) -> None:
    for attempt in range(ATTEMPTS):
        try:
            return _fetch(file, partial, progress)
        except urllib.error.HTTPError as error:
            reason = f"the server responds with {error.code} ({error.reason})"
            if error.code == 416:
                # The partial file is not the beginning of the server's file; it could never be resumed.
                partial.unlink(missing_ok=True)
            elif error.code not in _PASSING:
                raise SourceError(file.url, reason, remedy="see BUILD.md for the source") from None
        except (OSError, EOFError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            reason = f"it cannot be fetched ({cause or type(error).__name__})"
        if attempt < ATTEMPTS - 1:
            time.sleep(pause_seconds * 2**attempt)
    remedy = "check the network, then run the same command again: it continues where it stopped"
    raise SourceError(file.url, reason, remedy=remedy)


def _fetch(file: PublishedFile, partial: pathlib.Path, progress) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    if done >= file.bytes:
        return
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        # A server that does not know ranges sends the whole file with status 200.
        done = done if response.status == 206 else 0
        with files.storage_errors(partial):
            target = open(partial, "ab" if done else "wb")
        with target:
            # No more than one chunk beyond the published size is read: that it is another file is known by then.
            while done <= file.bytes and (chunk := response.read(CHUNK_BYTES)):
                with files.storage_errors(partial):
                    target.write(chunk)
                    # Otherwise a full disk would show when the file is closed, and look like a dropped connection.
                    target.flush()
                done += len(chunk)
                if progress:
                    progress("downloading", min(done, file.bytes), file.bytes)
            with files.storage_errors(partial):
                os.fsync(target.fileno())
    if done < file.bytes:
        raise EOFError(f"the connection ended after {done:,} of {file.bytes:,} bytes")


def _verify(path: pathlib.Path, file: PublishedFile, remedy: str) -> None:
    if not path.is_file():
        raise SourceError(path, "it is no file", f"the archive {file.name}", remedy)
    if (size := path.stat().st_size) != file.bytes:
        raise SourceError(path, f"it has {size:,} bytes", f"{file.bytes:,} as published", remedy)
    with open(path, "rb") as opened:
        found = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != file.md5:
        raise SourceError(path, f"its MD5 is {found}", f"{file.md5} as published", remedy)
