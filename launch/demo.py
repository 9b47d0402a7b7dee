"""Runs the whole workflow on small synthetic data: build, train, evaluate, predict, map and export.

First classification of patches, then segmentation: Sentinel-2 products and an Urban Atlas of synthetic cities become
tiles; a city not seen in training is mapped, and its map scored. The data is generated; every other step is a command,
shown as you would type it.

Example: python -m launch.demo --output_dir=runs/demo
"""

import csv
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import numpy as np
from absl import flags

from eo_keras.core.manifests import Written
from eo_keras.core.output_folders import DEMO, OutputFolder
from eo_keras.errors import EOKerasError, OptionError
from eo_keras.metrics.scores import Scores
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from launch import app, command_names, demo_folder, flag_files, path_flags
from tfrecords_builder.synthetic import archives, cities
from tfrecords_builder.synthetic import baselines as hardness

FLAGS = flags.FLAGS


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path("output_dir", "runs/demo", "Folder of the demo: new or empty.", **where)
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Whether to replace a demo that is already in --output_dir; other files there stay.",
        **where,
    )
    flags.DEFINE_integer("patches_per_class", 200, "RGB patches of each of the ten classes.", lower_bound=20, **where)
    flags.DEFINE_integer(
        "ms_patches_per_class", 20, "13-band patches of each of the ten classes.", lower_bound=5, **where
    )
    flags.DEFINE_integer(
        "cities", 4, "Cities; one of them is for testing, one chooses the epoch.", lower_bound=3, **where
    )
    flags.DEFINE_integer(
        "city_size", 600, "Edge of a city in pixels of 10 m, a multiple of 6.", lower_bound=240, **where
    )
    flags.DEFINE_integer("seed", 1, "Seed of the synthetic data and of the split.", **where)


def _run(command: str, *positional: str, **arguments: object) -> None:
    """Shows a command and runs it in a process of its own.

    Raises:
        EOKerasError: if it fails; it has said why.
    """
    # Those that would refuse a folder for what else lies in it, which stays.
    beside = ["--overwrite"] if FLAGS.overwrite and command in ("build", "train", "evaluate") else []
    words = [*positional, *beside, *(f"--{name}={value}" for name, value in arguments.items())]
    print(app.with_flags(f"\n$ python -m launch.{command} {shlex.join(words)}"), flush=True)
    module = [__package__, command] if command_names.by_program() else [f"{__package__}.{command}"]
    if subprocess.run([sys.executable, "-m", *module, *words], check=False).returncode:
        raise EOKerasError(f"launch.{command}", "it failed as it says above", remedy="report it with all of the output")


def _flag_file(name: str) -> str:
    """Returns the flag that names an installed flag file, by its path where the working folder has one of its name."""
    return f"--flagfile={flag_files.INSTALLED / name if os.path.lexists(name) else name}"


def _patches(output: OutputFolder) -> str:
    """Runs the patch-classification demo; returns its summary."""
    folder, baselines = output.path("."), {}
    for kind, count in (("rgb", FLAGS.patches_per_class), ("ms", FLAGS.ms_patches_per_class)):
        source = folder / f"eurosat_{kind}.zip"
        print(f"generating {source}: {10 * count:,} patches of a small land-cover map", flush=True)
        with app.progress(10 * count, "generating", unit="patches") as advance, output.new_path(source.name) as path:
            archives.write_eurosat_archive(
                path,
                kind=kind,
                patches_per_class=count,
                seed=FLAGS.seed,
                progress=lambda done, total, advance=advance: advance(1),
            )
        baselines[kind] = hardness.mean_colour_baseline(source)
        records, page = folder / "records" / kind, folder / f"eurosat_{kind}.html"
        _run("build", dataset=f"eurosat_{kind}", source=source, output_dir=records, seed=FLAGS.seed)
        _run("inspect", records_dir=records, output=page)

    run_dir = folder / "run"
    _run("train", _flag_file("demo.flags"), records_dir=folder / "records" / "rgb", run_dir=run_dir)
    _run("evaluate", run_dir=run_dir, split="test")
    # The network was trained on JPEGs; it reads the GeoTIFFs' red, green and blue, scaled as the JPEGs were made.
    patches, predictions = folder / "patches", folder / "predictions.csv"
    with output.new_path(patches.name) as path:
        shutil.unpack_archive(folder / "eurosat_ms.zip", path)
    _run("predict", run_dir=run_dir, images=patches, output=predictions)
    output.note({predictions.name: Written.of_file(predictions)})
    _run("export", run_dir=run_dir, export_dir=folder / "serving")

    metrics = json.loads((run_dir / "evaluation" / "test" / "metrics.json").read_text())
    accuracy = Scores.read(metrics)["accuracy"]
    return (
        f"accuracy on the RGB test patches: network {accuracy.value:.1%} ({accuracy.low:.1%} to "
        f"{accuracy.high:.1%} at 95 %), logistic regression on the patches' band means "
        f"{baselines['rgb']:.1%} (13 bands: {baselines['ms']:.1%})"
    )


def _cities(output: OutputFolder) -> str:
    """Runs the segmentation demo; returns its summary."""
    folder = output.path(".")
    print(f"\ngenerating {folder / 'cities'}: two Sentinel-2 products and an Urban Atlas of each city", flush=True)
    with app.progress(FLAGS.cities, "generating", unit="cities") as advance, output.new_path("cities") as path:
        listed = cities.write_cities(path, FLAGS.cities, size=FLAGS.city_size, seed=FLAGS.seed, progress=advance)
    listed = folder / "cities" / listed.name
    records, run_dir, share = folder / "records" / "cities", folder / "run_cities", 1 / FLAGS.cities
    _run(
        "build",
        *(f"--{split}_fraction={share:.3f}" for split in ("test", "val")),
        dataset="urban_atlas",
        cities=listed,
        legend="hsl4",
        bands="RGB",
        tile_size=128,
        output_dir=records,
        seed=FLAGS.seed,
    )
    _run("inspect", records_dir=records, output=folder / "cities.html")
    _run("train", _flag_file("demo_maps.flags"), records_dir=records, run_dir=run_dir)
    _run("evaluate", run_dir=run_dir, split="test")
    scores = Scores.read(json.loads((run_dir / "evaluation" / "test" / "metrics.json").read_text()))
    mean, accuracy = scores["miou"], scores["accuracy"]
    scene, land_use = _first_of_test(listed, records)
    _run(
        "map",
        *("--confidence", "--polygons", "--areas", "--quicklook", "--page"),
        run_dir=run_dir,
        scenes=scene,
        output=folder / "city.tif",
        min_area_ha=1,
        simplify_m=15,
    )
    compared = {"polygons": land_use, "class_field": "code_2018", "class_table": "hsl4"}
    _run("evaluate", map=folder / "city.tif", **compared, output_dir=folder / "city_evaluation")
    mapped = Scores.read(json.loads((folder / "city_evaluation" / "metrics.json").read_text()))["accuracy"]
    return (
        f"tiles of a city not seen in training: mIoU {mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f} at "
        f"95 %), accuracy {accuracy.value:.1%} of the pixels; logistic regression on colors alone "
        f"{_color_baseline(records):.1%}; map of its scene, {folder / 'city.html'}: accuracy {mapped.value:.1%}"
    )


def _first_of_test(listed: pathlib.Path, records_dir: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the first scene and the land use of the first city of the test split."""
    (name, *_) = cards.read_data_card(records_dir).split_method["cities"]["test"]
    with open(listed, encoding="utf-8", newline="") as file:
        line = next(row for row in csv.DictReader(file) if row["name"] == name)
    return listed.parent / line["scenes"].split(";")[0], listed.parent / line["vectors"]


def _color_baseline(records_dir: pathlib.Path) -> float:
    """Returns the pixel accuracy of logistic regression on the mean colors of 5 x 5 pixels, on the test split."""
    card = cards.read_data_card(records_dir)
    images, labels = [], []
    for shard in card.splits["test"].shards:
        for example in records.read_examples(records_dir / shard.name):
            images.append(records.decode_image(example, card))
            labels.append(example.tile.labels)
    return hardness.pixel_colour_baseline(np.concatenate(images, 1), np.concatenate(labels, 1), window=5).accuracy


def main() -> None:
    """Runs the demo."""
    folder, started = pathlib.Path(FLAGS.output_dir), time.monotonic()
    output = OutputFolder(folder, DEMO, OptionError)
    demo_folder.check(output, overwrite=FLAGS.overwrite)
    if FLAGS.dry_run:
        print(
            "dry run: would generate archives and cities, build records, train, score, predict, map and export in "
            f"{folder}"
        )
        return
    with demo_folder.prepared(output, overwrite=FLAGS.overwrite):
        summaries = [example(output) for example in (_patches, _cities)]
    print("\n" + "\n".join(summaries))
    print(
        f"done in {time.monotonic() - started:.0f} s; look at {folder}/*.html and {folder}/run*/evaluation/test/*.png,"
    )
    print(f"and at the curves with: tensorboard --logdir {folder}")


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
