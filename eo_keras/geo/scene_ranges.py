"""Comparison of the range of a scene's stored numbers with their stated scaling.

It reveals the usual mistakes: per cent, gray values to 255, reflectance stretched to 16 bits, reflectance for
digital numbers or the other way round, an offset that has been applied already, an undeclared number of no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eo_keras.errors import SourceError
from eo_keras.geo import resampling
from eo_keras.geo.scene_numbers import COLUMN, BandScaling, UserScaling
from eo_keras.sensors.sentinel2 import QUANTIFICATION

_USUAL = (1.0, 1 / QUANTIFICATION)
"""Scales of reflectance and of digital numbers."""

_WHOLE = 2**18  # Pixels: smaller rasters are looked at in whole.
_PLACES, _EDGE = 3, 160  # Of larger ones, 3 x 3 windows of this many pixels a side.

_VISIBLE = ("B01", "B02", "B03", "B04")
"""Bands without black ground: Rayleigh scattering, and noise after its correction, keep water above 0.5 %."""

_BRIGHTEST_HALF = 2.0
"""Largest plausible median reflectance of a scene: fresh snow has 1, clouds 0.6 to 1.1."""
_BRIGHTEST_HUNDREDTH = 2.0
"""Largest plausible reflectance, except in single pixels with sun glint or snow on sunlit slopes."""
_DARKEST = -0.02
_MOST_NEGATIVE = 0.9
"""Largest share of stored numbers below 0: since baseline 04.00, open water is a little below it."""
_FILLED = 0.001
"""Share of pixels from which a number far from all others is taken for no data."""
_MOST_DARK = 0.2
"""Largest share of a visible band's pixels below `_DARKEST`, as of dark water after an excessive correction."""


def sample(dataset: Any, index: int, scaling: BandScaling) -> np.ndarray:
    """Reads some known and unsaturated numbers of a band, float64 (N,)."""
    height, width = dataset.height, dataset.width
    windows = [(0, 0, height, width)]
    if height * width > _WHOLE:
        tops, lefts = (np.linspace(0, length - _EDGE, _PLACES).astype(int).clip(0) for length in (height, width))
        windows = [(int(top), int(left), min(_EDGE, height), min(_EDGE, width)) for top in tops for left in lefts]
    single = resampling.SpecialValues(scaling.nodata, scaling.saturated)
    parts = [pixels for window in windows for pixels in resampling.read_known(dataset, [index], [single], window)]
    usual = [one.numbers[one.known if one.saturated is None else one.known & ~one.saturated] for one in parts]
    return np.concatenate(usual).astype(np.float64)


def check(path: str, scalings: Mapping[str, BandScaling], samples: Mapping[str, np.ndarray], user: UserScaling) -> None:
    """Compares the range of a scene's numbers with their stated scaling.

    Args:
        path: the scene, for errors.
        scalings: the stated scaling of each band.
        samples: some numbers of each band.
        user: the user's options.

    Raises:
        SourceError: if the range contradicts the scaling; it names what the numbers look like.
    """
    samples = {band: numbers for band, numbers in samples.items() if numbers.size}
    if not samples:
        return
    reflectance = {
        band: (numbers * scalings[band].scale + scalings[band].offset) / QUANTIFICATION
        for band, numbers in samples.items()
    }
    _check_fill(path, samples, reflectance)
    _check_low(path, scalings, samples, reflectance)
    brightest = max(reflectance, key=lambda band: float(np.median(reflectance[band])))
    half = float(np.median(reflectance[brightest]))
    hundredth = max(float(np.quantile(values, 0.99)) for values in reflectance.values())
    every = np.concatenate(list(samples.values()))
    # Numbers with a scale of their own may have any gaps.
    stretched = _stretch(every) if all(scalings[band].scale == 1.0 for band in samples) else ""
    too_bright = half > _BRIGHTEST_HALF or hundredth > _BRIGHTEST_HUNDREDTH
    # A user who gives the usual scale overrides this check.
    too_dark = user.scale not in _USUAL and _is_too_dark(samples, reflectance)
    if not (too_bright or too_dark or stretched):
        return
    insisted = scalings[brightest].scale / QUANTIFICATION
    looks, remedy = _looks_like(every, stretched, scalings[brightest].scale == QUANTIFICATION)
    if scalings[brightest].fixed:
        remedy = (
            "correct that, or give the city the columns scene_scale and scene_offset in the list, which override it"
        )
    elif user.scale is not None:
        remedy += f", {COLUMN}"
    elif not too_bright and insisted in _USUAL:
        remedy += f"; if they are correct, say `scene_scale={insisted:g}`"
    raise SourceError(
        path,
        f"half of the numbers of {brightest} lie above {np.median(samples[brightest]):.4g}, which is a reflectance of "
        f"{half:.3g} {scalings[brightest].source}; they look like {looks}",
        "numbers of that scale and offset",
        remedy,
    )


def _check_fill(path: str, samples: Mapping[str, np.ndarray], reflectance: Mapping[str, np.ndarray]) -> None:
    """Checks for undeclared numbers of no data, such as -9999, 32767 or 1e20."""
    for band, values in reflectance.items():
        for extreme in (float(values.min()), float(values.max())):
            filled = values == extreme
            others, share = values[~filled], float(np.mean(filled))
            if share < _FILLED or -0.5 <= extreme <= _BRIGHTEST_HALF:
                continue
            # Sun glint and saturation have other bright pixels beside them. Where the others are no reflectance
            # either, it is the scale or the offset that is wrong.
            alone = extreme < 0 or (others.size > 0 and float(others.max()) <= extreme / 2)
            if alone and (not others.size or -0.5 < float(np.median(others)) <= _BRIGHTEST_HALF):
                number = float(samples[band][filled][0])
                raise SourceError(
                    path,
                    f"{share:.1%} of the numbers of {band} are {number:g}, which looks like a number of no data that "
                    "the file does not declare",
                    "a nodata tag",
                    f"declare it, such as by gdal_edit.py -a_nodata {number:.17g}",
                )


def _check_low(
    path: str,
    scalings: Mapping[str, BandScaling],
    samples: Mapping[str, np.ndarray],
    reflectance: Mapping[str, np.ndarray],
) -> None:
    for band, values in reflectance.items():
        numbers = samples[band]
        below = float(np.mean(values < _DARKEST))
        most = _MOST_DARK if band in _VISIBLE else 0.5
        if below > most or np.mean(numbers < 0) > _MOST_NEGATIVE:
            offset, source = scalings[band].offset, scalings[band].source
            negative = f"{np.mean(values < 0):.0%} of the numbers of {band} are a reflectance below 0"
            if offset < 0:
                raise SourceError(
                    path,
                    f"{negative} with an offset of {offset:g} {source}, as where it has been applied already",
                    "numbers that the offset has not been applied to",
                    "if it has, give the city a column scene_offset with 0, which overrides tags and metadata"
                    if scalings[band].fixed
                    else f"if it has, say `scene_offset=0`, or say it {COLUMN}",
                )
            raise SourceError(path, f"{negative}, {source}", "reflectance", "give the product, or say `scene_offset`")


def _is_too_dark(samples: Mapping[str, np.ndarray], reflectance: Mapping[str, np.ndarray]) -> bool:
    highest = max(float(numbers.max()) for numbers in samples.values())
    top = max(float(values.max()) for values in reflectance.values())
    if top < 3e-4:
        return True  # Reflectance, or less, that is taken for digital numbers.
    spread = max(float(np.subtract(*np.quantile(numbers, (0.98, 0.02)))) for numbers in samples.values())
    if 230 <= highest <= 255 and spread >= 100 and top < 0.03:
        return True  # Gray values fill their range; water keeps to a part of it.
    visible = [reflectance[band] for band in _VISIBLE if band in reflectance]
    if not visible:
        return False
    return top < 0.015 and max(float(np.median(values)) for values in visible) < 0.005


def _stretch(numbers: np.ndarray) -> str:
    """Returns the range that was stretched to 16 bits, by the gaps between numbers; nothing where there are none."""
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
    """Returns the probable unit of numbers, and a remedy."""
    export = "give the product or an export that keeps its numbers"
    if stretched:
        return stretched, f"say `scene_scale={1 / 65535:.6g}` if they are reflectance x 65535; else {export}"
    highest, whole = float(np.quantile(numbers, 0.999)), bool((numbers == np.rint(numbers)).all())
    if highest <= 0.1 and as_reflectance:
        return "nothing that light reflects: all of it is black", export
    if highest <= 2.5 and not as_reflectance:
        return "reflectance", "say `scene_units=reflectance`" if not whole else export
    if highest <= 130 and float(np.median(numbers)) <= 100:
        remedy = f"say `scene_scale=0.01`, without `scene_units`, or {COLUMN}"
        if whole and highest > 60:
            return "reflectance in per cent, or grey values of a dark picture", f"{export}; of per cent, {remedy}"
        return "reflectance in per cent", remedy
    if highest <= 255:
        return "grey values from 0 to 255, stretched for the screen", export
    if highest > (25_000 if as_reflectance else 10_000):
        return (
            "reflectance stretched to 16 bits (x 65535)",
            f"say `scene_scale={1 / 65535:.6g}` if they are that; else {export}",
        )
    return "digital numbers (reflectance x 10000)", "say `scene_units=dn`"
