"""Runs the whole way on a small generated world: archives, records, training, score, answers and a served model.

First patches with a class each, then cities: Sentinel-2 products and an Urban Atlas become tiles, and a map's model.

Every step but the first is a command of its own, shown as you would type it.

Example: python -m launch.demo --output_dir=runs/demo
"""

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
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from launch import app, demo_folder, path_flags
from tfrecords_builder.synthetic import archives, cities
from tfrecords_builder.synthetic import baselines as hardness

FLAGS = flags.FLAGS

path_flags.define_path("output_dir", "runs/demo", "Folder for what the demo makes: new or empty.")
flags.DEFINE_bool(
    "overwrite", False, "Whether to replace a demo that is already in --output_dir; other files there stay."
)
flags.DEFINE_integer("patches_per_class", 200, "RGB patches of each of the ten classes.", lower_bound=20)
flags.DEFINE_integer("ms_patches_per_class", 20, "13-band patches of each of the ten classes.", lower_bound=5)
flags.DEFINE_integer("cities", 4, "Cities; one of them is for testing, one chooses the epoch.", lower_bound=3)
flags.DEFINE_integer("city_size", 600, "Edge of a city in pixels of 10 m, a multiple of 6.", lower_bound=240)
flags.DEFINE_integer("seed", 1, "Seed of the generated world and of the split.")

_FLAGFILES = pathlib.Path(os.path.relpath(pathlib.Path(__file__).parent / "flagfiles"))


def _run(command: str, *positional: str, **arguments: object) -> None:
    """Shows a command and runs it.

    Raises:
        EOKerasError: if it fails; it has said why.
    """
    # Those that would refuse a folder for what else lies in it, which stays.
    beside = ["--overwrite"] if FLAGS.overwrite and command in ("build", "train", "evaluate") else []
    words = [
        "-m",
        f"launch.{command}",
        *positional,
        *beside,
        *(f"--{name}={value}" for name, value in arguments.items()),
    ]
    print(f"\n$ python {shlex.join(words)}", flush=True)
    if subprocess.run([sys.executable, *words], check=False).returncode:
        raise EOKerasError(f"launch.{command}", "it failed as it says above", remedy="report it with all of the output")


def _patches(output: OutputFolder) -> str:
    """Goes the way of patches; returns what it came to."""
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
    _run("train", f"--flagfile={_FLAGFILES / 'demo.flags'}", records_dir=folder / "records" / "rgb", run_dir=run_dir)
    _run("evaluate", run_dir=run_dir, split="test")
    # The network was trained on JPEGs; it reads the GeoTIFFs' red, green and blue, scaled as the JPEGs were made.
    patches = folder / "patches"
    with output.new_path(patches.name) as path:
        shutil.unpack_archive(folder / "eurosat_ms.zip", path)
    _run("predict", run_dir=run_dir, images=patches, output=folder / "answers.csv")
    output.note({"answers.csv": Written.of_file(folder / "answers.csv")})
    _run("export", run_dir=run_dir, export_dir=folder / "serving")

    metrics = json.loads((run_dir / "evaluation" / "test" / "metrics.json").read_text())
    scores = metrics["scores"]
    return (
        f"RGB test patches right: network {scores['accuracy']:.1%} ({scores['accuracy_low']:.1%} to "
        f"{scores['accuracy_high']:.1%} at 95 %), logistic regression on the patches' band means "
        f"{baselines['rgb']:.1%} (13 bands: {baselines['ms']:.1%})"
    )


def _cities(output: OutputFolder) -> str:
    """Goes the way of tiles; returns what it came to."""
    folder = output.path(".")
    print(f"\ngenerating {folder / 'cities'}: two Sentinel-2 products and an Urban Atlas of each city", flush=True)
    with app.progress(FLAGS.cities, "generating", unit="cities") as advance, output.new_path("cities") as path:
        listed = cities.write_cities(path, FLAGS.cities, size=FLAGS.city_size, seed=FLAGS.seed, progress=advance)
    listed = folder / "cities" / listed.name
    records, run_dir, share = folder / "records" / "cities", folder / "run_cities", 1 / FLAGS.cities
    _run(
        "build",
        *(f"--{part}_fraction={share:.3f}" for part in ("test", "val")),
        dataset="urban_atlas",
        cities=listed,
        legend="hsl4",
        bands="RGB",
        tile_size=128,
        output_dir=records,
        seed=FLAGS.seed,
    )
    _run("inspect", records_dir=records, output=folder / "cities.html")
    _run("train", f"--flagfile={_FLAGFILES / 'demo_maps.flags'}", records_dir=records, run_dir=run_dir)
    _run("evaluate", run_dir=run_dir, split="test")
    scores = json.loads((run_dir / "evaluation" / "test" / "metrics.json").read_text())["scores"]
    mean, accuracy = scores["macro_iou"], scores["accuracy"]
    return (
        f"tiles of a city not seen in training: mIoU {mean['value']:.3f} ({mean['low']:.3f} to {mean['high']:.3f} at "
        f"95 %), {accuracy['value']:.1%} of the pixels right; colours alone give {_colours_alone(records):.1%}"
    )


def _colours_alone(records_dir: pathlib.Path) -> float:
    """Returns what logistic regression on the mean colours of 5 x 5 pixels makes of the test tiles, side by side."""
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
            f"dry run: would generate archives and cities, build records, train, score, predict and export in {folder}"
        )
        return
    with demo_folder.prepared(output, overwrite=FLAGS.overwrite):
        found = [way(output) for way in (_patches, _cities)]
    print("\n" + "\n".join(found))
    print(
        f"done in {time.monotonic() - started:.0f} s; look at {folder}/*.html and {folder}/run*/evaluation/test/*.png,"
    )
    print(f"and at the curves with: tensorboard --logdir {folder}")


if __name__ == "__main__":
    app.run(main)
