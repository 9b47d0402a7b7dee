"""Metadata above and beside loose rasters: found in every layout, applied once, never another scene's."""

import datetime
import json
import pathlib
import shutil

import numpy as np
import pytest
import rasterio

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import scenes
from eo_keras.geo.scene_reader import SceneReader
from eo_keras.geo.scenes import SceneOptions
from eo_keras.records.example import OBSCURED
from tests.harness import products

BANDS = ("B02", "B03", "B04")
NAME = "S2A_MSIL2A_20230122T101021_N0509_R022_T33UUU_20230122T125921"
IMAGE = "T33UUU_20230122T101021"


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """A product of baseline 05.09 with a cloud in its classification; the tests copy from it."""
    scl = np.full((30, 30), 4)
    scl[10:20, 10:20] = 9
    return products.write_product(
        tmp_path_factory.mktemp("safe"),
        level="L2A",
        baseline="05.09",
        offset=-1000,
        bands=BANDS,
        scl=scl,
        suffix=".jp2",
    )


def bands_in(folder, product=None, form="{}.tif", value=2500):
    """Writes three bands, or copies those of a product, under names of the form."""
    folder.mkdir(parents=True, exist_ok=True)
    for band in BANDS:
        path = folder / form.format(band)
        if product is None:
            products.write_raster(path, np.full((60, 60), value, np.uint16), 10)
        else:
            shutil.copy(next(product.rglob(f"*{band}_10m.jp2")), path)
    return folder


def offsets(path, **options):
    scene = scenes.open_scene(path, SceneOptions(**options))
    assert {layer.scale for layer in scene.layers} == {1.0}
    (offset,) = {layer.offset for layer in scene.layers}
    return offset, scene


def test_a_folder_of_bands_inside_a_product_is_read_as_the_product(product):
    folder = next(product.rglob("R10m"))
    offset, scene = offsets(folder)
    whole = scenes.open_scene(product)
    assert offset == -1000
    assert (scene.product, scene.level, scene.date) == (whole.product, whole.level, whole.date)
    with SceneReader(scene) as part, SceneReader(whole) as all_of_it:
        (image, mask), (expected, expected_mask) = (reader.read(0, 0, 60, 60) for reader in (part, all_of_it))
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(mask, expected_mask)
    assert (mask == OBSCURED).sum() == 400


def test_one_image_a_vrt_and_an_export_inside_a_product_carry_its_offset(product, tmp_path):
    root = tmp_path / product.name
    shutil.copytree(product, root)
    image = next(root.rglob("*B04_10m.jp2"))
    offset, scene = offsets(image)
    assert (offset, scene.bands, scene.level) == (-1000, ("B04",), "L2A")
    assert scene.scl is not None
    products.write_raster(root / "export.tif", np.full((3, 60, 60), 2500, np.uint16), 10, names=BANDS)
    assert offsets(root / "export.tif")[0] == -1000
    # Without the ending .SAFE, metadata count for what lies in the granule's folder.
    root = root.rename(tmp_path / "product")
    assert offsets(next(root.rglob("R10m")))[0] == -1000


def write_vrt(path, sources, inner=""):
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><Description>{band}</Description>'
        f'<ComplexSource><SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand>{inner}'
        "</ComplexSource></VRTRasterBand>"
        for number, (band, source) in enumerate(sources.items(), start=1)
    )
    west, north = products.CORNER
    path.write_text(
        f'<VRTDataset rasterXSize="60" rasterYSize="60"><SRS>{products.CRS}</SRS>'
        f"<GeoTransform>{west},10,0,{north},0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def test_a_vrt_means_what_its_sources_mean(product, tmp_path):
    sources = {band: next(product.rglob(f"*{band}_10m.jp2")) for band in BANDS}
    offset, scene = offsets(write_vrt(tmp_path / "one.vrt", sources))
    assert (offset, scene.level, scene.product) == (-1000, "L2A", "one")
    assert scene.scl is not None
    nested = write_vrt(tmp_path / "two.vrt", {"B04": write_vrt(tmp_path / "inner.vrt", {"B04": sources["B04"]})})
    assert offsets(nested)[0] == -1000
    changed = write_vrt(tmp_path / "three.vrt", sources, "<ScaleOffset>-1000</ScaleOffset><ScaleRatio>1</ScaleRatio>")
    with pytest.raises(SourceError, match="the VRT changes numbers.*`scene_offset"):
        scenes.open_scene(changed)
    assert offsets(changed, offset=0)[0] == 0
    loose = bands_in(tmp_path / "loose")
    with pytest.raises(SourceError, match="different offsets"):
        scenes.open_scene(write_vrt(tmp_path / "four.vrt", sources | {"B02": loose / "B02.tif"}))


def test_metadata_beside_flat_files_are_theirs_alone(product, tmp_path):
    folder = bands_in(tmp_path / "flat", product, f"{IMAGE}_{{}}_10m.jp2")
    with pytest.raises(SourceError, match="acquired on 2023-01-22 by T33UUU.*`scene_offset`, such as -1000"):
        scenes.open_scene(folder)
    assert offsets(folder, offset=-1000)[0] == -1000
    shutil.copy(next(product.glob("MTD_*.xml")), folder)
    offset, scene = offsets(folder)
    assert (offset, scene.product, scene.level) == (-1000, "S2A_MSIL2A_20230122T101021_N0509_R022_T33UUU", "L2A")
    # Metadata of another tile are not looked at.
    for file in folder.glob("T33*"):
        file.rename(folder / file.name.replace("T33UUU", "T34UUU"))
    with pytest.raises(SourceError, match="acquired on 2023-01-22"):
        scenes.open_scene(folder)


@pytest.mark.parametrize(
    ("said", "asset", "offset"),
    [
        ({"s2:processing_baseline": "05.09"}, {}, -1000),
        ({"s2:processing_baseline": "02.14"}, {}, 0),
        ({"processing:version": "05.10"}, {"raster:scale": 0.0001, "raster:offset": -0.1}, -1000),
        ({"earthsearch:boa_offset_applied": True}, {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}, 0),
        ({"earthsearch:boa_offset_applied": False}, {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}, -1000),
        (
            {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "02.14"},
            {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]},
            0,
        ),
        ({"s2:product_uri": f"{NAME}.SAFE"}, {}, -1000),
        ({"sentinel:boa_offset_applied": True, "s2:processing_baseline": "04.00"}, {}, 0),
    ],
)
def test_a_stac_item_beside_the_files_is_heard(tmp_path, said, asset, offset):
    folder = bands_in(tmp_path / "S2A_33UUU_20230122_0_L2A")
    keys = dict(zip(("blue", "green", "B04"), BANDS, strict=True))
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": folder.name,
        "properties": {"datetime": "2023-01-22T10:10:21Z", "s2:product_type": "S2MSI2A"} | said,
        "assets": {key: {"href": f"https://example.com/x/{band}.tif?sig=1"} | asset for key, band in keys.items()},
    }
    (folder / f"{folder.name}.json").write_text(json.dumps(item))
    found, scene = offsets(folder)
    assert found == offset
    assert (scene.level, scene.date, scene.warnings) == ("L2A", datetime.date(2023, 1, 22), ())
    assert offsets(folder / "B04.tif")[0] == offset


@pytest.mark.parametrize(
    ("lists", "offset"),
    [
        ({"productInfo.json": {"name": NAME, "timestamp": "2023-01-22T10:10:21Z"}}, -1000),
        (
            {
                "tileInfo.json": {
                    "datastrip": {"id": "S2A_OPER_MSI_L1C_DS_EPA__20160526T104305_S20151207T190331_N02.01"}
                }
            },
            0,
        ),
        ({"tileInfo.json": {"path": "tiles/33/U/UU/2023/1/22/0", "timestamp": "2023-01-22T10:10:21Z"}}, -1000),
        ({"productInfo.json": {"datatakeIdentifier": "GS2A_20180701T100031_015799_N05.00"}}, -1000),
    ],
)
def test_the_lists_of_the_public_buckets_are_heard(product, tmp_path, lists, offset):
    folder = bands_in(tmp_path / "0" / "R10m", product, "{}.jp2")
    for name, said in lists.items():
        (folder.parent / name).write_text(json.dumps(said))
    (folder.parent / "metadata.xml").write_text("<n1:Level-2A_Tile_ID/>")
    found, scene = offsets(folder)
    assert found == offset
    assert scene.product not in ("", "R10m", "0")
    # Of a GeoTIFF beside them nobody knows what has become of its numbers.
    shutil.rmtree(folder)
    bands_in(folder)
    assert offsets(folder, offset=-7)[0] == -7


def test_several_scenes_metadata_in_one_folder_are_told_apart(tmp_path):
    for day, applied in (("2023-01-22", True), ("2023-01-25", False)):
        stem = f"S2A_33UUU_{day.replace('-', '')}"
        path = tmp_path / f"{stem}_B04.tif"
        products.write_raster(path, np.full((60, 60), 2500, np.uint16), 10)
        item = {"type": "Feature", "id": stem, "properties": {"datetime": f"{day}T10:10:21Z"}}
        item["properties"] |= {"earthsearch:boa_offset_applied": applied, "s2:processing_baseline": "05.09"}
        (tmp_path / f"{stem}.json").write_text(json.dumps(item | {"assets": {"red": {"href": f"./{path.name}"}}}))
    (tmp_path / "notes.json").write_text("[1, 2")
    assert offsets(tmp_path / "S2A_33UUU_20230122_B04.tif")[0] == 0
    assert offsets(tmp_path / "S2A_33UUU_20230125_B04.tif")[0] == -1000
    with pytest.raises(SourceError, match="are both B04"):
        scenes.open_scene(tmp_path)


def test_of_several_items_a_folder_takes_the_one_that_lists_its_files(tmp_path):
    folder = bands_in(tmp_path / "a_folder")
    files = sorted(file.name for file in folder.iterdir())
    for name, hrefs, baseline in (("B", [], "02.09"), ("mine", files, "05.09")):
        item = {"type": "Feature", "id": name, "properties": {"s2:processing_baseline": baseline}}
        assets = {file: {"href": f"https://example.com/{file}?sig=1"} for file in hrefs}
        (folder / f"{name}.json").write_text(json.dumps(item | {"assets": assets}))
    assert offsets(folder)[0] == -1000
    scene = scenes.open_scene(folder / "B04.tif", SceneOptions(level="L2A"))
    assert (scene.layers[0].offset, scene.product) == (-1000, "mine")


def write_export(path, value=2500, dtype="uint16", tags=None):
    products.write_raster(path, np.full((3, 60, 60), value, dtype), 10, names=BANDS)
    if tags:
        with rasterio.open(path, "r+") as file:
            file.scales, file.offsets = (tags[0],) * 3, (tags[1],) * 3
    return path


def test_an_export_whose_name_tells_of_an_offset_is_known_or_refused(tmp_path):
    path = write_export(tmp_path / f"{NAME}_town.tif")
    with pytest.raises(SourceError, match=r"baseline 05\.09.*`scene_offset`, such as -1000 or, where .* applied, 0"):
        scenes.open_scene(path)
    assert offsets(path, offset=-1000)[0] == -1000
    assert offsets(path, offset=0)[0] == 0
    folder = tmp_path / "N0509_downloads" / NAME
    folder.mkdir(parents=True)
    with pytest.raises(SourceError, match="scene_offset"):
        scenes.open_scene(write_export(folder / "town.tif"))
    # Tags that say all are heard; those that leave the offset out are not believed.
    assert offsets(write_export(tmp_path / f"{NAME}_a.tif", tags=(0.0001, -0.1)))[0] == pytest.approx(-1000)
    bare = write_export(tmp_path / f"{NAME}_b.tif", tags=(0.0001, 0.0))
    with pytest.raises(SourceError, match="its tags say scale 0.0001 and offset 0.*`scene_offset"):
        scenes.open_scene(bare)
    assert offsets(bare, offset=0)[0] == 0
    # Of reflectance, and of an old baseline, nothing is open.
    write_export(tmp_path / f"{NAME}_c.tif", 0.25, "float32")
    assert scenes.open_scene(tmp_path / f"{NAME}_c.tif", SceneOptions(units="reflectance")).layers[0].offset == 0
    assert offsets(write_export(tmp_path / f"{NAME.replace('N0509', 'N0208')}.tif"))[0] == 0


def test_recent_scenes_of_other_names_are_warned_of(tmp_path):
    path = write_export(tmp_path / "town_2023-01-22.tif")
    offset, scene = offsets(path)
    assert offset == 0
    (warning,) = scene.warnings
    assert "taken as harmonized" in warning and "`scene_offset=-1000`" in warning
    assert offsets(path, offset=0)[1].warnings == ()
    assert offsets(write_export(tmp_path / "town_2018-01-22.tif"))[1].warnings == ()


def test_what_the_user_says_is_for_scenes_that_say_nothing(product):
    folder = next(product.rglob("R10m"))
    offset, scene = offsets(folder, offset=0)
    assert offset == -1000 and "`scene_offset` and `scene_scale` are for scenes that do not say" in scene.warnings[0]
    assert offsets(folder, offset=-1000)[1].warnings == ()
    assert "scene_offset" in offsets(product, offset=0)[1].warnings[0]
    # Given for one city, it overrides metadata, but not those of a product.
    assert offsets(folder, offset=-500, override_metadata=True)[0] == -500
    with pytest.raises(OptionError, match="has metadata that state its scaling"):
        scenes.open_scene(product, SceneOptions(offset=0, override_metadata=True))


def test_bare_names_take_the_folders_name(tmp_path):
    folder = bands_in(tmp_path / "S2A_33UUU_20210625_0_L2A" / "R10m")
    for path in (folder, folder / "B04.tif"):
        scene = scenes.open_scene(path)
        assert (scene.product, scene.level) == ("S2A_33UUU_20210625_0_L2A", "L2A")
    assert scenes.open_scene(folder).date == datetime.date(2021, 6, 25)
    mixed = bands_in(tmp_path / "mixed")
    for band, day in (("B02", "20210625"), ("B03", "20210630")):
        (mixed / f"{band}.tif").rename(mixed / f"T33UUU_{day}T101021_{band}.tif")
    with pytest.raises(SourceError, match="2021-06-25 and 2021-06-30"):
        scenes.open_scene(mixed)


def test_damaged_metadata_are_named(tmp_path):
    root = pathlib.Path(tmp_path) / f"{NAME}.SAFE"
    bands_in(root / "GRANULE" / "x" / "IMG_DATA", form="{}.tif")
    (root / "MTD_MSIL2A.xml").write_text("<no")
    with pytest.raises(SourceError, match=r"MTD_MSIL2A\.xml: no whole XML"):
        scenes.open_scene(root / "GRANULE" / "x" / "IMG_DATA")
