"""State of an unfinished build in its output folder, from which a killed build is resumed.

The folder `.build` holds a file for every unit of the scan, and a file for every finished shard.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from eo_keras.core import files
from eo_keras.core.output_folders import OutputFolder
from eo_keras.core.work_state import WorkState
from eo_keras.errors import RecordsError, StorageError

STATE_FOLDER = ".build"


class BuildState(WorkState):
    """State of the build in an output folder.

    Args:
        output: the records folder.
    """

    LAYOUT = 2
    """Version of the state's files; a state of another version is refused."""

    def __init__(self, output: OutputFolder):
        super().__init__(output, STATE_FOLDER, "build", RecordsError)


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
