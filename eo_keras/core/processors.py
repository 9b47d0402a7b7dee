"""Processors that this process may use, by its affinity and its control groups."""

from __future__ import annotations

import os
import pathlib

from eo_keras.core import control_groups
from eo_keras.core.control_groups import ROOT


def usable_cores(root: pathlib.Path = ROOT) -> float:
    """Returns how many cores this process may use, by its affinity and its control groups' quotas.

    Args:
        root: folder that `/proc` and `/sys` lie in.
    """
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    quotas = [text.split() for (text,) in control_groups.texts(root, "", "cpu.max")]
    quotas += control_groups.texts(root, "cpu", "cpu.cfs_quota_us", "cpu.cfs_period_us")
    for quota in quotas:
        if len(quota) == 2 and all(value.isdigit() for value in quota):
            cores = min(cores, int(quota[0]) / int(quota[1]))
    return cores


def worker_count(root: pathlib.Path = ROOT) -> int:
    """Returns the number of processes or threads that keep the usable cores busy, at least 1."""
    return max(1, int(usable_cores(root)))
