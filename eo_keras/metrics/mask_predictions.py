"""Predictions of tiles by a segmentation model, as counts, and their CSV file."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping

import numpy as np

from eo_keras.core import files
from eo_keras.errors import RunError
from eo_keras.metrics import objects
from eo_keras.metrics.predictions import ClassPredictions
from eo_keras.metrics.scores import Scores
from eo_keras.metrics.segmentation import EARLIER_ROWS, SegmentationScorer

_COLUMNS = ("key", "place")


@dataclasses.dataclass(frozen=True)
class MaskPredictions:
    """Predictions of tiles, as pixel counts.

    Attributes:
        scorer: the counts of all tiles.
        cross_entropy: mean negative logarithm of the true class's probability over the labeled pixels, in nats.
        places: by key, a name of the ground that a tile shows; None where it is not known.
        sample: labels and probabilities of some of the labeled pixels, or None.
    """

    scorer: SegmentationScorer
    cross_entropy: float
    places: Mapping[str, str] | None = None
    sample: ClassPredictions | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the tiles."""
        return tuple(self.scorer.sums)

    def to_csv(self) -> str:
        """Returns a header and a line a tile: key, place, and for each class the counts of `SegmentationScorer`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns, stored = _columns(self.scorer)
        writer.writerow(columns)
        for key, sums in self.scorer.sums.items():
            writer.writerow([key, self.places[key] if self.places else "", *sums.T[stored].tolist()])
        return text.getvalue()


def _columns(scorer: SegmentationScorer) -> tuple[list[str], np.ndarray]:
    """Returns the columns' names, and bool (C, R) which counts of classes they hold: of objects those of one class."""
    stored = np.array(
        [
            [row not in objects.COUNTS or name == scorer.object_class for row in scorer.rows]
            for name in scorer.class_names
        ]
    )
    names = [f"{row}_{name}" for name in scorer.class_names for row in scorer.rows]
    return [*_COLUMNS, *(name for name, kept in zip(names, stored.ravel(), strict=True) if kept)], stored


def read_mask_predictions(path: str | os.PathLike[str], scores: Scores) -> MaskPredictions:
    """Reads the CSV file of `MaskPredictions.to_csv`, which holds no sample.

    Args:
        path: the file.
        scores: the scores of the same evaluation.

    Raises:
        RunError: if the file is missing or is no such file; the line is named.
    """
    details, line = scores.details, 1
    if "boundary_tolerance" in details:  # An earlier version's.
        scorer = SegmentationScorer(scores.class_names, areas_only=True)
        scorer.rows = EARLIER_ROWS
    else:
        scorer = SegmentationScorer(
            scores.class_names,
            tolerances=details["boundary_tolerances"],
            width=details["boundary_width"],
            object_class=details["object_class"],
        )
    columns, stored = _columns(scorer)
    places: dict[str, str] = {}
    try:
        rows = csv.reader(io.StringIO(files.read_bytes(path).decode("utf-8"), newline=""))
        header = next(rows)
        if header != columns:
            raise ValueError(f"its columns are {','.join(header)[:120]}")
        for key, place, *counts in rows:
            line += 1
            sums = np.zeros(stored.shape, np.int64)
            sums[stored] = np.array(counts, np.int64)
            scorer.sums[key] = sums.T
            places[key] = place
        if not places:
            raise ValueError("there is no tile")
    except (OSError, ValueError, StopIteration, csv.Error) as error:
        raise RunError(
            path,
            f"line {line} cannot be read ({type(error).__name__}: {error})",
            f"{','.join(_COLUMNS)} and counts of every class",
            "evaluate the run again with `force`",
        ) from None
    scorer.confusion = np.array(scores.confusion, np.int64)
    known = places if any(places.values()) else None
    return MaskPredictions(scorer, scores.value("negative_log_likelihood"), known)
