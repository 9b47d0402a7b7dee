"""Areas of a map's classes in hectares: of the whole map, and within zones.

A pixel counts with its area on the ground (`eo_keras.geo.pixel_areas`), and belongs to a zone if the zone holds its
center. Of two zones that share a border exactly one has a pixel whose center lies on it; zones may overlap.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Callable

import numpy as np

from eo_keras.errors import SourceError
from eo_keras.geo import pixel_areas
from eo_keras.geo.class_map import ClassMap
from eo_keras.geo.grid import Grid
from eo_keras.geo.polygons import Polygons, read_polygons, reprojected
from eo_keras.geo.rasterize import Rasterizer
from eo_keras.legends.catalogue import Legend

NO_DATA = "no data"

_LABELS = 256
_MOST_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Areas:
    """Areas of classes.

    Attributes:
        legend: the classes.
        nodata: label of pixels without a class.
        pixels: int64 (256,), number of pixels by label.
        hectares: float64 (256,), their area by label.
        zones: names of Z zones.
        zone_pixels: int64 (Z, 256), number of pixels by zone and label.
        zone_hectares: float64 (Z, 256), their area.
        notes: sentences about zones that the map does not cover.
    """

    legend: Legend
    nodata: int
    pixels: np.ndarray
    hectares: np.ndarray
    zones: tuple[str, ...] = ()
    zone_pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, _LABELS), np.int64))
    zone_hectares: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, _LABELS)))
    notes: tuple[str, ...] = ()

    @property
    def shares(self) -> np.ndarray:
        """Shares of the classes in the area that has a class; float64 (classes,), 0 where nothing has one."""
        return _shares(self.hectares[: len(self.legend)])

    def csv_bytes(self) -> bytes:
        """Returns a table with a row for each class and one for no data: class_id, class, area_ha, share, pixels."""
        return _table([[]], (), self.pixels[None], self.hectares[None], self)

    def zones_csv_bytes(self) -> bytes:
        """Returns the same table with the zone in its first column; shares are those in the zone."""
        return _table([[name] for name in self.zones], ("zone",), self.zone_pixels, self.zone_hectares, self)


def read_zones(path: str | os.PathLike[str], field: str | None, grid: Grid) -> Polygons:
    """Reads zones in the CRS of a map, polygons of the same name as one.

    Args:
        path: any vectors that `read_polygons` reads.
        field: name of the field of their names, in either case; None to number them from 1.
        grid: the map's grid.

    Raises:
        SourceError: see `read_polygons` and `reprojected`.
    """
    import shapely

    zones = read_polygons(path, None if field is None else re.escape(field))
    names = zones.values if field is not None else np.arange(1, len(zones) + 1).astype(str)
    zones = reprojected(zones, grid.crs)
    found, first, place = np.unique(names, return_index=True, return_inverse=True)
    if len(found) < len(names):
        joined = [shapely.union_all(zones.geometries[place == number]) for number in range(len(found))]
        geometries = np.empty(len(found), object)
        geometries[:] = joined
        order = np.argsort(first)
        return dataclasses.replace(zones, geometries=geometries[order], values=found[order])
    return dataclasses.replace(zones, values=names)


def class_areas(
    class_map: ClassMap, zones: Polygons | None = None, progress: Callable[[str, int, int], None] | None = None
) -> Areas:
    """Adds up the areas of a map's classes, in bands of rows.

    Args:
        class_map: the map.
        zones: zones in its CRS, as `read_zones` returns them.
        progress: called with (stage, rows done, rows in all).

    Raises:
        SourceError: if the map is damaged, or no zone holds a pixel of it.
    """
    grid = class_map.grid
    layers = [] if zones is None else _layers(zones.geometries)
    count = 0 if zones is None else len(zones)
    rasterizers = [Rasterizer(zones.geometries[layer], np.zeros(len(layer), np.uint8)) for layer in layers]
    pixels, hectares = np.zeros(_LABELS, np.int64), np.zeros(_LABELS)
    zone_pixels, zone_hectares = np.zeros((count, _LABELS), np.int64), np.zeros((count, _LABELS))
    for row, height in class_map.row_bands():
        labels = class_map.read(row, 0, height, grid.width)
        areas = pixel_areas.row_areas(grid, range(row, row + height))
        pixels += np.bincount(labels.ravel(), minlength=_LABELS)
        hectares += pixel_areas.areas_by_label(labels, areas)
        for layer, rasterizer in zip(layers, rasterizers, strict=True):
            owners = rasterizer.owners(grid.window(row, 0, height, grid.width))
            inside = owners >= 0
            keys = owners[inside].astype(np.int64) * _LABELS + labels[inside]
            counted = np.bincount(keys, minlength=len(layer) * _LABELS)
            weighed = np.bincount(keys, np.broadcast_to(areas, labels.shape)[inside], len(layer) * _LABELS)
            zone_pixels[layer] += counted.reshape(-1, _LABELS)
            zone_hectares[layer] += weighed.reshape(-1, _LABELS)
        if progress:
            progress("adding up areas", row + height, grid.height)
    if zones is None:
        return Areas(class_map.legend, class_map.nodata, pixels, hectares)
    if not zone_pixels.any():
        raise SourceError(
            zones.source,
            f"none of its polygons holds a pixel of {class_map.path}",
            "zones on the map",
            "name zones where the map lies",
        )
    notes = _notes(zones, zone_pixels, class_map)
    return Areas(
        class_map.legend, class_map.nodata, pixels, hectares, tuple(zones.values), zone_pixels, zone_hectares, notes
    )


def _layers(geometries: np.ndarray) -> list[np.ndarray]:
    """Divides polygons into sets without overlaps, since of overlapping ones the last has a pixel; their places."""
    import shapely

    one, other = shapely.STRtree(geometries).query(geometries, predicate="intersects")
    later = one > other
    one, other = one[later], other[later]
    overlap = ~shapely.touches(geometries[one], geometries[other])
    one, other = one[overlap], other[overlap]
    layer = np.zeros(len(geometries), np.int64)
    for place in range(len(geometries)):
        taken = layer[other[one == place]]
        layer[place] = next(number for number in range(len(taken) + 1) if number not in taken)
    return [np.flatnonzero(layer == number) for number in range(int(layer.max()) + 1)]


def _notes(zones: Polygons, pixels: np.ndarray, class_map: ClassMap) -> tuple[str, ...]:
    import shapely

    grid = class_map.grid
    corners = [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)]
    extent = shapely.Polygon([grid.coordinates(*corner) for corner in corners])
    inside = shapely.covers(extent, zones.geometries)
    classed = np.delete(pixels, class_map.nodata, axis=1).any(axis=1)
    notes = []
    if (cut := zones.values[~inside & classed]).size:
        notes.append(f"{_listed(cut)}: reaching beyond the map; what lies outside is not counted")
    if (empty := zones.values[~classed]).size:
        notes.append(f"{_listed(empty)}: without a pixel that has a class")
    return tuple(notes)


def _listed(names: np.ndarray) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{'zone' if len(names) == 1 else 'zones'} {', '.join(names[:_MOST_NAMED])}{more}"


def _shares(hectares: np.ndarray) -> np.ndarray:
    return hectares / max(float(hectares.sum()), np.finfo(float).tiny)


def _table(
    before: list[list[str]], heads: tuple[str, ...], pixels: np.ndarray, hectares: np.ndarray, areas: Areas
) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*heads, "class_id", "class", "area_ha", "share", "pixels"])
    names = areas.legend.class_names
    for cells, counts, sizes in zip(before, pixels, hectares, strict=True):
        for label, (name, share) in enumerate(zip(names, _shares(sizes[: len(names)]), strict=True)):
            writer.writerow([*cells, label, name, f"{sizes[label]:.4f}", f"{share:.6f}", counts[label]])
        writer.writerow([*cells, areas.nodata, NO_DATA, f"{sizes[areas.nodata]:.4f}", "", counts[areas.nodata]])
    return text.getvalue().encode("utf-8")
