r"""Measures the builder of tiles: its speed beside torchgeo's on the same files, and its memory on a whole scene.

The scene is noise, its land use a mosaic of regions as Urban Atlas codes in EPSG:3035. torchgeo intersects a raster and
a vector data set and reads every tile of a grid once; it writes nothing. launch.build surveys, cuts, splits, counts and
writes records. Both start from the files, in a process of their own.

Example: python -m benchmarks.tile_building --output=docs/results/tile_building.json
"""

import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np
from absl import flags

from benchmarks import harness
from benchmarks.harness import OURS, PEER, Side, Work
from eo_keras.core import files
from eo_keras.geo import polygons as vectors
from eo_keras.geo.polygons import Polygons
from eo_keras.records import data_card as cards
from eo_keras.sensors import sentinel2
from launch import app, path_flags
from tfrecords_builder.synthetic import mosaics

FLAGS = flags.FLAGS

CRS = "EPSG:32633"
TRANSFORM = (10.0, 0.0, 399_960.0, 0.0, -10.0, 5_900_040.0)

_BLOCK = 512
_PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path("output", "docs/results/tile_building.json", "JSON file to write.", **where)
    path_flags.define_path(
        "peers_python", ".venv-peers/bin/python", "The peers' interpreter; empty leaves them out.", **where
    )
    flags.DEFINE_integer("size", 4096, "Edge of the scene for the speed in pixels.", **where)
    flags.DEFINE_integer("tile_size", 256, "Edge of its tiles in pixels.", **where)
    flags.DEFINE_integer("region", 48, "Mean distance of the regions' centers in pixels.", **where)
    flags.DEFINE_integer("runs", 3, "Rounds.", **where)
    flags.DEFINE_integer("num_workers", 2, "Processes of each side.", **where)
    flags.DEFINE_integer("memory_size", 10_980, "Edge of the 13-band scene for the memory; 0 leaves it out.", **where)


def write_scene(path: pathlib.Path, size: int, bands: tuple[str, ...], seed: int = 1) -> None:
    """Writes a tiled GeoTIFF of noise, block by block."""
    import rasterio
    from rasterio.windows import Window

    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": len(bands),
        "nodata": 0,
        "crs": CRS,
        "BIGTIFF": "IF_SAFER",
    }
    profile |= {"height": size, "width": size, "transform": rasterio.Affine(*TRANSFORM)}
    profile |= {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "interleave": "band"}
    rng = np.random.default_rng(seed)
    with rasterio.open(path, "w", **profile) as dataset:
        for index, band in enumerate(bands, start=1):
            dataset.set_band_description(index, band)
        for row in range(0, size, _BLOCK):
            for column in range(0, size, _BLOCK):
                height, width = min(_BLOCK, size - row), min(_BLOCK, size - column)
                numbers = rng.integers(200, 3000, (len(bands), height, width), dtype=np.uint16)
                dataset.write(numbers, window=Window(column, row, width, height))


def write_land_use(path: pathlib.Path, size: int, region: int, coarse: int = 1) -> int:
    """Writes regions as land use, their borders drawn in steps of `coarse` pixels; returns the number of polygons."""
    options = mosaics.MosaicOptions(size=-(-size // coarse), region=region, wander=region / 6)
    found, classes = mosaics.regions(options, 0)
    transform = tuple(value * coarse if place in (0, 4) else value for place, value in enumerate(TRANSFORM))
    traced = mosaics.land_use(found, classes, transform)
    polygons = vectors.reprojected(Polygons(traced["geometry"], traced["code"], CRS, str(path)), "EPSG:3035")
    codes = sorted(set(traced["code"]))
    fields = {"code_2018": traced["code"], "label": np.array([codes.index(code) for code in traced["code"]], np.int32)}
    vectors.write_polygons(path, path.stem, polygons.geometries, fields, "EPSG:3035")
    return len(polygons)


def write_list(path: pathlib.Path, scene: pathlib.Path, land_use: pathlib.Path) -> None:
    """Writes the list of cities that launch.build takes: one city, which is divided into blocks."""
    files.write_text(path, f"name,scenes,vectors,split,area\ncity,{scene},{land_use},,\n")


def build_command(cities: pathlib.Path, folder: pathlib.Path, tile_size: int, workers: int) -> tuple[str, ...]:
    """Returns the command that builds the records."""
    options = {"scene_level": "L1C", "split": "spatial", "block_km": 3 * tile_size / 100}
    options |= {"tile_size": tile_size, "num_workers": workers}
    return harness.module("launch.build", dataset="urban_atlas", cities=cities, output_dir=folder, **options)


def measure_speed(folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """Measures both sides in turn, from the start of a process to its end, and writes the figures beside facts."""
    scene, land_use, cities = folder / "scene_2018-07-01.tif", folder / "land_UA2018.gpkg", folder / "cities.csv"
    write_scene(scene, FLAGS.size, ("B04", "B03", "B02"))
    polygons = write_land_use(land_use, FLAGS.size, FLAGS.region)
    write_list(cities, scene, land_use)
    tiles, output = (-(-FLAGS.size // FLAGS.tile_size)) ** 2, folder / "records"
    command = build_command(cities, output, FLAGS.tile_size, FLAGS.num_workers)
    # Tiles in the buffer between blocks are surveyed, but not written.
    title = "launch.build, records written but for a buffer between blocks"
    sides, names = {OURS: Side(title, command, output, tiles, leaves_out=True)}, {str(folder): "WORK_DIR"}
    if FLAGS.peers_python:
        python = harness.peers_python(FLAGS.peers_python)
        inputs = {"scene": scene, "land_use": land_use}
        options = {"tile_size": FLAGS.tile_size, "num_workers": FLAGS.num_workers}
        command = harness.peer(python, "torchgeo_tiles.py", **inputs, **options)
        title = "torchgeo, raster and vector data sets intersected, tiles read"
        sides[PEER] = Side(title, command, examples=tiles)
        names[python] = "PEERS_PYTHON"
    title = f"{tiles:,} tiles of {FLAGS.tile_size} pixels, {FLAGS.num_workers} processes"
    work = Work(title, "tiles/s", "the whole command", sides, digits=2)
    facts |= {"scene": f"{FLAGS.size}x{FLAGS.size}, 3 bands", "polygons": polygons}
    harness.record(FLAGS.output, [("tiles", work)], FLAGS.runs, facts, names)


def measure_memory(folder: pathlib.Path) -> dict[str, Any]:
    """Builds from a scene as large as Sentinel-2's, in one process, and returns its peak memory."""
    scene, land_use, cities = folder / "whole_2018-07-01.tif", folder / "whole_UA2018.gpkg", folder / "whole.csv"
    write_scene(scene, FLAGS.memory_size, sentinel2.EUROSAT_ORDER)
    polygons = write_land_use(land_use, FLAGS.memory_size, FLAGS.region, coarse=6)
    write_list(cities, scene, land_use)
    # A scene that was made small for a trial has small tiles, or none would be left between its blocks.
    tile_size = min(512, FLAGS.memory_size // 20)
    command = build_command(cities, folder / "whole", tile_size, 1)
    started = time.perf_counter()
    # A small process in between: until a child runs its own program, its memory counts as large as its parent's.
    output, _ = harness.run_command([sys.executable, "-c", _PEAK, *command], 3600)
    seconds = time.perf_counter() - started
    peak = int(output.strip().splitlines()[-1]) * 1024  # Linux counts in kibibytes.
    splits = cards.read_data_card(folder / "whole").splits
    return {
        "scene": f"{FLAGS.memory_size}x{FLAGS.memory_size}, 13 bands, tiled GeoTIFF",
        "scene_bytes": scene.stat().st_size,
        "polygons": polygons,
        "tile_size": tile_size,
        "tiles_kept": sum(split.examples for split in splits.values()),
        "seconds": round(seconds, 1),
        "peak_bytes": peak,
    }


def main() -> None:
    """Runs the command."""
    if FLAGS.dry_run:
        print(f"dry run: would measure {FLAGS.runs} rounds and write {FLAGS.output}")
        return
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder, facts = pathlib.Path(name).resolve(), {}
        if FLAGS.memory_size:
            facts["memory"] = found = measure_memory(folder)
            print(f"{found['scene']}: peak {found['peak_bytes'] / 1e9:.2f} GB, {found['seconds']:,.0f} s")
        measure_speed(folder, facts)


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
