"""Reads batches of 13-band patches with torchgeo's EuroSAT and a DataLoader, and reports how fast.

Run by the peers' interpreter: .venv-peers/bin/python benchmarks/peers/torchgeo_pipeline.py --folder=F --names=LIST
"""

import argparse
import pathlib
import tempfile

import figures
import torch
import torchgeo.datasets
from torch.utils.data import DataLoader


def main() -> None:
    """Reads epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True, help="holds the published archive's layout (ds/images/...)")
    parser.add_argument("--names", required=True, help="file with the names to read, one a line")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--min_seconds", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        # The data set wants the archive's layout and its lists in one folder; the lists name JPEGs.
        (pathlib.Path(root) / "ds").symlink_to((pathlib.Path(options.folder) / "ds").resolve())
        names = pathlib.Path(options.names).read_text().split()
        (pathlib.Path(root) / "eurosat-train.txt").write_text("".join(f"{name}.jpg\n" for name in names))
        dataset = torchgeo.datasets.EuroSAT(root, split="train", download=False, checksum=False)
        if len(dataset) != len(names):
            raise SystemExit(f"{len(dataset)} of {len(names)} images found in {options.folder}")
        loader = DataLoader(
            dataset,
            batch_size=options.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=options.num_workers,
            persistent_workers=options.num_workers > 0,
        )

        def epoch():
            for batch in loader:
                image = batch["image"]
                assert image.dtype == torch.float32 and image.shape[1:] == (13, 64, 64)
                yield len(image)

        images, seconds = figures.time_epochs(epoch, options.min_seconds)
    figures.report(images, seconds, ["torchgeo", "torch", "rasterio"])


if __name__ == "__main__":
    main()
