"""Zips of weights: what reading a damaged one raises, and limits of the size that they inflate to."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib

UNREADABLE = (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""What zipfile, and NumPy or h5py behind it, raise of a damaged file.

A RuntimeError says that a member is encrypted, or of a compression that is not known: one flipped bit is enough.
"""

_LEAST = 64 << 20
_TIMES = 20


def most_bytes(path: str | os.PathLike[str]) -> int:
    """Returns the limit in bytes of a file's content: 20 times the file's own size, at least 64 MiB.

    A file that is small on disk must not fill the memory. Keras stores weights as they are; packed, numbers that were
    trained shrink by a tenth.
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
