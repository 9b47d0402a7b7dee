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
        help="Archive of EuroSAT or OMBRIA: a zip (read without unpacking) or a folder, with the data set at any depth "
        "in it. A path, or a URL of any file system that fsspec knows.",
    )


def required(name: str, value: Any, dataset: str) -> Any:
    """Returns a value after checking that it is given.

    Raises:
        OptionError: if it is not.
    """
    if not value:
        raise OptionError(name, "it is missing", f"what `dataset={dataset}` is built from")
    return value
