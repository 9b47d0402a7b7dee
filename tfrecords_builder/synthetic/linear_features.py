"""Linear features: rivers, highways, roads and railways, drawn onto painted ground by distance."""

from __future__ import annotations

import numpy as np

from eo_keras.legends.catalogue import EUROSAT
from tfrecords_builder.synthetic.painting import Painting, band

VERGE = 1.4
"""Width of the vegetated strip on each side of a highway, in pixels."""


def draw_river(
    painting: Painting, distance: np.ndarray, half_width: float, wood: np.ndarray, turbid: float
) -> np.ndarray:
    """Draws water between wooded banks.

    Args:
        painting: the painting that is drawn on.
        distance: from the river's middle, in pixels, float32 (height, width).
        half_width: of the water, in pixels.
        wood: noise in 0..1 that the width of the banks follows, float32 (height, width).
        turbid: share of turbid water.

    Returns:
        Which pixels are water, bool (height, width).
    """
    painting.overlay(band(distance, half_width + 1.5 + 2.0 * wood), tree=0.65, green=0.35)
    water = band(distance, half_width)
    painting.overlay(water, turbid=turbid, clear=1.0 - turbid)
    painting.classes[water > 0.5] = EUROSAT.label_of("River")
    return water > 0.5


def draw_highway(painting: Painting, distance: np.ndarray, half_width: float, light: float) -> np.ndarray:
    """Draws a road of two carriageways between vegetated verges.

    Args:
        painting: the painting that is drawn on.
        distance: from the road's middle, in pixels, float32 (height, width).
        half_width: of the road, in pixels.
        light: factor on what the carriageways reflect.

    Returns:
        Which pixels are road, bool (height, width).
    """
    painting.overlay(0.6 * band(distance, half_width + VERGE), light=0.9, tree=0.5, green=0.5)
    road = band(distance, half_width)
    painting.overlay(road, light=light, asphalt=0.72, bright=0.28)
    painting.overlay(band(distance, 0.15) * 0.8, light=0.85, green=0.3, asphalt=0.7)
    painting.classes[road > 0.5] = EUROSAT.label_of("Highway")
    return road > 0.5


def draw_road(painting: Painting, distance: np.ndarray, half_width: float) -> np.ndarray:
    """Draws a street or country road; arguments and value are those of `draw_highway`."""
    road = band(distance, half_width)
    painting.overlay(0.9 * road, light=1.08, asphalt=0.85, bright=0.15)
    return road > 0.5


def draw_railway(painting: Painting, distance: np.ndarray, half_width: float) -> np.ndarray:
    """Draws tracks on ballast with scrub beside them; arguments and value are those of `draw_highway`."""
    painting.overlay(0.5 * band(distance, half_width + 1.0), light=0.9, tree=0.3, dry=0.7)
    tracks = band(distance, half_width)
    painting.overlay(tracks, light=0.9, asphalt=0.5, darksoil=0.3, tile=0.2)
    return tracks > 0.5
