r"""Measures the package side by side with its peers on the same files: rates, spread and ratio over several runs.

Every measurement is a process of its own. In each round all sides of a work run one after the other, in turned order
in every second round, and the ratio to the peer is taken round by round. The peers live in a virtual environment of
their own: make bench-peers.

Example: python -m benchmarks.speed --rgb_source=data/EuroSAT_RGB.zip --ms_source=data/EuroSAT_MS.zip \
    --work_dir=data/bench
"""

import datetime
import json
import pathlib

from absl import flags

from benchmarks import comparison, measuring, works
from eo_keras.core import files
from launch import app, path_flags
from tfrecords_builder.sources import eurosat

FLAGS = flags.FLAGS

CACHE = "warm (every file was read or written before the first round)"

path_flags.define_path("rgb_source", None, "EuroSAT_RGB, or a part of it: a zip.", required=True)
path_flags.define_path("ms_source", None, "EuroSAT_MS, or a part of it: a zip.", required=True)
flags.DEFINE_integer(
    "ms_files",
    5592,
    "Where the 13-band source holds fewer files, they are repeated under other numbers until there are so many.",
    lower_bound=1,
)
path_flags.define_path("work_dir", None, "Folder for unpacked inputs (kept) and outputs (removed).", required=True)
flags.DEFINE_integer("runs", 5, "Rounds.", lower_bound=1)
flags.DEFINE_multi_enum("only", list(works.WORKS), list(works.WORKS), "Works to measure; may be given several times.")
path_flags.define_path("peers_python", ".venv-peers/bin/python", "The peers' interpreter.")
path_flags.define_path(
    "output", "docs/results/speed.json", "JSON file to write. Works in it that are not measured now are kept."
)


def main() -> None:
    """Runs the measurements."""
    python = measuring.peers_python(FLAGS.peers_python)
    rgb_source, ms_source = (str(pathlib.Path(path).resolve()) for path in (FLAGS.rgb_source, FLAGS.ms_source))
    if FLAGS.dry_run:
        print(f"dry run: would measure {', '.join(FLAGS.only)} in {FLAGS.runs} rounds and write {FLAGS.output}")
        return
    work_dir = works.work_folder(FLAGS.work_dir)
    rgb = works.unpack(eurosat.RGB, rgb_source, work_dir / "rgb")
    ms = works.unpack(eurosat.MULTISPECTRAL, ms_source, work_dir / "ms", FLAGS.ms_files)
    sources = {"rgb": rgb.description(), "ms": ms.description()}
    names = {rgb_source: pathlib.Path(rgb_source).name, str(work_dir): "WORK_DIR", python: "PEERS_PYTHON"}
    output, machine = pathlib.Path(FLAGS.output), measuring.machine()
    measured = {}
    if output.is_file():
        earlier = json.loads(output.read_text())
        # Figures of two machines, of two states of one, or of different files do not belong on one page.
        if (earlier["machine"], earlier["sources"]) == (machine, sources):
            measured = earlier["works"]
    every = works.make_works(rgb, ms, work_dir, python)
    for name in works.WORKS:
        if name not in FLAGS.only:
            continue
        work = every[name]
        print(f"{work.title} ({work.timed})", flush=True)
        works.warm(rgb.root if name.startswith("rgb") else ms.root)
        works.make_records(name, rgb, ms, work_dir)
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        measured[name] = comparison.measure(work, FLAGS.runs, names) | {"date": date}
        # Written after every work, for all of them take the better part of an hour.
        result = {
            "runs": FLAGS.runs,
            "cache": CACHE,
            "sources": sources,
            "machine": machine,
            "works": {key: measured[key] for key in works.WORKS if key in measured},
        }
        files.write_json(output, result)
    print("\n".join(comparison.table(result["works"])))


if __name__ == "__main__":
    app.run(main)
