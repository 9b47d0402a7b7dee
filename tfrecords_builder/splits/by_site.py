"""Split of tiles by whole cities, or by blocks inside them with a buffer of at least a tile."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Mapping, Sequence

from eo_keras.errors import OptionError
from eo_keras.geo.coordinates import footprints_of
from tfrecords_builder.splits import draws, spatial
from tfrecords_builder.splits.types import TEST, TRAIN, VAL, Patches, SplitOptions, SplitResult

_TOUCHING_M = 1.0
"""Smallest distance in meters, edge to edge, of tiles of two cities."""


def split_tiles(tiles: Patches, options: SplitOptions) -> SplitResult:
    """Splits tiles.

    By city, the list's own split takes precedence; the cities without one are drawn by hash of name and seed. Tiles of
    different splits that share ground or border on each other, as those of neighboring cities do, stay in the test
    (or validation) split alone; of images without a place on the ground this is not known. In blocks, the buffer is at
    least as wide as a tile.

    Args:
        tiles: the tiles with their sites; their classes do not matter.
        options: options of the split.

    Raises:
        OptionError: if the buffer is narrower than a tile.
        SourceError: if a split is empty.
    """
    options = draws.with_fraction_of_fold(options)
    if options.method == "spatial":
        result = _in_blocks(tiles, options)
    else:
        result = _by_city(tiles, options)
    names = set(tiles.sites)
    groups = len(names) if options.method == "city" else None
    draws.check_not_empty(result, options, f"{len(tiles.keys):,} tiles in {_counted(names)}", groups)
    return result


def check_cities(cities: Mapping[str, str | None], options: SplitOptions) -> None:
    """Checks that a list of cities can be split by city, before any other file is read.

    Args:
        cities: each city's own split by its name, None where it is to be drawn.
        options: options of the split.

    Raises:
        OptionError: if there are more folds than cities.
        SourceError: if a split is empty.
    """
    if options.method == "city":
        options = draws.with_fraction_of_fold(options)
        splits = draw_cities(cities, options)
        result = SplitResult(tuple(splits.values()), {})
        draws.check_not_empty(result, options, _counted(splits), len(cities))


def _counted(cities: Collection[str]) -> str:
    return f"{len(cities):,} {'city' if len(cities) == 1 else 'cities'}"


def _in_blocks(tiles: Patches, options: SplitOptions) -> SplitResult:
    tile_km = tiles.size_m / 1000
    if options.buffer_km and options.buffer_km < tile_km:
        raise OptionError(
            "buffer_km",
            f"{options.buffer_km:g} km are less than a tile's {tile_km:g} km",
            "a buffer at least as wide as a tile",
            "make it wider, or leave it out",
        )
    return spatial.split_by_place(tiles, dataclasses.replace(options, buffer_km=options.buffer_km or tile_km))


def _by_city(tiles: Patches, options: SplitOptions) -> SplitResult:
    with_tiles = {name: tiles.site_splits[name] for name in set(tiles.sites)}
    split_of = draw_cities(with_tiles, options)
    assignment: list[str | None] = [split_of[name] for name in tiles.sites]
    left_out = 0
    if tiles.transforms is not None:
        footprints = footprints_of(spatial.corners_of(tiles), tiles.keys)
        left_out = spatial.apply_buffer(footprints, assignment, max(_TOUCHING_M, 1000 * options.buffer_km))
    by_split = collections.defaultdict(list)
    for name, split in sorted(split_of.items()):
        by_split[split].append(name)
    method = {
        "method": "city",
        **draws.describe_draw(options),
        "cities": {split: by_split[split] for split in (TRAIN, VAL, TEST) if by_split[split]},
        "left_out_beside_other_parts": left_out,
    }
    return SplitResult(tuple(assignment), method)


def draw_cities(cities: Mapping[str, str | None], options: SplitOptions) -> dict[str, str]:
    """Returns the split of every city, from the list or drawn."""
    given = {name: split for name, split in cities.items() if split is not None}
    drawn = [name for name, split in cities.items() if split is None]
    drawn.sort(key=lambda name: draws.hash_order(name, options.seed))
    splits = collections.Counter(given.values())
    quotas = draws.quotas(len(cities), options)
    # A country's cities are many; of a few, each requested split still gets one.
    left = {
        split: max(quotas[split], 1) - splits[split] if fraction else 0
        for split, fraction in ((TEST, options.test_fraction), (VAL, options.val_fraction))
    }
    groups: list[Sequence[int]] = [[place] for place in range(len(drawn))]
    draws.check_folds(options, len(drawn), "cities without a split of their own")
    if options.fold is not None:
        groups, left[TEST] = draws.draw_fold(groups, options.folds)
    assignment: list[str | None] = [None] * len(drawn)
    draws.fill(groups, left, assignment)
    return {**given, **dict(zip(drawn, assignment, strict=True))}
