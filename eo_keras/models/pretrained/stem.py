"""Stem of a pretrained model for any bands of Sentinel-2, and for those of other sensors.

The first convolution of an ImageNet model takes red, green and blue. Two ways to give it other bands: by name, each
band goes to its own color; or by position, the first three bands go to red, green and blue whatever they are, as Helber
et al. 2019 (IEEE JSTARS 12(7)) did for their color infrared and shortwave infrared composites.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from eo_keras.errors import BandError, OptionError
from eo_keras.sensors.sentinel2 import BANDS, COMPOSITES, nearest_band

STEM_MODES = ("by_name", "by_position")
"""Modes of matching bands with the colors of a pretrained kernel."""

RGB_ORDER = COMPOSITES["RGB"]
"""Bands of red, green and blue, in the order of an RGB kernel's input channels."""

IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""ImageNet's mean of red, green and blue on the scale 0 to 255 (0.485, 0.456, 0.406 times 255)."""

IMAGENET_STD = (58.395, 57.12, 57.375)
"""ImageNet's standard deviation of red, green and blue on the scale 0 to 255 (0.229, 0.224, 0.225 times 255)."""


_SENTINEL2_OF = {"R": "B04", "G": "B03", "B": "B02", "NIR": "B08"}
"""Sentinel-2's band of each color of aerial images."""


@dataclasses.dataclass(frozen=True)
class StemBand:
    """Source of one band's kernel.

    Attributes:
        band: the band.
        source: the color's band (or, for another source model, its band) whose kernel is taken.
        factor: factor of the kernel; 1 for a band that takes its own kernel.
    """

    band: str
    source: str
    factor: float


def assign_sources(
    bands: Sequence[str], mode: str = "by_name", sources: Sequence[str] = RGB_ORDER
) -> tuple[StemBand, ...]:
    """Returns for each band the input channel of the source's kernel that it takes, and the factor.

    By name, a band that the source has takes its kernel as it is, red of an aerial image as B04; each other one takes
    the kernel of the source's band that is nearest in wavelength, divided by the number of such bands, so that together
    they do not drown the others.
    A band of another sensor, such as radar's VV or a height, has no color near to it: such bands take the source's
    kernels in turn, divided likewise. By position, the first bands take the source's kernels in order, as they are;
    further bands as by name.

    Args:
        bands: the model's bands in channel order.
        mode: `by_name` or `by_position`.
        sources: bands of the source's kernel, in channel order.

    Returns:
        One entry per band, in the order of `bands`.

    Raises:
        BandError: if there are no bands, one is named twice, or there are fewer bands than sources for `by_position`.
        OptionError: if the mode is unknown.
    """
    check_stem(bands, mode, len(sources))
    color_of = {band: _SENTINEL2_OF.get(band, band) for band in (*bands, *sources)}
    source_of = {color_of[source]: source for source in sources}
    if mode == "by_position":
        own = dict(zip(bands, sources, strict=False))
    else:
        own = {band: source_of[color_of[band]] for band in bands if color_of[band] in source_of}
    others = [band for band in bands if band not in own]
    optical = [color_of[source] for source in sources if color_of[source] in BANDS]
    without = [band for band in others if color_of[band] not in BANDS or not optical]
    near = {band: nearest_band(color_of[band], optical) for band in others if band not in without}
    taken = own | {band: source_of[color] for band, color in near.items()}
    taken |= dict(zip(without, itertools.cycle(sources), strict=False))
    return tuple(StemBand(band, taken[band], 1.0 if band in own else 1.0 / len(others)) for band in bands)


def check_stem(bands: Sequence[str], mode: str, needed: int = len(RGB_ORDER)) -> None:
    """Checks the name of the mode and the bands.

    Raises:
        BandError: if there are no bands, a band is named twice, or there are fewer than `needed` bands for
            `by_position`.
        OptionError: if the mode is unknown.
    """
    if mode not in STEM_MODES:
        raise OptionError("stem", f"'{mode}'", f"one of {', '.join(STEM_MODES)}")
    if not bands or len(set(bands)) != len(bands):
        raise BandError(f"bands '{','.join(bands)}'", "no bands, or one of them twice", "each of them once")
    if mode == "by_position" and len(bands) < needed:
        raise BandError(
            f"bands '{','.join(bands)}'",
            f"{len(bands)} bands for stem by_position",
            f"at least {needed}",
            "use stem by_name",
        )


def inflate_stem(
    kernel: np.ndarray, bands: Sequence[str], mode: str = "by_name", sources: Sequence[str] = RGB_ORDER
) -> tuple[np.ndarray, tuple[StemBand, ...]]:
    """Makes a stem's kernel for `bands` out of a pretrained one.

    Args:
        kernel: `(height, width, len(sources), filters)`, input channels in the order of `sources`: red, green, blue.
        bands: the model's bands in channel order.
        mode: `by_name` or `by_position`, see `assign_sources`.
        sources: bands of `kernel`, in channel order.

    Returns:
        The kernel `(height, width, len(bands), filters)` of the same dtype, and the source of each band's kernel.

    Raises:
        BandError: if the bands do not fit, or the kernel has another number of input channels than `sources`.
        OptionError: if the mode is unknown.
    """
    if kernel.ndim != 4 or kernel.shape[2] != len(sources):
        raise BandError(
            "stem", f"a kernel of shape {kernel.shape}", f"{len(sources)} input channels: {','.join(sources)}"
        )
    plan = assign_sources(bands, mode, sources)
    parts = [kernel[:, :, sources.index(entry.source), :] * kernel.dtype.type(entry.factor) for entry in plan]
    return np.stack(parts, axis=2), plan
