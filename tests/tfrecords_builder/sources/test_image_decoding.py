import io
import zipfile

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.transform import Affine, from_origin

from eo_keras.errors import SourceError
from tfrecords_builder.sources import image_decoding

SHAPE = (64, 64, 13)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(image_decoding, "_known_layouts", {})


def geotiff(transform=None, crs="EPSG:32633", tags=None, seed=0, **profile):
    image = np.random.default_rng(seed).integers(0, 9000, (13, 64, 64), dtype=np.uint16)
    chosen = {"driver": "GTiff", "width": 64, "height": 64, "count": 13, "dtype": "uint16", "interleave": "pixel"}
    chosen |= {"crs": crs, "transform": transform or from_origin(500000.0 + seed, 4877286.03, 10.0, 10.0)}
    chosen |= profile
    with MemoryFile() as memory, MemoryFile() as copied:
        with memory.open(**chosen) as dataset:
            dataset.write(image)
            dataset.update_tags(**tags or {})
        # A copy has its header before the pixels, as EuroSAT's files have.
        form = {name: value for name, value in chosen.items() if name in ("interleave", "compress", *profile)}
        for name in ("transform", "crs", "dtype", "count", "width", "height", "nodata"):
            form.pop(name, None)
        rasterio.shutil.copy(memory.name, copied.name, driver="GTiff", **form)
        return copied.read()


def as_gdal_reads(data):
    with MemoryFile(data) as memory, memory.open() as dataset:
        return dataset.read().transpose(1, 2, 0), dataset.crs.to_string(), tuple(dataset.transform)[:6]


def assert_as_gdal(found, data):
    pixels, crs, transform = as_gdal_reads(data)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert (found.crs, found.transform) == (crs, transform)


def decoded(data):
    return image_decoding.decode_geotiff(data, "a.tif", SHAPE, "uint16")


def test_gdal_reads_one_file_of_a_layout_and_no_other(monkeypatch):
    first, second = geotiff(), geotiff(seed=7)
    assert_as_gdal(decoded(first), first)
    with monkeypatch.context() as patched:
        patched.setattr(image_decoding, "_read_with_gdal", None)
        for data in (first, second):
            assert_as_gdal(decoded(data), data)
    other = geotiff(crs="EPSG:32634")
    assert_as_gdal(decoded(other), other)


def test_a_changed_header_is_no_known_one():
    data = geotiff()
    decoded(data)
    (layout,) = image_decoding._known_layouts[SHAPE, "uint16"]
    header = len(layout.header)
    place = {*range(layout.scale, layout.scale + 24), *range(layout.tie, layout.tie + 48)}
    for position in range(0, header):
        flipped = bytearray(data)
        flipped[position] ^= 1
        if position not in place:
            assert layout.read(bytes(flipped)) is None
    # A place of not-a-number, or above the ground, is for GDAL to judge.
    for position, value in ((layout.scale, np.nan), (layout.tie + 24, np.inf), (layout.tie + 40, 1.0)):
        changed = bytearray(data)
        changed[position : position + 8] = np.float64(value).tobytes()
        assert layout.read(bytes(changed)) is None
    assert layout.read(data[:-1]) is None and layout.read(data + b"x") is None


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
def test_every_other_form_is_read_as_gdal_reads_it(form):
    for seed in range(2):
        data = geotiff(seed=seed, **form)
        assert_as_gdal(decoded(data), data)
    learned = image_decoding._known_layouts.get((SHAPE, "uint16"))
    assert not learned or form in ({"tiled": True}, {"crs": "EPSG:4326"}) or set(form) <= {"crs", "transform"}


def test_a_crs_without_a_code_and_none_at_all():
    found = decoded(geotiff(crs="+proj=tmerc +lat_0=0 +lon_0=15.3 +k=0.9996 +x_0=1 +y_0=2 +ellps=WGS84 +units=m"))
    assert found.crs.startswith("PROJCS") and "15.3" in found.crs
    assert decoded(geotiff(crs=None)).crs is None


def test_a_file_that_lacks_blocks_is_refused():
    with MemoryFile() as memory:
        profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 13, "dtype": "uint16", "sparse_ok": True}
        with memory.open(**profile, crs="EPSG:32633", transform=from_origin(5e5, 4e6, 10.0, 10.0)):
            pass
        data = memory.read()
    with pytest.raises(SourceError, match="parts of the image are missing"):
        decoded(data)


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
        image_decoding.decode_geotiff(data, "a.tif", SHAPE, "uint16")


def jpeg(mode="RGB", size=64, **options):
    pixels = np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"quality": 100, "subsampling": 0}, {"progressive": True}, {"optimize": True}])
def test_jpegs_are_decoded_as_pillow_does(options):
    data = jpeg(**options)
    np.testing.assert_array_equal(
        image_decoding.decode_jpeg(data, "a.jpg", 64), np.asarray(Image.open(io.BytesIO(data)))
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (jpeg("L"), "colors Gray; expected 64x64 pixels, RGB"),
        (jpeg("CMYK"), "expected 64x64 pixels, RGB"),
        (jpeg(size=32), "32x32 pixels"),
        (jpeg()[:-300], "cannot be decoded"),
        (b"", "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
    ],
)
def test_other_pictures_are_refused(data, words):
    with pytest.raises(SourceError, match=f"a.jpg: .*{words}"):
        image_decoding.decode_jpeg(data, "a.jpg", 64)


def test_damage_that_a_lenient_decoder_passes_over_is_refused():
    data = bytearray(jpeg(quality=95))
    # A restart marker where none belongs: the rest is guessed by lenient decoders.
    data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xd3"
    with pytest.raises(SourceError, match="cannot be decoded"):
        image_decoding.decode_jpeg(bytes(data), "a.jpg", 64)


@pytest.mark.real_data
def test_real_geotiffs_are_read_as_gdal_reads_them(real_data):
    with zipfile.ZipFile(real_data / "eurosat" / "EuroSAT_MS_sample.zip") as archive, rasterio.Env():
        names = [name for name in archive.namelist() if name.endswith(".tif")]
        for name in names[::3]:
            data = archive.read(name)
            assert_as_gdal(decoded(data), data)
    # The header's length and the UTM zone are all that differs.
    assert len(names) == 466 and 2 <= len(image_decoding._known_layouts[SHAPE, "uint16"]) <= 12
