"""Labels of a city: masks of its land use, within the area of interest."""

from __future__ import annotations

import numpy as np
import shapely

from eo_keras.errors import SourceError
from eo_keras.geo import polygons as vectors
from eo_keras.geo.grid import Grid
from eo_keras.geo.polygons import Polygons
from eo_keras.geo.rasterize import Rasterizer
from eo_keras.legends.catalogue import IGNORE
from eo_keras.legends.crosswalk import code_map
from tfrecords_builder.sources.urban_atlas import land_use as urban_atlas
from tfrecords_builder.sources.urban_atlas.options import UrbanAtlasOptions
from tfrecords_builder.sources.urban_atlas.sites import Site

_INSIDE, _OUTSIDE = 1, 0


class LabelSource:
    """Labels of a city, `IGNORE` outside the area of interest.

    Args:
        land_use: the city's land use.
        area: polygons that bound what is used, in the same CRS; None for all.

    Attributes:
        bounds: smallest x, smallest y, largest x and largest y of what is used; NaN of nothing.
        classes: number of classes.
        year: the year of the land use, or None.
        polygons: number of its polygons.
        repaired: number of those with invalid rings.
    """

    def __init__(self, land_use: urban_atlas.LandUse, area: Polygons | None = None):
        self._land_use = land_use
        self.classes, self.year = len(land_use.code_map.legend), land_use.year
        self.polygons, self.repaired = land_use.count, land_use.repaired
        self._area, self.bounds = None, land_use.bounds
        if area is not None:
            self._area = Rasterizer(area.geometries, np.full(len(area), _INSIDE, np.uint8), _OUTSIDE)
            common = shapely.intersection(shapely.box(*self.bounds), shapely.box(*area.bounds))
            self.bounds = tuple(map(float, shapely.bounds(common)))

    def labels(self, grid: Grid) -> np.ndarray:
        """Returns the labels of a grid, uint8 (height, width)."""
        labels = self._land_use.labels(grid)
        if self._area is not None:
            labels[self._area.rasterize(grid) == _OUTSIDE] = IGNORE
        return labels


def open_labels(city: Site, options: UrbanAtlasOptions, crs: str) -> LabelSource:
    """Reads a city's land use and brings it to a CRS.

    Raises:
        SourceError: if the vectors cannot be used, hold an unknown code or no polygon.
        OptionError: if an option does not fit them.
        LegendError: if the legend's file is damaged.
    """
    land_use = urban_atlas.read_land_use(city.vectors, code_map(options.legend), crs, options.roads, options.label_year)
    if not land_use.count:
        raise SourceError(land_use.source, "it holds no polygon", "the land use of a city", "name another file")
    return LabelSource(land_use, _area(city, crs))


def _area(city: Site, crs: str) -> Polygons | None:
    if city.area is None:
        return None
    if isinstance(city.area, str):
        found = vectors.read_polygons(city.area, None)
    else:
        found = Polygons(np.array([shapely.box(*city.area)]), np.array([""]), "EPSG:4326", f"area of {city.name}")
    return vectors.reprojected(found, crs)
