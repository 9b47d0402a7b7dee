r"""Writes the segmentation benchmark on real pixels: mosaics of EuroSAT patches, with land use in Urban Atlas codes.

The mosaics of each split hold patches of that split's published list alone. The output is a list of cities as
launch.build takes it; each mosaic is a GeoTIFF (digital numbers of B04, B03, B02) and a GeoPackage in EPSG:3035.

Example:
  python -m benchmarks.eurosat_mosaic --source=data/EuroSAT_RGB.zip --lists=data/eurosat --output_dir=data/mosaics
  python -m launch.build --dataset=urban_atlas --cities=data/mosaics/cities.csv --scene_level=L1C --tile_size=256 \
      --output_dir=records/mosaics
"""

from absl import flags

from eo_keras.errors import OptionError
from launch import app, path_flags
from tfrecords_builder.synthetic import mosaics

FLAGS = flags.FLAGS

_SPLITS = ("train", "val", "test")


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
    for split, count in zip(_SPLITS, (24, 4, 8), strict=True):
        flags.DEFINE_integer(split, count, f"Mosaics of the list {split}.", lower_bound=1, **where)
    flags.DEFINE_integer("size", 1024, "Height and width of a mosaic in pixels.", **where)
    flags.DEFINE_integer("region", 150, "Mean distance of the regions' centers in pixels.", **where)
    flags.DEFINE_integer("seed", 1, "Seed of layout and patches.", **where)


def main() -> None:
    """Runs the command."""
    counts = {split: FLAGS[split].value for split in _SPLITS}
    options = mosaics.MosaicOptions(size=FLAGS.size, region=FLAGS.region, seed=FLAGS.seed)
    if sum(counts.values()) > 64:
        raise OptionError("train, val and test", f"{sum(counts.values())} mosaics", "64 together: they share a zone")
    if FLAGS.dry_run:
        print(f"dry run: would write {sum(counts.values())} mosaics of {FLAGS.size} pixels to {FLAGS.output_dir}")
        return
    with app.progress(sum(counts.values()), "painting", unit="mosaics") as advance:
        path = mosaics.write_mosaics(FLAGS.source, FLAGS.lists, FLAGS.output_dir, counts, options, advance)
    print(f"{path}: {sum(counts.values())} mosaics; next: python -m launch.build --dataset=urban_atlas --cities={path}")


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
