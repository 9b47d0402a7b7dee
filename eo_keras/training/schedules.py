"""Learning rate schedules by step. Only Keras is used here, as in models and losses."""

from __future__ import annotations

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="eo_keras")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then one of `eo_keras.training.options.SCHEDULES`.

    Args:
        learning_rate: the peak.
        kind: one of these.
        total_steps: number of steps of the whole run; after them the rate stays the same.
        warmup_steps: number of steps of the rise; the first step takes `learning_rate / warmup_steps`.
        boundaries: steps from which on `piecewise` multiplies by `factor` (again).
        factor: see there.
        power: exponent of `poly`.
        final_rate: last rate of all but `piecewise`, as a share of the peak.
    """

    def __init__(
        self,
        learning_rate,
        kind,
        total_steps,
        warmup_steps=0,
        boundaries=(),
        factor=0.1,
        power=0.9,
        final_rate=0.0,
    ):
        self.learning_rate, self.kind = learning_rate, kind
        self.total_steps, self.warmup_steps = total_steps, warmup_steps
        self.boundaries, self.factor, self.power = tuple(boundaries), factor, power
        self.final_rate = final_rate

    def __call__(self, step):
        """Returns the rate of a step, counted from 0."""
        step = ops.cast(step, keras.config.floatx())
        share = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        share = ops.clip(share, 0.0, 1.0)
        if self.kind == "cosine":
            height = 0.5 * (1 + ops.cos(math.pi * share))
        elif self.kind == "linear":
            height = 1 - share
        elif self.kind == "poly":
            height = ops.power(1 - share, self.power)
        else:
            height = ops.ones_like(share)
            for boundary in self.boundaries:
                height = ops.where(step >= boundary, height * self.factor, height)
        if self.kind != "piecewise":
            height = self.final_rate + (1 - self.final_rate) * height
        if self.warmup_steps:
            height = ops.where(step < self.warmup_steps, (step + 1) / self.warmup_steps, height)
        return self.learning_rate * height

    def get_config(self):
        """Returns the arguments."""
        return {
            "learning_rate": self.learning_rate,
            "kind": self.kind,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "boundaries": list(self.boundaries),
            "factor": self.factor,
            "power": self.power,
            "final_rate": self.final_rate,
        }
