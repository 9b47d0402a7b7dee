"""Image files of any sensor, read window by window."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from eo_keras.errors import BandError, SourceError
from eo_keras.geo.open_images import ImageKind, open_image
from eo_keras.sensors.radiometry import HARMONISED

OPTICAL = ImageKind("sentinel2", ("B04", "B03", "B02"), "uint16")
RADAR = ImageKind("sentinel1", ("VV", "VH"), "float32")
AERIAL = ImageKind("aerial", ("R", "G", "B"), "uint8")


def write(path, numbers, *, names=(), scale=None, pixel_size=10.0, **profile):
    """Writes numbers (height, width, bands) as GeoTIFF."""
    height, width, count = numbers.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": numbers.dtype} | profile
    transform = from_origin(600000, 5400000, pixel_size, pixel_size)
    with rasterio.open(path, "w", crs="EPSG:32632", transform=transform, **profile) as dataset:
        dataset.write(numbers.transpose(2, 0, 1))
        for place, name in enumerate(names, 1):
            dataset.set_band_description(place, name)
        if scale is not None:
            dataset.scales = [scale] * count
    return path


def test_a_window_of_numbers_and_of_no_data(tmp_path):
    numbers = np.random.default_rng(1).integers(1, 3000, (40, 50, 3)).astype(np.uint16)
    numbers[3, 4] = 0
    numbers[5, 6, 0] = 0  # Dark in one band.
    path = write(tmp_path / "a.tif", numbers, names=("B02", "B04", "B03"))
    with open_image(path, OPTICAL) as image:
        assert (image.height, image.width, image.bands) == (40, 50, ("B02", "B04", "B03"))
        assert image.grid.crs == "EPSG:32632" and image.grid.pixel_size == 10
        found = image.read(2, 3, 10, 20)
    expected = np.maximum(numbers, 1)
    expected[3, 4] = 0
    np.testing.assert_array_equal(found.pixels, expected[2:12, 3:23])
    assert found.reflectance == HARMONISED


def test_real_numbers_are_scaled_as_the_file_says_and_nan_without_data(tmp_path):
    stored = np.random.default_rng(1).integers(-2500, 0, (8, 9, 2)).astype(np.int16)
    stored[1, 2] = -9999
    path = write(tmp_path / "db.tif", stored, scale=0.01, nodata=-9999)
    with open_image(path, RADAR) as image:
        assert image.bands == ("VV", "VH")
        found = image.read(0, 0, 8, 9)
    expected = (stored * 0.01).astype(np.float32)
    expected[1, 2] = np.nan
    assert found.pixels.dtype == np.float32 and found.reflectance is None
    np.testing.assert_allclose(found.pixels, expected, rtol=1e-6)


def test_black_is_a_color_of_aerial_images_alone(tmp_path):
    pixels = np.full((6, 7, 3), 90, np.uint8)
    pixels[2, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png", AERIAL) as image:
        assert image.grid is None
        np.testing.assert_array_equal(image.read(2, 3, 1, 2).pixels, [[[1, 1, 1], [90, 90, 90]]])
    with open_image(tmp_path / "a.png", ImageKind("sentinel2", ("B11", "B08", "B03"), "uint8")) as image:
        np.testing.assert_array_equal(image.read(2, 3, 1, 2).pixels, [[[0, 0, 0], [90, 90, 90]]])


def test_grids_that_are_the_same(tmp_path):
    fine = write(tmp_path / "fine.tif", np.ones((40, 60, 3), np.uint16))
    coarse = write(tmp_path / "coarse.tif", np.ones((20, 30, 2), np.float32), pixel_size=20.0)
    shifted = write(tmp_path / "shifted.tif", np.ones((20, 30, 2), np.float32), pixel_size=21.0)
    Image.fromarray(np.ones((20, 30), np.uint8)).save(tmp_path / "nowhere.png")
    with open_image(fine, OPTICAL) as one:
        with open_image(coarse, RADAR) as other:
            assert other.lies_on(one, 2) and not other.lies_on(one)
        with open_image(shifted, RADAR) as other:
            assert not other.lies_on(one, 2)
        with open_image(tmp_path / "nowhere.png", ImageKind("sentinel1", ("SAR",), "uint8")) as other:
            assert other.lies_on(one, 2)
            assert str(other) == "30x20 pixels without a place on the ground"


def test_what_is_refused(tmp_path):
    numbers = np.ones((4, 5, 4), np.uint16)
    path = write(tmp_path / "four.tif", numbers)
    with pytest.raises(BandError, match=r"4 bands without names.*B04,B03,B02.*`image_bands=B04,B03,B02`"):
        with open_image(path, OPTICAL):
            pass
    with pytest.raises(BandError, match="4 bands; expected 3, as `image_bands` names"):
        with open_image(path, OPTICAL, ("B02", "B03", "B04")):
            pass
    path = write(tmp_path / "named.tif", numbers[..., :2], names=("red", "green"))
    with pytest.raises(BandError, match="red,green; expected names of bands of Sentinel-1"):
        with open_image(path, RADAR):
            pass
    path = write(tmp_path / "real.tif", numbers[..., :3].astype(np.float32))
    with pytest.raises(SourceError, match="numbers of type float32; expected uint16 digital numbers"):
        with open_image(path, OPTICAL):
            pass
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(SourceError, match="this is no image"):
        with open_image(tmp_path / "a.txt", OPTICAL):
            pass
    whole = write(tmp_path / "torn.tif", np.random.default_rng(1).random((300, 300, 2)).astype(np.float32))
    whole.write_bytes(whole.read_bytes()[:200_000])
    with pytest.raises(SourceError, match="it cannot be decoded"):
        with open_image(whole, RADAR) as image:
            image.read(0, 0, 300, 300)
