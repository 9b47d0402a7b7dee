"""The grey-value stretch of EuroSAT's JPEGs, and its inverse.

The authors made the RGB images out of the 13-band ones by `gdal_translate -of JPEG -co QUALITY=100 -ot Byte -a_nodata 0
-scale 0 2750 1 255 -b 4 -b 3 -b 2` (README of the EuroSAT repository): digital numbers 0..2750 become 1..255 linearly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eo_keras.sentinel2 import JPEG_STRETCH_DN, QUANTIFICATION

_LOWEST, _HIGHEST = 1, 255

JPEG_STEP = JPEG_STRETCH_DN / (_HIGHEST - _LOWEST) / QUANTIFICATION
"""Reflectance of one grey value; a value of 1 is reflectance 0."""


def stretch_like_eurosat_jpeg(dn: npt.ArrayLike) -> np.ndarray:
    """Stretches harmonised digital numbers to the grey values of EuroSAT's JPEGs (before compression).

    Args:
        dn: harmonised digital numbers (reflectance x 10000), any shape, any real dtype, without NaN.

    Returns:
        uint8 of the same shape: `1 + dn * 254 / 2750`, rounded to nearest as GDAL does for `-ot Byte`, within 1..255.
        A digital number of 0 becomes 1 like in the JPEGs: whoever knows that it means "no data" has to blacken it.
    """
    # Clipping comes first, or DN over 2750 (clouds, bright roofs) would wrap around in uint8. float32 is exact enough:
    # for a whole DN the value is never nearer than 1/2750 to a half, so that rounding errors cannot change the result.
    clipped = np.clip(np.asarray(dn), 0, JPEG_STRETCH_DN).astype(np.float32)
    scale = np.float32((_HIGHEST - _LOWEST) / JPEG_STRETCH_DN)
    return np.rint(clipped * scale + np.float32(_LOWEST)).astype(np.uint8)


def jpeg_to_reflectance(value: npt.ArrayLike) -> np.ndarray:
    """Turns grey values of EuroSAT's JPEGs back into top-of-atmosphere reflectance.

    Args:
        value: grey values 0..255, any shape and real dtype.

    Returns:
        float32 of the same shape, reflectance as a fraction: `(value - 1) * 2750 / 254 / 10000`, steps of 0.00108. A
        value of 255 stands for 0.275 and everything brighter; 0, which only compression makes, is slightly negative.
    """
    # Subtracting in float64: uint8 would turn 0 - 1 into 255.
    values = np.asarray(value, dtype=np.float64)
    return ((values - _LOWEST) * JPEG_STEP).astype(np.float32)
