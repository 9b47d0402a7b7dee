"""What a folder holds, to compare before and after a command."""

import pathlib


def contents(folder):
    """Returns the bytes of all files below a folder by their paths; links are not followed."""
    folder = pathlib.Path(folder)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
