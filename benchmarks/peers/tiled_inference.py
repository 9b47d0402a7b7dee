"""Maps a scene with terratorch's tiled_inference and segmentation_models_pytorch's DeepLabV3Plus, from file to file.

Run by the peers' interpreter: .venv-peers/bin/python benchmarks/peers/tiled_inference.py --scene=a.tif --output=b.tif
"""

import argparse
import pathlib
import time

import figures
import numpy as np
import rasterio
import segmentation_models_pytorch
import torch
from terratorch.tasks.tiled_inference import tiled_inference


def memory(name: str) -> int:
    """Returns bytes of this process's memory: `VmRSS` now, `VmHWM` at most since its program started."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Maps a scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=4)
    options = parser.parse_args()
    torch.manual_seed(1)
    with rasterio.open(options.scene) as dataset:
        bands = dataset.count
    model = segmentation_models_pytorch.DeepLabV3Plus(
        options.encoder, encoder_weights=None, in_channels=bands, classes=options.classes
    )
    model = model.to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def forward(images: torch.Tensor) -> torch.Tensor:
        return model(images.to(memory_format=torch.channels_last)).softmax(1)

    shape = options.batch_size, bands, options.window, options.window
    for _ in range(2):
        forward(torch.zeros(shape))
    loaded = memory("VmRSS")
    started = time.perf_counter()
    with rasterio.open(options.scene) as dataset:
        profile = dataset.profile
        image = torch.from_numpy(dataset.read().astype(np.float32))
    image.sub_(1000.0).div_(500.0)
    probabilities = tiled_inference(
        forward,
        image[None],
        crop=options.window,
        stride=options.window - options.overlap,
        delta=options.overlap // 4,
        batch_size=options.batch_size,
    )
    classes = probabilities[0].argmax(0).numpy().astype(np.uint8)
    profile |= {"count": 1, "dtype": "uint8", "nodata": 255}
    with rasterio.open(options.output, "w", **profile) as dataset:
        dataset.write(classes, 1)
    seconds = time.perf_counter() - started
    peak = memory("VmHWM")
    figures.report(
        classes.size / 1e6,
        seconds,
        ["torch", "terratorch", "segmentation_models_pytorch"],
        peak_bytes=peak - loaded,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
