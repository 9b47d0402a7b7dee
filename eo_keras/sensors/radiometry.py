"""Conversion between scales of stored numbers, such as EuroSAT's JPEGs, and reflectance.

The authors made the RGB images out of the 13-band ones by `gdal_translate -of JPEG -co QUALITY=100 -ot Byte -a_nodata 0
-scale 0 2750 1 255 -b 4 -b 3 -b 2` (README of the EuroSAT repository): digital numbers 0..2750 become 1..255 linearly.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from eo_keras.sensors.sentinel2 import JPEG_STRETCH_DN, QUANTIFICATION

_LOWEST, _HIGHEST = 1, 255


@dataclasses.dataclass(frozen=True)
class Reflectance:
    """Relation of stored numbers to reflectance: `reflectance = number * scale + offset`."""

    scale: float
    offset: float = 0.0


JPEG_STEP = JPEG_STRETCH_DN / (_HIGHEST - _LOWEST) / QUANTIFICATION
"""Reflectance of one gray value; a value of 1 is reflectance 0."""

HARMONISED = Reflectance(scale=1 / QUANTIFICATION)
"""Relation of harmonized digital numbers (uint16) to reflectance."""

EUROSAT_JPEG = Reflectance(scale=JPEG_STEP, offset=-JPEG_STEP)
"""Relation of the gray values (uint8) of EuroSAT's JPEGs to reflectance."""


def convert(numbers: npt.ArrayLike, given: Reflectance, wanted: Reflectance, dtype: npt.DTypeLike) -> np.ndarray:
    """Converts stored numbers to another scale of the same reflectance.

    Args:
        numbers: stored numbers (..., bands), any real dtype, without NaN; give all bands that the image holds, for only
            a pixel of 0 in every one of them is one of no data.
        given: relation of the numbers to reflectance.
        wanted: relation of the result to reflectance.
        dtype: integer dtype of the result.

    Returns:
        The same shape, of that dtype, rounded to nearest, within 1 and the dtype's largest value: what is brighter
        than that is clipped. A pixel of no data stays 0 in all bands.
    """
    numbers = np.asarray(numbers)
    converted = _rescaled(numbers, given, wanted, dtype)
    converted[(numbers == 0).all(axis=-1)] = 0
    return converted


def stretch_like_eurosat_jpeg(dn: npt.ArrayLike) -> np.ndarray:
    """Stretches harmonized digital numbers to the gray values of EuroSAT's JPEGs (before compression).

    Args:
        dn: harmonized digital numbers (reflectance x 10000), any shape, any real dtype, without NaN.

    Returns:
        uint8 of the same shape: `1 + dn * 254 / 2750`, rounded to nearest as GDAL does for `-ot Byte`, within 1..255.
        A digital number of 0 becomes 1 like in the JPEGs: where it means "no data", the caller sets it to 0.
    """
    # Rounding errors cannot change the result: for a whole DN the value is never nearer than 1/2750 to a half.
    return _rescaled(dn, HARMONISED, EUROSAT_JPEG, np.uint8)


def _rescaled(numbers: npt.ArrayLike, given: Reflectance, wanted: Reflectance, dtype: npt.DTypeLike) -> np.ndarray:
    # float64, because 16-bit numbers times a gain leave float32 only 8 bits for the fraction that is rounded.
    values = np.asarray(numbers, dtype=np.float64) * (given.scale / wanted.scale)
    values += (given.offset - wanted.offset) / wanted.scale
    # Clipping comes before the cast, or bright numbers (clouds, roofs) would wrap around in the smaller dtype.
    return np.clip(np.rint(values), _LOWEST, np.iinfo(dtype).max).astype(dtype)
