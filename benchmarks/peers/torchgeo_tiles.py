"""Cuts tiles of a scene with its land use by torchgeo: raster and vector data sets intersected, sampled on a grid.

Run by the peers' interpreter: .venv-peers/bin/python benchmarks/peers/torchgeo_tiles.py --scene=S --land_use=L
"""

import argparse
import pathlib
import time

import figures
import torch
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, VectorDataset, stack_samples
from torchgeo.samplers import GridGeoSampler, Units


def main() -> None:
    """Reads every tile once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", required=True, help="a GeoTIFF")
    parser.add_argument("--land_use", required=True, help="a GeoPackage with a whole-numbered column label")
    parser.add_argument("--tile_size", type=int, default=256)
    parser.add_argument("--num_workers", type=int, default=0)
    options = parser.parse_args()
    scene, land_use = pathlib.Path(options.scene), pathlib.Path(options.land_use)

    class Scenes(RasterDataset):
        filename_glob = scene.name
        is_image = True

    class LandUse(VectorDataset):
        filename_glob = land_use.name

    raster = Scenes(str(scene.parent))
    vector = LandUse(str(land_use.parent), res=raster.res, label_name="label")
    dataset = raster & vector
    sampler = GridGeoSampler(dataset, size=options.tile_size, stride=options.tile_size, units=Units.PIXELS)
    loader = DataLoader(
        dataset, sampler=sampler, batch_size=1, num_workers=options.num_workers, collate_fn=stack_samples
    )
    tiles, started = 0, time.perf_counter()
    for batch in loader:
        assert batch["image"].dtype == torch.float32 and batch["mask"].shape[-1] == options.tile_size
        tiles += len(batch["image"])
    figures.report(tiles, time.perf_counter() - started, ["torchgeo", "torch", "rasterio", "geopandas"])


if __name__ == "__main__":
    main()
