"""What the stored numbers of a loose raster mean: known from its tags, its metadata or the user, or refused.

Harmonised numbers are reflectance x 10000. What is said of the numbers is compared with their range, for the usual
mistakes: per cent, grey values to 255, reflectance stretched to 16 bits, reflectance for digital numbers or the other
way round, an offset that has been applied already, a number of no data that the file does not declare.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from eo_keras import resampling
from eo_keras.errors import OptionError, SourceError
from eo_keras.scene_metadata import Statement
from eo_keras.sentinel2 import QUANTIFICATION

UNITS = ("reflectance", "dn")
"""What the numbers of a floating-point scene can be: reflectance from 0 to 1, or digital numbers to 10000 and over."""

DTYPES = ("uint16", "int16", "float32", "float64", "uint32", "int32")

SATURATED = 65535.0

_USUAL = (1.0, 1 / QUANTIFICATION)
"""Scales of reflectance and of digital numbers."""

_COLUMN = "of single cities by a column of that name without dashes in the list"

_SAY = "say --scene_offset, such as -1000 or, where it has been applied, 0"
_WHOLE = 2**18  # Pixels: smaller rasters are looked at in whole.
_PLACES, _EDGE = 4, 128  # Of larger ones, 4 x 4 windows of this many pixels a side.

_VISIBLE = ("B01", "B02", "B03", "B04")
"""Bands in which no ground is black: Rayleigh scattering, and noise after its correction, keep water above 0.5 %."""

_BRIGHTEST_HALF = 2.0
"""No scene has half of its pixels brighter than this reflectance: fresh snow has 1, clouds 0.6 to 1.1."""
_BRIGHTEST_HUNDREDTH = 2.0
"""Sun glint and snow on slopes that face the sun pass this in single pixels."""
_DARKEST = -0.02
_MOST_DARK = 0.2
"""Share of a visible band's pixels that may lie below `_DARKEST`: dark water after an overdone correction."""


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
            raise OptionError("--scene_units", f"'{self.units}'", f"one of {', '.join(UNITS)}")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise OptionError("--scene_scale", f"{self.scale:g}", "a number above 0: reflectance of one stored number")
        if self.scale is not None and self.units is not None:
            raise OptionError("--scene_units", "--scene_scale says it already", "one of the two", "leave one out")
        step = abs(self.offset or 0.0) * (self.scale or 1 / QUANTIFICATION)
        if not step <= 1 or 0 < step < 1 / QUANTIFICATION:
            raise OptionError(
                "--scene_offset",
                f"{self.offset:g} is a reflectance of {step:g} at --scene_scale={self.scale or 1 / QUANTIFICATION:g}",
                "a number that is added to stored numbers, such as -1000",
            )

    @property
    def numbers(self) -> tuple[float, float] | None:
        """Scale and offset to harmonised numbers, or None where the user says neither."""
        if self.offset is None and self.scale is None:
            return None
        scale = QUANTIFICATION * (self.scale or 1 / QUANTIFICATION)
        return scale, (self.offset or 0.0) * scale


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
    """

    scale: float
    offset: float
    nodata: tuple[float, ...]
    saturated: float | None
    said: str
    warning: str = ""


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
            "--scene_units=reflectance",
            f"{path} holds whole numbers ({dtype})",
            remedy=f"leave the flag out, or say it {_COLUMN}",
        )
    else:
        found = None
    warning = ""
    if found is None:
        found, warning = _of_digital_numbers(dataset, path, index, band, told, statement, offset_in_name, recent)
    scale, offset, said = found
    # 0 is no data everywhere in Sentinel-2; a file may name another number as well.
    values = {0.0, float(statement.nodata) if statement else 0.0}
    values |= set() if nodata is None or math.isnan(nodata) else {float(nodata)}
    saturated = SATURATED if statement is None else statement.saturated
    saturated = 255.0 if dtype == "uint8" else saturated
    return Meaning(scale, offset, tuple(sorted(values)), None if saturated in values else saturated, said, warning)


def _of_floats(dataset: Any, path: str, index: int, dtype: str, told: Told) -> tuple[float, float, str] | None:
    """Returns what floating-point numbers mean; None where they are digital numbers as whole ones are."""
    scale, offset = dataset.scales[index - 1], dataset.offsets[index - 1]
    if scale != 1.0 or told.units == "dn" or (told.first and told.scale is not None):
        return None
    if told.units == "reflectance":
        # An offset without a scale is one of what the numbers are.
        return float(QUANTIFICATION), offset * QUANTIFICATION, "as --scene_units=reflectance says"
    if told.scale is None:
        raise SourceError(
            path,
            f"numbers of type {dtype}, which may be reflectance or digital numbers",
            "to be told which",
            "say --scene_units=reflectance or --scene_units=dn",
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
) -> tuple[tuple[float, float, str], str]:
    stated = statement.numbers.get(band) if statement else None
    own = None if told.first and told.numbers else _own_tags(dataset, path, index, told)
    flags = told.numbers and (*told.numbers, "as --scene_offset and --scene_scale say")
    has_offset, why = offset_in_name
    if flags is not None and told.first:
        return flags, ""
    if own is not None:
        said = (*own, "as its own tags say")
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
        said = (*stated, f"as {statement.source} says")
        return said, unheard(path, said, told)
    if flags is not None:
        return flags, ""
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
            "has been applied: the numbers are taken as harmonised. If they are not, say --scene_offset=-1000"
        )
    return (1.0, 0.0, "as digital numbers (reflectance x 10000)"), warning


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
            "say --scene_offset and --scene_scale, or set both tags (gdal_edit.py -scale -offset)",
        )
    return 1.0, offset


def unheard(path: str, said: tuple[float, float, str], told: Told) -> str:
    """Returns a warning where the user says otherwise of numbers that say themselves what they mean, else nothing.

    Args:
        path: the file, for the warning.
        said: scale and offset to harmonised numbers, and what says so.
        told: what the user says.
    """
    if told.numbers is None or np.allclose(said[:2], told.numbers):
        return ""
    return (
        f"{path}: --scene_offset and --scene_scale are for scenes that do not say what their numbers mean; here scale "
        f"{said[0] / QUANTIFICATION:g} and offset {said[1]:g} (reflectance x 10000) are used, {said[2]}"
    )


def sample(dataset: Any, index: int, meaning: Meaning) -> np.ndarray:
    """Reads some known and unsaturated numbers of a band, float64 (N,)."""
    height, width = dataset.height, dataset.width
    windows = [(0, 0, height, width)]
    if height * width > _WHOLE:
        tops, lefts = (np.linspace(0, length - _EDGE, _PLACES).astype(int).clip(0) for length in (height, width))
        windows = [(int(top), int(left), min(_EDGE, height), min(_EDGE, width)) for top in tops for left in lefts]
    single = resampling.Meaning(meaning.nodata, meaning.saturated)
    found = [pixels for window in windows for pixels in resampling.read_known(dataset, [index], [single], window)]
    return np.concatenate([pixels.numbers[pixels.known & ~pixels.saturated] for pixels in found]).astype(np.float64)


def check_range(path: str, meanings: Mapping[str, Meaning], samples: Mapping[str, np.ndarray], told: Told) -> None:
    """Compares the range of a scene's numbers with what they are said to mean.

    Args:
        path: the scene, for errors.
        meanings: what the numbers of each band mean.
        samples: some numbers of each band.
        told: what the user says.

    Raises:
        SourceError: if they can hardly be that; what they look like is said.
    """
    samples = {band: numbers for band, numbers in samples.items() if numbers.size}
    if not samples:
        return
    reflectance = {
        band: (numbers * meanings[band].scale + meanings[band].offset) / QUANTIFICATION
        for band, numbers in samples.items()
    }
    _check_low(path, meanings, samples, reflectance)
    brightest = max(reflectance, key=lambda band: float(np.median(reflectance[band])))
    half = float(np.median(reflectance[brightest]))
    hundredth = max(float(np.quantile(values, 0.99)) for values in reflectance.values())
    every = np.concatenate(list(samples.values()))
    # Numbers with a scale of their own may have any gaps.
    stretched = _stretch(every) if all(meanings[band].scale == 1.0 for band in samples) else ""
    too_bright = half > _BRIGHTEST_HALF or hundredth > _BRIGHTEST_HUNDREDTH
    # Who repeats the usual scale insists on it.
    too_dark = told.scale not in _USUAL and _is_too_dark(samples, reflectance)
    if not (too_bright or too_dark or stretched):
        return
    insisted = meanings[brightest].scale / QUANTIFICATION
    looks, remedy = _looks_like(every, stretched, meanings[brightest].scale == QUANTIFICATION)
    raise SourceError(
        path,
        f"half of the numbers of {brightest} lie above {np.median(samples[brightest]):.4g}, which is a reflectance of "
        f"{half:.3g} {meanings[brightest].said}; they look like {looks}",
        "what they are said to be",
        remedy
        + ("" if too_bright or insisted not in _USUAL else f"; if they are right, say --scene_scale={insisted:g}"),
    )


def _check_low(
    path: str,
    meanings: Mapping[str, Meaning],
    samples: Mapping[str, np.ndarray],
    reflectance: Mapping[str, np.ndarray],
) -> None:
    for band, values in reflectance.items():
        numbers = samples[band]
        lowest = float(numbers.min())
        if values.min() < -0.5 and (share := float(np.mean(numbers == lowest))) >= 0.001:
            raise SourceError(
                path,
                f"{share:.1%} of the numbers of {band} are {lowest:g}, which looks like a number of no data that the "
                "file does not declare",
                "a nodata tag",
                f"declare it, such as by gdal_edit.py -a_nodata {lowest:g}",
            )
        below = float(np.mean(values < _DARKEST))
        most = _MOST_DARK if band in _VISIBLE else 0.5
        if below > most or (band in _VISIBLE and np.mean(values < 0) > 0.5):
            offset, said = meanings[band].offset, meanings[band].said
            found = f"{np.mean(values < 0):.0%} of the numbers of {band} are a reflectance below 0"
            if offset < 0:
                raise SourceError(
                    path,
                    f"{found} with an offset of {offset:g} {said}, as where it has been applied already",
                    "numbers that the offset has not been applied to",
                    "if it has, say --scene_offset=0, or give the city a column scene_offset with 0, which goes before "
                    "metadata",
                )
            raise SourceError(path, f"{found}, {said}", "reflectance", "give the product, or say --scene_offset")


def _is_too_dark(samples: Mapping[str, np.ndarray], reflectance: Mapping[str, np.ndarray]) -> bool:
    highest = max(float(numbers.max()) for numbers in samples.values())
    top = max(float(values.max()) for values in reflectance.values())
    if top < 3e-4:
        return True  # Reflectance, or less, that is taken for digital numbers.
    spread = max(float(np.subtract(*np.quantile(numbers, (0.98, 0.02)))) for numbers in samples.values())
    if 230 <= highest <= 255 and spread >= 100 and top < 0.03:
        return True  # Grey values fill their range; water keeps to a part of it.
    visible = [reflectance[band] for band in _VISIBLE if band in reflectance]
    if not visible:
        return False
    return top < 0.015 and max(float(np.median(values)) for values in visible) < 0.005


def _stretch(numbers: np.ndarray) -> str:
    """Returns what numbers were stretched from to 16 bits, by the gaps that it leaves; nothing where they were not."""
    distinct = np.unique(numbers)
    if len(distinct) < 30 or distinct[-1] < 3000 or (distinct != np.rint(distinct)).any():
        return ""
    if not (distinct % 257).any():
        return "8-bit numbers stretched to 16 bits (x 257)"
    step = 65535 / QUANTIFICATION
    for whole, start in ((np.rint, np.rint(distinct / step)), (np.floor, np.ceil(distinct / step))):
        if (whole(start * step) == distinct).all():
            return "reflectance stretched to 16 bits (x 65535)"
    return ""


def _looks_like(numbers: np.ndarray, stretched: str, as_reflectance: bool) -> tuple[str, str]:
    """Returns what numbers look like, and what to do about it."""
    export = "give the product or an export that keeps its numbers"
    if stretched:
        return stretched, f"say --scene_scale={1 / 65535:.6g} if they are reflectance x 65535; else {export}"
    highest, whole = float(np.quantile(numbers, 0.999)), bool((numbers == np.rint(numbers)).all())
    if highest <= 0.1 and as_reflectance:
        return "nothing that light reflects: all of it is black", export
    if highest <= 2.5 and not as_reflectance:
        return "reflectance", "say --scene_units=reflectance" if not whole else export
    if highest <= 130 and float(np.median(numbers)) <= 100:
        return "reflectance in per cent", f"say --scene_scale=0.01, without --scene_units, or {_COLUMN}"
    if highest <= 255:
        return "grey values from 0 to 255, stretched for the screen", export
    if highest > (25_000 if as_reflectance else 10_000):
        return (
            "reflectance stretched to 16 bits (x 65535)",
            f"say --scene_scale={1 / 65535:.6g} if they are that; else {export}",
        )
    return "digital numbers (reflectance x 10000)", "say --scene_units=dn"
