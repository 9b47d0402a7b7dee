r"""Builds a records folder: sharded TFRecords with a card, from a published archive.

Examples:
  python -m launch.build --dataset=eurosat_rgb --source=EuroSAT_RGB.zip --output_dir=records/rgb --split=random
  python -m launch.build --dataset=eurosat_ms --source=EuroSAT_MS.zip --output_dir=records/ms \
      --split=spatial --block_km=10 --buffer_km=1

A build that was cut off goes on where it stopped when it is called again. --engine=beam runs it on Apache Beam, with
Beam's own options passed on: --beam_option=--runner=FlinkRunner --beam_option=--flink_master=HOST:8081
"""

import os

from absl import flags

from eo_keras.errors import OptionError
from launch import common
from tfrecords_builder import build, output, sources, splits

FLAGS = flags.FLAGS

flags.DEFINE_enum("dataset", None, sorted(sources.SOURCES), "Data set to build.", required=True)
flags.DEFINE_string(
    "source",
    None,
    "The archive: a zip (read without unpacking), a folder holding the archive's root, or the folder of class folders. "
    "A path, or a URL of any file system that fsspec knows.",
    required=True,
)
flags.DEFINE_string("output_dir", None, "Records folder to make; new or empty. A path or a URL.", required=True)
flags.DEFINE_enum(
    "split",
    "random",
    ["random", "lists", "spatial"],
    "Who is train, val and test. random: stratified by class. lists: by published lists, see --lists. spatial: from "
    "west to east by longitude, or in blocks, see --block_km.",
)
flags.DEFINE_float("test_fraction", 0.2, "Share of the patches for testing, 0 to 1 (random, spatial).")
flags.DEFINE_float("val_fraction", 0.0, "Share of the patches for validation, 0 to 1 (random, spatial).")
flags.DEFINE_string(
    "fold",
    None,
    "Fold of a cross-validation, such as 2/5: with one --seed, each patch is for testing in one of 1/5 to 5/5 (random; "
    "spatial with --block_km). In place of --test_fraction.",
)
flags.DEFINE_integer("seed", 1, "Seed of the split and of the order inside the shards.")
flags.DEFINE_string("lists", None, "PREFIX of the lists PREFIX-train.txt, PREFIX-val.txt and PREFIX-test.txt.")
flags.DEFINE_bool(
    "allow_missing_patches", False, "Whether lists may name patches that the source lacks; the card counts them."
)
flags.DEFINE_float("block_km", None, "Edge of the blocks of a spatial split in kilometres (EPSG:3035).")
flags.DEFINE_float(
    "buffer_km",
    0.0,
    "Patches nearer than this to another split's, edge to edge in kilometres, are left out of training or validation.",
)
flags.DEFINE_string(
    "coordinates",
    None,
    "CSV file (header patch,latitude,longitude, degrees) for spatial splits of images that are not georeferenced.",
)
flags.DEFINE_float("shard_mb", 16.0, "Size of a shard in megabytes; training gets at least 8 shards.")
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
flags.DEFINE_bool("overwrite", False, "Whether to replace a build, whole or unfinished, that is in --output_dir.")


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


def options_from_flags() -> build.BuildOptions:
    """Collects the flags into the builder's options."""
    split = splits.SplitOptions(
        method=FLAGS.split,
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
    return build.BuildOptions(
        dataset=FLAGS.dataset,
        source=FLAGS.source,
        output_dir=FLAGS.output_dir,
        split=split,
        shard_mb=FLAGS.shard_mb,
        verify=not FLAGS.no_verify,
        num_workers=FLAGS.num_workers,
        engine=FLAGS.engine,
        beam_options=tuple(FLAGS.beam_option),
        overwrite=FLAGS.overwrite,
    )


def main() -> None:
    """Runs the command."""
    with common.ProgressBars(unit="patches") as progress:
        report = build.build(options_from_flags(), progress=progress, dry_run=FLAGS.dry_run)
    for warning in report.warnings:
        print(f"warning: {warning}")
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
        print(f"dry run: every patch was read and checked, nothing was written to {FLAGS.output_dir}")
        return
    examples = sum(split.examples for split in card.splits.values())
    seconds = report.seconds["all"]
    print(
        f"{FLAGS.output_dir}: {examples:,} examples in {seconds:.1f} s ({examples / seconds:,.0f} a second), "
        f"fingerprint {card.fingerprint[:12]}"
    )
    print(f"next: python -m launch.inspect --records_dir={FLAGS.output_dir}")


if __name__ == "__main__":
    common.run(main)
