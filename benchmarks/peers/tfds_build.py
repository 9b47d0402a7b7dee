"""Builds EuroSAT with TensorFlow Datasets' own builder from an unpacked folder, and reports how long that took.

Run by the peers' interpreter: .venv-peers/bin/python benchmarks/peers/tfds_build.py --config=all --folder=F --output=O
"""

import argparse
import time

import figures
import tensorflow_datasets as tfds


def main() -> None:
    """Builds, with the imports left out of the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", choices=["all", "rgb"], required=True)
    parser.add_argument("--folder", required=True, help="holds the archive's layout (2750/ or ds/...)")
    parser.add_argument("--output", required=True, help="new folder")
    options = parser.parse_args()
    # The builder's own addresses are gone; unpacking is left out of its time.
    tfds.download.DownloadManager.download_and_extract = lambda self, url: options.folder
    tfds.disable_progress_bar()
    builder = tfds.builder(f"eurosat/{options.config}", data_dir=options.output)
    started = time.perf_counter()
    builder.download_and_prepare()
    seconds = time.perf_counter() - started
    figures.report(
        builder.info.splits["train"].num_examples,
        seconds,
        ["tensorflow-datasets", "tensorflow"],
        bytes=builder.info.splits["train"].num_bytes,
    )


if __name__ == "__main__":
    main()
