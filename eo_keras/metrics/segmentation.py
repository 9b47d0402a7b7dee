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
from eo_keras.metrics import boundary, confusion, objects
from eo_keras.metrics.estimate import RESAMPLES, SEED, Estimate, of_resamples, resampled
from eo_keras.metrics.scores import Scores

TOLERANCES = (1.0, 3.0, 5.0)
"""Tolerances of boundaries in pixels."""

AREAS = ("correct", "true", "predicted")
"""Names of the first rows of an image's sums: numbers of its pixels by class."""

EARLIER_ROWS = (*AREAS, *(f"boundary_{name}" for name in ("predicted", "predicted_near", "true", "true_near")))
"""Names of all rows in files of earlier versions, which knew one tolerance of boundaries."""

_PREDICTED, _TRUE = "boundary_predicted", "boundary_true"
_REGION = "boundary_region"


class SegmentationScorer:
    """Scorer of masks that keeps some numbers a class for each image.

    Attributes:
        class_names: names of the C classes in the legend's order.
        tolerances: tolerances of boundaries in pixels.
        width: width of boundary regions in pixels; None for 2 % of each image's diagonal.
        object_class: name of the class whose objects are counted, or None.
        ignore: the label of pixels whose truth is not known.
        rows: names of the R rows of an image's sums.
        confusion: int64 (C, C), pixels of all images: rows true, columns predicted.
        sums: int64 (R, C) of each image by its key: correct, true and predicted pixels, `boundary.boundary_counts`,
            `boundary.region_counts`, and in the column of the object class `objects.object_counts`.

    Args:
        class_names: names of the classes in the legend's order.
        tolerances: tolerances of correct boundaries in pixels.
        width: width of boundary regions in pixels; None for 2 % of each image's diagonal.
        object_class: class whose objects are counted; None for the second of two classes, and no class of more.
        areas_only: whether boundaries and objects are left out.
        ignore: the label, 0..255 and no class, of pixels whose truth is not known.

    Raises:
        OptionError: if there are too many classes, `ignore` is one, the object class is none, or a tolerance or the
            width is no distance.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        tolerances: Sequence[float] = TOLERANCES,
        width: float | None = None,
        object_class: str | None = None,
        areas_only: bool = False,
        ignore: int = IGNORE,
    ):
        classes = len(class_names)
        if not 1 <= classes <= 255:
            raise OptionError("class_names", f"{classes} of them", "1 to 255: masks are stored as bytes")
        if not classes <= ignore <= 255:
            raise OptionError("ignore", f"{ignore}", f"a number of {classes}..255, which is no class")
        if not all(math.isfinite(one) and one >= 0 for one in tolerances) or len(set(tolerances)) < len(tolerances):
            raise OptionError(
                "tolerances", f"{', '.join(map(str, tolerances))}", "numbers of pixels, 0 or more, each once"
            )
        if width is not None and not (math.isfinite(width) and width >= 1):
            raise OptionError("width", f"{width}", "a number of pixels, 1 or more")
        self.class_names, self.ignore, self.width = tuple(class_names), ignore, width
        self.tolerances = () if areas_only else tuple(map(float, tolerances))
        self.object_class = None if areas_only else objects.object_class(self.class_names, object_class)
        self.rows = AREAS
        if not areas_only:
            near = (f"{side}_near_{tolerance:g}" for tolerance in self.tolerances for side in (_PREDICTED, _TRUE))
            wide = "" if width is None else f"_{width:g}"
            regions = (f"{_REGION}_{name}{wide}" for name in ("both", "true", "predicted"))
            self.rows += (_PREDICTED, _TRUE, *near, *regions)
        if self.object_class is not None:
            self.rows += objects.COUNTS
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
        counts, masks = [confusion.counts_of(matrix)], (labels, predictions, labels != self.ignore)
        if _TRUE in self.rows:
            width = boundary.region_width(labels.shape) if self.width is None else self.width
            counts.append(boundary.boundary_counts(*masks, classes, self.tolerances))
            counts.append(boundary.region_counts(*masks, classes, width))
        if self.object_class is not None:
            of_class = self.class_names.index(self.object_class)
            counts.append(np.zeros((len(objects.COUNTS), classes), np.int64))
            counts[-1][:, of_class] = objects.object_counts(*masks, of_class)
        self.confusion += matrix
        self.sums[key] = np.concatenate(counts)

    def merge(self, other: SegmentationScorer) -> None:
        """Adds all images of another scorer.

        Raises:
            LegendError: if its classes are others.
            OptionError: if it scores boundaries or objects in another way, or ignores another label.
            EOKerasError: if an image is in both.
        """
        if other.class_names != self.class_names:
            found, expected = ", ".join(other.class_names), ", ".join(self.class_names)
            raise LegendError("scores", f"the classes {found}", f"{expected}, as in the others")
        for name in ("tolerances", "width", "object_class", "rows", "ignore"):
            found, expected = getattr(other, name), getattr(self, name)
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

        Scores are those of `scores_of`; those of boundaries are None where no class has one. Intervals are percentile
        intervals of a bootstrap over places: pixels of one image resemble each other, and so do two images of the same
        ground; drawing them singly would make the intervals far too narrow. A class's interval leaves out resamples in
        which it has no pixels. Of few places, see `estimate.of_resamples`.

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
        of_class, of_all = scores_of(place_sums.sum(axis=0), self.rows)
        drawn = [scores_of(sums, self.rows) for sums in resampled(place_sums, resamples, seed)]
        drawn_of_class, drawn_of_all = (
            {name: np.concatenate([each[name] for each in one]) for name in one[0]} for one in zip(*drawn, strict=True)
        )
        holding = (place_sums[:, 1] > 0).sum(axis=0)
        labeled = int((place_sums[:, 1].sum(axis=1) > 0).sum())
        overall = {
            name: of_resamples(of_all[name], drawn_of_all[name], labeled)
            for name in ("miou", "frequency_weighted_iou", "accuracy")
        }
        overall["kappa"] = confusion.kappa_estimate(
            of_all["kappa"], overall["accuracy"], of_all["by_chance"], drawn_of_all["kappa"]
        )
        for name, value in of_all.items():
            if name.startswith("boundary_"):
                overall[name] = of_resamples(value, drawn_of_all[name], labeled)
            elif name.startswith("object_"):
                there = int((place_sums[:, -len(objects.COUNTS) :].sum(axis=(1, 2)) > 0).sum())
                overall[name] = of_resamples(value, drawn_of_all[name], there)
        if negative_log_likelihood is not None:
            overall["negative_log_likelihood"] = Estimate(float(negative_log_likelihood))
        counts = confusion.counts_of(self.confusion)
        by_class = {}
        for k, (name, (_, support, predicted)) in enumerate(zip(self.class_names, counts.T.tolist(), strict=True)):
            by_class[name] = {"support": support, "predicted": predicted}
            by_class[name] |= {
                score: of_resamples(values[k], drawn_of_class[score][:, k], int(holding[k]))
                for score, values in of_class.items()
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
                "boundary_tolerances": list(self.tolerances),
                "boundary_width": self.width,
                "object_class": self.object_class,
                "resamples": int(resamples),
                "seed": int(seed),
            },
        )


def by_place(keys: Sequence[str], sums: np.ndarray, places: Mapping[str, str] | None = None) -> np.ndarray:
    """Returns the sums of each place, int64 (places, R, C), by the places' names; by the keys where there are none.

    Args:
        keys: keys of the N images.
        sums: int64 (N, R, C), their sums.
        places: by key, a name of the ground that an image shows.
    """
    if places is None:
        return sums[np.argsort(keys)]
    names, number = np.unique([places[key] for key in keys], return_inverse=True)
    total = np.zeros((len(names), *sums.shape[1:]), np.int64)
    np.add.at(total, number, sums)
    return total


def scores_of(sums: np.ndarray, rows: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the scores of sums, by name.

    Those of `confusion.scores_of`; of boundaries `boundary_f1_<tolerance>` and `boundary_iou` (of a chosen width
    `boundary_iou_<width>`), whose means are over the classes that have pixels and a boundary; and of all classes those
    of `objects.object_scores`.

    Args:
        sums: (..., R, C) sums of images, see `SegmentationScorer`.
        rows: names of the R rows; scores of which there are no counts are left out.

    Returns:
        float64 (..., C) of each class, and (...) of all; NaN where a score is not defined.
    """
    by_class, overall = confusion.scores_of(sums[..., : len(AREAS), :])
    counts = dict(zip(rows, np.moveaxis(np.asarray(sums, np.float64), -2, 0), strict=True))
    boundaries = {}
    for name in rows:
        tolerance = name.removeprefix(f"{_TRUE}_near")
        if name != tolerance:
            near = counts[f"{_PREDICTED}_near{tolerance}"]
            boundaries[f"boundary_f1{tolerance}"] = boundary.boundary_f1(
                counts[_PREDICTED], near, counts[_TRUE], counts[name]
            )
        width = name.removeprefix(f"{_REGION}_both")
        if name != width:
            regions = (counts[f"{_REGION}_{one}{width}"] for one in ("both", "true", "predicted"))
            boundaries[f"boundary_iou{width}"] = boundary.boundary_iou(*regions)
    for name, values in boundaries.items():
        by_class[name] = np.where(counts["true"] > 0, values, np.nan)
        overall[name] = confusion.mean_of_classes(by_class[name])
    if objects.COUNTS[0] in rows:
        overall |= objects.object_scores(*(counts[name].sum(axis=-1) for name in objects.COUNTS))
    return by_class, overall
