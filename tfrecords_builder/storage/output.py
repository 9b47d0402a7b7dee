"""Output folder of a build: checks of its content, its lock, and the report of a build."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Set

from eo_keras.core import files
from eo_keras.core.output_folders import OutputFolder
from eo_keras.errors import RecordsError
from eo_keras.records import data_card as cards
from eo_keras.records import tfds_metadata
from tfrecords_builder.storage.state import STATE_FOLDER

KIND = "records folder"

_NAMES = (cards.DATA_CARD_NAME, *tfds_metadata.FILE_NAMES)


@dataclasses.dataclass(frozen=True)
class BuildReport:
    """Report of a build.

    Attributes:
        card: the records folder's card; in a dry run without shards.
        seconds: time taken, by stage.
        planned_shards: number of shards by split.
        kept_shards: number of shards that an earlier call had finished.
        warnings: lines for the user.
    """

    card: cards.DataCard
    seconds: dict[str, float]
    planned_shards: dict[str, int]
    kept_shards: int
    warnings: tuple[str, ...]


def resolved(output_dir: str | os.PathLike[str]) -> str:
    """Returns the folder's absolute path, or its URL."""
    return files.absolute(output_dir)


def folder(output_dir: str) -> OutputFolder:
    """Returns the output folder of a build."""
    return OutputFolder(output_dir, KIND, RecordsError)


@contextlib.contextmanager
def held(output_dir: str, *, overwrite: bool) -> Iterator[OutputFolder]:
    """Makes and locks the output folder for one build; a context manager.

    Raises:
        RecordsError: if it holds something else, or another process is writing to it.
        StorageError: if it cannot be made.
    """
    check(output_dir, overwrite=overwrite)
    with folder(output_dir).held(overwrite=overwrite, writes=_NAMES) as output:
        # Looked at again, for another process may have finished its build before this one took the lock.
        check(output_dir, overwrite=overwrite)
        yield output


def check(output_dir: str, *, overwrite: bool) -> None:
    """Checks that a folder holds no other build and no foreign files.

    Raises:
        RecordsError: if it does.
    """
    output = folder(output_dir)
    output.check(overwrite=overwrite, writes=_NAMES)
    # With the state still there, the build was killed when all but this had been removed.
    if output.lists(cards.DATA_CARD_NAME) and not output.has_scratch(STATE_FOLDER) and not overwrite:
        raise RecordsError(
            output_dir,
            "the folder holds another build",
            "an empty folder, or none yet",
            "choose another folder, or replace that build with `overwrite`",
        )


def clear(output: OutputFolder, kept: Set[str], planned: Iterable[str]) -> None:
    """Removes an earlier or unfinished build, its card first: a folder without a card is incomplete.

    Args:
        output: the folder.
        kept: names of shards that stay.
        planned: names of all shards that will be written; they are listed from now on.

    Raises:
        RecordsError: if a file of such a name is not a build's.
    """
    planned = tuple(planned)
    output.check(overwrite=True, writes=planned)
    output.clear(first=(cards.DATA_CARD_NAME,), kept=kept.__contains__)
    output.tell_foreign()
    output.announce(planned)


def finish(output: OutputFolder, card: cards.DataCard) -> None:
    """Writes the metadata files of TensorFlow Datasets, and the card last."""
    output.write(tfds_metadata.contents(card) | cards.contents(card))
