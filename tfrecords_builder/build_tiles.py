"""From scenes and land use to a records folder of tiles: survey, cut, split, plan, write the shards, and the card last.

As for patches, a folder with a card is whole, and the same options over the same files give the same bytes on every
engine, with any number of workers, and however often the build was killed. The tiles that are kept lie in the state's
folder until the build has ended, so that it needs twice their room.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import eo_keras
from eo_keras.core import engines, files
from eo_keras.core.system_files import is_litter
from eo_keras.errors import BandError, EOKerasError, OptionError, SourceError
from eo_keras.geo import safe
from eo_keras.legends.crosswalk import code_map
from eo_keras.records import data_card as cards
from eo_keras.records.statistics import Histograms
from eo_keras.sensors import radiometry
from tfrecords_builder.sources.urban_atlas import preflight, source_files
from tfrecords_builder.sources.urban_atlas import tiles as rows
from tfrecords_builder.sources.urban_atlas.options import DATASET, TileBuildOptions
from tfrecords_builder.sources.urban_atlas.sites import Site, read_cities
from tfrecords_builder.splits.by_site import check_cities, split_tiles
from tfrecords_builder.splits.types import TRAIN, Patches, SplitResult
from tfrecords_builder.steps import plan
from tfrecords_builder.steps import tile_shards as shards
from tfrecords_builder.storage import manifest, output
from tfrecords_builder.storage.output import BuildReport
from tfrecords_builder.storage.state import BuildState

VERSION = "1.0.0"

ATTRIBUTION = (
    "Urban Atlas, Copernicus Land Monitoring Service, European Environment Agency; "
    "contains modified Copernicus Sentinel data"
)

_Progress = Callable[[str, int, int], None] | None


def build(options: TileBuildOptions, *, progress: _Progress = None, dry_run: bool = False) -> BuildReport:
    """Builds a records folder, or goes on with an unfinished one.

    Args:
        options: what to build.
        progress: called with (stage, done, total) as the work goes on.
        dry_run: survey the cities and count their tiles, but cut and write nothing; always in this machine's processes.

    Returns:
        The report. In a dry run its card has no statistics, and its one part `all` counts the tiles that may be kept.

    Raises:
        OptionError: if the options cannot work together.
        SourceError: if the list of cities, a scene or land use cannot be used.
        BandError: if a scene lacks a band.
        RecordsError: if the output folder holds something else or an unfinished build of something else, or another
            process is writing to it.
        StorageError: if the output cannot be written.
    """
    # Workers may run in other folders.
    options = dataclasses.replace(options, output_dir=output.resolved(options.output_dir))
    if os.path.isfile(options.tiles.legend):
        legend = files.absolute(options.tiles.legend)
        options = dataclasses.replace(options, tiles=dataclasses.replace(options.tiles, legend=legend))
    options.check()
    engine = output.make_engine("local" if dry_run else options.engine, options.num_workers, options.beam_options)
    if dry_run:
        output.check(options.output_dir, overwrite=options.overwrite)
        with tempfile.TemporaryDirectory() as folder, engine:
            return _Build(options, engine, BuildState(output.folder(folder)), progress).run(dry_run=True)
    with output.held(options.output_dir, overwrite=options.overwrite) as folder, engine:
        return _Build(options, engine, BuildState(folder), progress).run()


class _Build:
    """One call of `build`: the steps, and what they share."""

    def __init__(self, options: TileBuildOptions, engine: engines.Engine, state: BuildState, progress: _Progress):
        self._options, self._engine, self._state, self._progress = options, engine, state, progress
        self._context = preflight.TileContext(options.tiles, state.folder, secrets.token_hex(8))
        self._legend = code_map(options.tiles.legend).legend
        self._seconds: dict[str, float] = {}

    def run(self, dry_run: bool = False) -> BuildReport:
        started = time.monotonic()
        cities = read_cities(self._options.cities)
        if len(cities) > 1:
            # Of one city, what is the matter with its files says more.
            check_cities({city.name: city.split for city in cities}, self._options.split)
        stamps = _stamps(cities)
        for path in self._state.begin(self._describe(cities), stamps, overwrite=self._options.overwrite):
            self._forget(cities, path)
        with self._forgetting_refusals(), self._timed("survey"):
            surveys = self._survey(cities)
            level, pixel_size = preflight.check_alike(surveys)
        units = [
            unit
            for number, city in enumerate(cities)
            for unit in rows.rows_of(number, city, surveys[city.name], self._options.tiles)
        ]
        with self._forgetting_refusals():
            # Which tiles are kept is seen in their pixels; what cannot be split if all are, is refused before.
            every = [(unit, column) for unit in units for column in unit.columns]
            keys = tuple(f"{unit.city.name}: row {unit.row}, column {column}" for unit, column in every)
            self._split(keys, every, cities, surveys, pixel_size)
        warnings = tuple(warning for found in surveys.values() for warning in found.warnings)
        if dry_run:
            count = sum(len(unit.columns) for unit in units)
            part = {"all": cards.Split(count, {}, ())}
            card = self._card(surveys, level, pixel_size, part, {}, ())
            self._seconds["all"] = time.monotonic() - started
            return BuildReport(card, self._seconds, {"all": 0}, 0, warnings)
        with self._noting_refusals(cities, units), self._timed("cut"):
            found = self._cut(units)
        with self._forgetting_refusals(), self._timed("plan"):
            _check_unchanged(stamps, _stamps(cities))
            tiles = _Tiles(units, found)
            _check_keys(tiles)
            split = self._split(tiles.keys, tiles.places, cities, surveys, pixel_size)
            planned = self._plan(tiles, split)
        with self._timed("write"):
            bands = next(iter(surveys.values())).scenes[0].bands
            written, kept, histograms = self._write(tiles, planned, len(bands))
        parts = self._parts(tiles, split, planned, written)
        method = {**split.method, **self._describe_tiles(tiles, found, len(cities))}
        card = self._card(surveys, level, pixel_size, parts, method, histograms.statistics(bands))
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
    def _forgetting_refusals(self) -> Iterator[None]:
        """Removes the state where other files or flags are needed; it would stand in the way of the next call."""
        try:
            yield
        except EOKerasError:
            self._state.remove()
            raise

    @contextlib.contextmanager
    def _noting_refusals(self, cities: Sequence[Site], units: Sequence[rows.RowUnit]) -> Iterator[None]:
        """Where a source is refused, notes what the cities are made from that are not wholly cut; others are kept."""
        try:
            yield
        except (BandError, OptionError):
            self._state.remove()
            raise
        except SourceError:
            open_ones = {unit.city.name for unit in units if not rows.is_cut(self._context, unit)}
            self._state.note_refused(path for city in cities if city.name in open_ones for path in _files_of(city))
            raise

    def _forget(self, cities: Sequence[Site], path: str) -> None:
        """Forgets what was found of the cities that are made from a file that has changed."""
        for number, city in enumerate(cities):
            if path in _files_of(city):
                self._state.forget((_survey_name(number), rows.beginning_of(number)))

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._seconds[stage] = time.monotonic() - started

    def _describe(self, cities: Sequence[Site]) -> dict[str, Any]:
        """Says what is built from what; equal descriptions give equal bytes."""
        options = self._options
        described = {
            "program": eo_keras.__version__,
            "dataset": DATASET,
            "cities": [cards.to_json(city) for city in cities],
            "tiles": cards.to_json(options.tiles),
            "split": cards.to_json(options.split),
            "shard_mb": options.shard_mb,
        }
        if os.path.isfile(options.tiles.legend):
            described["legend"] = pathlib.Path(options.tiles.legend).read_text(encoding="utf-8")
        return described

    def _survey(self, cities: Sequence[Site]) -> dict[str, preflight.CitySurvey]:
        units = [preflight.CityUnit(_survey_name(number), city) for number, city in enumerate(cities)]
        for done, _ in enumerate(self._engine.run(preflight.survey_city, self._context, units), start=1):
            if self._progress:
                self._progress("surveying cities", done, len(units))
        return {unit.city.name: preflight.read_survey(self._context, unit) for unit in units}

    def _cut(self, units: Sequence[rows.RowUnit]) -> list[rows.Row]:
        total, done = sum(len(unit.columns) for unit in units), 0
        for position in self._engine.run(rows.cut_tiles, self._context, units):
            done += len(units[position].columns)
            if self._progress:
                self._progress("cutting tiles", done, total)
        return [rows.read_row(self._context, unit) for unit in units]

    def _split(
        self,
        keys: tuple[str, ...],
        places: Sequence[tuple[rows.RowUnit, int]],
        cities: Sequence[Site],
        surveys: dict[str, preflight.CitySurvey],
        pixel_size: float,
    ) -> SplitResult:
        """Splits tiles, of which row and first column are given."""
        if not keys:
            options = self._options.tiles
            raise SourceError(
                self._options.cities,
                "no tile is kept",
                f"tiles with a share of {options.min_labelled:g} that has a class and is clear, of which "
                f"{options.min_clear:g} of what has data is clear",
                "lower `min_labelled` or `min_clear`, or check that the scenes show the cities",
            )
        grids = {(city, scene.path): scene.grid for city, found in surveys.items() for scene in found.scenes}
        placed = [grids[unit.city.name, unit.scene].window(unit.row, column, 1, 1) for unit, column in places]
        size = self._options.tiles.size
        patches = Patches(
            keys=keys,
            classes=("",) * len(keys),
            groups=np.arange(len(keys)),
            crs=tuple(grid.crs for grid in placed),
            transforms=np.array([grid.transform for grid in placed], np.float64),
            size_m=size * pixel_size,
            pixels=size,
            sites=tuple(unit.city.name for unit, _ in places),
            site_splits={city.name: city.split for city in cities},
        )
        return split_tiles(patches, self._options.split)

    def _plan(self, tiles: _Tiles, split: SplitResult) -> list[plan.ShardPlan]:
        return plan.plan_shards(
            DATASET,
            tiles.keys,
            [piece.length for piece in tiles.pieces],
            split.assignment,
            shard_mb=self._options.shard_mb,
            seed=self._options.split.seed,
        )

    def _write(
        self, tiles: _Tiles, planned: Sequence[plan.ShardPlan], bands: int
    ) -> tuple[list[cards.Shard], int, Histograms]:
        context = shards.TileShardContext(self._state.folder, self._options.output_dir, bands)
        units = [
            shards.TileShardUnit(
                shard.name, tuple(tiles.pieces[position] for position in shard.positions), shard.split == TRAIN
            )
            for shard in planned
        ]
        histograms = Histograms(bands, "uint16")
        entries, kept = manifest.write_all(
            self._engine, shards.write_shard, context, units, self._state, histograms, self._progress
        )
        return entries, kept, histograms

    def _parts(
        self,
        tiles: _Tiles,
        split: SplitResult,
        planned: Sequence[plan.ShardPlan],
        written: Sequence[cards.Shard],
    ) -> dict[str, cards.Split]:
        parts = {}
        for name in dict.fromkeys(shard.split for shard in planned):
            positions = [position for position, assigned in enumerate(split.assignment) if assigned == name]
            pixels = tiles.pixels[positions].sum(axis=0)
            parts[name] = cards.Split(
                examples=len(positions),
                classes={
                    class_name: int(count) for class_name, count in zip(self._legend.class_names, pixels, strict=True)
                },
                shards=tuple(entry for shard, entry in zip(planned, written, strict=True) if shard.split == name),
            )
        return parts

    def _describe_tiles(self, tiles: _Tiles, found: Sequence[rows.Row], cities: int) -> dict[str, Any]:
        options = self._options.tiles
        return {
            "stride": options.step,
            "roads": options.roads,
            "resampling": options.scene.resampling,
            "min_labelled": options.min_labelled,
            "min_clear": options.min_clear,
            "tiles_dropped": sum(row.dropped for row in found),
            "cities_without_tiles": cities - len({unit.city.name for unit, _ in tiles.places}),
        }

    def _card(
        self,
        surveys: dict[str, preflight.CitySurvey],
        level: str,
        pixel_size: float,
        parts: dict[str, cards.Split],
        method: dict[str, Any],
        statistics: tuple[cards.BandStatistics, ...],
    ) -> cards.DataCard:
        every = [scene for found in surveys.values() for scene in found.scenes]
        sources = {source for found in surveys.values() for source in found.sources}
        card = cards.DataCard(
            dataset=DATASET,
            version=VERSION,
            task="segmentation",
            bands=every[0].bands,
            dtype="uint16",
            encoding="raw",
            level=level,
            harmonised=True,
            reflectance=radiometry.HARMONISED,
            nodata=0,
            resolution_m=pixel_size,
            patch_size=self._options.tiles.size,
            georeferenced=True,
            legend=self._legend,
            splits=parts,
            split_method=method,
            statistics=statistics,
            sources=tuple(sorted(sources, key=lambda source: (source.name, source.sha256))),
            products=tuple(sorted({scene.product for scene in every})),
            attribution=ATTRIBUTION,
        )
        return card.with_fingerprint()


class _Tiles:
    """All tiles that are kept, in the order of their rows: parallel sequences."""

    def __init__(self, units: Sequence[rows.RowUnit], found: Sequence[rows.Row]):
        self.keys: tuple[str, ...] = tuple(key for row in found for key in row.keys)
        self.places = [(unit, int(column)) for unit, row in zip(units, found, strict=True) for column in row.columns]
        self.pixels = np.concatenate([row.pixels for row in found]) if found else np.zeros((0, 0), np.int64)
        self.pieces = [
            shards.Piece(unit.name, int(offset), int(length), code.tobytes())
            for unit, row in zip(units, found, strict=True)
            for offset, length, code in zip(row.offsets, row.lengths, row.digests, strict=True)
        ]


def _survey_name(number: int) -> str:
    return f"city-{number:05d}.json"


def _files_of(city: Site) -> tuple[str, ...]:
    return (*city.scenes, *city.vectors, *([city.area] if isinstance(city.area, str) else []))


def _stamps(cities: Sequence[Site]) -> dict[str, list[int]]:
    """Returns size and time of the files that cities are built from, by which a changed one is noticed."""
    stamps = {}
    for path in sorted({path for city in cities for path in _files_of(city)}):
        inner = [path, *source_files.behind(path)]
        if os.path.isdir(path):
            wanted = (".jp2", ".tif", ".tiff", ".vrt", ".xml") if safe.is_product(path) else ("",)
            inner = sorted(
                os.path.join(parent, name)
                for parent, _, names in os.walk(path)
                for name in names
                if name.lower().endswith(wanted) and not is_litter(name)
            )
        # A link that leads nowhere, or a file that is gone since it was listed, has neither.
        found = [os.stat(name) for name in inner if os.path.exists(name)]
        stamps[path] = [sum(item.st_size for item in found), max((item.st_mtime_ns for item in found), default=0)]
    return stamps


def _check_keys(tiles: _Tiles) -> None:
    """Refuses two tiles of one key, as a city called `a-b` with scene `c` and one called `a` with scene `b-c` have.

    Raises:
        SourceError: if there are two.
    """
    known: dict[str, rows.RowUnit] = {}
    for key, (unit, _) in zip(tiles.keys, tiles.places, strict=True):
        if key in known:
            other = known[key]
            raise SourceError(
                f"cities {other.city.name} and {unit.city.name}",
                f"scenes {other.scene} and {unit.scene} give tiles of one key, {key}",
                "one tile a key",
                "name one of the cities differently",
            )
        known[key] = unit


def _check_unchanged(before: dict[str, list[int]], now: dict[str, list[int]]) -> None:
    """Refuses files that have changed since they were listed, of which tiles may show the old state or the new one.

    Raises:
        SourceError: at the first one.
    """
    if changed := [path for path, stamp in before.items() if now[path] != stamp]:
        raise SourceError(
            changed[0],
            "it has changed while tiles were cut",
            remedy="build again from files at rest",
        )
