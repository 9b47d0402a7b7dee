import io
import zipfile

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.transform import Affine, from_origin

from eo_keras.errors import SourceError
from tfrecords_builder.sources import decoding

SHAPE = (64, 64, 13)


def geotiff(transform=None, crs="EPSG:32633", tags=None, **profile):
    image = np.random.default_rng(0).integers(0, 9000, (13, 64, 64), dtype=np.uint16)
    chosen = {"driver": "GTiff", "width": 64, "height": 64, "count": 13, "dtype": "uint16", "interleave": "pixel"}
    chosen |= {"crs": crs, "transform": transform or from_origin(500000.0, 4877286.03, 10.0, 10.0)}
    with MemoryFile() as memory:
        with memory.open(**chosen | profile) as dataset:
            dataset.write(image)
            dataset.update_tags(**tags or {})
        return memory.read()


def as_gdal_reads(data):
    with MemoryFile(data) as memory, memory.open() as dataset:
        return dataset.read().transpose(1, 2, 0), dataset.crs.to_string(), tuple(dataset.transform)[:6]


def assert_as_gdal(found, data):
    pixels, crs, transform = as_gdal_reads(data)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert (found.crs, found.transform) == (crs, transform)


def plain(data):
    return decoding._read_plain(data, SHAPE, "uint16", True)


def test_a_plain_geotiff_is_read_as_gdal_reads_it():
    data = geotiff()
    assert plain(data) is not None
    assert_as_gdal(decoding.decode_geotiff(data, "a.tif", SHAPE, "uint16"), data)


@pytest.mark.parametrize(
    "form",
    [
        {"compress": "deflate"},
        {"compress": "lzw", "predictor": 2},
        {"interleave": "band"},
        {"tiled": True, "blockxsize": 32, "blockysize": 32},
        {"transform": Affine(9.0, 1.0, 500000.0, 1.0, -9.0, 4877286.03)},
        {"tags": {"AREA_OR_POINT": "Point"}},
        {"ENDIANNESS": "BIG"},
        {"crs": "EPSG:4326", "transform": from_origin(11.0, 46.0, 1e-4, 1e-4)},
    ],
    ids=str,
)
def test_everything_else_is_left_to_gdal(form):
    data = geotiff(**form)
    found = plain(data)
    if found is not None:  # tifffile knows some tiles to lie as strips do; then the numbers must be the same.
        assert_as_gdal(found, data)
    assert_as_gdal(decoding.decode_geotiff(data, "a.tif", SHAPE, "uint16"), data)


def test_a_crs_without_a_code_and_none_at_all():
    data = geotiff(crs="+proj=tmerc +lat_0=0 +lon_0=15.3 +k=0.9996 +x_0=1 +y_0=2 +ellps=WGS84 +units=m")
    assert plain(data) is None
    found = decoding.decode_geotiff(data, "a.tif", SHAPE, "uint16")
    assert found.crs.startswith("PROJCS") and "15.3" in found.crs
    assert decoding.decode_geotiff(geotiff(crs=None), "a.tif", SHAPE, "uint16").crs is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (geotiff()[:60000], "it cannot be read"),
        (geotiff()[:200], "it cannot be read"),
        (b"", "the file is empty"),
        (geotiff(dtype="int16", nodata=None), "type int16; expected uint16"),
        (geotiff(count=13, width=63, height=65), "63x65 pixels; expected 64x64"),
    ],
)
def test_damaged_and_other_images_are_refused(data, words):
    with pytest.raises(SourceError, match=f"a.tif: .*{words}"):
        decoding.decode_geotiff(data, "a.tif", SHAPE, "uint16")


def jpeg(mode="RGB", size=64, **options):
    pixels = np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"quality": 100, "subsampling": 0}, {"progressive": True}, {"optimize": True}])
def test_jpegs_are_decoded_as_pillow_does(options):
    data = jpeg(**options)
    np.testing.assert_array_equal(decoding.decode_jpeg(data, "a.jpg", 64), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (jpeg("L"), "colours Gray; expected 64x64 pixels, RGB"),
        (jpeg("CMYK"), "expected 64x64 pixels, RGB"),
        (jpeg(size=32), "32x32 pixels"),
        (jpeg()[:-300], "cannot be decoded"),
        (b"", "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
    ],
)
def test_other_pictures_are_refused(data, words):
    with pytest.raises(SourceError, match=f"a.jpg: .*{words}"):
        decoding.decode_jpeg(data, "a.jpg", 64)


def test_damage_that_a_lenient_decoder_passes_over_is_refused():
    data = bytearray(jpeg(quality=95))
    # A restart marker where none belongs: the rest is guessed by lenient decoders.
    data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xd3"
    with pytest.raises(SourceError, match="cannot be decoded"):
        decoding.decode_jpeg(bytes(data), "a.jpg", 64)


@pytest.mark.real_data
def test_all_real_geotiffs_are_plain_and_read_as_gdal_reads_them(real_data):
    with zipfile.ZipFile(real_data / "eurosat" / "EuroSAT_MS_sample.zip") as archive, rasterio.Env():
        names = [name for name in archive.namelist() if name.endswith(".tif")]
        for name in names[::5]:
            data = archive.read(name)
            found = plain(data)
            assert_as_gdal(found, data)
            assert decoding._read_with_gdal(data, name, SHAPE, "uint16").crs == found.crs
    assert len(names) == 466
