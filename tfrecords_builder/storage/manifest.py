"""Writing of all shards, and the state's entry of a finished one: length, SHA-256 and histograms."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from eo_keras.core import engines, files
from eo_keras.core.manifests import Written
from eo_keras.errors import RecordsError
from eo_keras.records import data_card as cards
from eo_keras.records.statistics import Histograms
from tfrecords_builder.storage import output
from tfrecords_builder.storage.state import BuildState, load_arrays, save_arrays


class ShardUnit(Protocol):
    """One shard to write; `len` of it is the number of its records."""

    name: str

    def __len__(self) -> int:
        """Returns the number of records."""

    def digest(self) -> str:
        """Returns a hash over the planned content of the shard."""


def write_all(
    engine: engines.Engine,
    write_shard: Callable[[Any, Any], None],
    context: Any,
    units: Sequence[ShardUnit],
    state: BuildState,
    histograms: Mapping[str, Histograms],
    progress: Callable[[str, int, int], None] | None,
) -> tuple[list[cards.Shard], int]:
    """Writes the shards that an earlier call has not finished.

    Args:
        engine: the engine of the units.
        write_shard: writes the shard of a unit, given the context, and notes it.
        context: values that all units share.
        units: the shards.
        state: the build's state in the output folder.
        histograms: by modality, to which the counts of all shards are added.
        progress: called with ("writing", records done, records in all).

    Returns:
        The shards' entries in the card, and how many were there already.

    Raises:
        RecordsError: if a file of a shard's name is not a build's.
        SourceError: if what the records are made of has changed.
        StorageError: if the disk is full.
    """
    state_dir = state.folder
    kept = {unit.name for unit in units if is_noted(state_dir, unit.name, unit.digest())}
    output.clear(state.output, kept, [unit.name for unit in units])
    total, done = sum(map(len, units)), 0
    for position in engine.run(write_shard, context, units):
        done += len(units[position])
        if progress:
            progress("writing", done, total)
    entries = []
    for unit in units:
        entry, found = read(state_dir, unit.name, len(unit), histograms)
        entries.append(entry)
        for modality, counted in found.items():
            histograms[modality].merge(counted)
    state.output.note({entry.name: Written(entry.bytes, entry.sha256) for entry in entries})
    return entries, len(kept)


def note(state_dir: str, name: str, digest: str, size: int, sha256: str, histograms: Mapping[str, Histograms]) -> None:
    """Records in the state that a shard has been written.

    Args:
        state_dir: folder of the build's state.
        name: the shard's file name.
        digest: hash over what the shard was to hold.
        size: its bytes.
        sha256: its SHA-256.
        histograms: the counts of its numbers by modality; empty where they are not counted.
    """
    arrays = {"unit": np.array(digest), "bytes": np.array(size), "sha256": np.array(sha256)}
    for modality, counted in histograms.items():
        places = np.flatnonzero(counted.counts)
        arrays |= {
            f"{modality}.places": places,
            f"{modality}.counts": counted.counts.ravel()[places],
            f"{modality}.nodata": np.array(counted.nodata),
        }
    save_arrays(_path(state_dir, name), arrays)


def is_noted(state_dir: str, name: str, digest: str) -> bool:
    """Tells whether the state records a written shard of this content; it may have been damaged since."""
    found = load_arrays(_path(state_dir, name))
    return found is not None and str(found["unit"]) == digest


def is_whole(state_dir: str, output_dir: str, name: str, digest: str) -> bool:
    """Tells whether a shard of this content has been written and is complete, by its length and SHA-256."""
    found = load_arrays(_path(state_dir, name))
    if found is None or str(found["unit"]) != digest:
        return False
    path = files.join(output_dir, name)
    try:
        return files.size(path) == int(found["bytes"]) and files.sha256_of_file(path) == str(found["sha256"])
    except FileNotFoundError:
        return False


def read(
    state_dir: str, name: str, examples: int, like: Mapping[str, Histograms]
) -> tuple[cards.Shard, dict[str, Histograms]]:
    """Returns the state's entry of a written shard.

    Args:
        state_dir: folder of the build's state.
        name: the shard's file name.
        examples: number of its records.
        like: by modality, histograms of as many bands, of numbers of the same type.

    Returns:
        The shard's entry in the card, and the counts of its numbers.

    Raises:
        RecordsError: if it is gone.
    """
    found = load_arrays(_path(state_dir, name))
    if found is None:
        raise RecordsError(
            _path(state_dir, name),
            "the entry of a finished shard has been lost",
            remedy="keep other programs out of the output folder, and run the same command again",
        )
    histograms = {}
    for modality, model in like.items():
        counted = histograms[modality] = copy.copy(model)
        counted.counts, counted.nodata = np.zeros_like(model.counts), int(found[f"{modality}.nodata"])
        np.put(counted.counts, found[f"{modality}.places"], found[f"{modality}.counts"])
    return cards.Shard(name, examples, int(found["bytes"]), str(found["sha256"])), histograms


def _path(state_dir: str, name: str) -> str:
    return files.join(state_dir, f"{name}.npz")
