"""Bands of Sentinel-2 by name, composites, and EuroSAT's stored band order.

Band facts are those of ESA's Sentinel-2 MSI: center wavelengths and native resolutions as in the EuroSAT paper's band
table (Helber et al. 2019, IEEE JSTARS 12(7), table of bands).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from eo_keras.sensors.band_names import select_names


@dataclasses.dataclass(frozen=True)
class Band:
    """One spectral band of the Sentinel-2 multispectral instrument.

    Attributes:
        name: ESA's name, for instance `B8A`.
        title: name of the band in the literature.
        wavelength_nm: center wavelength in nanometers.
        resolution_m: native ground sampling distance in meters.
        levels: the processing levels that hold the band; B10 (cirrus) is dropped in L2A.
    """

    name: str
    title: str
    wavelength_nm: int
    resolution_m: int
    levels: tuple[str, ...] = ("L1C", "L2A")


BANDS: dict[str, Band] = {
    band.name: band
    for band in (
        Band("B01", "Coastal aerosol", 443, 60),
        Band("B02", "Blue", 490, 10),
        Band("B03", "Green", 560, 10),
        Band("B04", "Red", 665, 10),
        Band("B05", "Red edge 1", 705, 20),
        Band("B06", "Red edge 2", 740, 20),
        Band("B07", "Red edge 3", 783, 20),
        Band("B08", "Near infrared", 842, 10),
        Band("B8A", "Red edge 4", 865, 20),
        Band("B09", "Water vapour", 945, 60),
        Band("B10", "Cirrus", 1375, 60, levels=("L1C",)),
        Band("B11", "Shortwave infrared 1", 1610, 20),
        Band("B12", "Shortwave infrared 2", 2190, 20),
    )
}
"""All 13 bands, in Sentinel-2's nominal order (by wavelength, B8A in ninth place)."""

NOMINAL_ORDER: tuple[str, ...] = tuple(BANDS)

EUROSAT_ORDER: tuple[str, ...] = (*(name for name in NOMINAL_ORDER if name != "B8A"), "B8A")
"""The order inside EuroSAT's 13-band GeoTIFFs: B8A is stored last, unlike in the paper's table."""

COMPOSITES: dict[str, tuple[str, ...]] = {
    "RGB": ("B04", "B03", "B02"),
    "CI": ("B08", "B04", "B03"),
    "SWIR": ("B12", "B8A", "B04"),
}
"""Three-band composites of the EuroSAT paper: true color, color infrared and shortwave infrared."""

QUANTIFICATION = 10_000
"""Harmonized digital number of a reflectance of 1."""

JPEG_STRETCH_DN = 2_750
"""Digital number of the gray value 255 in EuroSAT's JPEGs (`gdal_translate -scale 0 2750 1 255`, authors' README)."""


def parse_bands(text: str, available: Iterable[str] = NOMINAL_ORDER) -> tuple[str, ...]:
    """Parses `all`, or a comma-separated list of names and of the composites `RGB`, `CI` and `SWIR`.

    Args:
        text: `all`, or names such as `CI`, `B04,B8A` or `RGB,B08`; upper or lower case, `B4` and `B08A` are understood
            as `B04` and `B8A`.
        available: the bands that the data holds, in stored order; `all` means these.

    Returns:
        The band names, in the order given.

    Raises:
        BandError: if a name is unknown, is given twice, or is not available.
    """
    return select_names(
        text,
        available,
        known=NOMINAL_ORDER,
        composites=COMPOSITES,
        title="Sentinel-2",
        canonical=canonical_name,
    )


def canonical_name(text: str) -> str:
    """Returns ESA's two-digit form of a band's name (`B4` is `B04`, `B08A` is `B8A`); other texts in upper case."""
    name = text.strip().upper()
    if name.startswith("B") and name[1:].rstrip("A").isdigit():
        number = name[1:].rstrip("A").lstrip("0")
        return f"B{number}A" if name.endswith("A") else f"B{number.zfill(2)}"
    return name


def nearest_band(name: str, candidates: Iterable[str]) -> str:
    """Returns the candidate whose center wavelength is nearest to that of `name`; the first of equals."""
    return min(candidates, key=lambda other: abs(BANDS[other].wavelength_nm - BANDS[name].wavelength_nm))
