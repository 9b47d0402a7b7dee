"""Tiny archives in EuroSAT's real formats, with the faults that a test asks for."""

import io
import pathlib
import types
import zipfile

import numpy as np
import pytest
import rasterio.shutil
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from eo_keras.sensors import sentinel2

# Plausible means per band (digital numbers), cirrus far below the rest.
MEANS = dict(
    zip(
        sentinel2.EUROSAT_ORDER,
        (1354, 1118, 1043, 948, 1199, 2000, 2369, 2297, 732, 12, 1819, 1119, 2594),
        strict=True,
    )
)


def geotiff_bytes(number, *, order=sentinel2.EUROSAT_ORDER, size=64, dtype="uint16", crs="EPSG:32633", names=None):
    """A GeoTIFF patch; the same number gives the same pixels."""
    rng = np.random.default_rng(number)
    image = np.stack([rng.poisson(MEANS[band], (size, size)) for band in order]).astype(dtype)
    with MemoryFile() as memory, MemoryFile() as copied:
        profile = {"driver": "GTiff", "width": size, "height": size, "count": len(order), "dtype": dtype}
        if crs:
            profile |= {"crs": crs, "transform": from_origin(500000.0 + 640 * number, 4877286.03, 10.0, 10.0)}
        with memory.open(**profile) as dataset:
            dataset.write(image)
            for index, name in enumerate(names or (), start=1):
                dataset.set_band_description(index, name)
        # A copy has its header before the pixels, as the published ones have.
        rasterio.shutil.copy(memory.name, copied.name, driver="GTiff", interleave="pixel")
        return copied.read()


def jpeg_bytes(number, *, size=64):
    """A JPEG patch; the same number gives the same pixels."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(40, 200, (8, 8, 3), dtype=np.uint8).repeat(size // 8, 0).repeat(size // 8, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_zip(path, members):
    """Writes members (name: bytes) to a zip and returns its path."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return pathlib.Path(path)


def write_folder(path, members):
    """Writes members (name: bytes) below a folder and returns its path."""
    for name, data in members.items():
        target = pathlib.Path(path) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return pathlib.Path(path)


def rgb_members(per_class=10, classes=("Forest", "River", "SeaLake"), root="EuroSAT_RGB/"):
    """RGB patches by member name."""
    return {
        f"{root}{name}/{name}_{n}.jpg": jpeg_bytes(1000 * k + n)
        for k, name in enumerate(classes)
        for n in range(1, per_class + 1)
    }


def ms_members(per_class=10, classes=("Forest", "River", "SeaLake"), root="EuroSAT_MS/", **kwargs):
    """13-band patches by member name."""
    return {
        f"{root}{name}/{name}_{n}.tif": geotiff_bytes(100 * k + n, **kwargs)
        for k, name in enumerate(classes)
        for n in range(1, per_class + 1)
    }


@pytest.fixture
def make():
    """The functions above, for tests that need archives."""
    return types.SimpleNamespace(
        geotiff=geotiff_bytes, jpeg=jpeg_bytes, zip=write_zip, folder=write_folder, rgb=rgb_members, ms=ms_members
    )


@pytest.fixture(scope="session")
def rgb_zip(tmp_path_factory):
    """30 RGB patches of three classes in a zip."""
    return write_zip(tmp_path_factory.mktemp("rgb") / "EuroSAT_RGB.zip", rgb_members())


@pytest.fixture(scope="session")
def ms_zip(tmp_path_factory):
    """30 13-band patches of three classes in a zip."""
    return write_zip(tmp_path_factory.mktemp("ms") / "EuroSAT_MS.zip", ms_members())
