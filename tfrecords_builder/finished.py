"""What a build's state holds about a finished shard: its length, its SHA-256, and the histograms of its numbers."""

from __future__ import annotations

import numpy as np

from eo_keras import cards, files
from eo_keras.errors import RecordsError
from tfrecords_builder.state import load_arrays, save_arrays
from tfrecords_builder.statistics import Histograms


def note(state_dir: str, name: str, digest: str, size: int, sha256: str, histograms: Histograms) -> None:
    """Notes that a shard has been written.

    Args:
        state_dir: folder of the build's state.
        name: the shard's file name.
        digest: hash over what the shard was to hold.
        size: its bytes.
        sha256: its SHA-256.
        histograms: the counts of its numbers; empty where they are not counted.
    """
    places = np.flatnonzero(histograms.counts)
    save_arrays(
        _path(state_dir, name),
        {
            "unit": np.array(digest),
            "bytes": np.array(size),
            "sha256": np.array(sha256),
            "places": places,
            "counts": histograms.counts.ravel()[places],
        },
    )


def is_noted(state_dir: str, name: str, digest: str) -> bool:
    """Tells whether the state says that a shard of just this content has been written; it may be damaged since."""
    found = load_arrays(_path(state_dir, name))
    return found is not None and str(found["unit"]) == digest


def is_whole(state_dir: str, output_dir: str, name: str, digest: str) -> bool:
    """Tells whether a shard has been written, of just this content, and is whole by its length and SHA-256."""
    found = load_arrays(_path(state_dir, name))
    if found is None or str(found["unit"]) != digest:
        return False
    path = files.join(output_dir, name)
    try:
        return files.size(path) == int(found["bytes"]) and files.sha256_of_file(path) == str(found["sha256"])
    except FileNotFoundError:
        return False


def read(state_dir: str, name: str, examples: int, bands: int, dtype: str) -> tuple[cards.Shard, np.ndarray]:
    """Returns what the state holds about a shard that has been written.

    Args:
        state_dir: folder of the build's state.
        name: the shard's file name.
        examples: number of its records.
        bands: number of bands.
        dtype: type of the numbers.

    Returns:
        The shard's entry in the card, and the counts of its numbers as `Histograms` holds them.

    Raises:
        RecordsError: if it is gone.
    """
    found = load_arrays(_path(state_dir, name))
    if found is None:
        raise RecordsError(
            _path(state_dir, name),
            "what is known about a finished shard has been lost",
            remedy="keep other programs out of the output folder, and run the same command again",
        )
    histograms = Histograms(bands, dtype)
    np.put(histograms.counts, found["places"], found["counts"])
    return cards.Shard(name, examples, int(found["bytes"]), str(found["sha256"])), histograms.counts


def _path(state_dir: str, name: str) -> str:
    return files.join(state_dir, f"{name}.npz")
