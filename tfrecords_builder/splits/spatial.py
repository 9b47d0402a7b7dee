"""Splits by place: by longitude, or by blocks with a buffer between the splits.

Neighboring patches look alike, so that a random split tests on places that training has seen; these do not.
"""

from __future__ import annotations

import collections
import pathlib

import numpy as np

from eo_keras.errors import OptionError
from eo_keras.geo.coordinates import (
    Corners,
    centres_of,
    corners_from_centres,
    corners_from_transforms,
    footprints_of,
    read_coordinates,
    reproject,
)
from eo_keras.geo.footprints import Footprints, cells, within
from tfrecords_builder.splits.draws import (
    check_folds,
    describe_draw,
    describe_identical,
    draw_fold,
    hash_order,
    quotas,
)
from tfrecords_builder.splits.types import TEST, TRAIN, VAL, Patches, SplitOptions, SplitResult

EQUAL_AREA_CRS = "EPSG:3035"
"""ETRS89-LAEA, in whose grid blocks in Europe lie; its lengths are true to 1 % up to 1,800 km from 52N 10E."""

_EUROPE = (-35.58, 24.6, 44.83, 84.73)
"""West, south, east and north of that CRS's area of use, in degrees, as EPSG has it."""


def split_by_place(patches: Patches, options: SplitOptions) -> SplitResult:
    """Splits by longitude, or by blocks where `block_km` is given.

    Raises:
        OptionError: if the places of the patches are not known.
        SourceError: if the coordinates file does not fit the patches.
    """
    method = {
        "method": "spatial",
        "layout": "longitude" if options.block_km is None else "blocks",
        **describe_draw(options),
        **describe_identical(patches),
    }
    places = None
    if options.coordinates is not None:
        places, checksum = read_coordinates(options.coordinates, patches.keys)
        method |= {"coordinates": pathlib.Path(options.coordinates).name, "coordinates_md5": checksum}
    if options.block_km is None and places is not None:
        # As given and not by way of a projection, whose rounding would decide between equal longitudes.
        return SplitResult(_by_longitude(patches, places[:, 0], options), method)
    corners = corners_of(patches) if places is None else corners_from_centres(places, patches.size_m)
    footprints = footprints_of(corners, patches.keys)
    if options.block_km is None:
        return SplitResult(_by_longitude(patches, centres_of(corners)[:, 0], options), method)
    assignment, blocks = _by_blocks(patches, block_names(corners, options.block_km), options)
    left_out = apply_buffer(footprints, assignment, options.buffer_km * 1000)
    method |= {
        "block_km": options.block_km,
        "buffer_km": options.buffer_km,
        "blocks": blocks,
        "left_out_by_buffer": left_out,
    }
    return SplitResult(tuple(assignment), method)


def corners_of(patches: Patches) -> Corners:
    """Returns the corners of patches by CRS.

    Raises:
        OptionError: if some carry no coordinates.
    """
    if patches.transforms is None or not all(patches.crs):
        without = sum(not crs for crs in patches.crs) if patches.transforms is not None else len(patches.keys)
        raise OptionError(
            "`split=spatial`",
            f"{without:,} of {len(patches.keys):,} images carry no coordinates",
            "georeferenced images, or a file of coordinates",
            "say `coordinates=FILE` (header patch,latitude,longitude)",
        )
    return corners_from_transforms([crs for crs in patches.crs if crs], patches.transforms, patches.pixels)


def block_names(corners: Corners, block_km: float) -> list[str]:
    """Returns the name of the block that each patch's center lies in.

    In Europe they are squares of EPSG:3035, elsewhere cells of `eo_keras.geo.footprints.cells`.
    """
    edge_m = 1000 * block_km
    degrees = centres_of(corners)
    (longitude, latitude), (west, south, east, north) = degrees.T, _EUROPE
    inside = (west <= longitude) & (longitude <= east) & (south <= latitude) & (latitude <= north)
    names = [f"world/{row}/{column}" for row, column in cells(degrees, edge_m).tolist()]
    if inside.any():
        # Of the corners, as a square of another projection has its center elsewhere.
        projected = reproject(corners, EQUAL_AREA_CRS).mean(axis=1)
        squares = np.floor(np.where(inside[:, None], projected, 0) / edge_m).astype(np.int64)
        for position in np.flatnonzero(inside).tolist():
            x, y = squares[position].tolist()
            names[position] = f"{x}/{y}"
    return names


def _seam(longitude: np.ndarray) -> float:
    """Returns the longitude in degrees from which longitudes are counted eastwards, 0 to 360.

    It is that of the westernmost place, the antimeridian and whatever else is empty east of the easternmost.
    """
    around = np.unique(longitude)
    gaps = np.diff(around, append=around[0] + 360)
    return float(around[(int(np.argmax(gaps)) + 1) % len(around)])


def _by_longitude(patches: Patches, longitude: np.ndarray, options: SplitOptions) -> tuple[str | None, ...]:
    """Assigns the west to train, the middle to val and the east to test."""
    longitude = longitude - _seam(longitude)
    longitude[longitude < 0] += 360
    order = sorted(range(len(longitude)), key=lambda position: (longitude[position], patches.keys[position]))
    quota = quotas(len(order), options)
    training = len(order) - quota[TEST] - quota[VAL]
    split_of_group: dict[int, str] = {}
    assignment: list[str | None] = [None] * len(order)
    for rank, position in enumerate(order):
        split = TRAIN if rank < training else VAL if rank < training + quota[VAL] else TEST
        # Identical images go where the westernmost of them lies.
        assignment[position] = split_of_group.setdefault(int(patches.groups[position]), split)
    return tuple(assignment)


def _by_blocks(patches: Patches, names: list[str], options: SplitOptions) -> tuple[list[str | None], int]:
    """Assigns whole blocks to the splits; each patch's block is given by name; also returns the number of blocks."""
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
    # A split takes blocks until it has its fraction at least: to pick those that fit exactly would favor small blocks.
    left = quotas(len(names), options)
    blocks = [members[name] for name in order]
    check_folds(options, len(blocks), "blocks")
    if options.fold is not None:
        blocks, left[TEST] = draw_fold(blocks, options.folds)
    for block in blocks:
        split = next((split for split, free in left.items() if free > 0), TRAIN)
        if split in left:
            left[split] -= len(block)
        for position in block:
            assignment[position] = split
    return assignment, len(set(names))


def apply_buffer(footprints: Footprints, assignment: list[str | None], buffer_m: float) -> int:
    """Leaves out patches within the buffer around another split's patches; returns their number.

    Training and validation keep away from testing, then training from validation. Distances are those on the ground,
    from edge to edge.
    """
    if not buffer_m:
        return 0
    left_out = 0
    for kept, others in ((TEST, (TRAIN, VAL)), (VAL, (TRAIN,))):
        fixed = [position for position, split in enumerate(assignment) if split == kept]
        moving = np.array([position for position, split in enumerate(assignment) if split in others], dtype=np.int64)
        if not fixed or not len(moving):
            continue
        near = within(footprints[moving], footprints[fixed], buffer_m)
        for position in moving[near].tolist():
            assignment[position] = None
        left_out += int(np.count_nonzero(near))
    return left_out
