"""From a source archive to a records folder: scan, split, plan, write the shards, and the card last.

A folder with a card is whole. The same options over the same source give byte-identical files on every engine, with
any number of workers, and however often the build was killed and called again.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import eo_keras
from eo_keras.core import engines, files
from eo_keras.errors import OptionError, SourceError
from eo_keras.records import data_card as cards
from eo_keras.records.statistics import Histograms
from tfrecords_builder.sources import SOURCES, UNNAMED, Source
from tfrecords_builder.sources.eurosat import GUARD_MIN_PATCHES, band_order_problem
from tfrecords_builder.splits import split as splits
from tfrecords_builder.steps import plan, scan, shards
from tfrecords_builder.storage import manifest, output
from tfrecords_builder.storage.output import BuildReport
from tfrecords_builder.storage.state import BuildState

_Progress = Callable[[str, int, int], None] | None


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What to build.

    Attributes:
        dataset: a name of `tfrecords_builder.sources.SOURCES`.
        source: the archive: a zip, a folder holding its root, or the folder of class folders; a path or a URL.
        output_dir: the records folder to make; a path or a URL.
        split: who is train, val and test.
        shard_mb: size of a shard in megabytes (10^6 bytes).
        verify: whether every JPEG is decoded in the scan. Without, damage is found in training images alone, which are
            decoded for the statistics, and identical images are told by their files' checksums. GeoTIFFs are
            always decoded.
        num_workers: number of processes.
        engine: one of `output.ENGINES`.
        beam_options: options of Apache Beam, such as `--runner=FlinkRunner`.
        overwrite: whether to replace a build, whole or unfinished, that is already in `output_dir`.
        bands: names of the source's bands in stored order, of data sets that do not say them.
        level: its processing level, likewise.
    """

    dataset: str
    source: str
    output_dir: str
    split: splits.SplitOptions = splits.SplitOptions()
    shard_mb: float = 16.0
    verify: bool = True
    num_workers: int = 1
    engine: str = "local"
    beam_options: tuple[str, ...] = ()
    overwrite: bool = False
    bands: tuple[str, ...] | None = None
    level: str | None = None

    def named_source(self) -> Source:
        """Returns the source, its bands named.

        Raises:
            OptionError: if the data set is unknown, does not say its bands and nobody else does, or says them itself.
        """
        if self.dataset not in SOURCES:
            raise OptionError("dataset", f"'{self.dataset}' is unknown", f"one of {', '.join(SOURCES)}")
        source = SOURCES[self.dataset]
        if self.dataset in UNNAMED:
            return source.named(self.bands, self.level)
        if self.bands is not None or self.level is not None:
            raise OptionError(
                "`bands_in_file` and `scene_level`",
                f"{self.dataset} says itself what it holds",
                remedy="leave them out",
            )
        return source


def build(options: BuildOptions, *, progress: _Progress = None, dry_run: bool = False) -> BuildReport:
    """Builds a records folder, or goes on with an unfinished one.

    Args:
        options: what to build.
        progress: called with (stage, done, total) as the work goes on.
        dry_run: scan, split and plan, but write nothing; always in this machine's processes.

    Raises:
        OptionError: if the options cannot work together.
        SourceError: if the source or a patch of it cannot be used, or its bands are in another order.
        RecordsError: if the output folder holds something else or an unfinished build of something else, or another
            process is writing to it.
        StorageError: if the output cannot be written.
    """
    _check_options(options)
    # Workers may run in other folders.
    options = dataclasses.replace(
        options, source=files.absolute(options.source), output_dir=output.resolved(options.output_dir)
    )
    opening = secrets.token_hex(8)
    if dry_run:
        output.check(options.output_dir, overwrite=options.overwrite)
        with tempfile.TemporaryDirectory() as folder, _engine(options, opening, local=True) as engine:
            return _Build(options, opening, engine, BuildState(output.folder(folder)), progress).run(dry_run=True)
    held = output.held(options.output_dir, overwrite=options.overwrite)
    with held as folder, _engine(options, opening) as engine:
        return _Build(options, opening, engine, BuildState(folder), progress).run()


def _check_options(options: BuildOptions) -> None:
    options.named_source()
    output.check_work(
        shard_mb=options.shard_mb,
        num_workers=options.num_workers,
        engine=options.engine,
        beam_options=options.beam_options,
        paths=(options.source, options.output_dir),
    )
    splits.check_options(options.split)


def _engine(options: BuildOptions, opening: str, *, local: bool = False) -> engines.Engine:
    return output.make_engine(
        "local" if local else options.engine,
        options.num_workers,
        options.beam_options,
        functools.partial(shards.prepare, options.source, opening),
    )


class _Build:
    """One call of `build`: the steps, and what they share."""

    def __init__(
        self, options: BuildOptions, opening: str, engine: engines.Engine, state: BuildState, progress: _Progress
    ):
        self._options, self._engine, self._state, self._progress = options, engine, state, progress
        self._source = options.named_source()
        self._context = scan.SourceContext(self._source, options.source, options.verify, state.folder, opening)
        self._seconds: dict[str, float] = {}

    def run(self, dry_run: bool = False) -> BuildReport:
        started = time.monotonic()
        with self._timed("list"):
            items = self._source.items(scan.open_archive(self._options.source, self._context.opening))
            self._state.begin(self._describe(), self._sources(items), overwrite=self._options.overwrite)
        with self._forgetting_refusals():
            splits.split_before_scan(self._patches(items), self._options.split)
            with self._timed("scan"):
                scanned = scan.scan(self._context, items, self._engine, self._progress)
            with self._timed("plan"):
                warnings = self._guard_band_order(scanned)
                split = splits.make_split(self._patches(scanned.items, scanned), self._options.split)
                planned = self._plan(scanned, split)
        written, kept, histograms = [], 0, self._histograms()
        if not dry_run:
            with self._forgetting_refusals(), self._timed("write"):
                written, kept, histograms = self._write(scanned, planned)
        card = self._card(scanned, split, planned, written, histograms)
        if not dry_run:
            output.finish(self._state.output, card)
            self._state.remove()
        self._seconds["all"] = time.monotonic() - started
        counts = dict(collections.Counter(shard.split for shard in planned))
        return BuildReport(
            card,
            self._seconds,
            counts,
            kept,
            (*warnings, *split.warnings, *card.missing_classes(), *self._state.output.take_warnings()),
        )

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._seconds[stage] = time.monotonic() - started

    @contextlib.contextmanager
    def _forgetting_refusals(self) -> Iterator[None]:
        """Removes the state where the source or a flag must change; it would stand in the way of the next call."""
        try:
            yield
        except (SourceError, OptionError):
            self._state.remove()
            raise

    def _sources(self, items: Sequence[Any]) -> dict[str, str]:
        """Returns what is read, and what changes when it does."""
        found = {item.member: f"{item.bytes} {item.stamp}" for item in items}
        split = self._options.split
        parts = () if split.lists is None else (splits.TRAIN, splits.VAL, splits.TEST)
        for path in (*(f"{split.lists}-{part}.txt" for part in parts), *filter(None, [split.coordinates])):
            # What cannot be read, the split tells of better.
            with contextlib.suppress(OSError):
                found[path] = files.sha256_of_file(path)
        return found

    def _describe(self) -> dict[str, Any]:
        """Says what is built; equal descriptions of the same sources give equal bytes."""
        options = self._options
        return {
            "program": eo_keras.__version__,
            "dataset": options.dataset,
            "source_name": _source_name(options.source),
            "shard_mb": options.shard_mb,
            "verify": options.verify,
            **({} if options.bands is None else {"bands": options.bands, "level": options.level}),
            **dataclasses.asdict(options.split),
        }

    def _guard_band_order(self, scanned: scan.Scan) -> tuple[str, ...]:
        if not self._source.band_order_guard:
            return ()
        problem = band_order_problem(scanned.means, self._source.bands)
        if problem is None:
            return ()
        if len(scanned.items) < GUARD_MIN_PATCHES:
            return (f"too few patches ({len(scanned.items)}) to judge the band order, but {problem}",)
        raise SourceError(
            self._options.source,
            problem,
            f"the stored order {','.join(self._source.bands)}",
            "give the published archive, or write the bands of your GeoTIFFs in that order",
        )

    def _patches(self, items: Sequence[Any], scanned: scan.Scan | None = None) -> splits.Patches:
        """Returns what is known of the items before they have been read, or after."""
        return splits.Patches(
            keys=tuple(item.key for item in items),
            classes=tuple(item.class_name for item in items),
            groups=np.arange(len(items)) if scanned is None else scanned.identical_groups(),
            crs=(None,) * len(items) if scanned is None else scanned.crs,
            transforms=None if scanned is None else scanned.transforms,
            size_m=self._source.patch_size * self._source.resolution_m,
            pixels=self._source.patch_size,
            parts=tuple(item.part for item in items),
        )

    def _plan(self, scanned: scan.Scan, split: splits.SplitResult) -> list[plan.ShardPlan]:
        return plan.plan_shards(
            self._source.name,
            [item.key for item in scanned.items],
            scanned.stored_bytes.tolist(),
            split.assignment,
            shard_mb=self._options.shard_mb,
            seed=self._options.split.seed,
        )

    def _write(self, scanned: scan.Scan, planned: list[plan.ShardPlan]) -> tuple[list[cards.Shard], int, Histograms]:
        context = shards.ShardContext(self._context, self._options.output_dir)
        units = [_shard_unit(scanned, shard) for shard in planned]
        histograms = self._histograms()
        entries, kept = manifest.write_all(
            self._engine, shards.write_shard, context, units, self._state, histograms, self._progress
        )
        return entries, kept, histograms

    def _histograms(self) -> Histograms:
        return Histograms(len(self._source.bands), self._source.dtype)

    def _card(
        self,
        scanned: scan.Scan,
        split: splits.SplitResult,
        planned: list[plan.ShardPlan],
        written: Sequence[cards.Shard],
        histograms: Histograms,
    ) -> cards.DataCard:
        source = self._source
        parts: dict[str, Any] = {}
        for name in dict.fromkeys(shard.split for shard in planned):
            positions = [position for position, assigned in enumerate(split.assignment) if assigned == name]
            if scanned.class_pixels is None:
                counts = collections.Counter(scanned.items[position].class_name for position in positions)
            else:
                pixels = scanned.class_pixels[positions].sum(axis=0).tolist()
                counts = dict(zip(source.legend.class_names, pixels, strict=True))
            parts[name] = cards.Split(
                examples=len(positions),
                classes={class_name: counts[class_name] for class_name in source.legend.class_names},
                shards=tuple(entry for shard, entry in zip(planned, written, strict=False) if shard.split == name),
            )
        sha256, size = scan.source_digest(self._context, scanned)
        return cards.DataCard(
            dataset=source.name,
            version=source.version,
            task=source.task,
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
            statistics=histograms.statistics(source.bands),
            sources=(cards.SourceFile(_source_name(self._options.source), size, sha256),),
            products=(),
            attribution=source.attribution,
        ).with_fingerprint()


def _shard_unit(scanned: scan.Scan, planned: plan.ShardPlan) -> shards.ShardUnit:
    return shards.ShardUnit(
        planned.name,
        tuple(
            shards.PlannedExample(
                scanned.items[position],
                scanned.stored_digests[position].tobytes(),
                scanned.crs[position],
                None if scanned.transforms is None else tuple(scanned.transforms[position].tolist()),
            )
            for position in planned.positions
        ),
        counted=planned.split == splits.TRAIN,
    )


def _source_name(path: str) -> str:
    here = files.local(path)
    return here.resolve().name if here is not None else os.fspath(path).rstrip("/").rpartition("/")[2]
