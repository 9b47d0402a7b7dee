"""Stratified random samples of a class map, for interpretation by eye or in the field.

The strata are the map's classes. Every pixel has a random number that depends on the seed and on its place alone, and
each class takes the pixels with the smallest ones, so that one pass over the map draws the sample, in memory that does
not depend on the map's size, and a larger sample of the same seed holds the smaller one. Where pixels differ in area,
as in degrees, they are drawn in proportion to it (Efraimidis & Spirakis 2006, Information Processing Letters 97(5)).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator

import numpy as np

from eo_keras.core.number_format import percent
from eo_keras.core.options import check, documented, option
from eo_keras.errors import OptionError, SourceError
from eo_keras.geo.class_map import ClassMap, open_class_map
from eo_keras.geo.footprints import transformed
from eo_keras.geo.grid import Grid
from eo_keras.geo.pixel_areas import areas_by_label, row_areas
from eo_keras.geo.points import points_file
from eo_keras.mapping.areas import class_areas
from eo_keras.mapping.reference import CACHE_MB
from eo_keras.metrics.area_estimation import ALLOCATIONS, allocate, sample_size
from eo_keras.plots.html import Table

SAMPLE = 300
"""Default number of places."""

LAYER = "sample"
MAP_CLASS, REFERENCE_CLASS = "map_class", "reference_class"
"""Fields of a sample: the map's class, and the one that the interpreter fills in."""

STRATA_KEY = "EO_KERAS_STRATA"
"""Name of the checksum of the strata in the metadata of a sample's file."""

_PIXELS = 2**22
"""Pixels that are read at once, unless a row has more."""

Progress = Callable[[str, int, int], None]


@documented
@dataclasses.dataclass(frozen=True)
class SampleOptions:
    """Number of places of a stratified sample, and their classes."""

    sample: int | None = option(
        None, minimum=2, help=f"Number of places. Default: {SAMPLE}, or what `target_error` needs."
    )
    target_error: float | None = option(
        None,
        above=0,
        below=0.5,
        help="Standard error that overall accuracy shall have, such as 0.01; the number of places follows from it and "
        "from `expected_accuracy`.",
    )
    allocation: str = option(
        "mixed",
        choices=ALLOCATIONS,
        help="How the places are divided among the map's classes: mixed gives each rare class `min_per_class` places "
        "and divides the rest in proportion to area; optimal divides by area and `expected_accuracy`, with the same "
        "minimum; proportional by area alone; equal gives all classes as many.",
    )
    min_per_class: int | None = option(
        None,
        minimum=2,
        help="Fewest places of a class, for mixed and optimal. Default: 50, or half an equal share where that is less.",
    )
    expected_accuracy: tuple[float, ...] = option(
        (0.8,),
        above=0,
        below=1,
        help="User's accuracy that is expected of all classes, or of each one, in the order of the map's legend; for "
        "`target_error` and `allocation=optimal`.",
    )
    seed: int = option(1, minimum=0, help="Seed of the random numbers; equal seeds draw the same places.")

    def __post_init__(self):
        """Checks the values."""
        check(self)
        if self.sample is not None and self.target_error is not None:
            raise OptionError("target_error", "it is given beside `sample`", "one of the two")
        if self.min_per_class is not None and self.allocation not in ("mixed", "optimal"):
            raise OptionError("min_per_class", f"it does not apply to `allocation={self.allocation}`")
        if not self.expected_accuracy:
            raise OptionError("expected_accuracy", "none", "a number for all classes, or one for each")

    def expected(self, classes: int) -> np.ndarray:
        """Returns the expected user's accuracy of each class.

        Raises:
            OptionError: if there are neither one number nor as many as classes.
        """
        if len(self.expected_accuracy) not in (1, classes):
            raise OptionError(
                "expected_accuracy",
                f"{len(self.expected_accuracy)} numbers",
                f"one, or one for each of the map's {classes} classes",
            )
        return np.broadcast_to(np.array(self.expected_accuracy, np.float64), classes)


@dataclasses.dataclass(frozen=True)
class Strata:
    """Classes of a map as strata.

    Attributes:
        class_names: names of the C classes.
        pixels: int64 (C,), number of pixels of each class.
        hectares: float64 (C,), area of each class on the ground.
        checksum: of grid, classes and numbers of pixels: a map with another one is another map.
    """

    class_names: tuple[str, ...]
    pixels: np.ndarray
    hectares: np.ndarray
    checksum: str

    @property
    def weights(self) -> np.ndarray:
        """Share of each class in the area of all, float64 (C,)."""
        return self.hectares / self.hectares.sum()


@dataclasses.dataclass(frozen=True)
class Sample:
    """Places drawn from a map, in random order.

    Attributes:
        map: the map's path.
        options: how it was drawn.
        strata: the map's classes.
        drawn: int64 (C,), number of places of each class.
        labels: uint8 (N,), class of each place on the map.
        rows: int64 (N,), its row.
        columns: int64 (N,), its column.
        coordinates: float64 (N, 2), center of its pixel in `crs`.
        degrees: float64 (N, 2), longitude and latitude.
        crs: the map's coordinate reference system.
    """

    map: str
    options: SampleOptions
    strata: Strata
    drawn: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    coordinates: np.ndarray
    degrees: np.ndarray
    crs: str

    def __len__(self) -> int:
        return len(self.labels)

    def table(self) -> Table:
        """Returns pixels, area and number of places of each class."""
        strata = self.strata
        rows = zip(strata.class_names, strata.pixels, strata.hectares, strata.weights, self.drawn, strict=True)
        return Table(
            ("class", "pixels", "area, ha", "share of the map", "places"),
            [
                (name, f"{pixels:,}", f"{hectares:,.2f}", percent(weight), f"{count:,}")
                for name, pixels, hectares, weight, count in rows
            ],
            "Strata and places",
        )

    def to_bytes(self, *, hide_classes: bool = False) -> bytes:
        """Returns the sample as a GeoPackage whose field `reference_class` is to be filled in.

        Args:
            hide_classes: whether to leave out the map's class and the stratum's weight, so that the interpreter does
                not know them.
        """
        fields = {"id": np.arange(1, len(self) + 1), REFERENCE_CLASS: np.full(len(self), "", np.str_)}
        if not hide_classes:
            fields[MAP_CLASS] = np.array(self.strata.class_names)[self.labels]
            fields["stratum_weight"] = self.strata.weights[self.labels]
        fields |= {"x": self.coordinates[:, 0], "y": self.coordinates[:, 1]}
        fields |= {"longitude": self.degrees[:, 0], "latitude": self.degrees[:, 1]}
        metadata = {
            "EO_KERAS_MAP": os.path.basename(self.map),
            STRATA_KEY: self.strata.checksum,
            "EO_KERAS_SEED": str(self.options.seed),
            "EO_KERAS_ALLOCATION": self.options.allocation,
        }
        return points_file(self.coordinates, fields, self.crs, LAYER, metadata)


def draw_sample(
    map_path: str | os.PathLike[str],
    options: SampleOptions = SampleOptions(),  # noqa: B008, frozen
    progress: Progress | None = None,
) -> Sample:
    """Draws a stratified random sample of the pixels of a class map.

    Args:
        map_path: a map of this program, or another class raster that `open_class_map` reads.
        options: number of places and their allocation.
        progress: called with (stage, done, total) rows.

    Raises:
        SourceError: if the map cannot be read, or has no class anywhere.
        OptionError: if the sample is too small for the map's classes.
    """
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20), open_class_map(map_path) as class_map:
        grid, classes = class_map.grid, len(class_map.legend)
        expected = options.expected(classes)
        # No class can need more.
        most = options.sample or SAMPLE
        if options.target_error is not None:
            most = sample_size([1.0], [0.5], options.target_error)
        smallest = _Smallest(classes, most)
        pixels, hectares = np.zeros(256, np.int64), np.zeros(256)
        for row, labels, areas in _bands(class_map, progress):
            pixels += np.bincount(labels.ravel(), minlength=256)
            hectares += areas_by_label(labels, areas)
            smallest.add(row, labels, _keys(row, labels.shape, options.seed, areas))
        strata = _strata(class_map, pixels, hectares)
    size = options.sample or SAMPLE
    if options.target_error is not None:
        size = sample_size(strata.weights, expected, options.target_error, int(strata.pixels.sum()))
    drawn = allocate(
        size,
        strata.weights,
        options.allocation,
        minimum=options.min_per_class,
        expected_accuracies=expected,
        available=strata.pixels,
    )
    places = np.concatenate([smallest.places(label, count) for label, count in enumerate(drawn.tolist())])
    labels = np.repeat(np.arange(classes), drawn).astype(np.uint8)
    # By class, the order would tell the interpreter the class.
    order = np.random.default_rng(options.seed).permutation(len(places))
    (rows, columns), labels = np.divmod(places[order], grid.width), labels[order]
    coordinates = np.stack(grid.coordinates(columns + 0.5, rows + 0.5), axis=-1)
    degrees = transformed(coordinates, grid.crs, "EPSG:4326")
    return Sample(os.fspath(map_path), options, strata, drawn, labels, rows, columns, coordinates, degrees, grid.crs)


def count_strata(class_map: ClassMap, progress: Progress | None = None) -> Strata:
    """Counts the pixels of an open map by class, and adds up their areas on the ground.

    Args:
        class_map: the map.
        progress: called with (stage, done, total) rows.

    Raises:
        SourceError: if it has no class anywhere.
    """
    found = class_areas(class_map, progress=progress)
    return _strata(class_map, found.pixels, found.hectares)


def _bands(class_map: ClassMap, progress: Progress | None) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields the first row of each band of rows, its labels, and its pixels' areas as of `row_areas`."""
    grid = class_map.grid
    for row, rows in class_map.row_bands(max(1, min(512, _PIXELS // grid.width))):
        yield row, class_map.read(row, 0, rows, grid.width), row_areas(grid, np.arange(row, row + rows))
        if progress is not None:
            progress("reading the map", row + rows, grid.height)


def _strata(class_map: ClassMap, pixels: np.ndarray, hectares: np.ndarray) -> Strata:
    names = class_map.legend.class_names
    # Sums depend on the bands of rows in the last digits alone.
    pixels, hectares = pixels[: len(names)], hectares[: len(names)].round(9)
    if not hectares.any():
        raise SourceError(class_map.path, "it has no class anywhere", "a map with classes", "name another map")
    return Strata(names, pixels, hectares, _checksum(class_map.grid, names, pixels))


def _checksum(grid: Grid, names: tuple[str, ...], pixels: np.ndarray) -> str:
    content = [grid.crs, list(grid.transform), grid.height, grid.width, list(names), pixels.tolist()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _keys(row: int, shape: tuple[int, ...], seed: int, areas: np.ndarray) -> np.ndarray:
    """Returns exponential random numbers at the rate of each pixel's area, float64 (rows, width)."""
    raw = np.empty(shape, np.uint64)
    for number in range(shape[0]):
        raw[number] = np.random.Philox(key=np.array([seed, row + number], np.uint64)).random_raw(shape[1])
    raw >>= np.uint64(11)
    keys = raw.astype(np.float64)
    keys += 0.5
    keys *= 2.0**-53
    np.log(keys, out=keys)
    # Pixels without a place on the ground have no area and come last.
    keys /= -np.maximum(areas, np.finfo(np.float64).tiny)
    return keys


class _Smallest:
    """The pixels of each class with the smallest keys.

    Args:
        classes: number of classes.
        most: most pixels that are kept of a class.
    """

    def __init__(self, classes: int, most: int):
        self._most = most
        self._keys = [np.zeros(0) for _ in range(classes)]
        self._places = [np.zeros(0, np.int64) for _ in range(classes)]
        # By label; of no data, no key is small enough.
        self._below = np.full(256, -np.inf)
        self._below[:classes] = np.inf

    def add(self, row: int, labels: np.ndarray, keys: np.ndarray) -> None:
        """Adds a band of rows."""
        flat, keys = labels.ravel(), keys.ravel()
        candidates = np.flatnonzero(keys < self._below[flat])
        found = flat[candidates]
        for label in np.unique(found).tolist():
            here = candidates[found == label]
            places = np.concatenate([self._places[label], row * labels.shape[1] + here])
            kept = np.concatenate([self._keys[label], keys[here]])
            if len(kept) > self._most:
                smallest = np.argpartition(kept, self._most - 1)[: self._most]
                places, kept = places[smallest], kept[smallest]
                self._below[label] = kept.max()
            self._places[label], self._keys[label] = places, kept

    def places(self, label: int, count: int) -> np.ndarray:
        """Returns the pixels of a class with the smallest keys, as `row * width + column`, in the keys' order."""
        order = np.lexsort((self._places[label], self._keys[label]))
        return self._places[label][order[:count]]
