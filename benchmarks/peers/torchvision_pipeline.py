"""Reads batches of augmented RGB patches with torchvision's ImageFolder and a DataLoader, and reports how fast.

The augmentation is the package's own: one of the eight symmetries of the square, then a shift of up to 8 pixels along
each axis with the border filled by reflection. Of the usual ways to write that, --form picks one.

Run by the peers' interpreter: .venv-peers/bin/python benchmarks/peers/torchvision_pipeline.py --folder=F --names=LIST
"""

import argparse
import pathlib

import figures
import torch
import torchvision
from torch.utils.data import DataLoader
from torchvision.transforms import v2

SHIFT = 8


class Transpose(torch.nn.Module):
    """Swaps rows and columns of half of the images: with both flips, all eight symmetries."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Changes a tensor (band, height, width)."""
        return image.mT if torch.rand(()) < 0.5 else image


def read_tensor(path: str) -> torch.Tensor:
    """Decodes with torchvision's own JPEG reader."""
    return torchvision.io.decode_jpeg(torchvision.io.read_file(path), mode=torchvision.io.ImageReadMode.RGB)


def main() -> None:
    """Reads epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True, help="folder of class folders")
    parser.add_argument("--names", required=True, help="file with the names to read, one a line")
    parser.add_argument(
        "--form",
        choices=["tensor", "tensor_batch_cast", "pil"],
        default="tensor_batch_cast",
        help="decode with torchvision or Pillow; cast every image in the workers or the whole batch afterwards",
    )
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--min_seconds", type=float, default=5.0)
    options = parser.parse_args()
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    crop = v2.RandomCrop(64, padding=SHIFT, padding_mode="reflect")
    to_float = [] if options.form == "tensor_batch_cast" else [v2.ToDtype(torch.float32)]
    decode = [v2.PILToTensor()] if options.form == "pil" else []
    names = set(pathlib.Path(options.names).read_text().split())
    dataset = torchvision.datasets.ImageFolder(
        options.folder,
        transform=v2.Compose([*decode, *flips, Transpose(), crop, *to_float]),
        is_valid_file=lambda path: pathlib.PurePath(path).stem in names,
        **({} if options.form == "pil" else {"loader": read_tensor}),
    )
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
        for image, _ in loader:
            if options.form == "tensor_batch_cast":
                image = image.float()
            assert image.dtype == torch.float32 and image.shape[1:] == (3, 64, 64)
            yield len(image)

    images, seconds = figures.time_epochs(epoch, options.min_seconds)
    figures.report(images, seconds, ["torchvision", "torch"], form=options.form)


if __name__ == "__main__":
    main()
