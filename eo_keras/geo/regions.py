"""Connected regions of label arrays: their numbers, and a minimum mapping unit.

Pixels are connected by their edges. Everything is computed on runs, the stretches of equal labels in a row, with
arrays of runs and of borders between them.
"""

from __future__ import annotations

import numpy as np

from eo_keras.geo.footprints import joined
from eo_keras.legends.catalogue import IGNORE

_TOLERANCE = 1e-9
"""Relative tolerance of areas, which are sums of floating-point numbers."""

_MIX = 2_654_435_761  # Odd, so that numbers below 2**32 stay different modulo 2**32.


def number_regions(labels: np.ndarray, ignore: int = IGNORE) -> tuple[np.ndarray, int]:
    """Numbers the connected regions of equal labels.

    Args:
        labels: uint8 (height, width).
        ignore: label of pixels of no region.

    Returns:
        int32 (height, width), the region of each pixel in the order of their first pixels, or -1; and their number.
    """
    starts, counts, pairs, _ = _runs(labels)
    of_run = labels.ravel()[starts]
    numbers = joined(starts.size, pairs[of_run[pairs[:, 0]] == of_run[pairs[:, 1]]])
    known = of_run != ignore
    # `joined` numbers in the order of the first runs; those of the ignored label are taken out.
    used = np.zeros(int(numbers.max()) + 1, bool)
    used[numbers[known]] = True
    compact = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)
    return np.repeat(compact[numbers], counts).reshape(labels.shape), int(used.sum())


def merge_small(
    labels: np.ndarray,
    areas: np.ndarray,
    least: float,
    cut: tuple[bool, bool, bool, bool] = (False, False, False, False),
    ignore: int = IGNORE,
) -> np.ndarray:
    """Merges regions below a minimum area with their neighbors.

    The smallest region comes first. It takes the class with which it shares the longest border, counted in edges of
    pixels over all its neighbors of that class (of several such classes the one with the smallest label), and so
    joins them. This is repeated until no region is too small, but for those that border on nothing but pixels of the
    ignored label and the edge. Regions that do not touch are taken together, so that the order of the pixels matters
    for regions of equal area only.

    Args:
        labels: uint8 (height, width).
        areas: areas of pixels, (height, 1) or (height, width).
        least: the minimum area, in the same unit.
        cut: whether the array continues beyond its first row, last row, first column and last column. Regions at such
            an edge have an unknown area and keep their class.
        ignore: label of pixels that belong to no region; they stay.

    Returns:
        uint8 (height, width).
    """
    starts, counts, pairs, borders = _runs(labels)
    of_run = labels.ravel()[starts]
    equal = of_run[pairs[:, 0]] == of_run[pairs[:, 1]]
    region_of_run = joined(starts.size, pairs[equal])
    number = int(region_of_run.max()) + 1
    classes = np.zeros(number, np.int64)
    classes[region_of_run] = of_run
    area = np.bincount(region_of_run, _run_areas(areas, starts, counts, labels.shape), number)
    fixed = classes == ignore
    fixed[region_of_run[_at_cut(starts, counts, labels.shape, cut)]] = True
    # Pixels without a class are nobody's neighbors.
    between = ~equal & (of_run[pairs[:, 0]] != ignore) & (of_run[pairs[:, 1]] != ignore)
    pairs, borders = _summed(region_of_run[pairs[between]], borders[between], number)
    final = np.arange(number)
    while True:
        source, other = np.concatenate([pairs, pairs[:, ::-1]]).T
        small = (area < least * (1 - _TOLERANCE)) & ~fixed
        if not small[source].any():
            break
        # A region waits for smaller ones beside it. The mixed numbers keep equal ones from waiting in long rows.
        rank = np.empty(number, np.int64)
        rank[np.lexsort((np.arange(number) * _MIX % 2**32, area))] = np.arange(number)
        ready = small.copy()
        ready[source[small[source] & small[other] & (rank[other] < rank[source])]] = False
        here = ready[source]
        source, other, length = source[here], other[here], np.concatenate([borders, borders])[here]
        chosen, taken = _longest(source, classes[other], length)
        classes[chosen] = taken
        meets = classes[other] == classes[source]
        joins = joined(number, np.stack([source[meets], other[meets]], axis=1))
        final, number = joins[final], int(joins.max()) + 1
        area = np.bincount(joins, area, number)
        fixed = np.bincount(joins, fixed, number) > 0
        classes_before, classes = classes, np.empty(number, np.int64)
        classes[joins] = classes_before
        pairs, borders = _summed(joins[pairs], borders, number)
    return np.repeat(classes[final[region_of_run]].astype(np.uint8), counts).reshape(labels.shape)


def _runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the first pixel and the length of each run, pairs of runs that touch, and the edges that they share."""
    flat, width = labels.ravel(), labels.shape[1]
    begins = np.ones(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::width] = True
    starts = np.flatnonzero(begins)
    counts = np.diff(starts, append=flat.size)
    beside = np.flatnonzero(starts[1:] % width)
    # Between two rows, a stretch ends where a run of either ends.
    below = np.flatnonzero(begins[width:] | begins[:-width]) + width
    of_pixel = np.cumsum(begins, dtype=np.int32) - 1
    pairs = np.concatenate(
        [np.stack([beside, beside + 1], axis=1), np.stack([of_pixel[below - width], of_pixel[below]], axis=1)]
    )
    borders = np.concatenate([np.ones(beside.size, np.int64), np.diff(below, append=flat.size)])
    return starts, counts, pairs, borders


def _run_areas(areas: np.ndarray, starts: np.ndarray, counts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if areas.shape[1] == 1:
        return areas[starts // shape[1], 0] * counts
    return np.add.reduceat(areas.ravel(), starts)


def _at_cut(
    starts: np.ndarray, counts: np.ndarray, shape: tuple[int, ...], cut: tuple[bool, bool, bool, bool]
) -> np.ndarray:
    """Returns which runs lie at an edge beyond which the array continues."""
    rows, columns = np.divmod(starts, shape[1])
    first_row, last_row, first_column, last_column = cut
    return (
        (first_row & (rows == 0))
        | (last_row & (rows == shape[0] - 1))
        | (first_column & (columns == 0))
        | (last_column & (columns + counts == shape[1]))
    )


def _summed(pairs: np.ndarray, lengths: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns each pair of different regions once, with the sum of its lengths."""
    differ = pairs[:, 0] != pairs[:, 1]
    pairs, lengths = pairs[differ], lengths[differ]
    keys = pairs.min(axis=1, initial=number) * number + pairs.max(axis=1, initial=0)
    keys, lengths = _totals(keys, lengths)
    return np.stack(np.divmod(keys, number), axis=1), lengths


def _totals(keys: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each key once, sorted, with the sum of its lengths."""
    if not keys.size:
        return keys, lengths
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return keys[first], np.add.reduceat(lengths[order], first)


def _longest(regions: np.ndarray, classes: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each region once, with the class of the longest border; of several such classes the smallest."""
    keys, totals = _totals(regions * 256 + classes, lengths)
    regions, classes = np.divmod(keys, 256)
    order = np.lexsort((classes, -totals, regions))
    first = order[np.append(True, np.diff(regions[order]) > 0)]
    return regions[first], classes[first]
