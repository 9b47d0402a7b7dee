"""Flags that hold paths: `~` stands for the home folder in all of them, for a shell leaves it alone behind `=`.

Some may hold URLs of other file systems too. In the others a URL is refused: as a path it would lose a slash, and mean
a folder that is not there.
"""

from __future__ import annotations

import os

from absl import flags

from eo_keras.core import files
from eo_keras.errors import StorageError

flags.disclaim_key_flags()  # The flags belong to the module that calls.


class PathParser(flags.ArgumentParser):
    """Reads a path, a pattern or a URL.

    Args:
        commas: whether it may be several, joined by commas.
        urls: whether it may be a URL of another file system.
    """

    def __init__(self, *, commas: bool = False, urls: bool = False):
        super().__init__()
        self._commas, self._urls = commas, urls

    def parse(self, argument: str) -> str:
        """Returns the path, `~` expanded; where it may be no URL, a `file://` URL as the path that it means.

        Raises:
            ValueError: if it begins with the name of a user who does not exist, or is a URL and may be none.
        """
        text = super().parse(argument)
        parts = text.split(",") if self._commas and not os.path.lexists(text) else [text]
        try:
            return ",".join(files.expand_home(part if self._urls else _local(part)) for part in parts)
        except StorageError as error:
            raise ValueError(f"{error}") from None

    def flag_type(self) -> str:
        """Returns what messages call its values."""
        return "path"


def _local(path: str) -> str:
    if "://" not in path:
        return path
    here = files.local(path)
    if here is None:
        raise ValueError("a URL, where a path on a disk of this machine is needed: copy it here, or mount the store")
    return os.fspath(here)


def define_path(name: str, default: str | None, text: str, *, urls: bool = False, **keywords) -> None:
    """Defines a flag that holds one path, as `flags.DEFINE_string` does for a text; with `urls`, a path or a URL."""
    flags.DEFINE(PathParser(urls=urls), name, default, text, serializer=flags.ArgumentSerializer(), **keywords)


def define_multi_path(name: str, default: str | None, text: str, *, commas: bool = False, **keywords) -> None:
    """Defines a flag that may be given several times, with a path each time; with `commas`, with several."""
    flags.DEFINE_multi(PathParser(commas=commas), flags.ArgumentSerializer(), name, default, text, **keywords)
