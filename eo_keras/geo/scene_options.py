"""Options of commands that open scenes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from eo_keras.core.options import check, option
from eo_keras.geo import scene_numbers, scenes
from eo_keras.geo.scenes import LEVELS, SceneOptions


def band_order() -> Any:
    """Declares `band_order`, the names of bands in stored order."""
    return option(
        None,
        aliases=("bands_in_file",),
        help="Names of the bands in stored order where files do not name them, such as B11,B08,B03, or EUROSAT.",
    )


def scene_level() -> Any:
    """Declares `scene_level`, the processing level of images without metadata."""
    return option(None, choices=LEVELS, help="Processing level of scenes or images that do not say it.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneReadingOptions:
    """Options of reading scenes; a base of the options of commands that do."""

    resampling: str = option(
        "cubic",
        choices=scenes.RESAMPLINGS,
        help="Resampling of bands of 20 and 60 m to the finest one's grid.",
    )
    scene_units: str | None = option(
        None,
        choices=scene_numbers.UNITS,
        help="Meaning of the numbers of floating-point scenes; others say it.",
    )
    scene_offset: float | None = option(
        None,
        help="Number that is added to the stored numbers of scenes of which neither tags nor metadata say it, such as "
        "-1000 since processing baseline 04.00; 0 where it has been applied.",
    )
    scene_scale: float | None = option(
        None,
        help="Factor that then gives reflectance, where neither tags nor metadata say it: 0.01 for per cent. Default: "
        "0.0001.",
    )
    scene_level: str | None = scene_level()
    band_order: str | None = band_order()
    target_crs: str | None = option(None, help="Projection in meters to bring scenes to, such as EPSG:32633.")

    def __post_init__(self):
        """Checks the values."""
        check(self)

    def scene_options(self, bands: Sequence[str] | None) -> SceneOptions:
        """Returns the options of opening scenes.

        Args:
            bands: names of the bands, in order; None takes all.

        Raises:
            OptionError: if values do not fit each other.
        """
        return SceneOptions(
            bands=None if bands is None else tuple(bands),
            resampling=self.resampling,
            units=self.scene_units,
            offset=self.scene_offset,
            scale=self.scene_scale,
            band_order=scenes.parse_band_order(self.band_order) if self.band_order else None,
            target_crs=self.target_crs,
            level=self.scene_level,
        )
