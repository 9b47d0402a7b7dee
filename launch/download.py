"""Downloads a published archive, resumes an unfinished download, and verifies size and checksum.

Example: python -m launch.download --dataset=eurosat_rgb --output_dir=data
"""

import pathlib
import shlex
import time

from absl import flags

from launch import app, path_flags
from tfrecords_builder import downloads

FLAGS = flags.FLAGS


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    flags.DEFINE_enum("dataset", None, sorted(downloads.PUBLISHED), "Data set to download.", required=True, **where)
    path_flags.define_path("output_dir", "data", "Folder of the archive; made if it is missing.", **where)


def main() -> None:
    """Runs the command."""
    file = downloads.PUBLISHED[FLAGS.dataset]
    path = pathlib.Path(FLAGS.output_dir) / file.name
    there = path.exists()
    if FLAGS.dry_run:
        if there:
            plan = "verify the file that is there, and download nothing"
        elif done := downloads.fetched_bytes(file, FLAGS.output_dir):
            plan = f"resume after the {done:,} bytes that are there"
        else:
            plan = "download the whole file"
        print(f"URL:      {file.url}\nsize:     {file.bytes:,} bytes\nMD5:      {file.md5}\ntarget:   {path}")
        print(f"dry run: would {plan}")
        return
    started = time.monotonic()
    with app.ProgressBars(unit="bytes") as progress:
        downloads.download(file, FLAGS.output_dir, progress=progress)
    seconds = time.monotonic() - started
    done = "already there" if there else "downloaded"
    print(f"{path}: {done}, {file.bytes / 1e6:,.1f} MB, {seconds:.1f} s, size and MD5 verified")
    source = shlex.quote(str(path))
    app.say(
        f"next: python -m launch.build --dataset={FLAGS.dataset} --source={source} --output_dir=records/{FLAGS.dataset}"
    )


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
