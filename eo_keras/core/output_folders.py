"""Output folders with a manifest of the files that this program wrote; other files are never replaced or removed.

The manifest `.eo_keras.json` lists every file by its path, size and SHA-256. It lists a file before the file gets its
name, so that a process that is killed at any moment leaves no file that the manifest does not list. A file that is not
listed, or has changed since it was written, is foreign: it stays, and where its name is needed it is kept under another
one. Symbolic links are never followed below the folder. Unfinished files lie in a folder of
their own, which the manifest names too.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import json
import os
import pathlib
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from eo_keras.core import files
from eo_keras.core.manifests import Manifest, Written
from eo_keras.errors import EOKerasError, StorageError

MANIFEST_NAME = ".eo_keras.json"
FILES = "folder of single files"
"""Kind of a folder that no command owns, with files that the user named one by one."""
DEMO = "demo"
SCRATCH_NAME = ".unfinished"
"""Name of the folder of unfinished files."""
DESCRIPTION_NAME = "build.json"
"""Name of the file that describes unfinished work in its folder; without it, nothing there is resumed."""

_UNFINISHED_MANIFEST = f"{files.TEMPORARY_PREFIX}{MANIFEST_NAME}-" + 16 * "[0-9a-f]"
"""Name of the only file that a killed process may leave where there is no manifest yet."""

_BESIDE = (
    *(".DS_Store", "._*", ".AppleDouble", "Thumbs.db", "desktop.ini", ".directory", ".ipynb_checkpoints"),
    *(".nfs*", ".fuse_hidden*", "lost+found", ".gitignore", ".gitkeep", "*.log", "*.out", "*.err", "slurm-*"),
)
"""Names of files that systems, editors and schedulers put beside output; they are ignored and never removed."""

_OWN = (
    *(f"{files.TEMPORARY_PREFIX}*", "tmp????????"),
    *(DESCRIPTION_NAME, "sources.json", "refused.json", "*.npz", "city-[0-9]*.json", "row-[0-9]*"),
)
"""Patterns of names in folders of unfinished files: new files and units of a build; other files are foreign."""


class OutputFolder:
    """Output folder of a command.

    Args:
        folder: its path, or a URL of another file system, where a file counts as changed by its size alone.
        kind: name of such folders, such as `run`; a folder of another kind is refused.
        error: the class of errors about it.
        overwritable: whether its command has the option `overwrite`, which the remedies name.

    Attributes:
        warnings: lines for the user about files that were not removed or were renamed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        kind: str,
        error: type[EOKerasError] = StorageError,
        *,
        overwritable: bool = True,
    ):
        self.folder, self.kind, self._error, self._overwritable = folder, kind, error, overwritable
        self._local = files.local(folder)
        self._seen: dict[str, tuple[tuple[int, ...], Written]] = {}
        self._holding = False
        self.warnings: list[str] = []

    def path(self, name: str) -> Any:
        """Returns the path of a name in the folder: `pathlib.Path`, or a URL on another file system."""
        return files.join(self.folder, *name.split("/")) if self._local is None else self._local.joinpath(name)

    # Reading.

    def check(self, *, overwrite: bool = False, writes: Iterable[str] = ()) -> None:
        """Checks that a folder has no foreign content, and no files where new ones are written.

        Args:
            overwrite: whether the user allows to write beside foreign files.
            writes: paths of files that will be written.

        Raises:
            EOKerasError: if it does; of the class given.
        """
        if not files.is_folder(self.folder):
            if files.exists(self.folder):
                raise self._error(
                    self.folder, "there is a file of this name", "a folder, or nothing", "choose another folder"
                )
            return
        # Before the manifest: a process that begins to write in between lists all of it.
        names = self._names()
        manifest = self.manifest()
        if manifest is None:
            self.check_manifest()
        if manifest is not None and manifest.kind != self.kind:
            raise self._error(
                self.folder,
                f"it holds another kind of output ({manifest.kind})",
                f"{self.kind}, or nothing",
                "choose another folder",
            )
        if manifest is None and not overwrite and names:
            raise self._error(
                self.folder,
                f"the folder holds {names[0]!r}, which this program did not write or an earlier version did",
                "an empty folder, or none yet",
                "choose another folder, or move away what is there"
                + ("; `overwrite` writes beside it and removes nothing of it" if self._overwritable else ""),
            )
        manifest = manifest or Manifest(self.kind)
        for name in writes:
            if (obstacle := self._in_the_way(manifest, name)) is not None:
                linked = self._local is not None and os.path.islink(self.path(obstacle))
                raise self._error(
                    self.path(obstacle),
                    f"{'it is a link' if linked else 'this program did not write it'}, and the name is needed",
                    remedy="move it away, or choose another folder",
                )

    def check_manifest(self) -> None:
        """Checks that the manifest can be read, without which no file may be replaced.

        Raises:
            EOKerasError: if it is so; of the class given.
        """
        if self.manifest() is None and self._there(MANIFEST_NAME):
            raise self._error(
                self.path(MANIFEST_NAME),
                "it cannot be read as a list of what this program wrote: it is damaged, or of another version",
                remedy="choose another folder, or move it away; all that is in the folder then counts as yours",
            )

    def manifest(self) -> Manifest | None:
        """Returns the manifest, or None where there is none or it cannot be read."""
        path = self.path(MANIFEST_NAME)
        try:
            if self._local is not None and not stat.S_ISREG(os.lstat(path).st_mode):
                return None
            return Manifest.parse(files.read_bytes(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def lists(self, name: str) -> bool:
        """Returns whether the manifest lists a file; it may have changed since."""
        manifest = self.manifest()
        return manifest is not None and name in manifest.files

    def is_own(self, name: str) -> bool:
        """Returns whether a file exists, is listed, and is unchanged."""
        return bool(self.own([name]))

    def own(self, names: Iterable[str]) -> set[str]:
        """Returns those of some files that exist, are listed, and are unchanged."""
        manifest = self.manifest()
        return set() if manifest is None else {name for name in names if self._own(manifest, name) is not None}

    def listed(self) -> list[str]:
        """Returns the paths of all files that the manifest lists, sorted."""
        manifest = self.manifest()
        return [] if manifest is None else sorted(manifest.files)

    def sha256(self, name: str) -> str | None:
        """Returns the SHA-256 with which the manifest lists a file that has been written."""
        manifest = self.manifest()
        return None if manifest is None or name not in manifest.files else manifest.files[name][-1].sha256

    def foreign(self) -> list[str]:
        """Returns the paths of files that are not listed, or changed; folders that the manifest names are left out."""
        manifest = self.manifest() or Manifest(self.kind)
        skipped = {MANIFEST_NAME, files.FolderLock.NAME, *manifest.scratch, *manifest.folders}
        if self._local is None:
            return [name for name in files.list_names(self.folder) if name not in skipped | set(manifest.files)]
        unlisted = []
        for parent, folders, names in os.walk(self._local):
            inner = pathlib.Path(parent).relative_to(self._local)
            links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
            paths = [(inner / name).as_posix() for name in (*names, *links)]
            unlisted += [path for path in paths if path not in skipped and not self._own(manifest, path)]
            folders[:] = [name for name in folders if (inner / name).as_posix() not in skipped]
        return sorted(unlisted)

    def _names(self) -> list[str]:
        """Returns the names in the folder, without ignored ones."""
        names = files.list_names(self.folder)
        beside = (MANIFEST_NAME,) if self.manifest() is not None else ()
        return [
            name
            for name in names
            if name not in (*beside, files.FolderLock.NAME)
            and not _is_beside(name)
            and not fnmatch.fnmatchcase(name, _UNFINISHED_MANIFEST)
        ]

    def _in_the_way(self, manifest: Manifest, name: str) -> str | None:
        """Returns the path that prevents a file from being written, or None."""
        if self._local is None:
            return name if name not in manifest.files and files.exists(self.path(name)) else None
        parts = name.split("/")
        for count in range(1, len(parts)):
            inner = "/".join(parts[:count])
            mode = self._mode(inner)
            if mode is None:
                return None
            if not stat.S_ISDIR(mode):
                return inner
        mode = self._mode(name)
        if mode is None or (name in manifest.files and stat.S_ISREG(mode)):
            return None
        return name

    def _there(self, name: str) -> bool:
        return files.exists(self.path(name)) if self._local is None else os.path.lexists(self.path(name))

    def _mode(self, name: str) -> int | None:
        try:
            return os.lstat(self.path(name)).st_mode
        except FileNotFoundError:
            return None

    def _own(self, manifest: Manifest, name: str) -> Written | None:
        """Returns the entry of a file, or None where it is missing, not listed, or has changed since."""
        entries = manifest.files.get(name)
        if not entries:
            return None
        path = self.path(name)
        if self._local is None:
            try:
                size = files.size(path)
            except FileNotFoundError:
                return None
            return next((one for one in entries if one.bytes in (None, size)), None)
        if any(os.path.islink(folder) for folder in self._parents(name)):
            return None
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        stamp, entry = self._seen.get(name, (None, None))
        if stamp == _stamp(status) and entry in entries:
            return entry
        announced = next((one for one in entries if one.sha256 is None), None)
        if announced is not None or not any(one.bytes == status.st_size for one in entries):
            return announced
        digest = files.sha256_of_file(path)
        entry = next((one for one in entries if one.sha256 == digest), None)
        if entry is not None:
            self._seen[name] = (_stamp(status), entry)
        return entry

    def _parents(self, name: str) -> list[pathlib.Path]:
        """Returns the folders between this one and a path in it, the innermost first."""
        return [self.path(one.as_posix()) for one in list(pathlib.PurePosixPath(name).parents)[:-1]]

    # Writing.

    @contextlib.contextmanager
    def held(self, *, overwrite: bool = False, writes: Iterable[str] = ()) -> Iterator[OutputFolder]:
        """Makes and locks the folder and writes its manifest; a context manager.

        A folder that is made here and left empty by an error is removed again.

        Raises:
            EOKerasError: if it is in use, or see `check`.
            StorageError: if it cannot be made.
        """
        writes = tuple(writes)
        self.check(overwrite=overwrite, writes=writes)
        existed = files.is_folder(self.folder)
        files.make_folder(self.folder)
        try:
            with files.FolderLock(self.folder, self._error):
                # Checked again: another process may have written to it before this one took the lock.
                self.check(overwrite=overwrite, writes=writes)
                with self._changing() as manifest:
                    # Unfinished files of a killed process.
                    for name in files.list_names(self.folder) if self._local is not None else ():
                        if fnmatch.fnmatchcase(name, _UNFINISHED_MANIFEST) and self.path(name).is_file():
                            files.remove(self.path(name))
                    if SCRATCH_NAME in manifest.scratch:
                        self._remove_scratch(SCRATCH_NAME)
                        manifest.scratch.remove(SCRATCH_NAME)
                try:
                    self._holding = True
                    yield self
                finally:
                    self._holding = False
                    self.drop_scratch(SCRATCH_NAME)
                    self._forget_if_empty()
        finally:
            if not existed and self._local is not None:
                with contextlib.suppress(OSError):
                    self._local.rmdir()

    def _forget_if_empty(self) -> None:
        manifest = self.manifest()
        if manifest is not None and not (manifest.files or manifest.folders or manifest.scratch):
            files.remove(self.path(MANIFEST_NAME))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Manifest]:
        """Reads the manifest, yields it for changes, and writes it; one process at a time, on a local disk."""
        with contextlib.ExitStack() as stack:
            files.make_folder(self.folder)
            if self._local is not None:
                with files.storage_errors(self._local):
                    descriptor = os.open(self._local, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                with contextlib.suppress(OSError):  # Not every file system has locks.
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = self.manifest()
            if before is None:
                self.check_manifest()
            manifest = Manifest(self.kind) if before is None else before
            old = None if before is None else json.dumps(before.to_json())
            yield manifest
            if json.dumps(manifest.to_json()) != old:
                files.write_json(self.path(MANIFEST_NAME), manifest.to_json())

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Writes files, in the order given.

        Raises:
            StorageError: if the disk is full or the folder may not be written to.
        """
        entries = {name: Written.of_bytes(data) for name, data in contents.items()}
        self._list(entries)
        # Another process that holds the folder removes its own unfinished files, and no others.
        scratch = self.scratch(SCRATCH_NAME) if self._holding and self._local is not None else None
        for name, data in contents.items():
            if self._local is not None:
                files.make_folder(self.path(name).parent)
            with files.atomic_file(self.path(name), scratch=scratch) as file:
                file.write(data)
            self._wrote({name: entries[name]})

    def write_over(self, name: str, data: bytes) -> None:
        """Writes a file, and replaces any file of its name."""
        files.make_folder(self.folder)
        with self._changing() as manifest:
            # A single file belongs to no run or records folder, and is removed by its owner alone.
            if manifest.kind in (FILES, DEMO):
                manifest.files[name] = [Written.of_bytes(data)]
        files.write_bytes(self.path(name), data)

    def move_over(self, name: str, made: pathlib.Path) -> None:
        """Gives a finished file of the same disk its name, and replaces any file of that name."""
        files.make_folder(self.folder)
        with self._changing() as manifest:
            if manifest.kind in (FILES, DEMO):
                manifest.files[name] = [Written.of_file(made)]
        with files.storage_errors(self.path(name)):
            os.replace(made, self.path(name))

    @contextlib.contextmanager
    def new_path(self, name: str, entry: Written | None = None) -> Iterator[pathlib.Path]:
        """Yields a temporary path for a new file or folder, and then moves it to its name; local folders alone.

        Args:
            name: the name.
            entry: the entry of the file, where it is known before.

        Raises:
            StorageError: if the disk is full or the folder may not be written to.
        """
        with self.new_paths() as paths, paths.path(name, entry) as temporary:
            yield temporary

    @contextlib.contextmanager
    def new_paths(self, seconds: float = 0.0) -> Iterator[NewPaths]:
        """Yields temporary paths for many new files, which get their names in groups; local folders alone.

        The manifest is written once a group: once a file, the time of a folder would grow by the square of its files.

        Args:
            seconds: finished files get their names after so long, and at the end, after an error too.

        Raises:
            StorageError: if the disk is full or the folder may not be written to.
        """
        with files.storage_errors(self.folder):
            paths = NewPaths(self, self.scratch(SCRATCH_NAME), seconds)
        try:
            yield paths
        finally:
            paths.publish()

    def _publish(self, made: Mapping[str, tuple[pathlib.Path, Written | None]]) -> None:
        """Lists finished files and folders, and moves them to their names."""
        entries: dict[str, Written] = {}
        for name, (temporary, entry) in made.items():
            inside = {name: temporary}
            if temporary.is_dir():
                found = sorted(path for path in temporary.rglob("*") if path.is_file())
                inside = {f"{name}/{path.relative_to(temporary).as_posix()}": path for path in found}
                self._make_way(name)
            entries |= {inner: entry or Written.of_file(path) for inner, path in inside.items()}
        self._list(entries)
        for name, (temporary, _) in made.items():
            target = self.path(name)
            with files.storage_errors(target):
                files.make_folder(target.parent)
                os.replace(temporary, target)
        self._wrote(entries)

    def link(self, source: str, name: str) -> None:
        """Gives a file of the folder a second name, by a link or, where there are no links, by a copy."""
        path, target = self.path(source), self.path(name)
        manifest = self.manifest()
        entry = manifest.files[source][-1]
        if target.is_file() and not target.is_symlink() and target.samefile(path) and name in manifest.files:
            return
        with self.new_path(name, entry) as temporary:
            try:
                os.link(path, temporary)
            except OSError:  # Not every file system has links.
                shutil.copyfile(path, temporary)

    def announce(self, names: Iterable[str]) -> None:
        """Lists files that others will write, or that grow. Existing files of these names must be listed already.

        Raises:
            EOKerasError: if a file is in the way; of the class given.
        """
        names = tuple(names)
        self.check(overwrite=True, writes=names)
        with self._changing() as manifest:
            for name in names:
                if self._own(manifest, name) is None:
                    self._make_way(name)
                    manifest.files[name] = [Written()]

    def note(self, entries: Mapping[str, Written]) -> None:
        """Lists announced files with their present size and SHA-256."""
        with self._changing() as manifest:
            manifest.files |= {name: [entry] for name, entry in entries.items()}

    def add_folder(self, name: str) -> None:
        """Lists an output folder inside this one, which has a manifest of its own."""
        with self._changing() as manifest:
            if name not in manifest.folders:
                manifest.folders.append(name)

    def scratch(self, name: str) -> Any:
        """Makes a folder inside for unfinished files and returns its path.

        Raises:
            EOKerasError: if a foreign file or folder has that name; of the class given.
        """
        path, manifest = self.path(name), self.manifest()
        if manifest is None or name not in manifest.scratch:
            # A process killed between its making and its listing would leave an empty folder.
            if self._there(name) and (not files.is_folder(path) or os.path.islink(path) or files.list_names(path)):
                raise self._error(
                    path,
                    "this program did not make it, and needs the name",
                    remedy="move it away, or choose another folder",
                )
            with self._changing() as manifest:
                manifest.scratch.append(name)
        files.make_folder(path)
        return path

    def has_scratch(self, name: str) -> bool:
        """Returns whether there is such a folder of unfinished files."""
        manifest = self.manifest()
        return manifest is not None and name in manifest.scratch

    def drop_scratch(self, name: str) -> None:
        """Removes a folder of unfinished files."""
        if self.has_scratch(name):
            self._remove_scratch(name)
            with self._changing() as manifest:
                manifest.scratch.remove(name)

    def _remove_scratch(self, name: str) -> None:
        path = self.path(name)
        if self._local is not None and os.path.islink(path):
            return
        theirs = [one for one in files.list_names(path) if not any(fnmatch.fnmatchcase(one, own) for own in _OWN)]
        if self._local is not None and theirs:
            kept = _free_name(path)
            files.make_folder(kept)
            for one in theirs:
                os.rename(path / one, kept / one)
            self.warnings.append(f"{path}: holds what this program did not write; kept in {kept.name}")
        # First, so that a process killed in between leaves no part of a state that is taken for a whole one.
        files.remove(files.join(path, DESCRIPTION_NAME))
        files.remove(path)

    def _list(self, entries: Mapping[str, Written]) -> None:
        """Lists files that are about to be written; foreign files of their names are renamed."""
        with self._changing() as manifest:
            for name, entry in entries.items():
                before = self._own(manifest, name)
                if before is None:
                    self._make_way(name)
                # Until it is replaced, the old file is listed too.
                manifest.files[name] = [entry] if before in (None, entry) else [before, entry]

    def _make_way(self, name: str) -> None:
        if self._local is None:
            return  # `check` has refused files that are not listed.
        obstacle = self._in_the_way(Manifest(self.kind), name)
        if obstacle is None:
            return
        path = self.path(obstacle)
        kept = _free_name(path)
        with files.storage_errors(path):
            os.rename(path, kept)
        self.warnings.append(f"{path}: not as this program wrote it; kept as {kept.name}")

    def _wrote(self, entries: Mapping[str, Written]) -> None:
        if self._local is not None:
            for name, entry in entries.items():
                self._seen[name] = (_stamp(os.lstat(self.path(name))), entry)

    # Removing.

    def remove(self, names: Iterable[str]) -> None:
        """Removes files that the manifest lists and that are unchanged, and no others."""
        if self.manifest() is None:
            return
        with self._changing() as manifest:
            names = [name for name in names if name in manifest.files]
            for name in names:
                if self._own(manifest, name) is not None:
                    files.remove(self.path(name))
                # A changed file stays listed: where its name is needed, it is kept under another one.
                if not self._there(name):
                    del manifest.files[name]
                    self._seen.pop(name, None)
        self._remove_empty_folders(names)

    def clear(self, *, first: Iterable[str] = (), kept: Callable[[str], bool] = lambda name: False) -> None:
        """Removes all unchanged files that the manifest lists, and adds the others to the warnings.

        Args:
            first: files to remove before all others, so that what a kill leaves does not look whole.
            kept: returns whether a file stays.
        """
        manifest = self.manifest()
        if manifest is None:
            return
        first = [name for name in first if name in manifest.files and not kept(name)]
        if first:
            self.remove(first)
        for name in sorted(manifest.folders, key=len, reverse=True):
            self._clear_folder(name)
        self.remove([name for name in manifest.files if name not in first and not kept(name)])
        with self._changing() as manifest:
            manifest.folders = [name for name in manifest.folders if self._there(f"{name}/{MANIFEST_NAME}")]

    def _clear_folder(self, name: str) -> None:
        path = self.path(name)
        if self._local is None or any(map(os.path.islink, (path, *self._parents(name)))) or not os.path.isdir(path):
            return
        inner = OutputFolder(path, self.kind, self._error)
        manifest = inner.manifest()
        if manifest is None:
            return
        with files.FolderLock(path, self._error):
            inner.clear()
            for scratch in manifest.scratch:
                inner.drop_scratch(scratch)
            inner._forget_if_empty()
        with contextlib.suppress(OSError):
            os.rmdir(path)
        self._remove_empty_folders([name])

    def _remove_empty_folders(self, names: Iterable[str]) -> None:
        if self._local is None:
            return
        parents = {parent for name in names for parent in self._parents(name)}
        for parent in sorted(parents, key=lambda one: len(one.parts), reverse=True):
            with contextlib.suppress(OSError):  # It is not empty, or a link.
                parent.rmdir()

    def tell_foreign(self) -> None:
        """Adds a warning that names the foreign files of the folder."""
        names = [name for name in self.foreign() if not any(map(_is_beside, name.split("/")))]
        if names:
            shown = ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            self.warnings.append(
                f"{self.folder}: not written by this program, or changed since, and left alone: {shown}"
            )

    def take_warnings(self) -> list[str]:
        """Returns the warnings so far, and removes them."""
        taken, self.warnings = self.warnings, []
        return taken


class NewPaths:
    """Temporary paths of files that get their names in groups, see `OutputFolder.new_paths`.

    Args:
        output: the folder.
        scratch: its folder of unfinished files.
        seconds: time after which finished files get their names.
    """

    def __init__(self, output: OutputFolder, scratch: pathlib.Path, seconds: float):
        self._output, self._scratch, self._seconds = output, scratch, seconds
        self._made: dict[str, tuple[pathlib.Path, Written | None]] = {}
        self._last = time.monotonic()

    @contextlib.contextmanager
    def path(self, name: str, entry: Written | None = None) -> Iterator[pathlib.Path]:
        """Yields a temporary path for a new file or folder; what an error leaves there is dropped.

        Args:
            name: the name that it gets.
            entry: the entry of the file, where it is known before.
        """
        target = self._output.path(name)
        with files.storage_errors(target):
            folder = pathlib.Path(tempfile.mkdtemp(dir=self._scratch))
            try:
                yield folder / target.name
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        self._made[name] = (folder / target.name, entry)
        if time.monotonic() - self._last >= self._seconds:
            self.publish()

    def publish(self) -> None:
        """Gives all finished files their names."""
        made, self._made = self._made, {}
        try:
            if made:
                with files.storage_errors(self._output.folder):
                    self._output._publish(made)
        finally:
            for temporary, _ in made.values():
                shutil.rmtree(temporary.parent, ignore_errors=True)
            self._last = time.monotonic()


def _is_beside(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _BESIDE)


def _free_name(path: pathlib.Path) -> pathlib.Path:
    number = 1
    while os.path.lexists(kept := path.with_name(f"{path.name}.kept-{number}")):
        number += 1
    return kept


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns
