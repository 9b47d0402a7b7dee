"""Scores of a class map against a reference: points, polygons or another class raster.

Every class of the reference must be one of the map's, by its name or by a table, see `eo_keras.legends.class_table`.
What lies outside the map, or where the map has no data, is counted and never scored.

* Points are examples; the pixel that holds the point is its prediction.
* Of polygons, the pixels whose center lies inside are scored; where polygons overlap, the last one counts. The polygon
  is the cluster of the bootstrap, since its pixels resemble each other.
* A raster is resampled onto the map: each pixel of the map takes the class of the reference at its center (nearest
  neighbor), so that every pixel of the map counts once, whatever the reference's resolution. Square blocks of the map
  are the clusters.

Memory does not depend on the size of map or raster.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from eo_keras.core.options import check, documented, option
from eo_keras.errors import EOKerasError, OptionError
from eo_keras.geo.class_map import ClassMap, open_class_map
from eo_keras.geo.footprints import transformed
from eo_keras.geo.grid import Grid
from eo_keras.geo.points import read_points
from eo_keras.geo.polygons import read_polygons, reprojected
from eo_keras.geo.rasterize import Rasterizer
from eo_keras.geo.reference_systems import is_in_degrees
from eo_keras.legends.class_table import LEFT_OUT, NO_TABLE, Matching, match, read_class_table
from eo_keras.metrics import confusion
from eo_keras.metrics.agreement import score_clusters, score_examples
from eo_keras.metrics.estimate import RESAMPLES
from eo_keras.metrics.scores import Scores

TASK = "map"
KINDS = ("points", "polygons", "raster")

_BLOCK = 512
"""Edge in pixels of the blocks that are read at a time: that of the tiles of Cloud-Optimized GeoTIFFs."""

_SMALLEST_CLUSTER = 64
_MOST_CLUSTERS = 64
"""Most blocks of the bootstrap along the map's longer edge."""

_STEP = 16
"""Distance in pixels of the places that are reprojected; those between are interpolated, to less than a hundredth."""

_MOST_READ = 2**25
"""Most pixels of a reference raster that are read at once."""

CACHE_MB = 128
"""GDAL's cache of blocks while a map is read: a few rows of blocks of the largest maps."""

_ON_BORDER = 1e-6
"""Fraction of a pixel by which a center may miss a border for a rounding error; on it, the pixel behind counts."""

Progress = Callable[[str, int, int], None]


@documented
@dataclasses.dataclass(frozen=True)
class ReferenceOptions:
    """Reference of a map, and how it is compared."""

    points: str | None = option(
        None,
        path=True,
        help="Reference points: GeoPackage, GeoJSON, Shapefile, FlatGeobuf, GeoParquet, or a CSV table with the "
        "columns longitude and latitude, or x and y.",
    )
    polygons: str | None = option(
        None,
        path=True,
        help="Reference polygons, of the same vector files; all pixels whose center lies inside are scored.",
    )
    raster: str | None = option(
        None,
        path=True,
        help="Reference raster of classes with their names; each pixel of the map is compared with the class at its "
        "center.",
    )
    class_field: str | None = option(None, help="Field of the points or polygons that holds their class.")
    layer: str | None = option(None, help="Layer of the points or polygons, where several have that field.")
    points_crs: str | None = option(
        None, help="Coordinate reference system of a CSV table with the columns x and y, such as EPSG:32632."
    )
    class_table: str | None = option(
        None,
        path=True,
        help="CSV file with the columns source,target: other names of the reference's classes, and of the map's where "
        "several are to be one; an empty target leaves a class out. Or hsl4, hsl8, eurosat10 or full: what codes of "
        "Urban Atlas become.",
    )
    resamples: int = option(RESAMPLES, minimum=1, help="Resamples of the bootstrap that gives intervals.")

    def __post_init__(self):
        """Checks the values."""
        check(self)
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise OptionError(
                given[1] if given else "points",
                f"it is given beside `{given[0]}`" if given else "no reference is given",
                "one of `points`, `polygons` and `raster`",
            )
        for name, kinds in (("class_field", KINDS[:2]), ("layer", KINDS[:2]), ("points_crs", KINDS[:1])):
            if getattr(self, name) is not None and given[0] not in kinds:
                raise OptionError(name, f"it does not apply to `{given[0]}`", remedy="leave it out")
        if given[0] != "raster" and self.class_field is None:
            raise OptionError("class_field", "it is not given", f"the field with the class of the {given[0]}")

    @property
    def kind(self) -> str:
        """Kind of the reference, of `KINDS`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def reference(self) -> str:
        """Path of the reference."""
        return os.fspath(getattr(self, self.kind))


@dataclasses.dataclass(frozen=True)
class MapEvaluation:
    """Scores of a map against a reference.

    Attributes:
        map: the map's path.
        options: the reference, and how it was compared.
        scores: the scores; a class's precision is the map's user's accuracy, its recall the producer's accuracy.
        counts: numbers of points, polygons or pixels that were given, that were `scored`, and that were not, by reason:
            `outside_map`, `outside_reference`, `on_no_data`, `without_class` (an empty field), `left_out` (by the
            table), and of polygons `polygons_without_pixels` (no center of a pixel of the map inside),
            `polygons_left_out`, `pixels_on_no_data` and `pixels_left_out`.
        pixel_size: edge of the map's pixels in units of its coordinate reference system.
        crs: that system.
    """

    map: str
    options: ReferenceOptions
    scores: Scores
    counts: Mapping[str, int]
    pixel_size: float
    crs: str

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `metrics.json`."""
        return {
            "map": os.path.basename(self.map),
            "crs": self.crs,
            "pixel_size": self.pixel_size,
            "kind": self.options.kind,
            "reference": os.path.basename(self.options.reference),
            "class_field": self.options.class_field,
            "class_table": self.options.class_table and os.path.basename(self.options.class_table),
            "counts": dict(self.counts),
            **self.scores.to_json(),
        }


def evaluate_map(
    map_path: str | os.PathLike[str], options: ReferenceOptions, progress: Progress | None = None
) -> MapEvaluation:
    """Scores a class map against a reference.

    Args:
        map_path: a map of this program, or another class raster that `open_class_map` reads.
        options: the reference.
        progress: called with (stage, done, total).

    Raises:
        SourceError: if map or reference cannot be read.
        LegendError: if a class of the reference is none of the map's.
        EOKerasError: if nothing of the reference lies on the map.
    """
    table = NO_TABLE if options.class_table is None else read_class_table(options.class_table)
    score = {"points": _score_points, "polygons": _score_polygons, "raster": _score_raster}[options.kind]
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20), open_class_map(map_path) as class_map:
        matching = match(class_map.legend.class_names, table)
        scores, counts = score(class_map, options, matching, progress or (lambda *_: None))
        grid = class_map.grid
    return MapEvaluation(os.fspath(map_path), options, scores, counts, grid.pixel_size, grid.crs)


def _check_scored(scored: int, options: ReferenceOptions, counts: Mapping[str, int], crs: str) -> None:
    if not scored:
        found = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in counts.items() if count)
        raise EOKerasError(
            options.reference,
            f"nothing of it can be scored ({found or 'it is empty'})",
            f"a reference that lies on the map, which is in {crs}",
            "check both coordinate reference systems",
        )


def pixels_of(grid: Grid, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the pixels that hold points.

    Args:
        grid: the grid.
        coordinates: float64 (N, 2), x and y in the grid's reference system; not finite where there is none.

    Returns:
        Rows and columns int64 (N,), and whether they lie in the grid, bool (N,).
    """
    x, y = np.where(np.isfinite(coordinates), coordinates, np.nan).T
    columns, rows = (np.floor(place) for place in grid.pixel(x, y))
    inside = (rows >= 0) & (rows < grid.height) & (columns >= 0) & (columns < grid.width)
    rows, columns = (np.where(inside, place, 0).astype(np.int64) for place in (rows, columns))
    return rows, columns, inside


def labels_at(class_map: ClassMap, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns the labels of single pixels of a map, uint8 (N,); each block that holds some is read once."""
    labels = np.full(len(rows), class_map.nodata, np.uint8)
    blocks, place = np.unique(np.stack([rows, columns], axis=1) // _BLOCK, axis=0, return_inverse=True)
    order = np.argsort(place.ravel(), kind="stable")
    ends = np.searchsorted(place.ravel()[order], np.arange(len(blocks) + 1))
    for first, last in itertools.pairwise(ends):
        here = order[first:last]
        # Only as much of the block as the points span.
        row, column = rows[here].min(), columns[here].min()
        height, width = rows[here].max() - row + 1, columns[here].max() - column + 1
        window = class_map.read(int(row), int(column), int(height), int(width))
        labels[here] = window[rows[here] - row, columns[here] - column]
    return labels


def _common(matching: Matching, class_map: ClassMap) -> np.ndarray:
    """Returns the common label of each label of the map, and `LEFT_OUT` for no data; int64 (256,)."""
    common = np.full(256, LEFT_OUT, np.int64)
    common[: len(matching.of_map)] = matching.of_map
    common[class_map.nodata] = LEFT_OUT
    return common


def _score_points(
    class_map: ClassMap, options: ReferenceOptions, matching: Matching, progress: Progress
) -> tuple[Scores, dict[str, int]]:
    points = read_points(options.points, options.class_field, layer=options.layer, crs=options.points_crs)
    rows, columns, inside = pixels_of(class_map.grid, points.in_crs(class_map.grid.crs))
    classed = points.values != ""
    truth = np.full(len(points), LEFT_OUT, np.int64)
    truth[classed] = matching.labels_of(points.values[classed], points.source)
    found = np.full(len(points), class_map.nodata, np.uint8)
    found[inside] = labels_at(class_map, rows[inside], columns[inside])
    progress("reading the map", len(points), len(points))
    valid, predicted = found != class_map.nodata, _common(matching, class_map)[found]
    scored = classed & inside & valid & (truth >= 0) & (predicted >= 0)
    counts = {
        "points": len(points),
        "scored": int(scored.sum()),
        "without_class": int((~classed).sum()),
        "outside_map": int((classed & ~inside).sum()),
        "on_no_data": int((classed & inside & ~valid).sum()),
        "left_out": int((classed & inside & valid & ~scored).sum()),
    }
    _check_scored(counts["scored"], options, counts, class_map.grid.crs)
    names = matching.class_names
    matrix = confusion.confusion_matrix(truth[scored], predicted[scored], len(names))
    return score_examples(matrix, names, task=TASK, unit="points", resamples=options.resamples), counts


def _score_polygons(
    class_map: ClassMap, options: ReferenceOptions, matching: Matching, progress: Progress
) -> tuple[Scores, dict[str, int]]:
    grid, names = class_map.grid, matching.class_names
    read = read_polygons(options.polygons, re.escape(options.class_field), options.layer)
    truth = matching.labels_of(read.values, read.source)
    polygons = reprojected(read, grid.crs)
    rasterizer = Rasterizer(polygons.geometries, np.zeros(len(polygons), np.uint8))
    common, kinds = _common(matching, class_map), len(names) + 1
    # Common classes of the pixels of each polygon, and in the last column those that are left out by the table.
    found, inside, no_data = np.zeros((len(polygons), kinds), np.int64), np.zeros(len(polygons), np.int64), 0
    for window in _windows(grid, rasterizer.bounds, progress):
        owners = rasterizer.owners(grid.window(*window))
        if not (here := owners >= 0).any():
            continue
        owner, labels = owners[here], class_map.read(*window)[here]
        inside += np.bincount(owner, minlength=len(polygons))
        valid = labels != class_map.nodata
        no_data += int((~valid).sum())
        places = owner[valid].astype(np.int64) * kinds + common[labels[valid]] % kinds
        found += np.bincount(places, minlength=found.size).reshape(found.shape)
    known = truth >= 0
    scored = found[known, :-1]
    counts = {
        "polygons": len(polygons),
        "scored": int(scored.any(axis=1).sum()),
        "polygons_without_pixels": int((inside == 0).sum()),
        "polygons_left_out": int((~known & (inside > 0)).sum()),
        "pixels": int(scored.sum()),
        "pixels_on_no_data": no_data,
        "pixels_left_out": int(found.sum() - scored.sum()),
    }
    _check_scored(counts["pixels"], options, counts, grid.crs)
    truth = truth[known]
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, truth, scored)
    sums = np.zeros((len(truth), 3, len(names)), np.int64)
    each = np.arange(len(truth))
    sums[each, 0, truth], sums[each, 1, truth], sums[:, 2] = scored[each, truth], scored.sum(axis=1), scored
    scores = score_clusters(
        matrix, sums, names, task=TASK, unit="pixels", clusters="polygons", resamples=options.resamples
    )
    return scores, counts


def _windows(grid: Grid, bounds: tuple[float, ...] | None, progress: Progress) -> Iterator[tuple[int, int, int, int]]:
    """Yields the blocks of a grid (row, column, height, width) that bounds in its reference system meet, by rows."""
    top, left, bottom, right = 0, 0, grid.height, grid.width
    if bounds is not None:
        west, south, east, north = bounds
        columns, rows = zip(*(grid.pixel(x, y) for x in (west, east) for y in (south, north)), strict=True)
        top, left = max(0, int(min(rows)) - 1), max(0, int(min(columns)) - 1)
        bottom, right = min(grid.height, int(max(rows)) + 2), min(grid.width, int(max(columns)) + 2)
    first = top // _BLOCK * _BLOCK
    for row in range(first, bottom, _BLOCK):
        for column in range(left // _BLOCK * _BLOCK, right, _BLOCK):
            yield row, column, min(_BLOCK, grid.height - row), min(_BLOCK, grid.width - column)
        progress("reading the map", min(row + _BLOCK, bottom) - first, bottom - first)


def _score_raster(
    class_map: ClassMap, options: ReferenceOptions, matching: Matching, progress: Progress
) -> tuple[Scores, dict[str, int]]:
    grid, names = class_map.grid, matching.class_names
    classes = len(names)
    edge = max(_SMALLEST_CLUSTER, -(-max(grid.height, grid.width) // _MOST_CLUSTERS))
    across = -(-grid.width // edge)
    matrix = np.zeros((classes, classes), np.int64)
    sums = np.zeros((-(-grid.height // edge) * across, 3, classes), np.int64)
    common, met = _common(matching, class_map), np.zeros(256, bool)
    totals = dict.fromkeys(("pixels", "scored", "on_no_data", "outside_reference", "left_out"), 0)
    with open_class_map(options.raster) as reference:
        of_reference = np.full(256, LEFT_OUT, np.int64)
        kinds = reference.legend.class_names
        for label, name in enumerate(kinds):
            if matching.known(name):
                of_reference[label] = matching.labels_of([name], reference.path)[0]
        for row, column, height, width in _windows(grid, None, progress):
            labels = class_map.read(row, column, height, width)
            there = _nearest(reference, grid, row, column, height, width)
            valid, covered = labels != class_map.nodata, there != reference.nodata
            met[np.unique(there)] = True
            truth, predicted = of_reference[there], common[labels]
            scored = valid & covered & (truth >= 0) & (predicted >= 0)
            totals["pixels"] += labels.size
            totals["scored"] += int(scored.sum())
            totals["on_no_data"] += int((~valid).sum())
            totals["outside_reference"] += int((valid & ~covered).sum())
            totals["left_out"] += int((valid & covered & ~scored).sum())
            cluster = ((row + np.arange(height)) // edge)[:, None] * across + (column + np.arange(width)) // edge
            clusters, place = np.unique(cluster, return_inverse=True)
            pairs = (place.reshape(cluster.shape)[scored] * classes + truth[scored]) * classes + predicted[scored]
            matrices = np.bincount(pairs, minlength=len(clusters) * classes**2).reshape(-1, classes, classes)
            matrix += matrices.sum(axis=0)
            sums[clusters] += confusion.counts_of(matrices)
        # Classes that do not occur on the map need no match.
        matching.check([name for label, name in enumerate(kinds) if met[label]], reference.path)
    _check_scored(totals["scored"], options, totals, grid.crs)
    scores = score_clusters(
        matrix,
        sums,
        names,
        task=TASK,
        unit="pixels",
        clusters=f"blocks of {edge} x {edge} pixels",
        resamples=options.resamples,
    )
    return scores, totals


def _nearest(reference: ClassMap, grid: Grid, row: int, column: int, height: int, width: int) -> np.ndarray:
    """Returns the labels of a reference at the centers of a window's pixels, uint8 (height, width)."""
    rows, columns, inside = _places(reference.grid, grid, row, column, height, width)
    labels = np.full((height, width), reference.nodata, np.uint8)
    if not inside.any():
        return labels
    top, left = int(rows[inside].min()), int(columns[inside].min())
    spans = int(rows[inside].max()) + 1 - top, int(columns[inside].max()) + 1 - left
    if spans[0] * spans[1] > _MOST_READ and height * width > 1:
        # Of a much finer reference, in parts.
        if height > 1:
            half = height // 2
            labels[:half] = _nearest(reference, grid, row, column, half, width)
            labels[half:] = _nearest(reference, grid, row + half, column, height - half, width)
        else:
            half = width // 2
            labels[:, :half] = _nearest(reference, grid, row, column, height, half)
            labels[:, half:] = _nearest(reference, grid, row, column + half, height, width - half)
        return labels
    window = reference.read(top, left, *spans)
    labels[inside] = window[rows[inside] - top, columns[inside] - left]
    return labels


def _places(
    other: Grid, grid: Grid, row: int, column: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the pixels of another grid that hold the centers of a window's pixels: rows, columns, whether inside."""
    if other.crs == grid.crs:
        x, y = grid.coordinates(column + np.arange(width)[None, :] + 0.5, (row + np.arange(height))[:, None] + 0.5)
    else:
        down, right = (np.unique(np.append(np.arange(0, size, _STEP), size - 1)) for size in (height, width))
        nodes = np.stack(grid.coordinates(column + right[None, :] + 0.5, row + down[:, None] + 0.5), axis=-1)
        nodes = transformed(nodes.reshape(-1, 2), grid.crs, other.crs).reshape(nodes.shape)
        nodes = np.where(np.isfinite(nodes), nodes, np.nan)
        turning = is_in_degrees(other.crs)
        if turning and np.isfinite(nodes).all():
            # Longitudes go on across 180 degrees while they are interpolated.
            for axis in (0, 1):
                nodes[..., 0] = np.unwrap(nodes[..., 0], axis=axis, period=360)
        x, y = np.moveaxis(_between(_between(nodes, down, height, 0), right, width, 1), -1, 0)
        if turning:
            west = other.bounds[0]
            x = west + (x - west) % 360
    columns, rows = (np.floor(place + _ON_BORDER) for place in other.pixel(x, y))
    rows, columns = np.broadcast_arrays(rows, columns)
    inside = (rows >= 0) & (rows < other.height) & (columns >= 0) & (columns < other.width)
    return *(np.where(inside, place, 0).astype(np.int64) for place in (rows, columns)), inside


def _between(nodes: np.ndarray, places: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Interpolates linearly between nodes at some places of an axis, for all of its places."""
    wanted = np.arange(size)
    after = np.clip(np.searchsorted(places, wanted), min(1, len(places) - 1), len(places) - 1)
    before = np.maximum(after - 1, 0)
    step = np.maximum(places[after] - places[before], 1)
    share = (wanted - places[before]) / step
    share = share.reshape([-1 if k == axis else 1 for k in range(nodes.ndim)])
    return nodes.take(before, axis) * (1 - share) + nodes.take(after, axis) * share
