"""Mosaics: scenes made of EuroSAT's patches, laid out in regions of one class.

A mosaic is divided into regions with winding borders. A region shows a plane paved with patches of its class, turned
and mirrored at random, so that borders between classes run anywhere in a patch, as they do on the ground. The pixels
are EuroSAT's own; the layout, and that land use of one kind is alike for kilometers, is not.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import rasterio
import shapely
from PIL import Image
from rasterio.features import shapes
from rasterio.transform import Affine

from eo_keras.core import files
from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import polygons as vectors
from eo_keras.geo.polygons import Polygons
from eo_keras.legends.catalogue import EUROSAT
from eo_keras.sensors import sentinel2
from tfrecords_builder.synthetic.noise import salt, value_noise

PATCH = 64
"""Height and width of EuroSAT's patches in pixels."""

CRS = "EPSG:32633"
"""UTM zone of the mosaics, which lie side by side, far enough apart to share no tile."""

LAND_USE_CRS = "EPSG:3035"
"""CRS of Urban Atlas."""

_ORIGIN, _GAP_M = (400_000.0, 5_900_000.0), 20_000.0
_BANDS, _YEAR = ("B04", "B03", "B02"), 2018

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
"""Urban Atlas code of each of EuroSAT's classes; rivers and lakes share one."""

SHARES = {"Residential": 3.0, "Industrial": 3.0, "Forest": 2.0}
"""Relative frequencies of classes among the regions, 1 for all others."""


@dataclasses.dataclass(frozen=True)
class MosaicOptions:
    """Size and layout of a mosaic.

    Attributes:
        size: height and width in pixels.
        region: mean distance of the regions' centers in pixels.
        wander: largest displacement of borders, in pixels.
        seed: seed of everything random.
    """

    size: int = 1024
    region: int = 150
    wander: float = 24.0
    seed: int = 1

    def __post_init__(self):
        """Checks that a region is larger than half a patch and fits into the mosaic."""
        if self.size < PATCH or not PATCH // 2 <= self.region <= self.size:
            raise OptionError(
                "mosaic", f"size {self.size}, region {self.region}", f"a region of {PATCH // 2} to the size"
            )


def regions(options: MosaicOptions, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides a mosaic into regions.

    Args:
        options: size and layout.
        number: number of the mosaic.

    Returns:
        The region of every pixel, int64 (size, size), and the class of every region, int64 (regions,), labels of
        EuroSAT. Neighboring regions may be of one class.
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
    # The nearest center lies in one of the 5 x 5 cells around a place.
    own = [np.floor(place / step).astype(np.int64) + 1 for place in (rows, columns)]
    nearest, found = np.full((size, size), np.inf), np.zeros((size, size), np.int64)
    for row_offset in range(-2, 3):
        for column_offset in range(-2, 3):
            r = np.clip(own[0] + row_offset, 0, cells - 1)
            c = np.clip(own[1] + column_offset, 0, cells - 1)
            distance = (centres[r, c, 0] - rows) ** 2 + (centres[r, c, 1] - columns) ** 2
            nearer = distance < nearest
            nearest[nearer] = distance[nearer]
            found[nearer] = (r * cells + c)[nearer]
    weights = np.array([SHARES.get(name, 1.0) for name in EUROSAT.class_names])
    classes = rng.choice(len(weights), cells * cells, p=weights / weights.sum())
    return found, classes


class Patches:
    """Patches of one split of EuroSAT's RGB archive, by class.

    Args:
        archive: the zip.
        keys: keys of the split's patches.

    Raises:
        SourceError: if the archive lacks one, or a class has none.
    """

    def __init__(self, archive: str | os.PathLike[str], keys: Sequence[str]):
        self._zip = zipfile.ZipFile(archive)
        members = {pathlib.PurePosixPath(name).stem: name for name in self._zip.namelist() if name.endswith(".jpg")}
        if missing := [key for key in keys if key not in members]:
            raise SourceError(archive, f"it lacks {len(missing)} patches, first {missing[0]}", "all listed patches")
        self._members = {name: [] for name in EUROSAT.class_names}
        for key in sorted(keys):
            self._members[key.rpartition("_")[0]].append(members[key])
        if empty := [name for name, found in self._members.items() if not found]:
            raise SourceError(archive, f"the list names no patch of {', '.join(empty)}", "patches of every class")

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
        patches: patches to draw from.
        seed: seed of the patches drawn.

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
    """Converts gray values of EuroSAT's JPEGs to harmonized digital numbers, uint16, at least 1."""
    step = sentinel2.JPEG_STRETCH_DN / 254
    return np.clip(np.rint((image.astype(np.float64) - 1) * step), 1, None).astype(np.uint16)


def land_use(found: np.ndarray, classes: np.ndarray, transform: Sequence[float]) -> Mapping[str, np.ndarray]:
    """Traces the regions' borders.

    Returns:
        `geometry`, polygons in the mosaic's CRS, and `code`, their Urban Atlas codes.
    """
    codes = np.array([int(CODES[EUROSAT.class_names[label]]) for label in classes])
    per_pixel = codes[found].astype(np.int32)
    traced = list(shapes(per_pixel, connectivity=4, transform=Affine(*transform)))
    return {
        "geometry": np.array([shapely.geometry.shape(geometry) for geometry, _ in traced]),
        "code": np.array([f"{int(code):05d}" for _, code in traced]),
    }


def write_mosaics(
    source: str, lists: str, output_dir: str, counts: dict[str, int], options: MosaicOptions, progress=None
) -> pathlib.Path:
    """Writes mosaics, and the list of them that a build of `dataset=urban_atlas` takes.

    A mosaic is a GeoTIFF of digital numbers of B04, B03, B02 and a GeoPackage of its land use. Those of a split show
    patches of its published list alone.

    Args:
        source: EuroSAT's RGB archive.
        lists: prefix of the published lists.
        output_dir: folder to make; files of the same names are replaced.
        counts: number of mosaics by split.
        options: size and layout of a mosaic.
        progress: called with the number of mosaics written since the last call.

    Returns:
        The path of the list of cities.

    Raises:
        SourceError: if the archive or a list cannot be used.
        StorageError: if the folder cannot be written.
    """
    folder = pathlib.Path(files.make_folder(output_dir))
    lines, number = ["name,scenes,vectors,split,area"], 0
    for split, count in counts.items():
        patches = Patches(source, _listed(pathlib.Path(f"{lists}-{split}.txt")))
        for _ in range(count):
            name = f"mosaic{number:03d}"
            found, classes = regions(options, number)
            image = paint(found, classes, patches, (options.seed, number, 2))
            west = _ORIGIN[0] + (10 * options.size + _GAP_M) * (number % 8)
            north = _ORIGIN[1] - (10 * options.size + _GAP_M) * (number // 8)
            transform = (10.0, 0.0, west, 0.0, -10.0, north)
            _write_scene(folder / f"{name}_{_YEAR}-07-01.tif", digital_numbers(image), transform)
            _write_land_use(folder / f"{name}_UA{_YEAR}.gpkg", land_use(found, classes, transform))
            lines.append(f"{name},{name}_{_YEAR}-07-01.tif,{name}_UA{_YEAR}.gpkg,{split},")
            number += 1
            if progress:
                progress(1)
    files.write_text(folder / "cities.csv", "\n".join(lines) + "\n")
    return folder / "cities.csv"


def _listed(path: pathlib.Path) -> list[str]:
    try:
        return [pathlib.PurePosixPath(line.strip()).stem for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise SourceError(path, f"the list cannot be read ({error.strerror})", "one patch a line") from None


def _write_scene(path: pathlib.Path, image: np.ndarray, transform: tuple[float, ...]) -> None:
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 3, "nodata": 0, "crs": CRS, "compress": "deflate"}
    profile |= {"height": image.shape[0], "width": image.shape[1], "transform": Affine(*transform), "tiled": True}
    with files.storage_errors(path), rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.moveaxis(image, -1, 0))
        for index, band in enumerate(_BANDS, start=1):
            dataset.set_band_description(index, band)


def _write_land_use(path: pathlib.Path, traced: Mapping[str, np.ndarray]) -> None:
    there = vectors.reprojected(Polygons(traced["geometry"], traced["code"], CRS, str(path)), LAND_USE_CRS)
    path.unlink(missing_ok=True)
    vectors.write_polygons(path, path.stem, there.geometries, {f"code_{_YEAR}": there.values}, LAND_USE_CRS)
