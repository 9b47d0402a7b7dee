"""What TensorBoard shows of a run: scalars by step and epoch, and pictures of what the model answers."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from eo_keras import reports
from eo_keras.cards import DataCard
from eo_keras.evaluation import Answers
from eo_keras.metrics import confusion_matrix

SHOWN = 32
"""Number of validation examples that are shown with their answers."""

_SCALARS = {
    "loss": "epoch/loss",
    "accuracy": "epoch/accuracy",
    "val_loss": "epoch/validation_loss",
    "val_accuracy": "epoch/validation_accuracy",
    "learning_rate": "epoch/learning_rate",
    "images_per_second": "epoch/images_per_second",
}


class Monitor:
    """Writes TensorBoard's event files, an epoch at a time, after that epoch's checkpoint.

    So a run that goes on from a checkpoint has written nothing that belongs to a later step than the checkpoint's.

    Args:
        folder: where the event files go; one more file each time a run is gone on with.
    """

    def __init__(self, folder: str | pathlib.Path):
        self._writer = tf.summary.create_file_writer(str(folder))

    def text(self, name: str, content: str) -> None:
        """Writes a text, shown with its line breaks and spaces."""
        with self._writer.as_default(step=0):
            tf.summary.text(name, "\n".join(f"    {line}" for line in content.splitlines()))

    def epoch(
        self,
        row: Mapping[str, float | None],
        steps: Iterable[tuple[int, float, float]],
        pictures: Mapping[str, bytes],
    ) -> None:
        """Writes one epoch.

        Args:
            row: its line of the history.
            steps: step, loss and learning rate of some of its steps.
            pictures: PNG images by name.
        """
        with self._writer.as_default():
            for step, loss, rate in steps:
                tf.summary.scalar("step/loss", loss, step)
                tf.summary.scalar("step/learning_rate", rate, step)
            for column, name in _SCALARS.items():
                if row.get(column) is not None:
                    tf.summary.scalar(name, row[column], row["step"])
            for name, png in pictures.items():
                tf.summary.image(name, tf.io.decode_png(png, channels=3)[tf.newaxis], row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


def answer_pictures(
    answers: Answers, images: Sequence[np.ndarray], card: DataCard, bands: Sequence[str], title: str
) -> dict[str, bytes]:
    """Draws a model's answers: the confusion matrix over all, and the first examples with their names.

    Args:
        answers: the answers, with keys.
        images: the first examples' images (height, width, band), stored numbers.
        card: the card of the records folder.
        bands: the images' bands.
        title: title of the figures.

    Returns:
        PNG images by name.
    """
    names = card.legend.class_names
    confusion = confusion_matrix(answers.labels, answers.predictions, len(names))
    samples = reports.samples_png(
        [reports.to_display(image, bands, card.dtype) for image in images],
        *answers.captions(range(len(images)), names),
        title,
    )
    return {
        "validation/confusion_matrix": reports.confusion_matrix_png(confusion, names, title),
        "validation/samples": samples,
    }
