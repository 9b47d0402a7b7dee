"""TensorBoard's event files of a run: scalars by step and epoch, and figures of predictions.

The folder holds two runs, as Keras's own callback writes them: `train` and `validation`, whose scalars of an epoch have
equal names and stand in one chart. `epoch/...` counts epochs, `step/...` counts steps, and no other tag has both.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from eo_keras.core import files
from eo_keras.core.manifests import Written
from eo_keras.core.output_folders import OutputFolder
from eo_keras.runs import event_files
from eo_keras.runs.event_files import EPOCH, SESSION, STEPS, TRAIN, VALIDATION, name_of

NUM_SAMPLES = 8
"""Number of validation examples that are drawn with their predictions; TensorBoard's thumbnails are small."""

_TRAINING = ("loss", "accuracy", "learning_rate", "images_per_second")
"""Columns of the history that are shown for training, besides what the loss is made of; all are for validation."""


class TensorBoardLogger:
    """Writer of TensorBoard's event files, those of an epoch before its checkpoint is complete.

    So a run that is resumed from a checkpoint can remove what belongs to later epochs, and there is one curve. The
    steps of the current epoch are shown as they are taken; after a resumption they are written from its first step on.

    Args:
        output: the run folder.
        flags: text of the flags, shown beside the first epoch.
    """

    def __init__(self, output: OutputFolder, flags: str = ""):
        self._output, self._flags = output, flags
        self._epoch, self._written = 0, 0

    @staticmethod
    def cut(output: OutputFolder, epochs: int) -> None:
        """Removes the event files of all but the first epochs."""
        kept = {
            name_of(run, file, n) for run in (TRAIN, VALIDATION) for file in (STEPS, EPOCH) for n in range(epochs + 1)
        }
        kept.add(name_of(TRAIN, SESSION))
        inside = [name for name in output.listed() if name.startswith(f"{event_files.TENSORBOARD_DIR}/")]
        output.remove([name for name in inside if name not in kept])

    def steps(self, epoch: int, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Writes steps of the current epoch.

        Args:
            epoch: number of the epoch, counted from 1.
            points: all its steps so far that are to be shown, each with its numbers by name; those that were shown
                before are skipped.
        """
        name = name_of(TRAIN, STEPS, epoch)
        path = self._output.path(name)
        if epoch != self._epoch:
            self._epoch, self._written = epoch, 0
            self._output.announce([name])
            files.make_folder(path.parent)
            files.write_bytes(path, event_files.begin())
        new = points[self._written :]
        self._written = len(points)
        if new:
            summaries = [
                (step, event_files.scalar(f"step/{name}", numbers[name])) for name in new[0][1] for step, numbers in new
            ]
            with files.storage_errors(path), open(path, "ab") as file:
                file.write(event_files.events(summaries))

    def epoch(
        self,
        row: Mapping[str, float | None],
        steps: Sequence[tuple[int, Mapping[str, float]]],
        pictures: Mapping[str, bytes],
    ) -> None:
        """Writes one epoch.

        Args:
            row: its line of the history.
            steps: some of its steps, as for `steps`.
            pictures: PNG images by name, of validation examples.
        """
        epoch = row["epoch"]
        self.steps(epoch, steps)
        name = name_of(TRAIN, STEPS, epoch)
        self._output.note({name: Written.of_file(self._output.path(name))})
        found: dict[str, list] = {TRAIN: [], VALIDATION: []}
        shown = {*_TRAINING, *steps[0][1]}
        if epoch == 1:
            # Shown with its line breaks and spaces.
            lines = "\n".join(f"    {line}" for line in self._flags.splitlines())
            found[TRAIN].append((0, event_files.text("flags", lines)))
        for column, value in row.items():
            name = column.removeprefix("val_")
            if value is not None and (name != column or name in shown):
                found[TRAIN if name == column else VALIDATION].append(
                    (epoch, event_files.scalar(f"epoch/{name}", value))
                )
        for title, png in pictures.items():
            found[VALIDATION].append((epoch, event_files.image(title, png, *struct.unpack(">II", png[16:24]))))
        contents = {run: event_files.begin() + event_files.events(events) for run, events in found.items() if events}
        self._output.write({name_of(run, EPOCH, epoch): data for run, data in contents.items()})
