"""Metric by which epochs and runs are compared, with its names and formats."""

from __future__ import annotations

import dataclasses
import math
import re

from eo_keras.core.number_format import ABSENT


@dataclasses.dataclass(frozen=True)
class Metric:
    """Metric of examples that a model was not trained on.

    Attributes:
        name: its name in metrics.json; in history.csv, after `val_`.
        title: its name in texts and figures.
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
        """Returns a number that is larger for better scores; a score that is not finite is the worst."""
        if not math.isfinite(value):
            return -math.inf
        return value if self.mode == "max" else -value

    def text(self, value: float) -> str:
        """Returns title and value as text."""
        return f"{self.title} {value:{self.form}}"

    def show(self, value: float | None) -> str:
        """Formats a value for tables: a dash for None, and no minus before a zero."""
        return ABSENT if value is None else f"{value:z{self.form}}"

    def show_interval(self, ends: tuple[float, float] | None) -> str:
        """Formats an interval for tables, such as `96.10% to 98.20%`; a dash for None."""
        return ABSENT if ends is None else f"{self.show(ends[0])} to {self.show(ends[1])}"

    def show_difference(self, value: float) -> str:
        """Formats a difference of two values with its sign, of shares in percentage points."""
        return f"{100 * value:+z.2f}" if self.in_percent else f"{value:+z{self.form}}"

    @property
    def in_percent(self) -> bool:
        """Whether values are shown in per cent."""
        return self.form.endswith("%")


LOSS = Metric("loss", "loss", mode="min")
ACCURACY = Metric("accuracy", "accuracy", form=".2%")
MIOU = Metric("miou", "mIoU")
EXPLAINED_VARIANCE = Metric("explained_variance", "explained variance", form=".2%")

METRICS = {
    metric.name: metric
    for metric in (
        LOSS,
        ACCURACY,
        MIOU,
        EXPLAINED_VARIANCE,
        Metric("macro_f1", "macro F1", form=".2%"),
        Metric("frequency_weighted_iou", "fw IoU"),
        Metric("kappa", "kappa"),
        Metric("boundary_f1", "boundary F1"),
        Metric("boundary_iou", "boundary IoU"),
        Metric("object_precision", "object precision", form=".2%"),
        Metric("object_recall", "object recall", form=".2%"),
        Metric("object_f1", "object F1", form=".2%"),
        Metric("expected_calibration_error", "ECE", mode="min", form=".2%"),
        Metric("negative_log_likelihood", "NLL", mode="min"),
        Metric("brier_score", "Brier score", mode="min"),
        Metric("iou", "IoU"),
        Metric("precision", "precision", form=".2%"),
        Metric("recall", "recall", form=".2%"),
        Metric("f1", "F1", form=".2%"),
    )
}
"""Metrics of examples that a model was not trained on, by name."""


def metric_of(name: str) -> Metric:
    """Returns the metric of a name, also of boundaries at a distance in pixels, such as `boundary_f1_3`.

    Raises:
        KeyError: if there is none of that name.
    """
    at_distance = re.fullmatch(r"(boundary_(?:f1|iou))_([\d.e+-]+)", name)
    if at_distance is None:
        return METRICS[name]
    return Metric(name, f"{METRICS[at_distance[1]].title} ({at_distance[2]} px)")
