"""Mosaics: scenes whose pixels are real, made of EuroSAT patches laid out in regions of one class.

A mosaic is divided into regions with winding borders. A region shows a plane paved with patches of its class, turned
and mirrored at random, so that borders between classes run anywhere in a patch, as they do on the ground. The pixels
are EuroSAT's own; the layout, and that land use of one kind is alike for kilometres, is not.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from eo_keras.errors import OptionError, SourceError
from eo_keras.legends.catalogue import EUROSAT
from eo_keras.sensors import sentinel2
from tfrecords_builder.synthetic.noise import salt, value_noise

PATCH = 64

CODES = {
    "AnnualCrop": "21000",
    "Forest": "31000",
    "HerbaceousVegetation": "32000",
    "Highway": "12210",
    "Industrial": "12100",
    "Pasture": "23000",
    "PermanentCrop": "22000",
    "Residential": "11210",
    "River": "50000",
    "SeaLake": "50000",
}
"""The Urban Atlas code that each of EuroSAT's classes becomes; it does not tell rivers from lakes."""

SHARES = {"Residential": 3.0, "Industrial": 3.0, "Forest": 2.0}
"""How often a region is of a class, 1 where nothing is said: a settlement layer's classes are to be found often."""


@dataclasses.dataclass(frozen=True)
class MosaicOptions:
    """What a mosaic looks like.

    Attributes:
        size: height and width in pixels.
        region: mean distance of the regions' centres in pixels.
        wander: how far borders wind to either side, in pixels.
        seed: everything random.
    """

    size: int = 1024
    region: int = 150
    wander: float = 24.0
    seed: int = 1

    def __post_init__(self):
        """Refuses what makes no mosaic."""
        if self.size < PATCH or not PATCH // 2 <= self.region <= self.size:
            raise OptionError(
                "mosaic", f"size {self.size}, region {self.region}", f"a region of {PATCH // 2} to the size"
            )


def regions(options: MosaicOptions, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides a mosaic into regions.

    Args:
        options: what it looks like.
        number: which mosaic of this seed.

    Returns:
        The region of every pixel, int64 (size, size), and the class of every region, int64 (regions,), labels of
        EuroSAT. Neighbouring regions may be of one class.
    """
    size, step = options.size, options.region
    rng = np.random.default_rng([options.seed, number, 1])
    cells = -(-size // step) + 2
    jitter = rng.uniform(0.05, 0.95, (cells, cells, 2))
    centres = (np.moveaxis(np.indices((cells, cells)), 0, -1) - 1 + jitter) * step
    rows, columns = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij")
    for axis, place in enumerate((rows, columns)):
        for period, weight in ((61.0, 0.6), (19.0, 0.3), (7.0, 0.1)):
            key = salt(options.seed, number, "border", axis, period)
            place += options.wander * weight * (2 * value_noise(0, 0, size, size, period, key) - 1)
    # The nearest centre lies in one of the 5 x 5 cells around a place.
    home = [np.floor(place / step).astype(np.int64) + 1 for place in (rows, columns)]
    nearest, found = np.full((size, size), np.inf), np.zeros((size, size), np.int64)
    for row_offset in range(-2, 3):
        for column_offset in range(-2, 3):
            r = np.clip(home[0] + row_offset, 0, cells - 1)
            c = np.clip(home[1] + column_offset, 0, cells - 1)
            distance = (centres[r, c, 0] - rows) ** 2 + (centres[r, c, 1] - columns) ** 2
            nearer = distance < nearest
            nearest[nearer] = distance[nearer]
            found[nearer] = (r * cells + c)[nearer]
    weights = np.array([SHARES.get(name, 1.0) for name in EUROSAT.class_names])
    classes = rng.choice(len(weights), cells * cells, p=weights / weights.sum())
    return found, classes


class Patches:
    """The patches of one part of EuroSAT's RGB archive, by class.

    Args:
        archive: the zip.
        keys: the keys of the part's patches.

    Raises:
        SourceError: if the archive lacks one, or a class has none.
    """

    def __init__(self, archive: str | os.PathLike[str], keys: Sequence[str]):
        """See the class."""
        self._zip = zipfile.ZipFile(archive)
        members = {pathlib.PurePosixPath(name).stem: name for name in self._zip.namelist() if name.endswith(".jpg")}
        if missing := [key for key in keys if key not in members]:
            raise SourceError(archive, f"it lacks {len(missing)} patches, first {missing[0]}", "all listed patches")
        self._members = {name: [] for name in EUROSAT.class_names}
        for key in sorted(keys):
            self._members[key.rpartition("_")[0]].append(members[key])
        if empty := [name for name, found in self._members.items() if not found]:
            raise SourceError(archive, f"the part holds no patch of {', '.join(empty)}", "patches of every class")

    def count(self, class_name: str) -> int:
        """Returns how many patches there are of a class."""
        return len(self._members[class_name])

    def read(self, class_name: str, number: int) -> np.ndarray:
        """Returns one patch, uint8 (64, 64, 3)."""
        return np.asarray(Image.open(io.BytesIO(self._zip.read(self._members[class_name][number]))))


def paint(found: np.ndarray, classes: np.ndarray, patches: Patches, seed: Sequence[int]) -> np.ndarray:
    """Fills regions with patches of their classes.

    Args:
        found: int64 (size, size), the region of every pixel.
        classes: int64 (regions,), their classes.
        patches: where the patches come from.
        seed: what is drawn from.

    Returns:
        uint8 (size, size, 3).
    """
    image = np.zeros((*found.shape, 3), np.uint8)
    for region in np.unique(found):
        rng = np.random.default_rng([*seed, int(region)])
        name = EUROSAT.class_names[classes[region]]
        rows, columns = np.nonzero(found == region)
        top, left = rows.min() - rng.integers(PATCH), columns.min() - rng.integers(PATCH)
        for row in range(top, rows.max() + 1, PATCH):
            for column in range(left, columns.max() + 1, PATCH):
                r, c = max(row, 0), max(column, 0)
                inside = slice(r, min(row + PATCH, len(found))), slice(c, min(column + PATCH, len(found)))
                here = found[inside] == region
                if not here.any():
                    continue
                patch = np.rot90(patches.read(name, int(rng.integers(patches.count(name)))), int(rng.integers(4)))
                patch = patch[:, ::-1] if rng.integers(2) else patch
                patch = patch[r - row :, c - column :][: here.shape[0], : here.shape[1]]
                image[inside][here] = patch[here]
    return image


def digital_numbers(image: np.ndarray) -> np.ndarray:
    """Turns grey values of EuroSAT's JPEGs back into harmonised digital numbers, uint16, at least 1."""
    step = sentinel2.JPEG_STRETCH_DN / 254
    return np.clip(np.rint((image.astype(np.float64) - 1) * step), 1, None).astype(np.uint16)


def land_use(found: np.ndarray, classes: np.ndarray, transform: Sequence[float]) -> Mapping[str, np.ndarray]:
    """Traces the regions' borders.

    Returns:
        `geometry`, polygons in the mosaic's CRS, and `code`, their Urban Atlas codes.
    """
    import shapely
    from rasterio.features import shapes
    from rasterio.transform import Affine

    codes = np.array([int(CODES[EUROSAT.class_names[label]]) for label in classes])
    per_pixel = codes[found].astype(np.int32)
    traced = list(shapes(per_pixel, connectivity=4, transform=Affine(*transform)))
    return {
        "geometry": np.array([shapely.geometry.shape(geometry) for geometry, _ in traced]),
        "code": np.array([f"{int(code):05d}" for _, code in traced]),
    }
