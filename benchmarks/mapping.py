r"""Measures maps of whole scenes: speed beside the model alone, memory by the scene's rows, a peer, and the input.

Scenes are generated: a tile of the synthetic city, repeated, with noise. Every measurement is a process of its own, the
sides take turns, and the time starts where the model is loaded and compiled. The model alone predicts as many windows
as the map needs, from memory. A map's time ends when its Cloud-Optimized GeoTIFF is there.

The peer is terratorch's tiled_inference with an equally heavy DeepLabv3+, from a GeoTIFF to a GeoTIFF. The input is a
Level-1C product in JPEG 2000 as wide as Sentinel-2's, read as for a map, without a model.

Example: python -m benchmarks.mapping --only=speed --rows=2196 --runs=1
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import flags

from benchmarks import harness
from benchmarks.harness import OURS, PEER, Side, Work
from benchmarks.speed import work_folder
from eo_keras.core import files
from eo_keras.sensors.sentinel2 import BANDS, NOMINAL_ORDER
from launch import app, path_flags
from tfrecords_builder.synthetic import products
from tfrecords_builder.synthetic.city_world import CityOptions, CityWorld
from tfrecords_builder.synthetic.product_metadata import ProductOptions

FLAGS = flags.FLAGS

PARTS = ("speed", "memory", "peer", "input")

BANDS_OF_SCENE = ("B02", "B03", "B04", "B08")
LEVEL = "L1C"

_TILE, _NOISE, _BLOCK = 1024, 32, 512


def write_scene(path: pathlib.Path, rows: int, width: int) -> None:
    """Writes a tiled GeoTIFF of digital numbers of four bands, unless it is there."""
    if path.exists():
        return
    import rasterio

    edge = -(-_TILE // 6) * 6
    tile = CityWorld(CityOptions(size=edge)).native(0, 0, _TILE, _TILE, BANDS_OF_SCENE).transpose(2, 0, 1)
    tiles = np.tile(tile, -(-width // _TILE))[:, :, :width]
    rng = np.random.default_rng(1)
    noise = rng.integers(0, _NOISE, (len(tile), _TILE, width + _TILE), dtype=np.uint16)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": len(tile), "nodata": 0, "crs": "EPSG:32633"}
    profile |= {"height": rows, "width": width, "transform": rasterio.Affine(10, 0, 399_960, 0, -10, 5_900_040)}
    profile |= {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "compress": "deflate", "zlevel": 1}
    profile |= {"predictor": 2, "num_threads": "all_cpus", "bigtiff": "if_safer", "interleave": "band"}
    part = path.with_name(f"{files.TEMPORARY_PREFIX}{path.name}")
    with rasterio.open(part, "w", **profile) as dataset:
        dataset.update_tags(scale="1")
        for index, band in enumerate(BANDS_OF_SCENE, start=1):
            dataset.set_band_description(index, band)
        for number, row in enumerate(range(0, rows, _TILE)):
            height, shift = min(_TILE, rows - row), int(rng.integers(_TILE))
            # No tile is mirrored twice in a row, and no noise repeats in the same place.
            image = tiles[:, ::-1] if number % 2 else tiles
            image = image + noise[:, :, shift : shift + width]
            dataset.write(image[:, :height], window=rasterio.windows.Window(0, row, width, height))
    part.replace(path)


def write_product(folder: pathlib.Path, rows: int, width: int) -> pathlib.Path:
    """Writes a Level-1C product of JPEG 2000 files, unless it is there: a small one, its bands repeated.

    Args:
        folder: its parent.
        rows: rows of the 10 m bands, a multiple of 6.
        width: columns of them.

    Returns:
        The SAFE folder.
    """
    if found := sorted(folder.glob("*.SAFE")):
        return found[0]
    import rasterio

    part = folder.with_name(f"{files.TEMPORARY_PREFIX}{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    safe = products.write_product(
        files.make_folder(part), CityWorld(CityOptions(size=-(-_TILE // 6) * 6)), ProductOptions(swath=False)
    )
    for path in sorted(safe.rglob("*.jp2")):
        band = path.stem.rpartition("_")[2]
        if band not in BANDS:
            path.unlink()  # The true-color image, which no map reads.
            continue
        with rasterio.open(path) as dataset:
            profile, tile = dataset.profile, dataset.read(1)
        step = BANDS[band].resolution_m // 10
        shape = rows // step, width // step
        image = np.tile(tile, [-(-size // edge) for size, edge in zip(shape, tile.shape, strict=True)])
        profile |= {"height": shape[0], "width": shape[1], "QUALITY": "100", "REVERSIBLE": "YES"}
        profile |= {"BLOCKXSIZE": 1024, "BLOCKYSIZE": 1024}
        path.unlink()
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(image[: shape[0], : shape[1]], 1)
    part.replace(folder)
    return folder / safe.name


def write_run(folder: pathlib.Path, model: str, bands: tuple[str, ...], window: int) -> pathlib.Path:
    """Writes the run folder of an untrained network for EuroSAT's classes, unless it is there."""
    if folder.exists():
        return folder
    app.import_tensorflow_quietly()
    from eo_keras import models
    from eo_keras.legends.catalogue import EUROSAT
    from eo_keras.runs import folder as runs
    from eo_keras.runs import model_card as model_cards
    from eo_keras.sensors import radiometry

    means, deviations = (1000.0,) * len(bands), (500.0,) * len(bands)
    image = models.ImageInput(bands, "uint16", models.Normalization(means, deviations), window)
    network, report = models.build(model, models.NetworkSpec({models.IMAGE: image}, len(EUROSAT), seed=1))
    card = model_cards.ModelCard(
        model=model,
        task=models.MODELS[model].task,
        dataset="none",
        data_fingerprint="0" * 64,
        bands=bands,
        dtype="uint16",
        level=LEVEL,
        reflectance=radiometry.HARMONISED,
        nodata=0,
        resolution_m=10.0,
        patch_size=window,
        normalisation={"mean": means, "std": deviations, "scale": (1.0,) * len(bands)},
        legend=EUROSAT,
        parameters=network.count_params(),
        initialisation=report.summary(),
        flags={},
        selection={},
        scores={},
        versions=runs.versions(),
        attribution="nobody",
    )
    part = files.make_folder(folder.with_name(f"{files.TEMPORARY_PREFIX}{folder.name}"))
    runs.save_model(models.inference_model(network, window), part / runs.MODEL_NAME)
    model_cards.write_model_card(card, part)
    part.replace(folder)
    return folder


def memory(name: str) -> int:
    """Returns bytes of this process's memory: `VmRSS` now, `VmHWM` at most since its program started."""
    # Not getrusage, whose peak is also that of the process that started this one.
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """A model that has predicted a batch, and what it is for.

    Attributes:
        predictor: the model.
        plan: the plan of the map of the scene.
        batch_size: windows of a batch.
        bytes: memory of the process before its first prediction.
    """

    predictor: Any
    plan: Any
    batch_size: int
    bytes: int

    def batch(self) -> np.ndarray:
        """Returns an empty batch."""
        window, bands = self.plan.lattice.window, len(self.predictor.card.bands)
        return np.zeros((self.batch_size, window, window, bands), self.predictor.card.dtype)

    @property
    def windows(self) -> int:
        """The number of windows of the map."""
        (look,) = self.plan.looks
        return len(look.rows(self.plan.lattice).cells) * len(look.columns(self.plan.lattice).cells)


def _load() -> _Loaded:
    app.import_tensorflow_quietly()
    from eo_keras.mapping import predictors, scenes
    from eo_keras.mapping.options import PredictionOptions
    from eo_keras.mapping.plan import make_plan

    # As maps do it: their process keeps the model that it has opened.
    stamp = tuple(scenes.stamp(str(predictors.model_path(FLAGS.run_dir))))
    predictor = predictors.cached_predictor(FLAGS.run_dir, stamp, "none", None)
    card = predictor.card
    scene = scenes.open_for(card, FLAGS.scene, PredictionOptions(scene_level=LEVEL))
    plan = make_plan([scene], predictors.lattice_of(card), len(card.legend), resolution_m=card.resolution_m)
    loaded = _Loaded(predictor, plan, predictors.batch_size_of(plan.lattice), memory("VmRSS"))
    for _ in range(2):
        predictor(loaded.batch())
    return loaded


def _stream(loaded: _Loaded, predict: Callable[[np.ndarray], np.ndarray]) -> Iterator[Any]:
    """Yields the rows of the map that a function predicts."""
    from eo_keras.mapping import scenes, stream

    card = loaded.predictor.card
    inputs = stream.StreamInput(
        lambda scene: scenes.ModelReader(scene, card, None), card.dtype, len(card.bands), loaded.batch_size
    )
    for block in loaded.plan.blocks:
        yield from stream.stream(loaded.plan, block, predict, inputs, len(card.legend))


def _map() -> None:
    from eo_keras.mapping import mapper
    from eo_keras.mapping.options import MapOptions

    loaded = _load()
    report = mapper.map_scenes(
        MapOptions(run_dir=FLAGS.run_dir, scenes=(FLAGS.scene,), output=FLAGS.map, scene_level=LEVEL)
    )
    peak = memory("VmHWM")
    harness.report(
        _megapixels(loaded),
        report.seconds["all"],
        stages=report.seconds,
        windows=loaded.windows,
        model_bytes=loaded.bytes,
        peak_bytes=peak - loaded.bytes,
    )


def _forward() -> None:
    from eo_keras.mapping import stream

    loaded = _load()
    # As many windows at once as a map predicts, in one batch.
    loaded = dataclasses.replace(loaded, batch_size=loaded.batch_size * stream.AT_ONCE)
    batches: list[np.ndarray] = []

    def keep(images: np.ndarray) -> np.ndarray:
        batches.append(images.copy())
        return loaded.predictor(images)

    # The windows of the first rows of the scene, which stay in memory.
    rows = _stream(loaded, keep)
    next(rows)
    rows.close()
    count = -(-loaded.windows // loaded.batch_size)
    started = time.perf_counter()
    for number in range(count):
        loaded.predictor(batches[number % len(batches)])
    seconds = time.perf_counter() - started
    harness.report(_megapixels(loaded), seconds, windows=loaded.windows, batches_in_memory=len(batches))


def _input() -> None:
    loaded = _load()
    nothing = np.zeros_like(loaded.predictor(loaded.batch()))
    started = time.perf_counter()
    for _ in _stream(loaded, lambda _: nothing):
        pass
    harness.report(_megapixels(loaded), time.perf_counter() - started, windows=loaded.windows)


_SIDES = {"map": _map, "forward": _forward, "input": _input}


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path("output", "docs/results/mapping.json", "JSON file to write.", **where)
    path_flags.define_path(
        "work_dir", "data/mapping", "Folder of scenes and models (kept) and maps (removed).", **where
    )
    path_flags.define_path("peers_python", ".venv-peers/bin/python", "The peers' interpreter.", **where)
    flags.DEFINE_multi_enum("only", list(PARTS), list(PARTS), "Parts to measure; may be given several times.", **where)
    flags.DEFINE_integer("runs", 2, "Rounds.", lower_bound=1, **where)
    flags.DEFINE_string("model", "deeplab_resnet14", "Light model of speed, memory and input.", **where)
    flags.DEFINE_integer("window", 256, "Height and width of the models' windows in pixels.", **where)
    flags.DEFINE_integer("width", 10_980, "Width of the scenes in pixels.", **where)
    flags.DEFINE_integer("rows", 10_980, "Rows of the scene of the speed.", **where)
    flags.DEFINE_list("memory_rows", ["5490", "10980", "21960"], "Rows of the scenes of the memory.", **where)
    flags.DEFINE_string("peer_model", "deeplab_resnet50", "Our model beside the peer.", **where)
    flags.DEFINE_string("encoder", "resnet50", "The peer's backbone.", **where)
    flags.DEFINE_integer("peer_size", 4096, "Edge of the scene beside the peer in pixels.", **where)
    flags.DEFINE_integer("input_rows", 2196, "Rows of the product of the input, a multiple of 6.", **where)
    path_flags.define_path("scene", None, "Of one side: the scene.", **where)
    path_flags.define_path("run_dir", None, "Of one side: the run folder.", **where)
    path_flags.define_path("map", None, "Of the side map: the file to write.", **where)
    flags.DEFINE_enum("side", None, list(_SIDES), "Measure one side only, and print it as a line of JSON.", **where)


def _megapixels(loaded: _Loaded) -> float:
    return loaded.plan.grid.height * loaded.plan.grid.width / 1e6


def _own(side: str, scene: pathlib.Path, run_dir: pathlib.Path, **options: Any) -> tuple[str, ...]:
    return harness.module("benchmarks.mapping", side=side, scene=scene, run_dir=run_dir, **options)


def _map_side(title: str, work_dir: pathlib.Path, scene: pathlib.Path, run_dir: pathlib.Path) -> Side:
    folder = work_dir / "output"
    return Side(title, _own("map", scene, run_dir, map=folder / "map.tif"), folder)


def speed_work(work_dir: pathlib.Path) -> Work:
    """Prepares the map of a scene beside the model alone."""
    scene, run_dir = _scene(work_dir, FLAGS.rows, FLAGS.width), _run(work_dir, FLAGS.model, BANDS_OF_SCENE)
    sides = {
        OURS: _map_side(f"map by {FLAGS.model}, from file to file", work_dir, scene, run_dir),
        PEER: Side("the model alone, as many windows, from memory", _own("forward", scene, run_dir)),
    }
    title = f"scene of {FLAGS.rows:,} x {FLAGS.width:,} pixels, {len(BANDS_OF_SCENE)} bands, GeoTIFF"
    return Work(title, "Mpixel/s", "the model is loaded before", sides, {OURS: 0.9}, digits=2)


def peer_work(work_dir: pathlib.Path, python: str) -> Work:
    """Prepares the map of a scene beside terratorch's."""
    size, folder = FLAGS.peer_size, work_dir / "output"
    scene, run_dir = _scene(work_dir, size, size), _run(work_dir, FLAGS.peer_model, BANDS_OF_SCENE)
    options = {"encoder": FLAGS.encoder, "window": FLAGS.window, "overlap": FLAGS.window // 4}
    options |= {"batch_size": max(1, 512**2 // FLAGS.window**2)}
    command = harness.peer(python, "tiled_inference.py", scene=scene, output=folder / "map.tif", **options)
    sides = {
        OURS: _map_side(f"map by {FLAGS.peer_model}, from file to file", work_dir, scene, run_dir),
        PEER: Side(f"terratorch tiled_inference: DeepLabV3Plus on {FLAGS.encoder}", command, folder),
    }
    title = f"scene of {size:,} x {size:,} pixels, {len(BANDS_OF_SCENE)} bands, GeoTIFF"
    return Work(title, "Mpixel/s", "the model is loaded before", sides, {OURS: 1.0}, digits=2)


def input_work(work_dir: pathlib.Path) -> Work:
    """Prepares the input of 13 bands of a product, beside the model alone and beside the map."""
    rows, width = FLAGS.input_rows, FLAGS.width // 6 * 6
    scene = write_product(work_dir / f"product-{rows}-{width}", rows, width)
    run_dir = _run(work_dir, FLAGS.model, NOMINAL_ORDER)
    sides = {
        OURS: Side("input alone: read, harmonized, cut", _own("input", scene, run_dir)),
        "map": _map_side(f"map by {FLAGS.model}, from file to file", work_dir, scene, run_dir),
        PEER: Side("the model alone, as many windows, from memory", _own("forward", scene, run_dir)),
    }
    title = f"Level-1C product of {rows:,} x {width:,} pixels, 13 bands, JPEG 2000"
    return Work(title, "Mpixel/s", "the model is loaded before", sides, digits=2)


def measure_memory(work_dir: pathlib.Path) -> list[dict[str, Any]]:
    """Measures the peak memory of maps of scenes of several heights, beyond the loaded model."""
    run_dir, found = _run(work_dir, FLAGS.model, BANDS_OF_SCENE), []
    for rows in map(int, FLAGS.memory_rows):
        side = _map_side("memory", work_dir, _scene(work_dir, rows, FLAGS.width), run_dir)
        run = harness.run_side(side)
        print(f"  {rows:,} rows: {run['peak_bytes'] / 1e9:.3f} GB, {run['seconds']:,.0f} s", flush=True)
        found.append({"rows": rows, "width": FLAGS.width, **run})
    return found


def _scene(work_dir: pathlib.Path, rows: int, width: int) -> pathlib.Path:
    path = work_dir / f"scene-{rows}-{width}.tif"
    write_scene(path, rows, width)
    return path


def _run(work_dir: pathlib.Path, model: str, bands: tuple[str, ...]) -> pathlib.Path:
    return write_run(work_dir / f"{model}-{len(bands)}-{FLAGS.window}", model, bands, FLAGS.window)


def main() -> None:
    """Measures."""
    if FLAGS.side:
        _SIDES[FLAGS.side]()
        return
    if FLAGS.dry_run:
        print(f"dry run: would measure {', '.join(FLAGS.only)} in {FLAGS.runs} rounds and write {FLAGS.output}")
        return
    python = harness.peers_python(FLAGS.peers_python) if "peer" in FLAGS.only else None
    work_dir = work_folder(FLAGS.work_dir)
    prepare = {"speed": speed_work, "peer": functools.partial(peer_work, python=python), "input": input_work}
    facts = {"window": FLAGS.window, "classes": 10}
    names = {str(work_dir): "WORK_DIR"} | ({python: "PEERS_PYTHON"} if python else {})
    works = ((part, make(work_dir)) for part, make in prepare.items() if part in FLAGS.only)
    output = pathlib.Path(FLAGS.output)
    earlier = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {}
    content = harness.record(FLAGS.output, works, FLAGS.runs, facts, names)
    if "memory" in FLAGS.only:
        content["memory"] = measure_memory(work_dir)
    elif earlier.get("machine") == content["machine"] and "memory" in earlier:
        content["memory"] = earlier["memory"]
    files.write_json(output, content)


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
