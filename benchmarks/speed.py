r"""Measures the package side by side with its peers on the same files: rates, spread and ratio over several runs.

Every measurement is a process of its own. In each round all sides of a work run one after the other, in turned order
in every second round, and the ratio to the peer is taken round by round. The peers live in a virtual environment of
their own: make bench-peers.

Example: python -m benchmarks.speed --rgb_source=data/EuroSAT_RGB.zip --ms_source=data/EuroSAT_MS.zip \
    --work_dir=data/bench
"""

import dataclasses
import os
import pathlib
import shutil
from typing import Any

from absl import flags

from benchmarks import harness
from benchmarks.harness import FLOOR, OURS, PEER, Side, Work, module, peer
from eo_keras.core import files
from eo_keras.records import data_card as cards
from eo_keras.records import example as codec
from launch import app, path_flags
from tfrecords_builder.sources import archive as archives
from tfrecords_builder.sources import eurosat

FLAGS = flags.FLAGS

CACHE = "warm (every file was read or written before the first round)"

WORKS = ("ms_build", "rgb_build", "ms_batches", "rgb_batches")

WORKERS = 2
"""Processes on every side that can use several."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Where the inputs lie.

    Attributes:
        source: the zip.
        root: the folder that it is unpacked in.
        classes: the folder of class folders below that.
        files: how many files the zip holds.
        copies: how many times each is unpacked.
    """

    source: str
    root: pathlib.Path
    classes: pathlib.Path
    files: int
    copies: int = 1

    @property
    def count(self) -> int:
        """The number of unpacked files."""
        return self.files * self.copies

    def description(self) -> dict[str, Any]:
        """Returns what is kept of it with the figures."""
        return {"name": pathlib.Path(self.source).name, "files": self.files, "copies": self.copies}


_MARK = ".eo_keras_benchmarks"


def work_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Makes the folder that measurements work in, and returns its absolute path.

    Raises:
        MeasurementError: if it holds something else: folders in it are removed and written again.
    """
    folder = pathlib.Path(path).resolve()
    files.make_folder(folder)
    if any(folder.iterdir()) and not (folder / _MARK).exists():
        raise harness.MeasurementError(
            "--work_dir", f"{path} holds other files", "a new or empty folder", "choose another folder"
        )
    (folder / _MARK).touch()
    return folder


def unpack(source: eurosat.EuroSAT, path: str, root: pathlib.Path, at_least: int = 1) -> Inputs:
    """Unpacks a source in the oldest published layout, the one that all peers know, unless it is there already.

    Args:
        source: the data set.
        path: its zip.
        root: folder to unpack into.
        at_least: where there are fewer files, all are repeated under other numbers until there are so many.

    Raises:
        SourceError: if the zip cannot be read.
    """
    archive = archives.Archive(path)
    items = source.items(archive, eurosat.EuroSATOptions(os.fspath(path)))
    copies = -(-at_least // len(items))
    inputs = Inputs(path, root, root / source.roots[-1], len(items), copies)
    mark, wanted = root / ".unpacked", f"{files.sha256_of_file(path)} {copies}\n"
    if not mark.is_file() or mark.read_text() != wanted:
        shutil.rmtree(root, ignore_errors=True)
        for item in items:
            name, extension = os.path.splitext(pathlib.PurePosixPath(item.member).name)
            class_name, _, number = name.rpartition("_")
            data = archive.read(item.member)
            folder = files.make_folder(inputs.classes / item.class_name)
            for copy in range(copies):
                # EuroSAT's own numbers have four digits.
                (folder / f"{class_name}_{int(number) + 10_000 * copy}{extension}").write_bytes(data)
        mark.write_text(wanted)
    return inputs


def warm(folder: pathlib.Path) -> None:
    """Reads every file of a folder, so that the page cache holds them for whoever comes first too."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.read_bytes()


def own(measure: str, *switches: str, **options: Any) -> tuple[str, ...]:
    """Returns the command that measures a part of the package."""
    return (*module("benchmarks.own_side", measure=measure, **options), *switches)


def make_works(rgb: Inputs, ms: Inputs, work_dir: pathlib.Path, python: str) -> dict[str, Work]:
    """Returns all works by name.

    Args:
        rgb: the JPEGs.
        ms: the 13-band GeoTIFFs.
        work_dir: folder of outputs; `make_records` puts the records there that are read.
        python: the peers' interpreter.
    """
    output, build = work_dir / "output", "launch.build"
    ms_records, rgb_records = work_dir / "records-ms", work_dir / "records-rgb"
    own_build = {"source": rgb.source, "output_dir": output, "num_workers": WORKERS}
    return {
        "ms_build": Work(
            f"13-band GeoTIFFs to records, {ms.count:,} files",
            "examples/s",
            "the whole command",
            {
                OURS: Side(
                    f"{WORKERS} workers",
                    module(build, dataset="eurosat_ms", source=ms.root, output_dir=output, num_workers=WORKERS),
                    output,
                    ms.count,
                ),
                PEER: Side(
                    "TFDS `eurosat/all`",
                    peer(python, "tfds_build.py", config="all", folder=ms.root, output=output),
                    output,
                    ms.count,
                ),
                FLOOR: Side("reading the files' bytes", own("read", source=ms.classes, examples=ms.count)),
            },
            {OURS: 10},
        ),
        "rgb_build": Work(
            f"RGB JPEGs to records, {rgb.count:,} images",
            "examples/s",
            "inside the process",
            {
                OURS: Side("from the zip, every JPEG decoded as a check", own("build", **own_build), output),
                "unverified": Side("from the zip, `--no_verify`", own("build", "--noverify", **own_build), output),
                PEER: Side(
                    "TFDS `eurosat/rgb`, from the unpacked folder, none decoded",
                    peer(python, "tfds_build.py", config="rgb", folder=rgb.root, output=output),
                    output,
                ),
                FLOOR: Side("reading the zip's bytes", own("read", source=rgb.source, examples=rgb.count)),
            },
            {OURS: 1, "unverified": 2},
        ),
        "ms_batches": Work(
            "13-band patches to float batches of 64",
            "images/s",
            "whole epochs after a first one",
            {
                OURS: Side("streamed from records, D4", own("batches", records_dir=ms_records)),
                "memory": Side("kept in memory, D4", own("batches", "--in_memory", records_dir=ms_records)),
                PEER: Side(
                    f"torchgeo EuroSAT, DataLoader with {WORKERS} workers, no augmentation",
                    peer(python, "torchgeo_pipeline.py", folder=ms.root, names=_names(ms_records)),
                ),
                FLOOR: Side("reading the shards' bytes", own("read", source=ms_records, examples=ms.count)),
            },
            {OURS: 10},
        ),
        "rgb_batches": Work(
            "RGB patches to float batches of 64, D4 and shifts up to 8 pixels",
            "images/s",
            "whole epochs after a first one",
            {
                OURS: Side("streamed from records", own("batches", records_dir=rgb_records, shift=8)),
                "memory": Side("kept in memory", own("batches", "--in_memory", records_dir=rgb_records, shift=8)),
                PEER: Side(
                    f"torchvision ImageFolder, DataLoader with {WORKERS} workers",
                    peer(python, "torchvision_pipeline.py", folder=rgb.classes, names=_names(rgb_records)),
                ),
                FLOOR: Side("reading the shards' bytes", own("read", source=rgb_records, examples=rgb.count)),
            },
            {OURS: 2},
        ),
    }


def _names(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_suffix(".txt")


def make_records(name: str, rgb: Inputs, ms: Inputs, work_dir: pathlib.Path) -> None:
    """Builds the records that a work's pipelines read, and beside them the list of the training keys for the peer.

    They are built again every time, so that what is read is what the package writes now.
    """
    if name == "ms_batches":
        dataset, source, folder = "eurosat_ms", str(ms.root), work_dir / "records-ms"
    elif name == "rgb_batches":
        dataset, source, folder = "eurosat_rgb", rgb.source, work_dir / "records-rgb"
    else:
        return
    shutil.rmtree(folder, ignore_errors=True)
    command = module("launch.build", dataset=dataset, source=source, output_dir=folder, num_workers=WORKERS)
    harness.run_command(command)
    shards = cards.read_data_card(folder).splits["train"].shards
    keys = [example.key for shard in shards for example in codec.read_examples(folder / shard.name)]
    files.write_text(_names(folder), "".join(f"{key}\n" for key in sorted(keys)))


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path("rgb_source", None, "EuroSAT_RGB, or a part of it: a zip.", required=True, **where)
    path_flags.define_path("ms_source", None, "EuroSAT_MS, or a part of it: a zip.", required=True, **where)
    flags.DEFINE_integer(
        "ms_files",
        5592,
        "Where the 13-band source holds fewer files, they are repeated under other numbers until there are so many.",
        lower_bound=1,
        **where,
    )
    path_flags.define_path(
        "work_dir", None, "Folder for unpacked inputs (kept) and outputs (removed).", required=True, **where
    )
    flags.DEFINE_integer("runs", 5, "Rounds.", lower_bound=1, **where)
    flags.DEFINE_multi_enum("only", list(WORKS), list(WORKS), "Works to measure; may be given several times.", **where)
    path_flags.define_path("peers_python", ".venv-peers/bin/python", "The peers' interpreter.", **where)
    path_flags.define_path(
        "output",
        "docs/results/speed.json",
        "JSON file to write. Works in it that are not measured now are kept.",
        **where,
    )


def main() -> None:
    """Runs the measurements."""
    python = harness.peers_python(FLAGS.peers_python)
    rgb_source, ms_source = (str(pathlib.Path(path).resolve()) for path in (FLAGS.rgb_source, FLAGS.ms_source))
    if FLAGS.dry_run:
        print(f"dry run: would measure {', '.join(FLAGS.only)} in {FLAGS.runs} rounds and write {FLAGS.output}")
        return
    work_dir = work_folder(FLAGS.work_dir)
    rgb = unpack(eurosat.RGB, rgb_source, work_dir / "rgb")
    ms = unpack(eurosat.MULTISPECTRAL, ms_source, work_dir / "ms", FLAGS.ms_files)
    names = {rgb_source: pathlib.Path(rgb_source).name, str(work_dir): "WORK_DIR", python: "PEERS_PYTHON"}
    every = make_works(rgb, ms, work_dir, python)

    def prepared():
        for name in WORKS:
            if name in FLAGS.only:
                warm(rgb.root if name.startswith("rgb") else ms.root)
                make_records(name, rgb, ms, work_dir)
                yield name, every[name]

    facts = {"cache": CACHE, "sources": {"rgb": rgb.description(), "ms": ms.description()}}
    harness.record(FLAGS.output, prepared(), FLAGS.runs, facts, names)


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
