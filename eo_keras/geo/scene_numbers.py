"""What the stored numbers of a loose raster mean: known from its tags, its metadata or the user, or refused.

Harmonised numbers are reflectance x 10000.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo.scene_metadata import Statement
from eo_keras.sensors.sentinel2 import QUANTIFICATION

UNITS = ("reflectance", "dn")
"""What the numbers of a floating-point scene can be: reflectance from 0 to 1, or digital numbers to 10000 and over."""

DTYPES = ("uint16", "int16", "float32", "float64", "uint32", "int32")

SATURATED = 65535.0


COLUMN = "of single cities by a column of that name without dashes in the list"
"""How to say it where scenes differ."""

_SAY = "say `scene_offset`, such as -1000 or, where it has been applied, 0"


@dataclasses.dataclass(frozen=True)
class Told:
    """What the user says of scenes that do not say it themselves.

    Attributes:
        units: one of `UNITS`, of floating-point numbers.
        offset: see `scale`; None for 0 where a scale is told.
        scale: reflectance = (number + offset) x scale; None for 1/10000.
        first: whether this goes before tags and metadata.
    """

    units: str | None = None
    offset: float | None = None
    scale: float | None = None
    first: bool = False

    def __post_init__(self):
        """Refuses what cannot be."""
        if self.units not in (None, *UNITS):
            raise OptionError("scene_units", f"'{self.units}'", f"one of {', '.join(UNITS)}")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise OptionError("scene_scale", f"{self.scale:g}", "a number above 0: reflectance of one stored number")
        if self.scale is not None and self.units is not None:
            raise OptionError("scene_units", "`scene_scale` says it already", "one of the two", "leave one out")
        step = abs(self.offset or 0.0) * (self.scale or 1 / QUANTIFICATION)
        if not step <= 1 or 0 < step < 1 / QUANTIFICATION:
            raise OptionError(
                "scene_offset",
                f"{self.offset:g} is a reflectance of {step:g} at `scene_scale={self.scale or 1 / QUANTIFICATION:g}`",
                "a number that is added to stored numbers, such as -1000",
            )

    @property
    def numbers(self) -> tuple[float, float] | None:
        """Scale and offset to harmonised numbers, or None where the user says neither."""
        if self.offset is None and self.scale is None:
            return None
        scale = QUANTIFICATION * (self.scale or 1 / QUANTIFICATION)
        return scale, (self.offset or 0.0) * scale


class Said(NamedTuple):
    """What somebody says of numbers: `harmonised = number * scale + offset`; `fixed` where no flag goes before it."""

    scale: float
    offset: float
    who: str
    fixed: bool = False


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a band's stored numbers mean.

    Attributes:
        scale: `harmonised = number * scale + offset`.
        offset: see `scale`.
        nodata: numbers that mean "no data"; NaN always does.
        saturated: the number that means "saturated", or None.
        said: what says so, for errors.
        warning: what the user should know of it; empty for nothing.
        fixed: whether tags or metadata say so, before which no flag goes.
    """

    scale: float
    offset: float
    nodata: tuple[float, ...]
    saturated: float | None
    said: str
    warning: str = ""
    fixed: bool = False


def meaning(
    dataset: Any,
    path: str,
    index: int,
    band: str,
    told: Told,
    statement: Statement | None,
    offset_in_name: tuple[bool | None, str],
    recent: bool,
) -> Meaning:
    """Finds out what the numbers of a band mean.

    Args:
        dataset: rasterio's.
        path: the file, for errors.
        index: the band's number in it, from 1.
        band: its name.
        told: what the user says.
        statement: what metadata beside the file say, or None.
        offset_in_name: what `scene_names.has_offset` says.
        recent: whether the scene was acquired since products carry an offset.

    Raises:
        SourceError: if nothing says it.
        OptionError: if the user says what cannot be of this file.
    """
    dtype, nodata = dataset.dtypes[index - 1], dataset.nodatavals[index - 1]
    # Eight bits hold reflectance too where somebody says by what scale.
    if dtype not in DTYPES and not (dtype == "uint8" and (told.scale is not None or dataset.scales[index - 1] != 1)):
        raise SourceError(
            path,
            f"numbers of type {dtype}",
            "digital numbers of 16 bits, or reflectance in floating point",
            "give the product or an export that keeps its numbers; a picture for the screen does not",
        )
    is_float = dtype.startswith("float")
    if is_float:
        found = _of_floats(dataset, path, index, dtype, told)
    elif told.units == "reflectance":
        raise OptionError(
            "`scene_units=reflectance`",
            f"{path} holds whole numbers ({dtype})",
            remedy=f"leave the flag out, or say it {COLUMN}",
        )
    else:
        found = None
    warning = ""
    if found is None:
        found, warning = _of_digital_numbers(dataset, path, index, band, told, statement, offset_in_name, recent)
    # 0 is no data everywhere in Sentinel-2; a file may name another number as well.
    values = {0.0, float(statement.nodata) if statement else 0.0}
    values |= set() if nodata is None or math.isnan(nodata) else {float(nodata)}
    saturated = SATURATED if statement is None else statement.saturated
    saturated = 255.0 if dtype == "uint8" else saturated
    saturated = None if saturated in values else saturated
    return Meaning(found.scale, found.offset, tuple(sorted(values)), saturated, found.who, warning, found.fixed)


def _of_floats(dataset: Any, path: str, index: int, dtype: str, told: Told) -> Said | None:
    """Returns what floating-point numbers mean; None where they are digital numbers as whole ones are."""
    scale, offset = dataset.scales[index - 1], dataset.offsets[index - 1]
    if scale != 1.0 or told.units == "dn" or (told.first and told.scale is not None):
        return None
    if told.units == "reflectance":
        # An offset without a scale is one of what the numbers are.
        return Said(float(QUANTIFICATION), offset * QUANTIFICATION, "as `scene_units=reflectance` says")
    if told.scale is None:
        raise SourceError(
            path,
            f"numbers of type {dtype}, which may be reflectance or digital numbers",
            "to be told which",
            "say `scene_units=reflectance` or `scene_units=dn`",
        )
    return None


def _of_digital_numbers(
    dataset: Any,
    path: str,
    index: int,
    band: str,
    told: Told,
    statement: Statement | None,
    offset_in_name: tuple[bool | None, str],
    recent: bool,
) -> tuple[Said, str]:
    """Returns what whole numbers mean, and a warning."""
    stated = statement.numbers.get(band) if statement else None
    own = None if told.first and told.numbers else _own_tags(dataset, path, index, told)
    flags = told.numbers and Said(*told.numbers, "as `scene_offset` and `scene_scale` say")
    has_offset, why = offset_in_name
    if flags is not None and told.first:
        return flags, ""
    if own is not None:
        said = Said(*own, "as its own tags say", fixed=True)
        doubt = None
        if stated is not None and not np.allclose(own, stated, rtol=1e-6, atol=1e-6):
            doubt = f"{statement.source} says scale {stated[0] / QUANTIFICATION:g} and offset {stated[1]:g}"
        elif stated is None and own[1] == 0 and has_offset:
            doubt = f"products with an offset are what its name tells of ({why})"
        if doubt and flags is None:
            raise SourceError(
                path,
                f"its tags say scale {own[0] / QUANTIFICATION:g} and offset {own[1]:g} (x 10000), but {doubt}",
                "one statement",
                _SAY,
            )
        return (flags, "") if doubt else (said, unheard(path, said, told))
    if stated is not None:
        said = Said(*stated, f"as {statement.source} says", fixed=True)
        return said, unheard(path, said, told)
    if flags is not None:
        return flags, ""
    if statement is not None and statement.numbers:
        raise SourceError(path, f"{statement.source} says nothing of the numbers of {band}", "every band", _SAY)
    if has_offset:
        raise SourceError(
            path,
            f"{why}, so that its numbers carry an offset, unless it has been applied since; nothing beside it says",
            "the product's metadata (MTD_MSIL1C.xml or MTD_MSIL2A.xml, or a STAC item) above or beside it",
            f"name the product's SAFE folder or zip, or {_SAY}",
        )
    warning = ""
    if recent:
        warning = (
            f"{path}: acquired since products carry an offset (processing baseline 04.00), and nothing says whether it "
            "has been applied: the numbers are taken as harmonised. If they are not, say `scene_offset=-1000`"
        )
    return Said(1.0, 0.0, "as digital numbers (reflectance x 10000)"), warning


def _own_tags(dataset: Any, path: str, index: int, told: Told) -> tuple[float, float] | None:
    """Returns scale and offset to harmonised numbers by a file's own tags, or None where they say nothing."""
    scale, offset = dataset.scales[index - 1], dataset.offsets[index - 1]
    if scale != 1.0:
        # The file says how to make reflectance of its numbers.
        return scale * QUANTIFICATION, offset * QUANTIFICATION
    if offset == 0.0:
        return None
    if abs(offset) < 1:
        if told.numbers is not None:
            return None
        raise SourceError(
            path,
            f"its tags say offset {offset:g} and scale 1, which is less than one of its numbers",
            "an offset of stored numbers, or a scale beside it",
            "say `scene_offset` and `scene_scale`, or set both tags (gdal_edit.py -scale -offset)",
        )
    return 1.0, offset


def unheard(path: str, said: Said, told: Told) -> str:
    """Returns a warning where the user says otherwise of numbers that say themselves what they mean, else nothing.

    Args:
        path: the file, for the warning.
        said: what they mean.
        told: what the user says.
    """
    if told.numbers is None or np.allclose((said.scale, said.offset), told.numbers):
        return ""
    return (
        f"{path}: `scene_offset` and `scene_scale` are for scenes that do not say what their numbers mean; here scale "
        f"{said.scale / QUANTIFICATION:g} and offset {said.offset:g} (reflectance x 10000) are used, {said.who}"
    )
