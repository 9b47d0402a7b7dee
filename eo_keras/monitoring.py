"""What TensorBoard shows of a run: scalars by step and epoch, and pictures of what the model answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from eo_keras import dense_figures, reports, runs
from eo_keras.cards import DataCard
from eo_keras.dense_evaluation import DenseAnswers
from eo_keras.evaluation import Answers
from eo_keras.metrics import confusion_matrix
from eo_keras.output_folders import OutputFolder

SHOWN = 32
"""Number of validation examples that are shown with their answers."""

_NAME = "events.out.tfevents.{:07d}.epoch"
"""TensorBoard reads the files of a folder in the order of their names."""

_SCALARS = {
    "loss": "epoch/loss",
    "accuracy": "epoch/accuracy",
    "val_loss": "epoch/validation_loss",
    "val_accuracy": "epoch/validation_accuracy",
    "val_miou": "epoch/validation_miou",
    "learning_rate": "epoch/learning_rate",
    "images_per_second": "epoch/images_per_second",
}


def _name(epoch: int) -> str:
    return f"{runs.TENSORBOARD_DIR}/{_NAME.format(epoch)}"


class Monitor:
    """Writes TensorBoard's event files: one an epoch, before that epoch's checkpoint is made to count.

    So whoever goes on from a checkpoint can take away what belongs to later epochs, and there is one curve.

    Args:
        output: the run folder.
        flags: text of the flags, shown beside the first epoch.
    """

    def __init__(self, output: OutputFolder, flags: str = ""):
        self._output, self._flags = output, flags

    @staticmethod
    def cut(output: OutputFolder, epochs: int) -> None:
        """Removes the event files of all but the first epochs."""
        kept = {_name(number) for number in range(1, epochs + 1)}
        inside = [name for name in output.listed() if name.startswith(f"{runs.TENSORBOARD_DIR}/")]
        output.remove([name for name in inside if name not in kept])

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
        name = _name(row["epoch"])
        with runs.storage_errors(self._output.path(name)), self._output.new_path(name) as path:
            writer = tf.summary.create_file_writer(str(path.parent))
            with writer.as_default():
                if row["epoch"] == 1:
                    # Shown with its line breaks and spaces.
                    tf.summary.text("flags", "\n".join(f"    {line}" for line in self._flags.splitlines()), 0)
                for step, loss, rate in steps:
                    tf.summary.scalar("step/loss", loss, step)
                    tf.summary.scalar("step/learning_rate", rate, step)
                for column, tag in _SCALARS.items():
                    if row.get(column) is not None:
                        tf.summary.scalar(tag, row[column], row["step"])
                for title, png in pictures.items():
                    tf.summary.image(title, tf.io.decode_png(png, channels=3)[tf.newaxis], row["step"])
            writer.close()
            (written,) = path.parent.iterdir()
            os.rename(written, path)


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


def dense_pictures(answers: DenseAnswers, card: DataCard, bands: Sequence[str], title: str) -> dict[str, bytes]:
    """Draws a model's maps: the confusion matrix over all pixels, and the first tiles beside truth and answer.

    Args:
        answers: the answers.
        card: the card of the records folder.
        bands: the tiles' bands.
        title: title of the figures.

    Returns:
        PNG images by name.
    """
    return {
        "validation/confusion_matrix": reports.confusion_matrix_png(
            answers.scorer.confusion.matrix, card.legend.class_names, title
        ),
        "validation/samples": dense_figures.maps_png(answers.shown, card, bands, title),
    }
