"""The files that a card names as sources: all that is read, each once, and no litter."""

import shutil

import numpy as np
import rasterio.shutil

from eo_keras.core import files
from eo_keras.geo import scenes
from tests.eo_keras.geo.test_checksums import write_manifest
from tests.harness import products
from tfrecords_builder.sources.urban_atlas import source_files

LEVEL = scenes.SceneOptions(level="L2A")


def test_the_files_behind_a_vrt_are_named_and_hashed(tmp_path):
    products.write_raster(tmp_path / "b.tif", np.full((1, 16, 16), 900, np.uint16), 10, names=("B04",))
    rasterio.shutil.copy(tmp_path / "b.tif", tmp_path / "c.vrt", driver="VRT")
    rasterio.shutil.copy(tmp_path / "c.vrt", tmp_path / "a.vrt", driver="VRT")
    found, warnings = source_files.of_scenes([scenes.open_scene(tmp_path / "a.vrt", LEVEL)])
    assert warnings == [] and source_files.sources_of_vrt(str(tmp_path / "b.tif")) == []
    assert {one.name: one.sha256 for one in found} == {
        name: files.sha256_of_file(tmp_path / name) for name in ("a.vrt", "b.tif")
    }


def test_a_product_whose_images_were_rewritten_is_warned_of(tmp_path):
    root = write_manifest(products.write_product(tmp_path, level="L2A", bands=["B04"], suffix=".jp2", size=16))
    scene = scenes.open_scene(root)
    assert source_files.of_scenes([scene])[1] == []
    (image,) = root.rglob("*.jp2")
    image.write_bytes(image.read_bytes() + b"\0")
    (warning,) = source_files.of_scenes([scene])[1]
    assert "manifest.safe: it lists other sizes of all images" in warning


def test_litter_in_a_folder_of_land_use_changes_nothing(tmp_path):
    folder = tmp_path / "a.gdb"
    folder.mkdir()
    (folder / "a00000001.gdbtable").write_bytes(b"table")
    before = source_files.of_vectors(str(folder))
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "a.sr.lock").write_bytes(b"x")
    assert source_files.of_vectors(str(folder)) == before
    shutil.copy(folder / "a00000001.gdbtable", folder / "a00000002.gdbtable")
    assert source_files.of_vectors(str(folder)) != before
