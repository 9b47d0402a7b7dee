r"""Writes the segmentation benchmark on real pixels: mosaics of EuroSAT patches, with land use in Urban Atlas codes.

The mosaics of each part hold patches of that part's published list alone. What comes out is a list of cities as
launch.build takes it: one GeoTIFF (digital numbers of B04, B03, B02) and one GeoPackage in EPSG:3035 a mosaic.

Example:
  python -m benchmarks.eurosat_mosaic --source=data/EuroSAT_RGB.zip --lists=data/eurosat --output_dir=data/mosaics
  python -m launch.build --dataset=urban_atlas --cities=data/mosaics/cities.csv --scene_level=L1C --tile_size=256 \
      --output_dir=records/mosaics
"""

import pathlib

import numpy as np
from absl import flags

from benchmarks import mosaics
from eo_keras.core import files
from eo_keras.errors import OptionError, SourceError
from launch import app, path_flags

FLAGS = flags.FLAGS

CRS = "EPSG:32633"
"""A zone in the middle of Europe; the mosaics lie side by side in it, far enough apart to share no tile."""

_ORIGIN = (400_000.0, 5_900_000.0)
_GAP_M = 20_000.0
_PARTS = ("train", "val", "test")
_BANDS = ("B04", "B03", "B02")
_YEAR = 2018


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path("source", None, "EuroSAT's RGB archive (zip).", required=True, **where)
    path_flags.define_path(
        "lists",
        None,
        "PREFIX of the lists PREFIX-train.txt, PREFIX-val.txt and PREFIX-test.txt.",
        required=True,
        **where,
    )
    path_flags.define_path("output_dir", None, "Folder to make.", required=True, **where)
    for part, count in zip(_PARTS, (24, 4, 8), strict=True):
        flags.DEFINE_integer(part, count, f"Mosaics of the list {part}.", lower_bound=1, **where)
    flags.DEFINE_integer("size", 1024, "Height and width of a mosaic in pixels.", **where)
    flags.DEFINE_integer("region", 150, "Mean distance of the regions' centres in pixels.", **where)
    flags.DEFINE_integer("seed", 1, "Seed of layout and patches.", **where)


def write_mosaics(
    source: str, lists: str, output_dir: str, counts: dict[str, int], options: mosaics.MosaicOptions, progress=None
) -> pathlib.Path:
    """Writes mosaics and the list of cities.

    Args:
        source: EuroSAT's RGB archive.
        lists: prefix of the published lists.
        output_dir: folder to make; files of the same names are replaced.
        counts: number of mosaics by part.
        options: what a mosaic looks like.
        progress: called with a number of mosaics that have been written.

    Returns:
        The path of the list of cities.

    Raises:
        SourceError: if the archive or a list cannot be used.
        StorageError: if the folder cannot be written.
    """
    folder = pathlib.Path(files.make_folder(output_dir))
    lines, number = ["name,scenes,vectors,split,area"], 0
    for part, count in counts.items():
        patches = mosaics.Patches(source, _listed(pathlib.Path(f"{lists}-{part}.txt")))
        for _ in range(count):
            name = f"mosaic{number:03d}"
            found, classes = mosaics.regions(options, number)
            image = mosaics.paint(found, classes, patches, (options.seed, number, 2))
            west = _ORIGIN[0] + (10 * options.size + _GAP_M) * (number % 8)
            north = _ORIGIN[1] - (10 * options.size + _GAP_M) * (number // 8)
            transform = (10.0, 0.0, west, 0.0, -10.0, north)
            _write_scene(folder / f"{name}_{_YEAR}-07-01.tif", mosaics.digital_numbers(image), transform)
            _write_land_use(folder / f"{name}_UA{_YEAR}.gpkg", mosaics.land_use(found, classes, transform))
            lines.append(f"{name},{name}_{_YEAR}-07-01.tif,{name}_UA{_YEAR}.gpkg,{part},")
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
    import rasterio

    profile = {"driver": "GTiff", "dtype": "uint16", "count": 3, "nodata": 0, "crs": CRS, "compress": "deflate"}
    profile |= {
        "height": image.shape[0],
        "width": image.shape[1],
        "transform": rasterio.Affine(*transform),
        "tiled": True,
    }
    with files.storage_errors(path), rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.moveaxis(image, -1, 0))
        for index, band in enumerate(_BANDS, start=1):
            dataset.set_band_description(index, band)


def _write_land_use(path: pathlib.Path, traced: dict[str, np.ndarray]) -> None:
    import pyogrio.raw
    import shapely
    from rasterio.warp import transform

    geometry = shapely.transform(
        traced["geometry"], lambda places: np.stack(transform(CRS, "EPSG:3035", *places.T), axis=-1)
    )
    path.unlink(missing_ok=True)
    with files.storage_errors(path):
        pyogrio.raw.write(
            path,
            shapely.to_wkb(geometry),
            [traced["code"].astype(object)],
            [f"code_{_YEAR}"],
            layer=path.stem,
            driver="GPKG",
            geometry_type="Polygon",
            crs="EPSG:3035",
        )


def main() -> None:
    """Runs the command."""
    counts = {part: FLAGS[part].value for part in _PARTS}
    options = mosaics.MosaicOptions(size=FLAGS.size, region=FLAGS.region, seed=FLAGS.seed)
    if sum(counts.values()) > 64:
        raise OptionError(
            "--train, --val and --test", f"{sum(counts.values())} mosaics", "64 together: they share a zone"
        )
    if FLAGS.dry_run:
        print(f"dry run: would write {sum(counts.values())} mosaics of {FLAGS.size} pixels to {FLAGS.output_dir}")
        return
    with app.progress(sum(counts.values()), "painting", unit="mosaics") as advance:
        path = write_mosaics(FLAGS.source, FLAGS.lists, FLAGS.output_dir, counts, options, advance)
    print(f"{path}: {sum(counts.values())} mosaics; next: python -m launch.build --dataset=urban_atlas --cities={path}")


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
