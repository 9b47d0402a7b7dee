"""Scenes of a map: found by their paths, opened, held against the model's card, and read as its input."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import glob
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from eo_keras.core.system_files import is_litter
from eo_keras.errors import BandError, OptionError, SourceError
from eo_keras.geo import scenes
from eo_keras.geo.scenes import Scene
from eo_keras.mapping.clouds import BANDS, MaskedReader
from eo_keras.mapping.options import PredictionOptions
from eo_keras.mapping.plan import Look
from eo_keras.records.example import NO_DATA, OBSCURED
from eo_keras.runs.model_card import ModelCard
from eo_keras.sensors import radiometry

_LOOKED_AT = 512
"""Most pixels along a side of the picture by which a scene's clear share is judged."""


def find_scenes(patterns: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Returns the paths of scenes, each once, in the order of the patterns.

    Raises:
        OptionError: if there is none for a pattern.
    """
    found: list[str] = []
    for pattern in map(os.fspath, patterns):
        matches = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))
        matches = [path for path in matches if not is_litter(os.path.basename(path))]
        if not matches:
            raise OptionError("scenes", f"nothing is called {pattern}", "a scene, or a pattern in quotes", "check it")
        found += matches
    return list(dict.fromkeys(found))


def open_for(card: ModelCard, path: str | os.PathLike[str], options: PredictionOptions) -> Scene:
    """Opens a scene and checks that a model can predict it.

    Returns:
        The scene with the model's bands, and with those that show clouds where `cloud_mask` is `ukis`.

    Raises:
        SourceError: if it cannot be used, or is of another level than the model's.
        BandError: if it lacks a band of the model.
        OptionError: if an option does not fit it.
    """
    # The projection is that of the map, which the plan brings the scene to.
    opening = dataclasses.replace(options.scene_options(card.bands), target_crs=None)
    return fitted(card, scenes.open_scene(path, opening), options)


def fitted(card: ModelCard, scene: Scene, options: PredictionOptions) -> Scene:
    """Returns an open scene with the bands that a model takes; see `open_for`."""
    if missing := [band for band in card.bands if band not in scene.bands]:
        raise BandError(
            scene.source,
            f"it holds {','.join(scene.bands)}, without {','.join(missing)}",
            f"the model's bands {','.join(card.bands)}",
            "give a scene that holds them, or a model of other bands",
        )
    if card.reflectance is None:
        raise BandError(
            "the model",
            f"its numbers ({card.dtype}) have no known relation to reflectance, which scenes are in",
            "a model that was trained on reflectance, or on EuroSAT's JPEGs",
            "train one on records whose source says what its numbers mean",
        )
    scene = dataclasses.replace(scene, level=scene.level or options.scene_level)
    if scene.level != card.level and not options.allow_level_mismatch:
        found = "it does not say its processing level" if scene.level is None else f"it is of Level-{scene.level[1:]}"
        say = "say `scene_level`, " if scene.level is None else ""
        raise SourceError(
            scene.source,
            found,
            f"Level-{card.level[1:]}, as the model was trained on" if card.level else "the model's, which is not known",
            f"{say}give the other product, or accept less accurate classes by `allow_level_mismatch`",
        )
    bands = card.bands
    if options.cloud_mask == "ukis":
        every = scenes.open_scene(scene.source, dataclasses.replace(options.scene_options(None), target_crs=None))
        further = {band: layer for band, layer in zip(every.bands, every.layers, strict=True) if band in BANDS}
        own = dict(zip(scene.bands, scene.layers, strict=True))
        layers = {band: own[band] for band in bands} | further
    else:
        layers = {band: scene.layers[scene.bands.index(band)] for band in bands}
    scene = dataclasses.replace(scene, bands=tuple(layers), layers=tuple(layers.values()))
    MaskedReader(scene, bands, mask_of(scene, options.cloud_mask))  # Refuses a mask that it cannot be read with.
    return scene


def mask_of(scene: Scene, cloud_mask: str | None) -> str:
    """Returns which of `clouds.CLOUD_MASKS` a scene is read with."""
    return cloud_mask or ("none" if scene.scl is None else "scl")


def in_order(opened: Sequence[Scene], pick: str, cloud_mask: str | None) -> list[Scene]:
    """Returns scenes in the order of preference, the first of two equals by its name.

    Args:
        opened: the scenes.
        pick: one of `eo_keras.mapping.options.PICKS`.
        cloud_mask: what shows clouds.

    Raises:
        OptionError: if the latest one is wanted and a scene's date is unknown.
    """
    opened = sorted(opened, key=lambda scene: (scene.product, scene.source))
    if pick == "latest":
        unknown = next((scene for scene in opened if scene.date is None), None)
        if unknown is not None and len(opened) > 1:
            raise OptionError(
                "`pick=latest`",
                f"the date of {unknown.source} is unknown",
                "products, or files with a date in their names",
                "say `pick=mean`, or name the file as the product",
            )
        return sorted(opened, key=lambda scene: scene.date or datetime.date.min, reverse=True)
    if pick == "clearest" and len(opened) > 1:
        return sorted(opened, key=lambda scene: -_clear_share(scene, cloud_mask))
    return opened


def _clear_share(scene: Scene, cloud_mask: str | None) -> float:
    """Returns the share of a scene's pixels that are clear, by a picture of it with fewer pixels."""
    factor = max(1, -(-max(scene.grid.height, scene.grid.width) // _LOOKED_AT))
    # Nearest pixels: of a whole product, few are needed.
    mask = mask_of(scene, cloud_mask)
    if mask != "ukis":
        first = {"bands": scene.bands[:1], "layers": scene.layers[:1], "resampling": "nearest"}
        scene = dataclasses.replace(scene, grid=scene.grid.coarser(factor), **first)
    clear, pixels, step = 0, 0, max(1, 4 * _LOOKED_AT // factor)
    with MaskedReader(scene, scene.bands[:1], mask) as reader:
        for row in range(0, scene.grid.height, step):
            rows = min(step, scene.grid.height - row)
            _, validity = reader.read(row, 0, rows, scene.grid.width)
            clear += int(is_clear(validity).sum())
            pixels += validity.size
    return clear / pixels


def is_clear(validity: np.ndarray) -> np.ndarray:
    """Returns which pixels have data and no cloud or shadow over them, bool, from a validity mask."""
    return (validity != NO_DATA) & (validity != OBSCURED)


class ModelReader:
    """Reader of a scene's windows as a model's input; a context manager.

    Args:
        look: the scene on its window of the map, opened by `open_for`.
        card: the model's card.
        cloud_mask: one of `clouds.CLOUD_MASKS`, or None for that of the scene.
    """

    def __init__(self, look: Look, card: ModelCard, cloud_mask: str | None):
        self._card = card
        self._reader = MaskedReader(look.scene, card.bands, mask_of(look.scene, cloud_mask), look.whole)

    def __enter__(self) -> ModelReader:
        """Opens the scene's files."""
        self._reader.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        """Closes them."""
        self._reader.__exit__(*exception)

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads a window.

        Returns:
            (height, width, bands) of the card's dtype, 0 without data; and which pixels are clear, bool (height,
            width): those with data that no cloud or shadow obscures.

        Raises:
            SourceError: if a file is damaged.
        """
        image, validity = self._reader.read(row, column, height, width)
        card = self._card
        if (image.dtype, radiometry.HARMONISED) != (np.dtype(card.dtype), card.reflectance):
            image = radiometry.convert(image, radiometry.HARMONISED, card.reflectance, card.dtype)
        return image, is_clear(validity)


def stamp(path: str) -> list[int]:
    """Returns numbers that change with a scene: the files' count, their bytes, and the time of the newest, in ns."""
    root = pathlib.Path(path)
    every = [root] if root.is_file() else [file for file in root.rglob("*") if file.is_file()]
    found = []
    for file in every:
        with contextlib.suppress(OSError):
            found.append(file.stat())
    return [len(found), sum(one.st_size for one in found), max((one.st_mtime_ns for one in found), default=0)]
