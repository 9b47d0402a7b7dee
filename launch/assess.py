r"""Draws a stratified random sample of a map, and estimates accuracies and areas from it once it is interpreted.

First call: --output. The sample is a GeoPackage of pixel centers; fill in the field reference_class, by aerial images
in QGIS or in the field, with the names of the map's classes. Second call: --interpreted. It gives the error matrix in
proportions of the area, user's and producer's accuracy, and error-adjusted areas with 95 % intervals (Olofsson et al.
2014, Remote Sensing of Environment 148). docs/guides/assess.md explains both.

Examples:
  python -m launch.assess --map=munich.tif --sample=300 --output=sample.gpkg
  python -m launch.assess --map=munich.tif --target_error=0.01 --expected_accuracy=0.85 --output=sample.gpkg
  python -m launch.assess --map=munich.tif --sample=300 --hide_classes --output=blind.gpkg
  python -m launch.assess --map=munich.tif --interpreted=sample.gpkg --output_dir=assessment/munich
"""

import pathlib

from absl import flags

from eo_keras.core import output_files
from eo_keras.core.options import all_fields
from eo_keras.errors import OptionError
from eo_keras.geo.class_map import open_class_map
from eo_keras.mapping import assessment, sampling
from eo_keras.mapping.assessment import InterpretationOptions
from eo_keras.mapping.sampling import SampleOptions
from launch import app, options, path_flags

FLAGS = flags.FLAGS

_OF_SAMPLE = ("output", "hide_classes", *(field.name for field in all_fields(SampleOptions)))
_OF_INTERPRETED = ("output_dir", *(field.name for field in all_fields(InterpretationOptions)))


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path(
        "map",
        None,
        "Class map: made by launch.map, or another raster of whole numbers with category names or a color table.",
        required=True,
        **where,
    )
    path_flags.define_path("output", None, "GeoPackage to write the sample to (first call).", **where)
    options.define(SampleOptions, flag_values, module_name=__name__)
    flags.DEFINE_bool(
        "hide_classes",
        False,
        "Whether to leave the map's class and the stratum's weight out of the sample, so that the interpreter does not "
        "know them.",
        **where,
    )
    options.define(InterpretationOptions, flag_values, module_name=__name__)
    path_flags.define_path(
        "output_dir",
        None,
        "Folder for the assessment (second call). Default: assessment/<map>.",
        **where,
    )
    flags.DEFINE_bool(
        "overwrite", False, "Whether to replace the file in --output, or to write beside other files.", **where
    )
    options.not_repeated(flag_values, "output", "output_dir", "overwrite")


def main() -> None:
    """Runs the command."""
    if (FLAGS.output is None) == (FLAGS.interpreted is None):
        raise OptionError(
            "--output",
            "it is given beside --interpreted" if FLAGS.output else "neither it nor --interpreted is given",
            "--output for a new sample, or --interpreted for the assessment of one",
        )
    others, what = (_OF_SAMPLE, "an interpreted sample") if FLAGS.interpreted else (_OF_INTERPRETED, "a new sample")
    for name in others:
        if FLAGS[name].present:
            raise OptionError(f"--{name}", f"it does not apply to {what}", remedy="leave it out")
    with open_class_map(FLAGS.map) as class_map:
        grid, classes = class_map.grid, class_map.legend.class_names
    print(f"map:     {FLAGS.map}, {grid.height:,} x {grid.width:,} pixels of {grid.pixel_size:g} in {grid.crs}")
    print(f"classes: {', '.join(classes)}")
    if FLAGS.interpreted:
        _assess()
    else:
        _draw(len(classes))


def _draw(classes: int) -> None:
    chosen, output = options.read(SampleOptions, FLAGS), pathlib.Path(FLAGS.output)
    if output.suffix.lower() != ".gpkg":
        raise OptionError("--output", f"{output}", "the name of a GeoPackage, which ends in .gpkg")
    chosen.expected(classes)
    output_files.check_files([output], overwrite=FLAGS.overwrite)
    if FLAGS.dry_run:
        print(f"dry run: would write a sample to {output}")
        return
    with app.ProgressBars(unit="rows") as bars:
        found = sampling.draw_sample(FLAGS.map, chosen, bars)
    output_files.write_files({output: found.to_bytes(hide_classes=FLAGS.hide_classes)}, overwrite=FLAGS.overwrite)
    print("", *found.table().lines(), "", sep="\n")
    print(f"{output}: {len(found):,} places; fill in the field {sampling.REFERENCE_CLASS}")
    app.say(f"next: python -m launch.assess --map={FLAGS.map} --interpreted={output}")


def _assess() -> None:
    chosen = options.read(InterpretationOptions, FLAGS)
    output_dir = pathlib.Path(FLAGS.output_dir or pathlib.Path("assessment") / pathlib.Path(FLAGS.map).stem)
    assessment.output_folder(output_dir).check(overwrite=FLAGS.overwrite, writes=assessment.FILES)
    if FLAGS.dry_run:
        print(f"dry run: would write {', '.join(assessment.FILES)} to {output_dir}")
        return
    with app.ProgressBars(unit="rows") as bars:
        found = assessment.assess_map(FLAGS.map, chosen, bars)
    print("", *found.lines(), "", sep="\n")
    for warning in assessment.write_assessment(found, output_dir, overwrite=FLAGS.overwrite):
        app.say(f"warning: {warning}")
    print(f"{output_dir}: {', '.join(assessment.FILES)}")


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
