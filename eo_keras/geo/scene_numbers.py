"""Scale and offset of the stored numbers of a raster file, from its tags, its metadata or the user.

Harmonized numbers are reflectance x 10000.
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
"""Units of floating-point scenes: reflectance from 0 to 1, or digital numbers to 10000 and over."""

DTYPES = ("uint16", "int16", "float32", "float64", "uint32", "int32")

SATURATED = 65535.0


COLUMN = "of single cities by a column of that name without dashes in the list"
"""End of remedies: the option for single cities, as a column of their list."""

_SAY = "say `scene_offset`, such as -1000 or, where it has been applied, 0"


@dataclasses.dataclass(frozen=True)
class UserScaling:
    """Units, offset and scale that the user gives for scenes without metadata of their own.

    Attributes:
        units: one of `UNITS`, of floating-point numbers.
        offset: see `scale`; None for 0 where a scale is given.
        scale: reflectance = (number + offset) x scale; None for 1/10000.
        first: whether this overrides tags and metadata.
    """

    units: str | None = None
    offset: float | None = None
    scale: float | None = None
    first: bool = False

    def __post_init__(self):
        """Checks the values."""
        if self.units not in (None, *UNITS):
            raise OptionError("scene_units", f"'{self.units}'", f"one of {', '.join(UNITS)}")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise OptionError("scene_scale", f"{self.scale:g}", "a number above 0: reflectance of one stored number")
        if self.scale is not None and self.units is not None:
            raise OptionError("scene_units", "`scene_scale` gives it already", "one of the two", "leave one out")
        step = abs(self.offset or 0.0) * (self.scale or 1 / QUANTIFICATION)
        if not step <= 1 or 0 < step < 1 / QUANTIFICATION:
            raise OptionError(
                "scene_offset",
                f"{self.offset:g} is a reflectance of {step:g} at `scene_scale={self.scale or 1 / QUANTIFICATION:g}`",
                "a number that is added to stored numbers, such as -1000",
            )

    @property
    def numbers(self) -> tuple[float, float] | None:
        """Scale and offset to harmonized numbers, or None where the user gives neither."""
        if self.offset is None and self.scale is None:
            return None
        scale = QUANTIFICATION * (self.scale or 1 / QUANTIFICATION)
        return scale, (self.offset or 0.0) * scale


class Scaling(NamedTuple):
    """A statement `harmonised = number * scale + offset`, its source, and whether it overrides the user's options."""

    scale: float
    offset: float
    source: str
    fixed: bool = False


@dataclasses.dataclass(frozen=True)
class BandScaling:
    """Meaning of a band's stored numbers.

    Attributes:
        scale: `harmonised = number * scale + offset`.
        offset: see `scale`.
        nodata: numbers that mean "no data"; NaN always does.
        saturated: the number that means "saturated", or None.
        source: origin of this statement, for errors.
        warning: a warning for the user, or an empty text.
        fixed: whether tags or metadata state it, which override the user's options.
    """

    scale: float
    offset: float
    nodata: tuple[float, ...]
    saturated: float | None
    source: str
    warning: str = ""
    fixed: bool = False


@dataclasses.dataclass(frozen=True)
class StoredBand:
    """A band of a raster file with all statements about its scaling.

    Attributes:
        dataset: the file, opened by rasterio.
        path: the file, for errors.
        index: the band's number in it, from 1.
        name: the band's name.
        user: the user's options.
        statement: metadata beside the file, or None.
        offset_in_name: result of `scene_names.has_offset`.
        recent: whether the scene was acquired since products have an offset.
    """

    dataset: Any
    path: str
    index: int
    name: str
    user: UserScaling
    statement: Statement | None
    offset_in_name: tuple[bool | None, str]
    recent: bool

    @property
    def dtype(self) -> str:
        """Type of its numbers."""
        return self.dataset.dtypes[self.index - 1]

    @property
    def tags(self) -> tuple[float, float]:
        """Scale and offset in the file's own tags; 1 and 0 where it has none."""
        return self.dataset.scales[self.index - 1], self.dataset.offsets[self.index - 1]


def band_scaling(band: StoredBand) -> BandScaling:
    """Determines the meaning of a band's stored numbers.

    Raises:
        SourceError: if it is stated nowhere.
        OptionError: if an option does not fit this file.
    """
    dtype, nodata, statement = band.dtype, band.dataset.nodatavals[band.index - 1], band.statement
    # Eight bits may hold reflectance where a scale is stated.
    if dtype not in DTYPES and not (dtype == "uint8" and (band.user.scale is not None or band.tags[0] != 1)):
        raise SourceError(
            band.path,
            f"numbers of type {dtype}",
            "digital numbers of 16 bits, or reflectance in floating point",
            "give the product or an export that keeps its numbers; a picture for the screen does not",
        )
    scaling, warning = None, ""
    if dtype.startswith("float"):
        scaling = _of_floats(band)
    elif band.user.units == "reflectance":
        raise OptionError(
            "`scene_units=reflectance`",
            f"{band.path} holds whole numbers ({dtype})",
            remedy=f"leave it out, or give it {COLUMN}",
        )
    if scaling is None:
        scaling, warning = _of_digital_numbers(band)
    # 0 is no data everywhere in Sentinel-2; a file may name another number as well.
    values = {0.0, float(statement.nodata) if statement else 0.0}
    values |= set() if nodata is None or math.isnan(nodata) else {float(nodata)}
    saturated = SATURATED if statement is None else statement.saturated
    saturated = 255.0 if dtype == "uint8" else saturated
    saturated = None if saturated in values else saturated
    return BandScaling(
        scaling.scale, scaling.offset, tuple(sorted(values)), saturated, scaling.source, warning, scaling.fixed
    )


def _of_floats(band: StoredBand) -> Scaling | None:
    """Returns the scaling of floating-point numbers; None where they are digital numbers, as integers are."""
    (scale, offset), user = band.tags, band.user
    if scale != 1.0 or user.units == "dn" or (user.first and user.scale is not None):
        return None
    if user.units == "reflectance":
        # An offset without a scale is one of reflectance.
        return Scaling(float(QUANTIFICATION), offset * QUANTIFICATION, "as `scene_units=reflectance` says")
    if user.scale is None:
        raise SourceError(
            band.path,
            f"numbers of type {band.dtype}, which may be reflectance or digital numbers",
            "a statement which they are",
            "say `scene_units=reflectance` or `scene_units=dn`",
        )
    return None


def _of_digital_numbers(band: StoredBand) -> tuple[Scaling, str]:
    """Returns the scaling of integers, and a warning."""
    path, user, statement = band.path, band.user, band.statement
    stated = statement.numbers.get(band.name) if statement else None
    own = None if user.first and user.numbers else _own_tags(band)
    flags = user.numbers and Scaling(*user.numbers, "as `scene_offset` and `scene_scale` say")
    has_offset, why = band.offset_in_name
    if flags is not None and user.first:
        return flags, ""
    if own is not None:
        scaling = Scaling(*own, "as its own tags say", fixed=True)
        doubt = None
        if stated is not None and not np.allclose(own, stated, rtol=1e-6, atol=1e-6):
            doubt = f"{statement.source} says scale {stated[0] / QUANTIFICATION:g} and offset {stated[1]:g}"
        elif stated is None and own[1] == 0 and has_offset:
            doubt = f"its name is that of a product with an offset ({why})"
        if doubt and flags is None:
            raise SourceError(
                path,
                f"its tags say scale {own[0] / QUANTIFICATION:g} and offset {own[1]:g} (x 10000), but {doubt}",
                "one statement",
                _SAY,
            )
        return (flags, "") if doubt else (scaling, ignored_options(path, scaling, user))
    if stated is not None:
        scaling = Scaling(*stated, f"as {statement.source} says", fixed=True)
        return scaling, ignored_options(path, scaling, user)
    if flags is not None:
        return flags, ""
    if statement is not None and statement.numbers:
        raise SourceError(path, f"{statement.source} does not state the scaling of {band.name}", "every band", _SAY)
    if has_offset:
        raise SourceError(
            path,
            f"{why}, so that its numbers carry an offset, unless it has been applied since; nothing beside it says",
            "the product's metadata (MTD_MSIL1C.xml or MTD_MSIL2A.xml, or a STAC item) above or beside it",
            f"name the product's SAFE folder or zip, or {_SAY}",
        )
    warning = ""
    if band.recent:
        warning = (
            f"{path}: acquired since products carry an offset (processing baseline 04.00), and nothing says whether it "
            "has been applied: the numbers are taken as harmonized. If they are not, say `scene_offset=-1000`"
        )
    return Scaling(1.0, 0.0, "as digital numbers (reflectance x 10000)"), warning


def _own_tags(band: StoredBand) -> tuple[float, float] | None:
    """Returns scale and offset to harmonized numbers from a file's own tags, or None where it has none."""
    scale, offset = band.tags
    if scale != 1.0:
        # The tags convert its numbers to reflectance.
        return scale * QUANTIFICATION, offset * QUANTIFICATION
    if offset == 0.0:
        return None
    if abs(offset) < 1:
        if band.user.numbers is not None:
            return None
        raise SourceError(
            band.path,
            f"its tags say offset {offset:g} and scale 1, which is less than one of its numbers",
            "an offset of stored numbers, or a scale beside it",
            "say `scene_offset` and `scene_scale`, or set both tags (gdal_edit.py -scale -offset)",
        )
    return 1.0, offset


def ignored_options(path: str, scaling: Scaling, user: UserScaling) -> str:
    """Returns a warning if the user's options contradict the tags or metadata that override them, else an empty text.

    Args:
        path: the file, for the warning.
        scaling: the scaling in tags or metadata.
        user: the user's options.
    """
    if user.numbers is None or np.allclose((scaling.scale, scaling.offset), user.numbers):
        return ""
    return (
        f"{path}: `scene_offset` and `scene_scale` are for scenes that do not say what their numbers mean; here scale "
        f"{scaling.scale / QUANTIFICATION:g} and offset {scaling.offset:g} (reflectance x 10000) are used, "
        f"{scaling.source}"
    )
