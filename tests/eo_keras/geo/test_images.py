import io
import zipfile

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from eo_keras.errors import BandError, SourceError
from eo_keras.geo import images as rasters
from eo_keras.sensors import radiometry, sentinel2
from tfrecords_builder.sources import eurosat, image_decoding

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def numbers(count, dtype="uint16", size=8, seed=1):
    return np.random.default_rng(seed).integers(1, np.iinfo(dtype).max, (size, size, count)).astype(dtype)


def write_geotiff(path, pixels, names=(), crs=None, **profile):
    height, width, count = pixels.shape
    profile |= {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": pixels.dtype.name}
    if crs:
        profile |= {"crs": crs, "transform": from_origin(500000, 4877286.03, 10, 10)}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels.transpose(2, 0, 1))
        for place, name in enumerate(names, 1):
            dataset.set_band_description(place, name)
    return path


def write_picture(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_thirteen_unnamed_bands_are_taken_for_eurosats(tmp_path):
    pixels = numbers(13)
    image = rasters.read_image(write_geotiff(tmp_path / "a.tif", pixels, crs="EPSG:32633"))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.pixels.dtype == np.uint16 and image.pixels.flags.c_contiguous
    assert image.bands == sentinel2.EUROSAT_ORDER and image.bands_assumed
    assert (image.crs, image.transform) == ("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 4877286.03))
    assert image.reflectance == radiometry.HARMONISED == eurosat.MULTISPECTRAL.facts.reflectance


def test_names_in_the_file_count_more_than_the_number_of_bands(tmp_path):
    names = [name.replace("B0", "B") for name in sentinel2.NOMINAL_ORDER]
    image = rasters.read_image(write_geotiff(tmp_path / "a.tif", numbers(13), names))
    assert image.bands == sentinel2.NOMINAL_ORDER and not image.bands_assumed
    assert image.crs is None and image.transform is None
    image = rasters.read_image(write_geotiff(tmp_path / "b.tif", numbers(3, "uint8"), ("B08", "B04", "B03")))
    assert image.bands == ("B08", "B04", "B03")


def test_names_given_count_more_than_those_in_the_file(tmp_path):
    path = write_geotiff(tmp_path / "a.tif", numbers(2), ("B02", "B03"))
    image = rasters.read_image(path, ("B11", "B12"))
    assert image.bands == ("B11", "B12") and not image.bands_assumed
    with pytest.raises(BandError, match=r"a.tif: 2 bands; expected 3, as `image_bands` names \(B02,B03,B04\)"):
        rasters.read_image(path, ("B02", "B03", "B04"))


@pytest.mark.parametrize(("count", "dtype"), [(3, "uint16"), (13, "uint8"), (4, "uint8"), (12, "uint16")])
def test_unnamed_bands_that_cannot_be_told(tmp_path, count, dtype):
    path = write_geotiff(tmp_path / "a.tif", numbers(count, dtype), photometric="MINISBLACK")
    with pytest.raises(BandError, match=f"a.tif: {count} unnamed {dtype} bands.*`image_bands="):
        rasters.read_image(path)


@pytest.mark.parametrize(
    "names", [("B02", "B02", "B03"), ("red", "green", "blue"), ("B04", None, "B02"), ("RGB",), ("all",)]
)
def test_names_that_are_no_bands(tmp_path, names):
    path = write_geotiff(tmp_path / "a.tif", numbers(len(names), "uint8"), names)
    with pytest.raises(BandError, match=f"bands named {names[0]}.*`image_bands="):
        rasters.read_image(path)


def test_pictures_are_rgb_composites_decoded_as_the_builder_does(tmp_path):
    pixels = numbers(3, "uint8", size=64).repeat(4, 0)[:64]
    path = write_picture(tmp_path / "a.jpg", pixels, quality=90)
    image = rasters.read_image(path)
    np.testing.assert_array_equal(image.pixels, image_decoding.decode_jpeg(path.read_bytes(), "a", 64))
    assert image.bands == ("B04", "B03", "B02") and not image.bands_assumed
    assert image.reflectance == radiometry.EUROSAT_JPEG == eurosat.RGB.facts.reflectance
    # The content decides, not the name.
    image = rasters.read_image(write_picture(tmp_path / "b.tif", pixels, format="PNG"))
    np.testing.assert_array_equal(image.pixels, pixels)
    image = rasters.read_image(write_geotiff(tmp_path / "c.png", pixels))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.bands == ("B04", "B03", "B02")
    grey = rasters.read_image(write_picture(tmp_path / "d.png", pixels[:, :, 0]), ("B08",))
    np.testing.assert_array_equal(grey.pixels, pixels[:, :, :1])


@pytest.mark.parametrize("nodata", [None, 65535])
def test_what_a_file_masks_is_no_data(tmp_path, nodata):
    pixels = np.full((8, 8, 2), 900, np.uint16)
    path = write_geotiff(tmp_path / "a.tif", pixels, ("B02", "B03"), nodata=nodata)
    mask = np.full((8, 8), 255, np.uint8)
    mask[:2] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    image = rasters.read_image(path)
    assert not image.pixels[:2].any() and (image.pixels[2:] == 900).all()


def test_another_nodata_value_becomes_0(tmp_path):
    pixels = numbers(2)
    pixels[0, 0], pixels[0, 1, 0] = 65535, 65535
    image = rasters.read_image(write_geotiff(tmp_path / "a.tif", pixels, ("B02", "B03"), nodata=65535))
    assert (image.pixels[0, 0] == 0).all()
    np.testing.assert_array_equal(image.pixels[0, 1:], pixels[0, 1:])


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint32"])
def test_numbers_of_other_types(tmp_path, dtype):
    path = write_geotiff(tmp_path / "a.tif", numbers(13).astype(dtype))
    with pytest.raises(SourceError, match=f"a.tif: numbers of type {dtype}; expected uint16"):
        rasters.read_image(path)


def test_numbers_with_an_offset(tmp_path):
    path = write_geotiff(tmp_path / "a.tif", numbers(13))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales = (1e-4,) * 13
    assert rasters.read_image(path).reflectance == radiometry.HARMONISED
    with rasterio.open(path, "r+") as dataset:
        dataset.offsets = (-0.1,) * 13
    with pytest.raises(SourceError, match="scale 0.0001 and offset -0.1; expected harmonized"):
        rasters.read_image(path)


def damaged_files():
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 13, "dtype": "uint16"}
    with MemoryFile() as memory:
        with memory.open(**profile, transform=from_origin(500000, 4877286.03, 10, 10)) as dataset:
            dataset.write(numbers(13, size=64).transpose(2, 0, 1))
        geotiff = memory.read()
    files = {"cut.tif": geotiff[: len(geotiff) // 2], "head.tif": geotiff[:10]}
    for form in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        Image.fromarray(numbers(3, "uint8", size=64)).save(buffer, form)
        files[f"cut.{form.lower()}"] = buffer.getvalue()[: len(buffer.getvalue()) // 2]
        files[f"head.{form.lower()}"] = buffer.getvalue()[:20]
    return files


DAMAGED = damaged_files()


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_damaged_files(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(SourceError, match=f"{name}: it cannot be decoded .*expected a whole "):
        rasters.read_image(tmp_path / name)


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "a.tif").write_text("<VRTDataset rasterXSize='1'/>")
    (tmp_path / "b.jpg").write_bytes(b"")
    Image.new("RGB", (4, 4)).save(tmp_path / "c.gif")
    Image.new("RGBA", (4, 4)).save(tmp_path / "d.png")
    for name, words in [
        ("a.tif", "this is no image; expected a GeoTIFF, JPEG or PNG"),
        ("b.jpg", "the file is empty"),
        ("c.gif", "this is no image"),
        ("d.png", "a PNG of mode RGBA; expected RGB"),
        ("none.tif", "No such file"),
        (".", "Is a directory"),
    ]:
        with pytest.raises(SourceError, match=words):
            rasters.read_image(tmp_path / name)


def test_scenes_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(rasters, "_MOST_PIXELS", 63)
    for path in (
        write_geotiff(tmp_path / "a.tif", numbers(13)),
        write_picture(tmp_path / "a.png", numbers(3, "uint8")),
    ):
        with pytest.raises(SourceError, match="an image of 8x8 pixels; expected at most 63"):
            rasters.read_image(path)
    monkeypatch.setattr(rasters, "_MOST_BYTES", 99)
    with pytest.raises(SourceError, match="more than 99 bytes"):
        rasters.read_image(tmp_path / "a.tif")


def test_images_by_pattern_and_by_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.tif", "a.TIF", "c/d.jpg", "c/[1].png", "c/notes.txt", "c/._d.jpg", "c/e/f.tiff"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def found(*patterns):
        return [str(path) for path in rasters.find_images(patterns)]

    assert found("*.tif") == ["b.tif"]
    assert found(".") == ["a.TIF", "b.tif", "c/[1].png", "c/d.jpg", "c/e/f.tiff"]
    assert found("c/*.jpg", "b.tif", "*.tif", "c/[1].png") == ["b.tif", "c/[1].png", "c/d.jpg"]
    assert found("**/*.tiff") == ["c/e/f.tiff"]
    assert found("*") == found(".")
    assert found("c/*.txt") == ["c/notes.txt"]  # Asked for by name: reading it says what it is.
    (tmp_path / "empty").mkdir()
    for pattern in ("*.jp2", "empty", "", "none.tif"):
        with pytest.raises(SourceError, match=f"images '{pattern.replace('*', '.')}': there is no such image"):
            found("b.tif", pattern)


@pytest.mark.real_data
def test_real_patches_are_read_as_the_builder_reads_them(real_data, tmp_path):
    with zipfile.ZipFile(real_data / "eurosat" / "EuroSAT_MS_sample.zip") as archive:
        for name in ("Forest_1", "SeaLake_5"):
            data = archive.read(f"EuroSAT_MS/{name.split('_')[0]}/{name}.tif")
            (tmp_path / "a.tif").write_bytes(data)
            image = rasters.read_image(tmp_path / "a.tif")
            patch = image_decoding.decode_geotiff(data, name, (64, 64, 13), "uint16")
            np.testing.assert_array_equal(image.pixels, patch.pixels)
            assert (image.crs, image.transform) == (patch.crs, patch.transform)
            assert image.bands_assumed and image.bands == eurosat.MULTISPECTRAL.facts.bands
