import collections
import hashlib
import itertools

import numpy as np
import pytest
import shapely
from rasterio.warp import transform

from eo_keras.errors import OptionError, SourceError
from eo_keras.legends.catalogue import EUROSAT
from tfrecords_builder.splits import spatial
from tfrecords_builder.splits import split as splits
from tfrecords_builder.splits.split import SplitOptions

EUROSAT_COUNTS = (3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000)


def patches(keys, *, groups=None, crs=None, transforms=None):
    return splits.Patches(
        keys=tuple(keys),
        classes=tuple(key.rpartition("_")[0] for key in keys),
        groups=np.arange(len(keys)) if groups is None else np.asarray(groups),
        crs=(crs,) * len(keys),
        transforms=transforms,
        size_m=640.0,
        pixels=64,
    )


def on_a_grid(side=30, step=700.0):
    """A square of patches in UTM zone 33, `step` metres apart."""
    places = [(500_000 + step * x, 5_500_000 + step * y) for x, y in itertools.product(range(side), range(side))]
    transforms = np.array([(10, 0, x, 0, -10, y) for x, y in places], np.float64)
    return patches([f"Forest_{n}" for n in range(len(places))], crs="EPSG:32633", transforms=transforms)


def by_part(result, found):
    members = collections.defaultdict(set)
    for key, part in zip(found.keys, result.assignment, strict=True):
        members[part].add(key)
    return members


def test_random_counts_are_exact_by_class():
    keys = [f"{c}_{n}" for c, count in zip(EUROSAT.class_names, EUROSAT_COUNTS, strict=True) for n in range(count)]
    found = patches(keys)
    members = by_part(splits.make_split(found, SplitOptions(val_fraction=0.1)), found)
    assert {part: len(names) for part, names in members.items()} == {"train": 18_900, "val": 2_700, "test": 5_400}
    for class_name, count in zip(EUROSAT.class_names, EUROSAT_COUNTS, strict=True):
        assert sum(name.startswith(f"{class_name}_") for name in members["test"]) == count // 5


def test_eurosat_at_the_default_fractions():
    keys = [f"{c}_{n}" for c, count in zip(EUROSAT.class_names, EUROSAT_COUNTS, strict=True) for n in range(count)]
    result = splits.make_split(patches(keys), SplitOptions())
    assert collections.Counter(result.assignment) == {"train": 21_600, "test": 5_400}


def test_groups_count_with_the_class_of_their_first_key():
    keys = ["Forest_0", "River_0", *(f"{c}_{n}" for c in ("Forest", "River") for n in range(1, 10))]
    groups = [0, 0, *range(1, 19)]
    for seed in range(10):
        result = splits.make_split(patches(keys, groups=groups), SplitOptions(seed=seed))
        assert result.assignment[0] == result.assignment[1]
        assert result.assignment.count("test") == 4
    assert result.method["identical_images"] == 2 and result.method["identical_groups"] == 1
    assert result.method["identical_with_different_classes"] == 2


def test_random_follows_from_keys_and_seed_and_not_from_the_order():
    keys = [f"Forest_{n}" for n in range(500)]
    one = by_part(splits.make_split(patches(keys), SplitOptions()), patches(keys))
    back = by_part(splits.make_split(patches(keys[::-1]), SplitOptions()), patches(keys[::-1]))
    other = by_part(splits.make_split(patches(keys), SplitOptions(seed=2)), patches(keys))
    assert one == back != other
    # Two independent draws of 100 out of 500 share about 20.
    assert 5 < len(one["test"] & other["test"]) < 40


def test_groups_are_never_divided():
    keys = [f"Forest_{n}" for n in range(60)]
    groups = np.repeat(np.arange(20), 3)
    for seed in range(20):
        result = splits.make_split(patches(keys, groups=groups), SplitOptions(seed=seed, val_fraction=0.2))
        assert all(len({result.assignment[3 * g + k] for k in range(3)}) == 1 for g in range(20))
        assert result.assignment.count("test") == 12 and result.method["identical_images"] == 60


def write_lists(tmp_path, **lists):
    for part, names in lists.items():
        (tmp_path / f"my-{part}.txt").write_text("".join(f"{name}.jpg\n" for name in names))
    return str(tmp_path / "my")


def test_lists_are_followed(tmp_path):
    found = patches(["Forest_1", "Forest_2", "Forest_3", "River_1"], groups=[0, 1, 1, 2])
    prefix = write_lists(tmp_path, train=["Forest_1", "Forest_2"], test=["Forest_3"])
    result = splits.make_split(found, SplitOptions(split="lists", lists=prefix))
    assert result.assignment == ("train", "train", "test", None)
    assert result.method["unlisted"] == 1 and result.method["identical_across_splits"] == 2
    assert any("1 patches are on no list" in warning for warning in result.warnings)
    assert any("identical images lie in different splits" in warning for warning in result.warnings)


def test_lists_that_do_not_fit(tmp_path):
    found = patches(["Forest_1", "Forest_2"])

    def split(**kwargs):
        return splits.make_split(found, SplitOptions(split="lists", lists=str(tmp_path / "my"), **kwargs))

    with pytest.raises(SourceError, match="my-train.txt: the list cannot be read"):
        split()
    write_lists(tmp_path, train=["Forest_1", "River_9"], test=["Forest_2"])
    with pytest.raises(SourceError, match="1 of its 2 patches are not in the source, first River_9.*`allow_missing"):
        split()
    assert split(allow_missing_patches=True).method["missing"] == {"train": 1, "test": 0}
    write_lists(tmp_path, train=["Forest_1"], test=["Forest_2", "Forest_1"])
    with pytest.raises(SourceError, match="Forest_1 is listed already in my-train.txt"):
        split()
    write_lists(tmp_path, train=["Forest_1", "Forest_1"], test=["Forest_2"])
    with pytest.raises(SourceError, match="my-train.txt: Forest_1 is listed already in my-train.txt"):
        split()
    write_lists(tmp_path, train=["Forest_1"], test=[])
    with pytest.raises(SourceError, match="none falls into test.*Give lists"):
        split()
    (tmp_path / "my-test.txt").unlink()
    with pytest.raises(SourceError, match="my-test.txt: the list cannot be read"):
        split()


def test_lists_may_have_comments_blank_lines_and_a_byte_order_mark(tmp_path):
    (tmp_path / "my-train.txt").write_bytes(b"\xef\xbb\xbfForest_1.tif\r\n\r\n# a comment\r\nForest/Forest_2\r\n")
    write_lists(tmp_path, test=["Forest_3"])
    found = patches(["Forest_1", "Forest_2", "Forest_3"])
    result = splits.make_split(found, SplitOptions(split="lists", lists=str(tmp_path / "my")))
    assert result.assignment == ("train", "train", "test")
    data = (tmp_path / "my-train.txt").read_bytes()
    assert result.method["md5"]["train"] == hashlib.md5(data).hexdigest()


def test_longitude_puts_the_west_in_training(tmp_path):
    keys = [f"Forest_{n}" for n in range(10)]
    path = tmp_path / "places.csv"
    path.write_text("patch,latitude,longitude\n" + "".join(f"{key},50.0,{20 - n}\n" for n, key in enumerate(keys)))
    options = SplitOptions(split="spatial", coordinates=str(path), val_fraction=0.2)
    members = by_part(splits.make_split(patches(keys), options), patches(keys))
    assert members["test"] == {"Forest_0", "Forest_1"} and members["val"] == {"Forest_2", "Forest_3"}


def test_equal_longitudes_go_by_key(tmp_path):
    keys = [f"Forest_{n}" for n in range(10)]
    path = tmp_path / "places.csv"
    path.write_text("patch,latitude,longitude\n" + "".join(f"{key},{40 + n},7.1\n" for n, key in enumerate(keys)))
    for order in (keys, keys[::-1]):
        found = patches(order)
        result = splits.make_split(found, SplitOptions(split="spatial", coordinates=str(path)))
        assert by_part(result, found)["test"] == {"Forest_8", "Forest_9"}


def test_longitude_from_transforms_keeps_identical_images_together():
    found = on_a_grid(10)
    groups = np.arange(100)
    groups[99] = 0
    copies = splits.Patches(**(vars(found) | {"groups": groups}))
    result = splits.make_split(copies, SplitOptions(split="spatial"))
    # The grid runs from west to east, 10 patches a column; the easternmost joins its copy in the west.
    assert result.assignment == ("train",) * 80 + ("test",) * 19 + ("train",)


def test_images_without_a_crs_need_coordinates():
    found = splits.Patches(**(vars(on_a_grid(3)) | {"crs": (None,) * 2 + ("EPSG:32633",) * 7}))
    with pytest.raises(OptionError, match="2 of 9 images carry no coordinates.*`coordinates"):
        splits.make_split(found, SplitOptions(split="spatial"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patch,lat,lon\nForest_0,1,2\n", "cannot be read"),
        ("patch,latitude,longitude\nForest_0,x,2\n", "cannot be read"),
        ("patch,latitude,longitude\nForest_0,1,2\nForest_0,1,2\n", "Forest_0 has two rows"),
        ("patch,latitude,longitude\nForest_0,1,2\n", "9 patches have no coordinates, first Forest_1"),
        ("patch,latitude,longitude\n" + "".join(f"Forest_{n},100,2\n" for n in range(10)), "outside the globe"),
    ],
)
def test_bad_coordinates(tmp_path, text, words):
    path = tmp_path / "places.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=words):
        splits.make_split(
            patches([f"Forest_{n}" for n in range(10)]), SplitOptions(split="spatial", coordinates=str(path))
        )


def test_blocks_keep_the_buffer_from_edge_to_edge():
    found = on_a_grid()
    options = SplitOptions(split="spatial", block_km=3, buffer_km=0.5, val_fraction=0.2)
    result = splits.make_split(found, options)
    x, y = found.transforms[:, 2], found.transforms[:, 5]
    corners = np.stack(
        [np.stack(transform("EPSG:32633", "EPSG:3035", x + dx, y + dy), -1) for dx, dy in _CORNERS], axis=1
    )
    shapes = shapely.polygons(corners)
    parts = np.array([str(part) for part in result.assignment])
    for one, other in itertools.combinations(("train", "val", "test"), 2):
        distances = shapely.distance(shapes[parts == one][:, None], shapes[parts == other][None, :])
        assert distances.min() > 500
    assert (parts == "None").sum() == result.method["left_out_by_buffer"] > 0
    # At least its share, and not a whole block of 25 more.
    assert 180 <= (parts == "test").sum() < 205
    # Without a buffer the neighbours are 60 m apart.
    without = splits.make_split(found, SplitOptions(split="spatial", block_km=3))
    assert None not in without.assignment
    centres = np.floor(corners.mean(axis=1) / 3000).astype(int)
    part_of_block = collections.defaultdict(set)
    for cell, part in zip(map(tuple, centres), without.assignment, strict=True):
        part_of_block[cell].add(part)
    assert all(len(names) == 1 for names in part_of_block.values())


_CORNERS = ((0, 0), (640, 0), (640, -640), (0, -640))


@pytest.mark.parametrize(
    "crs", ["EPSG:32633", "EPSG:32756", "EPSG:32701", "EPSG:32637"], ids=["Bohemia", "Sydney", "Fiji", "Svalbard"]
)
def test_the_buffer_is_as_wide_on_the_ground_anywhere(crs):
    """UTM, whose lengths are true to 0.1 % here, is what the distances are checked with."""
    north = {"EPSG:32756": 6_700_000, "EPSG:32701": 8_100_000, "EPSG:32637": 8_800_000}.get(crs, 5_500_000)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(40), np.arange(40), indexing="ij"))
    # At Fiji's, the grid crosses the antimeridian.
    east = 130_000 if crs == "EPSG:32701" else 400_000
    transforms = np.stack([a * np.ones(1600) for a in (40, 0, 0, 0, -40, 0)], axis=1)
    transforms[:, 2], transforms[:, 5] = east + 2560 * x, north - 2560 * y
    keys = tuple(f"Forest_{a}_{b}" for a, b in zip(x, y, strict=True))
    found = splits.Patches(keys, ("Forest",) * 1600, np.arange(1600), (crs,) * 1600, transforms, 2560.0, 64)
    result = splits.make_split(found, SplitOptions(split="spatial", block_km=25, buffer_km=10))
    parts = np.array([str(part) for part in result.assignment])
    shapes = shapely.box(transforms[:, 2], transforms[:, 5] - 2560, transforms[:, 2] + 2560, transforms[:, 5])
    nearest = shapely.distance(shapes[parts == "train"][:, None], shapes[parts == "test"][None, :]).min(axis=1)
    assert 10_000 * 0.998 < nearest.min() < 13_500
    # 102 km by 102 km of ground.
    assert 16 <= result.method["blocks"] <= 36 and result.method["left_out_by_buffer"] < 1100
    if crs == "EPSG:32701":
        longitude = spatial.centres_of(spatial.corners_of(found))[:, 0]
        assert longitude.min() < -179 and longitude.max() > 179
        by_longitude = splits.make_split(found, SplitOptions(split="spatial"))
        # The west is west of the antimeridian, and no part is on both sides of another.
        eastwards = longitude % 360
        tested = np.array([part == "test" for part in by_longitude.assignment])
        assert eastwards[~tested].max() <= eastwards[tested].min()


@pytest.mark.parametrize("latitude", [-78.0, -34.0, -1.0, 20.0, 84.8])
@pytest.mark.parametrize("block_km", [2.0, 25.0])
def test_blocks_outside_europe_are_as_wide_and_high_as_in_it(latitude, block_km):
    places = np.stack(np.meshgrid(100 + np.arange(0, 4, 0.002), [latitude], indexing="ij"), -1).reshape(-1, 2)
    heights = np.stack([np.full(2000, 100.0), latitude + np.linspace(0, 4, 2000)], axis=-1)
    corners = spatial.corners_from_centres(np.concatenate([places, heights]), 10.0)
    names = spatial.block_names(corners, block_km)
    metres = np.radians(4) * 6_378_137 * np.cos(np.radians(latitude))
    across = len(set(names[:2000])) * block_km * 1000
    assert across == pytest.approx(metres, rel=0.01, abs=2.2 * block_km * 1000)
    if latitude < 80:
        upwards = len(set(name.split("/")[1] for name in names[2000:])) * block_km * 1000
        assert upwards == pytest.approx(4 * 111_200, rel=0.01, abs=2.2 * block_km * 1000)


def test_a_place_that_is_none_is_an_error():
    found = on_a_grid(3)
    transforms = found.transforms.copy()
    transforms[4, 2] = 1e12
    lost = splits.Patches(**(vars(found) | {"transforms": transforms}))
    for more in ({}, {"block_km": 3.0}):
        with pytest.raises(SourceError, match=f"{found.keys[4]}: its corners lie nowhere on Earth .*EPSG:32633.* 1 of"):
            splits.make_split(lost, SplitOptions(split="spatial", **more))


def test_identical_images_join_their_blocks():
    found = on_a_grid()
    groups = np.arange(900)
    groups[[0, 899]] = 0
    copies = splits.Patches(**(vars(found) | {"groups": groups}))
    for seed in range(10):
        result = splits.make_split(copies, SplitOptions(split="spatial", block_km=3, seed=seed))
        assert result.assignment[0] == result.assignment[899]


def test_random_folds_test_each_patch_once_and_each_class_alike():
    keys = [f"{c}_{n}" for c, count in (("Forest", 47), ("River", 40), ("Pasture", 3)) for n in range(count)]
    groups = np.arange(len(keys))
    groups[[3, 20, 33]] = 3
    found = patches(keys, groups=groups)
    tested = []
    for number in range(1, 6):
        result = splits.make_split(found, SplitOptions(fold=f"{number}/5", val_fraction=0.1))
        members = by_part(result, found)
        counts = collections.Counter(key.partition("_")[0] for key in members["test"])
        # 47 / 5 and 40 / 5, but for the group of three that goes to one fold.
        assert 7 <= counts["Forest"] <= 12 and counts["River"] == 8
        assert {"Forest_3", "Forest_20", "Forest_33"} & members["test"] in (set(), {f"Forest_{n}" for n in (3, 20, 33)})
        assert len(members["val"]) == 9 and None not in members
        assert (result.method["fold"], result.method["folds"], result.method["test_fraction"]) == (number, 5, 0.2)
        tested += members["test"]
    assert sorted(tested) == sorted(keys)
    others = splits.make_split(found, SplitOptions(fold="1/5", seed=2))
    first = splits.make_split(found, SplitOptions(fold="1/5"))
    assert others.assignment != first.assignment


def test_spatial_folds_test_each_block_once():
    found = on_a_grid()
    fold_of = {}
    for number in range(1, 5):
        result = splits.make_split(found, SplitOptions(split="spatial", block_km=3, buffer_km=0.5, fold=f"{number}/4"))
        tested = by_part(result, found)["test"]
        assert not fold_of.keys() & tested
        assert abs(len(tested) - 225) < 60 and result.method["left_out_by_buffer"] > 0
        fold_of |= dict.fromkeys(tested, number)
    assert fold_of.keys() == set(found.keys)
    centres = np.stack(transform("EPSG:32633", "EPSG:3035", *(found.transforms[:, [2, 5]] + [320, -320]).T), -1)
    folds_of_block = collections.defaultdict(set)
    for cell, key in zip(map(tuple, np.floor(centres / 3000).astype(int)), found.keys, strict=True):
        folds_of_block[cell].add(fold_of[key])
    assert len(folds_of_block) > 30 and all(len(folds) == 1 for folds in folds_of_block.values())


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"split": "guess"}, "split"),
        ({"test_fraction": 0.0}, "test_fraction"),
        ({"test_fraction": 0.7, "val_fraction": 0.3}, "test_fraction"),
        ({"split": "lists"}, "lists"),
        ({"lists": "x"}, "lists"),
        ({"allow_missing_patches": True}, "allow_missing_patches"),
        ({"block_km": 3.0}, "block_km"),
        ({"block_km": 0.0}, "block_km"),
        ({"split": "spatial", "block_km": float("nan")}, "block_km"),
        ({"split": "spatial", "block_km": 3.0, "buffer_km": float("nan")}, "buffer_km"),
        ({"test_fraction": float("nan")}, "test_fraction"),
        ({"coordinates": "x.csv"}, "coordinates"),
        ({"split": "spatial", "buffer_km": 1.0}, "buffer_km"),
        ({"split": "spatial", "block_km": -1.0}, "block_km"),
        ({"split": "spatial"}, "coordinates"),
        ({"fold": "0/5"}, "fold"),
        ({"fold": "6/5"}, "fold"),
        ({"fold": "1/1"}, "fold"),
        ({"split": "spatial", "fold": "1/5"}, "fold"),
        ({"split": "lists", "lists": "x", "fold": "1/5"}, "fold"),
    ],
)
def test_impossible_options_name_their_flag(options, flag):
    with pytest.raises(OptionError, match=flag):
        splits.make_split(patches([f"Forest_{n}" for n in range(10)]), SplitOptions(**options))


def test_an_empty_part_is_an_error():
    with pytest.raises(SourceError, match="none falls into test"):
        splits.make_split(patches(["Forest_1", "Forest_2"]), SplitOptions(test_fraction=0.1))


@pytest.mark.real_data
def test_longitude_reproduces_the_published_spatial_lists(real_data):
    folder = real_data / "eurosat"
    published = {
        part: {line[:-4] for line in (folder / "splits" / f"eurosat-spatial-{part}.txt").read_text().split()}
        for part in ("train", "val", "test")
    }
    found = patches(sorted(set().union(*published.values())))
    options = SplitOptions(split="spatial", coordinates=str(folder / "coordinates.csv"), val_fraction=0.2)
    members = by_part(splits.make_split(found, options), found)
    for part, names in published.items():
        assert members[part] == names, part
