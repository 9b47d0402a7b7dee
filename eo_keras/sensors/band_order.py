"""Check of the order of Sentinel-2's 13 bands on the data, for files that carry no band names."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from eo_keras.sensors import sentinel2

CIRRUS_CONTRAST = 4.0
"""Smallest ratio of the next band's mean to that of B10: 61 over 466 patches, 7.9 over sea alone."""

GUARD_MIN_IMAGES = 20
"""Number of images below which the check warns instead of refusing."""


def band_order_problem(means: np.ndarray, bands: tuple[str, ...]) -> str | None:
    """Checks by the bands' means that B10 (cirrus) has its place in the stored order.

    B10 sees almost nothing but high clouds: in Level-1C scenes without cirrus it is by far the darkest band.

    Args:
        means: mean digital number of each band (13,) over all images, in the order found.
        bands: the names that the positions should have.

    Returns:
        None if the order holds, else a sentence about the order that the data seem to have.
    """
    order = np.argsort(means)
    darkest, contrast = int(order[0]), float(means[order[1]] / max(means[order[0]], 1e-9))
    measured = f"the darkest band is number {darkest + 1} (mean {means[darkest]:.1f}, the next {means[order[1]]:.1f})"
    if contrast < CIRRUS_CONTRAST:
        return f"{measured}: no band looks like B10 (cirrus), so these seem not to be the 13 bands of Level-1C"
    if bands[darkest] == "B10":
        return None
    known = defaultdict(list)
    for title, names in (
        ("Sentinel-2's nominal order, with B8A in ninth place", sentinel2.NOMINAL_ORDER),
        ("that nominal order reversed", sentinel2.NOMINAL_ORDER[::-1]),
        ("the stored order reversed", bands[::-1]),
    ):
        known[names.index("B10")].append(title)
    seems = " or ".join(known[darkest]) or "no order known here"
    return f"{measured}, which should be B10 (cirrus) in place {bands.index('B10') + 1}: it seems to be {seems}"
