"""Class maps of scenes: in memory for a look, and as files, block by block.

Blocks are units of work of an engine. Each is a file in a folder of unfinished work beside the map, so that a command
that was stopped goes on where it was; the map is assembled of them, and its files get their names when all are whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

import eo_keras
from eo_keras.core import files, output_files, process_memory, serialization
from eo_keras.core import options as declared
from eo_keras.core.output_folders import FILES, OutputFolder
from eo_keras.core.work_state import WorkState
from eo_keras.errors import OptionError, SourceError, StorageError
from eo_keras.geo.class_map import CLASS, bands_path
from eo_keras.geo.grid import Grid
from eo_keras.geo.scenes import Scene
from eo_keras.legends.catalogue import IGNORE, Legend
from eo_keras.mapping import cog, predictors, products, stream
from eo_keras.mapping import scenes as sources
from eo_keras.mapping.options import MapOptions, PredictionOptions
from eo_keras.mapping.plan import Block, MapPlan, make_plan
from eo_keras.mapping.predictors import Predictor
from eo_keras.runs.model_card import ModelCard

STAGE = "mapping"
"""Stage of the blocks for progress; units are pixels."""

_KIND = "unfinished map"
_STATE = ".map"
_NAME = "map.tif"

_CARD_ENTRIES = (
    *("model", "task", "dataset", "bands", "dtype", "level", "resolution_m", "patch_size", "parameters"),
    *("initialisation", "scores", "attribution"),
)
"""Entries of the model's card in a map's tags."""

_Progress = Callable[[str, int, int], None] | None


@dataclasses.dataclass(frozen=True)
class SceneMap:
    """Class map in memory.

    Attributes:
        grid: its grid.
        legend: its classes.
        classes: uint8 (height, width), indices of the legend; 255 without data.
        confidence: float16 (height, width), the probability of each pixel's class; 0 without data.
        looks: uint8 (height, width), number of clear looks.
        probabilities: float16 (height, width, classes), 0 without data; None unless they were wanted.
    """

    grid: Grid
    legend: Legend
    classes: np.ndarray
    confidence: np.ndarray
    looks: np.ndarray
    probabilities: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class MapJob:
    """A map that is planned and checked, and not begun.

    Attributes:
        options: its options.
        path: the map.
        plan: its plan.
        card: the model's card.
        calibration: text on the temperature.
        bands: names of the map's bands.
        bytes_needed: disk space that it still needs at most.
        sources: the paths of the scenes.
        warnings: lines for the user.
    """

    options: MapOptions
    path: pathlib.Path
    plan: MapPlan
    card: ModelCard
    calibration: str
    bands: tuple[str, ...]
    bytes_needed: int
    sources: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class MapReport:
    """Report of a map that was written.

    Attributes:
        path: the map.
        files: all files written, the map among them.
        seconds: time taken, by stage.
        kept_blocks: number of blocks that an earlier call had finished.
        warnings: lines for the user.
    """

    path: pathlib.Path
    files: tuple[pathlib.Path, ...]
    seconds: dict[str, float]
    kept_blocks: int
    warnings: tuple[str, ...]


def map_scene(
    model: Any,
    scene: Scene | Sequence[Scene],
    window: tuple[int, int, int, int] | None = None,
    *,
    probabilities: bool = False,
    progress: _Progress = None,
    **options: Any,
) -> SceneMap:
    """Maps a scene, or a window of it, in memory.

    Args:
        model: an open run, a predictor, or the path of a run folder, a `.keras` file with its card, or an export.
        scene: a scene of `eo_keras.open_scene`, or several for one map.
        window: first row, first column, height and width on the map's grid, which is the scene's own where neither
            `area` nor another projection is given. Default: all of it.
        probabilities: whether to keep the probabilities of all classes, two bytes each for every pixel.
        progress: called with ("mapping", done, total) pixels.
        **options: fields of `eo_keras.mapping.options.PredictionOptions`, such as `stride=8` or `tta="d4"`.

    Raises:
        SourceError: if a scene cannot be read, or is of another level or pixel size than the model's.
        BandError: if it lacks a band of the model.
        RunError: if the model cannot be opened.
        OptionError: if an option does not fit, or the window reaches beyond the map.
    """
    chosen = PredictionOptions(**options)
    if isinstance(model, Predictor):
        for name in ("tta", "calibrated"):
            if name in options:
                raise OptionError(name, "the predictor is open already", remedy="give it when the predictor is opened")
    else:
        model = predictors.open_predictor(model, tta=chosen.tta, calibrated=chosen.calibrated)
    card, given = model.card, [scene] if isinstance(scene, Scene) else list(scene)
    opened = sources.in_order([sources.fitted(card, one, chosen) for one in given], chosen.pick, chosen.cloud_mask)
    plan = _plan(card, opened, chosen, window)
    row, column, height, width = window or (0, 0, plan.grid.height, plan.grid.width)
    found = SceneMap(
        plan.grid.window(row, column, height, width),
        card.legend,
        np.full((height, width), IGNORE, np.uint8),
        np.zeros((height, width), np.float16),
        np.zeros((height, width), np.uint8),
        np.zeros((height, width, len(card.legend)), np.float16) if probabilities else None,
    )
    done = 0
    for block in plan.blocks:
        left = block.column - column
        for rows, inside in _rows(plan, block, model, chosen):
            here = slice(rows.row - row, rows.row - row + len(rows.looks)), slice(left, left + block.width)
            known = (rows.looks > 0) & inside
            found.classes[here] = np.where(known, most_probable(rows.probabilities), IGNORE)
            found.confidence[here] = rows.probabilities.max(axis=-1) * known
            found.looks[here] = rows.looks * inside
            if found.probabilities is not None:
                found.probabilities[here] = rows.probabilities * known[..., np.newaxis]
            done += known.size
            if progress:
                progress(STAGE, done, sum(map(len, plan.blocks)))
    return found


def _plan(
    card: ModelCard,
    opened: Sequence[Scene],
    options: PredictionOptions,
    window: tuple[int, int, int, int] | None = None,
) -> MapPlan:
    return make_plan(
        opened,
        predictors.lattice_of(card, options.window, options.overlap, options.stride),
        len(card.legend),
        resolution_m=card.resolution_m,
        target_crs=options.target_crs,
        resolution=options.resolution,
        area=options.area,
        block_rows=options.block_rows,
        window=window,
    )


def _rows(
    plan: MapPlan, block: Block, model: Predictor, options: PredictionOptions
) -> Iterator[tuple[stream.MapRows, np.ndarray]]:
    """Yields the rows of a block, and which of their pixels lie in the area."""
    card, inside = model.card, plan.inside(block)
    inputs = stream.StreamInput(
        lambda look: sources.ModelReader(look, card, options.cloud_mask),
        card.dtype,
        len(card.bands),
        options.batch_size or predictors.batch_size_of(plan.lattice),
    )
    found = stream.stream(plan, block, model, inputs, len(card.legend), first_clear=options.pick != "mean")
    for rows in found:
        first = rows.row - block.row
        here = slice(first, first + len(rows.looks))
        yield rows, np.ones(rows.looks.shape, bool) if inside is None else inside[here]


def most_probable(probabilities: np.ndarray) -> np.ndarray:
    """Returns the index of the largest of the last axis, the first of equals; uint8.

    Class by class, which is several times as fast as `argmax` for few classes.
    """
    classes, best = np.zeros(probabilities.shape[:-1], np.uint8), probabilities[..., 0].copy()
    for label in range(1, probabilities.shape[-1]):
        values = probabilities[..., label]
        classes[values > best] = label
        np.maximum(best, values, out=best)
    return classes


def band_names(options: MapOptions, legend: Legend, looks: int) -> tuple[str, ...]:
    """Returns the names of a map's bands, the classes first; several looks are counted."""
    names = [CLASS]
    names += ["confidence"] if options.confidence else []
    names += ["entropy"] if options.entropy else []
    names += ["looks"] if looks > 1 else []
    return (*names, *(f"p_{name}" for name in legend.class_names)) if options.probabilities else tuple(names)


def _bands(rows: stream.MapRows, inside: np.ndarray, names: Sequence[str], legend: Legend) -> np.ndarray:
    """Returns rows as the bands of a map, uint8 (bands, rows, width)."""
    values, known = rows.probabilities, (rows.looks > 0) & inside
    found = np.zeros((len(names), *known.shape), np.uint8)
    for place, name in enumerate(names):
        if name == CLASS:
            found[place] = most_probable(values)
        elif name == "looks":
            found[place] = rows.looks
        else:
            if name == "confidence":
                band = values.max(axis=-1)
            elif name == "entropy":
                band = -(values * np.log(np.maximum(values, np.finfo(np.float32).tiny))).sum(axis=-1)
                band /= np.log(max(2, len(legend)))
            else:
                band = values[..., legend.label_of(name.removeprefix("p_"))]
            found[place] = np.rint(np.clip(band, 0, 1) * 255)
    found[:, ~known] = 0
    found[0, ~known] = IGNORE
    return found


@dataclasses.dataclass(frozen=True)
class _Context:
    """What all blocks share.

    Attributes:
        plan: the plan, without its blocks.
        options: the options.
        bands: names of the bands.
        folder: folder of the blocks' files.
        model: the model's absolute path.
        stamp: numbers that change with the model's files.
    """

    plan: MapPlan
    options: MapOptions
    bands: tuple[str, ...]
    folder: str
    model: str
    stamp: tuple[int, ...]


def _path(folder: str, block: Block) -> pathlib.Path:
    return pathlib.Path(folder) / f"row-{block.row:07d}-{block.column:07d}.tif"


def _todo(folder: str, plan: MapPlan) -> list[Block]:
    """Returns the blocks of a plan that have no file yet."""
    return [block for block in plan.blocks if not _path(folder, block).exists()]


def map_block(context: _Context, block: Block, *, on_rows: Callable[[int], None] | None = None) -> None:
    """Maps a block and writes its file, unless it is there.

    Args:
        context: what all blocks share.
        block: the block.
        on_rows: called with the number of pixels that are finished.

    Raises:
        SourceError: if a scene cannot be read there; the rows are named.
        StorageError: if the file cannot be written.
    """
    path = _path(context.folder, block)
    if path.exists():
        return
    options, plan = context.options, context.plan
    model = predictors.cached_predictor(context.model, context.stamp, options.tta, options.calibrated)
    temporary = path.with_name(f"{files.TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    row = block.row
    try:
        with files.storage_errors(path):
            with _BlockFile(temporary, plan.grid, block, len(context.bands)) as file:
                for rows, inside in _rows(plan, block, model, options):
                    file.write(_bands(rows, inside, context.bands, model.card.legend))
                    row = rows.row + len(rows.looks)
                    if on_rows:
                        on_rows(rows.looks.size)
            file.check()
            os.replace(temporary, path)
    except SourceError as error:
        where, found, expected, remedy = error.args
        last = min(block.row + block.height, row + plan.lattice.window)
        columns = f"columns {block.column} to {block.column + block.width - 1}"
        place = f"rows {row} to {last - 1}, {columns} of the map"
        raise SourceError(where, f"{found}, at {place}", expected, remedy) from error
    finally:
        temporary.unlink(missing_ok=True)
        process_memory.return_freed()


class _BlockFile:
    """File of a block's bands, written from top to bottom; a context manager."""

    def __init__(self, path: pathlib.Path, grid: Grid, block: Block, bands: int):
        from rasterio.transform import Affine

        self._path, self._rows, self._sums = path, [], []
        place = grid.window(block.row, block.column, block.height, block.width)
        self._profile = {
            "driver": "GTiff",
            "count": bands,
            "dtype": "uint8",
            "height": block.height,
            "width": block.width,
            "crs": grid.crs,
            "transform": Affine(*place.transform),
            "compress": "deflate",
            "zlevel": 1,
            "interleave": "band",
            "bigtiff": "if_safer",
            # Whole rows, as they come: tiles would wait in memory until they are full.
            "blockysize": max(1, min(block.height, 2**20 // block.width)),
        }

    def __enter__(self) -> _BlockFile:
        import rasterio

        self._file = rasterio.open(self._path, "w", **self._profile)
        return self

    def __exit__(self, *exception) -> None:
        from rasterio.errors import RasterioError

        try:
            self._file.close()
        except RasterioError:
            if exception[0] is None:
                raise self._torn() from None

    def write(self, bands: np.ndarray) -> None:
        """Writes the next rows, uint8 (bands, rows, width)."""
        from rasterio.errors import RasterioError

        window = self._window(bands.shape[1])
        try:
            self._file.write(bands, window=window)
        except RasterioError:
            raise self._torn() from None
        self._sums.append(zlib.crc32(bands))
        self._rows.append(bands.shape[1])

    def _window(self, rows: int) -> Any:
        from rasterio.windows import Window

        return Window(0, sum(self._rows), self._profile["width"], rows)

    def check(self) -> None:
        """Reads the file again: on a full disk, GDAL can end without an error.

        Raises:
            StorageError: if it does not hold what was written.
        """
        import rasterio
        from rasterio.errors import RasterioError

        heights, sums = self._rows, self._sums
        self._rows = []
        try:
            with rasterio.open(self._path) as file:
                for rows, expected in zip(heights, sums, strict=True):
                    if zlib.crc32(file.read(window=self._window(rows))) != expected:
                        raise self._torn()
                    self._rows.append(rows)
        except RasterioError:
            raise self._torn() from None

    def _torn(self) -> StorageError:
        return StorageError(
            self._path.parent,
            "a block of the map did not reach the disk whole",
            remedy="free some space or choose another folder, then run the same command again",
        )


def map_scenes(options: MapOptions, *, progress: _Progress = None) -> MapReport:
    """Writes the map of scenes, or goes on with one that was stopped.

    Args:
        options: the options.
        progress: called with (stage, done, total).

    Raises:
        EOKerasError: see `plan_map` and `write_map`.
    """
    return write_map(plan_map(options), progress=progress)


def plan_map(options: MapOptions) -> MapJob:
    """Plans a map and checks all that can be checked before pixels are read; nothing is written.

    Raises:
        OptionError: if options cannot work together, or the area lies outside all scenes.
        SourceError: if a scene cannot be opened, or does not fit the model.
        BandError: if a scene lacks a band.
        RunError: if there is no such model, or its card cannot be read.
        StorageError: if there is too little space, or files of these names are there that this program did not write.
    """
    path = pathlib.Path(files.absolute(options.output or os.path.join(options.output_dir, _NAME)))
    options.check_engine([str(path)])
    card = predictors.read_card(options.run_dir)
    card.check_one_image(options.run_dir)
    calibration = predictors.calibration_of(options.run_dir, card, options.tta, options.calibrated)
    # A pattern may match an earlier map of the same name.
    own = {os.fspath(path), os.fspath(bands_path(path))}
    paths = [one for one in sources.find_scenes(options.scenes) if files.absolute(one) not in own]
    if not paths:
        raise OptionError("scenes", f"there is nothing but an earlier map, {path}", "at least one scene")
    opened = [sources.open_for(card, files.absolute(one), options) for one in paths]
    opened = sources.in_order(opened, options.pick, options.cloud_mask)
    plan = _plan(card, opened, options)
    products.check_inputs(options.products, plan.grid)
    names = band_names(options, card.legend, len(plan.looks))
    _, state = _unfinished(path)
    todo = _todo(state.folder, plan)
    needed = cog.bytes_needed(plan.grid, len(names)) + sum(map(len, todo)) * len(names)
    job = MapJob(
        options, path, plan, card, calibration, names, needed, tuple(paths), tuple(_warnings(opened, plan, paths))
    )
    output_files.check_files(_outputs(job), overwrite=options.overwrite)
    _check_space(path, needed)
    return job


def _outputs(job: MapJob) -> list[pathlib.Path]:
    """Returns the paths of all files that a map will have."""
    further = products.paths(job.options.products, job.path.parent, job.path.stem)
    return [*cog.paths(job.path, job.bands), *further.values()]


def write_map(job: MapJob, *, progress: _Progress = None) -> MapReport:
    """Writes a planned map, or goes on with one that was stopped; all files get their names at the end.

    Args:
        job: the planned map.
        progress: called with (stage, done, total).

    Raises:
        SourceError: if a scene is damaged.
        RunError: if the model cannot be opened.
        StorageError: if the disk is full, or the unfinished map beside it is of something else.
    """
    started, seconds, options, plan = time.monotonic(), {}, job.options, job.plan
    work, state = _unfinished(job.path)
    with work.held(overwrite=options.overwrite):
        model = os.fspath(predictors.model_path(options.run_dir))
        inputs = [*job.sources, model, *([options.area] if options.area else [])]
        stamps = {path: sources.stamp(path) for path in inputs}
        state.begin(_description(options, job.calibration), stamps, overwrite=options.overwrite)
        context = _Context(
            dataclasses.replace(plan, blocks=()),
            options,
            job.bands,
            state.folder,
            files.absolute(options.run_dir),
            tuple(stamps[model]),
        )
        kept = len(plan.blocks) - len(_todo(state.folder, plan))
        _run(context, plan, progress)
        seconds["map"] = time.monotonic() - started
        with tempfile.TemporaryDirectory(prefix="tmp", dir=state.folder) as folder:
            made = _assemble(job, state.folder, pathlib.Path(folder), progress, seconds)
            output_files.move_files(made, overwrite=options.overwrite)
            _remove_stale(job, made)
        state.remove()
    with contextlib.suppress(OSError):
        os.rmdir(work.folder)
    seconds["all"] = time.monotonic() - started
    warnings = [*work.take_warnings(), *_earlier(job, made)]
    return MapReport(job.path, tuple(made), seconds, kept, tuple(warnings))


def _unfinished(path: pathlib.Path) -> tuple[OutputFolder, WorkState]:
    """Returns the folder of a map's unfinished work, and its state; nothing is written."""
    work = OutputFolder(path.with_name(f"{path.name}.unfinished"), _KIND, StorageError)
    return work, WorkState(work, _STATE, "map", StorageError)


def _remove_stale(job: MapJob, made: Iterable[pathlib.Path]) -> None:
    """Removes files that this program wrote for an earlier map of the same name and that the new one has not."""
    stale = {bands_path(job.path)} - set(made)
    OutputFolder(job.path.parent, FILES, StorageError).remove(path.name for path in stale)


def _earlier(job: MapJob, made: Iterable[pathlib.Path]) -> list[str]:
    """Returns warnings about products of an earlier map of the same name.

    They stay: another command may have written a file of such a name.
    """
    every = products.every_path(job.path.parent, job.path.stem)
    names = [path.name for path in every if path not in set(made) and path.exists()]
    return [f"{', '.join(names)} beside the map was not written with it"] if names else []


def _run(context: _Context, plan: MapPlan, progress: _Progress) -> None:
    """Maps all blocks."""
    total, done = sum(map(len, plan.blocks)), 0
    options, function = context.options, map_block
    here = options.engine == "local" and options.num_workers == 1

    def advance(pixels: int) -> None:
        nonlocal done
        done += pixels
        if progress:
            progress(STAGE, done, total)

    todo = _todo(context.folder, plan)
    advance(total - sum(map(len, todo)))
    if here:
        # In this process, rows show that the work advances; a block may take minutes.
        function = functools.partial(map_block, on_rows=advance)
    with options.make_engine(_prepare) as engine:
        for position in engine.run(function, context, todo):
            if not here:
                advance(len(todo[position]))


def _prepare() -> None:
    """Imports TensorFlow in a worker process, without the lines that it writes straight to standard error."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            import tensorflow  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _assemble(
    job: MapJob, blocks: str, folder: pathlib.Path, progress: _Progress, seconds: dict[str, float]
) -> dict[pathlib.Path, pathlib.Path]:
    """Writes the map and its products into a folder; returns them by the paths that they get."""
    started = time.monotonic()
    strips = [_path(blocks, block) for block in job.plan.blocks]
    path = folder / job.path.name
    made = cog.write_cog(strips, path, job.plan.grid, job.card.legend, job.bands, _tags(job), progress)
    seconds["write"] = time.monotonic() - started
    further = products.write_products(path, job.options.products, folder, job.path.stem, progress)
    seconds["products"] = time.monotonic() - started - seconds["write"]
    # The map last: with it, all is there.
    return {job.path.with_name(one.name): one for one in (*further.values(), *reversed(made))}


def _tags(job: MapJob) -> dict[str, str]:
    """Returns the tags of a map."""
    options, card, plan = job.options, job.card, job.plan
    looks = plan.looks
    masks = sorted({sources.mask_of(look.scene, options.cloud_mask) for look in looks})
    levels = sorted({look.scene.level or "not known" for look in looks})
    mismatch = [level for level in levels if level != card.level]
    whole = serialization.to_json(card)
    model = {name: whole[name] for name in _CARD_ENTRIES} | {"calibration": job.calibration}
    scenes = [
        {"product": look.scene.product, "level": look.scene.level, "date": look.scene.date and str(look.scene.date)}
        for look in looks
    ]
    return {
        "TITLE": f"{card.legend.name}, {card.model}",
        "MODEL": card.model,
        "MODEL_CARD": json.dumps(model, ensure_ascii=False),
        "DATA_FINGERPRINT": card.data_fingerprint,
        "SCENES": json.dumps(scenes, ensure_ascii=False),
        "LEVEL": ",".join(levels) + (f" (the model was trained on {card.level or 'another'})" if mismatch else ""),
        "CLOUD_MASK": ",".join(masks),
        "MAP_OPTIONS": json.dumps(_map_options(options) | dataclasses.asdict(plan.lattice), ensure_ascii=False),
        "ATTRIBUTION": card.attribution,
        "SOFTWARE": f"EO-Keras {eo_keras.__version__}",
    }


def _map_options(options: MapOptions) -> dict[str, Any]:
    """Returns the options that change the map and differ from their defaults, paths left out."""
    found = {}
    for field in declared.fields(MapOptions):
        value = getattr(options, field.name)
        if field.option.affects_result and not field.option.path and value != field.default:
            found[field.name] = value
    return found


def _description(options: MapOptions, calibration: str) -> dict[str, Any]:
    """Describes a map; equal descriptions of the same inputs give equal blocks."""
    names = {field.name for field in declared.fields(MapOptions) if field.option.affects_result}
    values = {name: getattr(options, name) for name in sorted(names - {"output", "output_dir"})}
    blocks = {"block_rows": options.block_rows}
    return {"program": eo_keras.__version__, "calibration": calibration, **values, **blocks}


def _warnings(opened: Sequence[Scene], plan: MapPlan, paths: Sequence[str]) -> list[str]:
    found = [warning for scene in opened for warning in scene.warnings]
    if plan.covered < 1 - 1e-6 and plan.area is not None:
        found.append(f"the scenes cover {plan.covered:.1%} of the area; the rest has no data")
    used = {look.scene.source for look in plan.looks}
    if unused := [scene.source for scene in opened if scene.source not in used]:
        found.append(f"{len(unused)} of {len(paths)} scenes lie outside the area, such as {unused[0]}")
    return found


def _check_space(output: pathlib.Path, needed: int) -> None:
    """Checks that the disk has enough free space for a map.

    Raises:
        StorageError: if it has not.
    """
    folder = next(parent for parent in output.parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            folder,
            f"{free / 1e9:.1f} GB are free",
            f"up to {needed / 1e9:.1f} GB for the map and its unfinished blocks",
            "free some space, choose another folder, or map a smaller `area` or fewer bands",
        )
