"""Records of tiles: what they hold, who they are for, and that it does not depend on how they were made."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from eo_keras.core import serialization
from eo_keras.errors import BandError, OptionError, RecordsError, SourceError
from eo_keras.geo import scenes
from eo_keras.geo.grid import Grid
from eo_keras.geo.scene_reader import SceneReader
from eo_keras.inspection import scan_records
from eo_keras.legends import crosswalk
from eo_keras.legends.catalogue import IGNORE
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from tests.eo_keras.geo.test_checksums import damage, pack, write_manifest
from tests.harness import products, towns
from tfrecords_builder import build
from tfrecords_builder.sources.urban_atlas import preflight
from tfrecords_builder.sources.urban_atlas import tiles as rows
from tfrecords_builder.sources.urban_atlas.options import UrbanAtlasOptions
from tfrecords_builder.splits.types import SplitOptions
from tfrecords_builder.steps import shards

SIZE = 48


def options(folder, cities, *, split=None, workers=1, overwrite=False, **tiles):
    tiles = UrbanAtlasOptions(str(cities), **({"tile_size": SIZE} | tiles))
    split = split or SplitOptions()
    return build.BuildOptions("urban_atlas", tiles, str(folder), split, num_workers=workers, overwrite=overwrite)


def examples(folder, split=None):
    card = cards.read_data_card(folder)
    parts = card.splits.values() if split is None else [card.splits[split]]
    return [
        example for part in parts for shard in part.shards for example in records.read_examples(folder / shard.name)
    ]


@pytest.fixture(scope="module")
def two_towns(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towns")
    return towns.write_list(folder, *(towns.write_town(folder, name, place=k) for k, name in enumerate(("A", "B"))))


@pytest.fixture(scope="module")
def built(two_towns, tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "ua"
    report = build.build(options(folder, two_towns))
    return folder, report


def test_a_record_holds_the_scenes_numbers_and_the_squares_labels(built, two_towns):
    folder, _ = built
    card = cards.read_data_card(folder)
    found = examples(folder)
    assert len(found) == 8
    labels = crosswalk.CODE_MAPS["hsl4"].labels
    for example in found:
        _, _, row, column = example.key.rsplit("-", 3)[0], *example.key.rsplit("-", 3)[1:]
        row, column = int(row), int(column)
        scene = scenes.open_scene(next((two_towns.parent / example.tile.city).iterdir()))
        with SceneReader(scene) as reader:
            image, _ = reader.read(row, column, SIZE, SIZE)
        np.testing.assert_array_equal(records.decode_image(example, card), image)
        expected = np.array(
            [[labels[towns.code_at(row + r, column + c)] for c in range(SIZE)] for r in range(SIZE)], np.uint8
        )
        np.testing.assert_array_equal(example.tile.mask, expected)
        assert (example.tile.validity == records.VALID).all()
        assert (example.tile.date, example.crs) == ("2018-07-01", products.CRS)
        here = Grid(example.crs, example.transform, SIZE, SIZE)
        assert here.coordinates(0, 0) == scene.grid.coordinates(column, row)


def test_the_card_tells_what_the_records_hold(built):
    folder, report = built
    card = cards.read_data_card(folder)
    assert card == report.card
    assert (card.task, card.level, card.dtype, card.harmonised, card.patch_size) == (
        "segmentation",
        "L1C",
        "uint16",
        True,
        SIZE,
    )
    assert card.bands == ("B02", "B03", "B04", "B05")
    assert card.legend.class_names == ("Other", "Residential", "Industrial", "Forest")
    counted = {name: sum(split.classes[name] for split in card.splits.values()) for name in card.legend.class_names}
    assert counted == dict.fromkeys(card.legend.class_names, 2 * 96 * 96 // 4)
    assert len(card.products) == 1 and len(card.sources) == 2 * (4 + 1)
    assert card.split_method["cities"] == {"train": ["B"], "test": ["A"]} or card.split_method["cities"] == {
        "train": ["A"],
        "test": ["B"],
    }
    pixels = np.concatenate(
        [records.decode_image(example, card).reshape(-1, 4) for example in examples(folder, "train")]
    ).astype(float)
    for place, statistics in enumerate(card.statistics):
        assert statistics.mean == pytest.approx(pixels[:, place].mean(), rel=1e-12)
        assert statistics.std == pytest.approx(pixels[:, place].std(), rel=1e-9)


def test_the_folder_can_be_inspected_and_damage_is_found(built, tmp_path):
    folder, _ = built
    card = cards.read_data_card(folder)
    assert scan_records.verify(card, folder) == 8
    survey = scan_records.survey(card, folder)
    # A patch of 48 pixels holds four squares: each class has a quarter, and the first of equals is told.
    assert set(survey.labels.tolist()) == {0}
    places = scan_records.locate(card, survey)
    assert places is not None and len(places.footprints) == 8
    data = (folder / card.splits["test"].shards[0].name).read_bytes()
    for split in card.splits.values():
        for shard in split.shards:
            (tmp_path / shard.name).write_bytes((folder / shard.name).read_bytes())
    damaged = bytearray(data)
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / card.splits["test"].shards[0].name).write_bytes(damaged)
    with pytest.raises(RecordsError, match="record"):
        scan_records.verify(card, tmp_path)


def test_masks_outside_the_legend_are_named(built, tmp_path):
    folder, _ = built
    card = cards.read_data_card(folder)
    other = serialization.from_json(
        cards.DataCard,
        cards.to_json(card)
        | {
            "legend": {
                "name": "two",
                "classes": [{"name": "Other", "colour": "#000000"}, {"name": "Residential", "colour": "#ffffff"}],
            }
        },
    )
    with pytest.raises(RecordsError, match=r"the mask of record \d+ holds [23]; expected 0 to 1, or 255"):
        scan_records.verify(other, folder)


def test_a_build_that_was_killed_goes_on_and_ends_in_the_same_bytes(built, two_towns, tmp_path, monkeypatch):
    folder, _ = built
    original, calls = shards.write_shard, []

    def killed(context, unit):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(unit.name)
        original(context, unit)

    monkeypatch.setattr(shards, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        build.build(options(tmp_path / "again", two_towns))
    monkeypatch.setattr(shards, "write_shard", original)
    cut = []
    read = rows.SceneReader.read
    monkeypatch.setattr(rows.SceneReader, "read", lambda *args: cut.append(1) or read(*args))
    report = build.build(options(tmp_path / "again", two_towns))
    assert report.kept_shards == 3
    assert not cut  # No scene is read again.
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_an_unfinished_build_of_something_else_is_refused(two_towns, tmp_path, monkeypatch):
    def killed(context, unit):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shards, "write_shard", killed)
        build.build(options(tmp_path / "again", two_towns))
    with pytest.raises(RecordsError, match=r"something else \(`legend` was hsl4, is now hsl8\)"):
        build.build(options(tmp_path / "again", two_towns, legend="hsl8"))


def test_a_scene_that_is_copied_again_after_a_refusal_is_read_and_others_are_kept(
    built, two_towns, tmp_path, monkeypatch
):
    folder, _ = built
    copied = shutil.copytree(two_towns.parent, tmp_path / "towns") / two_towns.name
    chosen = options(tmp_path / "again", copied)
    (scene,) = (copied.parent / "B").rglob("*_B04.tif")
    whole = scene.read_bytes()
    scene.write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(SourceError, match="_B04.tif.*Copy it again"):
        build.build(chosen)
    assert (tmp_path / "again" / ".build").is_dir()
    # Another file that has changed in the meantime is named, and nothing is done.
    land = copied.parent / "A_UA2018.gpkg"
    before = land.stat()
    os.utime(land, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    with pytest.raises(RecordsError, match=r"something else \(\S*A_UA2018.gpkg has changed since\)") as caught:
        build.build(chosen)
    assert "{" not in str(caught.value) and "[" not in str(caught.value)
    os.utime(land, ns=(before.st_atime_ns, before.st_mtime_ns))
    scene.write_bytes(whole)
    surveyed = []
    original = preflight.open_labels
    monkeypatch.setattr(
        preflight, "open_labels", lambda city, *more: surveyed.append(city.name) or original(city, *more)
    )
    build.build(chosen)
    assert surveyed == ["B"]  # What was cut of the other city is kept.
    for path in folder.iterdir():
        if not path.name.startswith("."):
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_damaged_image_is_found_by_its_container_and_copied_again_read(tmp_path):
    line, other = (towns.write_town(tmp_path, name, place=k, suffix=".jp2") for k, name in enumerate(("A", "B")))
    (image,) = (tmp_path / "A").rglob("*_B04.jp2")
    write_manifest(next((tmp_path / "A").rglob("*.SAFE")))
    whole = image.read_bytes()
    content = bytearray(whole)
    content[len(content) * 3 // 4] ^= 0x5A
    image.write_bytes(content)
    chosen = options(tmp_path / "r", towns.write_list(tmp_path, line, other))
    with pytest.raises(SourceError, match="_B04.jp2: its MD5 is .* manifest.safe says.*copy it again"):
        build.build(chosen)
    image.write_bytes(whole)
    assert not build.build(chosen).warnings
    # Land use in a zip is checked throughout.
    archive = pack(tmp_path / "a.zip", {"a.gpkg": (tmp_path / "A_UA2018.gpkg").read_bytes()}, zipfile.ZIP_STORED)
    damage(archive, "a.gpkg", share=0.9, count=1)
    cities = towns.write_list(tmp_path, line.replace("A_UA2018.gpkg", "a.zip"), other)
    with pytest.raises(SourceError, match="a.zip: a.gpkg: its CRC-32 is"):
        build.build(options(tmp_path / "s", cities), dry_run=True)


def test_two_scenes_of_one_name_are_named_and_tiles_have_keys_of_their_own(two_towns, tmp_path):
    copied = shutil.copytree(two_towns.parent, tmp_path / "towns") / two_towns.name
    lines = copied.read_text().splitlines()
    name, scene, land, *_ = lines[1].split(",")
    archive = products.zipped(copied.parent / scene, copied.parent / "product.zip")
    copied.write_text("\n".join([lines[0], f"{name},{scene};{archive.name},{land},,"]))
    with pytest.raises(SourceError, match=r"SAFE and \S*product.zip are both called .*Name the product once"):
        build.build(options(tmp_path / "r", copied, split=SplitOptions(split="spatial", block_km=0.3)))
    for place, scene in enumerate(("b-c.tif", "c.tif")):
        corner = (products.CORNER[0] + 20_000.0 * place, products.CORNER[1])
        pixels = np.full((1, 96, 96), 900, np.uint16)
        products.write_raster(tmp_path / scene, pixels, 10, names=("B04",), corner=corner)
    lines = [f"a,b-c.tif,{copied.parent}/A_UA2018.gpkg,,", f"a-b,c.tif,{copied.parent}/B_UA2018.gpkg,,"]
    chosen = options(tmp_path / "r", towns.write_list(tmp_path, *lines), scene_level="L2A")
    with pytest.raises(SourceError, match="cities a and a-b.*b-c.tif and .*c.tif give tiles of one key"):
        build.build(chosen)


def test_tensorflow_datasets_reads_the_folder(built):
    import tensorflow_datasets as tfds

    folder, report = built
    builder = tfds.builder_from_directory(str(folder))
    assert builder.info.supervised_keys == ("image", "mask")
    by_key = {example.key: example for example in examples(folder)}
    seen = 0
    for split in report.card.splits:
        for item in tfds.as_numpy(builder.as_dataset(split=split)):
            example = by_key[item["key"].decode()]
            np.testing.assert_array_equal(item["image"], records.decode_image(example, report.card))
            np.testing.assert_array_equal(item["mask"], example.tile.mask)
            np.testing.assert_array_equal(item["validity"], example.tile.validity)
            np.testing.assert_array_equal(item["transform"], example.transform)
            assert (item["city"].decode(), item["date"].decode()) == (example.tile.city, "2018-07-01")
            seen += 1
    assert seen == len(by_key)


def test_the_pipeline_ignores_what_is_not_seen(built, tmp_path):
    import tensorflow as tf

    from eo_keras.data.parse import parse_batch

    folder, report = built
    example = examples(folder)[0]
    validity = example.tile.validity.copy()
    validity[:10] = 3
    tile = records.PixelLabels(example.tile.mask, validity, "A", "", "p")
    data = records.encode(records.Example(example.image, None, "k", example.crs, example.transform, tile))
    assert records.decode(data).tile.labels[:10].tolist() == np.full((10, SIZE), IGNORE).tolist()
    batch = parse_batch(tf.constant([data]), report.card, with_keys=True)
    np.testing.assert_array_equal(batch["label"][0], records.decode(data).tile.labels)
    np.testing.assert_array_equal(batch["image"][0], records.decode_image(example, report.card))


def test_strides_overlap_and_the_last_tiles_reach_over_the_edge(tmp_path):
    cities = towns.write_list(tmp_path, *(towns.write_town(tmp_path, name, place=k) for k, name in enumerate("AB")))
    report = build.build(options(tmp_path / "r", cities, tile_size=64, stride=32, min_labeled_fraction=0.0))
    found = [example for example in examples(tmp_path / "r") if example.tile.city == "A"]
    corners = sorted(tuple(map(int, example.key.split("-")[-2:])) for example in found)
    assert corners == [(row, column) for row in (0, 32) for column in (0, 32)]
    report = build.build(options(tmp_path / "s", cities, tile_size=64, min_labeled_fraction=0.0))
    found = {tuple(map(int, example.key.split("-")[-2:])): example for example in examples(tmp_path / "s")}
    assert sorted(found) == [(0, 0), (0, 64), (64, 0), (64, 64)]
    outside = found[64, 64].tile
    assert (outside.validity[32:] == 0).all() and (outside.labels[32:] == IGNORE).all()
    assert (outside.validity[:32, :32] == 1).all()
    assert report.card.statistics[0].nodata > 0


def test_tiles_are_kept_by_their_shares(tmp_path):
    scl = np.full((48, 48), 4)
    cloudy = scl.copy()
    cloudy[:24, :20] = cloudy[30:34, 30:40] = 9
    lines = [
        towns.write_town(tmp_path, "clear", place=0, level="L2A", scl=scl),
        towns.write_town(tmp_path, "cloudy", place=1, level="L2A", scl=cloudy),
        # Labels in a square of 24 pixels in the middle, 12 in each tile: 6 % of it.
        towns.write_town(tmp_path, "empty", place=2, level="L2A", scl=scl, vectors_of={"margin": 36}),
    ]
    # Clouds are in training, whose statistics are of what is clear.
    lines[:2] = [line[:-1] + part + "," for line, part in zip(lines, ("test", "train"), strict=False)]
    report = build.build(options(tmp_path / "r", towns.write_list(tmp_path, *lines), min_labeled_fraction=0.07))
    kept = {(example.tile.city, *map(int, example.key.split("-")[-2:])) for example in examples(tmp_path / "r")}
    corners = [(row, column) for row in (0, 48) for column in (0, 48)]
    assert kept == {("clear", *corner) for corner in corners} | {("cloudy", *corner) for corner in corners[1:]}
    trained = examples(tmp_path / "r", "train")
    clear = np.concatenate(
        [records.decode_image(example, report.card)[example.tile.validity == records.VALID] for example in trained]
    ).astype(float)
    assert {len(clear)} == {band.valid for band in report.card.statistics} and len(clear) < len(trained) * SIZE**2
    assert [band.mean for band in report.card.statistics] == pytest.approx(clear.mean(axis=0).tolist(), rel=1e-12)
    assert report.card.split_method["tiles_dropped"] == 5
    assert report.card.split_method["cities_without_tiles"] == 1


def test_land_use_outside_the_area_is_ignored(tmp_path):
    from rasterio.warp import transform

    lines = [towns.write_town(tmp_path, name, place=place) for place, name in enumerate("AB")]
    x, y = products.CORNER[0] + 480, products.CORNER[1] - 480  # The middle of town A.
    (east,), (north,) = transform(products.CRS, "EPSG:4326", [x], [y])
    lines[0] = lines[0][:-1] + f",{east - 1} {north} {east} {north + 1}"
    cities = towns.write_list(tmp_path, *lines)
    build.build(options(tmp_path / "r", cities))
    found = [example for example in examples(tmp_path / "r") if example.tile.city == "A"]
    # Its north-western quarter is one tile; meridians are not quite the grid's north.
    assert len(found) == 1
    assert np.mean(found[0].tile.mask != IGNORE) > 0.9


def test_one_city_is_divided_into_blocks(tmp_path):
    cities = towns.write_list(tmp_path, towns.write_town(tmp_path, "A", size=480))
    blocks = SplitOptions(split="spatial", block_km=1.0, test_fraction=0.3)
    report = build.build(options(tmp_path / "r", cities, split=blocks))
    assert set(report.card.splits) == {"train", "test"}
    assert report.card.split_method["buffer_km"] == pytest.approx(SIZE / 100)
    assert report.card.split_method["left_out_by_buffer"] > 0


def test_a_dry_run_surveys_and_writes_nothing(two_towns, tmp_path):
    report = build.build(options(tmp_path / "r", two_towns), dry_run=True)
    assert report.card.splits["all"].examples == 8
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("parts", "split", "match"),
    [
        (("",), {}, "`split=city`: of 4 tiles in 1 city none falls into train; .*Give 2 cities at least"),
        (("train", "train"), {}, "`split=city`: of 2 cities none falls into test; .*name one for every split"),
        (("", ""), {"val_fraction": 0.2}, "of 2 cities none falls into train; .*Give 3 cities"),
        (
            ("", ""),
            {"fold": "1/3"},
            "fold: 1/3, and the number of cities without a split of their own is 2; .*fewer folds",
        ),
        (("", ""), {"split": "spatial", "block_km": 500}, "of 8 tiles in 2 cities none .*Make `block_km` smaller"),
        (
            ("", ""),
            {"split": "spatial", "block_km": 500, "fold": "1/2"},
            "fold: 1/2, and the number of blocks is 1",
        ),
        (("", ""), {"split": "spatial", "block_km": 0.5, "buffer_km": 90}, "left out for .*Make `buffer_km` smaller"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_cannot_be_split_is_refused_before_a_tile_is_cut(
    parts, split, match, dry_run, two_towns, tmp_path, monkeypatch
):
    def cut(*_):
        raise AssertionError("a tile is cut")

    monkeypatch.setattr(rows, "cut_tiles", cut)
    lines = two_towns.read_text().splitlines()[: len(parts) + 1]
    lines[1:] = [f"{','.join(line.split(',')[:3])},{part}," for line, part in zip(lines[1:], parts, strict=True)]
    cities = two_towns.with_name("others.csv")
    cities.write_text("\n".join(lines))
    split = SplitOptions(**({"split": "city"} | split))
    with pytest.raises((SourceError, OptionError), match=match):
        build.build(options(tmp_path / "r", cities, split=split), dry_run=dry_run)
    assert not (tmp_path / "r").exists()


def test_label_years_and_dates_far_apart_are_warned_of(tmp_path):
    lines = [towns.write_town(tmp_path, name, place=place, date="2022-07-01") for place, name in enumerate("AB")]
    report = build.build(options(tmp_path / "r", towns.write_list(tmp_path, *lines)))
    assert len(report.warnings) == 2
    assert "the land use is of 2018, scene S2A_MSIL1C_20220701" in report.warnings[0]


def refused(tmp_path, error, match, *lines, **changes):
    with pytest.raises(error, match=match) as found:
        build.build(options(tmp_path / "r", towns.write_list(tmp_path, *lines), **changes))
    assert "\n" not in str(found.value)
    assert not (tmp_path / "r").exists()


def test_bad_input_is_refused_in_one_line(tmp_path):
    town = towns.write_town(tmp_path, "A")
    refused(tmp_path, BandError, "it does not hold B11", town, bands="B04,B11")
    far = towns.write_land_use(tmp_path / "far_UA2018.gpkg", 96, (products.CORNER[0] + 90_000, products.CORNER[1]))
    scene = town.split(",")[1]
    refused(tmp_path, SourceError, "it does not overlap with the land use of A", f"A,{scene},{far.name},,")
    unknown = towns.write_land_use(tmp_path / "odd_UA2018.gpkg", 96, products.CORNER, codes=lambda row, column: "99999")
    refused(tmp_path, SourceError, "the code '99999' of 16 polygons is unknown", f"A,{scene},{unknown.name},,")
    refused(tmp_path, OptionError, "legend 'hsl5'", town, legend="hsl5")
    two = f"A,{scene};{towns.write_town(tmp_path, 'C', place=1, crs='EPSG:32632').split(',')[1]},{town.split(',')[2]},,"
    refused(tmp_path, SourceError, "EPSG:32632 and EPSG:32633", two)
    other = towns.write_town(tmp_path, "D", place=2, level="L2A")
    refused(tmp_path, SourceError, "it is L2A", town, other)
    refused(tmp_path, SourceError, "`split=spatial` `block_km", town)
    refused(tmp_path, OptionError, "would lie on both sides", town, split=SplitOptions(split="random"))
    refused(tmp_path, OptionError, "tiles are split in blocks", town, split=SplitOptions(split="spatial"))


def test_scenes_in_degrees_need_a_target(tmp_path):
    pixels = np.full((3, 96, 96), 1500, np.uint16)
    from rasterio.warp import transform

    (east,), (north,) = transform(products.CRS, "EPSG:4326", [products.CORNER[0]], [products.CORNER[1]])
    step = 0.0001
    products.write_raster(
        tmp_path / "scene_2018-07-01.tif",
        pixels,
        step,
        corner=(east, north),
        crs="EPSG:4326",
        names=("B04", "B03", "B02"),
    )
    land = towns.write_land_use(tmp_path / "land_UA2018.gpkg", 96, products.CORNER)
    line = f"A,scene_2018-07-01.tif,{land.name},,"
    refused(tmp_path, SourceError, "say `target_crs`|Say `target_crs", line, scene_level="L1C")
    found = build.build(
        options(
            tmp_path / "r",
            tmp_path / "cities.csv",
            scene_level="L1C",
            target_crs=products.CRS,
            split=SplitOptions(split="spatial", block_km=0.2, test_fraction=0.1),
            min_labeled_fraction=0,
            tile_size=16,
        ),
        dry_run=True,
    )
    assert found.card.resolution_m == pytest.approx(9, abs=2.5)
    refused(tmp_path, SourceError, "its processing level is not known", line, target_crs=products.CRS)


def test_pixels_are_metres_on_the_ground_and_one_size(tmp_path):
    def town(name, crs, corner, width=10.0, height=10.0):
        scene, land = tmp_path / f"{name}_20180701.tif", tmp_path / f"{name}_UA2018.gpkg"
        products.write_raster(scene, np.full((3, 96, 96), 1500, np.uint16), 10, names=("B04", "B03", "B02"))
        with rasterio.open(scene, "r+") as file:
            file.crs, file.transform = crs, Affine(width, 0, corner[0], 0, -height, corner[1])
        towns.write_land_use(land, 96, corner, crs=crs)
        return f"{name},{scene.name},{land.name},,"

    web = town("Web", "EPSG:3857", (1_669_792, 6_394_000))
    again = town("Again", "EPSG:3857", (1_729_792, 6_394_000))
    level = {"scene_level": "L1C"}
    found = build.build(
        options(tmp_path / "r", towns.write_list(tmp_path, web, again), **level, min_labeled_fraction=0), dry_run=True
    )
    assert found.card.resolution_m == pytest.approx(6.47, abs=0.01)
    metric = town("Utm", products.CRS, products.CORNER)
    refused(
        tmp_path,
        OptionError,
        r"measure 6\.47\d m on the ground.* 10 m;.*`target_crs=EPSG:326",
        web,
        metric,
        **level,
    )
    oblong = town("Oblong", products.CRS, products.CORNER, height=8.0)
    refused(tmp_path, SourceError, "10 m by 8 m on the ground.*`target_crs=EPSG:32633", oblong, again, **level)


def test_a_legend_of_ones_own_is_part_of_the_build(tmp_path, two_towns):
    codes = list(crosswalk.TITLES)
    legend = {
        "name": "two",
        "classes": [
            {"name": "BuiltUp", "colour": "#ff0000", "codes": [code for code in codes if code.startswith("1")]},
            {"name": "Open", "colour": "#00ff00", "codes": [code for code in codes if code[0] in "2345"]},
        ],
        "ignore": ["91000", "92000"],
    }
    path = tmp_path / "two.json"
    path.write_text(json.dumps(legend))
    report = build.build(options(tmp_path / "r", two_towns, legend=str(path)))
    assert report.card.legend.class_names == ("BuiltUp", "Open")
    assert sum(split.classes["BuiltUp"] for split in report.card.splits.values()) == 96 * 96


def test_a_row_that_was_damaged_while_it_waited_is_cut_by_the_next_call(built, two_towns, tmp_path, monkeypatch):
    folder, _ = built
    original, damaged = shards.write_shard, []

    def damage_first(context, unit):
        if not damaged:
            damaged.append(next(path for path in (tmp_path / "r" / ".build").glob("row-*") if path.suffix != ".npz"))
            content = bytearray(damaged[0].read_bytes())
            content[len(content) // 2] ^= 1
            damaged[0].write_bytes(content)
        original(context, unit)

    with (
        monkeypatch.context() as patched,
        pytest.raises(SourceError, match="damaged.*Keep other programs out.*run the"),
    ):
        patched.setattr(shards, "write_shard", damage_first)
        build.build(options(tmp_path / "r", two_towns))
    build.build(options(tmp_path / "r", two_towns))
    for path in folder.glob("*.tfrecord-*"):
        assert (tmp_path / "r" / path.name).read_bytes() == path.read_bytes(), path.name
