"""Splits by place: by longitude, or by blocks with a buffer between the parts.

Neighbouring patches look alike, so that a random split tests on places that training has seen; these do not.
"""

from __future__ import annotations

import collections
import csv
import pathlib

import numpy as np

from eo_keras.errors import OptionError, SourceError
from tfrecords_builder.splits import (
    TEST,
    TRAIN,
    VAL,
    Patches,
    SplitOptions,
    SplitResult,
    describe_identical,
    fill,
    hash_order,
    quotas,
)

EQUAL_AREA_CRS = "EPSG:3035"
"""ETRS89-LAEA, in which Europe's distances are true to a few per mille; blocks and buffers are laid out in it."""


def split_by_place(patches: Patches, options: SplitOptions) -> SplitResult:
    """Splits by longitude, or by blocks where `block_km` is given.

    Raises:
        OptionError: if the places of the patches are not known.
        SourceError: if the coordinates file does not fit the patches.
    """
    corners = _corners(patches, options)
    method = {
        "method": "spatial",
        "layout": "longitude" if options.block_km is None else "blocks",
        "test_fraction": options.test_fraction,
        "val_fraction": options.val_fraction,
        "seed": options.seed,
        **describe_identical(patches),
    }
    if options.block_km is None:
        return SplitResult(_by_longitude(patches, corners, options), method)
    projected = _reproject(corners, EQUAL_AREA_CRS)
    assignment, blocks = _by_blocks(patches, projected.mean(axis=1), options)
    left_out = _apply_buffer(projected, assignment, options.buffer_km * 1000)
    method |= {
        "block_km": options.block_km,
        "buffer_km": options.buffer_km,
        "blocks": blocks,
        "left_out_by_buffer": left_out,
    }
    return SplitResult(tuple(assignment), method)


def _corners(patches: Patches, options: SplitOptions) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the patches' corners by CRS: positions (n,) and corners (n, 4, 2) in that CRS."""
    if options.coordinates is not None:
        return _corners_from_centres(*_read_coordinates(options.coordinates, patches.keys), patches.size_m)
    if patches.transforms is None:
        raise OptionError(
            "--split=spatial",
            "the images carry no coordinates",
            "georeferenced images, or a file of coordinates",
            "say --coordinates=FILE (header patch,latitude,longitude)",
        )
    columns, rows = np.array([[0, 1, 1, 0], [0, 0, 1, 1]]) * patches.pixels
    a, b, c, d, e, f = (column[:, None] for column in patches.transforms.T)
    corners = np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=-1)
    positions = collections.defaultdict(list)
    for position, crs in enumerate(patches.crs):
        positions[crs].append(position)
    return {crs: (np.array(members), corners[members]) for crs, members in positions.items()}


def _read_coordinates(path: str, keys: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns longitudes and latitudes (N,) in degrees, in the order of the keys."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            found = {
                pathlib.PurePosixPath(row["patch"]).stem: (float(row["longitude"]), float(row["latitude"]))
                for row in rows
            }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            path,
            f"it cannot be read ({type(error).__name__}: {error})",
            "a CSV file with the header patch,latitude,longitude, in degrees",
        ) from None
    if absent := [key for key in keys if key not in found]:
        raise SourceError(
            path,
            f"{len(absent):,} patches have no coordinates, first {absent[0]}",
            "coordinates of every patch of the source",
            "complete the file",
        )
    places = np.array([found[key] for key in keys], np.float64)
    if not (np.abs(places) <= (180, 90)).all():
        raise SourceError(path, "a place lies outside the globe", "degrees: latitude to 90, longitude to 180")
    return places[:, 0], places[:, 1]


def _corners_from_centres(longitude: np.ndarray, latitude: np.ndarray, size_m: float):
    """Lays a square around each centre, along the grid of the UTM zone that Sentinel-2 would deliver it in."""
    from rasterio.warp import transform

    zones = (np.floor((longitude + 180) / 6).astype(int) % 60) + 1
    codes = np.where(latitude >= 0, 32600, 32700) + zones
    half = size_m / 2
    square = np.array([[-half, half], [half, half], [half, -half], [-half, -half]])
    corners = {}
    for code in np.unique(codes):
        positions = np.flatnonzero(codes == code)
        xs, ys = transform("EPSG:4326", f"EPSG:{code}", longitude[positions], latitude[positions])
        corners[f"EPSG:{code}"] = (positions, np.stack([xs, ys], axis=-1)[:, None, :] + square)
    return corners


def _reproject(corners: dict[str, tuple[np.ndarray, np.ndarray]], crs: str) -> np.ndarray:
    """Returns all corners (N, 4, 2) in one CRS, in the patches' order."""
    from rasterio.warp import transform

    projected = np.empty((sum(len(positions) for positions, _ in corners.values()), 4, 2))
    for source, (positions, places) in corners.items():
        flat = places.reshape(-1, 2)
        projected[positions] = np.stack(transform(source, crs, flat[:, 0], flat[:, 1]), axis=-1).reshape(-1, 4, 2)
    return projected


def _by_longitude(patches: Patches, corners, options: SplitOptions) -> tuple[str | None, ...]:
    """Gives the west to training, what follows to validation and the east to testing."""
    longitude = _reproject(corners, "EPSG:4326")[:, :, 0].mean(axis=1)
    order = sorted(range(len(longitude)), key=lambda position: (longitude[position], patches.keys[position]))
    quota = quotas(len(order), options)
    training = len(order) - quota[TEST] - quota[VAL]
    part_of_group: dict[int, str] = {}
    assignment: list[str | None] = [None] * len(order)
    for rank, position in enumerate(order):
        part = TRAIN if rank < training else VAL if rank < training + quota[VAL] else TEST
        # Identical images go where the westernmost of them lies.
        assignment[position] = part_of_group.setdefault(int(patches.groups[position]), part)
    return tuple(assignment)


def _by_blocks(patches: Patches, centres: np.ndarray, options: SplitOptions) -> tuple[list[str | None], int]:
    cells = np.floor(centres / (1000 * options.block_km)).astype(np.int64)
    names = [f"{x}/{y}" for x, y in cells.tolist()]
    # Blocks that share an identical image are joined, so that no image lies on both sides.
    joined: dict[str, str] = {}

    def root(name: str) -> str:
        while joined.get(name, name) != name:
            name = joined[name]
        return name

    first_of_group: dict[int, str] = {}
    for name, group in zip(names, patches.groups.tolist(), strict=True):
        first, second = sorted((root(first_of_group.setdefault(group, name)), root(name)))
        joined[second] = first
    members = collections.defaultdict(list)
    for position, name in enumerate(names):
        members[root(name)].append(position)
    order = sorted(members, key=lambda name: hash_order(name, options.seed))
    assignment: list[str | None] = [None] * len(names)
    fill((members[name] for name in order), quotas(len(names), options), assignment)
    return assignment, len(set(names))


def _apply_buffer(corners: np.ndarray, assignment: list[str | None], buffer_m: float) -> int:
    """Leaves out patches within the buffer of a part to be kept clean of them; returns how many.

    Training and validation keep away from testing, then training from validation. Distances are from edge to edge.
    """
    if not buffer_m:
        return 0
    import shapely

    footprints = shapely.polygons(corners)
    left_out = 0
    for kept, others in ((TEST, (TRAIN, VAL)), (VAL, (TRAIN,))):
        fixed = [position for position, part in enumerate(assignment) if part == kept]
        moving = np.array([position for position, part in enumerate(assignment) if part in others], dtype=np.int64)
        if not fixed or not len(moving):
            continue
        tree = shapely.STRtree(footprints[fixed])
        near = np.unique(tree.query(footprints[moving], predicate="dwithin", distance=buffer_m)[0])
        for position in moving[near].tolist():
            assignment[position] = None
        left_out += len(near)
    return left_out
