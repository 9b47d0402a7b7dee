"""Classes of the signed distance from the boundaries of objects, as a second label of every pixel.

A network that learns them beside the mask sees how far a pixel is from an outline, and draws sharper ones (Bischke,
Helber, Folz, Borth, Dengel: "Multi-Task Learning for Segmentation of Building Footprints with Deep Neural Networks",
ICIP 2019, section 3.1).

The boundary runs between pixels: along the edges that a pixel of an object shares with a pixel that belongs to none.
The distance of a pixel is that of its center from the nearest point of the boundary, in pixels, positive inside and
negative outside. So it is never 0: on both sides of a straight boundary it is 0.5, 1.5, 2.5 and so on.

With R for `truncation`, K for `classes` and a class width of w = 2R / K pixels, the class of a distance d is

    (K - 1) / 2 + sign(d) * min(floor(|d| / w + 1/2), (K - 1) / 2)

The middle class holds the pixels on both sides of the boundary that are nearer than w / 2; smaller classes lie outside,
larger ones inside, and the two extreme ones hold everything from R - w on. The classes of exchanged inside and outside
are mirrored.

The border of a tile is no boundary, and nor is the border of an area whose class is not known (`IGNORE`): what lies
beyond them is not known, and distances are those from the boundaries that are. So a distance near them is the largest
that is possible. A tile without any boundary is as far as can be: all in an extreme class.
"""

from __future__ import annotations

import numpy as np

from eo_keras.legends.catalogue import IGNORE
from eo_keras.records.targets import DistanceClasses


def signed_distances(mask: np.ndarray, label: int) -> np.ndarray:
    """Computes each pixel's exact distance from the boundaries of the objects, in pixels.

    Args:
        mask: uint8 (height, width), labels or `IGNORE`.
        label: label of the objects.

    Returns:
        float64 (height, width), positive inside objects, negative outside, infinite where there is no boundary; NaN
        where the label is not known.
    """
    inside, known = mask == label, mask != IGNORE
    # On a lattice of half pixels, centers have odd places, and edges and corners the others. The point of an edge
    # that is nearest to a center is its middle or one of its ends, so that these stand for the whole edge.
    rows, columns = mask.shape
    distant = np.ones((2 * rows + 1, 2 * columns + 1), bool)
    beside = (inside[:, 1:] != inside[:, :-1]) & known[:, 1:] & known[:, :-1]
    above = (inside[1:] != inside[:-1]) & known[1:] & known[:-1]
    for step in range(3):
        distant[step : step + 2 * rows : 2, 2:-2:2] &= ~beside
        distant[2:-2:2, step : step + 2 * columns : 2] &= ~above
    if distant.all():
        distances = np.full(mask.shape, np.inf)
    else:
        from scipy import ndimage  # takes a third of a second, and every command reads the sources

        distances = ndimage.distance_transform_edt(distant)[1::2, 1::2] / 2
    return np.where(known, np.where(inside, distances, -distances), np.nan)


def distance_classes(mask: np.ndarray, label: int, kind: DistanceClasses) -> np.ndarray:
    """Returns the class of each pixel's distance from the boundaries of the objects.

    Args:
        mask: uint8 (height, width), labels or `IGNORE`.
        label: label of the objects.
        kind: truncation and number of classes.

    Returns:
        uint8 (height, width), 0 far outside to `kind.classes - 1` far inside; `IGNORE` where the label is not known.
    """
    distances, middle = signed_distances(mask, label), kind.classes // 2
    known = ~np.isnan(distances)
    steps = np.minimum(np.abs(distances[known]), kind.truncation) / (2 * kind.truncation / kind.classes)
    found = np.full(mask.shape, IGNORE, np.uint8)
    found[known] = middle + np.sign(distances[known]) * np.minimum(np.floor(steps + 0.5), middle)
    return found
