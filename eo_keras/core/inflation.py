"""Limits of the inflated size of weights files: a file that is small on disk must not fill the memory."""

from __future__ import annotations

import os
import zipfile

_LEAST = 64 << 20
_TIMES = 20


def most_bytes(path: str | os.PathLike[str]) -> int:
    """Returns the limit in bytes of a file's content: 20 times the file's own size, at least 64 MiB.

    Keras stores weights as they are; packed, numbers that were trained shrink by a tenth.
    """
    return max(_LEAST, _TIMES * os.path.getsize(path))


def check_archive(path: str | os.PathLike[str]) -> None:
    """Checks that the members of a `.keras` file declare at most `most_bytes`; more than declared is never read.

    Raises:
        ValueError: saying how much.
        zipfile.BadZipFile: if it is no zip.
    """
    with zipfile.ZipFile(path) as archive:
        declared = sum(member.file_size for member in archive.infolist())
    check(declared, path)


def check(size: int, path: str | os.PathLike[str]) -> None:
    """Checks that content has at most `most_bytes` bytes.

    Raises:
        ValueError: saying how much.
    """
    if size > most_bytes(path):
        raise ValueError(f"{os.path.getsize(path):,} bytes that inflate to {size:,}")
