"""Synthetic archives in the layout of EuroSAT's, cut from the generated world."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
import rasterio
import rasterio.errors
import rasterio.io
import rasterio.shutil
import rasterio.warp

from eo_keras.core import files
from eo_keras.errors import OptionError
from eo_keras.legends.catalogue import EUROSAT
from eo_keras.sensors import radiometry
from eo_keras.sensors.sentinel2 import COMPOSITES, EUROSAT_ORDER
from tfrecords_builder.synthetic.world import PATCH, PIXEL_M, World, WorldOptions, cells_for

_FOLDERS = {
    "rgb": {None: "EuroSAT_RGB", "2750": "2750"},
    "ms": {None: "EuroSAT_MS", "allbands": "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"},
}
_MOST_PATCHES = 6_000  # What a world of the largest size holds of each class, rounded down.
_ZIP_TIME = (2018, 1, 1, 0, 0, 0)  # Any fixed time: the same seed must give the same bytes.


def archive_world(patches_per_class: int, seed: int = 1) -> World:
    """Returns the world for archives of a seed, large enough for a number of patches of each class."""
    if not isinstance(patches_per_class, int) or not 1 <= patches_per_class <= _MOST_PATCHES:
        raise OptionError("patches_per_class", f"{patches_per_class!r}", f"a whole number from 1 to {_MOST_PATCHES}")
    return World(WorldOptions(seed=seed, cells=cells_for(patches_per_class)))


def write_eurosat_archive(
    path: str | os.PathLike[str],
    *,
    kind: str,
    patches_per_class: int,
    seed: int = 1,
    layout: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pathlib.Path:
    """Writes an archive like EuroSAT's. Equal patch names are the same place in all archives of one seed.

    Args:
        path: the archive: a zip if the name ends in .zip (an older one is replaced), else a new folder.
        kind: `rgb`, 8-bit JPEGs made by the authors' recipe; or `ms`, GeoTIFFs of 64 x 64 pixels and 13 bands, uint16,
            in EuroSAT's band order, without band names, each with its own place in UTM.
        patches_per_class: patches of each of the ten classes, numbered from 1.
        seed: of the world.
        layout: None for the folder names of the current release (`EuroSAT_RGB`, `EuroSAT_MS`); `2750` (rgb) or
            `allbands` (ms) for those of the first one.
        progress: called with the number of patches written and their total.

    Returns:
        The path.

    Raises:
        OptionError: if an argument is out of range, or the folder exists and is not empty.
        StorageError: if the disk is full or may not be written to.
    """
    if kind not in _FOLDERS:
        raise OptionError("kind", f"{kind!r}", f"one of {', '.join(_FOLDERS)}")
    if layout not in _FOLDERS[kind]:
        others = ", ".join(repr(name) for name in _FOLDERS[kind] if name)
        raise OptionError("layout", f"{layout!r}", f"None or {others} for kind '{kind}'")
    path = pathlib.Path(path)
    zipped = path.suffix.lower() == ".zip"
    if path.is_dir() if zipped else path.exists() and (not path.is_dir() or any(path.iterdir())):
        found = "there is a folder of this name" if zipped else "it exists and is not an empty folder"
        raise OptionError(path, found, remedy="remove it or choose another name")
    world = archive_world(patches_per_class, seed)
    files.make_folder(path.parent)
    with (_zip_writer if zipped else _folder_writer)(path) as write:
        total = patches_per_class * len(EUROSAT)
        suffix, encode = ("jpg", _jpeg) if kind == "rgb" else ("tif", _geotiff)
        for done, (name, row, col) in enumerate(_patches(world, patches_per_class), start=1):
            member = f"{_FOLDERS[kind][layout]}/{name.rpartition('_')[0]}/{name}.{suffix}"
            write(member, encode(world, row, col))
            if progress:
                progress(done, total)
    return path


def write_coordinates(path: str | os.PathLike[str], *, patches_per_class: int, seed: int = 1) -> pathlib.Path:
    """Writes the patches' centers as CSV: `patch,latitude,longitude`, degrees of EPSG:4326 with six decimals.

    Args:
        path: the CSV file; an older one is replaced.
        patches_per_class: as for `write_eurosat_archive`.
        seed: as for `write_eurosat_archive`.

    Returns:
        The path.

    Raises:
        OptionError: if the number of patches is out of range.
        StorageError: if the disk is full or may not be written to.
    """
    path = pathlib.Path(path)
    world = archive_world(patches_per_class, seed)
    names, rows, cols = zip(*_patches(world, patches_per_class), strict=True)
    eastings = world.transform[2] + PIXEL_M * (np.array(cols) + PATCH / 2)
    northings = world.transform[5] - PIXEL_M * (np.array(rows) + PATCH / 2)
    longitudes, latitudes = rasterio.warp.transform(world.crs, "EPSG:4326", eastings, northings)
    lines = ["patch,latitude,longitude"]
    lines += [f"{name},{lat:.6f},{lon:.6f}" for name, lat, lon in zip(names, latitudes, longitudes, strict=True)]
    files.make_folder(path.parent)
    files.write_text(path, "\n".join(lines) + "\n")
    return path


def _patches(world: World, patches_per_class: int) -> Iterator[tuple[str, int, int]]:
    """Yields names and top left pixels of all patches, by class and number."""
    for label, class_name in enumerate(EUROSAT.class_names):
        for number in range(1, patches_per_class + 1):
            yield f"{class_name}_{number}", *world.patch(label, number)


def _jpeg(world: World, row: int, col: int) -> bytes:
    pixels = radiometry.stretch_like_eurosat_jpeg(world.image(row, col, PATCH, PATCH, COMPOSITES["RGB"]))
    # By GDAL, as the authors did: its chroma subsampling and quantization are then theirs too.
    return _encoded(pixels, driver="JPEG", quality=100)


def _geotiff(world: World, row: int, col: int) -> bytes:
    west, north = world.transform[2] + PIXEL_M * col, world.transform[5] - PIXEL_M * row
    transform = rasterio.Affine(PIXEL_M, 0, west, 0, -PIXEL_M, north)
    image = world.image(row, col, PATCH, PATCH, EUROSAT_ORDER)
    form = {"driver": "GTiff", "interleave": "pixel"}
    data = _encoded(image, crs=world.crs, transform=transform, **form)
    with rasterio.io.MemoryFile(data) as written, rasterio.io.MemoryFile() as copied:
        # A copy has its header before the pixels, as the published ones have.
        rasterio.shutil.copy(written.name, copied.name, **form)
        return copied.read()


def _encoded(image: np.ndarray, **profile) -> bytes:
    """Encodes (height, width, bands) as an image file, georeferenced or not; returns its bytes."""
    height, width, count = image.shape
    with warnings.catch_warnings(), rasterio.io.MemoryFile() as memory:
        # A JPEG patch has no place of its own, like the published ones.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with memory.open(width=width, height=height, count=count, dtype=image.dtype, **profile) as dataset:
            dataset.write(np.moveaxis(image, -1, 0))
        return memory.read()


@contextlib.contextmanager
def _zip_writer(path: pathlib.Path) -> Iterator[Callable[[str, bytes], None]]:
    with files.atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:

        def write(member: str, data: bytes) -> None:
            info = zipfile.ZipInfo(member, _ZIP_TIME)
            info.external_attr = 0o644 << 16
            info.create_system = 3  # Unix on every system, for the same bytes.
            # JPEGs do not shrink any more.
            info.compress_type = zipfile.ZIP_STORED if member.endswith(".jpg") else zipfile.ZIP_DEFLATED
            archive.writestr(info, data, compresslevel=1)

        yield write


@contextlib.contextmanager
def _folder_writer(path: pathlib.Path) -> Iterator[Callable[[str, bytes], None]]:
    with files.storage_errors(path):
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f"{files.TEMPORARY_PREFIX}{path.name}-", dir=path.parent))
        try:

            def write(member: str, data: bytes) -> None:
                target = temporary / member
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)

            yield write
            # mkdtemp makes folders for the owner alone; the result gets the usual permissions.
            temporary.chmod(next(folder for folder in temporary.iterdir()).stat().st_mode & 0o777)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
