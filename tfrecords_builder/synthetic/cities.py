"""Synthetic cities: Sentinel-2 products, Urban Atlas packages and OpenStreetMap extracts.

All three are cut from the same land cover. The list of cities that comes with them is what launch.build takes.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib
from collections.abc import Callable

import numpy as np

from eo_keras.core import files
from eo_keras.errors import OptionError
from eo_keras.geo import polygons as vectors
from eo_keras.geo.grid import Grid
from eo_keras.geo.polygons import Polygons
from eo_keras.legends.crosswalk import TITLES
from tfrecords_builder.synthetic.city_plan import CODES, STAGES
from tfrecords_builder.synthetic.city_world import CityOptions, CityWorld
from tfrecords_builder.synthetic.openstreetmap import OsmOptions, write_openstreetmap
from tfrecords_builder.synthetic.product_metadata import ProductOptions
from tfrecords_builder.synthetic.products import grid_of, write_product
from tfrecords_builder.synthetic.sensor import BLOCK
from tfrecords_builder.synthetic.world import ORIGIN

YEAR = 2018

NAMES = ("ALDERFORD", "BRINEHAVEN", "COLDMERE", "DUNWICK", "ELMSTEAD", "FARNLEIGH", "GREYCLIFF", "HOLLOWBY")

DATES = (
    # One product from before offsets were added, one reprocessed with one: the ground is the same.
    ProductOptions(sensing=datetime.datetime(2018, 7, 1, 10, 10, 21), baseline="02.06"),
    ProductOptions(sensing=datetime.datetime(2019, 8, 15, 10, 20, 31), baseline="05.00", satellite="S2B"),
)

_LEAST_PIXELS = 25  # 0.25 ha, Urban Atlas's smallest areas.
_CHANGED = "2021-06-01T00:00:00Z"  # Any fixed time: the same seed must give the same bytes.
_APART_M = 60_000.0


@dataclasses.dataclass(frozen=True)
class CityFiles:
    """Files of one city.

    Attributes:
        name: its name.
        products: SAFE folders, by date.
        urban_atlas: the GeoPackage of its land use.
        osm: the GeoPackage of OpenStreetMap's lines and areas.
    """

    name: str
    products: tuple[pathlib.Path, ...]
    urban_atlas: pathlib.Path
    osm: pathlib.Path


def write_cities(
    folder: str | os.PathLike[str],
    count: int = 3,
    *,
    size: int = 1020,
    seed: int = 1,
    dates: tuple[ProductOptions, ...] = DATES,
    zones: tuple[int, ...] = (33,),
    progress: Callable[[int], None] | None = None,
) -> pathlib.Path:
    """Writes cities, and the list of them.

    Args:
        folder: a new or empty folder.
        count: number of cities, at most 8; they lie 60 km apart.
        size: edge of each in pixels, a multiple of 6.
        seed: everything random.
        dates: options of the product of each acquisition.
        zones: UTM zones that the cities lie in, by turns.
        progress: called with 1 after every city.

    Returns:
        The list, `cities.csv`.

    Raises:
        OptionError: if the count is out of range, or the folder is not empty.
        StorageError: if it cannot be written.
    """
    folder = pathlib.Path(folder)
    if not 1 <= count <= len(NAMES):
        raise OptionError("cities", f"{count}", f"1 to {len(NAMES)}")
    if folder.exists() and any(folder.iterdir()):
        raise OptionError(folder, "it is not empty", "a new or empty folder", "choose another folder")
    lines = ["name,scenes,vectors,split,area"]
    for number in range(count):
        origin = (ORIGIN[0] + _APART_M * (number % 4), ORIGIN[1] - _APART_M * (number // 4))
        zone = zones[number % len(zones)]
        options = CityOptions(seed=seed * len(NAMES) + number, size=size, zone=zone, origin=origin)
        written = write_city(folder / NAMES[number].lower(), NAMES[number], f"XX{number + 1:03d}L1", options, dates)
        scenes = ";".join(str(path.relative_to(folder)) for path in written.products)
        lines.append(f"{written.name},{scenes},{written.urban_atlas.relative_to(folder)},,")
        if progress:
            progress(1)
    files.write_text(folder / "cities.csv", "\n".join(lines) + "\n")
    return folder / "cities.csv"


def write_city(
    folder: str | os.PathLike[str],
    name: str,
    code: str,
    options: CityOptions,
    dates: tuple[ProductOptions, ...] = DATES,
    *,
    changing: bool = False,
    map_options: OsmOptions | None = None,
) -> CityFiles:
    """Writes a city's products, its Urban Atlas package and its OpenStreetMap extract.

    Args:
        folder: the output folder.
        name: the city's name.
        code: code of its functional urban area, such as `XX001L1`.
        options: options of the city; acquisitions are counted from the options'.
        dates: options of the product of each acquisition.
        changing: whether a few woods have been cut and works built by the last date; the land use is that before.
        map_options: options of the OpenStreetMap extract; None for the defaults.

    Raises:
        OptionError: if there is a product of a date already.
        StorageError: if they cannot be written.
    """
    folder = pathlib.Path(files.make_folder(folder))
    products = []
    for number, date in enumerate(dates):
        day = dataclasses.replace(
            options,
            acquisition=options.acquisition + number,
            surface=date.level == "L2A",
            stage=STAGES - 1 if changing and number == len(dates) - 1 else options.stage,
        )
        products.append(write_product(folder, CityWorld(day), date))
    places, grid = land_use(CityWorld(options))
    urban_atlas = folder / f"{code}_{name}_UA{YEAR}_v013.gpkg"
    _write_urban_atlas(urban_atlas, f"{code}_{name}_UA{YEAR}", name, code, places, grid)
    osm = folder / f"{name.lower()}_osm.gpkg"
    write_openstreetmap(osm, CityWorld(options), places, grid, _CHANGED, map_options)
    return CityFiles(name, tuple(products), urban_atlas, osm)


def land_use(world: CityWorld) -> tuple[np.ndarray, Grid]:
    """Returns a city's land use as mapped: areas below 0.25 ha are merged into their largest neighbor.

    Returns:
        uint8 (size, size), places in `city_plan.CODES`, and the grid.
    """
    from rasterio.features import sieve

    codes = np.empty((world.size, world.size), np.int32)
    for row in range(0, world.size, BLOCK):
        height = min(BLOCK, world.size - row)
        codes[row : row + height] = world.codes(row, 0, height, world.size)
    places = np.searchsorted(sorted(CODES), codes)
    places = np.array([CODES.index(code) for code in sorted(CODES)], np.uint8)[places]
    return sieve(places, _LEAST_PIXELS, connectivity=4), grid_of(world)


def _write_urban_atlas(path: pathlib.Path, layer: str, name: str, code: str, places: np.ndarray, grid: Grid) -> None:
    import shapely

    geometries, labels = vectors.trace(places, grid, ignore=CODES.index(0))
    codes = np.array([f"{CODES[label]}" for label in labels])
    traced = vectors.reprojected(Polygons(geometries, codes, grid.crs, layer), "EPSG:3035")
    count = len(codes)

    def repeated(text: str) -> np.ndarray:
        return np.full(count, text)

    fields = {
        "country": repeated("XX"),
        "fua_name": repeated(name),
        "fua_code": repeated(code),
        f"code_{YEAR}": codes,
        f"class_{YEAR}": np.array([TITLES[one] for one in codes]),
        "prod_date": repeated("2020-05"),
        "identifier": np.array([f"{number}-{code}" for number in range(1, count + 1)]),
        "perimeter": shapely.length(traced.geometries),
        "area": shapely.area(traced.geometries),
        "comment": repeated(""),
    }
    vectors.write_polygons(path, layer, traced.geometries, fields, "EPSG:3035", _CHANGED)
    boundary = shapely.union_all(traced.geometries)
    about = {"country": ["XX"], "fua_name": [name], "fua_code": [code], "area": np.array([shapely.area(boundary)])}
    vectors.write_polygons(path, f"{layer}_Boundary", np.array([boundary]), about, "EPSG:3035", _CHANGED)
