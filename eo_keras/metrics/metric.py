"""A score by which epochs and runs are compared: its name in files, and how it is shown."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score of examples that a model was not trained on.

    Attributes:
        name: its name in metrics.json; in history.csv, after `val_`.
        title: what it is called in texts and figures.
        mode: `max` where more is better, `min` where less is.
        form: format of its value in texts.
    """

    name: str
    title: str
    mode: str = "max"
    form: str = ".4f"

    @property
    def column(self) -> str:
        """Its column in history.csv."""
        return f"val_{self.name}"

    def rank(self, value: float) -> float:
        """Returns a number that is larger where the score is better; what is not finite is the worst."""
        if not math.isfinite(value):
            return -math.inf
        return value if self.mode == "max" else -value

    def text(self, value: float) -> str:
        """Returns title and value."""
        return f"{self.title} {value:{self.form}}"


LOSS = Metric("loss", "loss", mode="min")
ACCURACY = Metric("accuracy", "accuracy", form=".2%")
MIOU = Metric("miou", "mIoU")

METRICS = {metric.name: metric for metric in (LOSS, ACCURACY, MIOU)}
"""The scores of validation examples, by name."""
