"""Splits of tiles: whole cities, blocks with a buffer of a tile, and neighbours that share ground."""

import collections
import dataclasses

import numpy as np
import pytest

from eo_keras.errors import OptionError, SourceError
from tfrecords_builder.splits.by_site import draw_cities, split_tiles
from tfrecords_builder.splits.types import Patches, SplitOptions

SIZE = 64


def tiles_of(places):
    """Tiles of 64 pixels at (city, column, row), in tiles, of one UTM grid."""
    transforms = [(10.0, 0.0, 400_000.0 + 640 * x, 0.0, -10.0, 5_900_000.0 - 640 * y) for _, x, y in places]
    return Patches(
        keys=tuple(f"{city}-{x}-{y}" for city, x, y in places),
        classes=("",) * len(places),
        groups=np.arange(len(places)),
        crs=("EPSG:32633",) * len(places),
        transforms=np.array(transforms, np.float64),
        size_m=640.0,
        pixels=SIZE,
    )


def cities_of(count, **splits):
    return {f"c{number:02d}": splits.get(f"c{number:02d}") for number in range(count)}


def apart(count, tiles=4):
    """Cities that lie far from each other."""
    return [(f"c{number:02d}", 100 * number + tile, 0) for number in range(count) for tile in range(tiles)]


def split(places, cities, **options):
    options = {"split": "city", **options}
    names = [city for city, _, _ in places]
    tiles = dataclasses.replace(tiles_of(places), sites=tuple(names), site_splits=cities)
    return split_tiles(tiles, SplitOptions(**options)), names


def test_a_city_lies_in_one_part_and_shares_are_kept():
    places = apart(20)
    result, names = split(places, cities_of(20), test_fraction=0.2, val_fraction=0.1)
    parts = collections.defaultdict(set)
    for name, part in zip(names, result.assignment, strict=True):
        parts[name].add(part)
    assert all(len(found) == 1 for found in parts.values())
    counts = collections.Counter(part for found in parts.values() for part in found)
    assert counts == {"train": 14, "test": 4, "val": 2}
    assert sum(map(len, result.method["cities"].values())) == 20


def test_the_lists_own_split_goes_first_and_the_rest_is_drawn():
    given = {"c00": "test", "c01": "val", "c02": "train"}
    result, _ = split(apart(10), cities_of(10, **given), test_fraction=0.3, val_fraction=0.1)
    cities = result.method["cities"]
    assert "c00" in cities["test"] and "c01" in cities["val"] and "c02" in cities["train"]
    assert {part: len(names) for part, names in cities.items()} == {"train": 6, "val": 1, "test": 3}


def test_the_draw_follows_from_seed_and_names_alone():
    backwards = dict(reversed(cities_of(12).items()))
    draws = [draw_cities(cities, SplitOptions(split="city")) for cities in (cities_of(12), backwards)]
    assert draws[0] == draws[1]
    assert draws[0] != draw_cities(cities_of(12), SplitOptions(split="city", seed=2))


def test_folds_test_each_city_once():
    tested = []
    for number in (1, 2, 3):
        result, names = split(apart(9), cities_of(9), fold=f"{number}/3")
        tested += sorted({name for name, part in zip(names, result.assignment, strict=True) if part == "test"})
    assert sorted(tested) == [f"c{number:02d}" for number in range(9)]


def test_tiles_that_share_ground_with_a_test_city_are_left_out_of_training():
    places = [("c00", 0, 0), ("c00", 1, 0), ("c01", 1, 0), ("c01", 2, 0), ("c01", 4, 0)]
    result, _ = split(places, cities_of(2, c00="test", c01="train"))
    # The third shows the second's ground, the fourth borders on it.
    assert result.assignment == ("test", "test", None, None, "train")
    assert result.method["left_out_beside_other_parts"] == 2


def test_a_tile_without_a_place_does_not_end_the_check_of_the_others():
    places = [("c00", 0, 0), ("c01", 0, 0), ("c01", 9, 0)]
    found = tiles_of(places)
    found.transforms[2, 2] = 1e12
    with pytest.raises(SourceError, match="c01-9-0: its corners lie nowhere on Earth"):
        split_tiles(
            dataclasses.replace(found, sites=("c00", "c01", "c01"), site_splits=cities_of(2, c00="test", c01="train")),
            SplitOptions(split="city"),
        )


def test_one_city_cannot_be_split_by_city():
    with pytest.raises(SourceError, match="`split=spatial` `block_km"):
        split(apart(1), cities_of(1))


def test_blocks_inside_a_city_keep_a_tile_apart():
    places = [("c00", x, y) for x in range(16) for y in range(16)]
    result, _ = split(places, cities_of(1), split="spatial", block_km=2.6, test_fraction=0.25)
    where = {
        part: [place for place, found in zip(places, result.assignment, strict=True) if found == part]
        for part in ("train", "test")
    }
    nearest = min(
        max(abs(x - other_x), abs(y - other_y)) for _, x, y in where["train"] for _, other_x, other_y in where["test"]
    )
    # Edge to edge there is a whole tile between them.
    assert nearest >= 2
    assert result.method["buffer_km"] == 0.64
    assert len(where["train"]) > 30 and len(where["test"]) > 30


def test_a_buffer_narrower_than_a_tile_is_refused():
    places = [("c00", x, 0) for x in range(16)]
    with pytest.raises(OptionError, match="less than a tile's 0.64 km"):
        split(places, cities_of(1), split="spatial", block_km=2.6, buffer_km=0.3)
