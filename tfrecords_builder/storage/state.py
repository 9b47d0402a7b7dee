"""State of an unfinished build in its output folder, from which a killed build is resumed.

The folder `.build` holds `build.json` and `sources.json`, which describe the build and its inputs, a file for every
unit of the scan, and a file for every finished shard. It is removed when the card has been written.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras.core import files
from eo_keras.core.output_folders import SCRATCH_NAME, OutputFolder
from eo_keras.errors import RecordsError, StorageError

STATE_FOLDER = ".build"

_DESCRIPTION, _SOURCES, _REFUSED = "build.json", "sources.json", "refused.json"
_LONGEST = 60
_TITLES = {
    "program": "the program's version",
    "state_layout": "the layout of unfinished builds",
    "source_name": "the source's name",
}
"""Names of fields in messages, where they differ from those in the code."""


class BuildState:
    """State of the build in an output folder.

    Args:
        output: the records folder.
    """

    LAYOUT = 2
    """Version of the state's files; a state of another version is refused."""

    def __init__(self, output: OutputFolder):
        """Sets the folder; nothing is written."""
        self.output = output
        self.folder = os.fspath(output.path(STATE_FOLDER))

    def description(self) -> dict[str, Any] | None:
        """Returns the description of the unfinished build, or None where there is none or it cannot be read."""
        return self._load(_DESCRIPTION) if self.output.has_scratch(STATE_FOLDER) else None

    def _load(self, name: str) -> Any:
        try:
            return json.loads(files.read_bytes(files.join(self.folder, name)))
        except (OSError, ValueError):
            return None

    def begin(self, description: Mapping[str, Any], sources: Mapping[str, Any], *, overwrite: bool) -> tuple[str, ...]:
        """Continues the build of this description, or begins it.

        Args:
            description: the options; two equal ones of the same sources give the same bytes.
            sources: for each input file, a value that changes with it, such as its size and time.
            overwrite: whether an unfinished build of something else may be removed.

        Returns:
            The sources that an earlier call has refused and that have changed since; results stored of them are out
            of date.

        Raises:
            RecordsError: if there is an unfinished build of something else and it may not be given up.
        """
        # As they are read back: without tuples.
        description, sources = (json.loads(json.dumps(content)) for content in (description, sources))
        unfinished, known, refused = self.description(), self._load(_SOURCES), self._load(_REFUSED) or []
        changed = _changed(known or {}, sources)
        if unfinished == description and known is not None and set(changed) <= set(refused):
            if changed:
                files.write_json(files.join(self.folder, _SOURCES), sources)
            return tuple(changed)
        if unfinished is not None and not overwrite:
            found = _differences(unfinished, description)
            raise RecordsError(
                self.output.folder,
                "the folder holds an unfinished build of something else "
                f"({found or _changes_text(changed, known or {}, sources)})",
                "the same source and flags",
                "undo the change and call it as before, choose another folder, or begin again with `overwrite`",
            )
        self.remove()
        self.output.scratch(STATE_FOLDER)
        files.write_json(files.join(self.folder, _SOURCES), sources)
        files.write_json(files.join(self.folder, _DESCRIPTION), description)
        return ()

    def note_refused(self, sources: Iterable[str]) -> None:
        """Records sources that a unit has refused, so that their changed files are accepted later."""
        files.write_json(files.join(self.folder, _REFUSED), sorted(sources))

    def forget(self, beginnings: tuple[str, ...]) -> None:
        """Removes the files of units by the prefix of their names, since their sources have changed."""
        for name in files.list_names(self.folder):
            if name.startswith(beginnings):
                files.remove(files.join(self.folder, name))

    def remove(self) -> None:
        """Removes the state, after all other unfinished files: a folder without it is complete."""
        for name in (SCRATCH_NAME, STATE_FOLDER):
            self.output.drop_scratch(name)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def _changes_text(changed: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any], others: str = "files") -> str:
    """Returns a text on the inputs that have changed."""
    if not changed:
        return "by another version of the program"
    name = changed[0]
    found = f"{name} has changed since"
    if name not in new:
        found = f"{name} is gone"
    elif name not in old:
        found = f"{name} is new"
    return found + (f", and {len(changed) - 1:,} other {others}" if len(changed) > 1 else "")


def _differences(old: Any, new: Any, name: str = "") -> str:
    """Returns a text on the options that differ; an empty one where none does."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = [_differences(old.get(key), new.get(key), key) for key in {**old, **new}]
        return ", ".join(filter(None, found))
    if old == new:
        return ""
    if isinstance(old, list) and isinstance(new, list) and any(isinstance(item, dict) for item in (*old, *new)):
        named = [{f"{name} {item.get('name')}": item for item in part} for part in (old, new)]
        return _changes_text(_changed(*named), *named, "entries")
    if max(len(_value(old)), len(_value(new))) > _LONGEST:
        return f"{_TITLES.get(name, f'`{name}`')} has changed"
    return f"{_TITLES.get(name, f'`{name}`')} was {_value(old)}, is now {_value(new)}"


def _value(value: Any) -> str:
    if value is None:
        return "not given"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def save_arrays(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to a file of the state; a file that a power failure cut counts as not written."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    files.write_bytes(path, buffer.getvalue(), durable=False)


def load_arrays(path: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a file of the state, or None where it is absent or incomplete."""
    try:
        with np.load(io.BytesIO(files.read_bytes(path)), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except StorageError:
        raise
    except Exception:  # A torn file makes the zip and the array reader raise anything.
        return None
