"""Tests of eo_keras.sensors.radiometry."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from eo_keras.sensors import radiometry
from eo_keras.sensors.radiometry import Reflectance
from eo_keras.sensors.sentinel2 import COMPOSITES, EUROSAT_ORDER


@pytest.mark.parametrize(
    ("dn", "grey"),
    # 1 + dn * 254 / 2750: 5 -> 1.462, 6 -> 1.554, 1118 -> 104.26, 1375 -> 128, 2744 -> 254.446, 2745 -> 254.538.
    [
        (0, 1),
        (5, 1),
        (6, 2),
        (1118, 104),
        (1375, 128),
        (2744, 254),
        (2745, 255),
        (2750, 255),
        (28000, 255),
        (65535, 255),
    ],
)
def test_stretch_by_hand(dn, grey):
    value = radiometry.stretch_like_eurosat_jpeg(np.array([dn], np.uint16))
    assert value.dtype == np.uint8
    assert value[0] == grey


def test_stretch_equals_exact_integer_arithmetic_for_every_dn():
    dn = np.arange(65536, dtype=np.uint16)
    exact = [1 + (2 * 254 * min(value, 2750) + 2750) // (2 * 2750) for value in range(65536)]
    np.testing.assert_array_equal(radiometry.stretch_like_eurosat_jpeg(dn), exact)


def test_stretch_keeps_shape_and_takes_other_dtypes():
    dn = np.array([[[-20, 0, 1375]]])
    for dtype in (np.int16, np.int32, np.float32, np.float64):
        np.testing.assert_array_equal(radiometry.stretch_like_eurosat_jpeg(dn.astype(dtype)), [[[1, 1, 128]]])


def reflectance_of(grey):
    return grey.astype(np.float64) * radiometry.EUROSAT_JPEG.scale + radiometry.EUROSAT_JPEG.offset


def test_reflectance_by_hand():
    reflectance = reflectance_of(np.array([0, 1, 128, 255], np.uint8))
    np.testing.assert_allclose(reflectance, [-0.00108268, 0.0, 0.1375, 0.275], rtol=1e-5, atol=1e-9)


def test_inverse_is_right_to_half_a_grey_value():
    dn = np.arange(2751, dtype=np.uint16)
    back = reflectance_of(radiometry.stretch_like_eurosat_jpeg(dn)) * 10000
    assert np.abs(back - dn).max() <= 2750 / 254 / 2 + 1e-2
    grey = np.arange(1, 256, dtype=np.uint8)
    again = radiometry.stretch_like_eurosat_jpeg(reflectance_of(grey) * 10000)
    np.testing.assert_array_equal(again, grey)


def test_every_dn_becomes_what_the_stretch_makes_of_it():
    dn = np.arange(65536, dtype=np.uint16)
    # A second band holds data, so that no pixel is one of no data.
    pixels = np.stack([dn, np.full_like(dn, 1375)], axis=-1)
    grey = radiometry.convert(pixels, radiometry.HARMONISED, radiometry.EUROSAT_JPEG, np.uint8)
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey[:, 0], radiometry.stretch_like_eurosat_jpeg(dn))
    assert (grey[:, 1] == 128).all()


def test_no_data_stays_0_and_darkness_becomes_1():
    pixels = np.array([[[0, 0, 0], [0, 0, 5]]], np.uint16)
    for dtype in ("uint8", "uint16"):
        converted = radiometry.convert(pixels, radiometry.HARMONISED, radiometry.EUROSAT_JPEG, dtype)
        assert converted.dtype == dtype
        np.testing.assert_array_equal(converted, [[[0, 0, 0], [1, 1, 1]]])


def test_conversion_by_hand_between_other_scales():
    # Reflectance 0.05, 0.2 and 1.7 with the offset of processing baseline 04.00, and its darkest numbers.
    baseline_4 = Reflectance(scale=1e-4, offset=-0.1)
    pixels = np.array([[1500, 3000], [18000, 999], [1000, 1001]], np.uint16)
    harmonised = radiometry.convert(pixels, baseline_4, radiometry.HARMONISED, np.uint16)
    np.testing.assert_array_equal(harmonised, [[500, 2000], [17000, 1], [1, 1]])
    back = radiometry.convert(harmonised, radiometry.HARMONISED, baseline_4, np.uint16)
    np.testing.assert_array_equal(back, [[1500, 3000], [18000, 1001], [1001, 1001]])
    brightest = radiometry.convert([[65535, 64536]], radiometry.HARMONISED, baseline_4, np.uint16)
    np.testing.assert_array_equal(brightest, [[65535, 65535]])


def test_numbers_of_one_scale_stay_what_they_are():
    dn = np.arange(1, 65536, dtype=np.uint16)[:, None]
    same = radiometry.convert(dn, radiometry.HARMONISED, radiometry.HARMONISED, np.uint16)
    np.testing.assert_array_equal(same, dn)
    grey = np.arange(1, 256, dtype=np.uint8)[:, None]
    same = radiometry.convert(grey, radiometry.EUROSAT_JPEG, radiometry.EUROSAT_JPEG, np.uint8)
    np.testing.assert_array_equal(same, grey)


@pytest.mark.real_data
def test_stretch_rounds_to_nearest_like_the_published_jpegs(real_data):
    rasterio = pytest.importorskip("rasterio")
    archives = real_data / "eurosat"
    differences = []
    with zipfile.ZipFile(archives / "EuroSAT_RGB.zip") as jpegs:
        for name in ("AnnualCrop_1", "Forest_1", "Pasture_5", "River_10", "SeaLake_5"):
            folder = name.split("_")[0]
            path = f"/vsizip/{archives}/EuroSAT_MS_sample.zip/EuroSAT_MS/{folder}/{name}.tif"
            with rasterio.open(path) as raster:
                bands = [EUROSAT_ORDER.index(band) + 1 for band in COMPOSITES["RGB"]]
                stretched = radiometry.stretch_like_eurosat_jpeg(raster.read(bands).transpose(1, 2, 0))
            with Image.open(io.BytesIO(jpegs.read(f"EuroSAT_RGB/{folder}/{name}.jpg"))) as image:
                differences.append(np.asarray(image).astype(np.float64) - stretched)
    # Compression moves single pixels and hardly the mean; cutting the fractions off would leave a bias of one half.
    assert abs(np.mean(differences)) < 0.1
    assert np.abs(differences).mean() < 4
