r"""Predicts image files (GeoTIFF, JPEG, PNG) by a run's model and writes the predictions as CSV.

Examples:
  python -m launch.predict --run_dir=runs/a --images='patches/*.tif' --output=predictions.csv
  python -m launch.predict --run_dir=runs/a --images=patches --image_bands=B02,B03,B04,B08 --output=predictions.csv
"""

import csv
import io
import os
import pathlib
import time

import numpy as np
from absl import flags

from eo_keras.core import files, output_files
from eo_keras.errors import OptionError
from eo_keras.geo import images as rasters
from eo_keras.runs import model_card as model_cards
from eo_keras.runs import temperature
from eo_keras.sensors import sentinel2
from eo_keras.serving import images as prediction
from launch import app, path_flags

FLAGS = flags.FLAGS


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path("run_dir", None, "Run folder made by launch.train.", required=True, **where)
    path_flags.define_multi_path(
        "images",
        None,
        "Images to predict: a file, a pattern in quotes such as 'patches/*.tif', or a folder, with all images below "
        "it",  # absl itself adds that the flag may be repeated.
        required=True,
        **where,
    )
    path_flags.define_path("output", None, "CSV file to write: a line an image.", required=True, **where)
    flags.DEFINE_string(
        "image_bands",
        None,
        "Bands of the images in stored order: names such as B02,B03,B04, RGB, or all for the 13 bands with B8A in "
        "ninth place. Default: those that the files name, or EuroSAT's order of 13 bands or RGB by their number.",
        **where,
    )
    flags.DEFINE_bool(
        "calibrated",
        None,
        "Whether the probabilities are those after the temperature that launch.evaluate fitted for the run. Default: "
        "where there is one; if said, a run without is refused.",
        **where,
    )
    flags.DEFINE_integer("batch_size", 64, "Images predicted at a time.", lower_bound=1, **where)
    flags.DEFINE_bool("overwrite", False, "Whether to replace a file that is already in --output.", **where)


def main() -> None:
    """Runs the command."""
    output = pathlib.Path(FLAGS.output)
    _check_output(output)
    bands = sentinel2.parse_bands(FLAGS.image_bands) if FLAGS.image_bands is not None else None
    card = model_cards.read_model_card(FLAGS.run_dir)
    card.check_one_image(FLAGS.run_dir)
    paths = rasters.find_images(FLAGS.images)
    # Most mistakes show in the first image, before seconds are spent on importing TensorFlow.
    prediction.fit_to_model(rasters.read_image(paths[0], bands), card, paths[0])
    print(f"model:  {card.model} on {','.join(card.bands)} ({card.dtype}), {len(card.legend)} classes")
    print(f"images: {len(paths):,} of {card.patch_size}x{card.patch_size} pixels")
    found, text = temperature.find(FLAGS.run_dir, FLAGS.calibrated)
    app.say(f"temperature: {text}")
    if FLAGS.dry_run:
        print(f"dry run: the first image fits the model; would write the predictions to {output}")
        return

    app.import_tensorflow_quietly()
    from eo_keras.runs import folder as runs

    run = runs.open_run(FLAGS.run_dir)
    started = time.monotonic()
    with app.ProgressBars(unit="images") as progress:
        predictions = prediction.predict_images(
            run, paths, bands, FLAGS.batch_size, progress, temperature=found and found.temperature
        )
    seconds = time.monotonic() - started
    if warning := prediction.check_band_order(predictions.assumed):
        app.say(f"warning: {warning}")
    _check_output(output)  # Again, for another process may have made it meanwhile.
    files.make_folder(output.parent)
    files.write_text(output, _csv(predictions, card.legend.class_names))
    counts = np.bincount(predictions.classes, minlength=len(card.legend))
    for name, count in zip(card.legend.class_names, counts, strict=True):
        print(f"  {name:24}{count:>8,}")
    print(f"{output}: {len(paths):,} images in {seconds:.1f} s ({len(paths) / seconds:,.0f} a second)")


def _check_output(output: pathlib.Path) -> None:
    output_files.check_no_part(output, OptionError)
    if os.path.lexists(output) and not FLAGS.overwrite:
        raise OptionError(
            "--output", f"{output} is already there", remedy="replace it by --overwrite, or choose another name"
        )


def _csv(predictions: prediction.Predictions, class_names: tuple[str, ...]) -> str:
    rows = predictions.rows(class_names)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([f"{value:.6f}" if isinstance(value, float) else value for value in row.values()] for row in rows)
    return text.getvalue()


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
