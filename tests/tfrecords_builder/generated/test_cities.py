"""Generated cities: land cover as hard as it must be, and files as a user would have them."""

import dataclasses
import datetime
import pathlib

import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import rasterio

from eo_keras import code_maps, safe, scenes, urban_atlas
from eo_keras.errors import OptionError
from eo_keras.scene_reader import NO_DATA, UNCLEAR, VALID, SceneReader
from eo_keras.sentinel2 import BANDS
from tfrecords_builder.generated import cities, hardness, products
from tfrecords_builder.generated.city_plan import CODES
from tfrecords_builder.generated.city_world import CityOptions, CityWorld
from tfrecords_builder.generated.products import ProductOptions
from tfrecords_builder.tiles.cities import read_cities

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


@pytest.mark.parametrize("seed", [1, 9])
def test_colour_alone_names_less_than_seven_pixels_in_ten(seed):
    world = CityWorld(CityOptions(seed=seed, size=600))
    image, codes = world.image(0, 0, 600, 600, ("B04", "B03", "B02")), world.codes(0, 0, 600, 600)
    labels_of = code_maps.CODE_MAPS["hsl4"].labels
    labels = np.select([codes == code for code in CODES[1:]], [labels_of[str(code)] for code in CODES[1:]], 255)
    for window in (1, 5):
        score = hardness.pixel_colour_baseline(image, labels, window=window, sample=5000)
        assert score.most_frequent < 0.55
        assert score.most_frequent < score.accuracy < 0.7


def test_a_city_has_all_kinds_of_land_use():
    codes = CityWorld(CityOptions(size=600)).codes(0, 0, 600, 600)
    assert set(np.unique(codes)) == set(CODES)
    share = {code: (codes == code).mean() for code in CODES}
    assert share[0] < 0.25
    assert 0.002 < share[12220] < 0.1  # Narrow roads.
    assert 0.05 < share[12100] < 0.3 and 0.05 < share[31000] < 0.4


def test_products_hold_the_worlds_numbers_with_the_offset_of_their_baseline(city):
    early, late = city.scenes
    assert safe.open_product(early).offsets["B04"] == 0
    assert safe.open_product(late).offsets == dict.fromkeys(BANDS, -1000.0)
    for number, path in enumerate(city.scenes):
        product, world = safe.open_product(path), world_of(city, acquisition=number)
        assert set(product.files) == set(BANDS)
        for band in ("B03", "B8A", "B10"):
            (file,) = product.files[band]
            with rasterio.open(file) as dataset:
                stored = dataset.read(1).astype(int)
                assert dataset.driver == "JP2OpenJPEG" and dataset.res == (BANDS[band].resolution_m,) * 2
            edge = SIZE * 10 // BANDS[band].resolution_m
            ground = world.native(0, 0, edge, edge, (band,))[..., 0]
            seen = stored != products.NO_DATA
            np.testing.assert_array_equal((stored + product.offsets[band])[seen], ground[seen])
            assert 0.02 < 1 - seen.mean() < 0.15  # The corner outside the swath.
            assert band != "B10" or 5 < ground.mean() < 30


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
    full = code_maps.CODE_MAPS["full"]
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
    assert {"motorway", "secondary"} <= set(values["highway"]) and "river" in values["waterway"]


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
    assert ((mask == UNCLEAR) == hidden)[seen].mean() > 0.95
    assert 0.15 < (mask == UNCLEAR)[seen].mean() < 0.6
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
