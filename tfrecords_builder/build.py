"""From a source archive to a records folder: scan, split, plan, write the shards, and the card last.

A folder with a card is whole. The same options over the same source give byte-identical files for any number of
workers.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eo_keras import cards, engines, files
from eo_keras.errors import OptionError, RecordsError, SourceError
from tfrecords_builder import plan, scan, shards, splits, statistics, tfds_metadata
from tfrecords_builder.sources import SOURCES
from tfrecords_builder.sources.eurosat import GUARD_MIN_PATCHES, EuroSAT, band_order_problem

_SHARD_NAME = re.compile(r".+\.tfrecord-\d{5}-of-\d{5}")


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What to build.

    Attributes:
        dataset: a name of `tfrecords_builder.sources.SOURCES`.
        source: the archive: a zip, a folder holding its root, or the folder of class folders.
        output_dir: the records folder to make.
        split: who is train, val and test.
        shard_mb: size of a shard in megabytes (10^6 bytes).
        num_workers: number of processes.
        overwrite: whether to replace a build that is already in `output_dir`.
    """

    dataset: str
    source: str
    output_dir: str
    split: splits.SplitOptions = splits.SplitOptions()
    shard_mb: float = 16.0
    num_workers: int = 1
    overwrite: bool = False


@dataclasses.dataclass(frozen=True)
class BuildReport:
    """What a build came to.

    Attributes:
        card: the records folder's card; in a dry run without shards.
        seconds: time taken, by stage.
        planned_shards: number of shards by split.
        warnings: what the user should look at.
    """

    card: cards.DataCard
    seconds: dict[str, float]
    planned_shards: dict[str, int]
    warnings: tuple[str, ...]


def build(
    options: BuildOptions,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    dry_run: bool = False,
) -> BuildReport:
    """Builds a records folder.

    Args:
        options: what to build.
        progress: called with (stage, done, total) as the work goes on.
        dry_run: scan, split and plan, but write nothing.

    Raises:
        OptionError: if the options cannot work together.
        SourceError: if the source or a patch of it cannot be used, or its bands are in another order.
        RecordsError: if the output folder holds something else, or another process is writing to it.
        StorageError: if the output cannot be written.
    """
    _check_options(options)
    if dry_run:
        _check_output(pathlib.Path(options.output_dir), options.overwrite)
        return _build(options, progress, dry_run=True)
    output_dir = pathlib.Path(options.output_dir)
    _check_output(output_dir, options.overwrite)
    existed = output_dir.is_dir()
    files.make_folder(output_dir)
    try:
        with files.FolderLock(output_dir, RecordsError):
            # Looked at again, for another process may have finished its build before this one took the lock.
            _check_output(output_dir, options.overwrite)
            return _build(options, progress, dry_run=False)
    except BaseException:
        if not existed and not any(output_dir.iterdir()):
            output_dir.rmdir()
        raise


def _check_options(options: BuildOptions) -> None:
    if options.dataset not in SOURCES:
        raise OptionError("--dataset", f"'{options.dataset}' is unknown", f"one of {', '.join(SOURCES)}")
    if not options.shard_mb > 0:
        raise OptionError("--shard_mb", f"{options.shard_mb:g}", "a size above 0 megabytes")
    if options.num_workers < 1:
        raise OptionError("--num_workers", str(options.num_workers), "at least 1 process")
    splits.check_options(options.split)


def _is_ours(name: str) -> bool:
    return (
        name in (cards.DATA_CARD_NAME, files.FolderLock.NAME, *tfds_metadata.FILE_NAMES)
        or name.startswith(files.TEMPORARY_PREFIX)
        or _SHARD_NAME.fullmatch(name) is not None
    )


def _check_output(output_dir: pathlib.Path, overwrite: bool) -> None:
    """Refuses a folder that holds another build or anything that no build leaves behind."""
    if not output_dir.exists():
        return
    if not output_dir.is_dir():
        raise RecordsError(output_dir, "there is a file of this name", "a folder, or nothing", "choose another folder")
    names = sorted(path.name for path in output_dir.iterdir())
    if foreign := [name for name in names if not _is_ours(name)]:
        raise RecordsError(
            output_dir,
            f"the folder holds {foreign[0]!r}, which is no part of a build",
            "an empty folder, or none yet",
            "choose another folder",
        )
    if cards.DATA_CARD_NAME in names and not overwrite:
        raise RecordsError(
            output_dir,
            "the folder holds another build",
            "an empty folder, or none yet",
            "choose another folder, or replace that build with --overwrite",
        )


def _build(options: BuildOptions, progress, *, dry_run: bool) -> BuildReport:
    source = SOURCES[options.dataset]
    context = scan.SourceContext(options.dataset, options.source)
    started = time.monotonic()
    scanned = scan.scan(context, num_workers=options.num_workers, progress=progress)
    scan_seconds = time.monotonic() - started
    warnings = _guard_band_order(source, scanned, options.source)
    split = splits.make_split(_patches(source, scanned), options.split)
    planned = plan.plan_shards(
        source.name,
        [patch.item.key for patch in scanned],
        [patch.stored_bytes for patch in scanned],
        split.assignment,
        shard_mb=options.shard_mb,
        seed=options.split.seed,
    )
    written: Sequence[cards.Shard | None] = [None] * len(planned)
    if not dry_run:
        output_dir = pathlib.Path(options.output_dir)
        _clear(output_dir)
        written = _write_shards(options, context, scanned, planned, progress)
    card = _card(source, context, scanned, split, planned, written)
    if not dry_run:
        tfds_metadata.write_tfds_metadata(card, output_dir)
        cards.write_card(card, output_dir)
    seconds = {"scan": scan_seconds, "all": time.monotonic() - started}
    shard_counts = dict(collections.Counter(shard.split for shard in planned))
    return BuildReport(card, seconds, shard_counts, (*warnings, *split.warnings))


def _guard_band_order(source: EuroSAT, scanned: list[scan.ScannedPatch], where: str) -> tuple[str, ...]:
    if not source.band_order_guard:
        return ()
    found = statistics.merge(source.bands, (patch.sums for patch in scanned))
    problem = band_order_problem(np.array([band.mean for band in found]), source.bands)
    if problem is None:
        return ()
    if len(scanned) < GUARD_MIN_PATCHES:
        return (f"too few patches ({len(scanned)}) to judge the band order, but {problem}",)
    raise SourceError(
        where,
        problem,
        f"the stored order {','.join(source.bands)}",
        "give the published archive, or write the bands of your GeoTIFFs in that order",
    )


def _patches(source: EuroSAT, scanned: list[scan.ScannedPatch]) -> splits.Patches:
    georeferenced = source.georeferenced
    return splits.Patches(
        keys=tuple(patch.item.key for patch in scanned),
        classes=tuple(patch.item.class_name for patch in scanned),
        groups=scan.identical_groups(scanned),
        crs=tuple(patch.crs for patch in scanned),
        transforms=np.array([patch.transform for patch in scanned], np.float64) if georeferenced else None,
        size_m=source.patch_size * source.resolution_m,
        pixels=source.patch_size,
    )


def _clear(output_dir: pathlib.Path) -> None:
    """Removes an earlier build or an unfinished one's remains, the card first: without it, nothing looks whole."""
    ours = [path for path in output_dir.iterdir() if _is_ours(path.name) and path.name != files.FolderLock.NAME]
    for path in sorted(ours, key=lambda path: path.name != cards.DATA_CARD_NAME):
        path.unlink()


def _write_shards(
    options: BuildOptions,
    context: scan.SourceContext,
    scanned: list[scan.ScannedPatch],
    planned: list[plan.ShardPlan],
    progress,
) -> list[cards.Shard]:
    units = [
        shards.ShardUnit(
            shard.name,
            tuple((scanned[position].item, scanned[position].stored_digest) for position in shard.positions),
        )
        for shard in planned
    ]
    total, written = sum(len(unit.examples) for unit in units), []
    shard_context = shards.ShardContext(context, options.output_dir)
    for shard in engines.run_units(shards.write_shard, shard_context, units, num_workers=options.num_workers):
        written.append(shard)
        if progress:
            progress("writing", sum(entry.examples for entry in written), total)
    return written


def _card(
    source: EuroSAT,
    context: scan.SourceContext,
    scanned: list[scan.ScannedPatch],
    split: splits.SplitResult,
    planned: list[plan.ShardPlan],
    written: Sequence[cards.Shard | None],
) -> cards.DataCard:
    parts: dict[str, Any] = {}
    for name in dict.fromkeys(shard.split for shard in planned):
        members = [scanned[i] for i, assigned in enumerate(split.assignment) if assigned == name]
        counts = collections.Counter(patch.item.class_name for patch in members)
        parts[name] = cards.Split(
            examples=len(members),
            classes={class_name: counts[class_name] for class_name in source.legend.class_names},
            shards=tuple(entry for shard, entry in zip(planned, written, strict=True) if shard.split == name and entry),
        )
    training = (patch for patch, name in zip(scanned, split.assignment, strict=True) if name == splits.TRAIN)
    sha256, size = scan.source_digest(context, scanned)
    return cards.DataCard(
        dataset=source.name,
        version=source.version,
        task="classification",
        bands=source.bands,
        dtype=source.dtype,
        encoding=source.encoding,
        level=source.level,
        harmonised=True,
        reflectance=source.reflectance,
        nodata=source.nodata,
        resolution_m=source.resolution_m,
        patch_size=source.patch_size,
        georeferenced=source.georeferenced,
        legend=source.legend,
        splits=parts,
        split_method=split.method,
        statistics=statistics.merge(source.bands, (patch.sums for patch in training)),
        sources=(cards.SourceFile(pathlib.Path(context.path).resolve().name, size, sha256),),
        products=(),
        attribution=source.attribution,
    ).with_fingerprint()
