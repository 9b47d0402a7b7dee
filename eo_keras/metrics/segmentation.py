"""Scores of dense maps, from counts of pixels that add up over images, devices and workers. NumPy only.

Keras's own mean IoU (3.15) counts a label outside the legend as nothing at all, so that a mask of another legend scores
1; here it is an error.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eo_keras.errors import EOKerasError, LegendError, OptionError
from eo_keras.legends.catalogue import IGNORE
from eo_keras.metrics import boundary
from eo_keras.metrics.estimate import BOOTSTRAP, Estimate, of_resamples, resampled

_AREAS = 3  # Rows of an image's sums before those of its boundaries: right, true and predicted pixels.


@dataclasses.dataclass(frozen=True)
class ClassIoU:
    """Scores of one class; None where it has no pixel in truth: a share of nothing does not exist.

    Attributes:
        name: the class's name.
        support: number of its pixels in truth.
        predicted: number of its pixels in the predictions, where the truth is known.
        iou: pixels of it in both, as a share of those in either (Jaccard index).
        precision: share of its predicted pixels that are right; None too if there are none.
        recall: share of its true pixels that are found.
        f1: harmonic mean of precision and recall.
        boundary_f1: see `boundary.boundary_f1`; None too where it has no boundary.
    """

    name: str
    support: int
    predicted: int
    iou: Estimate | None
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None
    boundary_f1: Estimate | None


@dataclasses.dataclass(frozen=True)
class SegmentationScores:
    """All scores of a set of maps; shares are fractions of 1, not per cent.

    Attributes:
        images: number of images.
        pixels: number of pixels whose truth is known.
        resampled: number of places that the bootstrap draws; fewer than images where some show the same ground.
        macro_iou: unweighted mean IoU of the classes that have pixels in truth.
        macro_classes: number of these classes.
        frequency_weighted_iou: mean IoU, each class weighted by its share of the true pixels.
        accuracy: share of pixels that are answered rightly.
        kappa: Cohen's kappa; None where truth and predictions are all of one class: it is not defined there.
        boundary_f1: mean of the classes' boundary F1; None where no class has a boundary.
        tolerance: how many pixels a boundary may be off.
        classes: scores by class, in the legend's order.
        confusion: pixels, rows true and columns predicted, in the legend's order.
        bootstrap_resamples: number of resamples behind the estimate.
        bootstrap_seed: seed of these resamples.
    """

    images: int
    pixels: int
    resampled: int
    macro_iou: Estimate
    macro_classes: int
    frequency_weighted_iou: Estimate
    accuracy: Estimate
    kappa: Estimate | None
    boundary_f1: Estimate | None
    tolerance: float
    classes: tuple[ClassIoU, ...]
    confusion: tuple[tuple[int, ...], ...]
    bootstrap_resamples: int
    bootstrap_seed: int

    def to_json(self) -> dict[str, Any]:
        """Returns the scores as plain dictionaries, lists and numbers, equal to what `json.loads` gives back."""
        content = dataclasses.asdict(self)
        content["classes"] = list(content["classes"])
        content["confusion"] = [list(row) for row in self.confusion]
        return content


class ConfusionAccumulator:
    """Counts pixels by true and predicted class.

    Attributes:
        matrix: int64 (C, C): rows true, columns predicted; ignored pixels are left out.

    Args:
        num_classes: number of classes C, at most 255.
        ignore: the label, 0..255 and no class, of pixels whose truth is not known.

    Raises:
        OptionError: if the numbers do not fit a byte, or `ignore` is a class.
    """

    def __init__(self, num_classes: int, ignore: int = IGNORE):
        """See the class."""
        if not 1 <= num_classes <= 255:
            raise OptionError("num_classes", f"{num_classes}", "1 to 255: masks are stored as bytes")
        if not num_classes <= ignore <= 255:
            raise OptionError("ignore", f"{ignore}", f"a number of {num_classes}..255, which is no class")
        self.num_classes, self.ignore = num_classes, ignore
        self.matrix = np.zeros((num_classes, num_classes), np.int64)

    def add(self, labels: npt.ArrayLike, predictions: npt.ArrayLike, where: str = "mask") -> np.ndarray:
        """Adds pixels up, and returns the matrix of these alone.

        Args:
            labels: integers (...): 0..C - 1, or `ignore`.
            predictions: integers (...): 0..C - 1, also where the truth is not known.
            where: what they are of, for errors.

        Raises:
            LegendError: if a label or prediction is anything else.
            ValueError: if the shapes differ.
        """
        labels, predictions = np.asarray(labels), np.asarray(predictions)
        if labels.shape != predictions.shape:
            raise ValueError(f"{where}: labels have shape {labels.shape}, predictions {predictions.shape}")
        known = f"0..{self.num_classes - 1}"
        labels = _as_bytes(labels, where, "labels", f"{known}, or {self.ignore} where nothing is known")
        predictions = _as_bytes(predictions, where, "predictions", known)
        # All pairs of bytes are counted: that shows in one pass which of them there should not be.
        pairs = (labels.astype(np.uint16) << 8) | predictions
        table = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256).astype(np.int64)
        true = table.sum(axis=1)
        true[self.ignore] = 0
        self._check(true, where, "labels", f"{known}, or {self.ignore} where nothing is known")
        self._check(table.sum(axis=0), where, "predictions", known)
        matrix = table[: self.num_classes, : self.num_classes]
        self.matrix += matrix
        return matrix

    def _check(self, counts: np.ndarray, where: str, name: str, expected: str) -> None:
        outside = self.num_classes + np.flatnonzero(counts[self.num_classes :])
        if outside.size:
            raise LegendError(
                where,
                f"{counts[outside].sum():,} of {counts.sum():,} {name} are outside the legend, such as {outside[0]}",
                expected,
                "use masks and a model that were made with the same legend",
            )


class SegmentationScorer:
    """Scores maps one by one; what it keeps of an image is seven numbers a class.

    Attributes:
        class_names: names of the C classes in the legend's order.
        confusion: the matrix of all images.
        sums: int64 (7, C) of each image by its key: right, true and predicted pixels, and `boundary_counts`.

    Args:
        class_names: names of the classes in the legend's order.
        tolerance: how many pixels a boundary may be off and count as right.
        ignore: the label of pixels whose truth is not known.

    Raises:
        OptionError: if there are too many classes, `ignore` is one, or the tolerance is no distance.
    """

    def __init__(self, class_names: Sequence[str], *, tolerance: float = 2.0, ignore: int = IGNORE):
        """See the class."""
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise OptionError("tolerance", f"{tolerance}", "a number of pixels, 0 or more")
        self.class_names, self.tolerance = tuple(class_names), float(tolerance)
        self.confusion = ConfusionAccumulator(len(self.class_names), ignore)
        self.sums: dict[str, np.ndarray] = {}

    def add(self, key: str, labels: npt.ArrayLike, predictions: npt.ArrayLike) -> None:
        """Adds an image.

        Args:
            key: its name, unlike all others'.
            labels: integers (height, width): 0..C - 1, or `ignore`.
            predictions: integers (height, width): 0..C - 1.

        Raises:
            LegendError: if a label or prediction is anything else.
            EOKerasError: if there is an image of that key already.
            ValueError: if the shapes do not fit.
        """
        labels, predictions = np.asarray(labels), np.asarray(predictions)
        if labels.ndim != 2:
            raise ValueError(f"{key}: labels (height, width) have shape {labels.shape}")
        self._check_new([key])
        matrix = self.confusion.add(labels, predictions, key)
        areas = [np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)]
        known = labels != self.confusion.ignore
        counts = boundary.boundary_counts(labels, predictions, known, len(self.class_names), self.tolerance)
        self.sums[key] = np.concatenate([np.stack(areas), counts])

    def merge(self, other: SegmentationScorer) -> None:
        """Adds all images of another scorer.

        Raises:
            LegendError: if its classes are others.
            OptionError: if it allows boundaries another tolerance, or ignores another label.
            EOKerasError: if an image is in both.
        """
        if other.class_names != self.class_names:
            found, expected = ", ".join(other.class_names), ", ".join(self.class_names)
            raise LegendError("scores", f"the classes {found}", f"{expected}, as in the others")
        for name, found, expected in (
            ("tolerance", other.tolerance, self.tolerance),
            ("ignore", other.confusion.ignore, self.confusion.ignore),
        ):
            if found != expected:
                raise OptionError(name, f"{found}", f"{expected}, as of the scores that these are added to")
        self._check_new(list(other.sums))
        self.confusion.matrix += other.confusion.matrix
        self.sums |= other.sums

    def _check_new(self, keys: Sequence[str]) -> None:
        if twice := [key for key in keys if key in self.sums]:
            raise EOKerasError(twice[0], "the image was scored already", "every image once", "give images unlike keys")

    def scores(
        self, *, resamples: int = 10_000, seed: int = 0, places: Mapping[str, str] | None = None
    ) -> SegmentationScores:
        """Returns the scores of all images added so far; they do not depend on the images' order.

        Precision, recall, F1 and kappa follow scikit-learn's definitions with `zero_division=nan`, IoU its
        `jaccard_score`; means are over the classes that have pixels in truth. The intervals are percentile intervals
        of a bootstrap over places: pixels of one image resemble each other, and so do two images of the same ground;
        drawing them singly would make the intervals far too narrow. A class's interval leaves out resamples in which
        it has no pixels. Where fewer than `FEWEST` places hold a class, or all resamples give the same score (as of
        a perfect one), Wilson's interval of as many trials as places stands instead, as if each place were all right
        or all wrong: that is wide, and never of no width.

        Args:
            resamples: number of resamples.
            seed: seed of them.
            places: by key, a name of the ground that an image shows; images of equal names are drawn together. None:
                every image is a place of its own.

        Raises:
            OptionError: if `resamples` is less than 1.
            EOKerasError: if no pixel's truth is known.
        """
        if resamples < 1:
            raise OptionError("resamples", f"it is {resamples}", "at least 1")
        matrix = self.confusion.matrix
        if not matrix.any():
            raise EOKerasError(
                "scores", f"{len(self.sums)} images without a labelled pixel", "at least one", "check the split's masks"
            )
        by_place = self.by_place(places)
        found = figures(by_place.sum(axis=0))
        drawn = [figures(sums) for sums in resampled(by_place, resamples, seed)]
        drawn = {name: np.concatenate([part[name] for part in drawn]) for name in found}
        holding = (by_place[:, 1] > 0).sum(axis=0)
        labelled = int((by_place[:, 1].sum(axis=1) > 0).sum())

        def of_class(name, k):
            return of_resamples(found[name][k], drawn[name][:, k], int(holding[k]))

        def of_all(name):
            return of_resamples(found[name], drawn[name], labelled)

        accuracy = of_all("accuracy")
        names = ("iou", "precision", "recall", "f1", "boundary_f1")
        classes = tuple(
            ClassIoU(name, int(support), int(predicted), *(of_class(score, k) for score in names))
            for k, (name, support, predicted) in enumerate(
                zip(self.class_names, matrix.sum(axis=1), matrix.sum(axis=0), strict=True)
            )
        )
        return SegmentationScores(
            images=len(self.sums),
            pixels=int(matrix.sum()),
            resampled=len(by_place),
            macro_iou=of_all("macro_iou"),
            macro_classes=int((holding > 0).sum()),
            frequency_weighted_iou=of_all("frequency_weighted_iou"),
            accuracy=accuracy,
            kappa=_kappa(found["kappa"], drawn["kappa"], accuracy, found["by_chance"]),
            boundary_f1=of_all("macro_boundary_f1"),
            tolerance=self.tolerance,
            classes=classes,
            confusion=tuple(tuple(int(value) for value in row) for row in matrix),
            bootstrap_resamples=int(resamples),
            bootstrap_seed=int(seed),
        )

    def by_place(self, places: Mapping[str, str] | None = None) -> np.ndarray:
        """Returns the sums of each place, int64 (places, 7, C), by the places' names; see `scores`."""
        keys = sorted(self.sums)
        by_image = np.stack([self.sums[key] for key in keys])
        if places is None:
            return by_image
        names, number = np.unique([places[key] for key in keys], return_inverse=True)
        sums = np.zeros((len(names), *by_image.shape[1:]), np.int64)
        np.add.at(sums, number, by_image)
        return sums


def _as_bytes(values: np.ndarray, where: str, name: str, expected: str) -> np.ndarray:
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8, copy=False)
    if not np.issubdtype(values.dtype, np.integer):
        raise LegendError(where, f"{name} are {values.dtype}", f"whole numbers {expected}")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 255:
        raise LegendError(where, f"{name} hold {low if low < 0 else high}", expected)
    return values.astype(np.uint8)


def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Returns scores by name, of sums (..., 7, C): (..., C) by class and (...) of all; NaN where there is none."""
    hits, support, predicted = np.moveaxis(np.asarray(sums[..., :_AREAS, :], np.float64), -2, 0)
    union, total = support + predicted - hits, support.sum(axis=-1)
    there = support > 0
    by_class = {
        "iou": boundary.share(hits, union),
        "precision": np.where(predicted > 0, boundary.share(hits, predicted), np.nan),
        "recall": boundary.share(hits, support),
        "f1": boundary.share(2 * hits, support + predicted),
        "boundary_f1": boundary.boundary_f1(sums[..., _AREAS:, :]),
    }
    by_class = {name: np.where(there, values, np.nan) for name, values in by_class.items()}
    observed = boundary.share(hits.sum(axis=-1), total)
    by_chance = boundary.share((support * predicted).sum(axis=-1), total**2)
    # Of the counts and not of `by_chance`, which may miss 1 by a rounding error.
    several = (union > 0).sum(axis=-1) > 1
    overall = {
        "macro_iou": _mean(by_class["iou"]),
        "frequency_weighted_iou": boundary.share(np.nansum(support * by_class["iou"], axis=-1), total),
        "accuracy": observed,
        "by_chance": by_chance,
        "kappa": np.divide(observed - by_chance, 1 - by_chance, out=np.full(observed.shape, np.nan), where=several),
        "macro_boundary_f1": _mean(by_class["boundary_f1"]),
    }
    for name, values in overall.items():
        overall[name] = np.where(total > 0, values, np.nan)
    return by_class | overall


def _mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the last axis of what is not NaN; NaN where nothing is."""
    count = (~np.isnan(values)).sum(axis=-1)
    return np.where(count > 0, boundary.share(np.nansum(values, axis=-1), count), np.nan)


def _kappa(value: np.ndarray, drawn: np.ndarray, accuracy: Estimate, by_chance: np.ndarray) -> Estimate | None:
    if np.isnan(value):
        return None
    if accuracy.method == BOOTSTRAP:
        low, high = np.percentile(drawn[~np.isnan(drawn)], [2.5, 97.5])
    else:
        # Kappa rises linearly with the accuracy, from 0 at what chance gives to 1.
        low, high = ((end - by_chance) / (1 - by_chance) for end in (accuracy.low, accuracy.high))
    return Estimate(float(value), max(-1.0, float(low)), float(high), accuracy.method)
