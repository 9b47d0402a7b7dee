"""Windows of scenes: offsets applied once, coarser bands on the fine grid, and what is not valid."""

import contextlib

import numpy as np
import pytest
import rasterio

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import scenes
from eo_keras.geo.scene_reader import SceneReader
from eo_keras.geo.scenes import SceneOptions
from eo_keras.records.example import NO_DATA, OBSCURED, SATURATED, VALID
from tests.harness import products


def read(path, window=None, **options):
    scene = scenes.open_scene(path, SceneOptions(**options))
    with SceneReader(scene) as reader:
        image, mask = reader.read(*(window or (0, 0, scene.grid.height, scene.grid.width)))
    return scene, image, mask


@pytest.mark.real_data
def test_both_real_products_equal_rasterios_own_reading(real_data):
    for path in sorted((real_data / "samples" / "safe_l2a").iterdir()):
        offset = -1000 if "N0400" in path.name else 0
        scene, image, mask = read(path)
        assert image.shape == (100, 100, 12)
        for place, layer in enumerate(scene.layers):
            with rasterio.open(layer.path) as dataset:
                stored = dataset.read(1).astype(int)
            expected = np.where(stored == 0, 0, np.maximum(stored + offset, 1))
            expected[mask == NO_DATA] = 0
            np.testing.assert_array_equal(image[..., place], expected)
        with rasterio.open(scene.scl.path) as dataset:
            classes = dataset.read(1)
        np.testing.assert_array_equal(mask == OBSCURED, np.isin(classes, (3, 8, 9, 10)) & (mask != NO_DATA))
        assert (mask == NO_DATA).sum() == {0: 129, -1000: 273}[offset]


@pytest.mark.real_data
def test_real_bands_of_three_resolutions_lie_on_one_grid(real_data):
    for folder in ("imgs_1", "imgs_2"):
        scene, image, mask = read(real_data / "samples" / "oscd_bercy" / folder)
        assert image.shape == (395, 360, 13)
        assert (mask == VALID).mean() > 0.9999
        means = dict(zip(scene.bands, image.mean((0, 1)), strict=True))
        # Cirrus sees next to nothing of the ground; the water vapour band little.
        assert (
            means["B10"] < 60 < means["B09"] < min(mean for band, mean in means.items() if band not in ("B09", "B10"))
        )
        # Edges of the Seine lie in the same place in bands of 10 and 20 m: shifted by a pixel, they agree less.
        nir, edge = (image[..., scene.bands.index(band)].astype(float) for band in ("B08", "B8A"))
        inner = np.s_[8:-8, 8:-8]
        agreement = {
            (dy, dx): np.corrcoef(nir[inner].ravel(), np.roll(edge, (dy, dx), (0, 1))[inner].ravel())[0, 1]
            for dy in (-2, 0, 2)
            for dx in (-2, 0, 2)
        }
        assert max(agreement, key=agreement.get) == (0, 0)


@pytest.mark.parametrize("suffix", [".tif", ".jp2"])
def test_the_offset_is_applied_once_and_dark_pixels_stay_valid(tmp_path, suffix):
    def pixels(name, size, resolution):
        stored = products.band_pixels(name, size, resolution)
        stored[0, :3] = (0, 900, 1000)  # No data, below reflectance 0, and just 0.
        return stored

    root = products.write_product(tmp_path, baseline="04.00", offset=-1000, bands=["B02"], pixels=pixels, suffix=suffix)
    _, image, mask = read(root)
    assert image[0, :3, 0].tolist() == [0, 1, 1]
    assert mask[0, :3].tolist() == [NO_DATA, VALID, VALID]
    np.testing.assert_array_equal(image[1:, :, 0], products.band_pixels("B02", 60, 10)[1:] - 1000)


def test_another_quantification_is_brought_to_ten_thousand(tmp_path):
    xml = products.metadata("L1C", "04.00", -500, quantification="5000")
    root = products.write_product(tmp_path, baseline="04.00", bands=["B02"], xml=xml)
    _, image, _ = read(root)
    np.testing.assert_array_equal(image[..., 0], 2 * products.band_pixels("B02", 60, 10).astype(int) - 1000)


@pytest.mark.parametrize("method", ["cubic", "bilinear", "nearest"])
def test_coarser_bands_are_brought_to_the_grid_without_a_shift(tmp_path, method):
    # A plane stays the same plane: a coarse pixel's number stands for its centre.
    def pixels(name, size, resolution):
        edge = size * 10 // resolution
        rows, columns = (np.mgrid[:edge, :edge] + 0.5) * resolution
        return np.rint(2000 + rows + 2 * columns).astype(np.uint16)

    root = products.write_product(tmp_path, size=60, bands=["B04", "B05", "B09"], pixels=pixels)
    _, image, mask = read(root, resampling=method)
    assert (mask == VALID).all()
    inner = image[12:-12, 12:-12].astype(int)
    error = np.abs(inner[..., 1:] - inner[..., :1]).max((0, 1))
    # The nearest number is half a coarse pixel off at most.
    assert (error <= ([15, 75] if method == "nearest" else [1, 2])).all()
    if method == "nearest":
        np.testing.assert_array_equal(image[::2, ::2, 1], image[1::2, 1::2, 1])


def test_windows_are_cut_out_of_the_whole(tmp_path):
    scl = np.full((30, 30), 4)
    scl[10:20, 10:20] = 9
    root = products.write_product(tmp_path, level="L2A", size=60, scl=scl)
    _, image, mask = read(root)
    for window in ((0, 0, 17, 60), (13, 7, 20, 31), (40, 41, 20, 19)):
        row, column, height, width = window
        _, part, part_mask = read(root, window)
        np.testing.assert_array_equal(part, image[row : row + height, column : column + width])
        np.testing.assert_array_equal(part_mask, mask[row : row + height, column : column + width])


def test_beyond_the_edges_there_is_no_data(tmp_path):
    root = products.write_product(tmp_path, size=60, bands=["B04", "B05"])
    _, whole, _ = read(root)
    _, image, mask = read(root, (-5, 50, 20, 20))
    np.testing.assert_array_equal(image[5:, :10], whole[:15, 50:])
    assert (mask[5:, :10] == VALID).all()
    assert not image[:5].any() and not image[:, 10:].any()
    assert (mask[:5] == NO_DATA).all() and (mask[:, 10:] == NO_DATA).all()
    assert not read(root, (100, 100, 4, 4))[1].any()
    with pytest.raises(OptionError, match="window"):
        read(root, (0, 0, 0, 5))


def test_no_data_in_one_band_is_no_data_in_all_and_is_not_smeared(tmp_path):
    def pixels(name, size, resolution):
        stored = products.band_pixels(name, size, resolution)
        if name == "B05":
            stored[:10] = 0  # 200 m of 20 m pixels: 20 rows of the grid.
        return stored

    root = products.write_product(tmp_path, size=60, bands=["B04", "B05"], pixels=pixels)
    _, image, mask = read(root)
    assert (mask[:20] == NO_DATA).all() and not image[:20].any()
    assert (mask[20:] == VALID).all()
    # Beside the border, the interpolation took no zeros in.
    assert image[20:24, :, 1].min() > 2300


def test_saturated_pixels_and_those_interpolated_from_them_are_marked(tmp_path):
    def pixels(name, size, resolution):
        stored = products.band_pixels(name, size, resolution)
        stored[{"B04": (40, 40), "B05": (10, 10)}[name]] = 65535
        return stored

    root = products.write_product(tmp_path, size=60, bands=["B04", "B05"], pixels=pixels)
    _, image, mask = read(root)
    assert mask[40, 40] == SATURATED and (mask[37:44, 37:44] == SATURATED).sum() == 1
    # The coarse pixel lies at rows and columns 20 and 21; a cubic kernel reaches two of its pixels.
    assert (mask[20:22, 20:22] == SATURATED).all()
    clean = products.band_pixels("B05", 60, 20).repeat(2, 0).repeat(2, 1)
    far = (mask == VALID) & (image[..., 1] > 0)
    assert np.abs(image[..., 1].astype(int) - clean)[far].max() < 60


def test_clouds_and_their_shadows_are_unclear(tmp_path):
    scl = np.arange(30 * 30).reshape(30, 30) // 75  # 12 classes of 75 pixels each.
    root = products.write_product(tmp_path, level="L2A", size=60, scl=scl, bands=["B04"])
    _, _, mask = read(root)
    fine = scl.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(mask == OBSCURED, np.isin(fine, (3, 8, 9, 10)))


def test_float_scenes_become_harmonised_numbers(tmp_path):
    pixels = np.stack([np.full((8, 8), value, np.float32) for value in (0.15, 0.00001, 1.7)])
    pixels[:, 0, 0] = np.nan
    path = products.write_raster(tmp_path / "scene.tif", pixels, 10, names=("B04", "B03", "B02"), nodata=float("nan"))
    _, image, mask = read(path, units="reflectance")
    assert image[3, 3].tolist() == [1500, 1, 17000]
    assert mask[0, 0] == NO_DATA and (mask == NO_DATA).sum() == 1


def test_a_scene_in_another_reference_system_shows_the_same_ground(tmp_path):
    root = products.write_product(tmp_path, size=60, bands=["B04", "B05"])
    scene, image, mask = read(root, target_crs="EPSG:3035", resampling="bilinear")
    from rasterio.warp import transform

    for row, column in ((30, 30), (25, 40)):
        x, y = scene.grid.coordinates(column + 0.5, row + 0.5)
        (east,), (north,) = transform("EPSG:3035", products.CRS, [x], [y])
        own_row, own_column = (products.CORNER[1] - north) / 10 - 0.5, (east - products.CORNER[0]) / 10 - 0.5
        expected = 2000 + 100 * 3 + 3 * own_row + own_column
        assert image[row, column, 0] == pytest.approx(expected, abs=2)
    # A turned square does not fill its frame.
    assert 0 < (mask == NO_DATA).mean() < 0.3


def test_a_damaged_file_is_named(tmp_path):
    root = products.write_product(tmp_path, size=60, bands=["B04", "B05"])
    scene = scenes.open_scene(root)
    (path,) = root.rglob("*B04.tif")
    data = bytearray(path.read_bytes())
    with rasterio.open(path) as dataset:
        assert dataset.read(1).any()
    path.write_bytes(data[: len(data) // 2])
    with SceneReader(scene) as reader, pytest.raises(SourceError, match="B04.tif"):
        reader.read(0, 0, 60, 60)


def test_two_rows_of_decoded_blocks_fit_the_cache(tmp_path):
    from rasterio._env import get_gdal_config

    path, wide = tmp_path / "B04.tif", tmp_path / "wide.tif"
    products.write_raster(path, np.full((20, 20), 500, np.uint16), 10)
    profile = {"driver": "GTiff", "crs": "EPSG:32633", "dtype": "uint16", "tiled": True, "sparse_ok": True}
    profile |= {"transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), "compress": "deflate"}
    size = {"height": 4096, "width": 32_768, "count": 2, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(wide, "w", **profile, **size, interleave="pixel") as dataset:
        dataset.descriptions = ("B03", "B04")
        dataset.update_tags(scale="1")
    scene = scenes.open_scene(wide, SceneOptions(level="L1C", bands=("B04",)))
    two_rows = 2 * 512 * 32_768 * 2 * 2  # Blocks of both bands, of which one is read.
    with SceneReader(scenes.open_scene(path, SceneOptions(level="L1C"))):
        # GDAL's own count of bytes: rasterio does not take megabytes, as GDAL's option does.
        assert get_gdal_config("GDAL_CACHEMAX") == 64 * 1024**2
        with SceneReader(scene):
            assert two_rows < get_gdal_config("GDAL_CACHEMAX") < two_rows + 10_000
            with SceneReader(scene):
                assert get_gdal_config("GDAL_CACHEMAX") > 2 * two_rows
            with contextlib.ExitStack() as opened:
                for _ in range(8):
                    opened.enter_context(SceneReader(scene))
                assert get_gdal_config("GDAL_CACHEMAX") == 1024**3
