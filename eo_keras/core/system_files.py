"""Files that operating systems and tools leave beside data, which are never part of a data set."""

from __future__ import annotations

import re

_NAMES = re.compile(
    r"\.|__MACOSX$|Thumbs\.db$|ehthumbs(_vista)?\.db$|desktop\.ini$|\$RECYCLE\.BIN$|System Volume Information$|@eaDir$"
    r"|#(recycle|snapshot)$|lost\+found$|Icon\r$|~\$|.*~$|.*\.(aux\.xml|ovr|lock|lck|swp)$",
    re.IGNORECASE,
)
"""Names that begin with a dot (`._a.tif`, `.DS_Store`, `.ipynb_checkpoints`, `.~lock.a#`); what macOS, Windows, network
drives and editors write; and GDAL's files of statistics and overviews beside an image."""


def is_litter(path: str) -> bool:
    """Returns whether a file, or a folder that it lies in, is litter.

    Args:
        path: the file's path inside its source, with forward slashes; not the path of the source itself.
    """
    return any(map(_NAMES.match, filter(None, path.split("/"))))
