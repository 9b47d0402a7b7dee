"""Urban Atlas: tiles cut from Sentinel-2 scenes, with land use as the class of every pixel.

The scan cuts a scene once, a row of tiles at a time; the tiles that are kept lie in the build's state until the build
has ended, so that it needs twice their disk space.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from eo_keras.core import files
from eo_keras.core.system_files import is_litter
from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import safe
from eo_keras.legends.crosswalk import code_map
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.sensors import radiometry
from tfrecords_builder.sources.options import required
from tfrecords_builder.sources.source import (
    Context,
    Encoded,
    Facts,
    Listing,
    PlannedExample,
    Preflight,
    RecordPlace,
    Rows,
    RunUnits,
    read_planned,
)
from tfrecords_builder.sources.urban_atlas import preflight as preflights
from tfrecords_builder.sources.urban_atlas import source_files
from tfrecords_builder.sources.urban_atlas import tiles as rows
from tfrecords_builder.sources.urban_atlas.options import UrbanAtlasOptions
from tfrecords_builder.sources.urban_atlas.sites import Site, read_cities
from tfrecords_builder.splits.by_site import check_cities
from tfrecords_builder.splits.types import Patches, SplitOptions

_SPLITS = ("city", "spatial")


@dataclasses.dataclass(frozen=True)
class _Surveyed:
    """Result of the preflight: the cities with their surveys, and the size of a pixel in meters."""

    cities: Sequence[Site]
    surveys: Mapping[str, preflights.CitySurvey]
    pixel_size: float


@dataclasses.dataclass(frozen=True)
class UrbanAtlas:
    """The source of tiles, see `tfrecords_builder.sources.source.Source`."""

    Options = UrbanAtlasOptions
    scanning = "cutting tiles"
    cuts = True
    facts = Facts(
        name="urban_atlas",
        task="segmentation",
        dtype="uint16",
        reflectance=radiometry.HARMONISED,
        georeferenced=True,
        attribution="Urban Atlas, Copernicus Land Monitoring Service, European Environment Agency; "
        "contains modified Copernicus Sentinel data",
        split="city",
        shard_mb=64.0,
        examples="tiles",
    )

    def checked(self, options: UrbanAtlasOptions, split: SplitOptions) -> UrbanAtlasOptions:
        """Returns the options with the absolute path of a legend's file."""
        required("cities", options.cities, self.facts.name)
        if split.method not in _SPLITS:
            raise OptionError(
                f"`split={split.method}`",
                "neighboring tiles, and overlapping ones, would lie on both sides",
                "`split=city`, or inside one city `split=spatial` with `block_km`",
            )
        if split.method == "spatial" and split.block_km is None:
            raise OptionError("`split=spatial`", "tiles are split in blocks", "`block_km=KILOMETRES`")
        if split.coordinates is not None:
            raise OptionError("coordinates", "tiles carry their own place", remedy="leave the flag out")
        if not os.path.isfile(options.legend):
            return options
        return dataclasses.replace(options, legend=files.absolute(options.legend))

    def prepare(self, options: UrbanAtlasOptions, opening: str) -> None:
        """Does nothing: a worker opens the scenes of its own rows."""

    def list(self, context: Context, split: SplitOptions) -> Listing:
        """Lists the cities and their files."""
        options = context.options
        cities = read_cities(options.cities)
        if len(cities) > 1:
            # For one city, errors about its files are more precise.
            check_cities({city.name: city.split for city in cities}, split)
        described = cards.to_json(dataclasses.replace(options, cities=None)) | {"cities": cards.to_json(cities)}
        if os.path.isfile(options.legend):
            described["legend"] = pathlib.Path(options.legend).read_text(encoding="utf-8")
        made_from = collections.defaultdict(list)
        for number, city in enumerate(cities):
            for path in city.files:
                made_from[path] += [_survey_name(number), rows.beginning_of(number)]
        return Listing(described, _stamps(cities), cities, {path: tuple(names) for path, names in made_from.items()})

    def preflight(self, context: Context, listing: Listing, run: RunUnits) -> Preflight:
        """Surveys the cities: their scenes' headers and their land use."""
        cities, options = listing.entries, context.options
        units = [preflights.CityUnit(_survey_name(number), city) for number, city in enumerate(cities)]
        run(preflights.survey_city, units, "surveying cities")
        surveys = {unit.city.name: preflights.read_survey(context, unit) for unit in units}
        level, pixel_size = preflights.check_alike(surveys)
        scenes = [scene for survey in surveys.values() for scene in survey.scenes]
        cut = [
            unit
            for number, city in enumerate(cities)
            for unit in rows.rows_of(number, city, surveys[city.name], options)
        ]
        surveyed = _Surveyed(cities, surveys, pixel_size)
        # Which tiles are kept is seen in their pixels.
        every = [(unit, column) for unit in cut for column in unit.columns]
        keys = tuple(f"{unit.city.name}: row {unit.row}, column {column}" for unit, column in every)
        return Preflight(
            dataclasses.replace(
                self.facts,
                legend=code_map(options.legend).legend,
                bands=scenes[0].bands,
                level=level,
                patch_size=options.tile_size,
                resolution_m=pixel_size,
            ),
            cut,
            _patches(options, surveyed, keys, every),
            tuple(sorted({scene.product for scene in scenes})),
            tuple(warning for survey in surveys.values() for warning in survey.warnings),
            surveyed,
        )

    def scan(self, context: Context, unit: rows.RowUnit) -> None:
        """Cuts the tiles of a row."""
        rows.cut_tiles(context, unit)

    def is_scanned(self, context: Context, unit: rows.RowUnit) -> bool:
        """Tells whether a row has been cut."""
        return rows.is_cut(context, unit)

    def gather(self, context: Context, listing: Listing, preflight: Preflight) -> Rows:
        """Joins the tiles that are kept, in the order of their rows."""
        units, surveyed, options = preflight.units, preflight.details, context.options
        found = [rows.read_row(context, unit) for unit in units]
        _check_unchanged(listing.stamps, _stamps(surveyed.cities))
        keys = tuple(key for row in found for key in row.keys)
        places = [(unit, int(column)) for unit, row in zip(units, found, strict=True) for column in row.columns]
        _check_keys(keys, places)
        patches = _patches(options, surveyed, keys, places)
        return Rows(
            patches,
            [
                RecordPlace(unit.name, int(offset), int(length))
                for unit, row in zip(units, found, strict=True)
                for offset, length in zip(row.offsets, row.lengths, strict=True)
            ],
            np.concatenate([row.lengths for row in found]),
            np.concatenate([row.digests for row in found]),
            np.concatenate([row.pixels for row in found]),
            {
                "stride": options.step,
                "roads": options.roads,
                "resampling": options.resampling,
                "min_labelled": options.min_labeled_fraction,
                "min_clear": options.min_valid_fraction,
                "tiles_dropped": sum(row.dropped for row in found),
                "cities_without_tiles": len(surveyed.cities) - len(set(patches.sites)),
            },
            preflight.warnings,
        )

    def examples(self, context: Context, facts: Facts, planned: Sequence[PlannedExample]) -> Iterator[Encoded]:
        """Copies records from the files of their rows."""
        for one in planned:
            record = _read(context, one)
            yield Encoded(record, functools.partial(_numbers, record, facts.shape))

    def files(self, context: Context, preflight: Preflight, rows: Rows | None) -> Sequence[cards.SourceFile]:
        """Returns the files of scenes and land use."""
        found = {source for survey in preflight.details.surveys.values() for source in survey.sources}
        return sorted(found, key=lambda source: (source.name, source.sha256))

    def expected_size(self, options: UrbanAtlasOptions) -> None:
        """Returns None: which tiles are kept depends on their pixels."""
        return


def _patches(
    options: UrbanAtlasOptions,
    surveyed: _Surveyed,
    keys: tuple[str, ...],
    places: Sequence[tuple[rows.RowUnit, int]],
) -> Patches:
    """Returns the input of the split for tiles, given their rows and first columns.

    Raises:
        SourceError: if there are none.
    """
    if not keys:
        raise SourceError(
            options.cities,
            "no tile is kept",
            f"tiles with a fraction of {options.min_labeled_fraction:g} that has a class and is clear, of which "
            f"{options.min_valid_fraction:g} of what has data is clear",
            "lower `min_labeled_fraction` or `min_valid_fraction`, or check that the scenes show the cities",
        )
    grids = {(city, scene.path): scene.grid for city, found in surveyed.surveys.items() for scene in found.scenes}
    placed = [grids[unit.city.name, unit.scene].window(unit.row, column, 1, 1) for unit, column in places]
    return Patches(
        keys=keys,
        classes=("",) * len(keys),
        groups=np.arange(len(keys)),
        crs=tuple(grid.crs for grid in placed),
        transforms=np.array([grid.transform for grid in placed], np.float64),
        size_m=options.tile_size * surveyed.pixel_size,
        pixels=options.tile_size,
        sites=tuple(unit.city.name for unit, _ in places),
        site_splits={city.name: city.split for city in surveyed.cities},
    )


def _survey_name(number: int) -> str:
    return f"city-{number:05d}.json"


def _stamps(cities: Sequence[Site]) -> dict[str, list[int]]:
    """Returns size and time of the files that cities are built from, to detect changed ones."""
    stamps = {}
    for path in sorted({path for city in cities for path in city.files}):
        inner = [path, *source_files.sources_of_vrt(path)]
        if os.path.isdir(path):
            wanted = (".jp2", ".tif", ".tiff", ".vrt", ".xml") if safe.is_product(path) else ("",)
            inner = sorted(
                os.path.join(parent, name)
                for parent, _, names in os.walk(path)
                for name in names
                if name.lower().endswith(wanted) and not is_litter(name)
            )
        # A broken link, or a file that was removed since the listing, has neither.
        found = [os.stat(name) for name in inner if os.path.exists(name)]
        stamps[path] = [sum(item.st_size for item in found), max((item.st_mtime_ns for item in found), default=0)]
    return stamps


def _check_keys(keys: Sequence[str], places: Sequence[tuple[rows.RowUnit, int]]) -> None:
    """Checks that keys are unique: city `a-b` with scene `c` and city `a` with scene `b-c` give the same ones.

    Raises:
        SourceError: if there are two.
    """
    known: dict[str, rows.RowUnit] = {}
    for key, (unit, _) in zip(keys, places, strict=True):
        if (other := known.setdefault(key, unit)) is not unit:
            raise SourceError(
                f"cities {other.city.name} and {unit.city.name}",
                f"scenes {other.scene} and {unit.scene} give tiles of one key, {key}",
                "one tile a key",
                "name one of the cities differently",
            )


def _check_unchanged(before: Mapping[str, list[int]], now: Mapping[str, list[int]]) -> None:
    """Checks that no file has changed since the listing.

    Raises:
        SourceError: at the first one.
    """
    if changed := [path for path, stamp in before.items() if now[path] != stamp]:
        raise SourceError(
            changed[0],
            "it has changed while tiles were cut",
            remedy="build again from files at rest",
        )


def _read(context: Context, planned: PlannedExample) -> bytes:
    """Reads a record from its row's file.

    Raises:
        SourceError: if the file has been damaged.
    """
    path = files.join(context.state_dir, planned.place.file)
    record = read_planned(path, planned)
    if record is not None:
        return record
    # A row that is not there is cut by the next call.
    files.remove(path)
    raise SourceError(
        path,
        "what was cut from a scene has been damaged",
        remedy="keep other programs out of the output folder, and run the same command again",
    )


def _numbers(record: bytes, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    example = records.decode(record)
    numbers = np.frombuffer(example.image, "<u2").astype(np.uint16, copy=False)
    return numbers.reshape(shape), example.tile.validity
