"""Tiny towns: Sentinel-2 products with land use in squares, as lists of cities."""

import numpy as np
import shapely

from eo_keras.geo import polygons as vectors
from eo_keras.geo.polygons import Polygons
from tests.harness import products

SQUARE = 24
"""Edge of a square of one land use in pixels."""

CODES = ("11210", "31000", "12100", "21000")


def code_at(row, column):
    """Code of the square that a pixel lies in."""
    return CODES[(row // SQUARE + 2 * (column // SQUARE)) % len(CODES)]


def write_land_use(path, size, corner, *, codes=code_at, year=2018, crs=products.CRS, margin=0):
    """Writes the squares of a town in EPSG:3035; `margin` pixels along the edges have no land use."""
    boxes, values = [], []
    for row in range(0, size, SQUARE):
        for column in range(0, size, SQUARE):
            west, north = corner[0] + 10 * column, corner[1] - 10 * row
            boxes.append(shapely.box(west, north - 10 * SQUARE, west + 10 * SQUARE, north))
            values.append(codes(row, column))
    used = shapely.box(
        corner[0] + 10 * margin,
        corner[1] - 10 * (size - margin),
        corner[0] + 10 * (size - margin),
        corner[1] - 10 * margin,
    )
    clipped = shapely.intersection(np.array(boxes), used)
    keep = shapely.area(clipped) > 0
    polygons = Polygons(clipped[keep], np.array(values)[keep], crs, str(path))
    there = vectors.reprojected(polygons, "EPSG:3035")
    vectors.write_polygons(path, path.stem, there.geometries, {f"code_{year}": there.values}, "EPSG:3035")
    return path


def write_town(folder, name, *, place=0, size=96, bands=("B02", "B03", "B04", "B05"), vectors_of=None, **product):
    """Writes a product and its land use, 20 km east of the town before; returns the line of the list."""
    corner = (products.CORNER[0] + 20_000.0 * place, products.CORNER[1])
    product = {"date": "2018-07-01", "corner": corner} | product
    root = products.write_product(folder / name, size=size, bands=list(bands), **product)
    land = write_land_use(folder / f"{name}_UA2018.gpkg", size, corner, **(vectors_of or {}))
    return f"{name},{root.relative_to(folder)},{land.name},,"


def write_list(folder, *lines):
    path = folder / "cities.csv"
    path.write_text("\n".join(["name,scenes,vectors,split,area", *lines]) + "\n", encoding="utf-8")
    return path
