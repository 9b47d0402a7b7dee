"""A model of maps asked about the tiles of a split: its answers are scored one by one and not kept."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from eo_keras.data.pipeline import RecordDataset, reading
from eo_keras.errors import OptionError
from eo_keras.legends.catalogue import IGNORE
from eo_keras.metrics.segmentation import SegmentationScorer, SegmentationScores

_Progress = Callable[[str, int, int], None] | None

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""The scales of DeepLabv3+'s multi-scale evaluation (Chen et al. 2018, arXiv 1802.02611, section 4.1)."""

_SMALLEST, _LARGEST = 0.25, 4.0


@dataclasses.dataclass(frozen=True)
class PredictedSample:
    """One tile with its truth and what was answered.

    Attributes:
        key: its key.
        image: stored numbers (height, width, band).
        labels: uint8 (height, width), `IGNORE` where the truth is not known.
        predictions: uint8 (height, width).
    """

    key: str
    image: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray


@dataclasses.dataclass(frozen=True)
class MaskPredictions:
    """What a model answered about the tiles of a split.

    Attributes:
        scorer: the counts of all answers.
        cross_entropy: mean negative logarithm of the true class's probability over the labelled pixels, in nats.
        shown: some of the tiles.
        tiles_per_second: how fast it answered.
    """

    scorer: SegmentationScorer
    cross_entropy: float
    shown: tuple[PredictedSample, ...]
    tiles_per_second: float

    @functools.cached_property
    def _scores(self) -> SegmentationScores:
        return self.scorer.scores(resamples=1)

    @property
    def miou(self) -> float:
        """Mean intersection over union of the classes that occur."""
        return self._scores.macro_iou.value

    @property
    def accuracy(self) -> float:
        """Share of the labelled pixels that are answered rightly."""
        return self._scores.accuracy.value


@dataclasses.dataclass(frozen=True)
class DenseTTA:
    """Versions of an image whose answers are averaged.

    Attributes:
        scales: sizes as a share of the image's own.
        flip: whether each is also asked about mirrored.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self):
        """Refuses scales that make no sense."""
        if not self.scales or len(set(self.scales)) != len(self.scales):
            raise OptionError("scales", f"{','.join(map(str, self.scales)) or 'none'}", "numbers, each once")
        if bad := [scale for scale in self.scales if not _SMALLEST <= scale <= _LARGEST]:
            raise OptionError("scales", f"{bad[0]:g}", f"{_SMALLEST:g} to {_LARGEST:g}")

    @property
    def name(self) -> str:
        """`none`, or what tells this average apart, such as `s0.5-1.0-1.5-flip`."""
        scales = "" if self.scales == (1.0,) else "s" + "-".join(f"{scale:g}" for scale in self.scales)
        return "-".join(filter(None, (scales, "flip" if self.flip else ""))) or "none"

    def answering(self, model: keras.Model) -> Callable[..., tf.Tensor]:
        """Returns what is to be asked in place of a model: itself, or its average over the versions."""
        return model if self == DenseTTA() else _Averaged(model, self)


class _Averaged:
    """A model whose answer is the mean of its probabilities over versions of the image."""

    def __init__(self, model: keras.Model, tta: DenseTTA):
        self._model, self._tta = model, tta

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        size = tf.shape(images)[1:3]
        total = 0.0
        for scale in self._tta.scales:
            scaled = images if scale == 1.0 else rescaled(images, _scaled(size, scale))
            answers = self._model(scaled, training=training)
            if self._tta.flip:
                mirrored = self._model(tf.reverse(scaled, [2]), training=training)
                answers = (answers + tf.reverse(mirrored, [2])) / 2
            total += answers if scale == 1.0 else tf.image.resize(answers, size)
        return total / len(self._tta.scales)


def _scaled(size: tf.Tensor, scale: float) -> tf.Tensor:
    return tf.cast(tf.round(tf.cast(size, tf.float32) * scale), tf.int32)


def rescaled(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Brings images of digital numbers to another size; smaller ones are averaged.

    Args:
        images: (batch, height, width, band), integers; a pixel of no data is 0 in all bands.
        size: height and width.

    Returns:
        (batch, *size, band) of the same dtype. What lies nearest to a pixel of no data stays one, and no other becomes
        one.
    """
    known = tf.reduce_any(tf.not_equal(images, 0), axis=-1, keepdims=True)
    numbers = tf.image.resize(tf.cast(images, tf.float32), size, antialias=True)
    # Pixels without data are 0 and add nothing; divided by the weight of the others, the sums are means again.
    weight = tf.image.resize(tf.cast(known, tf.float32), size, antialias=True)
    numbers = tf.math.divide_no_nan(numbers, weight)
    known = tf.image.resize(tf.cast(known, tf.float32), size, method="nearest")
    highest = images.dtype.max
    return tf.cast(tf.clip_by_value(tf.round(numbers), 1, highest) * known, images.dtype)


class DenseAnswerer:
    """Asks a model of maps about the tiles of a pipeline, on all devices of a strategy.

    Args:
        model: from digital numbers to probabilities (batch, height, width, classes), made in the strategy's scope.
        class_names: names of the classes in the legend's order.
        strategy: the strategy, or None for one device.
        tta: versions of the image whose answers are averaged.
        tolerance: how many pixels a boundary may be off.
    """

    def __init__(
        self,
        model: keras.Model,
        class_names: Sequence[str],
        strategy: tf.distribute.Strategy | None = None,
        tta: DenseTTA | None = None,
        tolerance: float = 2.0,
    ):
        """See the class."""
        self._strategy = strategy or tf.distribute.get_strategy()
        self._class_names, self._tolerance = tuple(class_names), tolerance
        ask = (tta or DenseTTA()).answering(model)
        classes = len(self._class_names)

        def answer(image, label):
            probabilities = ask(image, training=False)
            predictions = tf.cast(tf.argmax(probabilities, axis=-1, output_type=tf.int32), tf.uint8)
            known = tf.not_equal(label, IGNORE)
            # A label outside the legend is told by the scorer; here it must not stop a device.
            safe = tf.where(label < classes, tf.cast(label, tf.int32), 0)
            true = tf.gather(probabilities, safe, axis=-1, batch_dims=3)
            entropy = -tf.math.log(tf.maximum(tf.cast(true, tf.float32), np.finfo(np.float32).tiny))
            # In double precision: millions of pixels are added up.
            summed = tf.reduce_sum(tf.where(known, tf.cast(entropy, tf.float64), 0), axis=(1, 2))
            return predictions, summed, tf.reduce_sum(tf.cast(known, tf.int64), axis=(1, 2))

        self._answer = tf.function(lambda image, label: self._strategy.run(answer, (image, label)))

    def __call__(
        self, records: RecordDataset, dataset: Any, stage: str = "", progress: _Progress = None, *, shown: int = 0
    ) -> MaskPredictions:
        """Asks about every tile of weight above 0.

        Args:
            records: the records folder that the pipeline reads.
            dataset: what `eo_keras.data.pipeline.evaluation` returns, with keys.
            stage: what progress is to be called with.
            progress: called with (stage, done, total) batches.
            shown: how many of the first tiles to keep.

        Raises:
            RecordsError: if a record is damaged.
            LegendError: if a mask holds a number outside the legend.
            EOKerasError: if no pixel is labelled.
        """
        scorer = SegmentationScorer(self._class_names, tolerance=self._tolerance)
        total, entropy, pixels, kept = int(dataset.cardinality()), 0.0, 0, []
        started = time.monotonic()
        for number, batch in enumerate(reading(records, self._strategy.experimental_distribute_dataset(dataset)), 1):
            image, label, weight, key = batch
            counts = self._gathered(weight) > 0
            predictions, summed, known = (self._gathered(part)[counts] for part in self._answer(image, label))
            labels, keys = self._gathered(label)[counts], self._gathered(key)[counts]
            entropy, pixels = entropy + float(summed.sum()), pixels + int(known.sum())
            for place, name in enumerate(keys):
                scorer.add(name.decode(), labels[place], predictions[place])
            if len(kept) < shown:
                images = self._gathered(image)[counts]
                kept += [
                    PredictedSample(name.decode(), *three)
                    for name, *three in zip(keys, images, labels, predictions, strict=True)
                ]
            if progress:
                progress(stage, number, total)
        seconds = time.monotonic() - started
        return MaskPredictions(scorer, entropy / max(1, pixels), tuple(kept[:shown]), len(scorer.sums) / seconds)

    def _gathered(self, values: Any) -> np.ndarray:
        # A batch is divided in order: the first device holds its first examples.
        return np.concatenate([part.numpy() for part in self._strategy.experimental_local_results(values)])
