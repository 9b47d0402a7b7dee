"""Masks of image files: the class of every pixel, of images of one sensor or of several that belong together.

Images of any size are read, predicted and blended in windows as scenes of a map are, on their own pixels. They need no
place on the ground; those of a place that have one lie on the same.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras.core import files, serialization
from eo_keras.core.output_folders import OutputFolder
from eo_keras.errors import OptionError, RunError, SourceError, StorageError
from eo_keras.geo import reference_systems
from eo_keras.geo.class_map import LEGEND_TAG
from eo_keras.geo.grid import Grid
from eo_keras.geo.image_sets import Patterns, Place, by_modality, find_places
from eo_keras.geo.open_images import ImageKind, OpenImage, open_image
from eo_keras.legends.catalogue import IGNORE, Legend
from eo_keras.mapping import predictors, scenes, stream
from eo_keras.mapping.lattice import Lattice
from eo_keras.mapping.mapper import most_probable
from eo_keras.mapping.plan import SAME_SIZE, MapPlan, plan_image
from eo_keras.mapping.predictors import Predictor, StackedInputs
from eo_keras.records.example import has_data, no_data
from eo_keras.runs.input_images import fit_to_input
from eo_keras.runs.model_card import ModelCard
from eo_keras.sensors import catalogue as sensors

STAGE = "predicting"
"""Stage of the pixels for progress."""

KIND = "predicted masks"
TABLE_NAME = "predictions.csv"
"""Table of the pixels of each class, a line a place."""

_TAG = "PREDICTED_FROM"
"""Tag of a mask with what it was made of, by which it is known when the command is called again."""

_PUBLISH_SECONDS = 5.0
"""Time after which finished masks get their names: what a process that is killed loses."""

_NO_PLACE = Grid("", (1.0, 0.0, 0.0, 0.0, -1.0, 0.0), 0, 0)
"""Grid of images without a place on the ground: their pixels."""

_Progress = Callable[[str, int, int], None] | None


@dataclasses.dataclass(frozen=True)
class PredictedMask:
    """Mask of one place.

    Attributes:
        name: the place's name.
        classes: uint8 (height, width), indices of the legend; 255 where no image has data.
        confidence: float32 (height, width), the probability of each pixel's class; 0 without data.
        grid: its place on the ground; None where its images have none.
    """

    name: str
    classes: np.ndarray
    confidence: np.ndarray
    grid: Grid | None


@dataclasses.dataclass(frozen=True)
class MaskJob:
    """Places whose masks are predicted, found and checked.

    Attributes:
        card: the model's card.
        places: the places.
        bands: names of the bands in the files by modality, where they are given.
        sizes: height and width of each place's mask.
    """

    card: ModelCard
    places: tuple[Place, ...]
    bands: Mapping[str, tuple[str, ...]]
    sizes: tuple[tuple[int, int], ...]


def plan_masks(
    card: ModelCard,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Patterns,
    *,
    image_bands: str | None = None,
    stand_in: str | os.PathLike[str] | None = None,
) -> MaskJob:
    """Finds the images of places and checks them by their headers.

    Args:
        card: the card of a segmentation model.
        images: files, patterns or folders; of a model of several modalities by the modality's name, or with that and a
            colon before them. See `eo_keras.geo.image_sets.find_places`.
        image_bands: names of the files' bands in stored order; of several modalities such as `s2:B11,B08,B03;s1:SAR`.
            Default: those that files name, or those of the records that the model was trained on.
        stand_in: run folder of a model that predicts images of a sensor where they are missing.

    Raises:
        RunError: if the model predicts no masks, or the stand-in does not fit it.
        OptionError: if images or bands of a modality are not given, or the name of one is not known.
        SourceError: if images are missing, cannot be read, or do not fit each other or the model.
        BandError: if bands are not known or do not fit the model.
    """
    card.check_predicts_classes()
    if not card.targets.per_pixel:
        raise RunError(
            card.flags.get("run_dir", card.model),
            f"{card.model} predicts a class for the image, not one for every pixel",
            "a segmentation model",
            "classify images by launch.predict with `output`, or map scenes by launch.map",
        )
    modalities = tuple(dict.fromkeys(one.modality for one in card.taken))
    if not isinstance(images, Mapping):
        images = by_modality([images] if isinstance(images, (str, os.PathLike)) else images, modalities)
    else:
        texts = {name: [found] if isinstance(found, (str, os.PathLike)) else found for name, found in images.items()}
        images = by_modality([f"{name}:{os.fspath(one)}" for name, found in texts.items() for one in found], modalities)
    optional = {one.modality for one in card.taken if card.learned_without(one.name)}
    if stand_in is not None:
        from eo_keras.runs.stand_in import read_stand_in  # It imports Keras.

        sensor = read_stand_in(stand_in, card).sensor
        optional |= {one.modality for one in card.taken if one.sensor_name == sensor}
    job = MaskJob(card, tuple(find_places(images, optional)), _named_bands(image_bands, card, modalities), ())
    sizes = []
    for place in job.places:
        with open_place(job, place) as reader:
            sizes.append((reader.grid.height, reader.grid.width))
    return dataclasses.replace(job, sizes=tuple(sizes))


def _named_bands(text: str | None, card: ModelCard, modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns the names of the bands by modality."""
    found = {}
    for part in filter(str.strip, (text or "").split(";")):
        name, colon, bands = part.strip().partition(":")
        if not colon and len(modalities) == 1:
            name, bands = modalities[0], name
        if name not in modalities:
            raise OptionError(
                "image_bands",
                f"'{part}'",
                f"a modality out of {', '.join(modalities)} and its bands",
                f"say, for instance, `image_bands={modalities[0]}:B04,B03,B02`",
            )
        found[name] = sensors.named(_kind(card, name).sensor).parse_bands(bands)
    return found


def _kind(card: ModelCard, modality: str) -> ImageKind:
    """Returns what the images of a modality are."""
    one = next((one for one in card.inputs if one.modality == modality), None)
    if one is not None:
        return ImageKind(one.sensor, one.records.bands, one.dtype)
    stored = card.bands if card.records is None else card.records.bands
    # The card of a model of the only modality of its records does not name the sensor.
    return ImageKind(sensors.of_bands(stored).name, stored, card.dtype)


class PlaceReader:
    """Reader of the images of a place as a model's stacked inputs, see `predictors.StackedInputs`.

    Args:
        card: the model's card.
        images: the open image of each modality.

    Attributes:
        inputs: the layout of what it reads.
        grid: the grid of the mask, that of the finest input; without a place on the ground its `crs` is empty.

    Raises:
        SourceError: if the images are not on one grid, or their pixels have another size than the model's.
    """

    def __init__(self, card: ModelCard, images: Mapping[str, OpenImage]):
        self.inputs, by_input = StackedInputs(card), card.by_input
        self._taken: list[tuple[str, Any, OpenImage | None]] = []
        for one in card.taken:
            self._taken.append((one.name, by_input[one.name], images.get(one.modality)))
        self.grid = self._common_grid()

    def _common_grid(self) -> Grid:
        found = [(self.inputs.ratios[name], taken, image) for name, taken, image in self._taken if image is not None]
        ratio, taken, first = min(found, key=lambda entry: entry[0])
        grid = next((image.grid for one, _, image in found if image.grid is not None and one == ratio), None)
        for other, _, image in found:
            if not image.lies_on(first, other // ratio) or other % ratio:
                times = f"{other // ratio} x {other // ratio} of its pixels in one of " if other != ratio else ""
                raise SourceError(
                    image.path,
                    f"its grid, {image}, is not that of {first.path}, {first}",
                    f"the same, {times}{image.path.name}" if times else "the same",
                    "bring it there by gdalwarp -t_srs -te -ts",
                )
            if image.grid is not None:
                _check_pixel_size(image, taken.resolution_m * other / ratio)
        if grid is None:
            grid = dataclasses.replace(_NO_PLACE, height=first.height, width=first.width)
        if ratio == 1:
            return grid
        # The finest input is missing.
        a, b, c, d, e, f = grid.transform
        transform = (a / ratio, b / ratio, c, d / ratio, e / ratio, f)
        return Grid(grid.crs, transform, grid.height * ratio, grid.width * ratio)

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads a window.

        Returns:
            Numbers (height, width, bands of all inputs), and which pixels any image has data of, bool (height, width).
        """
        images, seen = {}, np.zeros((height, width), bool)
        for name, taken, image in self._taken:
            if image is None:
                shape = (height, width, len(taken.bands))
                images[name] = np.full(shape, no_data(taken.dtype), taken.dtype)
                continue
            ratio = self.inputs.ratios[name]
            top, left = row // ratio, column // ratio
            size = -(-(row + height) // ratio) - top, -(-(column + width) // ratio) - left
            numbers = fit_to_input(image.read(top, left, *size), taken, image.path)
            if ratio > 1:
                numbers = numbers.repeat(ratio, axis=0).repeat(ratio, axis=1)
                numbers = numbers[row - top * ratio :, column - left * ratio :][:height, :width]
            images[name] = numbers
            seen |= has_data(numbers)
        return self.inputs.stack(images), seen


def _check_pixel_size(image: OpenImage, resolution_m: float) -> None:
    width, height = reference_systems.pixel_on_ground(image.grid)
    if any(abs(size / resolution_m - 1) > SAME_SIZE for size in (width, height)):
        raise SourceError(
            image.path,
            f"its pixels are {width:.4g} x {height:.4g} m",
            f"{resolution_m:g} m, as the model was trained with",
            f"resample it by gdalwarp -tr {resolution_m:g} {resolution_m:g}",
        )


@contextlib.contextmanager
def open_place(job: MaskJob, place: Place) -> Iterator[PlaceReader]:
    """Opens the images of a place; a context manager.

    Raises:
        SourceError: see `PlaceReader` and `open_image`.
        BandError: see `open_image`.
    """
    with contextlib.ExitStack() as opened:
        images = {
            name: opened.enter_context(open_image(path, _kind(job.card, name), job.bands.get(name)))
            for name, path in place.files.items()
        }
        reader = PlaceReader(job.card, images)
        # Bands and numbers that do not fit show in the first pixel, before the model is opened.
        reader.read(0, 0, 1, 1)
        yield reader


def lattice_of(card: ModelCard, grid: Grid) -> Lattice:
    """Returns the lattice of windows over an image, which begin at whole pixels of all inputs.

    An image that is no larger than those of the training is one window, as it is in an evaluation.
    """
    window = max(one.patch_size for one in card.by_input.values())
    if max(grid.height, grid.width) <= window:
        return predictors.lattice_of(card, window, 0)
    overlap, coarsest = window // 4, max(StackedInputs(card).ratios.values())
    return predictors.lattice_of(card, window, overlap - overlap % (2 * coarsest))


def predict_masks(
    model: Predictor, job: MaskJob, *, batch_size: int | None = None, progress: _Progress = None
) -> Iterator[PredictedMask]:
    """Predicts the masks of places, one after the other.

    Args:
        model: the model.
        job: the places, checked by `plan_masks`.
        batch_size: windows predicted at a time. Default: by their size.
        progress: called with (`STAGE`, done, total) pixels.

    Raises:
        SourceError: if an image is damaged.
    """
    total, done = sum(height * width for height, width in job.sizes), 0
    for place, size in zip(job.places, job.sizes, strict=True):
        found = PredictedMask(place.name, np.full(size, IGNORE, np.uint8), np.zeros(size, np.float32), None)
        with _rows_of(model, job, place, batch_size) as (grid, rows):
            for here, classes, confidence in rows:
                found.classes[here], found.confidence[here] = classes, confidence
                done += classes.size
                if progress:
                    progress(STAGE, done, total)
        yield dataclasses.replace(found, grid=grid if grid.crs else None)


_Rows = Iterator[tuple[tuple[slice, slice], np.ndarray, np.ndarray]]


@contextlib.contextmanager
def _rows_of(model: Predictor, job: MaskJob, place: Place, batch_size: int | None) -> Iterator[tuple[Grid, _Rows]]:
    """Opens a place and yields its grid, and its mask row by row: where, classes and confidence."""
    with open_place(job, place) as reader:
        lattice = lattice_of(job.card, reader.grid)
        plan = plan_image(place.name, reader.grid, lattice, len(job.card.legend))
        windows = len(plan.looks[0].rows(lattice).cells) * len(plan.looks[0].columns(lattice).cells)
        inputs = stream.StreamInput(
            lambda look: contextlib.nullcontext(reader),
            reader.inputs.dtype,
            reader.inputs.bands,
            min(windows, batch_size or predictors.batch_size_of(lattice)),
        )
        yield reader.grid, _rows(model, plan, inputs, len(job.card.legend))


def _rows(model: Predictor, plan: MapPlan, inputs: stream.StreamInput, classes: int) -> _Rows:
    for block in plan.blocks:
        for rows in stream.stream(plan, block, model, inputs, classes):
            here = slice(rows.row, rows.row + len(rows.looks)), slice(block.column, block.column + block.width)
            known = rows.looks > 0
            predicted = np.where(known, most_probable(rows.probabilities), IGNORE)
            yield here, predicted, rows.probabilities.max(axis=-1) * known


@dataclasses.dataclass(frozen=True)
class MasksReport:
    """Report of masks that were written.

    Attributes:
        paths: the masks, in the order of the places.
        kept: number of those that an earlier call had written.
        pixels: int64 (places, classes + 1), pixels of each class, and last of those without data.
        warnings: lines for the user.
    """

    paths: tuple[pathlib.Path, ...]
    kept: int
    pixels: np.ndarray
    warnings: tuple[str, ...]


def check_output(job: MaskJob, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Checks that masks can be written into a folder; nothing is written.

    Raises:
        StorageError: if it holds what this program did not write.
    """
    OutputFolder(folder, KIND, StorageError).check(overwrite=overwrite, writes=_names(job))


def _names(job: MaskJob) -> list[str]:
    return [*(f"{place.name}.tif" for place in job.places), TABLE_NAME]


def origin_of(
    model: str | os.PathLike[str], tta: str = "none", stand_in: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Returns what changes with the model of masks: checksums of its files and its stand-in's, and the augmentation."""

    def checksum(path: pathlib.Path) -> Any:
        return files.sha256_of_file(path) if path.is_file() else scenes.stamp(os.fspath(path))

    found = {"model": checksum(predictors.model_path(model)), "tta": tta}
    return found if stand_in is None else {**found, "stand_in": checksum(predictors.model_path(stand_in))}


def write_masks(
    model: Predictor,
    job: MaskJob,
    folder: str | os.PathLike[str],
    *,
    origin: Mapping[str, Any],
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: _Progress = None,
) -> MasksReport:
    """Writes the masks of places as GeoTIFFs of classes, and a table of the pixels of each class.

    A call that was stopped goes on where it was: masks of the same images by the same model are kept.

    Args:
        model: the model.
        job: the places, checked by `plan_masks`.
        folder: the folder; made where it is missing.
        origin: see `origin_of`.
        batch_size: see `predict_masks`.
        overwrite: whether masks of other images or of another model are replaced.
        progress: called with (`STAGE`, done, total) pixels.

    Raises:
        SourceError: if an image is damaged.
        StorageError: if the disk is full, or the folder holds other files of these names.
    """
    output, done, kept = OutputFolder(folder, KIND, StorageError), 0, 0
    total = sum(height * width for height, width in job.sizes)
    legend, pixels = job.card.legend, np.zeros((len(job.places), len(job.card.legend) + 1), np.int64)
    names = [f"{place.name}.tif" for place in job.places]
    with output.held(overwrite=overwrite, writes=_names(job)):
        # The manifest holds a line a mask: it is read once, and written now and then.
        listed, own = set(output.listed()), output.own(names)
        with output.new_paths(_PUBLISH_SECONDS) as paths:
            for number, (name, place, size) in enumerate(zip(names, job.places, job.sizes, strict=True)):
                stamps = {modality: scenes.stamp(os.fspath(path)) for modality, path in place.files.items()}
                tag = json.dumps({**origin, "images": stamps}, sort_keys=True)
                if name in own and _tag(output.path(name)) == tag:
                    pixels[number] = _count(output.path(name), len(legend))
                    kept, done = kept + 1, done + size[0] * size[1]
                    continue
                if name in listed and not overwrite:
                    raise StorageError(
                        output.path(name),
                        "it is a mask of other images of that name, or by another model",
                        "a folder of masks by this model, or a new one",
                        "replace it by `overwrite`, or choose another folder",
                    )
                with paths.path(name) as temporary:
                    with (
                        _rows_of(model, job, place, batch_size) as (grid, rows),
                        _MaskFile(temporary, grid, legend, tag) as file,
                    ):
                        for here, classes, _ in rows:
                            file.write(here, classes)
                            done += classes.size
                            if progress:
                                progress(STAGE, done, total)
                    pixels[number] = _count(temporary, len(legend))
        output.write({TABLE_NAME: _table(job, legend, pixels)})
        written = tuple(pathlib.Path(output.path(name)) for name in names)
        return MasksReport(written, kept, pixels, tuple(output.take_warnings()))


def _table(job: MaskJob, legend: Legend, pixels: np.ndarray) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *(f"pixels_{name}" for name in legend.class_names), "pixels_nodata"])
    writer.writerows([place.name, *counts] for place, counts in zip(job.places, pixels.tolist(), strict=True))
    return text.getvalue().encode()


class _MaskFile:
    """GeoTIFF of a mask with colors and names of its classes; a context manager."""

    def __init__(self, path: pathlib.Path, grid: Grid, legend: Legend, tag: str):
        from rasterio.transform import Affine

        self._path = path
        self._tags = {LEGEND_TAG: json.dumps(serialization.to_json(legend), ensure_ascii=False), _TAG: tag}
        self._colors = {label: (*color, 255) for label, color in enumerate(legend.rgb)}
        self._profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": IGNORE, "compress": "deflate"}
        self._profile |= {"height": grid.height, "width": grid.width, "bigtiff": "if_safer"}
        if min(grid.height, grid.width) > 512:
            self._profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
        if grid.crs:
            self._profile |= {"crs": grid.crs, "transform": Affine(*grid.transform)}

    def __enter__(self) -> _MaskFile:
        import warnings

        import rasterio
        from rasterio.errors import NotGeoreferencedWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self._file = rasterio.open(self._path, "w", **self._profile)
        self._file.write_colormap(1, self._colors)
        self._file.update_tags(**self._tags)
        return self

    def __exit__(self, *exception) -> None:
        self._file.close()

    def write(self, here: tuple[slice, slice], classes: np.ndarray) -> None:
        """Writes the classes of some pixels."""
        from rasterio.windows import Window

        rows, columns = here
        self._file.write(classes, 1, window=Window(columns.start, rows.start, *reversed(classes.shape)))


def _tag(path: str | os.PathLike[str]) -> str | None:
    with _opened(path) as dataset:
        return dataset.tags().get(_TAG)


def _count(path: str | os.PathLike[str], classes: int) -> np.ndarray:
    """Reads a mask again and counts its pixels by class, those without data last; a torn file shows here."""
    counts = np.zeros(256, np.int64)
    with _opened(path) as dataset:
        for _, window in dataset.block_windows(1):
            counts += np.bincount(dataset.read(1, window=window).ravel(), minlength=256)
    return np.append(counts[:classes], counts[IGNORE])


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    import warnings

    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver="GTiff") as dataset:
                yield dataset
    except RasterioError as error:
        raise StorageError(
            path,
            f"it cannot be read again ({error.__cause__ or error})",
            "a whole mask",
            "free some space, remove it and call the command again",
        ) from None
