"""Inputs of a network, chosen from the modalities of records by names: `s2:RGB,B08;s1:VV,VH`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from eo_keras.errors import BandError, OptionError
from eo_keras.records.data_card import IMAGE, DataCard, Modality
from eo_keras.sensors import catalogue as sensors

BEFORE = "_before"
"""End of the name of a modality of an earlier date: `s2_before` is `s2` at that date."""


@dataclasses.dataclass(frozen=True)
class InputBands:
    """One input of a network.

    Attributes:
        name: its name: `image` where it is the only one; else its modality's, and of a second view of that with a
            number, such as `s2_2`.
        modality: name of its modality in the records.
        bands: names of its bands in channel order.
    """

    name: str
    modality: str
    bands: tuple[str, ...]

    @property
    def sensor_name(self) -> str:
        """Name of its modality without the date: both dates of a sensor share it."""
        return self.modality.removesuffix(BEFORE)


def parse_inputs(text: str, card: DataCard) -> tuple[InputBands, ...]:
    """Parses a selection of bands.

    Args:
        text: `all` for everything that the records hold; names of bands and composites of the first modality, such as
            `RGB,B08`; or modalities with their bands, such as `s2:RGB,B08;s1:VV,VH` or `s2:all;height:all`. A modality
            named twice is two inputs.
        card: the records' card.

    Raises:
        BandError: if a modality or a band is unknown, or a band is named twice.
    """
    modalities = card.modalities
    if text.strip().lower() == "all":
        found = [(name, one.bands) for name, one in modalities.items()]
    elif ":" not in text:
        found = [(card.modality, _bands(text, modalities[card.modality]))]
    else:
        found = []
        for part in filter(str.strip, text.split(";")):
            name, colon, bands = part.strip().partition(":")
            if not colon or name.strip() not in modalities:
                raise BandError(
                    f"bands '{text}'",
                    f"the records have no modality '{name.strip()}'" if colon else f"'{part.strip()}' has no modality",
                    f"modalities out of {', '.join(modalities)}, each with its bands",
                    f"say, for instance, `bands={card.modality}:all`",
                )
            found.append((name.strip(), _bands(bands, modalities[name.strip()])))
    if len(found) == 1:
        return (InputBands(IMAGE, *found[0]),)
    names = [name for name, _ in found]
    numbers = [names[:place].count(name) + 1 for place, name in enumerate(names)]
    return tuple(
        InputBands(_view(name, number), name, bands) for (name, bands), number in zip(found, numbers, strict=True)
    )


def _view(name: str, number: int) -> str:
    """Returns the name of a view of a modality: `s2`, `s2_2`, and of the earlier date `s2_2_before`."""
    if number == 1:
        return name
    before = BEFORE if name.endswith(BEFORE) else ""
    return f"{name.removesuffix(BEFORE)}_{number}{before}"


def later_dates(names: Iterable[str]) -> list[str]:
    """Returns the names of inputs without those of earlier dates, each once: `s2`, `s2_before` are `s2`."""
    return list(dict.fromkeys(name.removesuffix(BEFORE) for name in names))


def first_modality(card: DataCard, bands: Sequence[str] | None = None) -> tuple[InputBands, ...]:
    """Returns the only input of a network that takes bands of the first modality; None takes all.

    Raises:
        BandError: if a band is unknown, named twice or not stored.
    """
    modality = card.modalities[card.modality]
    return (InputBands(IMAGE, card.modality, modality.bands if bands is None else _bands(",".join(bands), modality)),)


def text_of(inputs: Sequence[InputBands], card: DataCard) -> str:
    """Returns a selection as `parse_inputs` reads it."""
    if len(inputs) == 1 and inputs[0].modality == card.modality:
        return ",".join(inputs[0].bands)
    return ";".join(f"{one.modality}:{','.join(one.bands)}" for one in inputs)


def sides(inputs: Sequence[InputBands], sensor: str) -> tuple[tuple[InputBands, ...], tuple[InputBands, ...]]:
    """Returns the inputs of a network that predicts a sensor's images, the only one as `image`, and these images.

    Args:
        inputs: the inputs of both.
        sensor: name of the sensor.

    Raises:
        OptionError: if the sensor is none of the inputs', or the only one.
    """
    predicted = tuple(one for one in inputs if one.sensor_name == sensor)
    taken = tuple(one for one in inputs if one.sensor_name != sensor)
    if not predicted or not taken:
        names = ", ".join(dict.fromkeys(one.sensor_name for one in inputs))
        found = f"'{sensor}' of bands of {names}"
        raise OptionError("translated_sensor", found, "one sensor of two or more", "choose it, or more of `bands`")
    if len(taken) == 1:
        taken = (dataclasses.replace(taken[0], name=IMAGE),)
    return taken, predicted


def shown_bands(inputs: Sequence[InputBands]) -> Any:
    """Returns the names of the bands of the only input, or of several by the input's name, as figures take them."""
    return {one.name: one.bands for one in inputs} if len(inputs) > 1 else inputs[0].bands


def _bands(text: str, modality: Modality) -> tuple[str, ...]:
    return sensors.named(modality.sensor).parse_bands(text, modality.bands)
