"""Runs the whole way on a small generated data set: archives, records, inspection, batches, and a network's answers.

Example: python -m launch.demo --output_dir=runs/demo
"""

import pathlib
import shutil
import time

from absl import flags

from eo_keras import cards, files, reports
from eo_keras.errors import OptionError
from launch import common
from tfrecords_builder import build, inspection, splits
from tfrecords_builder.generated import archives, hardness

FLAGS = flags.FLAGS

flags.DEFINE_string("output_dir", "runs/demo", "Folder for what the demo makes; an earlier demo in it is replaced.")
flags.DEFINE_integer("patches_per_class", 100, "Patches of each of the ten classes.", lower_bound=20)
flags.DEFINE_integer("seed", 1, "Seed of the generated world and of the split.")


def _prepare(output_dir: pathlib.Path) -> None:
    marker = output_dir / "demo"
    if output_dir.exists() and not marker.exists() and any(output_dir.iterdir()):
        raise OptionError("--output_dir", f"{output_dir} holds something else than a demo", "a new or empty folder")
    shutil.rmtree(output_dir, ignore_errors=True)
    files.make_folder(output_dir)
    files.write_text(marker, "")


def _batches(records_dir: pathlib.Path, bands: str) -> None:
    """Reads an epoch, and asks an untrained network about one batch, to show that data and model fit together."""
    common.import_tensorflow_quietly()
    import numpy as np

    from eo_keras import augment, models, pipelines, sentinel2

    records = pipelines.Records(records_dir)
    chosen = sentinel2.parse_bands(bands, records.card.bands)
    options = pipelines.PipelineOptions(batch_size=64, bands=chosen, augmentation=augment.Augmentation())
    pipeline = pipelines.TrainingPipeline(records, options)
    for epoch in range(2):
        started = time.monotonic()
        images = sum(int(image.shape[0]) for image, _ in pipeline.epoch(epoch))
        print(f"  epoch {epoch}: {images:,} augmented examples in {time.monotonic() - started:.2f} s")
    statistics = {band.band: band for band in records.card.statistics}
    model, report = models.build(
        "resnet14",
        bands=chosen,
        num_classes=len(records.card.legend),
        normalisation=models.Normalisation(
            tuple(statistics[band].mean for band in chosen), tuple(statistics[band].std for band in chosen)
        ),
        input_dtype=records.card.dtype,
        seed=FLAGS.seed,
    )
    image, _ = next(iter(pipeline.epoch(0)))
    answers = model.predict(image, verbose=0)
    print(f"  resnet14 on {','.join(chosen)}, {report.summary()[0].lower()}{report.summary()[1:]}")
    total = np.sum(answers) / len(answers)
    print(f"  {model.count_params():,} weights; probabilities {answers.shape} sum to {total:.6f} each")


def main() -> None:
    """Runs the demo."""
    output_dir, started = pathlib.Path(FLAGS.output_dir), time.monotonic()
    if FLAGS.dry_run:
        print(f"dry run: would generate two archives, build and inspect records, and read them, in {output_dir}")
        return
    _prepare(output_dir)
    for number, (kind, dataset, bands) in enumerate((("rgb", "eurosat_rgb", "RGB"), ("ms", "eurosat_ms", "CI")), 1):
        print(f"\n{number}. {dataset}: generate an archive, build records, inspect them, read them")
        source = archives.write_eurosat_archive(
            output_dir / f"{dataset}.zip", kind=kind, patches_per_class=FLAGS.patches_per_class, seed=FLAGS.seed
        )
        baseline = hardness.mean_colour_baseline(source)
        print(f"logistic regression on the patches' band means gets {baseline:.1%} right: texture has to tell the rest")
        records_dir = output_dir / "records" / kind
        split = splits.SplitOptions(seed=FLAGS.seed)
        with common.ProgressBars(unit="patches") as progress:
            options = build.BuildOptions(dataset, str(source), str(records_dir), split)
            card = build.build(options, progress=progress).card
        print(inspection.describe(cards.read_data_card(records_dir)))
        sheet = output_dir / f"{dataset}.png"
        images = inspection.sample_images(card, records_dir, splits.TRAIN)
        files.write_bytes(sheet, reports.contact_sheet_png(images, f"{dataset}, generated"))
        print(f"contact sheet: {sheet}")
        _batches(records_dir, bands)
    print(f"\ndone in {time.monotonic() - started:.0f} s; look at {output_dir}/*.png")


if __name__ == "__main__":
    common.run(main)
