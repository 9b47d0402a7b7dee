"""Generated cities: land cover as hard as it must be, and files as a user would have them."""

import dataclasses
import datetime
import hashlib
import pathlib

import defusedxml.ElementTree
import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio import features

from eo_keras.errors import OptionError
from eo_keras.geo import polygons as vectors
from eo_keras.geo import safe, scenes
from eo_keras.geo.grid import Grid
from eo_keras.geo.scene_reader import SceneReader
from eo_keras.legends import crosswalk
from eo_keras.records.example import NO_DATA, OBSCURED, VALID
from eo_keras.sensors.sentinel2 import BANDS, canonical_name
from tfrecords_builder.sources.urban_atlas import land_use as urban_atlas
from tfrecords_builder.sources.urban_atlas.sites import read_cities
from tfrecords_builder.synthetic import baselines, cities, openstreetmap, product_metadata, products
from tfrecords_builder.synthetic.city_plan import CODES
from tfrecords_builder.synthetic.city_world import CityOptions, CityWorld
from tfrecords_builder.synthetic.product_metadata import ProductOptions
from tfrecords_builder.synthetic.sensor import BLOCK, PIXEL_M
from tfrecords_builder.synthetic.streets import streets

SIZE = 360


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    return cities.write_cities(tmp_path_factory.mktemp("world") / "cities", 2, size=SIZE)


@pytest.fixture(scope="module")
def city(listed):
    return read_cities(listed)[0]


def world_of(city, **changes):
    """The world that the first city of the list was cut from."""
    return CityWorld(dataclasses.replace(CityOptions(), seed=len(cities.NAMES), size=SIZE, **changes))


def test_any_window_shows_the_same_ground():
    world, other = CityWorld(CityOptions(size=480, clouds=0.2)), CityWorld(CityOptions(size=480, clouds=0.2))
    bands = ("B04", "B05", "B09")
    whole, codes = world.image(0, 0, 480, 480, bands), world.codes(0, 0, 480, 480)
    for row, col, height, width in ((0, 0, 50, 50), (77, 130, 120, 40), (300, 250, 180, 230)):
        window = np.s_[row : row + height, col : col + width]
        np.testing.assert_array_equal(other.image(row, col, height, width, bands), whole[window])
        np.testing.assert_array_equal(other.codes(row, col, height, width), codes[window])


def hsl4(codes):
    labels_of = crosswalk.CODE_MAPS["hsl4"].labels
    return np.select([codes == code for code in CODES[1:]], [labels_of[str(code)] for code in CODES[1:]], 255)


@pytest.mark.parametrize("seed", [1, pytest.param(9, marks=pytest.mark.slow)])
def test_colour_alone_names_less_than_seven_pixels_in_ten(seed):
    world = CityWorld(CityOptions(seed=seed, size=600))
    image, codes = world.image(0, 0, 600, 600, ("B04", "B03", "B02")), world.codes(0, 0, 600, 600)
    for window in (1, 5):
        score = baselines.pixel_colour_baseline(image, hsl4(codes), window=window, sample=5000)
        assert score.most_frequent < 0.55
        assert score.most_frequent < score.accuracy < 0.7


def test_colours_that_tell_the_label_are_all_it_takes_and_those_that_do_not_find_the_most_frequent():
    labels = np.random.default_rng(0).choice(3, (60, 60), p=(0.2, 0.5, 0.3))
    labels[:5] = 255
    score = baselines.pixel_colour_baseline(np.eye(256)[labels][..., :3], labels)
    assert score.accuracy == 1 and abs(score.most_frequent - 0.5) < 0.05
    noise = np.random.default_rng(1).normal(size=(60, 60, 3))
    score = baselines.pixel_colour_baseline(noise, labels, window=3)
    assert abs(score.accuracy - score.most_frequent) < 0.02
    for image, window in ((noise[:50], 1), (noise, 2), (noise, 61)):
        with pytest.raises(OptionError, match="pixel_colour_baseline"):
            baselines.pixel_colour_baseline(image, labels, window=window)
    with pytest.raises(OptionError, match="too few pixels"):
        baselines.pixel_colour_baseline(noise, np.full((60, 60), 255))


def test_means_over_windows_are_those_around_the_pixels():
    # The classes differ by the mean of 3 x 3 pixels alone; a window out of place would not tell them.
    noise = np.random.default_rng(2).normal(size=(90, 90, 1))
    means = sum(np.roll(noise[..., 0], (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1))
    labels = np.where(means > 0, 1, 0)
    labels[[0, -1]] = labels[:, [0, -1]] = 255
    assert baselines.pixel_colour_baseline(noise, labels, window=3).accuracy > 0.98
    assert baselines.pixel_colour_baseline(noise, labels, window=1).accuracy < 0.75


def test_few_regions_change_between_the_stages():
    before, after = (CityWorld(CityOptions(seed=2, size=420, stage=stage)) for stage in (0, 1))
    codes, later = before.codes(0, 0, 420, 420), after.codes(0, 0, 420, 420)
    changed = codes != later
    assert 0.001 < changed.mean() < 0.05
    found = set(zip(codes[changed], later[changed], strict=True))
    assert found <= {(31000, 32000), (21000, 12100), (23000, 12100)} and len(found) >= 2
    images = [world.image(0, 0, 420, 420, ("B11",))[..., 0].astype(int) for world in (before, after)]
    assert (images[0] != images[1])[changed].mean() > 0.9
    # Bands of 20 m mix a little of what has changed into their neighbours.
    assert (images[0] != images[1])[~changed].mean() < 0.05


def test_a_city_has_all_kinds_of_land_use():
    codes = CityWorld(CityOptions(size=600)).codes(0, 0, 600, 600)
    assert set(np.unique(codes)) == set(CODES)
    share = {code: (codes == code).mean() for code in CODES}
    assert share[0] < 0.25
    assert 0.002 < share[12220] < 0.1  # Narrow roads.
    assert 0.05 < share[12100] < 0.3 and 0.05 < share[31000] < 0.4


def grounds_of(world, bands):
    """Renders bands a row of blocks at a time, of which the world keeps the ground."""
    found = {band: [] for band in bands}
    for top in range(0, SIZE, BLOCK):
        for band, rows in found.items():
            step = BANDS[band].resolution_m // PIXEL_M
            height = min(BLOCK, SIZE - top) // step
            rows.append(world.native(top // step, 0, height, SIZE // step, (band,))[..., 0])
    return {band: np.concatenate(rows) for band, rows in found.items()}


def test_products_hold_the_worlds_numbers_with_the_offset_of_their_baseline(city):
    early, late = city.scenes
    assert safe.open_product(early).offsets["B04"] == 0
    assert safe.open_product(late).offsets == dict.fromkeys(BANDS, -1000.0)
    for number, path in enumerate(city.scenes):
        product, world = safe.open_product(path), world_of(city, acquisition=number)
        assert set(product.files) == set(BANDS)
        grounds = grounds_of(world, ("B03", "B8A", "B10"))
        for band, ground in grounds.items():
            (file,) = product.files[band]
            with rasterio.open(file) as dataset:
                stored = dataset.read(1).astype(int)
                assert dataset.driver == "JP2OpenJPEG" and dataset.res == (BANDS[band].resolution_m,) * 2
            seen = stored != product.nodata
            np.testing.assert_array_equal((stored + product.offsets[band])[seen], ground[seen])
            assert 0.02 < 1 - seen.mean() < 0.15  # The corner outside the swath.
            assert band != "B10" or 5 < ground.mean() < 30


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_gdals_own_driver_opens_the_products(city):
    for number, path in enumerate(city.scenes):
        with rasterio.open(pathlib.Path(path) / "MTD_MSIL1C.xml") as dataset:
            assert dataset.driver == "SENTINEL2"
            assert dataset.tags()["PROCESSING_BASELINE"] == ("02.06", "05.00")[number]
            resolutions = [name for name in dataset.subdatasets if ":TCI:" not in name]
        found = {}
        for name in resolutions:
            with rasterio.open(name) as dataset:
                assert dataset.crs == "EPSG:32633" and dataset.width == SIZE * 10 / dataset.res[0]
                for index, text in enumerate(dataset.descriptions, start=1):
                    found[canonical_name(text.split(",")[0])] = dataset.read(index)
        product = safe.open_product(path)
        assert set(found) == set(BANDS)
        for band in ("B02", "B09", "B8A"):
            with rasterio.open(product.files[band][0]) as dataset:
                np.testing.assert_array_equal(found[band], dataset.read(1))


def test_the_manifest_names_every_file(city):
    root = pathlib.Path(city.scenes[0])
    tree = defusedxml.ElementTree.parse(root / "manifest.safe", forbid_dtd=True)
    objects = {item.get("ID"): item for item in tree.iter("dataObject")}
    named = {item.find("byteStream/fileLocation").get("href"): item.find("byteStream") for item in objects.values()}
    there = {f"./{path.relative_to(root).as_posix()}" for path in root.rglob("*") if path.is_file()}
    assert set(named) == there - {"./manifest.safe"} and len(named) == len(list(tree.iter("dataObject")))
    for href, stream in named.items():
        data = (root / href).read_bytes()
        assert int(stream.get("size")) == len(data)
        assert stream.find("checksum").text == hashlib.sha3_256(data).hexdigest()


def test_full_detectors_are_told_and_flagged(tmp_path):
    world = CityWorld(CityOptions(seed=6, size=480, surface=True))
    path = products.write_product(tmp_path, world, ProductOptions("L2A", baseline="05.09", swath=False))
    near_infrared = world.native(0, 0, 480, 480, ("B08",))[..., 0]
    full = near_infrared >= 11_500
    assert 0 < full.sum() < 500
    product = safe.open_product(path)
    with rasterio.open(product.files["B08"][0]) as dataset:
        np.testing.assert_array_equal(dataset.read(1) == product.saturated, full)
    with SceneReader(scenes.open_scene(path, scenes.SceneOptions(bands=("B08",)))) as reader:
        assert (reader.read(0, 0, 480, 480)[1][full] != VALID).all()


@pytest.mark.parametrize(
    ("zone", "origin", "tile"),
    [
        # Tiles as ESA cuts them: north and west of Berlin, Paris and Madrid.
        (33, (399_960.0, 5_900_040.0), "33UVU"),
        (32, (699_960.0, 5_900_040.0), "32UQD"),
        (31, (399_960.0, 5_500_020.0), "31UDQ"),
        (30, (399_960.0, 4_500_000.0), "30TVK"),
    ],
)
def test_tiles_are_called_after_their_square(zone, origin, tile):
    grid = Grid(f"EPSG:{32600 + zone}", (10.0, 0.0, origin[0], 0.0, -10.0, origin[1]), 10_000, 10_000)
    assert product_metadata.tile_at(grid) == tile


def test_both_dates_show_the_same_ground_on_other_days(city):
    images = []
    for path in city.scenes:
        scene = scenes.open_scene(path, scenes.SceneOptions(bands=("B08",)))
        with SceneReader(scene) as reader:
            image, mask = reader.read(0, 0, SIZE, SIZE)
        images.append(image[..., 0][mask == VALID].astype(float))
    assert 0.8 < np.corrcoef(*images)[0, 1] < 0.999
    assert abs(images[0].mean() / images[1].mean() - 1) < 0.2


def test_the_urban_atlas_is_that_of_the_pixels(city):
    (path,) = city.vectors
    layers = [name for name, _ in pyogrio.list_layers(path)]
    assert layers == ["XX001L1_ALDERFORD_UA2018", "XX001L1_ALDERFORD_UA2018_Boundary"]
    info = pyogrio.read_info(path, layer=layers[0])
    assert info["crs"] == "EPSG:3035"
    assert list(info["fields"]) == [
        *("country", "fua_name", "fua_code", "code_2018", "class_2018"),
        *("prod_date", "identifier", "perimeter", "area", "comment"),
    ]
    places, grid = cities.land_use(world_of(city))
    full = crosswalk.CODE_MAPS["full"]
    burnt = urban_atlas.read_land_use(city.vectors, full, grid.crs, "keep").labels(grid)
    expected = np.array([255, *(full.labels[str(code)] for code in CODES[1:])], np.uint8)[places]
    assert (burnt == expected).mean() > 0.999
    raw = world_of(city).codes(0, 0, SIZE, SIZE)
    # Areas below a quarter of a hectare went to their neighbours.
    assert 0.9 < (np.array(CODES)[places] == raw).mean() < 1


def test_openstreetmap_sees_most_of_it(city):
    path = pathlib.Path(city.vectors[0]).parent / "alderford_osm.gpkg"
    assert {name for name, _ in pyogrio.list_layers(path)} == {"multipolygons", "lines"}
    areas = pyogrio.raw.read(path, layer="multipolygons")
    land_use = areas[3][list(areas[0]["fields"]).index("landuse")]
    assert {"residential", "industrial", "forest"} <= set(land_use)
    lines = pyogrio.raw.read(path, layer="lines")
    values = dict(zip(lines[0]["fields"], lines[3], strict=True))
    assert {"motorway", "secondary", "residential"} <= set(values["highway"]) and "river" in values["waterway"]


def test_openstreetmap_leaves_out_what_nobody_mapped_and_lies_a_little_off(city, tmp_path):
    world = world_of(city)
    places, grid = cities.land_use(world)
    areas = []
    for complete, shift in ((1.0, 0.0), (0.5, 0.0), (1.0, 20.0)):
        path = tmp_path / f"{complete}_{shift}.gpkg"
        options = openstreetmap.OsmOptions(complete, shift)
        openstreetmap.write_openstreetmap(path, world, places, grid, "2021-06-01T00:00:00Z", options)
        meta, _, geometry, values = pyogrio.raw.read(path, layer="multipolygons")
        areas.append((shapely.from_wkb(geometry), np.asarray(values[list(meta["fields"]).index("landuse")], np.str_)))
    whole, half, shifted = areas
    assert 0.3 < len(half[1]) / len(whole[1]) < 0.7
    forests = [
        vectors.reprojected(
            vectors.Polygons(geometries[tags == "forest"], tags[tags == "forest"], "EPSG:4326", "map"), grid.crs
        ).geometries
        for geometries, tags in (whole, shifted)
    ]
    moved = shapely.distance(shapely.centroid(forests[0]), shapely.centroid(forests[1]))
    assert 2 < moved.mean() < 25 and moved.max() < 20 * 2**0.5 + 0.5
    mask = features.geometry_mask(forests[0], places.shape, rasterio.Affine(*grid.transform), invert=True)
    assert ((places == CODES.index(31000)) == mask).mean() > 0.999
    with pytest.raises(OptionError, match="complete"):
        openstreetmap.OsmOptions(complete=0.0)
    with pytest.raises(OptionError, match="shift_m"):
        openstreetmap.OsmOptions(shift_m=-1.0)


def test_streets_run_where_narrow_roads_are():
    world = CityWorld(CityOptions(seed=3, size=600))
    codes = world.codes(0, 0, 600, 600)
    lines = streets(world.plan)
    places = np.floor(np.concatenate([line[1:-1] for line in lines])).astype(int)
    places = places[((places >= 1) & (places < 599)).all(axis=1)]
    around = np.max([np.roll(codes == 12220, step, (0, 1)) for step in np.ndindex(3, 3)], axis=0)
    found = np.roll(around, (-1, -1), (0, 1))[tuple(places.T)]
    # Other courses run over some.
    crossed = np.isin(codes[tuple(places.T)], [0, 12210, 12230, 50000, 91000, 92000])
    assert len(lines) > 100 and found[~crossed].mean() > 0.97


def test_a_surface_product_has_a_scene_classification(tmp_path):
    world = CityWorld(CityOptions(size=240, surface=True, clouds=0.3))
    options = ProductOptions("L2A", datetime.datetime(2023, 6, 5, 10, 10, 21), "05.09")
    scene = scenes.open_scene(products.write_product(tmp_path, world, options))
    assert scene.level == "L2A" and "B10" not in scene.bands and scene.scl is not None
    with SceneReader(scene) as reader:
        _, mask = reader.read(0, 0, 240, 240)
    seen = mask != NO_DATA
    cloud, shadow = world.clouds(0, 0, 240, 240)
    hidden = (cloud > 0.15) | (shadow > 0.3)
    assert ((mask == OBSCURED) == hidden)[seen].mean() > 0.95
    assert 0.15 < (mask == OBSCURED)[seen].mean() < 0.6
    with pytest.raises(OptionError, match="there is a product of this name"):
        products.write_product(tmp_path, world, options)
    with pytest.raises(OptionError, match="the level that the world is rendered for"):
        products.write_product(tmp_path, world, ProductOptions())


def test_cities_lie_apart_and_the_same_seed_gives_the_same_bytes(listed, tmp_path):
    again = cities.write_cities(tmp_path / "again", 1, size=SIZE)
    for path in again.parent.rglob("*"):
        if path.is_file() and path.suffix in (".gpkg", ".jp2", ".xml", ".safe"):
            assert path.read_bytes() == (listed.parent / path.relative_to(again.parent)).read_bytes(), path
    grids = [scenes.open_scene(city.scenes[0]).grid for city in read_cities(listed)]
    assert grids[0].bounds[2] < grids[1].bounds[0]


def test_cities_may_lie_in_several_zones(tmp_path):
    day = (ProductOptions(baseline="04.00", sensing=datetime.datetime(2022, 6, 5, 10, 10, 21)),)
    found = read_cities(cities.write_cities(tmp_path / "c", 2, size=240, dates=day, zones=(31, 33)))
    opened = [scenes.open_scene(city.scenes[0]) for city in found]
    assert [scene.grid.crs for scene in opened] == ["EPSG:32631", "EPSG:32633"]
    assert [scene.product.split("_")[5][:3] for scene in opened] == ["T31", "T33"]
    full = crosswalk.CODE_MAPS["full"]
    for city, scene in zip(found, opened, strict=True):
        labels = urban_atlas.read_land_use(city.vectors, full, scene.grid.crs, "keep").labels(scene.grid)
        assert 0.7 < (labels != 255).mean() < 0.95


def test_a_changing_city_changes_on_its_last_date(tmp_path):
    options = CityOptions(seed=2, size=240)
    written = cities.write_city(tmp_path, "ANY", "XX001L1", options, changing=True)
    for stage, path in enumerate(written.products):
        world = CityWorld(dataclasses.replace(options, stage=stage, acquisition=stage))
        product = safe.open_product(path)
        with rasterio.open(product.files["B08"][0]) as dataset:
            stored = dataset.read(1).astype(int)
        usual = (stored != product.nodata) & (stored != product.saturated)
        expected = world.native(0, 0, 240, 240, ("B08",))[..., 0]
        np.testing.assert_array_equal((stored + product.offsets["B08"])[usual], expected[usual])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": 601}, "a multiple of 6"),
        ({"size": 60}, "from 240"),
        ({"zone": 61}, "zone"),
        ({"origin": (399_961.0, 5_900_040.0)}, "multiples of 60 m"),
        ({"clouds": 1.0}, "clouds"),
    ],
)
def test_options_that_make_no_city_are_refused(changes, said):
    with pytest.raises(OptionError, match=said):
        CityOptions(**changes)


def test_numbers_of_cities_and_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(OptionError, match="cities: 9"):
        cities.write_cities(tmp_path / "c", 9)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(OptionError, match="it is not empty"):
        cities.write_cities(tmp_path / "full", 1)
