r"""Predicts image files (GeoTIFF, JPEG, PNG) by a model: their classes as CSV, or their masks as GeoTIFFs.

Examples:
  python -m launch.predict --run_dir=runs/a --images='patches/*.tif' --output=predictions.csv
  python -m launch.predict --run_dir=runs/a --images=patches --image_bands=B02,B03,B04,B08 --output=predictions.csv
  python -m launch.predict --run_dir=runs/buildings --images='aerial/*.tif' --output_dir=masks
  python -m launch.predict --run_dir=runs/floods --images='s1:floods/S1_*.png' --images='s2:floods/S2_*.png' \
      --output_dir=masks

A classification model takes patches of its size. A segmentation model takes images of any size; of a model of several
sensors or dates each is named, and * stands for what the names of images of one place have in common. Masks have the
images' place on the ground, where these have one. A command that was stopped goes on when it is called again. Scenes
of Sentinel-2 become maps by launch.map.
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
from eo_keras.mapping import image_masks, predictors
from eo_keras.runs import model_card as model_cards
from eo_keras.runs import temperature
from eo_keras.runs.input_images import fit_to_model
from eo_keras.runs.model_card import ModelCard
from eo_keras.sensors import sentinel2
from eo_keras.serving import images as prediction
from launch import app, path_flags

FLAGS = flags.FLAGS

_BATCH = 64
"""Default number of images that are classified at a time."""


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path(
        "run_dir",
        None,
        "Run folder made by launch.train; of a segmentation model also a .keras file beside its card, or an export.",
        required=True,
        **where,
    )
    path_flags.define_multi_path(
        "images",
        None,
        "Images to predict: a file, a pattern in quotes such as 'patches/*.tif', or a folder, with all images below "
        "it. Of a model of several images of each place, with the name of each before it, such as "
        "'s1:floods/S1_*.png', where one * is the part of the names by which they belong together, and folders do so "
        "by equal names",  # absl itself adds that the flag may be repeated.
        required=True,
        **where,
    )
    path_flags.define_path("output", None, "Of classification: the CSV file to write, a line an image.", **where)
    path_flags.define_path(
        "output_dir",
        None,
        "Of segmentation: the folder of the masks, a GeoTIFF of classes for each place, and of predictions.csv, the "
        "pixels of each class.",
        **where,
    )
    flags.DEFINE_string(
        "image_bands",
        None,
        "Bands of the images in stored order: names such as B02,B03,B04, RGB, or all for the 13 bands with B8A in "
        "ninth place; of several modalities such as 's2:B11,B08,B03;s1:VV,VH'. Default: those that the files name, or "
        "EuroSAT's order of 13 bands or RGB by their number, or of masks those of the records of the training.",
        **where,
    )
    flags.DEFINE_bool(
        "calibrated",
        None,
        "Whether the probabilities are those after the temperature that launch.evaluate fitted for the run. Default: "
        "where there is one; if said, a run without is refused.",
        **where,
    )
    path_flags.define_path(
        "stand_in",
        None,
        "Of segmentation by several sensors: run folder of a model that predicts images of one where they are missing.",
        **where,
    )
    flags.DEFINE_enum(
        "tta",
        "none",
        predictors.TTA,
        "Of segmentation: d4 averages the probabilities over the eight symmetries of each window.",
        **where,
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images or, of segmentation, windows predicted at a time. Default: 64, or by the size of a window.",
        lower_bound=1,
        **where,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Whether to replace a file that is already in --output, or masks of other images or by another model.",
        **where,
    )


def main() -> None:
    """Runs the command."""
    card = predictors.read_card(FLAGS.run_dir)
    wanted, other = ("output_dir", "output") if card.targets.per_pixel else ("output", "output_dir")
    masks = "masks, a file each" if card.targets.per_pixel else "classes, in one file"
    if getattr(FLAGS, wanted) is None or getattr(FLAGS, other) is not None:
        found = f"`{other}` is given" if getattr(FLAGS, other) is not None else "it is missing"
        raise OptionError(wanted, found, f"`{wanted}`: {card.model} predicts {masks}", f"say `{wanted}`")
    if card.targets.per_pixel:
        _predict_masks(card)
    else:
        _classify(card)


def _classify(card: ModelCard) -> None:
    for name, default in (("stand_in", None), ("tta", "none")):
        if getattr(FLAGS, name) != default:
            raise OptionError(name, f"it does not apply to {card.model}", "a segmentation model", "leave it out")
    output = pathlib.Path(FLAGS.output)
    _check_output(output)
    bands = sentinel2.parse_bands(FLAGS.image_bands) if FLAGS.image_bands is not None else None
    model_cards.read_model_card(FLAGS.run_dir)  # A classifier is opened as a run: exports are refused here.
    card.check_one_image(FLAGS.run_dir)
    paths = rasters.find_images(FLAGS.images)
    # Most mistakes show in the first image, before seconds are spent on importing TensorFlow.
    fit_to_model(rasters.read_image(paths[0], bands), card, paths[0])
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
            run, paths, bands, FLAGS.batch_size or _BATCH, progress, temperature=found and found.temperature
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


def _predict_masks(card: ModelCard) -> None:
    if FLAGS.calibrated:
        raise OptionError("calibrated", "a temperature changes no class of a mask", remedy="leave it out")
    # It needs no TensorFlow, but for a stand-in, whose card is read beside its network.
    job = image_masks.plan_masks(card, FLAGS.images, image_bands=FLAGS.image_bands, stand_in=FLAGS.stand_in)
    image_masks.check_output(job, FLAGS.output_dir, overwrite=FLAGS.overwrite)
    pixels = sum(height * width for height, width in job.sizes)
    print(f"model:  {card.model} on {card.title_of_bands}, {len(card.legend)} classes of {card.legend.name}")
    print(f"images: {len(job.places):,} places, {pixels:,} pixels")
    for name in dict.fromkeys(one.modality for one in card.taken):
        if missing := sum(name not in place.files for place in job.places):
            print(f"  {missing:,} places lack {name}")
    if FLAGS.dry_run:
        print(f"dry run: the images fit the model and each other; would write their masks to {FLAGS.output_dir}")
        return

    app.import_tensorflow_quietly()
    started = time.monotonic()
    model = predictors.open_predictor(FLAGS.run_dir, tta=FLAGS.tta, stand_in=FLAGS.stand_in)
    with app.ProgressBars(unit="pixels") as progress:
        report = image_masks.write_masks(
            model,
            job,
            FLAGS.output_dir,
            origin=image_masks.origin_of(FLAGS.run_dir, FLAGS.tta, FLAGS.stand_in),
            batch_size=FLAGS.batch_size,
            overwrite=FLAGS.overwrite,
            progress=progress,
        )
    seconds = time.monotonic() - started
    for warning in report.warnings:
        app.say(f"warning: {warning}")
    if report.kept:
        print(f"resumed: {report.kept:,} of {len(job.places):,} masks were there")
    for name, count in zip((*card.legend.class_names, "no data"), report.pixels.sum(axis=0).tolist(), strict=True):
        print(f"  {name:24}{count:>14,} pixels ({count / pixels:.1%})")
    print(f"{FLAGS.output_dir}: {len(job.places):,} masks in {seconds:.1f} s ({pixels / seconds:,.0f} pixels a second)")


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
