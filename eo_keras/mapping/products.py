"""Products of a class map: polygons, areas of its classes, a quick look and a page."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping

import shapely

from eo_keras.core import files
from eo_keras.core.options import check, documented, option
from eo_keras.errors import OptionError, SourceError
from eo_keras.geo.class_map import bands_path, open_class_map
from eo_keras.geo.grid import Grid
from eo_keras.mapping import areas as class_areas
from eo_keras.mapping import page, polygonize
from eo_keras.plots import class_map as figures
from eo_keras.plots import html

_CONTENTS = {
    "map": "the map: a Cloud-Optimized GeoTIFF of the classes",
    "bands": "further bands: a Cloud-Optimized GeoTIFF",
    "names": "names of the classes, for GDAL and QGIS",
    "style": "colors of the classes, for QGIS",
    "areas": "area of each class",
    "zones": "area of each class by zone",
    "polygons": "polygons of the classes, with a style for QGIS",
    "quicklook": "picture of the map",
}
"""What the files hold, in a page's words."""


@documented
@dataclasses.dataclass(frozen=True)
class ProductOptions:
    """What is written beside a map."""

    polygons: bool = option(False, help="Write polygons of the classes as a GeoPackage, with a style for QGIS.")
    min_area_ha: float = option(
        0.0,
        minimum=0,
        help="Minimum mapping unit of the polygons in hectares: smaller regions join the neighboring class with the "
        "longest shared border. Needs `polygons`.",
    )
    simplify_m: float = option(
        0.0,
        minimum=0,
        help="Tolerance in meters for simplified polygons, whose borders stay shared; 1.5 pixels remove the stairs of "
        "pixels, 0 simplifies nothing. Needs `polygons`.",
    )
    areas: bool = option(False, help="Write the area of each class as CSV.")
    zones: str | None = option(
        None, path=True, help="Polygons in any CRS, such as districts; the area of each class is written for each too."
    )
    zone_field: str | None = option(
        None, help="Field that names the zones; without it they are numbered. Needs `zones`."
    )
    quicklook: bool = option(False, help="Draw the map as PNG, with legend, scale bar, north arrow and grid.")
    page: bool = option(False, help="Write an HTML page with the map, its areas, and how it was made.")

    def __post_init__(self):
        check(self)
        for name in ("min_area_ha", "simplify_m"):
            if getattr(self, name) and not self.polygons:
                raise OptionError(name, "it is given, but no polygons are to be written", "`polygons` with it")
        if self.zone_field is not None and self.zones is None:
            raise OptionError("zone_field", "it is given, but no zones are", "`zones` with it")


def paths(options: ProductOptions, folder: str | os.PathLike[str], stem: str) -> dict[str, pathlib.Path]:
    """Returns the files that `write_products` writes, by product."""
    written = {
        "areas": (options.areas or options.zones is not None, f"{stem}_areas.csv"),
        "zones": (options.zones is not None, f"{stem}_zones.csv"),
        "polygons": (options.polygons, f"{stem}.gpkg"),
        "quicklook": (options.quicklook, f"{stem}.png"),
        "page": (options.page, f"{stem}.html"),
    }
    return {product: pathlib.Path(folder) / name for product, (wanted, name) in written.items() if wanted}


def every_path(folder: str | os.PathLike[str], stem: str) -> list[pathlib.Path]:
    """Returns the files that `write_products` writes if all products are wanted."""
    every = ProductOptions(areas=True, zones="zones", polygons=True, quicklook=True, page=True)
    return list(paths(every, folder, stem).values())


def check_inputs(options: ProductOptions, grid: Grid) -> None:
    """Reads what `write_products` needs beside a map, before there is one.

    Raises:
        SourceError: if the zones cannot be read, or lie outside the map's grid.
    """
    if options.zones is None:
        return
    west, south, east, north = grid.bounds
    zones = class_areas.read_zones(options.zones, options.zone_field, grid)
    if not shapely.intersects(shapely.box(west, south, east, north), zones.geometries).any():
        raise SourceError(options.zones, "its zones lie outside the map", "zones on it", "check both places")


def write_products(
    class_map_path: str | os.PathLike[str],
    options: ProductOptions,
    destination_folder: str | os.PathLike[str],
    stem: str,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, pathlib.Path]:
    """Writes the products of a map.

    Args:
        class_map_path: the map.
        options: what to write.
        destination_folder: a folder that exists; files of the same names are replaced.
        stem: what the files' names begin with.
        progress: called with (stage, done, total).

    Returns:
        The files by product, those of `paths`.

    Raises:
        SourceError: if the map or the zones cannot be used.
        StorageError: if something cannot be written.
    """
    written = paths(options, destination_folder, stem)
    with open_class_map(class_map_path) as class_map:
        # First what may refuse its input.
        zones = areas = None
        if options.zones is not None:
            zones = class_areas.read_zones(options.zones, options.zone_field, class_map.grid)
        if set(written) - {"polygons"}:
            areas = class_areas.class_areas(class_map, zones, progress)
        if "areas" in written:
            files.write_bytes(written["areas"], areas.csv_bytes())
        if zones is not None:
            files.write_bytes(written["zones"], areas.zones_csv_bytes())
        if options.polygons:
            polygonize.write_polygons(class_map, written["polygons"], options.min_area_ha, options.simplify_m, progress)
        if options.quicklook or options.page:
            title, attribution = page.title_of(class_map, stem), page.attribution_of(class_map)
            labels = class_map.read_small(figures.LONGEST)
            png = figures.class_map_png(labels, class_map.grid, class_map.legend, title, attribution, areas.shares)
            if options.quicklook:
                files.write_bytes(written["quicklook"], png)
            if options.page:
                described = _described(pathlib.Path(class_map_path), written)
                text = html.render(page.make_page(class_map, stem, png, areas, described))
                files.write_bytes(written["page"], text.encode("utf-8"))
    return written


def _described(path: pathlib.Path, written: Mapping[str, pathlib.Path]) -> dict[pathlib.Path, str]:
    """Returns the contents of the files of a map and its products, without the page itself."""
    own = {"map": path, "bands": bands_path(path), "names": path.with_name(f"{path.name}.aux.xml")}
    own["style"] = path.with_suffix(".qml")
    found = {name: file for name, file in own.items() if file.is_file()} | dict(written)
    return {file: _CONTENTS[name] for name, file in found.items() if name != "page"}
