r"""Builds a records folder: sharded TFRecords with a card, from a published archive or from scenes and land use.

Examples:
  python -m launch.build --dataset=eurosat_rgb --source=EuroSAT_RGB.zip --output_dir=records/rgb --split=random
  python -m launch.build --dataset=eurosat_ms --source=EuroSAT_MS.zip --output_dir=records/ms \
      --split=spatial --block_km=10 --buffer_km=1
  python -m launch.build --dataset=urban_atlas --cities=cities.csv --legend=hsl4 --bands=RGB --output_dir=records/ua
  python -m launch.build --dataset=ombria_s2 --source=ombria_s2.zip --bands_in_file=B11,B08,B03 --scene_level=L2A \
      --output_dir=records/ombria

cities.csv has the header name,scenes,vectors,split,area; several paths are joined by ';'. Scenes: Sentinel-2 products
(SAFE folders or zips), GeoTIFF, COG, VRT or JPEG 2000. Vectors: GeoPackage, FileGDB, Shapefile or GeoParquet, also
inside zips. split (train, val, test) and area (a file of polygons, or "west south east north" in degrees) may be empty.
Columns scene_units, scene_offset and scene_scale may say of one city what the flags of these names say of all.

A build that was cut off goes on where it stopped when it is called again. --engine=beam runs it on Apache Beam, with
Beam's own options passed on: --beam_option=--runner=FlinkRunner --beam_option=--flink_master=HOST:8081
"""

import os

from absl import flags

from eo_keras.errors import OptionError
from eo_keras.geo import scene_numbers, scenes
from eo_keras.legends import crosswalk
from eo_keras.sensors import sentinel2
from launch import app, path_flags
from tfrecords_builder import build, sources
from tfrecords_builder import build_tiles as tiles_build
from tfrecords_builder.sources.urban_atlas.options import DATASET as TILES
from tfrecords_builder.sources.urban_atlas.options import TileBuildOptions, TileOptions
from tfrecords_builder.splits import split as splits
from tfrecords_builder.storage import output

FLAGS = flags.FLAGS

flags.DEFINE_enum("dataset", None, [*sorted(sources.SOURCES), TILES], "Data set to build.", required=True)
path_flags.define_path(
    "source",
    None,
    "EuroSAT and OMBRIA: the archive: a zip (read without unpacking) or a folder, with the data set at any depth in "
    "it. A path, or a URL of any file system that fsspec knows.",
    urls=True,
)
path_flags.define_path(
    "output_dir", None, "Records folder to make; new or empty. A path or a URL.", required=True, urls=True
)
flags.DEFINE_enum(
    "split",
    None,
    splits.METHODS,
    "Who is train, val and test. random: stratified by class. published: by the archive's own folders. lists: by "
    "published lists, see --lists. spatial: from west to east by longitude, or in blocks, see --block_km. city: whole "
    "cities. Default: random; ombria_s2: published; urban_atlas: city.",
)
flags.DEFINE_float(
    "test_fraction", 0.2, "Share of the patches, tiles or cities for testing, 0 to 1 (not of published parts or lists)."
)
flags.DEFINE_float("val_fraction", 0.0, "Share of them for validation, 0 to 1 (not of published parts or lists).")
flags.DEFINE_string(
    "fold",
    None,
    "Fold of a cross-validation, such as 2/5: with one --seed, each patch is for testing in one of 1/5 to 5/5 (random; "
    "spatial with --block_km; city). In place of --test_fraction.",
)
flags.DEFINE_integer("seed", 1, "Seed of the split and of the order inside the shards.")
path_flags.define_path("lists", None, "PREFIX of the lists PREFIX-train.txt, PREFIX-val.txt and PREFIX-test.txt.")
flags.DEFINE_bool(
    "allow_missing_patches", False, "Whether lists may name patches that the source lacks; the card counts them."
)
flags.DEFINE_float("block_km", None, "Edge of the blocks of a spatial split in kilometres on the ground.")
flags.DEFINE_float(
    "buffer_km",
    0.0,
    "Patches or tiles nearer than this to another split's, edge to edge in kilometres, are left out of training or "
    "validation. Between blocks of tiles it is at least as wide as a tile.",
)
path_flags.define_path(
    "coordinates",
    None,
    "CSV file (header patch,latitude,longitude, degrees) for spatial splits of images that are not georeferenced.",
)
flags.DEFINE_float(
    "shard_mb", None, "Size of a shard in megabytes; training gets at least 8 shards. Default: 16, of urban_atlas 64."
)
flags.DEFINE_integer("num_workers", os.cpu_count() or 1, "Processes. Default: the number of processors.")
flags.DEFINE_bool(
    "no_verify",
    False,
    "Whether to leave out the check that decodes every JPEG before anything is written. Faster; damage is then found "
    "in training images alone, and identical images are told by the checksums of their files.",
)
flags.DEFINE_enum("engine", "local", output.ENGINES, "What runs the work: processes of this machine, or Apache Beam.")
flags.DEFINE_multi_string(
    "beam_option", [], "An option of Apache Beam's, such as --runner=FlinkRunner; may be given several times."
)
flags.DEFINE_bool(
    "overwrite",
    False,
    "Whether to replace a build, whole or unfinished, that is in --output_dir; other files there stay.",
)

# What tiles are cut from, and how.
path_flags.define_path(
    "cities", None, "urban_atlas: CSV file of the cities, with the header name,scenes,vectors,split,area."
)
path_flags.define_path(
    "legend",
    "hsl4",
    f"urban_atlas: what the codes become: {', '.join(crosswalk.CODE_MAPS)}, or a JSON file of classes and their codes.",
)
flags.DEFINE_enum(
    "roads",
    "merge",
    crosswalk.ROADS,
    "urban_atlas: what becomes of narrow roads (12220), about a pixel wide. merge: they take the class of what lies "
    "beside them. ignore: no class. keep: the class that the legend gives them.",
)
flags.DEFINE_integer("label_year", None, "urban_atlas: which year's land use, where a file holds several.")
flags.DEFINE_string("bands", "all", "urban_atlas: bands of the records: RGB, CI, SWIR, all, or names such as B04,B8A.")
flags.DEFINE_integer("tile_size", 512, "urban_atlas: height and width of a tile in pixels.")
flags.DEFINE_integer("stride", None, "urban_atlas: pixels from one tile to the next. Default: the tile's size.")
flags.DEFINE_float(
    "min_labelled",
    0.1,
    "urban_atlas: tiles with a smaller share of pixels that have a class and are clear are dropped.",
)
flags.DEFINE_float(
    "min_clear", 0.5, "urban_atlas: tiles of whose pixels with data a smaller share is clear of clouds are dropped."
)
flags.DEFINE_enum(
    "resampling",
    "cubic",
    scenes.RESAMPLINGS,
    "urban_atlas: how bands of 20 and 60 m are brought to the finest one's grid.",
)
flags.DEFINE_enum(
    "scene_units",
    None,
    scene_numbers.UNITS,
    "urban_atlas: what the numbers of floating-point scenes mean; others say it.",
)
flags.DEFINE_float(
    "scene_offset",
    None,
    "urban_atlas: what is added to the stored numbers of scenes of which neither tags nor metadata say it, such as "
    "-1000 since processing baseline 04.00; 0 where it has been applied.",
)
flags.DEFINE_float(
    "scene_scale",
    None,
    "urban_atlas: what is then multiplied to get reflectance, where neither tags nor metadata say it: 0.01 for per "
    "cent. Default: 0.0001.",
)
flags.DEFINE_enum(
    "scene_level",
    None,
    scenes.LEVELS,
    "urban_atlas, ombria_s2: processing level of scenes that do not say it.",
)
flags.DEFINE_string(
    "bands_in_file",
    None,
    "urban_atlas, ombria_s2: names of a file's bands in stored order where it does not name them, or EUROSAT.",
)
flags.DEFINE_string("target_crs", None, "urban_atlas: projection in metres to bring scenes to, such as EPSG:32633.")

_OF_PATCHES = ("source", "lists", "allow_missing_patches", "coordinates", "no_verify")
_OF_TILES = (
    *("cities", "legend", "roads", "label_year", "bands", "tile_size", "stride", "min_labelled", "min_clear"),
    *("resampling", "scene_units", "scene_offset", "scene_scale", "target_crs"),
)
_OF_UNNAMED = ("bands_in_file", "scene_level")


def _fold() -> tuple[int, int] | None:
    if FLAGS.fold is None:
        return None
    if FLAGS["test_fraction"].present:
        raise OptionError("--test_fraction", "--fold says already what is tested", "one of the two", "leave one out")
    try:
        number, folds = map(int, FLAGS.fold.split("/"))
    except ValueError:
        raise OptionError("--fold", f"'{FLAGS.fold}'", "a fold and the number of folds, such as 2/5") from None
    return number, folds


def _check_dataset() -> None:
    """Refuses flags that say nothing to the data set, and misses the one that names its source.

    Raises:
        OptionError: if there is one, or it is missing.
    """
    tiles = FLAGS.dataset == TILES
    named = not tiles and FLAGS.dataset not in sources.UNNAMED
    for name in _OF_PATCHES if tiles else (*_OF_TILES, *(_OF_UNNAMED if named else ())):
        if FLAGS[name].present:
            raise OptionError(f"--{name}", f"it says nothing to --dataset={FLAGS.dataset}", remedy="leave it out")
    needed = "cities" if tiles else "source"
    if FLAGS[needed].value is None:
        raise OptionError(f"--{needed}", "it is missing", f"what --dataset={FLAGS.dataset} is built from")


def _split(method: str) -> splits.SplitOptions:
    return splits.SplitOptions(
        method=FLAGS.split or method,
        test_fraction=FLAGS.test_fraction,
        val_fraction=FLAGS.val_fraction,
        seed=FLAGS.seed,
        fold=_fold(),
        lists=FLAGS.lists,
        allow_missing_patches=FLAGS.allow_missing_patches,
        block_km=FLAGS.block_km,
        buffer_km=FLAGS.buffer_km,
        coordinates=FLAGS.coordinates,
    )


def options_from_flags() -> build.BuildOptions:
    """Collects the flags into the options of a build of patches."""
    return build.BuildOptions(
        dataset=FLAGS.dataset,
        source=FLAGS.source,
        output_dir=FLAGS.output_dir,
        split=_split(sources.SOURCES[FLAGS.dataset].split),
        shard_mb=16.0 if FLAGS.shard_mb is None else FLAGS.shard_mb,
        verify=not FLAGS.no_verify,
        num_workers=FLAGS.num_workers,
        engine=FLAGS.engine,
        beam_options=tuple(FLAGS.beam_option),
        overwrite=FLAGS.overwrite,
        bands=_bands_in_file(),
        level=FLAGS.scene_level,
    )


def _bands_in_file() -> tuple[str, ...] | None:
    return scenes.parse_bands_in_file(FLAGS.bands_in_file) if FLAGS.bands_in_file else None


def tile_options_from_flags() -> TileBuildOptions:
    """Collects the flags into the options of a build of tiles."""
    scene = scenes.SceneOptions(
        bands=None if FLAGS.bands.strip().lower() == "all" else sentinel2.parse_bands(FLAGS.bands),
        resampling=FLAGS.resampling,
        units=FLAGS.scene_units,
        offset=FLAGS.scene_offset,
        scale=FLAGS.scene_scale,
        bands_in_file=_bands_in_file(),
        target_crs=FLAGS.target_crs,
        level=FLAGS.scene_level,
    )
    tiles = TileOptions(
        scene=scene,
        legend=FLAGS.legend,
        roads=FLAGS.roads,
        label_year=FLAGS.label_year,
        size=FLAGS.tile_size,
        stride=FLAGS.stride,
        min_labelled=FLAGS.min_labelled,
        min_clear=FLAGS.min_clear,
    )
    return TileBuildOptions(
        cities=FLAGS.cities,
        output_dir=FLAGS.output_dir,
        tiles=tiles,
        split=_split("city"),
        shard_mb=64.0 if FLAGS.shard_mb is None else FLAGS.shard_mb,
        num_workers=FLAGS.num_workers,
        engine=FLAGS.engine,
        beam_options=tuple(FLAGS.beam_option),
        overwrite=FLAGS.overwrite,
    )


def main() -> None:
    """Runs the command."""
    _check_dataset()
    tiles = FLAGS.dataset == TILES
    with app.ProgressBars(unit="tiles" if tiles else "patches") as progress:
        if tiles:
            report = tiles_build.build(tile_options_from_flags(), progress=progress, dry_run=FLAGS.dry_run)
        else:
            report = build.build(options_from_flags(), progress=progress, dry_run=FLAGS.dry_run)
    for warning in report.warnings:
        app.say(f"warning: {warning}")
    card = report.card
    for name, split in card.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        shards = report.planned_shards[name]
        print(
            f"{name:5} {split.examples:>7,} examples in {shards} shards" + (f", {size / 1e6:,.1f} MB" if size else "")
        )
    for key, value in card.split_method.items():
        print(f"  {key}: {value}")
    if report.kept_shards:
        print(f"went on with an unfinished build: {report.kept_shards} shards were there already")
    if FLAGS.dry_run:
        checked = "scenes' headers and land use were" if tiles else "every patch was"
        print(f"dry run: {checked} read and checked, nothing was written to {FLAGS.output_dir}")
        return
    examples = sum(split.examples for split in card.splits.values())
    seconds = report.seconds["all"]
    print(
        f"{FLAGS.output_dir}: {examples:,} examples in {seconds:.1f} s ({examples / seconds:,.0f} a second), "
        f"fingerprint {card.fingerprint[:12]}"
    )
    print(f"next: python -m launch.inspect --records_dir={FLAGS.output_dir}")


if __name__ == "__main__":
    app.run(main)
