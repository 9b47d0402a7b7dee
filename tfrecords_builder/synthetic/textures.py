"""Textures of the land-cover classes: mixtures of materials laid out as parcels, rows, streets and lines.

The tone of open land (how green, how dry, how bright its soil) is drawn from one distribution for all classes that
consist of it, so that the class of a patch follows from its layout rather than its mean color.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from eo_keras.legends.catalogue import EUROSAT
from tfrecords_builder.synthetic.linear_features import draw_highway, draw_river
from tfrecords_builder.synthetic.noise import hashed
from tfrecords_builder.synthetic.painting import PLACE_OF, Ground, Painting, band
from tfrecords_builder.synthetic.spectra import MATERIALS


@dataclasses.dataclass(frozen=True)
class Tone:
    """Mean tone of a cell's open land: shares in 0..1."""

    green: float
    dry: float
    pale: float


def _tone(rng: np.random.Generator) -> Tone:
    return Tone(*rng.uniform((0.15, 0.0, 0.1), (0.9, 1.0, 0.9)))


def _blank(ground: Ground, class_name: str) -> Painting:
    return Painting(
        np.zeros((len(MATERIALS), *ground.shape), np.float32),
        np.ones(ground.shape, np.float32),
        np.full(ground.shape, EUROSAT.label_of(class_name), np.uint8),
    )


def _open_land(painting: Painting, green: np.ndarray, dry: np.ndarray, pale: np.ndarray) -> None:
    green, dry, pale = (np.clip(share, 0.0, 1.0) for share in (green, dry, pale))
    bare = (1.0 - green) * (1.0 - dry)
    painting.cover[PLACE_OF["green"]] = green
    painting.cover[PLACE_OF["dry"]] = (1.0 - green) * dry
    painting.cover[PLACE_OF["lightsoil"]] = bare * pale
    painting.cover[PLACE_OF["darksoil"]] = bare * (1.0 - pale)


def _bricks(
    ground: Ground, purpose: str, angle: float, length: float, breadth: float
) -> tuple[Callable[[str], np.ndarray], np.ndarray]:
    """Lays rectangles in shifted rows.

    Returns:
        A function that gives each rectangle's own random number for a purpose, and the distance of each pixel from
        its rectangle's edge, in pixels.
    """
    along, across = ground.turned(angle)
    j = np.floor(across / breadth)
    shifted = along / length + hashed(ground.key(purpose + "shift"), j)
    i = np.floor(shifted)
    edge = np.minimum((0.5 - np.abs(across / breadth - j - 0.5)) * breadth, (0.5 - np.abs(shifted - i - 0.5)) * length)
    return (lambda what: hashed(ground.key(purpose + what), i, j)), edge


def _annual_crop(ground: Ground, rng: np.random.Generator) -> Painting:
    painting = _blank(ground, "AnnualCrop")
    tone = _tone(rng)
    own, edge = _bricks(ground, "field", rng.uniform(0, np.pi), rng.uniform(24, 38), rng.uniform(13, 20))
    # Each parcel has its own crop: a number pushed towards 0 and 1 (bare or grown), around the cell's tone.
    stage = own("stage")
    stage = stage * stage * (3.0 - 2.0 * stage)
    furrows = 0.05 * (ground.noise(3.0, "furrow") - 0.5)
    _open_land(
        painting,
        tone.green + 0.95 * (stage - 0.5) + furrows,
        tone.dry + 0.8 * (own("dry") - 0.5),
        tone.pale + 0.9 * (own("pale") - 0.5),
    )
    painting.light = 0.84 + 0.32 * own("light")
    painting.overlay(0.45 * band(edge, 0.5), green=0.5, dry=0.5)
    return painting


def _permanent_crop(ground: Ground, rng: np.random.Generator) -> Painting:
    painting = _blank(ground, "PermanentCrop")
    tone = _tone(rng)
    angle = rng.uniform(0, np.pi)
    own, edge = _bricks(ground, "grove", angle, rng.uniform(26, 44), rng.uniform(22, 34))
    along, across = ground.turned(angle)
    # Rows run along or across their parcel; a spacing below 4 pixels would be lost in the sensor's sampling.
    spacing = rng.uniform(4.2, 6.5)
    phase = np.where(own("turn") < 0.5, along, across) / spacing
    row = 0.5 + 0.5 * np.cos(2 * np.pi * (phase + own("phase")).astype(np.float32))
    swing = 0.62 + 0.2 * own("swing")
    _open_land(
        painting,
        tone.green + swing * (row - 0.5) + 0.2 * (own("stage") - 0.5),
        tone.dry + 0.3 * (own("dry") - 0.5),
        tone.pale + 0.3 * (own("pale") - 0.5),
    )
    painting.light = (0.9 + 0.2 * own("light")) * (1.12 - 0.24 * row)
    painting.overlay(0.8 * band(edge, 0.6), dry=0.6, lightsoil=0.4)
    return painting


def _herbaceous(ground: Ground, rng: np.random.Generator) -> Painting:
    painting = _blank(ground, "HerbaceousVegetation")
    tone = _tone(rng)
    period = rng.uniform(12, 22)
    blotch = ground.fractal(period, "blotch", 4) - 0.5
    shrub = np.clip((ground.fractal(period * 0.6, "shrub", 3) - rng.uniform(0.5, 0.75)) * 7.0, 0.0, 1.0)
    _open_land(
        painting,
        tone.green + 1.5 * blotch,
        tone.dry + 1.2 * (ground.fractal(period, "dry") - 0.5),
        np.full(ground.shape, tone.pale, np.float32),
    )
    painting.light = 1.0 + 0.5 * (ground.fractal(9.0, "light", 3) - 0.5)
    painting.overlay(0.75 * shrub, tree=0.7, green=0.3)
    return painting


def _pasture(ground: Ground, rng: np.random.Generator) -> Painting:
    painting = _blank(ground, "Pasture")
    tone = _tone(rng)
    # Meadows are greener than ploughed land, but late in a dry year not by much.
    green = 0.3 + 0.7 * tone.green
    own, edge = _bricks(ground, "meadow", rng.uniform(0, np.pi), rng.uniform(55, 90), rng.uniform(40, 70))
    soft = ground.noise(40.0, "soft") - 0.5
    _open_land(
        painting,
        green + 0.12 * soft + 0.08 * (own("stage") - 0.5),
        np.full(ground.shape, tone.dry, np.float32),
        np.full(ground.shape, tone.pale, np.float32),
    )
    painting.light = 0.98 + 0.06 * own("light") + 0.04 * soft
    painting.overlay(0.35 * band(edge, 0.6), tree=0.6, green=0.4)
    return painting


def _countryside(ground: Ground, rng: np.random.Generator) -> Painting:
    """Paints the land around a line: fields, meadows or scrub."""
    return (_annual_crop, _pasture, _herbaceous)[rng.choice(3, p=(0.45, 0.35, 0.2))](ground, rng)


def _line(ground: Ground, rng: np.random.Generator, bend: float, period: tuple[float, float]) -> np.ndarray:
    """Returns the distance of each pixel from a winding line near the cell's center, in pixels."""
    along, across = ground.turned(rng.uniform(0, np.pi))
    length, phase = rng.uniform(*period), rng.uniform(0, 2 * np.pi)
    swing = bend * np.sin(2 * np.pi * along / length + phase)
    slope = 2 * np.pi * bend / length * np.cos(2 * np.pi * along / length + phase)
    # Divided by the slope's length, or the line would be thinner where it runs aslant.
    return ((across - swing - rng.uniform(-14, 14)) / np.sqrt(1 + slope * slope)).astype(np.float32)


def _highway(ground: Ground, rng: np.random.Generator) -> Painting:
    painting = _countryside(ground, rng)
    distance = _line(ground, rng, rng.uniform(0, 5), (90.0, 200.0))
    half_width = rng.uniform(1.3, 2.0)
    draw_highway(painting, distance, half_width, rng.uniform(1.05, 1.3))
    return painting


def _river(ground: Ground, rng: np.random.Generator) -> Painting:
    painting = _countryside(ground, rng)
    distance = _line(ground, rng, rng.uniform(5, 11), (45.0, 95.0))
    distance = distance + 3.0 * (ground.noise(14.0, "bank") - 0.5)
    half_width = rng.uniform(2.0, 5.0)
    draw_river(painting, distance, half_width, ground.noise(6.0, "wood"), rng.uniform(0.2, 1.0))
    return painting


def _forest(ground: Ground, rng: np.random.Generator) -> Painting:
    painting = _blank(ground, "Forest")
    stand = 0.12 * (ground.fractal(24.0, "stand", 2) - 0.5)
    young = 0.0 if ground.density is None else 0.8 * (1.0 - ground.density)
    green = np.clip(rng.uniform(0.03, 0.4) + young + stand, 0.0, 1.0)
    painting.overlay(np.ones(ground.shape, np.float32), tree=1.0 - green, green=green)
    speckle = 0.6 * ground.noise(1.6, "crown") + 0.4 * ground.noise(2.7, "crowns") - 0.5
    painting.light = rng.uniform(0.88, 1.08) + 0.3 * speckle
    return painting


def _sea_lake(ground: Ground, rng: np.random.Generator) -> Painting:
    painting = _blank(ground, "SeaLake")
    turbid = np.clip(rng.uniform(0.0, 0.9) + 0.25 * (ground.noise(48.0, "plume") - 0.5), 0.0, 1.0)
    painting.overlay(np.ones(ground.shape, np.float32), turbid=turbid, clear=1.0 - turbid)
    painting.light = rng.uniform(0.94, 1.08) + 0.015 * (ground.noise(3.0, "waves") - 0.5)
    return painting


def _residential(ground: Ground, rng: np.random.Generator) -> Painting:
    painting = _blank(ground, "Residential")
    tone = _tone(rng)
    angle = rng.uniform(0, np.pi)
    along, across = ground.turned(angle)
    garden = ground.noise(5.0, "garden") - 0.5
    _open_land(painting, 0.3 + 0.6 * tone.green + 0.4 * garden, np.full(ground.shape, tone.dry), garden * 0 + tone.pale)
    # From garden suburb to paved old town.
    paved = rng.uniform(0.0, 0.9)
    if ground.density is not None:
        paved = 0.9 * ground.density
    painting.overlay(np.clip(paved + 0.5 * garden, 0.0, 1.0), asphalt=0.7, tile=0.3)
    painting.overlay(0.7 * np.clip((ground.noise(4.0, "trees") - 0.6) * 6, 0, 1), tree=1.0)
    # Houses stand on plots of about 30 m; some plots are empty.
    pitch = rng.uniform(2.7, 3.5)
    i, j = np.floor(along / pitch), np.floor(across / pitch)
    centred = np.maximum(np.abs(along / pitch - i - 0.5), np.abs(across / pitch - j - 0.5)) * pitch
    built = rng.uniform(0.5, 0.95)
    if ground.density is not None:
        built = 0.35 + 0.6 * ground.density
    house = band(centred, pitch * 0.3) * (hashed(ground.key("plot"), i, j) < built)
    red = hashed(ground.key("roof"), i, j)
    shiny = rng.uniform(0.2, 0.8)
    roof = 0.75 + 0.6 * hashed(ground.key("shine"), i, j)
    painting.overlay(
        house, light=roof, tile=0.7 * red, bright=shiny * (1 - 0.7 * red), asphalt=(1 - shiny) * (1 - 0.7 * red)
    )
    spacing = pitch * rng.integers(3, 5)
    street = np.maximum(
        band(np.abs(along / (2 * spacing) - np.round(along / (2 * spacing))) * 2 * spacing, 0.5),
        band(np.abs(across / spacing - np.round(across / spacing)) * spacing, 0.5),
    )
    painting.overlay(0.9 * street, light=1.12, asphalt=0.85, bright=0.15)
    return painting


def _industrial(ground: Ground, rng: np.random.Generator) -> Painting:
    painting = _blank(ground, "Industrial")
    tone = _tone(rng)
    angle = rng.uniform(0, np.pi)
    lawn = np.clip((ground.noise(16.0, "lawn") - rng.uniform(0.15, 0.7)) * 8.0, 0.0, 1.0)
    _open_land(painting, np.full(ground.shape, 0.3 + 0.6 * tone.green), np.full(ground.shape, tone.dry), lawn * 0 + 0.5)
    painting.overlay(0.7 * np.clip((ground.noise(5.0, "trees") - 0.6) * 6, 0, 1), tree=1.0)
    painting.overlay(1.0 - lawn, light=rng.uniform(0.85, 1.1), asphalt=0.8, lightsoil=0.1, tile=0.1)
    own, edge = _bricks(ground, "hall", angle, rng.uniform(17, 26), rng.uniform(11, 17))
    # A hall fills most of its lot, if there is one.
    margin = 1.3 + 2.2 * own("margin")
    hall = np.clip(edge - margin + 0.5, 0.0, 1.0) * (own("lot") < 0.85)
    white = np.clip((own("white") - rng.uniform(0.3, 0.75)) * 2.5, 0.0, 1.0)
    shine = 0.72 + 0.5 * own("shine")
    # Now and then a metal roof mirrors the sun into the sensor: values above reflectance 1 are real.
    shine = shine + 4.0 * ((own("mirror") < 0.02) & (edge > margin + 2.5))
    painting.overlay(hall, light=shine, bright=white, asphalt=0.7 * (1 - white), tile=0.3 * (1 - white))
    return painting


def _park(ground: Ground, rng: np.random.Generator) -> Painting:
    """Paints lawns with groups of trees and light paths; no class of EuroSAT's, nearest to herbaceous vegetation."""
    painting = _blank(ground, "HerbaceousVegetation")
    green = 0.45 + 0.5 * _tone(rng).green
    lawn = ground.noise(20.0, "lawn") - 0.5
    _open_land(painting, green + 0.3 * lawn, np.full(ground.shape, 0.6), np.full(ground.shape, 0.5))
    trees = np.clip((ground.fractal(11.0, "trees", 3) - rng.uniform(0.3, 0.55)) * 8.0, 0.0, 1.0)
    painting.overlay(trees, light=0.85 + 0.3 * ground.noise(1.8, "crowns"), tree=0.85, green=0.15)
    path = np.abs(ground.fractal(26.0, "path", 2) - 0.5)
    painting.overlay(0.7 * np.clip(1.0 - path * 40.0, 0.0, 1.0), light=1.1, lightsoil=0.7, green=0.3)
    return painting


_PAINTERS = {
    "AnnualCrop": _annual_crop,
    "Forest": _forest,
    "HerbaceousVegetation": _herbaceous,
    "Highway": _highway,
    "Industrial": _industrial,
    "Pasture": _pasture,
    "PermanentCrop": _permanent_crop,
    "Residential": _residential,
    "River": _river,
    "SeaLake": _sea_lake,
    "Park": _park,
}


def paint(kind: str, ground: Ground) -> Painting:
    """Paints a window of a cell by its class.

    Args:
        kind: a class of `eo_keras.legends.catalogue.EUROSAT`, or `Park`.
        ground: the window.
    """
    return _PAINTERS[kind](ground, ground.rng())
