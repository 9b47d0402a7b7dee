"""Stages of a backbone, which networks of several modalities run side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

StageBuilder = Callable[[Any], tuple[Any, Any | None]]
"""Function that adds a stage to a feature map and returns its own one, and, in one stage, the low-level features: the
finest ones that the decoder of DeepLabv3+ takes; None in the others."""


def run_stages(stages: Sequence[StageBuilder], x: Any) -> tuple[Any, Any]:
    """Adds all stages of a backbone, one after the other; returns its low-level features and its last feature map."""
    low = None
    for stage in stages:
        x, finest = stage(x)
        low = low if finest is None else finest
    return low, x
