"""What an unfinished build keeps in its output folder, so that it can be killed at any moment and called again.

The folder `.build` holds `build.json`, which says what is being built from what, a file for every unit of the scan, and
a file for every finished shard. It is removed when the card has been written.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from eo_keras import files
from eo_keras.errors import RecordsError, StorageError
from eo_keras.output_folders import OutputFolder

STATE_FOLDER = ".build"

_DESCRIPTION = "build.json"


class BuildState:
    """The state of the build in an output folder.

    Args:
        output: the records folder.
    """

    def __init__(self, output: OutputFolder):
        """See the class."""
        self.output = output
        self.folder = os.fspath(output.path(STATE_FOLDER))

    def description(self) -> dict[str, Any] | None:
        """Returns what was being built, or None where nothing was or its description cannot be read."""
        if not self.output.has_scratch(STATE_FOLDER):
            return None
        try:
            return json.loads(files.read_bytes(files.join(self.folder, _DESCRIPTION)))
        except (FileNotFoundError, ValueError):
            return None

    def begin(self, description: Mapping[str, Any], *, overwrite: bool) -> None:
        """Goes on with the build of this description, or begins it.

        Args:
            description: what is built from what; two equal ones give the same bytes.
            overwrite: whether an unfinished build of another description may be given up.

        Raises:
            RecordsError: if there is one and it may not.
        """
        unfinished = self.description()
        if unfinished == description:
            return
        if unfinished is not None and not overwrite:
            difference = _first_difference(unfinished, description)
            raise RecordsError(
                self.output.folder,
                f"the folder holds an unfinished build of something else ({difference})",
                "the same source and flags, to go on with it",
                "call it as before, choose another folder, or begin anew with --overwrite",
            )
        self.remove()
        self.output.scratch(STATE_FOLDER)
        files.write_json(files.join(self.folder, _DESCRIPTION), description)

    def remove(self) -> None:
        """Removes the state."""
        self.output.drop_scratch(STATE_FOLDER)


def _first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for name in [*old, *new]:
        if old.get(name) != new.get(name):
            if name == "source":
                return "the source has changed since"
            return f"{name} was {old.get(name)}, is now {new.get(name)}"
    return "its layout differs"


def save_arrays(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to a file of the state. What a power failure leaves of it counts as not written."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    files.write_bytes(path, buffer.getvalue(), durable=False)


def load_arrays(path: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a file of the state, or None where it is absent or not whole."""
    try:
        with np.load(io.BytesIO(files.read_bytes(path)), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except StorageError:
        raise
    except Exception:  # A torn file makes the zip and the array reader raise anything.
        return None
