"""Small class maps for tests."""

import json

import numpy as np
import rasterio
from rasterio.transform import Affine

from eo_keras.core import serialization
from eo_keras.geo.class_map import LEGEND_TAG
from eo_keras.geo.grid import Grid
from eo_keras.legends.catalogue import IGNORE, Legend, LegendClass

NAMES = ("Built", "Field", "Wood", "Water")
LEGEND = Legend("town", tuple(map(LegendClass, NAMES, ("#ff0000", "#ffffa8", "#00a600", "#0050c8"))))
GRID = Grid("EPSG:32632", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_400_000.0), 90, 130)


def patches(grid=GRID, seed=1, classes=4, size=9):
    """Labels in squares of some pixels, one class rarer than the other, with a corner of no data; uint8."""
    random = np.random.default_rng(seed)
    shares = np.arange(classes, 0, -1) / np.arange(classes, 0, -1).sum()
    coarse = random.choice(classes, (-(-grid.height // size), -(-grid.width // size)), p=shares)
    labels = np.kron(coarse, np.ones((size, size)))[: grid.height, : grid.width].astype(np.uint8)
    labels[: grid.height // 5, : grid.width // 6] = IGNORE
    return labels


def write_class_map(path, labels, grid=GRID, legend=LEGEND):
    """Writes a map as this program does, in blocks of 16 pixels."""
    tags = {LEGEND_TAG: json.dumps(serialization.to_json(legend))}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=grid.height,
        width=grid.width,
        count=1,
        dtype="uint8",
        crs=grid.crs,
        transform=Affine(*grid.transform),
        nodata=IGNORE,
        tiled=True,
        blockxsize=16,
        blockysize=16,
    ) as dataset:
        dataset.write(labels, 1)
        dataset.update_tags(**tags)
    return path
