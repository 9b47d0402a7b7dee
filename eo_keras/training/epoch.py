"""Running sums of an epoch: updated each step, saved in checkpoints, written as one row of history.csv."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eo_keras.errors import TrainingError
from eo_keras.metrics.metric import LOSS, Metric

if TYPE_CHECKING:
    from eo_keras.training.step import StepResult


@dataclasses.dataclass
class EpochProgress:
    """Running sums of an epoch.

    Attributes:
        losses: the loss of each of its steps so far, in nats.
        right: number of training examples (of tiles, labeled pixels) that were predicted correctly.
        counted: of how many.
        seconds: time taken.
        parts: what each step's loss is made of, by name; empty for a loss of one task.
    """

    losses: list[float] = dataclasses.field(default_factory=list)
    right: int = 0
    counted: int = 0
    seconds: float = 0.0
    parts: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, results: Iterable[StepResult], first_step: int, epoch: int) -> None:
        """Adds the results of steps.

        Args:
            results: one entry a step.
            first_step: number of steps before this epoch.
            epoch: number of the epoch, counted from 0.

        Raises:
            TrainingError: if a loss is not finite; the step is named.
        """
        for loss, right, counted, parts in results:
            self.losses.append(float(loss))
            self.right += int(right)
            self.counted += int(counted)
            for name, part in parts.items():
                self.parts.setdefault(name, []).append(float(part))
            if not math.isfinite(self.losses[-1]):
                step = f"step {first_step + len(self.losses)} (epoch {epoch + 1})"
                raise _not_finite(step, "the loss", self.losses[-1], epoch)

    def row(self, epoch: int, batch_size: int, rate: Callable[[int, int], float]) -> dict[str, Any]:
        """Returns the row of the history, without the scores of validation.

        Args:
            epoch: number of the epoch, counted from 0.
            batch_size: examples in a step.
            rate: the learning rate by epoch and step, counted from 0.
        """
        steps, examples = len(self.losses), len(self.losses) * batch_size
        return {
            "epoch": epoch + 1,
            "step": (epoch + 1) * steps,
            "loss": float(np.mean(self.losses)),
            **{name: float(np.mean(values)) for name, values in self.parts.items()},
            "accuracy": self.right / self.counted if self.counted else None,
            "val_loss": None,
            "val_accuracy": None,
            "learning_rate": rate(epoch, steps - 1),
            "images_per_second": round(examples / self.seconds, 2),
            "seconds": round(self.seconds, 3),
        }

    def curves(self, epoch: int, rate: Callable[[int, int], float], steps: int) -> list[tuple[int, dict[str, float]]]:
        """Returns about 50 of an epoch's steps, so far, each with its loss, what that is made of, and learning rate.

        Args:
            epoch: as for `row`.
            rate: likewise.
            steps: number of the epoch's steps.
        """
        shown = range(0, len(self.losses), max(1, steps // 50))
        series = {"loss": self.losses, **self.parts}
        return [
            (
                epoch * steps + k + 1,
                {name: values[k] for name, values in series.items()} | {"learning_rate": rate(epoch, k)},
            )
            for k in shown
        ]


def check_validation(scores: Mapping[str, Any], epoch: int) -> None:
    """Checks that scores of validation examples are finite.

    Args:
        scores: the scores by name.
        epoch: number of the epoch, counted from 0.

    Raises:
        TrainingError: if one is not; the column is named.
    """
    if bad := [name for name, value in scores.items() if value is not None and not math.isfinite(value)]:
        raise _not_finite(f"epoch {epoch + 1}", f"validation's {bad[0]}", scores[bad[0]], epoch)


def check_probabilities(probabilities: np.ndarray, epoch: int) -> None:
    """Checks that outputs after the epoch's last step are finite, where there is no validation.

    Raises:
        TrainingError: if a probability is not finite.
    """
    if not np.isfinite(probabilities).all():
        raise _not_finite(f"epoch {epoch + 1}", "the probability of a class after its last step", "not finite", epoch)


def _not_finite(where: str, what: str, value: Any, epoch: int) -> TrainingError:
    kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "no epoch had been completed"
    return TrainingError(
        where,
        f"{what} is {value}",
        "a finite number",
        f"{kept}; start again with a lower learning_rate, a longer warm-up, clip_norm or dtype_policy float32",
    )


def rank(row: Mapping[str, Any], metric: Metric) -> tuple[float, float]:
    """Returns the sort key of epochs: a validation score, then the loss; scores that are not finite are the worst."""
    order = metric.rank(row[metric.column]), LOSS.rank(row[LOSS.column])
    return order if all(map(math.isfinite, order)) else (-math.inf, -math.inf)


def line(row: Mapping[str, Any], metrics: Sequence[Metric], improved: bool) -> str:
    """Returns an epoch's loss, scores and speed as one line of text.

    Args:
        row: its line of the history.
        metrics: the scores of validation.
        improved: whether it is the best epoch so far.
    """
    text = f"epoch {row['epoch']:>3}: loss {row['loss']:.4f}"
    if row["accuracy"] is not None:
        text += f", accuracy {row['accuracy']:.2%}"
    if row[LOSS.column] is not None:
        found = ", ".join(metric.text(row[metric.column]) for metric in (LOSS, *metrics))
        text += f", validation {found}{' (best)' if improved else ''}"
    return f"{text}, learning rate {row['learning_rate']:.2g}, {row['images_per_second']:,.0f} images/s"
