"""What the peers' scripts share: whole epochs timed after a warm one, and figures handed over as one line of JSON."""

import importlib.metadata
import json
import time
from collections.abc import Callable, Iterable
from typing import Any


def time_epochs(epoch: Callable[[], Iterable[int]], min_seconds: float) -> tuple[int, float]:
    """Counts the images of whole epochs, after one that is not counted.

    Args:
        epoch: begins an epoch and yields the size of every batch when that has been delivered.
        min_seconds: further epochs are read until this time has passed.

    Returns:
        The number of images and the seconds they took.
    """
    sum(epoch())
    images, started = 0, time.perf_counter()
    while True:
        images += sum(epoch())
        if (seconds := time.perf_counter() - started) >= min_seconds:
            return images, seconds


def report(examples: int, seconds: float, packages: Iterable[str], **more: Any) -> None:
    """Prints the figures in the form that benchmarks.harness reads."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(json.dumps({"examples": examples, "seconds": seconds, "versions": versions, **more}), flush=True)
