"""Flags that hold paths: `~` stands for the home folder in all of them, for a shell leaves it alone behind `=`."""

from __future__ import annotations

import os

from absl import flags

from eo_keras import files
from eo_keras.errors import StorageError

flags.disclaim_key_flags()  # The flags belong to the module that calls.


class PathParser(flags.ArgumentParser):
    """Reads a path, a pattern or a URL.

    Args:
        commas: whether it may be several, joined by commas.
    """

    def __init__(self, *, commas: bool = False):
        """See the class."""
        super().__init__()
        self._commas = commas

    def parse(self, argument: str) -> str:
        """Returns the path, `~` expanded.

        Raises:
            ValueError: if it begins with the name of a user who does not exist.
        """
        text = super().parse(argument)
        parts = text.split(",") if self._commas and not os.path.lexists(text) else [text]
        try:
            return ",".join(map(files.expand_home, parts))
        except StorageError as error:
            raise ValueError(f"{error}") from None

    def flag_type(self) -> str:
        """Returns what messages call its values."""
        return "path"


def define_path(name: str, default: str | None, text: str, **keywords) -> None:
    """Defines a flag that holds one path, as `flags.DEFINE_string` does for a text."""
    flags.DEFINE(PathParser(), name, default, text, serializer=flags.ArgumentSerializer(), **keywords)


def define_multi_path(name: str, default: str | None, text: str, *, commas: bool = False, **keywords) -> None:
    """Defines a flag that may be given several times, with a path each time; with `commas`, with several."""
    flags.DEFINE_multi(PathParser(commas=commas), flags.ArgumentSerializer(), name, default, text, **keywords)
