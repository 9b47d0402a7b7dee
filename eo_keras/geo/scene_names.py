"""Facts in the name of a scene: day of acquisition, level, tile, and whether its numbers have an offset.

Names of ESA's products and of their parts hold several dates, of which one alone is that of the acquisition (naming
conventions of the Sentinel-2 Products Specification Document, in the compact form of December 2016 and the one before).
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Iterable

OFFSET_SINCE = (4, 0)
"""First processing baseline whose products have an offset."""

OFFSET_DAY = datetime.date(2022, 1, 25)
"""First day of that baseline: products acquired or processed since then have an offset."""

_DAY = r"(?<!\d)(20[0-4]\d)[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])"
_ANY_DAY = re.compile(_DAY + r"(?!\d{1,5}(?:\D|$))")
_SENSING = (
    re.compile(r"_V" + _DAY + r"T\d{6}", re.IGNORECASE),  # Before December 2016: the sensing's start.
    re.compile(r"MSIL(?:1C|2A)[_\-]" + _DAY, re.IGNORECASE),
    re.compile(
        r"^" + _DAY + r"T\d{6}_\d{8}T\d{6}_T\d\d[A-Z]{3}", re.IGNORECASE
    ),  # Earth Engine's: sensing, generation, tile.
)
_MADE = re.compile(r"_OPER_.*?_" + _DAY + r"T\d{6}", re.IGNORECASE)
_OF_A_GRANULE = re.compile(r"(?:_OPER_|_(?:TL|DS)_\w{4}_)", re.IGNORECASE)
_DISCRIMINATOR = re.compile(r"MSIL(?:1C|2A)[_\-].*[_\-]T\d\d[A-Z]{3}[_\-]" + _DAY + r"T\d{6}", re.IGNORECASE)
_OF_ESA = re.compile(
    r"MSIL(?:1C|2A)[_\-]|T\d\d[A-Z]{3}_(?:A\d{6}_)?\d{8}T\d{6}|\d{8}T\d{6}_T\d\d[A-Z]{3}", re.IGNORECASE
)
_BASELINE = re.compile(r"(?:^|[_\-. ])N(\d\d)\.?(\d\d)(?=[_\-. ]|$)", re.IGNORECASE)
_LEVEL = re.compile(r"MSI_?(L1C|L2A)|(?:^|[_\-])(L1C|L2A)(?=[_\-.]|$)", re.IGNORECASE)
_TILE = re.compile(r"(?:^|_)T?(\d\d[C-HJ-NP-X][A-HJ-NP-Z]{2})(?=_|\.|$)")


def date_of(name: str) -> datetime.date | None:
    """Returns the day of the acquisition, or None where the name has none; dates of processing do not count."""
    for pattern in _SENSING:
        if match := pattern.search(name):
            return _day(match)
    if _OF_A_GRANULE.search(name):
        return None
    days = {_day(match) for match in _ANY_DAY.finditer(name)} - {None}
    return days.pop() if len(days) == 1 else None


def level_of(name: str) -> str | None:
    """Returns `L1C`, `L2A`, or None where the name has none."""
    match = _LEVEL.search(name)
    return (match[1] or match[2]).upper() if match else None


def tile_of(name: str) -> str | None:
    """Returns the tile of Sentinel-2's grid, such as `33UUU`, or None where the name has none."""
    match = _TILE.search(name)
    return match[1] if match else None


def baseline_of(name: str) -> str | None:
    """Returns the processing baseline, such as `05.09`, or None where the name has none."""
    match = _BASELINE.search(name)
    return f"{match[1]}.{match[2]}" if match else None


def has_offset(names: Iterable[str]) -> tuple[bool | None, str]:
    """Returns whether the numbers of an ESA product with such names have an offset.

    Args:
        names: the scene's own name first, then those of the folders that it lies in.

    Returns:
        Whether they do, None where the names do not say it, and what of the names says it.
    """
    names = tuple(names)
    for name in names:
        if baseline := baseline_of(name):
            return after_offset(baseline), f"processing baseline {baseline} in {name}"
    for name in names:
        if made := (_DISCRIMINATOR.search(name) or _MADE.search(name)):
            day = _day(made)
            if day is not None:
                return day >= OFFSET_DAY, f"processed on {day} by {name}"
    for name in names:
        if _OF_ESA.search(name) and (day := date_of(name)) is not None and day >= OFFSET_DAY:
            return True, f"acquired on {day} by {name}"
    return None, ""


def after_offset(baseline: str) -> bool:
    """Returns whether products of a processing baseline, such as `05.09`, have an offset."""
    return tuple(map(int, baseline.split("."))) >= OFFSET_SINCE


def _day(match: re.Match[str]) -> datetime.date | None:
    with contextlib.suppress(ValueError):
        return datetime.date(*map(int, match.groups()[:3]))
    return None
