r"""Measures who writes TFRecords fastest: this package, TensorFlow, TensorFlow Datasets, or `tfrecord` of PyPI.

All write the same examples, each in a process of its own and after reading them by its own means. Every file is then
read back with all checksums and compared with ours, byte for byte and example by example.

Example: python -m benchmarks.tfrecord_writers --rgb_source=data/EuroSAT_RGB.zip --ms_source=data/EuroSAT_MS.zip \
    --work_dir=data/bench
"""

import os
import pathlib
import shutil
from typing import Any

from absl import flags

from benchmarks import comparison, measuring, works
from benchmarks.comparison import FLOOR, OURS, PEER, Side, Work
from eo_keras.core import files
from eo_keras.records import data_card as cards
from eo_keras.records import tfrecord
from launch import app, path_flags

FLAGS = flags.FLAGS

path_flags.define_path("rgb_source", None, "EuroSAT_RGB, or a part of it: a zip or a folder.", required=True)
path_flags.define_path("ms_source", None, "EuroSAT_MS, or a part of it: a zip or a folder.", required=True)
flags.DEFINE_integer("ms_examples", 1864, "Number of 13-band examples; they are repeated until there are so many.")
path_flags.define_path("work_dir", None, "Folder for inputs and outputs (removed).", required=True)
flags.DEFINE_integer("runs", 5, "Rounds.", lower_bound=1)
path_flags.define_path("peers_python", ".venv-peers/bin/python", "The peers' interpreter.")
path_flags.define_path("output", "docs/results/tfrecord_writers.json", "JSON file to write.")


def make_input(dataset: str, source: str, folder: pathlib.Path, count: int | None) -> tuple[pathlib.Path, str]:
    """Builds records and joins their shards to one file.

    Args:
        dataset: a name of `tfrecords_builder.sources.SOURCES`.
        source: its archive.
        folder: new folder to work in.
        count: number of examples, repeated where there are fewer; None for all.

    Returns:
        The file, and how its images are stored.
    """
    shutil.rmtree(folder, ignore_errors=True)
    measuring.run_command(works.module("launch.build", dataset=dataset, source=source, output_dir=folder / "records"))
    card = cards.read_data_card(folder / "records")
    shards = [folder / "records" / shard.name for split in card.splits.values() for shard in split.shards]
    examples = [data for shard in shards for data in tfrecord.read_records(shard)]
    shutil.rmtree(folder / "records")
    count = len(examples) if count is None else count
    with open(folder / "input.tfrecord", "wb") as file:
        for number in range(count):
            tfrecord.write_record(file, examples[number % len(examples)])
    return folder / "input.tfrecord", card.encoding


def make_work(title: str, path: pathlib.Path, encoding: str, python: str) -> Work:
    """Returns what is measured on one file of examples."""
    folder = path.parent / "written"

    def own(writer: str) -> tuple[str, ...]:
        return works.module(
            "benchmarks.own_writers", writer=writer, input=path, output=folder / "file", encoding=encoding
        )

    package = works.peer(python, "tfrecord_writer.py", input=path, output=folder / "file")
    return Work(
        title,
        "examples/s",
        "serialising and writing, imports left out",
        {
            OURS: Side("eo_keras.records.tfrecord", own("eo_keras"), folder),
            PEER: Side("TensorFlow: tf.train.Example, tf.io.TFRecordWriter", own("tensorflow"), folder),
            "tfds": Side("TensorFlow Datasets: its serialiser and ExampleWriter", own("tfds"), folder),
            "tfrecord": Side("the package `tfrecord`", package, folder),
            FLOOR: Side("writing the serialised bytes", own("bytes"), folder),
        },
        {OURS: 1},
    )


def compare_file(path: str | os.PathLike[str], reference: str | os.PathLike[str]) -> dict[str, bool]:
    """Compares a written file with another one.

    Raises:
        RecordsError: if a checksum of either does not agree.
    """
    written, expected = list(tfrecord.read_records(path)), list(tfrecord.read_records(reference))
    return {
        "same_bytes": written == expected,
        "same_examples": len(written) == len(expected)
        and all(
            one == other or tfrecord.decode_example(one) == tfrecord.decode_example(other)
            for one, other in zip(written, expected, strict=True)
        ),
    }


def compare_files(work: Work, reference: pathlib.Path) -> dict[str, dict[str, bool]]:
    """Has every writer write once, and compares what it wrote with the input, which is in our form."""
    found = {}
    for name, side in work.sides.items():
        if name == FLOOR:
            continue
        comparison.clear(side)
        measuring.run_command(side.command)
        found[name] = compare_file(side.output / "file", reference)
        shutil.rmtree(side.output)
    return found


def main() -> None:
    """Runs the measurements."""
    python = measuring.peers_python(FLAGS.peers_python)
    if FLAGS.dry_run:
        print(f"dry run: would measure writers on both data sets in {FLAGS.runs} rounds and write {FLAGS.output}")
        return
    work_dir = works.work_folder(FLAGS.work_dir) / "writers"
    names = {str(work_dir): "WORK_DIR", python: "PEERS_PYTHON"}
    measured: dict[str, Any] = {}
    for name, dataset, source, count in (
        ("ms", "eurosat_ms", FLAGS.ms_source, FLAGS.ms_examples),
        ("rgb", "eurosat_rgb", FLAGS.rgb_source, None),
    ):
        path, encoding = make_input(dataset, str(pathlib.Path(source).resolve()), work_dir / name, count)
        kind = {"raw": "13-band patches as raw numbers", "jpeg": "RGB patches as JPEGs"}[encoding]
        work = make_work(kind, path, encoding, python)
        print(f"{work.title} ({work.timed})", flush=True)
        compared = compare_files(work, path)
        measured[name] = comparison.measure(work, FLAGS.runs, names)
        for side, result in compared.items():
            measured[name]["sides"][side] |= result
    sources = {"rgb": FLAGS.rgb_source, "ms": FLAGS.ms_source}
    result = {
        "runs": FLAGS.runs,
        "sources": {key: {"name": pathlib.Path(path).name} for key, path in sources.items()},
        "machine": measuring.machine(),
        "works": measured,
    }
    files.write_json(FLAGS.output, result)
    shutil.rmtree(work_dir)
    print("\n".join(comparison.table(measured, "TensorFlow")))
    for work in measured.values():
        for side in work["sides"].values():
            if "same_bytes" in side:
                print(f"{side['title']}: same bytes {side['same_bytes']}, same examples {side['same_examples']}")


if __name__ == "__main__":
    app.run(main)
