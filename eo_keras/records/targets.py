"""Layout of the labels of each task: one class for an image, or one for every pixel.

Code that reads, writes, counts or draws labels takes this layout from the card, and does not compare tasks' names.
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
"""Layout of patches: one class for the image."""

PIXEL_LABELS = Targets(per_pixel=True, dtype="uint8", examples="tiles", counted="clear pixels")
"""Layout of tiles: one class for every pixel, or `IGNORE`."""

TARGETS = {"classification": CLASS_LABEL, "segmentation": PIXEL_LABELS}
"""Layouts by the name in `DataCard.task`."""


def of_task(name: str) -> Targets:
    """Returns the layout of a task's labels.

    Raises:
        RecordsError: if the task is unknown.
    """
    if name not in TARGETS:
        raise RecordsError("task", f"'{name}'", f"one of {', '.join(TARGETS)}", "update EO-Keras")
    return TARGETS[name]
