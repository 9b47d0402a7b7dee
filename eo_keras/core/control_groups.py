"""Control groups of this process, whose limits of processors and memory hold for it; Linux alone has them."""

from __future__ import annotations

import pathlib

ROOT = pathlib.Path("/")
"""Folder that `/proc` and `/sys` lie in."""


def texts(root: pathlib.Path, controller: str, *names: str) -> list[tuple[str, ...]]:
    """Returns files of this process's control group and of all above it: batch systems limit a job, not its tasks.

    Args:
        root: folder that `/proc` and `/sys` lie in.
        controller: a controller of version 1, such as `cpu`; empty for version 2.
        names: the files' names.

    Returns:
        The texts of the files of each group, from its own to the top; empty where there are none.
    """
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, controllers, inner = line.split(":", 2)
        if controller in controllers.split(","):
            # A container sees its own group at the top, though the path is still that of the machine.
            top = root / "sys/fs/cgroup" / controller
            folders = [top / inner.strip("/")]
            while folders[-1] != top:
                folders.append(folders[-1].parent)
            return [tuple(text_of(folder / name).strip() for name in names) for folder in folders]
    return []


def text_of(path: pathlib.Path) -> str:
    """Returns the text of a file of the system, empty where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
