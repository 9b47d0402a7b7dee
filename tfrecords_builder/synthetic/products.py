"""Sentinel-2 products of a synthetic city: SAFE folders with lossless JPEG 2000 bands.

Folder and file names follow the Sentinel-2 Products Specification Document.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np

from eo_keras.core import files
from eo_keras.errors import OptionError
from eo_keras.geo.grid import Grid
from eo_keras.legends.catalogue import EUROSAT
from eo_keras.sensors.sentinel2 import BANDS, COMPOSITES, QUANTIFICATION
from tfrecords_builder.synthetic.city_world import CityWorld
from tfrecords_builder.synthetic.product_metadata import (
    NO_DATA,
    SATURATED,
    SCENE_CLASSES,
    ProductOptions,
    manifest,
    product_xml,
    stamp,
    strip_xml,
    tile_at,
    tile_xml,
)
from tfrecords_builder.synthetic.sensor import BLOCK
from tfrecords_builder.synthetic.world import PIXEL_M

_SURFACE_20M = ("B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11", "B12")
"""Bands of Level-2A at 20 m, averaged where the band is finer; at 60 m only B01 and B09 are written."""

_FULL = 11_500
"""Digital number from which a detector is saturated, as by roofs that reflect the sun."""


def write_product(folder: str | os.PathLike[str], world: CityWorld, options: ProductOptions) -> pathlib.Path:
    """Writes a product.

    Args:
        folder: parent of the SAFE folder.
        world: the city, of the same level: its option `surface` for L2A.
        options: options of the product.

    Returns:
        The SAFE folder.

    Raises:
        OptionError: if the world is rendered for the other level, or there is a product of this name.
        StorageError: if it cannot be written.
    """
    if world.options.surface != (options.level == "L2A"):
        raise OptionError("product option level", options.level, "the level that the world is rendered for")
    grid = grid_of(world)
    options = dataclasses.replace(options, tile=options.tile or tile_at(grid))
    root = pathlib.Path(folder) / f"{options.name}.SAFE"
    if root.exists():
        raise OptionError(root, "there is a product of this name", remedy="remove it or choose another folder")
    granule, strip = root / "GRANULE" / options.granule, root / "DATASTRIP" / options.datastrip
    beginning = f"T{options.tile}_{stamp(options.sensing)}"
    with files.storage_errors(root):
        if options.level == "L1C":
            names = _write_toa(granule / "IMG_DATA", beginning, world, options)
        else:
            names = _write_surface(granule / "IMG_DATA", beginning, world, options)
        inner = (granule / "IMG_DATA").relative_to(root).as_posix()
        images = [f"{inner}/{name.removesuffix('.jp2')}" for name in names]
        strip.mkdir(parents=True)
        files.write_text(root / f"MTD_MSI{options.level}.xml", product_xml(options, images, grid, world.options.clouds))
        files.write_text(granule / "MTD_TL.xml", tile_xml(options, grid))
        files.write_text(strip / "MTD_DS.xml", strip_xml(options))
        files.write_text(root / "manifest.safe", manifest(root, options.level))
    return root


def grid_of(world: CityWorld) -> Grid:
    """Returns the grid of a city's 10 m pixels."""
    return Grid(world.crs, world.transform, world.size, world.size)


def _write_toa(folder: pathlib.Path, beginning: str, world: CityWorld, options: ProductOptions) -> list[str]:
    folder.mkdir(parents=True)
    names, bands = [], _bands(world, options)
    for band, numbers in bands.items():
        names.append(f"{beginning}_{band}.jp2")
        _write_image(folder / names[-1], numbers, BANDS[band].resolution_m, world)
    names.append(f"{beginning}_TCI.jp2")
    picture = np.stack([_grey(bands[band], options) for band in COMPOSITES["RGB"]])
    _write_image(folder / names[-1], picture, PIXEL_M, world)
    return names


def _write_surface(folder: pathlib.Path, beginning: str, world: CityWorld, options: ProductOptions) -> list[str]:
    names = []

    def write(resolution: int, band: str, numbers: np.ndarray) -> None:
        inner = folder / f"R{resolution}m"
        inner.mkdir(parents=True, exist_ok=True)
        names.append(f"R{resolution}m/{beginning}_{band}_{resolution}m.jp2")
        _write_image(folder / names[-1], numbers, resolution, world)

    bands = _bands(world, options)
    for band, numbers in bands.items():
        native = BANDS[band].resolution_m
        write(native, band, numbers)
        if native == 10 and band in _SURFACE_20M:
            write(20, band, _averaged(numbers))
    full = np.any([bands[band] == SATURATED for band in bands if BANDS[band].resolution_m == 10], axis=0)
    classes = _scene_classes(world, options, full)
    write(20, "SCL", classes)
    write(60, "SCL", classes[1::3, 1::3])
    return names


def _bands(world: CityWorld, options: ProductOptions) -> dict[str, np.ndarray]:
    """Renders all bands of the level at their own resolution, uint16 as stored."""
    names = [name for name, band in BANDS.items() if options.level in band.levels]
    found = {name: np.empty(2 * (world.size * PIXEL_M // BANDS[name].resolution_m,), np.uint16) for name in names}
    # A row of blocks at a time: the world caches its ground while the bands are rendered one after another.
    for top in range(0, world.size, BLOCK):
        for resolution in sorted({BANDS[name].resolution_m for name in names}):
            alike = tuple(name for name in names if BANDS[name].resolution_m == resolution)
            step = resolution // PIXEL_M
            row, height = top // step, min(BLOCK, world.size - top) // step
            numbers = world.native(row, 0, height, world.size // step, alike)
            for place, name in enumerate(alike):
                found[name][row : row + height] = numbers[..., place]
    for name, numbers in found.items():
        full = numbers >= _FULL
        # At least 1, and so more than what means "no data".
        numbers += np.uint16(-options.offset)
        numbers[full] = SATURATED
        numbers[_outside(world.size, BANDS[name].resolution_m // PIXEL_M, options)] = NO_DATA
    return found


def _outside(size: int, step: int, options: ProductOptions) -> np.ndarray:
    """Returns the mask of pixels outside the swath: a wedge in the east."""
    edge = size // step
    if not options.swath:
        return np.zeros((edge, edge), bool)
    # In pixels of 60 m, so that the bands agree on it.
    coarse = size // 6
    rows, columns = np.mgrid[:coarse, :coarse] / coarse
    return (columns > 0.99 - 0.1 * rows).repeat(6 // step, 0).repeat(6 // step, 1)


def _averaged(numbers: np.ndarray) -> np.ndarray:
    edge = len(numbers) // 2
    blocks = numbers.reshape(edge, 2, edge, 2)
    means = np.rint(blocks.mean(axis=(1, 3), dtype=np.float64)).astype(np.uint16)
    means[(blocks == SATURATED).any(axis=(1, 3))] = SATURATED
    means[(blocks == NO_DATA).any(axis=(1, 3))] = NO_DATA
    return means


def _scene_classes(world: CityWorld, options: ProductOptions, full: np.ndarray) -> np.ndarray:
    """Returns the scene classification at 20 m, uint8, of Level-2A's classes.

    Args:
        world: the city.
        options: options of the product.
        full: saturated 10 m pixels, bool (size, size).
    """
    number_of = {name: number for number, name in enumerate(SCENE_CLASSES)}
    grown = [EUROSAT.label_of(name) for name in ("Forest", "HerbaceousVegetation", "Pasture")]
    water = [EUROSAT.label_of(name) for name in ("River", "SeaLake")]
    edge = world.size // 2
    classes = np.empty((edge, edge), np.uint8)
    for row in range(0, world.size, BLOCK):
        height = min(BLOCK, world.size - row)
        window = (row, 0, height, world.size)
        labels = world.classes(*window)[::2, ::2]
        cloud, shadow = (part[::2, ::2] for part in world.clouds(*window))
        found = np.full(labels.shape, number_of["NOT_VEGETATED"], np.uint8)
        found[np.isin(labels, grown)] = number_of["VEGETATION"]
        found[np.isin(labels, water)] = number_of["WATER"]
        found[shadow > 0.3] = number_of["CLOUD_SHADOW"]
        found[cloud > 0.15] = number_of["CLOUD_MEDIUM_PROBA"]
        found[cloud > 0.6] = number_of["CLOUD_HIGH_PROBA"]
        classes[row // 2 : (row + height) // 2] = found
    classes[full.reshape(edge, 2, edge, 2).any(axis=(1, 3))] = number_of["SATURATED_DEFECTIVE"]
    classes[_outside(world.size, 2, options)] = number_of["NODATA"]
    return classes


def _grey(numbers: np.ndarray, options: ProductOptions) -> np.ndarray:
    """Stretches reflectance 0 to 0.3558 to 1..255, as the true-color images are."""
    reflectance = (numbers.astype(np.float64) + options.offset) / QUANTIFICATION
    grey = np.clip(np.rint(1 + 254 * reflectance / 0.3558), 1, 255)
    return np.where(numbers == NO_DATA, 0, grey).astype(np.uint8)


def _write_image(path: pathlib.Path, numbers: np.ndarray, resolution: int, world: CityWorld) -> None:
    import rasterio

    numbers = numbers if numbers.ndim == 3 else numbers[None]
    west, north = world.transform[2], world.transform[5]
    profile = {
        "driver": "JP2OpenJPEG",
        # Without these the driver compresses with losses.
        "QUALITY": "100",
        "REVERSIBLE": "YES",
        "BLOCKXSIZE": 1024,
        "BLOCKYSIZE": 1024,
        "crs": world.crs,
        "transform": rasterio.Affine(resolution, 0, west, 0, -resolution, north),
    }
    shape = {"count": len(numbers), "height": numbers.shape[1], "width": numbers.shape[2], "dtype": numbers.dtype}
    with rasterio.open(path, "w", **shape, **profile) as dataset:
        dataset.write(numbers)
