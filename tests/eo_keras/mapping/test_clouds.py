"""Cloud masks: what the networks find, the same in every window, and scenes that they are not for."""

import dataclasses
import sys
import warnings
import zipfile

import numpy as np
import pytest
import rasterio

from eo_keras.errors import BandError, OptionError
from eo_keras.geo import scenes
from eo_keras.geo.scenes import SceneOptions
from eo_keras.mapping import clouds
from eo_keras.records.example import NO_DATA, OBSCURED, VALID
from eo_keras.sensors.sentinel2 import NOMINAL_ORDER
from tests.harness import products

RGB = ("B04", "B03", "B02")
HEIGHT, WIDTH = 660, 1380


@pytest.fixture(scope="module")
def cloudy(tmp_path_factory):
    """Vegetation with one round cloud, its left end without data."""
    rng = np.random.default_rng(1)
    ground = np.array([1000, 900, 600, 3200, 1800, 900])[:, None, None]
    coarse = rng.normal(1, 0.08, (HEIGHT // 30, WIDTH // 30))
    pixels = ground * np.kron(coarse, np.ones((30, 30))) + rng.normal(0, 20, (6, HEIGHT, WIDTH))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    thickness = np.clip(1.5 - np.hypot(rows - 300, columns - 650) / 120, 0, 1) * rng.uniform(0.9, 1, (HEIGHT, WIDTH))
    pixels += thickness * (np.array([7000, 6800, 6900, 7500, 5000, 3800])[:, None, None] - pixels)
    pixels[:, :, :90] = 0
    path = tmp_path_factory.mktemp("clouds") / "cloudy.tif"
    products.write_raster(path, pixels.astype(np.uint16), 10, names=clouds.BANDS)
    return scenes.open_scene(path, SceneOptions(level="L1C"))


def read(scene, *window, bands=RGB, cloud_mask="ukis"):
    with clouds.MaskedReader(scene, bands, cloud_mask) as reader:
        return reader.read(*(window or (0, 0, scene.grid.height, scene.grid.width)))


@pytest.fixture(scope="module")
def whole(cloudy):
    """Its pixels and their validity."""
    return read(cloudy)


def test_the_cloud_is_found_and_nothing_else(whole):
    _, validity = whole
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(rows - 300, columns - 650)
    assert (validity[:, :90] == NO_DATA).all()
    assert (validity[distance < 110] == OBSCURED).mean() > 0.99
    assert (validity[:, 90:][distance[:, 90:] > 400] == VALID).mean() > 0.99


def test_windows_hold_what_the_whole_scene_holds(cloudy, whole):
    image, validity = whole
    with clouds.MaskedReader(cloudy, RGB, "ukis") as reader:
        for row, column, height, width in ((0, 0, 100, WIDTH), (101, 500, 200, 301), (590, 595, 70, 7)):
            window = np.s_[row : row + height, column : column + width]
            part, mask = reader.read(row, column, height, width)
            np.testing.assert_array_equal(part, image[window])
            np.testing.assert_array_equal(mask, validity[window])
        _, mask = reader.read(-50, WIDTH - 20, 200, 40)
    assert (mask[:50] == NO_DATA).all()
    assert (mask[:, 20:] == NO_DATA).all()
    np.testing.assert_array_equal(mask[50:, :20], validity[:150, -20:])


def test_none_and_the_products_own_classification(cloudy, tmp_path):
    assert not (read(cloudy, cloud_mask="none")[1] == OBSCURED).any()
    with pytest.raises(OptionError, match="has no scene classification.*`cloud_mask=ukis`"):
        read(cloudy, cloud_mask="scl")
    classes = np.where(np.arange(30) < 10, 9, 4)[None].repeat(30, 0).astype(np.uint8)
    product = scenes.open_scene(products.write_product(tmp_path, level="L2A", scl=classes))
    assert (read(product, cloud_mask="scl")[1][:, :20] == OBSCURED).all()
    assert not (read(product, cloud_mask="none")[1] == OBSCURED).any()


def test_what_the_networks_cannot_use_is_refused_in_one_line(cloudy, monkeypatch):
    with pytest.raises(OptionError, match=r"cloud_mask: 'fmask'; expected one of scl, ukis, none"):
        read(cloudy, cloud_mask="fmask")
    with pytest.raises(BandError, match="does not hold B01"):
        read(cloudy, bands=("B01",))
    with pytest.raises(BandError, match="does not hold B08, by which clouds are found"):
        read(dataclasses.replace(cloudy, bands=RGB, layers=cloudy.layers[:3]))
    with pytest.raises(OptionError, match="the level of .* is unknown"):
        read(dataclasses.replace(cloudy, level=None))
    with pytest.raises(OptionError, match="has 10 x 460 pixels of about 30 m; expected at least 64 x 64"):
        read(dataclasses.replace(cloudy, grid=cloudy.grid.window(0, 0, 30, WIDTH)))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OptionError, match=r"is not installed. Run pip install 'eo-keras\[clouds\]'"):
        read(cloudy)


@pytest.mark.real_data
@pytest.mark.parametrize("count", [4, 6])
def test_a_real_cloudy_scene_agrees_with_ukis_csmask_itself(real_data, tmp_path, count):
    from ukis_csmask.mask import CSmask

    with zipfile.ZipFile(real_data / "sen12mscr_sample" / "sen12mscr_sample.zip") as archive:
        path = archive.extract("ROIs1868_summer_s2_cloudy_19_p30.tif", tmp_path)
    bands = clouds.BANDS[:count]
    # What is not among the bands of a scene cannot be used.
    options = SceneOptions(bands=bands, band_order=NOMINAL_ORDER, level="L1C")
    _, validity = read(scenes.open_scene(path, options))
    with rasterio.open(path) as dataset:
        pixels = dataset.read([NOMINAL_ORDER.index(band) + 1 for band in bands])[:, :255, :255]
    blocks = pixels.reshape(count, 85, 3, 85, 3).mean((2, 4), dtype=np.float32).transpose(1, 2, 0) / 10000
    names = ["blue", "green", "red", "nir", "swir16", "swir22"][:count]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an image smaller than its tiles
        own = CSmask(blocks, names, "l1c").valid[..., 0] == 0
    found = validity[:255, :255][1::3, 1::3] == OBSCURED
    assert 0.7 < found.mean() < 0.8
    assert (found == own).mean() > 0.97
