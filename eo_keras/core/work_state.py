"""State of unfinished work in its output folder, from which work that was killed is resumed.

Its folder holds `build.json` and `sources.json`, which describe the work and its inputs, and a file for every finished
unit. It is removed when the output is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eo_keras.core import files
from eo_keras.core.output_folders import DESCRIPTION_NAME, SCRATCH_NAME, OutputFolder
from eo_keras.errors import EOKerasError

_SOURCES, _REFUSED = "sources.json", "refused.json"
_LONGEST = 60
_TITLES = {
    "program": "the program's version",
    "state_layout": "the layout of unfinished builds",
    "source_name": "the source's name",
}
"""Names of fields in messages, where they differ from those in the code."""


class WorkState:
    """State of the work in an output folder.

    Args:
        output: the output folder.
        name: name of the state's folder in it.
        work: name of such work, for errors.
        error: class of errors about it.
    """

    def __init__(self, output: OutputFolder, name: str, work: str, error: type[EOKerasError]):
        """Sets the folder; nothing is written."""
        self.output, self._name, self._work, self._error = output, name, work, error
        self.folder = os.fspath(output.path(name))

    def description(self) -> dict[str, Any] | None:
        """Returns the description of the unfinished work, or None where there is none or it cannot be read."""
        return self._load(DESCRIPTION_NAME) if self.output.has_scratch(self._name) else None

    def _load(self, name: str) -> Any:
        try:
            return json.loads(files.read_bytes(files.join(self.folder, name)))
        except (OSError, ValueError):
            return None

    def begin(self, description: Mapping[str, Any], sources: Mapping[str, Any], *, overwrite: bool) -> tuple[str, ...]:
        """Continues the work of this description, or begins it.

        Args:
            description: the options; two equal ones of the same sources give the same output.
            sources: for each input file, a value that changes with it, such as its size and time.
            overwrite: whether unfinished work on something else may be removed.

        Returns:
            The sources that an earlier call has refused and that have changed since; results stored of them are out
            of date.

        Raises:
            EOKerasError: of the class given, if there is unfinished work on something else and it may not be given up.
        """
        # As they are read back: without tuples.
        description, sources = (json.loads(json.dumps(content)) for content in (description, sources))
        unfinished, known, refused = self.description(), self._load(_SOURCES), self._load(_REFUSED) or []
        changed = _changed(known or {}, sources)
        same = unfinished == description
        if same and known is not None and set(changed) <= set(refused):
            if changed:
                files.write_json(files.join(self.folder, _SOURCES), sources)
            return tuple(changed)
        # Without the list of sources, units of the same work cannot be trusted: it starts over.
        if unfinished is not None and not (same and known is None) and not overwrite:
            found = _differences(unfinished, description)
            raise self._error(
                self.output.folder,
                f"the folder holds an unfinished {self._work} of something else "
                f"({found or _changes_text(changed, known or {}, sources)})",
                "the same source and flags",
                "undo the change and call it as before, choose another folder, or begin again with `overwrite`",
            )
        self.remove()
        self.output.scratch(self._name)
        files.write_json(files.join(self.folder, _SOURCES), sources)
        files.write_json(files.join(self.folder, DESCRIPTION_NAME), description)
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
        for name in (SCRATCH_NAME, self._name):
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
