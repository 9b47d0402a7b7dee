"""Public functions over the packages of the library; import them from `eo_keras`, not from here.

TensorFlow and Keras are imported by the functions that need them.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eo_keras.errors import OptionError, RecordsError
from eo_keras.records.data_card import DataCard, read_data_card
from eo_keras.records.inputs import InputBands, parse_inputs
from eo_keras.sensors import sentinel2

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from eo_keras.evaluation.evaluate import Evaluation
    from eo_keras.mapping.assessment import Assessment
    from eo_keras.mapping.image_masks import PredictedMask
    from eo_keras.mapping.reference import MapEvaluation
    from eo_keras.mapping.sampling import Sample
    from eo_keras.runs.folder import Run
    from eo_keras.training.options import TrainingOptions


@dataclasses.dataclass(frozen=True)
class Records:
    """A records folder: its card, and batches of its splits.

    Attributes:
        folder: path of the folder.
        card: its data card: bands, dtype, legend, splits, statistics.
    """

    folder: pathlib.Path
    card: DataCard

    def count(self, split: str) -> int:
        """Returns the number of examples in a split.

        Raises:
            RecordsError: if there is no such split.
        """
        if split not in self.card.splits:
            raise RecordsError(self.folder, f"there is no split '{split}'", f"one of {', '.join(self.card.splits)}")
        return self.card.splits[split].examples

    def dataset(
        self,
        split: str,
        batch_size: int = 64,
        *,
        bands: str | Sequence[str] = "all",
        shuffle: bool | None = None,
        augment: Any = False,
        one_hot: bool = False,
        seed: int = 1,
        cache: bool = True,
    ) -> tf.data.Dataset:
        """Returns batches that `keras.Model.fit`, `evaluate` and `predict` take.

        Args:
            split: name of the split, such as `train`.
            batch_size: examples in a batch.
            bands: `RGB`, `CI`, `SWIR`, `all`, or names of bands, in the order of the channels; of records of several
                modalities also each with its bands, such as `s2:RGB,B08;s1:all`.
            shuffle: whether each pass has a new order and leaves out the examples that fill no batch. Default: for
                the split `train` alone.
            augment: whether shuffled images are augmented by the defaults of the records' task; or an
                `Augmentation` (patches) or `CropAugmentation` (tiles) of `eo_keras.data.augment.options`.
            one_hot: whether labels are one-hot vectors instead of class numbers.
            seed: of order and augmentation.
            cache: whether to keep the examples in memory, up to 4 GiB.

        Returns:
            A dataset of batches. Those of patches are `(image, label)`: images (batch, height, width, band), digital
            numbers in their stored dtype, of several modalities by name; labels int32 (batch,), or float32 (batch,
            class). Those of tiles are `(image, label, weight)`: labels uint8 (batch, height, width) or float32 (batch,
            height, width, class), and weights float32 (batch, height, width), 0 for pixels without a class.

        Raises:
            RecordsError: if the split cannot be used.
            BandError: if a band is not stored.
            OptionError: if there are too few examples for a batch, or the augmentation does not fit.
        """
        from eo_keras.data import fit
        from eo_keras.data.augment.crops import CropAugmentation
        from eo_keras.data.augment.patches import Augmentation
        from eo_keras.data.pipeline import PipelineOptions, RecordDataset

        shuffle = split == "train" if shuffle is None else shuffle
        if augment and not shuffle:
            raise OptionError(
                "augment", "it is given for a dataset that is not shuffled", "shuffle=True, or no augment"
            )
        if augment is True:
            crops = self.card.targets.per_pixel
            augment = CropAugmentation(crop=self.card.patch_size) if crops else Augmentation()
        options = PipelineOptions(
            batch_size=batch_size,
            inputs=_inputs(self.card, bands),
            seed=seed,
            augmentation=augment or None,
            cache=cache,
        )
        make = fit.shuffled_dataset if shuffle else fit.ordered_dataset
        return make(RecordDataset(self.folder), options, split, one_hot=one_hot)


def open_records(records_dir: str | os.PathLike[str]) -> Records:
    """Opens a records folder and reads its card.

    Args:
        records_dir: the folder, as `launch.build` or `tfrecords_builder` wrote it.

    Raises:
        RecordsError: if the folder or its card is missing, or the card cannot be read.
    """
    return Records(pathlib.Path(records_dir), read_data_card(records_dir))


def list_tasks() -> tuple[str, ...]:
    """Lists the names of the tasks that models are trained for."""
    from eo_keras import tasks

    return tasks.TASKS


def list_models(task: str | None = None) -> tuple[str, ...]:
    """Lists the names of the architectures.

    Args:
        task: one of `list_tasks()`; None for all.

    Raises:
        OptionError: if there is no such task.
    """
    from eo_keras import models

    if task is not None and task not in list_tasks():
        raise OptionError("task", f"'{task}'", f"one of {', '.join(list_tasks())}")
    return tuple(name for name, info in models.MODELS.items() if task in (None, info.task))


def build_model(
    name: str,
    card: DataCard,
    bands: str | Sequence[str] = "RGB",
    weights: str | os.PathLike[str] | None = None,
    **options: Any,
) -> keras.Model:
    """Builds a Keras model for the classes, numbers and patch size of a records folder.

    Args:
        name: one of `list_models()`.
        card: the card of the records; their statistics become the model's normalization layer.
        bands: as in `Records.dataset`.
        weights: None for random weights; `imagenet`; or a file, see `eo_keras.models.build`.
        **options: other attributes of `eo_keras.models.NetworkSpec`, such as `seed`, `dropout`, `dtype_policy`,
            `fusion` of several modalities, or `patch_size=None` for images of any size.

    Returns:
        A model from digital numbers (batch, height, width, band) in the card's dtype, of several modalities by name, to
        float32 probabilities (batch, class), or (batch, height, width, class) of a segmentation model. It is not
        compiled.

    Raises:
        BandError: if the records lack a band.
        OptionError: if an option's value cannot work.
        SourceError: if the weights cannot be read or do not fit.
    """
    from eo_keras import models

    inputs = _inputs(card, bands)
    choices = {"patch_size": card.patch_size, "weights": weights} | options
    model, _ = models.build(name, models.NetworkSpec.of_inputs(card, inputs, **choices))
    return model


def train(
    options: TrainingOptions,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    report: Callable[[str], None] | None = None,
) -> Run:
    """Trains a model, writes a run folder, and opens it.

    Args:
        options: records, run folder, model and all else.
        progress: called with (stage, done, total) steps.
        report: called with lines of text, before training and after each epoch. `print`, for instance.

    Raises:
        OptionError: if options cannot work together.
        EOKerasError: see `eo_keras.training.train.train`.
    """
    from eo_keras.runs.folder import open_run
    from eo_keras.training.train import train

    train(options, progress=progress, report=report)
    return open_run(options.run_dir)


def evaluate(run: Run, records: Records, split: str = "test", **options: Any) -> Evaluation:
    """Predicts the examples of a split and scores the predictions; nothing is written.

    Args:
        run: the run.
        records: the records; their bands, numbers and classes must be those of the run.
        split: name of the split.
        **options: other fields of `eo_keras.evaluation.options.EvaluationOptions`, such as `tta="d4"`.

    Returns:
        The evaluation. Its `scores` are `eo_keras.metrics.scores.Scores`: `scores["accuracy"]` is an `Estimate` with
        `value`, `low` and `high`.

    Raises:
        RecordsError: if the records cannot be used, or do not fit the model.
        BandError: if they lack a band of the model.
        LegendError: if the classes differ.
        OptionError: if an option does not apply to the task.
    """
    from eo_keras.data.pipeline import RecordDataset
    from eo_keras.evaluation.evaluate import evaluate
    from eo_keras.evaluation.options import EvaluationOptions

    return evaluate(run, RecordDataset(records.folder), EvaluationOptions(split=split, **options))


def predict(
    run: Run,
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    image_bands: str | None = None,
    calibrated: bool | None = None,
    batch_size: int = 64,
) -> list[dict[str, Any]]:
    """Classifies image files with a run's model.

    Args:
        run: the run of a classification model.
        files: paths, patterns such as `patches/*.tif`, or folders of GeoTIFF, JPEG or PNG images of the patch size.
        image_bands: names of the images' bands in stored order. Default: those that the files name, or EuroSAT's order
            of 13 bands, or RGB, by their number.
        calibrated: whether the run's temperature is applied. Default: where `launch.evaluate` has fitted one.
        batch_size: images in a batch; it does not change the predictions.

    Returns:
        A list of one row an image, sorted by path, with the entries `image`, `class_id`, `class_name`, `probability`,
        and `p_` with each class's name. `pandas.DataFrame` and `csv.DictWriter` take the rows.

    Raises:
        SourceError: if an image cannot be read, or has another size than the model's patches.
        BandError: if its bands are not known, do not fit the model, or seem to be in another order than assumed.
        RunError: if the model predicts masks.
    """
    from eo_keras.geo.images import find_images
    from eo_keras.runs import temperature
    from eo_keras.serving.images import check_band_order, predict_images

    paths = find_images([files] if isinstance(files, (str, os.PathLike)) else files)
    found, _ = temperature.find(run.folder, calibrated)
    predictions = predict_images(
        run,
        paths,
        None if image_bands is None else sentinel2.parse_bands(image_bands),
        batch_size,
        temperature=found and found.temperature,
    )
    if warning := check_band_order(predictions.assumed):
        warnings.warn(warning, stacklevel=2)
    return predictions.rows(run.card.legend.class_names)


def predict_masks(
    model: Run | str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[str, Any],
    *,
    image_bands: str | None = None,
    stand_in: str | os.PathLike[str] | None = None,
    tta: str = "none",
    batch_size: int | None = None,
) -> Iterator[PredictedMask]:
    """Predicts the class of every pixel of image files with a segmentation model, place after place.

    Args:
        model: a run, or the path of a run folder, a `.keras` file with its card, or an export.
        images: paths, patterns or folders of GeoTIFF, JPEG or PNG images of any size; of a model of several modalities
            by the modality's name, such as `{"s2": "floods/S2_*.png", "s1": "floods/S1_*.png"}`, where one `*` is the
            part of the names by which images belong together.
        image_bands: names of the files' bands in stored order, of several modalities such as
            `s2:B11,B08,B03;s1:SAR`. Default: those that files name, or those of the records of the training.
        stand_in: run folder of a model that predicts images of a sensor where they are missing.
        tta: `d4` averages the probabilities over the eight symmetries of a window.
        batch_size: windows predicted at a time. Default: by their size.

    Returns:
        An iterator of one `PredictedMask` a place, sorted by name, with `name`, `classes`, `confidence` and `grid`.
        Each is predicted when it is taken.

    Raises:
        SourceError: if images are missing, cannot be read, or do not fit each other or the model.
        BandError: if bands are not known or do not fit the model.
        RunError: if the model cannot be opened, or predicts no masks.
        OptionError: if a modality's images are not given.
    """
    from eo_keras.mapping import image_masks, predictors

    opened = predictors.open_predictor(model, tta=tta, stand_in=stand_in)
    job = image_masks.plan_masks(opened.card, images, image_bands=image_bands, stand_in=stand_in)
    return image_masks.predict_masks(opened, job, batch_size=batch_size)


def evaluate_map(class_map: str | os.PathLike[str], **options: Any) -> MapEvaluation:
    """Scores a class map against points, polygons or another raster; nothing is written.

    Args:
        class_map: path of a map that `launch.map` made, or of another raster of whole numbers with category names or a
            color table.
        **options: fields of `eo_keras.mapping.reference.ReferenceOptions`: one of `points`, `polygons` and `raster`
            (paths); `class_field`, the field of their classes; and others, such as `class_table`.

    Returns:
        The evaluation. Its `scores` are `eo_keras.metrics.scores.Scores`; a class's `precision` is the map's user's
        accuracy, its `recall` the producer's accuracy.

    Raises:
        SourceError: if map or reference cannot be read.
        LegendError: if a class of the reference is none of the map's.
        EOKerasError: if nothing of the reference lies on the map.
        OptionError: if options cannot work together.
    """
    from eo_keras.mapping.reference import ReferenceOptions, evaluate_map

    return evaluate_map(class_map, ReferenceOptions(**options))


def draw_sample(class_map: str | os.PathLike[str], **options: Any) -> Sample:
    """Draws a stratified random sample of the pixels of a class map, for interpretation; nothing is written.

    Args:
        class_map: path of the map, see `evaluate_map`.
        **options: fields of `eo_keras.mapping.sampling.SampleOptions`, such as `sample=300` and `seed`.

    Returns:
        The sample; its `to_bytes()` are a GeoPackage whose field `reference_class` is to be filled in.

    Raises:
        SourceError: if the map cannot be read, or has no class anywhere.
        OptionError: if the sample is too small for the map's classes.
    """
    from eo_keras.mapping.sampling import SampleOptions, draw_sample

    return draw_sample(class_map, SampleOptions(**options))


def assess_map(class_map: str | os.PathLike[str], interpreted: str | os.PathLike[str], **options: Any) -> Assessment:
    """Estimates a map's accuracies and the areas of its classes from an interpreted sample; nothing is written.

    Olofsson et al. 2014, Remote Sensing of Environment 148, 42-57.

    Args:
        class_map: path of the map that the sample was drawn from.
        interpreted: the sample of `draw_sample` with the field `reference_class` filled in.
        **options: other fields of `eo_keras.mapping.assessment.InterpretationOptions`, such as `class_table`.

    Returns:
        The assessment; its `estimation` holds accuracies and areas with standard errors and 95 % intervals.

    Raises:
        SourceError: if map or sample cannot be read.
        LegendError: if a class of the interpreter is none of the map's.
        EOKerasError: if the sample was drawn from another map, or a class of the map has too few places.
    """
    from eo_keras.mapping.assessment import InterpretationOptions, assess_map

    return assess_map(class_map, InterpretationOptions(interpreted=os.fspath(interpreted), **options))


def _inputs(card: DataCard, bands: str | Sequence[str]) -> tuple[InputBands, ...]:
    return parse_inputs(bands if isinstance(bands, str) else ",".join(bands), card)
