"""Spectra of the generated world: top-of-atmosphere digital numbers of its materials.

The figures are digital numbers (reflectance x 10000, Level-1C), made up after the general shape of such spectra: the
red edge of green leaves, water dark beyond the red, soil rising into the shortwave infrared, and B10 nearly empty
everywhere because water vapour absorbs at 1375 nm. They are chosen so that the archive's band statistics lie near
those published for EuroSAT.
"""

from __future__ import annotations

import numpy as np

from eo_keras.sensors.sentinel2 import NOMINAL_ORDER

_SPECTRA = {
    #          B01   B02   B03   B04   B05   B06   B07   B08   B8A   B09 B10  B11   B12
    "clear": (1230, 940, 690, 400, 350, 270, 250, 225, 190, 115, 11, 120, 85),
    "turbid": (1290, 1060, 930, 620, 540, 360, 350, 310, 260, 135, 11, 140, 100),
    "green": (1210, 920, 910, 540, 1060, 2850, 3650, 3550, 3980, 1080, 12, 1820, 830),
    "dry": (1340, 1130, 1150, 1210, 1560, 2250, 2560, 2500, 2870, 830, 12, 2850, 1850),
    "lightsoil": (1620, 1560, 1640, 1990, 2200, 2380, 2540, 2580, 2780, 800, 13, 3650, 2850),
    "darksoil": (1280, 1000, 880, 900, 1040, 1240, 1390, 1420, 1590, 470, 12, 1950, 1480),
    "tree": (1150, 810, 670, 400, 680, 1850, 2280, 2200, 2520, 740, 11, 1080, 460),
    "bright": (1950, 2250, 2330, 2480, 2560, 2660, 2760, 2850, 2880, 950, 15, 2950, 2650),
    "tile": (1560, 1430, 1400, 1650, 1800, 2050, 2200, 2250, 2350, 730, 14, 2500, 2150),
    "asphalt": (1420, 1170, 1080, 1070, 1130, 1280, 1370, 1380, 1460, 440, 13, 1620, 1400),
}

MATERIALS: tuple[str, ...] = tuple(_SPECTRA)
"""Materials of the ground, the endmembers of every pixel's mixture."""

_TABLE = np.array(list(_SPECTRA.values()), np.float32)
_HAZE = dict(zip(NOMINAL_ORDER, (260, 215, 165, 130, 105, 75, 60, 50, 42, 40, 4, 12, 6), strict=True))

# Light that the atmosphere itself sends to the sensor (Rayleigh and aerosol, falling with the wavelength), and clouds.
_PATH = dict(zip(NOMINAL_ORDER, (900, 610, 340, 190, 150, 110, 90, 70, 60, 50, 0, 10, 5), strict=True))
_CLOUD = dict(
    zip(
        NOMINAL_ORDER,
        (5200, 5300, 5100, 5250, 5400, 5500, 5600, 5600, 5700, 2100, 45, 4300, 3300),
        strict=True,
    )
)


def endmembers(bands: tuple[str, ...]) -> np.ndarray:
    """Returns the materials' digital numbers in the given bands: float32 (materials, bands)."""
    return _TABLE[:, [NOMINAL_ORDER.index(name) for name in bands]]


def haze(bands: tuple[str, ...]) -> np.ndarray:
    """Returns the digital numbers that one unit of haze adds to each band: float32 (bands,)."""
    return np.array([_HAZE[name] for name in bands], np.float32)


def path(bands: tuple[str, ...]) -> np.ndarray:
    """Returns the path radiance in digital numbers, which Level-2A lacks: float32 (bands,)."""
    return np.array([_PATH[name] for name in bands], np.float32)


def cloud(bands: tuple[str, ...]) -> np.ndarray:
    """Returns the digital numbers of a thick cloud: float32 (bands,)."""
    return np.array([_CLOUD[name] for name in bands], np.float32)
