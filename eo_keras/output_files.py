"""Single files that a command writes into whatever folder a user names."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping

from eo_keras.errors import EOKerasError, StorageError
from eo_keras.output_folders import FILES, OutputFolder

_Path = str | os.PathLike[str]


def check_files(paths: Iterable[_Path], *, overwrite: bool, error: type[EOKerasError] = StorageError) -> None:
    """Refuses single files that somebody else has, or that have changed since this program wrote them.

    Args:
        paths: the files, local ones.
        overwrite: whether the user allows to replace them.
        error: the class of errors about them.

    Raises:
        EOKerasError: if there is one; of the class given.
    """
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            raise error(path, "it is a folder", "the name of a file")
        folder = OutputFolder(path.parent, FILES, error)
        if os.path.lexists(path) and not overwrite and not folder.is_own(path.name):
            raise error(
                path,
                "it is already there, and this program did not write it, or it has changed since",
                remedy="replace it by --overwrite, or choose another name",
            )


def write_files(contents: Mapping[_Path, bytes], *, overwrite: bool, error: type[EOKerasError] = StorageError) -> None:
    """Writes single files into whatever folders, which are made where they are missing; see `check_files`.

    They are listed in the manifests of their folders, so that they can be replaced without `overwrite` later on.

    Raises:
        EOKerasError: see `check_files`.
        StorageError: if the disk is full or a folder may not be written to.
    """
    check_files(contents, overwrite=overwrite, error=error)
    for path, data in contents.items():
        path = pathlib.Path(path)
        folder = OutputFolder(path.parent, FILES, error)
        folder.write_over(path.name, data)
