"""Scenes opened as named bands on one grid: where names, dates, levels, units and grids come from."""

import datetime
import pathlib

import numpy as np
import pytest

from eo_keras.errors import BandError, OptionError, SourceError
from eo_keras.geo import scenes
from eo_keras.geo.scenes import SceneOptions
from tests.harness import products


def write_tiff(path, count=3, *, dtype="uint16", value=1500, size=30, **kwargs):
    pixels = np.full((count, size, size), value, dtype)
    return products.write_raster(path, pixels, 10, **kwargs)


def test_the_grid_is_that_of_the_finest_band_that_is_asked_for(tmp_path):
    root = products.write_product(tmp_path, size=60)
    whole = scenes.open_scene(root)
    assert (whole.grid.height, whole.grid.width, whole.grid.pixel_size) == (60, 60, 10.0)
    assert whole.grid.crs == products.CRS
    coarse = scenes.open_scene(root, SceneOptions(bands=("B11", "B09")))
    assert (coarse.grid.height, coarse.grid.width, coarse.grid.pixel_size) == (30, 30, 20.0)
    assert coarse.bands == ("B11", "B09")


def test_a_product_tells_level_date_and_identifier(tmp_path):
    scene = scenes.open_scene(products.write_product(tmp_path, level="L2A", scl=np.full((30, 30), 4)))
    assert (scene.level, scene.date) == ("L2A", datetime.date(2023, 1, 22))
    assert scene.product.startswith("S2A_MSIL2A_20230122T101021_N0204")
    assert scene.scl is not None
    assert "SCL" not in scene.bands


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("S2_20190723_Barbellino", datetime.date(2019, 7, 23)),
        ("Boadella_2020-01-28", datetime.date(2020, 1, 28)),
        ("T31UDQ_20170829T105019", datetime.date(2017, 8, 29)),
        ("leipzig", None),
        ("S2_20191399", None),
        ("S2_20190230", None),
    ],
)
def test_dates_are_read_from_names_where_they_are_dates(tmp_path, name, date):
    path = write_tiff(tmp_path / f"{name}.tif", names=("B04", "B03", "B02"))
    assert scenes.open_scene(path).date == date


def test_names_of_a_geotiffs_bands_come_from_its_descriptions_or_the_flag(tmp_path):
    named = write_tiff(tmp_path / "named.tif", 4, names=("b8a", "B4", "ndvi", "B02"))
    assert scenes.open_scene(named).bands == ("B8A", "B04", "B02")
    assert [layer.index for layer in scenes.open_scene(named).layers] == [1, 2, 4]
    plain = write_tiff(tmp_path / "plain.tif", 3)
    with pytest.raises(BandError, match="band_order"):
        scenes.open_scene(plain)
    told = SceneOptions(band_order=scenes.parse_band_order("B2,B3,B10"))
    scene = scenes.open_scene(plain, told)
    assert (scene.bands, scene.level) == (("B02", "B03", "B10"), "L1C")
    with pytest.raises(BandError, match="3 bands"):
        scenes.open_scene(plain, SceneOptions(band_order=("B02", "B03")))


def test_names_of_bands_that_contradict_the_files_own_are_refused(tmp_path):
    named = write_tiff(tmp_path / "named.tif", 3, names=("B02", "B03", "ndvi"))
    single = write_tiff(tmp_path / "T33UUU_20180701T101021_B04_10m.tif", 1)
    for path, told in ((named, ("B03", "B02", "x")), (single, ("B02",))):
        with pytest.raises(BandError, match="by its own name, and `band_order` says.*Leave `band_order` out"):
            scenes.open_scene(path, SceneOptions(band_order=told))
    assert scenes.open_scene(named, SceneOptions(band_order=("B02", "B03", "B04"))).bands == ("B02", "B03", "B04")
    assert scenes.open_scene(single, SceneOptions(band_order=("B04",))).bands == ("B04",)


def test_folders_above_the_bands_tell_which_one_to_name(tmp_path):
    for band in ("B02", "B03"):
        for folder in ("bucket/R10m", "S2A_MSIL2A_x.SAFE/GRANULE/L2A_x/IMG_DATA/R10m"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            write_tiff(tmp_path / folder / f"{band}.tif", 1)
    with pytest.raises(SourceError, match="Name its folder R10m"):
        scenes.open_scene(tmp_path / "bucket")
    with pytest.raises(SourceError, match=r"Name the product's folder .*S2A_MSIL2A_x\.SAFE"):
        scenes.open_scene(tmp_path / "S2A_MSIL2A_x.SAFE/GRANULE/L2A_x/IMG_DATA")


def test_thirteen_unnamed_bands_are_not_guessed_to_lie_in_eurosats_order(tmp_path):
    path = write_tiff(tmp_path / "patch.tif", 13)
    with pytest.raises(BandError, match="`band_order=EUROSAT"):
        scenes.open_scene(path)
    scene = scenes.open_scene(path, SceneOptions(band_order=scenes.parse_band_order("eurosat")))
    assert scene.bands[8] == "B09"
    assert scene.bands[-1] == "B8A"


@pytest.mark.parametrize("text", ["", "ndvi,qa", "B02,B03,B2"])
def test_names_of_stored_bands_that_are_none_are_refused(text):
    with pytest.raises(BandError, match="band_order"):
        scenes.parse_band_order(text)


def test_a_folder_of_files_is_a_scene_in_sentinels_order(tmp_path):
    folder = tmp_path / "T31UDQ_20170829T105019"
    folder.mkdir()
    for band, resolution in (("B8A", 20), ("B02", 10), ("B09", 60)):
        pixels = products.band_pixels(band, 60, resolution)
        products.write_raster(folder / f"T31UDQ_20170829T105019_{band}.tif", pixels, resolution)
    write_tiff(folder / "T31UDQ_20170829T105019_TCI.tif")
    scene = scenes.open_scene(folder)
    assert scene.bands == ("B02", "B8A", "B09")
    assert scene.date == datetime.date(2017, 8, 29)
    assert scene.grid.pixel_size == 10
    write_tiff(folder / "again_B02.tif", 1)
    with pytest.raises(SourceError, match="are both B02"):
        scenes.open_scene(folder)


def test_what_a_float_means_must_be_said_and_is_checked_by_its_range(tmp_path):
    names = ("B04", "B03", "B02")
    reflectance = write_tiff(
        tmp_path / "reflectance.tif", dtype="float32", value=0.15, names=names, nodata=float("nan")
    )
    numbers = write_tiff(tmp_path / "numbers.tif", dtype="float32", value=1500, names=names)
    for path in (reflectance, numbers):
        with pytest.raises(SourceError, match="`scene_units=reflectance` or `scene_units=dn"):
            scenes.open_scene(path)
    assert scenes.open_scene(reflectance, SceneOptions(units="reflectance")).layers[0].scale == 10_000
    assert scenes.open_scene(numbers, SceneOptions(units="dn")).layers[0].scale == 1
    with pytest.raises(SourceError, match="Say `scene_units=reflectance"):
        scenes.open_scene(reflectance, SceneOptions(units="dn"))
    with pytest.raises(SourceError, match="Say `scene_units=dn"):
        scenes.open_scene(numbers, SceneOptions(units="reflectance"))


def test_units_of_whole_numbers_and_products_are_known(tmp_path):
    path = write_tiff(tmp_path / "scene.tif", names=("B04", "B03", "B02"))
    for where in (path, products.write_product(tmp_path, bands=["B04"])):
        with pytest.raises(OptionError, match="leave it out|Leave it out"):
            scenes.open_scene(where, SceneOptions(units="reflectance"))


def test_scale_and_offset_of_a_geotiff_are_its_own_statement(tmp_path):
    import rasterio

    path = write_tiff(tmp_path / "scaled.tif", names=("B04", "B03", "B02"))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.0001,) * 3, (-0.1,) * 3
    layer = scenes.open_scene(path).layers[0]
    assert layer.scale == pytest.approx(1)
    assert layer.offset == pytest.approx(-1000)


@pytest.mark.parametrize(
    ("bands", "level", "said"),
    [
        (("B04", "B10"), "L2A", "Level-2A products do not hold"),
        (("B04", "B11"), "L1C", "it does not hold B11"),
    ],
)
def test_a_missing_band_is_named_with_the_remedy(tmp_path, bands, level, said):
    root = products.write_product(tmp_path, level=level, bands=["B04", "B03"])
    with pytest.raises(BandError, match=said):
        scenes.open_scene(root, SceneOptions(bands=bands))


def test_rasters_that_are_no_scenes_are_refused(tmp_path):
    names = ("B04", "B03", "B02")
    with pytest.raises(SourceError, match="there is no such file"):
        scenes.open_scene(tmp_path / "absent.tif")
    with pytest.raises(SourceError, match="no place on the ground"):
        scenes.open_scene(write_tiff(tmp_path / "nowhere.tif", names=names, crs=None))
    with pytest.raises(SourceError, match="numbers of type uint8"):
        scenes.open_scene(write_tiff(tmp_path / "grey.tif", dtype="uint8", value=9, names=names))
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(SourceError, match="it cannot be opened"):
        scenes.open_scene(tmp_path / "text.tif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no file in it has a name that ends in a band's"):
        scenes.open_scene(tmp_path / "empty")
    with pytest.raises(SourceError, match="no scene by its name"):
        scenes.open_scene(__file__)


def test_a_raster_of_another_form_is_not_followed(tmp_path):
    products.write_raster(tmp_path / "a.img", np.full((1, 9, 9), 5, np.uint16), 10, driver="HFA")
    (tmp_path / "a.img").rename(tmp_path / "a.tif")
    with pytest.raises(SourceError, match="cannot be opened as GTiff"):
        scenes.open_scene(tmp_path / "a.tif", SceneOptions(band_order=("B04",)))


@pytest.mark.parametrize("form", ["aux.xml", "tfw"])
def test_a_place_in_side_files_is_the_same_for_survey_and_reader(tmp_path, form):
    from rasterio.crs import CRS

    from eo_keras.geo.scene_reader import SceneReader
    from eo_keras.records.example import VALID

    path = write_tiff(tmp_path / "scene.tif", names=("B04", "B03", "B02"), crs=None)
    west, north = products.CORNER
    transform = f"<GeoTransform>{west},10,0,{north},0,-10</GeoTransform>"
    if form == "tfw":
        transform = ""
        (tmp_path / "scene.tfw").write_text("\n".join(map(str, (10, 0, 0, -10, west + 5, north - 5))))
        with pytest.raises(SourceError, match="does not say in which CRS"):
            scenes.open_scene(path)
    wkt = CRS.from_string(products.CRS).to_wkt().replace('"', "&quot;")
    (tmp_path / "scene.tif.aux.xml").write_text(f"<PAMDataset><SRS>{wkt}</SRS>{transform}</PAMDataset>")
    scene = scenes.open_scene(path)
    assert (scene.grid.crs, scene.grid.transform) == (products.CRS, (10, 0, west, 0, -10, north))
    with SceneReader(scene) as reader:
        assert (reader.read(0, 0, 30, 30)[1] == VALID).all()


def test_control_points_are_no_grid(tmp_path):
    import rasterio
    from rasterio.control import GroundControlPoint

    path = write_tiff(tmp_path / "scene.tif", names=("B04", "B03", "B02"), crs=None)
    points = [GroundControlPoint(row, column, 15 + column / 1e4, 50 - row / 1e4) for row in (0, 9) for column in (0, 9)]
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = points, rasterio.crs.CRS.from_epsg(4326)
    with pytest.raises(SourceError, match=r"only control points .* gdalwarp"):
        scenes.open_scene(path)


def test_a_scene_is_not_brought_to_where_its_projection_does_not_reach(tmp_path):
    path = write_tiff(tmp_path / "scene.tif", names=("B04", "B03", "B02"))
    for target in ("EPSG:32607", "EPSG:3031", "EPSG:2154"):
        try:
            grid = scenes.open_scene(path, SceneOptions(target_crs=target)).grid
        except OptionError as error:
            assert "target_crs" in str(error)
        else:
            assert grid.height * grid.width < 16 * 30 * 30


def test_far_outside_a_projection_the_scenes_own_zone_is_said(tmp_path):
    path = tmp_path / "quito.tif"
    corner = (700_000, 9_980_000)
    products.write_raster(
        path, np.full((1, 192, 192), 900, np.uint16), 10, corner=corner, crs="EPSG:32717", names=["B04"]
    )
    with pytest.raises(OptionError, match=r"does not reach .*Say `target_crs=EPSG:32717`; where scenes lie far apart"):
        scenes.open_scene(path, SceneOptions(target_crs="EPSG:32633"))


def test_of_a_band_in_several_sizes_a_folder_takes_the_finest(tmp_path):
    def write(name, size):
        pixels = np.full((1, 1200 // size, 1200 // size), 4 if name == "SCL" else 900, np.uint16)
        products.write_raster(tmp_path / f"T33UUU_20180701T101021_{name}_{size}m.tif", pixels, size)

    for name, size in (("B02", 60), ("B02", 10), ("B02", 20), ("B05", 20), ("B05", 60), ("SCL", 20), ("SCL", 60)):
        write(name, size)
    scene = scenes.open_scene(tmp_path)
    endings = [pathlib.Path(layer.path).name[23:] for layer in (*scene.layers, scene.scl)]
    assert (scene.grid.pixel_size, endings) == (10, ["B02_10m.tif", "B05_20m.tif", "SCL_20m.tif"])
    (tmp_path / "T33UUU_20180701T101021_B05_60m.tif").rename(tmp_path / "other_B05_60m.tif")
    with pytest.raises(SourceError, match="are both B05"):
        scenes.open_scene(tmp_path)


@pytest.mark.parametrize("name", ["a_B03.tif", "a_SCL.tif"])
def test_bands_of_other_places_are_refused(tmp_path, name):
    pixels = np.full((1, 30, 30), 900, np.uint16)
    products.write_raster(tmp_path / "a_B02.tif", pixels, 10)
    east, north = products.CORNER
    products.write_raster(tmp_path / name, pixels, 10, corner=(east + 270, north))
    with pytest.raises(SourceError, match=f"{name}: it lies elsewhere"):
        scenes.open_scene(tmp_path)
    products.write_raster(tmp_path / name, pixels[:, :20, :20], 10, corner=(east + 100, north - 100))
    scenes.open_scene(tmp_path)


def test_bands_of_two_reference_systems_are_refused(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_tiff(folder / "a_B02.tif", 1)
    write_tiff(folder / "a_B03.tif", 1, crs="EPSG:32632")
    with pytest.raises(SourceError, match="EPSG:32632 and EPSG:32633"):
        scenes.open_scene(folder)


def test_another_reference_system_gives_a_grid_there(tmp_path):
    path = write_tiff(tmp_path / "scene.tif", names=("B04", "B03", "B02"))
    assert scenes.open_scene(path, SceneOptions(target_crs=products.CRS)).grid == scenes.open_scene(path).grid
    other = scenes.open_scene(path, SceneOptions(target_crs="EPSG:3035")).grid
    assert other.crs == "EPSG:3035"
    assert other.pixel_size == pytest.approx(10, rel=0.02)
    with pytest.raises(OptionError, match="target_crs"):
        scenes.open_scene(path, SceneOptions(target_crs="somewhere"))


def test_unknown_options_are_refused_by_their_flags():
    for flag, options in (
        ("resampling", {"resampling": "magic"}),
        ("scene_units", {"units": "percent"}),
        ("scene_level", {"level": "L3"}),
    ):
        with pytest.raises(OptionError, match=flag):
            SceneOptions(**options)
