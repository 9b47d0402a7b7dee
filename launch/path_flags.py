"""Flags of paths, in which `~` is the home folder; a shell does not expand it after `=`.

Some may hold URLs of other file systems too. The others refuse a URL, which as a path would lose a slash.
"""

from __future__ import annotations

import os

from absl import flags

from eo_keras.core import files
from eo_keras.errors import StorageError

flags.disclaim_key_flags()  # The flags belong to the module that calls.


class PathParser(flags.ArgumentParser):
    """Parser of a path, a pattern or a URL.

    Args:
        commas: whether a value may be several, joined by commas.
        urls: whether a value may be a URL of another file system.
    """

    def __init__(self, *, commas: bool = False, urls: bool = False):
        super().__init__()
        self._commas, self._urls = commas, urls

    def parse(self, argument: str) -> str:
        """Returns the path, `~` expanded; a `file://` URL becomes a path where URLs are refused.

        Raises:
            ValueError: if it begins with the name of a user who does not exist, or is a URL that is refused.
        """
        text = super().parse(argument)
        parts = text.split(",") if self._commas and not os.path.lexists(text) else [text]
        try:
            return ",".join(files.expand_home(part if self._urls else _local(part)) for part in parts)
        except StorageError as error:
            raise ValueError(f"{error}") from None

    def flag_type(self) -> str:
        """Returns the name of such values in messages."""
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
