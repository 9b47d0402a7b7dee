r"""Builds a records folder from an archive, from scenes and land use, or from a prepared TensorFlow Datasets data set.

Examples:
  python -m launch.build --dataset=eurosat_rgb --source=EuroSAT_RGB.zip --output_dir=records/rgb --split=random
  python -m launch.build --dataset=eurosat_ms --source=EuroSAT_MS.zip --output_dir=records/ms \
      --split=spatial --block_km=10 --buffer_km=1
  python -m launch.build --dataset=urban_atlas --cities=cities.csv --legend=hsl4 --bands=RGB --output_dir=records/ua
  python -m launch.build --dataset=ombria_s2 --source=ombria_s2.zip --band_order=B11,B08,B03 --scene_level=L2A \
      --output_dir=records/ombria
  python -m launch.build --dataset=footprints --source=inria/train --tile_size=500 --first_for_test=5 \
      --output_dir=records/inria
  python -m launch.build --dataset=tfds --tfds_data_dir=~/tensorflow_datasets --tfds_name=resisc45 \
      --band_order=B04,B03,B02 --output_dir=records/resisc45

cities.csv has the header name,scenes,vectors,split,area; several paths are joined by ';'. Scenes: Sentinel-2 products
(SAFE folders or zips), GeoTIFF, COG, VRT or JPEG 2000. Vectors: GeoPackage, FileGDB, Shapefile or GeoParquet, also
inside zips. split (train, val, test) and area (a file of polygons, or "west south east north" in degrees) may be empty.
Columns scene_units, scene_offset and scene_scale override the flags of these names for one city.

A build that was stopped resumes when it is called again. --engine=dask --scheduler=tcp://HOST:8786 runs it on a Dask
cluster; --engine=beam on Apache Beam, with Beam's own options passed on: --beam_option=--runner=FlinkRunner
--beam_option=--flink_master=HOST:8081
"""

from __future__ import annotations

from absl import flags

from eo_keras.core.options import all_fields
from eo_keras.core.processors import worker_count
from eo_keras.errors import OptionError
from launch import app, options
from tfrecords_builder import build, sources

FLAGS = flags.FLAGS


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags: those of a build, and those of every data set."""
    options.define(build.BuildOptions, flag_values)
    flag_values.set_default("num_workers", worker_count())
    for source in sources.SOURCES.values():
        options.define(source.Options, flag_values)
    for name, datasets in _datasets_by_flag().items():
        flag_values[name].help = f"{', '.join(datasets)}: {flag_values[name].help}"


def _datasets_by_flag() -> dict[str, list[str]]:
    """Returns the data sets that each flag belongs to; without the flags of every build."""
    found: dict[str, list[str]] = {}
    for dataset, source in sources.SOURCES.items():
        for field in all_fields(source.Options):
            found.setdefault(field.name, []).append(dataset)
    return found


def options_from_flags(flag_values: flags.FlagValues) -> build.BuildOptions:
    """Collects the flags into the options of a build.

    Raises:
        OptionError: if they cannot work together, or one belongs to other data sets than the one that is built.
    """
    for name, datasets in _datasets_by_flag().items():
        if flag_values[name].present and flag_values.dataset not in datasets:
            raise OptionError(
                f"--{name}", f"it does not apply to --dataset={flag_values.dataset}", remedy="leave it out"
            )
    if flag_values.fold is not None and flag_values["test_fraction"].present:
        raise OptionError("--test_fraction", "--fold gives the fraction for testing", "one of the two", "leave one out")
    source = sources.named(flag_values.dataset)
    return options.read(build.BuildOptions, flag_values, source=options.read(source.Options, flag_values))


def main() -> None:
    """Runs the command."""
    chosen = options_from_flags(FLAGS)
    source = sources.named(chosen.dataset)
    with app.ProgressBars(unit=source.facts.examples) as progress:
        report = build.build(chosen, progress=progress, dry_run=FLAGS.dry_run)
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
        print(f"resumed an unfinished build: {report.kept_shards} shards had been written")
    if FLAGS.dry_run:
        checked = "scenes' headers and land use" if source.cuts else "all images"
        print(f"dry run: {checked} were read and checked, nothing was written to {FLAGS.output_dir}")
        return
    examples = sum(split.examples for split in card.splits.values())
    seconds = report.seconds["all"]
    print(
        f"{FLAGS.output_dir}: {examples:,} examples in {seconds:.1f} s ({examples / seconds:,.0f} a second), "
        f"fingerprint {card.fingerprint[:12]}"
    )
    app.say(f"next: python -m launch.inspect --records_dir={FLAGS.output_dir}")


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
