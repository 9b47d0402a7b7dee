r"""Measures one thing of the package in a process of its own, and prints it as one line of JSON; see benchmarks.speed.

The imports are left out of the time, the start of worker processes is not.

Example: python -m benchmarks.own_side --measure=batches --records_dir=records/rgb --shift=8
"""

import pathlib
import time

from absl import flags

from benchmarks import harness
from launch import app, path_flags

FLAGS = flags.FLAGS

flags.DEFINE_enum(
    "measure",
    None,
    ["build", "batches", "read"],
    "build: a records folder out of EuroSAT's JPEGs. batches: training batches as floats. read: the bytes alone.",
    required=True,
)
path_flags.define_path("source", None, "build: the archive. read: a file, or a folder with everything below it.")
path_flags.define_path("output_dir", None, "build: the records folder to make.")
flags.DEFINE_integer("num_workers", 2, "build: processes.")
flags.DEFINE_bool("verify", True, "build: whether every JPEG is decoded as a check.")
path_flags.define_path("records_dir", None, "batches: the records folder, of which the split train is read.")
flags.DEFINE_integer("batch_size", 64, "batches: examples in a batch.")
flags.DEFINE_bool("in_memory", False, "batches: whether the examples stay in memory, else they stream from the shards.")
flags.DEFINE_integer("shift", 0, "batches: largest shift in pixels, beside the symmetries.")
flags.DEFINE_integer("examples", 0, "read: number of examples that the bytes hold.")
flags.DEFINE_float("min_seconds", 5.0, "batches, read: whole epochs are read until this time has passed.")


def _build() -> None:
    from tfrecords_builder import build
    from tfrecords_builder.sources.eurosat import EuroSATOptions

    options = build.BuildOptions(
        dataset="eurosat_rgb",
        source=EuroSATOptions(FLAGS.source, no_verify=not FLAGS.verify),
        output_dir=FLAGS.output_dir,
        num_workers=FLAGS.num_workers,
    )
    started = time.perf_counter()
    report = build.build(options)
    seconds = time.perf_counter() - started
    harness.report(sum(split.examples for split in report.card.splits.values()), seconds)


def _batches() -> None:
    app.import_tensorflow_quietly()
    import tensorflow as tf

    from eo_keras.data import pipeline as pipelines
    from eo_keras.data.augment import patches

    augmentation = patches.Augmentation(dihedral=True, max_shift=FLAGS.shift, brightness=0.0)
    options = pipelines.PipelineOptions(FLAGS.batch_size, augmentation=augmentation, cache=FLAGS.in_memory)
    pipeline = pipelines.TrainingDataset(pipelines.RecordDataset(FLAGS.records_dir), options)

    def to_float(image, label):
        return tf.cast(image, tf.float32), label

    def read(number: int) -> int:
        """Reads an epoch and returns its number of images."""
        images = 0
        dataset = pipeline.epoch(number).map(to_float, num_parallel_calls=tf.data.AUTOTUNE)
        for image, _ in dataset.prefetch(2):
            images += image.shape[0]
        return images

    # The first epoch fills the page cache and traces what is traced once.
    read(0)
    images, number, started = 0, 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < FLAGS.min_seconds:
        number += 1
        images += read(number)
    harness.report(images, seconds, epochs=number)


def _read() -> None:
    source = pathlib.Path(FLAGS.source)
    paths = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    # Into one buffer: new memory for every block takes longer than the reading.
    block = bytearray(8 << 20)
    size, passes, started = 0, 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < FLAGS.min_seconds:
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while count := file.readinto(block):
                    size += count
        passes += 1
    harness.report(FLAGS.examples * passes, seconds, bytes=size, files=len(paths))


def main() -> None:
    """Measures."""
    {"build": _build, "batches": _batches, "read": _read}[FLAGS.measure]()


if __name__ == "__main__":
    app.run(main)
