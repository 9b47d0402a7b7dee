"""GDAL's cache of decoded blocks, as large as the files that are being read need it.

The cache is one for the process. Windows are read in rows from top to bottom: with two rows of each file's blocks in
it, none is decoded twice. A smaller one costs a JPEG 2000 product four times the time; GDAL's own default is 5 % of the
memory, whatever is read.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

SMALLEST, LARGEST = 64 << 20, 1 << 30
"""Least and most bytes of the cache."""

_VIRTUAL = 1024
"""Rows of the blocks that are assumed of a VRT's files, for its own are others."""

_lock = threading.Lock()
_needed: dict[object, int] = {}


def bytes_needed(dataset: Any, indexes: Sequence[int]) -> int:
    """Returns the bytes of two rows of an open file's blocks.

    Args:
        dataset: the file, opened by rasterio.
        indexes: numbers of the bands that are read, from 1.
    """
    if dataset.interleaving is not None and dataset.interleaving.value.lower() == "pixel":
        indexes = dataset.indexes  # Their blocks hold all bands.
    found = 0
    for index in indexes:
        height, width = dataset.block_shapes[index - 1]
        height = min(max(height, _VIRTUAL) if dataset.driver == "VRT" else height, dataset.height)
        found += 2 * height * -(-dataset.width // width) * width * np.dtype(dataset.dtypes[index - 1]).itemsize
    return found


@contextlib.contextmanager
def room_for(needed: int) -> Iterator[None]:
    """Makes the cache large enough for files that are open beside all others; a context manager.

    Args:
        needed: sum of their `bytes_needed`.
    """
    import rasterio

    key = object()
    with _lock:
        _needed[key] = needed
        total = sum(_needed.values())
    try:
        # rasterio takes bytes, where GDAL's own option would take megabytes.
        with rasterio.Env(GDAL_CACHEMAX=min(max(total, SMALLEST), LARGEST)):
            yield
    finally:
        with _lock:
            del _needed[key]
