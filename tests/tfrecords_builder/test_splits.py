import collections
import itertools

import numpy as np
import pytest
import shapely
from rasterio.warp import transform

from eo_keras.errors import OptionError, SourceError
from eo_keras.legends import EUROSAT
from tfrecords_builder import splits
from tfrecords_builder.splits import SplitOptions

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
    result = splits.make_split(found, SplitOptions(method="lists", lists=prefix))
    assert result.assignment == ("train", "train", "test", None)
    assert result.method["unlisted"] == 1 and result.method["identical_across_splits"] == 2
    assert any("1 patches are on no list" in warning for warning in result.warnings)
    assert any("identical images lie in different parts" in warning for warning in result.warnings)


def test_lists_that_do_not_fit(tmp_path):
    found = patches(["Forest_1", "Forest_2"])

    def split(**kwargs):
        return splits.make_split(found, SplitOptions(method="lists", lists=str(tmp_path / "my"), **kwargs))

    with pytest.raises(SourceError, match="my-train.txt: the list cannot be read"):
        split()
    write_lists(tmp_path, train=["Forest_1", "River_9"], test=["Forest_2"])
    with pytest.raises(SourceError, match="1 of its 2 patches are not in the source, first River_9.*--allow_missing"):
        split()
    assert split(allow_missing_patches=True).method["missing"] == {"train": 1, "test": 0}
    write_lists(tmp_path, train=["Forest_1"], test=["Forest_2", "Forest_1"])
    with pytest.raises(SourceError, match="Forest_1 is listed already in my-train.txt"):
        split()


def test_longitude_puts_the_west_in_training(tmp_path):
    keys = [f"Forest_{n}" for n in range(10)]
    path = tmp_path / "places.csv"
    path.write_text("patch,latitude,longitude\n" + "".join(f"{key},50.0,{20 - n}\n" for n, key in enumerate(keys)))
    options = SplitOptions(method="spatial", coordinates=str(path), val_fraction=0.2)
    members = by_part(splits.make_split(patches(keys), options), patches(keys))
    assert members["test"] == {"Forest_0", "Forest_1"} and members["val"] == {"Forest_2", "Forest_3"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patch,lat,lon\nForest_0,1,2\n", "cannot be read"),
        ("patch,latitude,longitude\nForest_0,x,2\n", "cannot be read"),
        ("patch,latitude,longitude\nForest_0,1,2\n", "9 patches have no coordinates, first Forest_1"),
        ("patch,latitude,longitude\n" + "".join(f"Forest_{n},100,2\n" for n in range(10)), "outside the globe"),
    ],
)
def test_bad_coordinates(tmp_path, text, words):
    path = tmp_path / "places.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=words):
        splits.make_split(
            patches([f"Forest_{n}" for n in range(10)]), SplitOptions(method="spatial", coordinates=str(path))
        )


def test_blocks_keep_the_buffer_from_edge_to_edge():
    found = on_a_grid()
    options = SplitOptions(method="spatial", block_km=3, buffer_km=0.5, val_fraction=0.2)
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
    assert abs((parts == "test").mean() - 0.2) < 0.03
    # Without a buffer the neighbours are 60 m apart.
    without = splits.make_split(found, SplitOptions(method="spatial", block_km=3))
    assert None not in without.assignment
    centres = np.floor(corners.mean(axis=1) / 3000).astype(int)
    part_of_block = collections.defaultdict(set)
    for cell, part in zip(map(tuple, centres), without.assignment, strict=True):
        part_of_block[cell].add(part)
    assert all(len(names) == 1 for names in part_of_block.values())


_CORNERS = ((0, 0), (640, 0), (640, -640), (0, -640))


def test_identical_images_join_their_blocks():
    found = on_a_grid()
    groups = np.arange(900)
    groups[[0, 899]] = 0
    twins = splits.Patches(**(vars(found) | {"groups": groups}))
    for seed in range(10):
        result = splits.make_split(twins, SplitOptions(method="spatial", block_km=3, seed=seed))
        assert result.assignment[0] == result.assignment[899]


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"method": "guess"}, "--split"),
        ({"test_fraction": 0.0}, "--test_fraction"),
        ({"test_fraction": 0.7, "val_fraction": 0.3}, "--test_fraction"),
        ({"method": "lists"}, "--lists"),
        ({"lists": "x"}, "--lists"),
        ({"allow_missing_patches": True}, "--allow_missing_patches"),
        ({"block_km": 3.0}, "--block_km"),
        ({"coordinates": "x.csv"}, "--coordinates"),
        ({"method": "spatial", "buffer_km": 1.0}, "--buffer_km"),
        ({"method": "spatial", "block_km": -1.0}, "--block_km"),
        ({"method": "spatial"}, "--coordinates"),
    ],
)
def test_impossible_options_name_their_flag(options, flag):
    with pytest.raises(OptionError, match=flag):
        splits.make_split(patches([f"Forest_{n}" for n in range(10)]), SplitOptions(**options))


def test_an_empty_part_is_an_error():
    with pytest.raises(SourceError, match="none comes into test"):
        splits.make_split(patches(["Forest_1", "Forest_2"]), SplitOptions(test_fraction=0.1))


@pytest.mark.real_data
def test_longitude_reproduces_the_published_spatial_lists(real_data):
    folder = real_data / "eurosat"
    published = {
        part: {line[:-4] for line in (folder / "splits" / f"eurosat-spatial-{part}.txt").read_text().split()}
        for part in ("train", "val", "test")
    }
    found = patches(sorted(set().union(*published.values())))
    options = SplitOptions(method="spatial", coordinates=str(folder / "coordinates.csv"), val_fraction=0.2)
    members = by_part(splits.make_split(found, options), found)
    for part, names in published.items():
        assert len(members[part] & names) >= 0.999 * len(names), part
