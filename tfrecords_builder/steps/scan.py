"""Scan of a source: every unit is read once, and its results are kept in the build's state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfrecords_builder.sources.source import Context, RunUnits


def scan(context: Context, units: Sequence[Any], run: RunUnits) -> None:
    """Scans the units of a build's source.

    Raises:
        SourceError: if a part of one cannot be used.
    """
    run(scan_unit, units, context.source.scanning)


def scan_unit(context: Context, unit: Any) -> None:
    """Scans one unit."""
    context.source.scan(context, unit)
