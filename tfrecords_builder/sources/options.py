"""Options that several sources share."""

from __future__ import annotations

from typing import Any

from eo_keras.core.options import option
from eo_keras.errors import OptionError


def archive() -> Any:
    """Declares `source`, the archive of a data set of patches."""
    return option(
        None,
        urls=True,
        help="Archive of EuroSAT, OMBRIA or footprints: a zip (read without unpacking) or a folder, with the data set "
        "at any depth in it. A path, or a URL of any file system that fsspec knows.",
    )


def tile_size() -> Any:
    """Declares `tile_size`, the size of the tiles that scenes or images are cut into."""
    return option(512, minimum=16, maximum=4096, help="Height and width of a tile in pixels.")


def stride() -> Any:
    """Declares `stride`, the distance of tiles."""
    return option(None, minimum=1, help="Pixels from one tile to the next, at most `tile_size`. Default: that size.")


def check_stride(stride: int | None, tile_size: int) -> None:
    """Checks that tiles leave no gaps.

    Raises:
        OptionError: if they do.
    """
    if stride is not None and stride > tile_size:
        raise OptionError("stride", f"{stride} pixels", f"1 to the tile's {tile_size}")


def required(name: str, value: Any, dataset: str) -> Any:
    """Returns a value after checking that it is given.

    Raises:
        OptionError: if it is not.
    """
    if not value:
        raise OptionError(name, "it is missing", f"what `dataset={dataset}` is built from")
    return value
