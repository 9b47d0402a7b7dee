"""Footprints of images on the ground, and distances between them in meters, anywhere on Earth.

A map projection is true to distances in a part of the world at best. So footprints are kept as points of space (WGS84,
meters from the Earth's center), which know neither an antimeridian nor poles, and are measured in groups: each group
and what lies around it are laid flat by an azimuthal equidistant projection about the group's middle, and distances
are taken there from edge to edge. Within `_CELL_M` of the middle that stretches lengths by less than 0.02 %, and at
100 km from the group by 0.05 % (J. P. Snyder, Map Projections: A Working Manual, 1987, chapter 25). What is further
away lies nearly along the projection's rays, along which distances are true.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

_EQUATOR_M, _FLATTENING = 6_378_137.0, 1 / 298.257223563
_ECCENTRICITY = _FLATTENING * (2 - _FLATTENING)

_MEAN_RADIUS_M = 6_371_008.8

_MERIDIAN_M = 10_001_965.73
"""Length of a quarter of a meridian."""

_CELL_M = 200_000.0
"""Edge in meters of the cubes of space whose footprints are one group."""

_FAR_M = 8_000_000.0
"""Distance in meters beyond which distances of centers are used, since the plane is only locally exact."""


@dataclasses.dataclass(frozen=True)
class Footprints:
    """Footprints of N images.

    Attributes:
        corners: float64 (N, 4, 3), the corners in the order of the outline, in meters from the Earth's center; NaN
            where a place is not known.
    """

    corners: np.ndarray

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, chosen: npt.ArrayLike) -> Footprints:
        """Returns those at some positions, or where a mask is true."""
        return Footprints(self.corners[np.asarray(chosen)])

    @classmethod
    def of_degrees(cls, corners: npt.ArrayLike) -> Footprints:
        """Makes footprints from their corners' longitudes and latitudes (N, 4, 2) in degrees, NaN where unknown."""
        corners = np.asarray(corners, np.float64)
        return cls(_in_space(np.where(np.isfinite(corners), corners, np.nan)))

    @classmethod
    def of_transforms(cls, crs: Sequence[str | None], transforms: npt.ArrayLike, pixels: int) -> Footprints:
        """Makes the footprints of square images of so many pixels.

        Args:
            crs: the N coordinate reference systems; None of an image without one.
            transforms: (N, 6) affine transforms (a, b, c, d, e, f) from pixel (column, row) to CRS.
            pixels: height and width.
        """
        columns, rows = np.array([[0, 1, 1, 0], [0, 0, 1, 1]]) * pixels
        a, b, c, d, e, f = (column[:, None] for column in np.asarray(transforms, np.float64).T)
        corners = np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=-1)
        degrees = np.full((len(corners), 4, 2), np.nan)
        names = np.array([name or "" for name in crs], np.str_)
        for name in np.unique(names[names != ""]).tolist():
            here = names == name
            degrees[here] = transformed(corners[here].reshape(-1, 2), name, "EPSG:4326").reshape(-1, 4, 2)
        return cls.of_degrees(degrees)

    @property
    def known(self) -> np.ndarray:
        """Whether each location is known, bool (N,)."""
        return np.isfinite(self.corners).all(axis=(1, 2))

    @property
    def degrees(self) -> np.ndarray:
        """Longitude and latitude of the centers in degrees, float64 (N, 2)."""
        x, y, z = self.centres.T
        return np.degrees(np.stack([np.arctan2(y, x), np.arctan2(z, (1 - _ECCENTRICITY) * np.hypot(x, y))], axis=-1))

    @property
    def centres(self) -> np.ndarray:
        """The means of the corners, float64 (N, 3)."""
        return self.corners.mean(axis=1)

    @property
    def reach(self) -> float:
        """The largest distance of a corner from its footprint's center, in meters."""
        apart = np.linalg.norm(self.corners - self.centres[:, None], axis=2)
        return float(apart.max(initial=0.0))


@dataclasses.dataclass(frozen=True)
class Nearness:
    """Nearest neighbors of n footprints: distance to the nearest in meters (n,), and whether they overlap (n,)."""

    distance_m: np.ndarray
    overlaps: np.ndarray


def transformed(places: np.ndarray, source: str, crs: str) -> np.ndarray:
    """Returns places (N, 2) of one CRS in another, degrees as longitude and latitude; not finite where there is none.

    Raises:
        CRSError: if a CRS is unknown.
    """
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    try:
        return np.stack(transform(source, crs, places[:, 0], places[:, 1]), axis=-1)
    except CRSError:
        raise
    except Exception:
        # One place outside of a projection's domain fails all in the same call; GDAL's errors are private.
        if len(places) == 1:
            return np.full((1, 2), np.nan)
        middle = len(places) // 2
        return np.concatenate([transformed(half, source, crs) for half in (places[:middle], places[middle:])])


def within(first: Footprints, second: Footprints, distance_m: float) -> np.ndarray:
    """Tells which footprints are within a distance of any of others, from edge to edge.

    Args:
        first: n footprints, their places known.
        second: m footprints, likewise.
        distance_m: distance in meters; 0 is touching.

    Returns:
        bool (n,).
    """
    return np.bincount(pairs_within(first, second, distance_m)[:, 0], minlength=len(first)) > 0


def pairs_within(first: Footprints, second: Footprints, distance_m: float) -> np.ndarray:
    """Returns the positions int64 (pairs, 2) of all footprints of two sets within a distance."""
    import shapely

    found = [np.empty((0, 2), np.int64)]
    slack = first.reach + second.reach + distance_m
    for group in _groups(first, second):
        columns = np.flatnonzero(group.apart <= group.radius + slack)
        if len(columns):
            tree = shapely.STRtree(group.flat(second, columns))
            pairs = tree.query(group.flat(first, group.rows), predicate="dwithin", distance=distance_m)
            found.append(np.stack([group.rows[pairs[0]], columns[pairs[1]]], axis=1))
    return np.concatenate(found)


def overlapping_pairs(footprints: Footprints, strip_m: float) -> np.ndarray:
    """Returns the positions int64 (pairs, 2), the lower first, of footprints that share more than a strip's ground."""
    import shapely

    found = [np.empty((0, 2), np.int64)]
    slack = 2 * footprints.reach
    for group in _groups(footprints, footprints):
        columns = np.flatnonzero(group.apart <= group.radius + slack)
        mine, others = group.flat(footprints, group.rows), group.flat(footprints, columns)
        rows, places = shapely.STRtree(others).query(mine, predicate="intersects")
        later = group.rows[rows] < columns[places]
        rows, places = rows[later], places[later]
        shared = shapely.area(shapely.intersection(mine[rows], others[places]))
        enough = shared > strip_m * np.sqrt(shapely.area(mine[rows]))
        found.append(np.stack([group.rows[rows[enough]], columns[places[enough]]], axis=1))
    return np.concatenate(found)


def cells(degrees: np.ndarray, edge_m: float) -> np.ndarray:
    """Divides the Earth into cells and returns row and column, int64 (N, 2), of those that places lie in.

    Rows begin at the equator and are `edge_m` high along a meridian; each holds as many equal cells as are nearest to
    that width in the row's middle: the sinusoidal grid of whole cells that satellite products of the globe are binned
    in. Cells are as high and, but for those few around the poles, as wide on the ground wherever they lie, to 1 %.

    Args:
        degrees: (N, 2) longitude and latitude.
        edge_m: edge of a cell in meters.
    """
    longitude, latitude = degrees.T
    rows = np.floor(latitude / 90 * _MERIDIAN_M / edge_m)
    # A parallel's length follows the cosine; what the Earth's flattening adds is less than 0.4 %.
    around = 4 * _MERIDIAN_M * np.cos(np.radians(np.clip((rows + 0.5) * edge_m / _MERIDIAN_M * 90, -90, 90)))
    counts = np.maximum(np.round(around / edge_m), 1)
    columns = np.floor((longitude + 180) % 360 / 360 * counts)
    return np.stack([rows, columns], axis=-1).astype(np.int64)


def nearness(first: Footprints, second: Footprints, strip_m: float) -> Nearness:
    """Measures how near footprints lie to the nearest of others, from edge to edge.

    Args:
        first: n footprints, their places known.
        second: m footprints, likewise; m is at least 1.
        strip_m: a shared strip of this width along an edge is no overlap yet: coordinates are rounded.
    """
    import shapely

    nearest, overlaps = np.empty(len(first)), np.zeros(len(first), bool)
    slack = first.reach + second.reach
    for group in _groups(first, second):
        # The nearest of one footprint may be another than that of the group's middle.
        columns = np.flatnonzero(group.apart <= group.apart.min() + 2 * (group.radius + slack))
        if group.apart.min() > _FAR_M:
            ways, others = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (first.centres, second.centres))
            chords = np.linalg.norm(ways[group.rows, None] - others[columns], axis=2)
            nearest[group.rows] = _along_ground(chords.min(axis=1), 1.0) * _MEAN_RADIUS_M
            continue
        mine, others = group.flat(first, group.rows), group.flat(second, columns)
        tree = shapely.STRtree(others)
        (rows, _), distances = tree.query_nearest(mine, return_distance=True, all_matches=False)
        nearest[group.rows[rows]] = distances
        rows, found = tree.query(mine, predicate="intersects")
        shared = shapely.area(shapely.intersection(mine[rows], others[found]))
        overlaps[group.rows[rows[shared > strip_m * np.sqrt(shapely.area(mine[rows]))]]] = True
    return Nearness(nearest, overlaps)


def joined(count: int, pairs: np.ndarray) -> np.ndarray:
    """Labels the connected components of `count` nodes and edges (pairs, 2), from 0; int64 (count,)."""
    roots = np.arange(count)
    # The smallest of a component's positions spreads along its pairs; shortening the chains halves what is left.
    while True:
        lower = np.minimum(roots[pairs[:, 0]], roots[pairs[:, 1]]) if len(pairs) else roots[:0]
        before = roots.copy()
        for side in (0, 1) if len(pairs) else ():
            np.minimum.at(roots, roots[pairs[:, side]], lower)
            np.minimum.at(roots, pairs[:, side], lower)
        roots = roots[roots]
        if (roots == before).all():
            break
    return np.unique(roots, return_inverse=True)[1].reshape(-1)


@dataclasses.dataclass(frozen=True)
class _Group:
    """Group of nearby footprints with the tangent plane in their middle.

    Attributes:
        rows: their positions.
        middle: float64 (3,).
        axes: float64 (2, 3), the directions of east and north.
        curvature_m: the Earth's mean radius of curvature there.
        radius: the largest distance of their centers from the middle.
        apart: float64 (m,), straight distances of the others' centers from the middle.
    """

    rows: np.ndarray
    middle: np.ndarray
    axes: np.ndarray
    curvature_m: float
    radius: float
    apart: np.ndarray

    def flat(self, footprints: Footprints, chosen: np.ndarray) -> np.ndarray:
        """Projects footprints to polygons of the plane, distances from its middle true; object (chosen,)."""
        import shapely

        away = footprints.corners[chosen] - self.middle
        plane = away @ self.axes.T
        across = np.linalg.norm(plane, axis=-1)
        along = _along_ground(np.linalg.norm(away, axis=-1), self.curvature_m)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(across > 0, along / across, 1.0)
        return shapely.polygons(plane * scale[..., None])


def _groups(first: Footprints, second: Footprints) -> Iterator[_Group]:
    """Yields the first footprints in groups that lie in one cube of space."""
    if not len(first) or not len(second):
        return
    centres, others = first.centres, second.centres
    cells = np.unique(np.floor(centres / _CELL_M).astype(np.int64), axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(cells, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1):
        longitude, latitude = _direction(centres[rows].mean(axis=0))
        middle = _in_space(np.degrees([longitude, latitude]))
        sin, cos = np.sin([longitude, latitude]), np.cos([longitude, latitude])
        axes = np.array([[-sin[0], cos[0], 0.0], [-sin[1] * cos[0], -sin[1] * sin[0], cos[1]]])
        curvature = _EQUATOR_M * np.sqrt(1 - _ECCENTRICITY) / (1 - _ECCENTRICITY * sin[1] ** 2)
        radius = np.linalg.norm(centres[rows] - middle, axis=1).max()
        yield _Group(rows, middle, axes, float(curvature), float(radius), np.linalg.norm(others - middle, axis=1))


def _in_space(degrees: np.ndarray) -> np.ndarray:
    """Returns points of the ellipsoid (..., 3), in meters from the Earth's center, of (..., 2) degrees."""
    longitude, latitude = np.moveaxis(np.radians(degrees), -1, 0)
    across = _EQUATOR_M / np.sqrt(1 - _ECCENTRICITY * np.sin(latitude) ** 2)
    return np.stack(
        [
            across * np.cos(latitude) * np.cos(longitude),
            across * np.cos(latitude) * np.sin(longitude),
            across * (1 - _ECCENTRICITY) * np.sin(latitude),
        ],
        axis=-1,
    )


def _direction(point: np.ndarray) -> tuple[float, float]:
    """Returns longitude and latitude, in radians, of the place below or above a point near the surface."""
    x, y, z = point
    return float(np.arctan2(y, x)), float(np.arctan2(z, (1 - _ECCENTRICITY) * np.hypot(x, y)))


def _along_ground(chords: np.ndarray, radius_m: float) -> np.ndarray:
    """Returns the lengths along the ground of straight distances through the Earth."""
    return 2 * radius_m * np.arcsin(np.minimum(chords / (2 * radius_m), 1.0))
