"""Options of a split, what it divides, and its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

TRAIN, VAL, TEST = "train", "val", "test"
METHODS = ("random", "published", "lists", "spatial", "city")


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """How to split.

    Attributes:
        method: one of `METHODS`.
        test_fraction: share of the patches for testing.
        val_fraction: share of the patches for validation.
        seed: changes who is drawn.
        fold: (number from 1, folds) of a cross-validation, in place of `test_fraction`: with one seed, each patch is
            for testing in exactly one of the folds. For `random`, and `spatial` with `block_km`.
        lists: prefix of the lists' file names: PREFIX-train.txt, PREFIX-val.txt (may be absent), PREFIX-test.txt.
        allow_missing_patches: whether lists may name patches that the source lacks.
        block_km: edge of the blocks of a spatial split in kilometres; None splits by longitude.
        buffer_km: patches of another part that are nearer than this, edge to edge in kilometres, are left out.
        coordinates: CSV file with the header `patch,latitude,longitude`, in degrees.
    """

    method: str = "random"
    test_fraction: float = 0.2
    val_fraction: float = 0.0
    seed: int = 1
    fold: tuple[int, int] | None = None
    lists: str | None = None
    allow_missing_patches: bool = False
    block_km: float | None = None
    buffer_km: float = 0.0
    coordinates: str | None = None


@dataclasses.dataclass(frozen=True)
class Patches:
    """What splitting needs to know of patches or tiles; parallel sequences of N entries.

    Attributes:
        keys: unique keys.
        classes: class names.
        groups: int64 (N,); patches with identical pixels share a number.
        crs: coordinate reference systems, or None.
        transforms: float64 (N, 6) affine transforms, or None where the images are not georeferenced.
        size_m: edge of a patch in metres.
        pixels: edge of a patch in pixels.
        parts: the parts that the archive gives them to; empty, or of empty texts, where it gives none.
        sites: the sites that tiles of scenes are cut from, by name; empty where patches are of no site.
        site_splits: for each site by name its own split, or None where it is to be drawn.
    """

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    groups: np.ndarray
    crs: tuple[str | None, ...]
    transforms: np.ndarray | None
    size_m: float
    pixels: int
    parts: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    site_splits: Mapping[str, str | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SplitResult:
    """A split: each patch's part (None is left out), what the card says of it, and warnings."""

    assignment: tuple[str | None, ...]
    method: dict[str, Any]
    warnings: tuple[str, ...] = ()
