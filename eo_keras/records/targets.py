"""Layout of the labels of each task: one class for an image, or one for every pixel.

Whatever reads, writes, counts or shows labels asks the card of the records for this layout, and not for a task's name.
"""

from __future__ import annotations

import dataclasses

from eo_keras.errors import RecordsError


@dataclasses.dataclass(frozen=True)
class Targets:
    """Layout of the labels in records.

    Attributes:
        per_pixel: whether every pixel has a class, which is stored as a mask with its validity.
        dtype: type of parsed labels.
        examples: name of the examples, in the plural.
        counted: name of the units that a split counts by class, in the plural.
    """

    per_pixel: bool
    dtype: str
    examples: str
    counted: str

    def shape(self, patch_size: int) -> tuple[int, ...]:
        """Returns the shape of one example's label, for images of so many pixels' height and width."""
        return (patch_size, patch_size) if self.per_pixel else ()


CLASS_LABEL = Targets(per_pixel=False, dtype="int32", examples="patches", counted="examples")
"""A patch has one class."""

PIXEL_LABELS = Targets(per_pixel=True, dtype="uint8", examples="tiles", counted="clear pixels")
"""Every pixel of a tile has a class, or none where the ground is not seen."""

TARGETS = {"classification": CLASS_LABEL, "segmentation": PIXEL_LABELS}
"""The layout of each task, by the name that `DataCard.task` holds."""


def of_task(name: str) -> Targets:
    """Returns the layout of a task's labels.

    Raises:
        RecordsError: if the task is unknown.
    """
    if name not in TARGETS:
        raise RecordsError("task", f"'{name}'", f"one of {', '.join(TARGETS)}", "update EO-Keras")
    return TARGETS[name]
