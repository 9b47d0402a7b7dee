"""Build of a records folder from a source: list, preflight, scan, split, plan, write the shards, and the card last.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import eo_keras
from eo_keras.core import engines, files
from eo_keras.core.engine_options import EngineOptions
from eo_keras.core.options import documented, fields, nested, option
from eo_keras.errors import BandError, LegendError, OptionError, SourceError
from eo_keras.records import data_card as cards
from eo_keras.records.statistics import Histograms
from tfrecords_builder import sources
from tfrecords_builder.sources.source import Context, Facts, Listing, PlannedExample, Preflight, Rows
from tfrecords_builder.splits import split as splits
from tfrecords_builder.splits.types import TEST, TRAIN, VAL, SplitOptions, SplitResult
from tfrecords_builder.steps import plan, scan, shards
from tfrecords_builder.storage import manifest, output
from tfrecords_builder.storage.output import BuildReport
from tfrecords_builder.storage.state import BuildState

_Progress = Callable[[str, int, int], None] | None

_REFUSALS = (SourceError, OptionError, BandError, LegendError)


@documented
@dataclasses.dataclass(frozen=True)
class BuildOptions(EngineOptions):
    """Options of a build."""

    dataset: str = option(choices=tuple(sources.SOURCES), help="Data set to build.")
    source: Any
    """Options of the data set, an object of its source's `Options`; or the path of its archive alone."""
    output_dir: str = option(urls=True, repeatable=False, help="Records folder to make; new or empty. A path or a URL.")
    split: SplitOptions = nested(SplitOptions)
    shard_mb: float | None = option(
        None,
        above=0,
        help="Size of a shard in megabytes (10^6 bytes); training gets at least "
        f"{plan.MIN_TRAINING_SHARDS} shards. Default: 16, of urban_atlas 64.",
    )
    overwrite: bool = option(
        False,
        affects_result=False,
        repeatable=False,
        help="Whether to replace a build, whole or unfinished, that is in `output_dir`; other files there stay.",
    )


def build(options: BuildOptions, *, progress: _Progress = None, dry_run: bool = False) -> BuildReport:
    """Builds a records folder, or continues an unfinished build.

    Args:
        options: options of the build.
        progress: called with (stage, done, total) as the work advances.
        dry_run: do all that planning needs, but write nothing; always in this machine's processes. Scenes are not cut:
            the report's card then has no statistics, and its one split `all` counts the tiles that may be kept.

    Raises:
        OptionError: if the options cannot work together.
        SourceError: if the source or an example of it cannot be used, or its bands are in another order.
        BandError: if a scene lacks a band.
        RecordsError: if the output folder holds something else or an unfinished build of something else, or another
            process is writing to it.
        StorageError: if the output cannot be written.
    """
    options, opening = _resolved(options), secrets.token_hex(8)
    if dry_run:
        output.check(options.output_dir, overwrite=options.overwrite)
        with tempfile.TemporaryDirectory() as folder, _engine(options, opening, local=True) as engine:
            return _Build(options, opening, engine, BuildState(output.folder(folder)), progress).run(dry_run=True)
    held = output.held(options.output_dir, overwrite=options.overwrite)
    with held as folder, _engine(options, opening) as engine:
        return _Build(options, opening, engine, BuildState(folder), progress).run()


def _resolved(options: BuildOptions) -> BuildOptions:
    """Checks the options; returns them with the source's defaults and with absolute paths."""
    source = sources.named(options.dataset)
    given = options.source
    if isinstance(given, str | os.PathLike):
        given = source.Options(os.fspath(given))
    split = options.split
    if split.split is None:
        split = dataclasses.replace(split, split=source.facts.split)
    given = source.checked(given, split)
    options.check_engine((str(getattr(given, fields(type(given))[0].name)), options.output_dir))
    splits.check_options(split)
    return dataclasses.replace(
        options,
        source=given,
        output_dir=output.resolved(options.output_dir),
        split=split,
        shard_mb=source.facts.shard_mb if options.shard_mb is None else options.shard_mb,
    )


def _engine(options: BuildOptions, opening: str, *, local: bool = False) -> engines.Engine:
    options = dataclasses.replace(options, engine="local") if local else options
    return options.make_engine(functools.partial(sources.named(options.dataset).prepare, options.source, opening))


class _Build:
    """Steps of one build, and the values that they share."""

    def __init__(
        self, options: BuildOptions, opening: str, engine: engines.Engine, state: BuildState, progress: _Progress
    ):
        self._options, self._engine, self._state, self._progress = options, engine, state, progress
        self._source = sources.named(options.dataset)
        self._context = Context(self._source, options.source, state.folder, opening)
        self._seconds: dict[str, float] = {}

    def run(self, dry_run: bool = False) -> BuildReport:
        started = time.monotonic()
        source, context = self._source, self._context
        with self._timed("list"):
            listing = source.list(context, self._options.split)
            stamps = {**listing.stamps, **self._split_files()}
            changed = self._state.begin(self._describe(listing), stamps, overwrite=self._options.overwrite)
            for path in changed:
                self._state.forget(listing.made_from.get(path, ()))
        with self._forgetting_refusals(), self._timed("preflight"):
            preflight = source.preflight(context, listing, self._run_units)
            if preflight.candidates is not None:
                splits.split_before_scan(preflight.candidates, self._options.split)
        if dry_run and source.cuts:
            count = len(preflight.candidates.keys) if preflight.candidates is not None else 0
            card = self._card(preflight, None, {"all": cards.Split(count, {}, ())}, {}, preflight.facts.modalities)
            self._seconds["all"] = time.monotonic() - started
            return BuildReport(card, self._seconds, {"all": 0}, 0, preflight.warnings)
        with self._noting_refusals(preflight), self._timed("scan"):
            scan.scan(context, preflight.units, self._run_units)
        with self._forgetting_refusals(), self._timed("plan"):
            rows = source.gather(context, listing, preflight)
            split = splits.make_split(rows.patches, self._options.split)
            planned = self._plan(preflight, rows, split)
        written, kept, histograms = [], 0, shards.histograms_of(preflight.facts)
        if not dry_run:
            # Of records that the scan has written, only the state can be damaged.
            refusals = contextlib.nullcontext() if source.cuts else self._forgetting_refusals()
            with refusals, self._timed("write"):
                written, kept, histograms = self._write(preflight, rows, planned)
        card_splits = _card_splits(preflight, rows, split, planned, written)
        modalities = _with_statistics(preflight.facts, histograms, rows, split)
        card = self._card(preflight, rows, card_splits, {**split.method, **rows.method}, modalities)
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
            (*rows.warnings, *split.warnings, *card.missing_classes(), *self._state.output.take_warnings()),
        )

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._seconds[stage] = time.monotonic() - started

    @contextlib.contextmanager
    def _forgetting_refusals(self) -> Iterator[None]:
        """Removes the state after an error of the source or an option, so that the next call can change them."""
        try:
            yield
        except _REFUSALS:
            self._state.remove()
            raise

    @contextlib.contextmanager
    def _noting_refusals(self, preflight: Preflight) -> Iterator[None]:
        """Removes the state after an input is refused; where the scan cuts records, stores the refused inputs instead.

        The inputs of units that are not cut completely are stored, so that they may change before the next call.
        """
        source = self._source
        try:
            yield
        except SourceError:
            if not source.cuts:
                self._state.remove()
                raise
            unfinished = [unit for unit in preflight.units if not source.is_scanned(self._context, unit)]
            refused = {path for unit in unfinished for path in unit.inputs}
            self._state.note_refused(refused)
            raise
        except _REFUSALS:
            self._state.remove()
            raise

    def _run_units(self, function: Callable[[Context, Any], None], units: Sequence[Any], stage: str) -> None:
        total, done = sum(map(len, units)), 0
        for position in self._engine.run(function, self._context, units):
            done += len(units[position])
            if self._progress:
                self._progress(stage, done, total)

    def _split_files(self) -> dict[str, str]:
        """Returns the checksums of the files that the split reads."""
        split, found = self._options.split, {}
        names = () if split.lists is None else (TRAIN, VAL, TEST)
        for path in (*(f"{split.lists}-{name}.txt" for name in names), *filter(None, [split.coordinates])):
            # The split's own error about a file that cannot be read is more precise.
            with contextlib.suppress(OSError):
                found[path] = files.sha256_of_file(path)
        return found

    def _describe(self, listing: Listing) -> dict[str, Any]:
        """Describes the build; equal descriptions of the same inputs give equal bytes."""
        return {
            "program": eo_keras.__version__,
            "state_layout": self._state.LAYOUT,
            "dataset": self._options.dataset,
            "shard_mb": self._options.shard_mb,
            **listing.description,
            **dataclasses.asdict(self._options.split),
        }

    def _plan(self, preflight: Preflight, rows: Rows, split: SplitResult) -> list[plan.ShardPlan]:
        return plan.plan_shards(
            preflight.facts.name,
            rows.patches.keys,
            rows.bytes.tolist(),
            split.assignment,
            shard_mb=self._options.shard_mb,
            seed=self._options.split.seed,
        )

    def _write(
        self, preflight: Preflight, rows: Rows, planned: Sequence[plan.ShardPlan]
    ) -> tuple[list[cards.Shard], int, dict[str, Histograms]]:
        context = shards.ShardContext(self._context, preflight.facts, self._options.output_dir)
        units = [
            shards.ShardUnit(
                shard.name,
                tuple(
                    PlannedExample(rows.patches.keys[position], rows.places[position], rows.digests[position].tobytes())
                    for position in shard.positions
                ),
                counted=shard.split == TRAIN,
            )
            for shard in planned
        ]
        histograms = shards.histograms_of(preflight.facts)
        entries, kept = manifest.write_all(
            self._engine, shards.write_shard, context, units, self._state, histograms, self._progress
        )
        return entries, kept, histograms

    def _card(
        self,
        preflight: Preflight,
        rows: Rows | None,
        card_splits: dict[str, cards.Split],
        method: dict[str, Any],
        modalities: Sequence[cards.Modality],
    ) -> cards.DataCard:
        facts, (first, *others) = preflight.facts, modalities
        return cards.DataCard(
            dataset=facts.name,
            version=facts.version,
            task=facts.task,
            bands=facts.bands,
            dtype=facts.dtype,
            encoding=facts.encoding,
            level=facts.level,
            harmonised=True,
            reflectance=facts.reflectance,
            nodata=facts.nodata,
            resolution_m=facts.resolution_m,
            patch_size=facts.patch_size,
            georeferenced=facts.georeferenced,
            legend=facts.legend,
            splits=card_splits,
            split_method=method,
            statistics=first.statistics,
            sources=tuple(self._source.files(self._context, preflight, rows)),
            products=preflight.products,
            attribution=facts.attribution,
            modality=facts.modality,
            sensor=facts.sensor,
            units=facts.units,
            missing=first.missing,
            others=tuple(others),
            distance=facts.distance,
        ).with_fingerprint()


def _with_statistics(
    facts: Facts, histograms: Mapping[str, Histograms], rows: Rows, split: SplitResult
) -> tuple[cards.Modality, ...]:
    """Returns the modalities with their statistics, and with the numbers of examples that lack them."""
    found = []
    for one in facts.modalities:
        lacking = rows.missing.get(one.name, ())
        missing = collections.Counter(
            name for name, without in zip(split.assignment, lacking, strict=False) if without and name is not None
        )
        statistics = histograms[one.name].statistics(one.bands)
        found.append(dataclasses.replace(one, statistics=statistics, missing=dict(sorted(missing.items()))))
    return tuple(found)


def _card_splits(
    preflight: Preflight,
    rows: Rows,
    split: SplitResult,
    planned: Sequence[plan.ShardPlan],
    written: Sequence[cards.Shard],
) -> dict[str, cards.Split]:
    """Returns the card's splits; in a dry run without shards."""
    parts = {}
    for name in dict.fromkeys(shard.split for shard in planned):
        positions = [position for position, assigned in enumerate(split.assignment) if assigned == name]
        parts[name] = cards.Split(
            examples=len(positions),
            classes=rows.counts(positions, preflight.facts.legend),
            shards=tuple(entry for shard, entry in zip(planned, written, strict=False) if shard.split == name),
        )
    return parts
