"""Scores of masks, from counts of pixels that add up over images, devices and workers. NumPy only.

Keras's own mean IoU (3.15) leaves out a label outside the legend, so that a mask of another legend scores 1; here it is
an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from eo_keras.errors import EOKerasError, LegendError, OptionError
from eo_keras.legends.catalogue import IGNORE
from eo_keras.metrics import boundary, confusion
from eo_keras.metrics.estimate import RESAMPLES, SEED, Estimate, of_resamples, resampled
from eo_keras.metrics.scores import Scores

_AREAS = 3  # Rows of an image's sums before those of its boundaries: correct, true and predicted pixels.
_OF_CLASS = ("iou", "precision", "recall", "f1", "boundary_f1")
_OF_ALL = ("miou", "frequency_weighted_iou", "accuracy", "boundary_f1")


class SegmentationScorer:
    """Scorer of masks that keeps seven numbers a class for each image.

    Attributes:
        class_names: names of the C classes in the legend's order.
        tolerance: tolerance of boundaries in pixels.
        ignore: the label of pixels whose truth is not known.
        confusion: int64 (C, C), pixels of all images: rows true, columns predicted.
        sums: int64 (7, C) of each image by its key: correct, true and predicted pixels, and `boundary_counts`.

    Args:
        class_names: names of the classes in the legend's order.
        tolerance: tolerance of correct boundaries in pixels.
        ignore: the label, 0..255 and no class, of pixels whose truth is not known.

    Raises:
        OptionError: if there are too many classes, `ignore` is one, or the tolerance is no distance.
    """

    def __init__(self, class_names: Sequence[str], *, tolerance: float = 2.0, ignore: int = IGNORE):
        classes = len(class_names)
        if not 1 <= classes <= 255:
            raise OptionError("class_names", f"{classes} of them", "1 to 255: masks are stored as bytes")
        if not classes <= ignore <= 255:
            raise OptionError("ignore", f"{ignore}", f"a number of {classes}..255, which is no class")
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise OptionError("tolerance", f"{tolerance}", "a number of pixels, 0 or more")
        self.class_names, self.tolerance, self.ignore = tuple(class_names), float(tolerance), ignore
        self.confusion = np.zeros((classes, classes), np.int64)
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
        classes = len(self.class_names)
        matrix = confusion.confusion_matrix(labels, predictions, classes, ignore=self.ignore, where=key)
        boundaries = boundary.boundary_counts(labels, predictions, labels != self.ignore, classes, self.tolerance)
        self.confusion += matrix
        self.sums[key] = np.concatenate([confusion.counts_of(matrix), boundaries])

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
            ("ignore", other.ignore, self.ignore),
        ):
            if found != expected:
                raise OptionError(name, f"{found}", f"{expected}, as of the scores that these are added to")
        self._check_new(list(other.sums))
        self.confusion += other.confusion
        self.sums |= other.sums

    def _check_new(self, keys: Sequence[str]) -> None:
        if twice := [key for key in keys if key in self.sums]:
            raise EOKerasError(twice[0], "the image was scored already", "every image once", "give images unlike keys")

    def scores(
        self,
        *,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        places: Mapping[str, str] | None = None,
        negative_log_likelihood: float | None = None,
    ) -> Scores:
        """Returns the scores of all images added so far; they do not depend on the images' order.

        Scores are those of `confusion.scores_of` and the boundary F1 (None where no class has a boundary). Intervals
        are percentile intervals of a bootstrap over places: pixels of one image resemble each other, and so do two
        images of the same ground; drawing them singly would make the intervals far too narrow. A class's interval
        leaves out resamples in which it has no pixels. Of few places, see `estimate.of_resamples`.

        Args:
            resamples: number of resamples.
            seed: seed of them.
            places: by key, a name of the ground that an image shows; images of equal names are drawn together. None:
                every image is a place of its own.
            negative_log_likelihood: mean of -log p(true class) over the labeled pixels, in nats, where it is known.

        Raises:
            OptionError: if `resamples` is less than 1.
            EOKerasError: if no pixel's truth is known.
        """
        if resamples < 1:
            raise OptionError("resamples", f"it is {resamples}", "at least 1")
        if not self.confusion.any():
            raise EOKerasError(
                "scores", f"{len(self.sums)} images without a labeled pixel", "at least one", "check the split's masks"
            )
        place_sums = by_place(list(self.sums), np.stack(list(self.sums.values())), places)
        of_class, of_all = scores_of(place_sums.sum(axis=0))
        drawn = [scores_of(sums) for sums in resampled(place_sums, resamples, seed)]
        drawn_of_class, drawn_of_all = (
            {name: np.concatenate([each[name] for each in one]) for name in one[0]} for one in zip(*drawn, strict=True)
        )
        holding = (place_sums[:, 1] > 0).sum(axis=0)
        labeled = int((place_sums[:, 1].sum(axis=1) > 0).sum())
        overall = {name: of_resamples(of_all[name], drawn_of_all[name], labeled) for name in _OF_ALL}
        overall["kappa"] = confusion.kappa_estimate(
            of_all["kappa"], overall["accuracy"], of_all["by_chance"], drawn_of_all["kappa"]
        )
        if negative_log_likelihood is not None:
            overall["negative_log_likelihood"] = Estimate(float(negative_log_likelihood))
        counts = confusion.counts_of(self.confusion)
        by_class = {}
        for k, (name, (_, support, predicted)) in enumerate(zip(self.class_names, counts.T.tolist(), strict=True)):
            by_class[name] = {"support": support, "predicted": predicted}
            by_class[name] |= {
                score: of_resamples(of_class[score][k], drawn_of_class[score][:, k], int(holding[k]))
                for score in _OF_CLASS
            }
        return Scores(
            task="segmentation",
            primary="miou",
            unit="pixels",
            count=int(self.confusion.sum()),
            overall=overall,
            by_class=by_class,
            confusion=tuple(tuple(row) for row in self.confusion.tolist()),
            details={
                "averaged_classes": int((holding > 0).sum()),
                "images": len(self.sums),
                "places": len(place_sums),
                "boundary_tolerance": self.tolerance,
                "resamples": int(resamples),
                "seed": int(seed),
            },
        )


def by_place(keys: Sequence[str], sums: np.ndarray, places: Mapping[str, str] | None = None) -> np.ndarray:
    """Returns the sums of each place, int64 (places, 7, C), by the places' names; by the keys where there are none.

    Args:
        keys: keys of the N images.
        sums: int64 (N, 7, C), their sums.
        places: by key, a name of the ground that an image shows.
    """
    if places is None:
        return sums[np.argsort(keys)]
    names, number = np.unique([places[key] for key in keys], return_inverse=True)
    total = np.zeros((len(names), *sums.shape[1:]), np.int64)
    np.add.at(total, number, sums)
    return total


def scores_of(sums: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the scores of sums (..., 7, C): those of `confusion.scores_of` and boundary F1, by class and of all."""
    by_class, overall = confusion.scores_of(sums[..., :_AREAS, :])
    there = sums[..., 1, :] > 0
    by_class["boundary_f1"] = np.where(there, boundary.boundary_f1(sums[..., _AREAS:, :]), np.nan)
    overall["boundary_f1"] = confusion.mean_of_classes(by_class["boundary_f1"])
    return by_class, overall
