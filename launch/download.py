"""Fetches a published archive, continues where it stopped, and verifies its size and checksum.

Example: python -m launch.download --dataset=eurosat_rgb --output_dir=data
"""

import time

from absl import flags

from launch import common
from tfrecords_builder import downloads

FLAGS = flags.FLAGS

flags.DEFINE_enum("dataset", None, sorted(downloads.PUBLISHED), "Data set to fetch.", required=True)
flags.DEFINE_string("output_dir", "data", "Folder to put the archive in.")


def main() -> None:
    """Runs the command."""
    file = downloads.PUBLISHED[FLAGS.dataset]
    if FLAGS.dry_run:
        print(f"dry run: would fetch {file.url} ({file.bytes:,} bytes, MD5 {file.md5}) to {FLAGS.output_dir}")
        return
    started = time.monotonic()
    with common.ProgressBars(unit="bytes") as progress:
        path = downloads.download(file, FLAGS.output_dir, progress=progress)
    print(f"{path}: {file.bytes:,} bytes, MD5 as published, {time.monotonic() - started:.1f} s")
    print(
        f"next: python -m launch.build --dataset={FLAGS.dataset} --source={path} --output_dir=records/{FLAGS.dataset}"
    )


if __name__ == "__main__":
    common.run(main)
