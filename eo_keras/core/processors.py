"""Processors that this process may use, by its affinity and its control group."""

from __future__ import annotations

import os
import pathlib

ROOT = pathlib.Path("/")


def usable_cores(root: pathlib.Path = ROOT) -> float:
    """Returns how many cores this process may use, by its affinity and its control group's quota.

    Args:
        root: folder that `/proc` and `/sys` lie in.
    """
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    quotas = [(control_group(root, "", "cpu.max") or "").split()]
    quotas.append([control_group(root, "cpu", f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")])
    for quota in quotas:
        if len(quota) == 2 and all(value.isdigit() for value in quota):
            cores = min(cores, int(quota[0]) / int(quota[1]))
    return cores


def worker_count(root: pathlib.Path = ROOT) -> int:
    """Returns the number of processes or threads that keep the usable cores busy, at least 1."""
    return max(1, int(usable_cores(root)))


def control_group(root: pathlib.Path, controller: str, name: str) -> str | None:
    """Returns a file of this process's control group.

    Args:
        root: folder that `/proc` and `/sys` lie in.
        controller: a controller of version 1, such as `cpu`; empty for version 2.
        name: the file's name.

    Returns:
        Its text, or None where there is none.
    """
    for line in (text_of(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, inner = line.split(":", 2)
        if controller in controllers.split(","):
            # A container sees its own group at the top, though the path is still that of the machine.
            for folder in (root / "sys/fs/cgroup" / controller / inner.strip("/"), root / "sys/fs/cgroup" / controller):
                if (text := text_of(folder / name)) is not None:
                    return text.strip()
    return None


def text_of(path: pathlib.Path) -> str | None:
    """Returns the text of a file of the system, or None where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return None
