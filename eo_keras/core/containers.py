"""One interface to local folders and zips: their files without litter, a file's bytes, its path for GDAL.

A zip that cannot be used is refused with its true cause: a download that broke off, a web page saved under its name,
encryption, a compression that nothing here unpacks.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import struct
import zipfile
from typing import IO

from eo_keras.core.system_files import is_litter
from eo_keras.errors import EOKerasError, SourceError

_DEEPEST = 12
_END_BYTES = 22
"""Length of the record at the end of a zip, without its comment."""

_DOWNLOAD = "download or copy it again, whole"
_ENCRYPTED = 1
_METHODS = {9: "Deflate64, as Windows packs files above 2 GB", 93: "Zstandard", 95: "xz", 98: "PPMd", 99: "AES"}
_KNOWN_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_OTHER_ARCHIVES = {b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "RAR", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


def is_zip(path: str | os.PathLike[str]) -> bool:
    """Returns whether a file is a zip or should be one, by its name or its first bytes."""
    if os.fspath(path).lower().endswith(".zip"):
        return os.path.isfile(path)
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"PK\3\4"
    except OSError:
        return False


def open_zip(path: str | os.PathLike[str], file: IO[bytes] | None = None, remedy: str = _DOWNLOAD) -> zipfile.ZipFile:
    """Opens a zip and checks that its directory is whole.

    Args:
        path: the file.
        file: the file opened, where it lies elsewhere than on a local disk.
        remedy: remedy in the error for a damaged zip.

    Raises:
        SourceError: if it is no complete zip; the message names its actual format.
    """
    try:
        archive = zipfile.ZipFile(path if file is None else file)
        _check_count(archive)
    except EOKerasError:
        raise
    # A damaged directory makes zipfile raise any error.
    except Exception as error:
        problem, other_remedy = _what_it_is(path, file, error)
        raise SourceError(path, problem, "a whole zip", other_remedy or remedy) from None
    return archive


def _what_it_is(path: str | os.PathLike[str], file: IO[bytes] | None, error: Exception) -> tuple[str, str]:
    """Returns the actual format of a file that is no zip, and a remedy; empty texts for a damaged zip."""
    try:
        with contextlib.closing(file or open(path, "rb")) as opened:
            opened.seek(0)
            start, tail = opened.read(512), _tail(opened)
    except (OSError, ValueError):
        return f"it cannot be read ({error})", "check that it is there and may be read"
    if not start:
        return "the file is empty", ""
    if other := next((name for head, name in _OTHER_ARCHIVES.items() if start.startswith(head)), None):
        return f"this is a {other} archive", "unpack it and give the folder, or pack that as a zip"
    if start[257:262] == b"ustar":
        return "this is a tar archive", "unpack it and give the folder, or pack that as a zip"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.match(rb"<(!doctype|html|head|\?xml)", text, re.IGNORECASE):
        return (
            "this is a web page or XML, such as a login form or a server's refusal, saved under a zip's name",
            "read it in a browser, log in, and download the zip again",
        )
    if not start.startswith(b"PK"):
        if text.isascii() and text[:80].decode("ascii").isprintable():
            return f"this is no zip; it begins with {text[:60].decode('ascii')!r}", ""
        return f"this is no zip ({error})", ""
    if b"PK\x05\x06" not in tail:
        return "it is cut off: the directory at its end is missing, as when a download breaks off", ""
    return f"it is a damaged zip ({error})", ""


def _check_count(archive: zipfile.ZipFile) -> None:
    """Compares a directory with the count at the end of the zip, which zipfile does not.

    A wrong length in the directory would make the members behind it vanish in silence.
    """
    tail = _tail(archive.fp)
    (said,) = struct.unpack_from("<H", tail, tail.rfind(b"PK\x05\x06") + 10)
    # For more than 65,535 members, some programs write the count modulo 65,536 and some 65,535.
    if (listed := len(archive.infolist())) % 65536 != said and said != 65535:
        raise zipfile.BadZipFile(f"its directory lists {listed} of {said} members")


def _tail(file: IO[bytes]) -> bytes:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - _END_BYTES - 65535))  # The longest comment that may follow.
    return file.read()


def zip_members(archive: zipfile.ZipFile, path: str | os.PathLike[str]) -> dict[str, zipfile.ZipInfo]:
    """Returns a zip's files by name, with forward slashes, without folders and litter.

    Args:
        archive: the zip.
        path: its name, for errors.

    Raises:
        SourceError: if a name leads out of the folder, is damaged or given twice.
    """
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.replace("\\", "/").removeprefix("./")
        parts = name.split("/")
        if ".." in parts or name.startswith("/") or ":" in parts[0]:
            raise SourceError(
                path,
                f"the member {info.filename!r} has a path that leaves its folder",
                "paths inside the archive only",
                "do not trust this archive; download the published one",
            )
        # zipfile cuts a name at a zero byte; a name that then looks like a folder would be skipped.
        if not info.filename or "\0" in info.orig_filename or (name.endswith("/") and info.file_size):
            raise SourceError(
                path,
                f"the member {info.orig_filename!r} has a damaged name",
                "a whole archive",
                "download or copy it again",
            )
        if name.endswith("/") or is_litter(name):
            continue
        if name in infos:
            raise SourceError(
                path,
                f"it holds two files called {name}",
                "each name once",
                "unpack it and give the folder, after a check of which of the two was unpacked",
            )
        infos[name] = info
    return infos


def check_readable(info: zipfile.ZipInfo, path: str | os.PathLike[str], *, by_gdal: bool = False) -> None:
    """Checks that a member can be unpacked.

    Args:
        info: the member.
        path: the zip, for errors.
        by_gdal: whether GDAL is to read it, which knows stored and deflated members alone.

    Raises:
        SourceError: if it is encrypted, or packed by an unknown method.
    """
    where = f"{os.fspath(path)}: {info.filename}"
    if info.flag_bits & _ENCRYPTED:
        raise SourceError(
            where, "it is encrypted", "a zip without a password", "unpack it with its password, and give the folder"
        )
    if info.compress_type not in (_KNOWN_METHODS[:2] if by_gdal else _KNOWN_METHODS):
        name = _METHODS.get(info.compress_type, zipfile.compressor_names.get(info.compress_type, "an unknown method"))
        raise SourceError(
            where,
            f"it is packed by {name} (method {info.compress_type})",
            "stored or deflated members",
            "unpack it and give the folder, or pack that again as a plain zip",
        )


def members(path: str | os.PathLike[str], depth: int = _DEEPEST) -> list[str]:
    """Lists the files of a folder or zip, sorted, by their paths in it with forward slashes; litter is left out.

    Args:
        path: the folder or zip.
        depth: number of levels of folders that are searched.

    Raises:
        SourceError: if it is no folder and no whole zip, or one of which GDAL cannot read a member.
    """
    if not os.path.isdir(path):
        with open_zip(path) as archive:
            infos = zip_members(archive, path)
        for info in infos.values():
            check_readable(info, path, by_gdal=True)
        return sorted(infos)
    paths = []
    for parent, folders, names in os.walk(path):
        inner = os.path.relpath(parent, path).replace(os.sep, "/")
        below = "" if inner == "." else f"{inner}/"
        folders[:] = [] if below.count("/") >= depth else [name for name in folders if not is_litter(name)]
        paths += [below + name for name in names if not is_litter(name)]
    return sorted(paths)


def read_member(path: str | os.PathLike[str], member: str, most_bytes: int) -> bytes:
    """Returns the bytes of a file in a folder or zip; a zip's own checksum is verified.

    Raises:
        SourceError: if it cannot be read, or is larger than `most_bytes`.
    """
    where = f"{os.fspath(path)}: {member}"
    try:
        if os.path.isdir(path):
            with open(os.path.join(path, member), "rb") as file:
                data = file.read(most_bytes + 1)
        else:
            with open_zip(path) as archive:
                info = zip_members(archive, path)[member]
                check_readable(info, path)
                with archive.open(info) as file:
                    data = file.read(most_bytes + 1)
    except SourceError:
        raise
    # Damage makes zipfile and its decompressors raise any error.
    except Exception as error:
        raise SourceError(where, f"it cannot be read ({error})", "a whole file", _DOWNLOAD) from None
    if len(data) > most_bytes:
        raise SourceError(where, f"it has more than {most_bytes:,} bytes", "a file of metadata")
    return data


def gdal_path(path: str | os.PathLike[str], member: str) -> str:
    """Returns the path by which GDAL opens a file in a folder or zip."""
    path = os.fspath(path)
    return f"{path.rstrip('/')}/{member}" if os.path.isdir(path) else zip_path(path, member)


def zip_path(path: str, member: str) -> str:
    """Returns the path by which GDAL opens a member of a zip, which may be one of GDAL's paths itself.

    Args:
        path: the zip.
        member: a file or folder in it; an empty text for the zip's outermost folder.
    """
    # In braces, GDAL takes the name of the zip as it is, even below a folder called a.zip.
    return (f"/vsizip/{{{path}}}/{member}" if _is_balanced(path) else f"/vsizip/{path}/{member}").rstrip("/")


def _is_balanced(path: str) -> bool:
    depth = 0
    for letter in path:
        depth += (letter == "{") - (letter == "}")
        if depth < 0:
            return False
    return depth == 0


def place_of(gdal_path: str) -> tuple[str, str]:
    """Returns the file that holds a path of `gdal_path`, and the member of a zip or an empty text."""
    inner = gdal_path.removeprefix("/vsizip/")
    if inner == gdal_path:
        return gdal_path, ""
    if inner.startswith("{"):
        depth = 0
        for place, letter in enumerate(inner):
            depth += (letter == "{") - (letter == "}")
            if depth == 0:
                return inner[1:place], inner[place + 2 :]
    archive = next((parent for parent in pathlib.PurePath(inner).parents if os.path.isfile(parent)), None)
    return (inner, "") if archive is None else (os.fspath(archive), os.path.relpath(inner, archive))
