"""Single files that a command writes into a folder of the user's choice."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping

from eo_keras.core.output_folders import DEMO, FILES, OutputFolder
from eo_keras.errors import EOKerasError, StorageError

_Path = str | os.PathLike[str]


def check_files(paths: Iterable[_Path], *, overwrite: bool, error: type[EOKerasError] = StorageError) -> None:
    """Checks that files were written by this program and are unchanged, before they are replaced.

    Args:
        paths: the files, local ones.
        overwrite: whether the user allows to replace them.
        error: the class of errors about them.

    Raises:
        EOKerasError: if there is one; of the class given.
    """
    for path in map(pathlib.Path, paths):
        check_no_part(path, error)
        folder = OutputFolder(path.parent, FILES, error)
        folder.check_manifest()
        if os.path.lexists(path) and not overwrite and not folder.is_own(path.name):
            raise error(
                path,
                "it is already there, and this program did not write it, or it has changed since",
                remedy="replace it by `overwrite`, or choose another name",
            )


def check_no_part(path: _Path, error: type[EOKerasError] = StorageError) -> None:
    """Checks that a path is no folder, and no file of records, a run or another output.

    Raises:
        EOKerasError: if it is one, whether the user allows to replace files or not; of the class given.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise error(path, "it is a folder", "the name of a file")
    # Links of folders are resolved, but not that of the file, which would be replaced itself.
    place = path.parent.resolve() / path.name
    for parent in place.parents:
        manifest = OutputFolder(parent, FILES, error).manifest()
        if manifest is None or manifest.kind in (FILES, DEMO):
            continue
        if place.relative_to(parent).as_posix() in manifest.files:
            raise error(path, f"it is part of the {manifest.kind} in {parent}", remedy="choose another name")


def write_files(contents: Mapping[_Path, bytes], *, overwrite: bool, error: type[EOKerasError] = StorageError) -> None:
    """Writes single files into any folders, which are made if missing; see `check_files`.

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


def move_files(moves: Mapping[_Path, _Path], *, overwrite: bool, error: type[EOKerasError] = StorageError) -> None:
    """Gives finished files their names, in the order given; as `write_files`, but for files too large for memory.

    Args:
        moves: the files of the same disk, by the names that they get.
        overwrite: whether the user allows to replace files.
        error: the class of errors about them.

    Raises:
        EOKerasError: see `check_files`.
        StorageError: if a folder may not be written to.
    """
    check_files(moves, overwrite=overwrite, error=error)
    for path, made in moves.items():
        path = pathlib.Path(path)
        OutputFolder(path.parent, FILES, error).move_over(path.name, pathlib.Path(made))
