"""Preflight of a city: its scenes' headers and its land use, before a pixel is read.

One unit of work a city; its survey is a file in the build's state.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math

from eo_keras.core import files, serialization
from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import reference_systems, scenes
from eo_keras.geo.grid import Grid
from eo_keras.geo.scenes import Scene, SceneOptions
from eo_keras.records import data_card as cards
from tfrecords_builder.sources.source import Context, lost
from tfrecords_builder.sources.urban_atlas import source_files
from tfrecords_builder.sources.urban_atlas.labels import LabelSource, open_labels
from tfrecords_builder.sources.urban_atlas.options import UrbanAtlasOptions
from tfrecords_builder.sources.urban_atlas.sites import Site

LABEL_YEARS_APART = 2
"""Difference in years between land use and scene above which a warning is given."""

_SAME_SIZE = 0.02
"""Largest relative difference of pixel sizes: in a reprojected grid they depend on the latitude."""

_SQUARE = 0.05
"""Largest relative difference of a pixel's width and height on the ground: 2.5 % at Europe's edges in EPSG:3035."""


@dataclasses.dataclass(frozen=True)
class CityUnit:
    """One city to survey, and the name of the file for its survey."""

    name: str
    city: Site

    def __len__(self) -> int:
        """Returns 1."""
        return 1


@dataclasses.dataclass(frozen=True)
class SceneSurvey:
    """Header information of one scene of a city.

    Attributes:
        path: the scene, as the list of cities names it.
        product: its identifier.
        level: `L1C` or `L2A`.
        date: day of the acquisition (YYYY-MM-DD), or empty.
        bands: names of the bands that records will hold, in order.
        grid: its grid.
        window: first row, first column, end row and end column of what the land use covers.
        resolution_m: size of a pixel on the ground in the middle of that, in meters.
    """

    path: str
    product: str
    level: str
    date: str
    bands: tuple[str, ...]
    grid: Grid
    window: tuple[int, ...]
    resolution_m: float


@dataclasses.dataclass(frozen=True)
class CitySurvey:
    """Header information of one city's scenes, and its land use.

    Attributes:
        scenes: its scenes.
        label_year: the year of the land use, or None where it is not known.
        polygons: number of polygons.
        repaired: number of those with invalid rings.
        sources: the files that its records are made from.
        warnings: warnings for the user.
    """

    scenes: tuple[SceneSurvey, ...]
    label_year: int | None
    polygons: int
    repaired: int
    sources: tuple[cards.SourceFile, ...]
    warnings: tuple[str, ...]


@functools.lru_cache(maxsize=4)
def opened_scene(path: str, options: SceneOptions, opening: str, check: bool = True) -> Scene:
    """Opens a scene once for each process and build, since the file may be replaced between builds."""
    return scenes.open_scene(path, options, check=check)


@functools.lru_cache(maxsize=2)
def opened_ground(city: Site, options: UrbanAtlasOptions, crs: str, opening: str) -> LabelSource:
    """Reads and reprojects a city's land use once for each process and build; only the last one is kept."""
    return open_labels(city, options, crs)


def survey_city(context: Context, unit: CityUnit) -> None:
    """Opens a city's scenes and land use and stores its survey.

    Raises:
        SourceError: if a scene or the land use cannot be used, or they do not overlap.
        BandError: if a scene lacks a band.
        OptionError: if an option does not fit a scene.
    """
    path = files.join(context.state_dir, unit.name)
    if files.exists(path):
        return
    city, options = unit.city, context.options
    opened = {scene: opened_scene(scene, options.scene_of(city.scaling), context.opening) for scene in city.scenes}
    _check_places(city, opened)
    surveyed, warnings = [], []
    for scene in opened.values():
        ground = opened_ground(city, options, scene.grid.crs, context.opening)
        surveyed.append(_survey_scene(city, scene, ground))
        warnings += scene.warnings
        if scene.date and ground.year and abs(scene.date.year - ground.year) > LABEL_YEARS_APART:
            warnings.append(
                f"{city.name}: the land use is of {ground.year}, scene {scene.product} of {scene.date.year}: what was "
                "built between is labeled by what was there before"
            )
    known: dict[str, SceneSurvey] = {}
    for scene in surveyed:
        if (other := known.setdefault(scene.product.casefold(), scene)) is not scene:
            raise SourceError(
                city.name,
                f"{other.path} and {scene.path} are both called {scene.product}",
                "scenes of different names",
                "name the product once in the list of cities, or rename one of the files",
            )
    of_scenes, unchecked = source_files.of_scenes(opened.values())
    vectors = {*city.vectors, *([city.area] if isinstance(city.area, str) else [])}
    survey = CitySurvey(
        scenes=tuple(surveyed),
        label_year=ground.year,
        polygons=ground.polygons,
        repaired=ground.repaired,
        sources=(*of_scenes, *map(source_files.of_vectors, sorted(vectors))),
        warnings=(*warnings, *unchecked),
    )
    files.write_bytes(path, json.dumps(cards.to_json(survey)).encode(), durable=False)


def read_survey(context: Context, unit: CityUnit) -> CitySurvey:
    """Reads the survey that `survey_city` stored.

    Raises:
        SourceError: if it is gone.
    """
    path = files.join(context.state_dir, unit.name)
    try:
        return serialization.from_json(CitySurvey, json.loads(files.read_bytes(path)))
    except (OSError, ValueError) as error:
        raise lost(path, f"the survey of {unit.city.name} has been lost ({error})") from None


def _check_places(city: Site, opened: dict[str, Scene]) -> None:
    crs = {scene.grid.crs: scene for scene in opened.values()}
    for name, scene in crs.items():
        if reference_systems.is_in_degrees(name):
            raise SourceError(
                scene.source,
                f"its grid is in degrees ({name}), whose pixels have no size in metres",
                "a grid in metres",
                _say_target(scene.grid),
            )
    if len(crs) > 1:
        raise SourceError(
            city.name,
            f"its scenes lie in {' and '.join(sorted(crs))}",
            "one coordinate reference system a city",
            f"make two cities of it, or {_say_target(scene.grid)}",
        )


def _say_target(grid: Grid) -> str:
    return f"say `target_crs`, such as `target_crs={reference_systems.projection_for(grid)}`"


def _resolution(scene: Scene, window: tuple[int, ...]) -> float:
    """Returns the size of a pixel on the ground in the middle of a window, in meters."""
    top, left, bottom, right = window
    width, height = reference_systems.pixel_on_ground(scene.grid.window(top, left, bottom - top, right - left))
    if not abs(width / height - 1) <= _SQUARE:
        raise SourceError(
            scene.source,
            f"a pixel measures {width:.3g} m by {height:.3g} m on the ground in {scene.grid.crs[:40]}",
            "square pixels",
            _say_target(scene.grid),
        )
    # To a millimeter: more is known of no grid.
    return round(math.sqrt(width * height), 3)


def _survey_scene(city: Site, scene: Scene, ground: LabelSource) -> SceneSurvey:
    if scene.level is None:
        raise SourceError(
            scene.source,
            "its processing level is not known",
            "L1C or L2A",
            "say `scene_level=L1C` or `scene_level=L2A`",
        )
    # The area that is used may not meet the land use.
    window = _window(scene.grid, ground.bounds) if math.isfinite(ground.bounds[0]) else None
    if window is None:
        raise SourceError(
            scene.source,
            f"it does not overlap with the land use of {city.name}",
            f"a scene over {', '.join(city.vectors)}",
            "fix the city's line",
        )
    date = scene.date.isoformat() if scene.date else ""
    return SceneSurvey(
        scene.source,
        scene.product,
        scene.level,
        date,
        scene.bands,
        scene.grid,
        window,
        _resolution(scene, window),
    )


def _window(grid: Grid, bounds: tuple[float, float, float, float]) -> tuple[int, int, int, int] | None:
    """Returns the rows and columns of a grid that a box of its CRS covers, or None."""
    west, south, east, north = bounds
    corners = [grid.pixel(x, y) for x in (west, east) for y in (south, north)]
    columns, rows = zip(*corners, strict=True)
    top, bottom = max(0, math.floor(min(rows))), min(grid.height, math.ceil(max(rows)))
    left, right = max(0, math.floor(min(columns))), min(grid.width, math.ceil(max(columns)))
    return (top, left, bottom, right) if top < bottom and left < right else None


def check_alike(surveys: dict[str, CitySurvey]) -> tuple[str, float]:
    """Checks that all scenes can be in one records folder; returns their level and the size of a pixel in meters.

    Raises:
        SourceError: if they are of two levels.
        OptionError: if their pixels differ in size, or they hold different bands.
    """
    every = [scene for survey in surveys.values() for scene in survey.scenes]
    first = every[0]
    for scene in every[1:]:
        if scene.level != first.level:
            raise SourceError(
                scene.path,
                f"it is {scene.level}, and {first.path} is {first.level}",
                "scenes of one processing level",
                "build two records folders",
            )
        if scene.bands != first.bands:
            raise OptionError(
                "`bands=all`",
                f"{scene.path} holds {','.join(scene.bands)}, and {first.path} {','.join(first.bands)}",
                "the same bands of every scene",
                "name those that all scenes hold",
            )
        if abs(scene.resolution_m / first.resolution_m - 1) > _SAME_SIZE:
            raise OptionError(
                "bands",
                f"pixels of {scene.path} measure {scene.resolution_m:g} m on the ground, those of {first.path} "
                f"{first.resolution_m:g} m",
                "one pixel size",
                "choose a band of 10 m too, build two records folders, or, where a projection is not true to scale, "
                + _say_target(first.grid),
            )
    return first.level, first.resolution_m
