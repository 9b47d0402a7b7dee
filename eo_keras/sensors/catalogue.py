"""Sensors by name: their bands, composites and units. A new sensor is one entry here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from eo_keras.errors import BandError
from eo_keras.sensors import sentinel2
from eo_keras.sensors.band_names import select_names

DIGITAL_NUMBERS, DECIBELS, METERS = "digital numbers", "dB", "m"
"""Units of stored numbers: of the sensor or stretched; of backscatter; of heights."""

OPTICAL, RADAR, ELEVATION = "optical", "radar", "elevation"
"""Kinds of sensors, by which images are drawn and brightness is augmented."""


@dataclasses.dataclass(frozen=True)
class Sensor:
    """One kind of sensor, or of product of several.

    Attributes:
        name: its name in cards.
        title: its name in texts.
        kind: `OPTICAL`, `RADAR` or `ELEVATION`.
        bands: names of its bands in nominal order.
        composites: names of bands drawn as red, green and blue, by the composite's name.
    """

    name: str
    title: str
    kind: str
    bands: tuple[str, ...]
    composites: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def parse_bands(self, text: str, available: Iterable[str] | None = None) -> tuple[str, ...]:
        """Parses a composite, `all`, or a comma-separated list of names, see `band_names.select_names`.

        Args:
            text: the selection.
            available: the bands that the data holds, in stored order; None for all of the sensor.

        Raises:
            BandError: if a name is unknown, is given twice, or is not available.
        """
        available = self.bands if available is None else available
        if self.name == SENTINEL2.name:
            return sentinel2.parse_bands(text, available)
        return select_names(text, available, known=self.bands, composites=self.composites, title=self.title)


SENTINEL2 = Sensor("sentinel2", "Sentinel-2", OPTICAL, sentinel2.NOMINAL_ORDER, sentinel2.COMPOSITES)

SENTINEL1 = Sensor("sentinel1", "Sentinel-1", RADAR, ("VV", "VH", "HH", "HV", "SAR"))
"""Backscatter by polarization; `SAR` is a channel whose polarization is not known."""

AERIAL = Sensor("aerial", "aerial", OPTICAL, ("R", "G", "B", "NIR"), {"RGB": ("R", "G", "B"), "CI": ("NIR", "R", "G")})
"""Red, green, blue and near infrared of aerial and of very high resolution satellite images."""

HEIGHT = Sensor("height", "height", ELEVATION, ("HEIGHT",))
"""Height above ground (normalized digital surface model)."""

SENSORS: dict[str, Sensor] = {one.name: one for one in (SENTINEL2, SENTINEL1, AERIAL, HEIGHT)}


def named(name: str) -> Sensor:
    """Returns a sensor.

    Raises:
        BandError: if there is none of that name.
    """
    if name not in SENSORS:
        raise BandError("sensor", f"'{name}'", f"one of {', '.join(SENSORS)}", "update EO-Keras")
    return SENSORS[name]


def of_bands(bands: Iterable[str]) -> Sensor:
    """Returns the sensor that has bands of these names.

    Raises:
        BandError: if none has all of them.
    """
    bands = tuple(bands)
    for sensor in SENSORS.values():
        if set(bands) <= set(sensor.bands):
            return sensor
    raise BandError("bands", ",".join(bands), f"those of one sensor of {', '.join(SENSORS)}", "update EO-Keras")
