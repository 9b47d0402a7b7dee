"""Footprints: images with masks, polygons or heights become records of tiles, and what is wrong with them is told."""

import io

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.io import MemoryFile

from eo_keras import models
from eo_keras.errors import BandError, OptionError, SourceError
from eo_keras.geo import polygons
from eo_keras.geo.distance_classes import distance_classes
from eo_keras.geo.polygons import Polygons
from eo_keras.legends.catalogue import IGNORE
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.records.inputs import parse_inputs
from eo_keras.records.targets import DistanceClasses
from tests.harness.archives import write_folder, write_zip
from tests.harness.building import all_examples, built, bytes_of
from tests.launch.commands import assert_one_line_error, launch
from tfrecords_builder import disk_usage
from tfrecords_builder.sources import archive as archives
from tfrecords_builder.synthetic import footprints as districts

NAMED = {"pixel_size_m": 0.3, "tile_size": 32}


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def geotiff(pixels, place=None, crs="EPSG:32633", **profile):
    """A GeoTIFF of (height, width, bands), with pixels of half a meter at a place, or without one."""
    height, width, count = pixels.shape
    if place is not None:
        profile |= {"crs": crs, "transform": rasterio.Affine(0.5, 0, place[0], 0, -0.5, place[1])}
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=height, width=width, count=count, dtype=pixels.dtype, **profile
        ) as file:
            file.write(np.moveaxis(pixels, -1, 0))
        return memory.read()


def view(number, size=32, bands=3, dtype=np.uint8):
    """An image with black pixels, and the mask of its two buildings."""
    random = np.random.default_rng(number)
    image = random.integers(40, 250, (size, size, bands)).astype(dtype)
    image[:2] = 0
    mask = np.zeros((size, size), np.uint8)
    mask[3 : 10 + number % 5, 4:15] = mask[20:26, 12 : 18 + number % 7] = 255
    return image, mask


def members(root="inria/", splits=(("train_data", 8), ("val_data", 2), ("test_data", 2)), suffix="png"):
    found, number = {}, 0
    for split, count in splits:
        for _ in range(count):
            image, mask = view(number)
            name = f"{('austin', 'tyrol-w')[number % 2]}{number // 2 + 1}_{number}"
            found[f"{root}{split}/images/{name}.{suffix}"] = png(image) if suffix == "png" else geotiff(image)
            found[f"{root}{split}/gt/{name}.{suffix}"] = png(mask) if suffix == "png" else geotiff(mask[..., None])
            number += 1
    return found


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "inria.zip", members())


def test_images_masks_distances_and_parts_are_the_archives(archive, tmp_path):
    card = built("footprints", archive, tmp_path / "r", **NAMED)
    assert cards.read_data_card(tmp_path / "r") == card
    assert (card.bands, card.sensor, card.dtype, card.level) == (("R", "G", "B"), "aerial", "uint8", "")
    assert (card.resolution_m, card.patch_size, card.georeferenced, card.reflectance) == (0.3, 32, False, None)
    assert card.legend.class_names == ("Background", "Building")
    assert card.distance == DistanceClasses(20.0, 11, "Building")
    assert {name: part.examples for name, part in card.splits.items()} == {"train": 8, "val": 2, "test": 2}
    counted = 0
    for name, first, end in (("train", 0, 8), ("val", 8, 10), ("test", 10, 12)):
        for example in all_examples(card, tmp_path / "r", name):
            number = int(example.key.rpartition("_")[2])
            assert first <= number < end
            image, mask = view(number)
            # Black pixels are seen too: nothing but a file's own mark says no data.
            np.testing.assert_array_equal(records.decode_image(example, card), np.maximum(image, 1))
            np.testing.assert_array_equal(example.tile.mask, mask // 255)
            np.testing.assert_array_equal(example.tile.distance, distance_classes(mask // 255, 1, card.distance))
            assert (example.tile.validity == records.VALID).all()
            assert example.tile.city == ("austin", "tyrol-w")[number % 2]
            counted += np.count_nonzero(mask) * (name == "train")
    assert card.splits["train"].classes == {"Background": 8 * 32 * 32 - counted, "Building": counted}


def test_a_zip_a_folder_other_forms_and_any_number_of_workers_give_the_same_tiles(archive, tmp_path):
    built("footprints", archive, tmp_path / "one", **NAMED)
    expected = bytes_of(tmp_path / "one")
    built("footprints", archive, tmp_path / "two", num_workers=2, **NAMED)
    assert bytes_of(tmp_path / "two") == expected
    shards = {name: value for name, value in expected.items() if "tfrecord" in name}
    for number, content in enumerate((members(), members("", suffix="tif"))):
        folder = write_folder(tmp_path / f"folder{number}", content)
        built("footprints", folder, tmp_path / f"r{number}", **NAMED)
        assert shards.items() <= bytes_of(tmp_path / f"r{number}").items()


def test_masks_of_three_equal_bands_and_of_other_numbers_are_read(tmp_path):
    content = {}
    for number in range(3):
        image, mask = view(number)
        content[f"{('train', 'test')[number == 2]}/images/a{number}.png"] = png(image)
        classes = np.where(mask == 255, 1, 0).astype(np.uint8)
        classes[:, -3:] = 9
        content[f"{('train', 'test')[number == 2]}/gt/a{number}.png"] = png(np.repeat(classes[..., None], 3, 2))
    source = write_zip(tmp_path / "a.zip", content)
    card = built("footprints", source, tmp_path / "r", building_value=1, unknown_value=9, distance_classes=0, **NAMED)
    assert card.distance is None
    (example,) = all_examples(card, tmp_path / "r", "test")
    assert example.tile.distance is None
    assert (example.tile.mask[:, -3:] == IGNORE).all()
    np.testing.assert_array_equal(example.tile.mask[:, :-3], (view(2)[1] // 255)[:, :-3])


def large(number, place, size):
    random = np.random.default_rng(number)
    image = random.integers(1, 250, (*size, 4)).astype(np.uint16) * 40
    mask = (random.random(size) < 0.3).astype(np.uint8)[..., None] * 255
    return geotiff(image, place), geotiff(mask, place), image, mask[..., 0]


def cities():
    """Three images of two cities, far apart; the last one is narrower than a tile."""
    content, found = {}, {}
    for number, name in enumerate(("austin1", "austin2", "vienna1")):
        place = (400_000.0 + 2_000 * number, 5_300_000.0)
        image, mask, *arrays = large(number, place, (70, 20 if name == "vienna1" else 96))
        content |= {f"images/{name}.tif": image, f"gt/{name}.tif": mask}
        found[name] = (place, *arrays)
    return content, found


@pytest.mark.parametrize("zipped", [False, True])
def test_large_images_are_cut_into_tiles_with_their_places(tmp_path, zipped):
    content, found = cities()
    source = (write_zip if zipped else write_folder)(tmp_path / "source.zip", content)
    card = built("footprints", source, tmp_path / "r", split="city", tile_size=32, band_order="B,G,R,NIR")
    assert (card.bands, card.dtype, card.resolution_m) == (("B", "G", "R", "NIR"), "uint16", 0.5)
    assert card.split_method["cities"] in (
        {"train": ["austin"], "test": ["vienna"]},
        {"train": ["vienna"], "test": ["austin"]},
    )
    seen = {name: np.zeros(mask.shape, int) for name, (_, _, mask) in found.items()}
    for example in all_examples(card, tmp_path / "r"):
        name, row, column = example.key.split("-")
        row, column = int(row), int(column)
        place, image, mask = found[name]
        part = np.s_[row : row + 32, column : column + 32]
        height, width = mask[part].shape
        seen[name][part] += 1
        np.testing.assert_array_equal(records.decode_image(example, card)[:height, :width], image[part])
        np.testing.assert_array_equal(example.tile.mask[:height, :width], mask[part] // 255)
        beyond = np.ones((32, 32), bool)
        beyond[:height, :width] = False
        assert (example.tile.mask[beyond] == IGNORE).all() and (example.tile.distance[beyond] == IGNORE).all()
        np.testing.assert_array_equal(example.tile.validity == records.NO_DATA, beyond)
        assert example.crs == "EPSG:32633"
        assert example.transform == (0.5, 0.0, place[0] + column / 2, 0.0, -0.5, place[1] - row / 2)
        assert (example.tile.city, example.tile.product) == (name[:-1], name)
    # Tiles overlap along 70 pixels, which are no multiple of 32, and do not along 96.
    for name, count in seen.items():
        expected = np.repeat([1, 2, 1, 2, 1], [19, 13, 6, 13, 19])
        np.testing.assert_array_equal(count, np.repeat(expected[:, None], found[name][2].shape[1], 1))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_files_that_are_too_large_for_an_archive_are_read_from_a_folder(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 1000)
    content = members(suffix=suffix)
    card = built("footprints", write_folder(tmp_path / "a", content), tmp_path / "r", **NAMED)
    assert card.splits["train"].examples == 8
    with pytest.raises(SourceError, match=r"bytes; expected a patch of at most 1,000 bytes.*unpack the archive"):
        built("footprints", write_zip(tmp_path / "a.zip", content), tmp_path / "s", **NAMED)


def test_tiles_of_one_image_are_never_drawn_to_both_sides(tmp_path):
    source = write_folder(tmp_path / "a", cities()[0])
    named = {"tile_size": 32, "band_order": "B,G,R,NIR"}
    for method in ("random", "spatial"):
        with pytest.raises(OptionError, match=f"`split={method}`: images are cut into tiles.*`split=city`"):
            built("footprints", source, tmp_path / "r", split=method, **named)
    # Blocks have a buffer as wide as a tile, so that no tiles of two splits touch.
    card = built("footprints", source, tmp_path / "s", split="spatial", block_km=1, **named)
    assert card.split_method["buffer_km"] == 0.016 and card.splits["test"].examples == 9
    # Of each image a fold, for a cross-validation.
    tested = []
    for fold in ("1/3", "2/3", "3/3"):
        card = built("footprints", source, tmp_path / fold[0], split="city", sites="image", fold=fold, **named)
        tested += card.split_method["cities"]["test"]
    assert sorted(tested) == ["austin1", "austin2", "vienna1"]


def test_images_by_number_are_the_published_validation(tmp_path):
    content = {}
    for city in ("austin", "vienna"):
        for number in (1, 5, 6, 30):
            image, mask = view(number)
            content |= {f"train/images/{city}{number}.png": png(image), f"train/gt/{city}{number}.png": png(mask)}
    card = built("footprints", write_zip(tmp_path / "a.zip", content), tmp_path / "r", first_for_test=5, **NAMED)
    keys = sorted(example.key for example in all_examples(card, tmp_path / "r", "test"))
    assert keys == ["austin1", "austin5", "vienna1", "vienna5"] and card.splits["train"].examples == 4


def heights_of(number):
    mask = view(number)[1]
    heights = np.where(mask, 4.5 + number, 0).astype(np.float32)
    heights[-2:, :5] = -9999
    return heights


def with_heights():
    content = {}
    for number in range(3):
        image = view(number, bands=4, dtype=np.uint16)[0]
        content[f"sample/img/img_bj{number}.tif"] = geotiff(image)
        content[f"sample/lab/lab_bj{number}.tif"] = geotiff(heights_of(number)[..., None], nodata=-9999)
    return content


HEIGHTS = {
    "image_files": "img/img_*",
    "height_files": "lab/lab_*.tif",
    "footprints_from": "heights",
    "band_order": "B,G,R,NIR",
    "split": "city",
    "sites": "image",
    "pixel_size_m": 2.5,
    "tile_size": 32,
}


def test_heights_are_a_second_modality_and_say_where_buildings_are(tmp_path):
    source = write_zip(tmp_path / "a.zip", with_heights())
    card = built("footprints", source, tmp_path / "r", **HEIGHTS)
    (first, height) = card.modalities.values()
    assert (first.name, first.sensor, first.bands, first.dtype) == (
        "aerial",
        "aerial",
        ("B", "G", "R", "NIR"),
        "uint16",
    )
    assert (height.name, height.sensor, height.bands, height.dtype) == ("height", "height", ("HEIGHT",), "float32")
    assert (height.units, height.resolution_m, height.patch_size) == ("m", 2.5, 32)
    network = models.NetworkSpec.of_inputs(card, parse_inputs("aerial:RGB;height:all", card))
    assert [(name, one.bands) for name, one in network.inputs.items()] == [
        ("aerial", ("R", "G", "B")),
        ("height", ("HEIGHT",)),
    ]
    assert height.statistics[0].minimum == 0 and height.statistics[0].nodata == 20
    for example in all_examples(card, tmp_path / "r"):
        number = int(example.key[-1])
        expected = heights_of(number)[..., None]
        expected[expected == -9999] = np.nan
        np.testing.assert_array_equal(records.decode_modality(example, card, "height"), expected)
        np.testing.assert_array_equal(
            example.tile.mask, np.where(np.isnan(expected[..., 0]), IGNORE, view(number)[1] // 255)
        )
        # The image shows the ground there.
        assert (example.tile.validity == records.VALID).all()


def test_polygons_are_burnt_as_their_masks_are(tmp_path):
    districts.write_footprints(tmp_path / "city", {"train": 2, "test": 1}, size=48)
    named, burning = {"tile_size": 48, "height_files": "height/*"}, {"footprints_from": "polygons"}
    masks = built("footprints", tmp_path / "city", tmp_path / "masks", **named)
    own = tmp_path / "city" / "footprints.gpkg"
    burnt = built(
        "footprints", tmp_path / "city", tmp_path / "burnt", footprints_from="polygons", polygons=own, **named
    )
    assert masks.splits == burnt.splits and masks.resolution_m == 0.5 and masks.georeferenced
    assert [source.name for source in burnt.sources] == ["city", "footprints.gpkg"]
    # The same in degrees, as GeoJSON has them: a center on a border may fall to the other side.
    found = polygons.reprojected(polygons.read_polygons(own, None), "EPSG:4326")
    other = tmp_path / "buildings.geojson"
    features = ",".join(
        f'{{"type": "Feature", "properties": {{}}, "geometry": {shapely.to_geojson(one)}}}' for one in found.geometries
    )
    other.write_text(f'{{"type": "FeatureCollection", "features": [{features}]}}')
    card = built("footprints", tmp_path / "city", tmp_path / "r", polygons=other, **burning, **named)
    for one, two in zip(all_examples(masks, tmp_path / "masks"), all_examples(card, tmp_path / "r"), strict=True):
        assert one.key == two.key and np.count_nonzero(one.tile.mask) > 20
        assert np.count_nonzero(one.tile.mask != two.tile.mask) <= 3


def test_polygons_elsewhere_and_images_without_a_place_are_refused(tmp_path):
    box = Polygons(np.array([shapely.box(400_000, 5_400_000, 400_010, 5_400_010)]), np.array([""]), "EPSG:32633", "a")
    polygons.write_polygons(tmp_path / "far.gpkg", "a", box.geometries, {}, box.crs)
    named = {"footprints_from": "polygons", "polygons": tmp_path / "far.gpkg"}
    source = write_folder(tmp_path / "a", cities()[0])
    with pytest.raises(SourceError, match=r"far.gpkg: its polygons lie on none of the 3 images"):
        built("footprints", source, tmp_path / "r", tile_size=32, band_order="B,G,R,NIR", **named)
    plain = write_zip(tmp_path / "b.zip", members())
    with pytest.raises(SourceError, match=r"austin1_0.png: it has no place on the ground"):
        built("footprints", plain, tmp_path / "r", **named, **NAMED)
    with pytest.raises(OptionError, match=r"polygons: it is missing; expected what `footprints_from=polygons` needs"):
        built("footprints", plain, tmp_path / "r", footprints_from="polygons", **NAMED)


IMAGE, MASK = "inria/train_data/images/austin1_0.png", "inria/train_data/gt/austin1_0.png"


def as_geotiff(content, pixels, place=None, end=None):
    """Puts a GeoTIFF in the place of one image."""
    del content[IMAGE]
    content[IMAGE.replace(".png", ".tif")] = geotiff(pixels, place)[:end]


def moved(content, place, crs="EPSG:32633", size=32):
    """Puts all images on the ground, and one mask somewhere else."""
    for name in list(content):
        image, mask = view(int(name.rpartition("_")[2].removesuffix(".png")))
        pixels = image if "/images/" in name else mask[..., None]
        content[name.replace(".png", ".tif")] = geotiff(pixels, (400_000.0, 5_300_000.0))
        del content[name]
    content[MASK.replace(".png", ".tif")] = geotiff(np.zeros((size, size, 1), np.uint8), place, crs)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda c: [c.pop(name) for name in list(c) if "/gt/austin" in name],
            r"images/austin\w+.png: no file gt/\* has its name; 6 of 12 images/\* lack their counterpart;",
        ),
        (
            lambda c: c.update({MASK.replace("1_0", "9_9"): c.pop(MASK)}),
            r"images/austin1_0.png: no file gt/\* has its name; 1 of 12 images/\* and 1 of 12 gt/\* lack",
        ),
        (lambda c: c.pop(IMAGE), r"gt/austin1_0.png: no file images/\* has its name; 1 of 12 gt/\* lack"),
        (lambda c: c.update({IMAGE.replace(".png", ".PNG"): c[IMAGE]}), r"_0.PNG and .*_0.png are both the file of"),
        (lambda c: c.update({k.replace("train", "test"): c[k] for k in (IMAGE, MASK)}), r"have one key, austin1_0"),
        (lambda c: c.clear(), r"it holds no file images/\*.*`image_files=images/\*.tif`"),
        (
            lambda c: c.update({MASK: png(np.full((32, 32), 7, np.uint8))}),
            r"gt/austin1_0.png: the number 7; exp",
        ),
        (
            lambda c: c.update({MASK: png(np.eye(32, dtype=np.uint8))}),
            r"the number 1; expected 0 \(background\) and 255 \(building\). Say `building_value=1`",
        ),
        (
            lambda c: c.update({MASK: png(np.random.default_rng(1).integers(0, 2, (32, 32, 3), dtype=np.uint8) * 255)}),
            r"gt/austin1_0.png: its 3 bands differ",
        ),
        (
            lambda c: c.update({MASK: png(np.zeros((31, 32), np.uint8))}),
            r"its grid, 32x31 pixels.*, is not that of",
        ),
        (lambda c: c.update({IMAGE: png(np.zeros((32, 32), np.uint8))}), r"has 1 bands, and 3 are named \(R,G,B\)"),
        (lambda c: c.update({IMAGE: c[IMAGE][:1500]}), r"images/austin1_0.png: it cannot be read"),
        (lambda c: c.update({IMAGE: b""}), r"images/austin1_0.png: it is no PNG by its first bytes"),
        (lambda c: as_geotiff(c, view(0)[0], end=1500), r"images/austin1_0.tif: (it cannot be read|parts of the)"),
        (lambda c: moved(c, (400_000.5, 5_300_000.0)), r"its grid, .* from \(400000.5, 5300000\), is not that of"),
        (lambda c: moved(c, (400_000.0, 5_300_000.0), "EPSG:32634"), r"EPSG:32634 .* is not that of .* EPSG:32633"),
        (
            lambda c: as_geotiff(c, view(0)[0], (400_000.0, 5_300_000.0)),
            r"austin2_2.png: it has no place on the ground, and austin1_0 has one",
        ),
        (
            lambda c: as_geotiff(c, view(0)[0].astype(np.float32)),
            r"numbers of type float32; expected uint8 or uint16",
        ),
        (
            lambda c: as_geotiff(c, view(0)[0].astype(np.uint16)),
            r"numbers of type uint8, and others of uint16",
        ),
    ],
)
def test_what_is_wrong_with_a_source_is_told(tmp_path, change, told):
    content = members()
    change(content)
    with pytest.raises((SourceError, OptionError), match=told) as refused:
        built("footprints", write_zip(tmp_path / "a.zip", content), tmp_path / "r", **NAMED)
    assert "\n" not in str(refused.value) and not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"pixel_size_m": None}, "pixel_size_m: it is missing, and the images have no place on the ground"),
        ({"tile_size": 64}, "tile_size: 64, and no image has more than 32 pixels.*Say `tile_size=32`"),
        ({"stride": 40}, "stride: 40 pixels"),
        ({"distance_classes": 4}, "distance_classes: 4; expected an odd number"),
        ({"distance_classes": 1}, "distance_classes: 1; expected an odd number from 3"),
        ({"distance_truncation": 0}, "distance_truncation: 0"),
        ({"mask_files": "gt/"}, r"mask_files: 'gt/'; expected a folder and a name with one \*"),
        ({"height_files": "*/a"}, r"height_files: '\*/a'; expected"),
        ({"footprints_from": "heights"}, "height_files: it is missing"),
        ({"polygons": "a.gpkg"}, "polygons: they do not apply to `footprints_from=masks`"),
        ({"unknown_value": 255}, "unknown_value: 255; expected another number"),
        ({"band_order": "R,G,B,NIR"}, r"band_order: .*a.zip: .* has 3 bands, and 4 are named"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, values, told):
    with pytest.raises(OptionError, match=told):
        built("footprints", write_zip(tmp_path / "a.zip", members()), tmp_path / "r", **(NAMED | values))


def test_an_unknown_band_is_refused(archive, tmp_path):
    with pytest.raises(BandError, match="'B08' is no aerial band"):
        built("footprints", archive, tmp_path / "r", band_order="R,G,B08", **NAMED)


def test_the_command_ends_with_one_line_and_exit_code_2(tmp_path):
    content = members()
    content.pop(MASK)
    source = write_zip(tmp_path / "a.zip", content)
    named = {"dataset": "footprints", "source": source, "tile_size": 32, "pixel_size_m": 0.3}
    result = launch("build", output_dir=tmp_path / "r", **named)
    assert_one_line_error(result, "1 of 12 images/* lack their counterpart")
    assert "--mask_files=gt/*" in result.stderr


def test_the_size_of_a_build_depends_on_its_tiles(archive):
    with pytest.raises(OptionError, match="only known once"):
        disk_usage.expected("footprints", str(archive))


@pytest.mark.real_data
def test_the_chips_of_inria(real_data, tmp_path):
    source = real_data / "inria_chips" / "inria_chips.zip"
    card = built("footprints", source, tmp_path / "r", pixel_size_m=0.3, tile_size=256)
    # The ten of other tiles lie in a folder called second_test.
    assert {name: part.examples for name, part in card.splits.items()} == {"train": 25, "val": 9, "test": 17}
    counts = card.splits["train"].classes
    assert counts["Building"] / sum(counts.values()) == pytest.approx(0.119, abs=5e-4)
    outlines = sum(np.count_nonzero(example.tile.distance == 5) for example in all_examples(card, tmp_path / "r"))
    assert 0.03 < outlines / (51 * 256 * 256) < 0.2
    card = built("footprints", source, tmp_path / "s", pixel_size_m=0.3, tile_size=256, split="city", fold="1/5")
    assert sum(map(len, card.split_method["cities"].values())) == 5


@pytest.mark.real_data
def test_the_heights_of_beijing(real_data, tmp_path):
    source = real_data / "beijing_height" / "beijing_height.zip"
    card = built("footprints", source, tmp_path / "r", **(HEIGHTS | {"tile_size": 80, "fold": "1/3"}))
    assert {name: part.examples for name, part in card.splits.items()} == {"train": 50, "test": 25}
    shares = {"bj0217": 0.205, "bj0317": 0.199, "bj0322": 0.106}
    tallest = {"bj0217": 33, "bj0317": 36, "bj0322": 45}
    masks = {name: [] for name in shares}
    heights = dict.fromkeys(shares, 0.0)
    for example in all_examples(card, tmp_path / "r"):
        name = example.tile.product
        masks[name].append(example.tile.mask[example.tile.mask != IGNORE])
        heights[name] = max(heights[name], np.nanmax(records.decode_modality(example, card, "height")))
    assert heights == tallest
    for name, found in masks.items():
        assert np.concatenate(found).size == 400 * 400
        assert np.concatenate(found).mean() == pytest.approx(shares[name], abs=5e-4)
