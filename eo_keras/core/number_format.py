"""Formats of numbers in tables and text: a dash for a missing number, and no minus before zero."""

from __future__ import annotations

ABSENT = "-"


def percent(share: float | None, digits: int = 2) -> str:
    """Returns a fraction of 1 as per cent, such as `97.31%`."""
    return ABSENT if share is None else f"{share:z.{digits}%}"


def number(value: float | None, digits: int = 4) -> str:
    """Returns a number with a fixed count of decimals."""
    return ABSENT if value is None else f"{value:z.{digits}f}"


def interval(ends: tuple[float, float] | list[float] | None, digits: int = 2) -> str:
    """Returns an interval of fractions of 1 as per cent, such as `96.10% to 98.20%`."""
    return ABSENT if ends is None else f"{percent(ends[0], digits)} to {percent(ends[1], digits)}"


def duration(seconds: float) -> str:
    """Returns a time in words: `40 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
