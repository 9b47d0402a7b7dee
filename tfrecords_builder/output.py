"""The folder that a build writes to: what may be in it, who holds it, and what a build comes to."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator

from eo_keras import cards, engines, files
from eo_keras.errors import OptionError, RecordsError
from tfrecords_builder import tfds_metadata
from tfrecords_builder.state import STATE_FOLDER

ENGINES = ("local", "beam")

_SHARD_NAME = re.compile(r".+\.tfrecord-\d{5}-of-\d{5}")


@dataclasses.dataclass(frozen=True)
class BuildReport:
    """What a build came to.

    Attributes:
        card: the records folder's card; in a dry run without shards.
        seconds: time taken, by stage.
        planned_shards: number of shards by split.
        kept_shards: number of shards that an earlier call had finished.
        warnings: what the user should look at.
    """

    card: cards.DataCard
    seconds: dict[str, float]
    planned_shards: dict[str, int]
    kept_shards: int
    warnings: tuple[str, ...]


def resolved(output_dir: str | os.PathLike[str]) -> str:
    """Returns the folder's path from the root on, which means the same to every worker, or its URL."""
    return files.absolute(output_dir)


@contextlib.contextmanager
def held(output_dir: str, *, overwrite: bool) -> Iterator[None]:
    """Makes and holds the output folder for one build, as a context.

    Raises:
        RecordsError: if it holds something else, or another process is writing to it.
        StorageError: if it cannot be made.
    """
    check(output_dir, overwrite=overwrite)
    existed = files.is_folder(output_dir)
    files.make_folder(output_dir)
    try:
        with files.FolderLock(output_dir, RecordsError):
            # Looked at again, for another process may have finished its build before this one took the lock.
            check(output_dir, overwrite=overwrite)
            yield
    finally:
        # What is left after a refusal is nobody's build.
        if not existed and not files.list_names(output_dir):
            files.remove(output_dir)


def check(output_dir: str, *, overwrite: bool) -> None:
    """Refuses a folder that holds another build or anything that no build leaves behind.

    Raises:
        RecordsError: if it does.
    """
    if not files.is_folder(output_dir):
        if files.exists(output_dir):
            raise RecordsError(
                output_dir, "there is a file of this name", "a folder, or nothing", "choose another folder"
            )
        return
    names = files.list_names(output_dir)
    if foreign := [name for name in names if not _is_ours(name)]:
        raise RecordsError(
            output_dir,
            f"the folder holds {foreign[0]!r}, which is no part of a build",
            "an empty folder, or none yet",
            "choose another folder",
        )
    # With the state still there, the build was killed when all but this had been removed.
    if cards.DATA_CARD_NAME in names and STATE_FOLDER not in names and not overwrite:
        raise RecordsError(
            output_dir,
            "the folder holds another build",
            "an empty folder, or none yet",
            "choose another folder, or replace that build with --overwrite",
        )


def _is_ours(name: str) -> bool:
    return (
        name in (cards.DATA_CARD_NAME, STATE_FOLDER, files.FolderLock.NAME, *tfds_metadata.FILE_NAMES)
        or name.startswith(files.TEMPORARY_PREFIX)
        or _SHARD_NAME.fullmatch(name) is not None
    )


def clear(output_dir: str, kept: set[str]) -> None:
    """Removes an earlier build or an unfinished one's remains, the card first: without it, nothing looks whole."""
    kept = {*kept, STATE_FOLDER, files.FolderLock.NAME}
    others = [name for name in files.list_names(output_dir) if name not in kept]
    for name in sorted(others, key=lambda name: name != cards.DATA_CARD_NAME):
        files.remove(files.join(output_dir, name))


def check_work(
    *, shard_mb: float, num_workers: int, engine: str, beam_options: tuple[str, ...], paths: tuple[str, ...]
) -> None:
    """Checks the options that say how a build is run.

    Args:
        shard_mb: size of a shard in megabytes.
        num_workers: number of processes.
        engine: one of `ENGINES`.
        beam_options: options of Apache Beam.
        paths: what is read and written.

    Raises:
        OptionError: if they cannot work; the flag is named.
    """
    if not shard_mb > 0:
        raise OptionError("--shard_mb", f"{shard_mb:g}", "a size above 0 megabytes")
    if num_workers < 1:
        raise OptionError("--num_workers", str(num_workers), "at least 1 process")
    if engine not in ENGINES:
        raise OptionError("--engine", f"'{engine}' is unknown", f"one of {', '.join(ENGINES)}")
    if beam_options and engine != "beam":
        raise OptionError("--beam_option", f"it says nothing to --engine={engine}", "--engine=beam")
    in_memory = [path for path in paths if str(path).startswith("memory://")]
    if in_memory and (num_workers > 1 or engine != "local"):
        raise OptionError(
            in_memory[0],
            "files in memory are seen by one process alone",
            "--engine=local --num_workers=1, or another file system",
        )


def make_engine(engine: str, num_workers: int, beam_options: tuple[str, ...], prepare=None) -> engines.Engine:
    """Returns the engine of a name; `prepare` is called in local worker processes at once."""
    if engine == "beam":
        return engines.BeamEngine(beam_options, num_workers)
    return engines.LocalEngine(num_workers, prepare)
