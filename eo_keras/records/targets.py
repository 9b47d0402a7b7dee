"""Layout of the labels of each task: one class for an image, or one for every pixel.

Code that reads, writes, counts or draws labels takes this layout from the card, and does not compare tasks' names.
"""

from __future__ import annotations

import dataclasses
import math

from eo_keras.errors import OptionError, RecordsError


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


_MOST_DISTANCES = 253
"""Largest odd number of classes that leaves 255 for pixels whose class is not known."""


@dataclasses.dataclass(frozen=True)
class DistanceClasses:
    """Classes of the distance from the boundaries of one class's objects, see `eo_keras.geo.distance_classes`.

    Attributes:
        truncation: distance in pixels from which on all is one class.
        classes: number of classes, odd; the middle one straddles the boundary, larger ones lie inside.
        objects: name of the class that the objects are of.
    """

    truncation: float
    classes: int
    objects: str = "Building"

    def __post_init__(self):
        """Checks the values.

        Raises:
            OptionError: if the number of classes is even, below 3 or too large for a byte, or the truncation not above
                0.
        """
        if not (3 <= self.classes <= _MOST_DISTANCES and self.classes % 2):
            raise OptionError(
                "distance_classes",
                f"{self.classes}",
                f"an odd number from 3 to {_MOST_DISTANCES}, so that the middle class straddles the boundary",
                f"say `distance_classes={min(max(3, self.classes // 2 * 2 + 1), _MOST_DISTANCES)}`",
            )
        if not 0 < self.truncation < math.inf:
            raise OptionError("distance_truncation", f"{self.truncation:g}", "pixels above 0")


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
