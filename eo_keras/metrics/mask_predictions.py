"""Predictions of tiles by a segmentation model, as pixel counts, and their CSV file."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping

import numpy as np

from eo_keras.core import files
from eo_keras.errors import RunError
from eo_keras.metrics.predictions import ClassPredictions
from eo_keras.metrics.scores import Scores
from eo_keras.metrics.segmentation import SegmentationScorer

_COUNTS = (
    *("correct", "true", "predicted"),
    *("boundary_predicted", "boundary_predicted_near", "boundary_true", "boundary_true_near"),
)
"""Names of the rows of `SegmentationScorer.sums`."""

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
        """Returns a header and a line a tile: key, place, and for each class the pixel counts of `_COUNTS`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = self.scorer.class_names
        writer.writerow([*_COLUMNS, *(f"{count}_{name}" for name in names for count in _COUNTS)])
        for key, sums in self.scorer.sums.items():
            writer.writerow([key, self.places[key] if self.places else "", *sums.T.ravel().tolist()])
        return text.getvalue()


def read_mask_predictions(path: str | os.PathLike[str], scores: Scores) -> MaskPredictions:
    """Reads the CSV file of `MaskPredictions.to_csv`, which holds no sample.

    Args:
        path: the file.
        scores: the scores of the same evaluation.

    Raises:
        RunError: if the file is missing or is no such file; the line is named.
    """
    names, line = scores.class_names, 1
    scorer = SegmentationScorer(names, tolerance=scores.details["boundary_tolerance"])
    places: dict[str, str] = {}
    try:
        rows = csv.reader(io.StringIO(files.read_bytes(path).decode("utf-8"), newline=""))
        header = next(rows)
        if header != [*_COLUMNS, *(f"{count}_{name}" for name in names for count in _COUNTS)]:
            raise ValueError(f"its columns are {','.join(header)[:120]}")
        for key, place, *counts in rows:
            line += 1
            scorer.sums[key] = np.array(counts, np.int64).reshape(len(names), len(_COUNTS)).T
            places[key] = place
        if not places:
            raise ValueError("there is no tile")
    except (OSError, ValueError, StopIteration, csv.Error) as error:
        raise RunError(
            path,
            f"line {line} cannot be read ({type(error).__name__}: {error})",
            f"{','.join(_COLUMNS)} and {len(_COUNTS)} columns for every class",
            "evaluate the run again with `force`",
        ) from None
    scorer.confusion = np.array(scores.confusion, np.int64)
    known = places if any(places.values()) else None
    return MaskPredictions(scorer, scores.value("negative_log_likelihood"), known)
