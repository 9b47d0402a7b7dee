"""Predictions of labeled images, as arrays and as a lossless CSV file."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence

import numpy as np

from eo_keras.core import files
from eo_keras.errors import RunError
from eo_keras.metrics import calibration

PREDICTIONS_NAME = "predictions.csv"
_COLUMNS = ("key", "true", "predicted", "probability")
_PREFIX = "p_"


@dataclasses.dataclass(frozen=True)
class PredictedSample:
    """One example with its true and predicted label.

    Attributes:
        key: its key.
        image: stored numbers (height, width, band); of several inputs by their names.
        labels: its class, or uint8 (height, width), `IGNORE` where the truth is not known.
        predictions: its predicted class, or uint8 (height, width); None where that is known otherwise.
    """

    key: str
    image: np.ndarray | Mapping[str, np.ndarray]
    labels: np.ndarray
    predictions: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class ClassPredictions:
    """Predicted probabilities of N labeled images, in their stored order.

    Attributes:
        labels: int64 (N,), the true labels.
        probabilities: float (N, C), the predicted probabilities.
        keys: N keys of the examples; empty where the pipeline was made without.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    keys: tuple[str, ...] = ()

    @property
    def predictions(self) -> np.ndarray:
        """Most probable class of each image, the first one of equals; int64 (N,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction is the true label, bool (N,)."""
        return self.predictions == self.labels

    @property
    def confidences(self) -> np.ndarray:
        """Probability of each predicted class, float (N,)."""
        return self.probabilities.max(axis=1)

    def captions(
        self, places: Sequence[int], class_names: Sequence[str]
    ) -> tuple[list[str], list[str], np.ndarray, list[str]]:
        """Returns true names, predicted names, top probabilities and keys of some examples, for figures."""
        predictions = self.predictions
        return (
            [class_names[self.labels[place]] for place in places],
            [class_names[predictions[place]] for place in places],
            self.confidences[places],
            [self.keys[place] for place in places],
        )

    def with_probabilities(self, probabilities: np.ndarray) -> ClassPredictions:
        """Returns the predictions with other float32 probabilities of the same order of classes.

        Rounded, two classes may become equal; the predicted one stays ahead.
        """
        found = np.array(probabilities, np.float32)
        rows = np.flatnonzero(found.argmax(axis=1) != self.predictions)
        found[rows, self.predictions[rows]] = np.nextafter(found[rows].max(axis=1), np.float32(2))
        return dataclasses.replace(self, probabilities=found)

    def calibrated(self, temperature: float) -> ClassPredictions:
        """Returns the same predictions with probabilities whose logits are divided by a temperature."""
        return self.with_probabilities(calibration.apply_temperature(self.probabilities, temperature))

    def cross_entropy(self) -> float:
        """Returns the mean negative logarithm of the true class's probability, in nats."""
        return calibration.negative_log_likelihood(self.probabilities[np.arange(len(self.labels)), self.labels])

    def accuracy(self) -> float:
        """Returns the share of correct predictions."""
        return float(self.correct.mean())

    def to_csv(self, class_names: Sequence[str]) -> str:
        """Returns a header and a line an example: key, true and predicted name, top probability, all probabilities.

        Nine significant digits give every float32 back to the bit, so that the file can be scored again.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*_COLUMNS, *(f"{_PREFIX}{name}" for name in class_names)])
        for key, label, predicted, row in zip(
            self.keys, self.labels, self.predictions, self.probabilities, strict=True
        ):
            values = [f"{value:.9g}" for value in row]
            writer.writerow([key, class_names[label], class_names[predicted], values[predicted], *values])
        return text.getvalue()


def read_predictions(path: str | os.PathLike[str]) -> tuple[ClassPredictions, tuple[str, ...]]:
    """Reads the CSV file of `ClassPredictions.to_csv`.

    Returns:
        The predictions with float32 probabilities, and the names of the classes in the legend's order.

    Raises:
        RunError: if the file is missing or is no such file; the line is named.
    """
    line = 1
    try:
        rows = csv.reader(io.StringIO(files.read_bytes(path).decode("utf-8"), newline=""))
        header = next(rows)
        names = tuple(column.removeprefix(_PREFIX) for column in header[len(_COLUMNS) :])
        if header != [*_COLUMNS, *(f"{_PREFIX}{name}" for name in names)] or not names:
            raise ValueError(f"its columns are {','.join(header)[:120]}")
        label_of = {name: label for label, name in enumerate(names)}
        keys, labels, probabilities = [], [], []
        for row in rows:
            line += 1
            if len(row) != len(header):
                raise ValueError(f"{len(row)} columns instead of {len(header)}")
            keys.append(row[0])
            labels.append(label_of[row[1]])
            probabilities.append([float(value) for value in row[len(_COLUMNS) :]])
        if not keys:
            raise ValueError("there is no example")
    except (OSError, ValueError, KeyError, StopIteration, csv.Error) as error:
        raise RunError(
            path,
            f"line {line} cannot be read ({type(error).__name__}: {error})",
            f"{','.join(_COLUMNS)} and a column p_NAME for every class",
            "evaluate the run again with `force`",
        ) from None
    return ClassPredictions(np.array(labels, np.int64), np.array(probabilities, np.float32), tuple(keys)), names
