"""Options, input and result of a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from eo_keras.core.options import documented, option
from eo_keras.errors import OptionError

TRAIN, VAL, TEST = "train", "val", "test"
METHODS = ("random", "published", "lists", "spatial", "city")


@documented
@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """Options of a split into train, val and test."""

    split: str | None = option(
        None,
        choices=METHODS,
        help="How the examples are divided. random: stratified by class. published: by the archive's own folders. "
        "lists: by published lists, see `lists`. spatial: from west to east by longitude, or in blocks, see "
        "`block_km`. city: whole cities. Default: random; of ombria, ombria_s2 and footprints "
        "published; of urban_atlas city.",
    )
    test_fraction: float = option(
        0.2, help="Fraction of the patches, tiles or cities for testing, 0 to 1 (not of published splits or lists)."
    )
    val_fraction: float = option(
        0.0, help="Fraction of them for validation, 0 to 1 (not of published splits or lists)."
    )
    seed: int = option(1, help="Seed of the split and of the order inside the shards.")
    fold: str | None = option(
        None,
        help="Fold of a cross-validation, such as 2/5: with one `seed`, each patch is for testing in one of 1/5 to 5/5 "
        "(random; spatial with `block_km`; city). In place of `test_fraction`.",
    )
    lists: str | None = option(
        None, path=True, help="PREFIX of the lists PREFIX-train.txt, PREFIX-val.txt (optional) and PREFIX-test.txt."
    )
    allow_missing_patches: bool = option(
        False, help="Whether lists may name patches that the source lacks; the card counts them."
    )
    block_km: float | None = option(
        None, help="Edge of the blocks of a spatial split in kilometers on the ground. Default: it is by longitude."
    )
    buffer_km: float = option(
        0.0,
        help="Patches or tiles nearer than this to another split's, edge to edge in kilometers, are left out of "
        "training or validation. Between blocks of tiles it is at least as wide as a tile.",
    )
    coordinates: str | None = option(
        None,
        path=True,
        help="CSV file (header patch,latitude,longitude, degrees) for spatial splits of images that are not "
        "georeferenced.",
    )

    @property
    def method(self) -> str:
        """Method of the split, one of `METHODS`; random by default."""
        return self.split or "random"

    @property
    def folds(self) -> tuple[int, int] | None:
        """The fold's number, from 1, and the number of folds; None without a cross-validation.

        Raises:
            OptionError: if it is no fold.
        """
        if self.fold is None:
            return None
        try:
            number, folds = map(int, self.fold.split("/"))
        except ValueError:
            raise OptionError("fold", f"'{self.fold}'", "a fold and the number of folds, such as 2/5") from None
        return number, folds


@dataclasses.dataclass(frozen=True)
class Patches:
    """Patches or tiles to split; parallel sequences of N entries.

    Attributes:
        keys: unique keys.
        classes: class names.
        groups: int64 (N,); patches with identical pixels share a number.
        crs: coordinate reference systems, or None.
        transforms: float64 (N, 6) affine transforms, or None where the images are not georeferenced.
        size_m: edge of a patch in meters.
        pixels: edge of a patch in pixels.
        published: the splits that the archive assigns them to; empty, or of empty texts, without any.
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
    published: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    site_splits: Mapping[str, str | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SplitResult:
    """A split: the assignment of each patch (None is left out), its description for the card, and warnings."""

    assignment: tuple[str | None, ...]
    method: dict[str, Any]
    warnings: tuple[str, ...] = ()
