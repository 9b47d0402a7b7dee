"""A run's predictions of image files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eo_keras.errors import BandError, RunError
from eo_keras.geo import images as rasters
from eo_keras.runs.input_images import fit_to_model
from eo_keras.sensors import sentinel2
from eo_keras.sensors.band_order import GUARD_MIN_IMAGES, band_order_problem

if TYPE_CHECKING:
    from eo_keras.runs.folder import Run

STAGE = "predicting"
"""Name of the stage for progress."""


@dataclasses.dataclass(frozen=True)
class AssumedBands:
    """Band means of images whose 13 bands are assumed to be in EuroSAT's order.

    Attributes:
        images: number of these images, those without any valid pixel left out.
        means: float64 (13,), mean digital number of each band over all their valid pixels, in the order found.
    """

    images: int
    means: np.ndarray


def check_band_order(assumed: AssumedBands | None) -> str:
    """Checks that images seem to hold their bands in the assumed order.

    Args:
        assumed: the images; None where no order was assumed.

    Returns:
        A warning where the images are too few to judge; else an empty text.

    Raises:
        BandError: if enough images hold another order.
    """
    problem = assumed and band_order_problem(assumed.means, sentinel2.EUROSAT_ORDER)
    if not problem:
        return ""
    remedy = "name the order by `image_bands`: all is Sentinel-2's own, with B8A in ninth place"
    if assumed.images < GUARD_MIN_IMAGES:
        return f"too few images ({assumed.images}) to judge the band order, but {problem}. If so, {remedy}"
    raise BandError(
        f"{assumed.images:,} images whose 13 bands have no names",
        problem,
        f"EuroSAT's order {','.join(sentinel2.EUROSAT_ORDER)}",
        remedy,
    )


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A model's predictions of N images.

    Attributes:
        paths: the images.
        probabilities: float32 (N, classes), the model's output.
        assumed: means that show whether the assumed band order is correct; None where it was never assumed.
    """

    paths: tuple[pathlib.Path, ...]
    probabilities: np.ndarray
    assumed: AssumedBands | None = None

    @property
    def classes(self) -> np.ndarray:
        """Most probable class of each image, the first one of equals; int64 (N,)."""
        return self.probabilities.argmax(axis=1)

    def rows(self, class_names: Sequence[str]) -> list[dict[str, Any]]:
        """Returns one row an image: path, number, name and probability of its class, and all probabilities."""
        return [
            {"image": str(path), "class_id": int(number), "class_name": class_names[number]}
            | {"probability": float(values[number])}
            | {f"p_{name}": float(value) for name, value in zip(class_names, values, strict=True)}
            for path, number, values in zip(self.paths, self.classes, self.probabilities, strict=True)
        ]


def predict_images(
    run: Run,
    paths: Sequence[str | os.PathLike[str]],
    bands: Sequence[str] | None = None,
    batch_size: int = 64,
    progress: Callable[[str, int, int], None] | None = None,
    temperature: float | None = None,
) -> Predictions:
    """Predicts image files by a run's model; no more than one batch of them is in memory.

    Args:
        run: the run.
        paths: the images.
        bands: names of their bands in stored order. Default: see `eo_keras.geo.images.read_image`.
        batch_size: images predicted at a time; it does not change the predictions.
        progress: called with (`STAGE`, done, total) images.
        temperature: divisor of the logits, see `eo_keras.runs.temperature`; None is 1.

    Raises:
        SourceError: if an image cannot be read, or has another size than the model's patches.
        BandError: if its bands are not known or do not fit the model.
        RunError: if the model is one of segmentation.
    """
    import tensorflow as tf

    from eo_keras import models

    if run.card.targets.per_pixel:
        raise RunError(
            run.folder,
            f"{run.card.model} predicts a class for every pixel, not one for the image",
            "a classification model",
            "write the masks of images by launch.predict with `output_dir`, or in Python by eo_keras.predict_masks",
        )
    run.card.check_one_image(run.folder)
    card, paths = run.card, tuple(map(pathlib.Path, paths))
    model = run.model if temperature is None else models.with_temperature(run.model, temperature)
    predict = tf.function(lambda images: model(images, training=False), autograph=False)
    size = max(1, min(batch_size, len(paths)))
    # One shape for all batches, so that the model is compiled once; a shorter last batch is filled up with images
    # of the batch before, whose predictions are not read.
    batch = np.zeros((size, card.patch_size, card.patch_size, len(card.bands)), card.dtype)
    probabilities = np.empty((len(paths), len(card.legend)), np.float32)
    means = _BandMeans()
    for start in range(0, len(paths), size):
        part = paths[start : start + size]
        for place, path in enumerate(part):
            image = rasters.read_image(path, bands)
            batch[place] = fit_to_model(image, card, path)
            means.add(image)
        probabilities[start : start + len(part)] = predict(tf.constant(batch)).numpy()[: len(part)]
        if progress:
            progress(STAGE, start + len(part), len(paths))
    return Predictions(paths, probabilities, means.result())


class _BandMeans:
    """Running band means of images of assumed band order."""

    def __init__(self):
        self._images = self._pixels = 0
        self._sums = np.zeros(len(sentinel2.EUROSAT_ORDER), np.int64)

    def add(self, image: rasters.Image) -> None:
        """Counts an image whose band order is assumed, and no other."""
        # Pixels of no data are 0 in all bands and add nothing to the sums.
        valid = np.count_nonzero(image.pixels.any(axis=-1)) if image.bands_assumed else 0
        if valid:
            self._images += 1
            self._pixels += valid
            self._sums += image.pixels.sum(axis=(0, 1), dtype=np.int64)

    def result(self) -> AssumedBands | None:
        """Returns the means, or None where no image was counted."""
        return AssumedBands(self._images, self._sums / self._pixels) if self._images else None
