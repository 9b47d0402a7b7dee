"""Learning rate by step, and the optimizer that follows it. Only Keras is used here, as in models and losses."""

from __future__ import annotations

import dataclasses
import math

import keras
from keras import ops

from eo_keras.errors import OptionError

OPTIMIZERS = ("sgd", "adamw", "rmsprop")
SCHEDULES = ("cosine", "poly", "piecewise")


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """How the weights are changed.

    Attributes:
        optimizer: one of `OPTIMIZERS`.
        learning_rate: its peak, after the warm-up.
        momentum: of `sgd` and `rmsprop`.
        nesterov: whether `sgd` takes Nesterov's form.
        weight_decay: decoupled decay of the kernels: each step takes `learning_rate * weight_decay` of them away. Under
            `sgd` it is as strong as an L2 penalty of `weight_decay * (1 - momentum)`. Biases and the weights of batch
            normalisation are left alone.
        schedule: one of `SCHEDULES`: half a cosine to 0; `(1 - t) ** power` (Chen et al. 2018, DeepLabv3+); or a factor
            at certain epochs.
        warmup_epochs: length of the linear rise from 0; may be a fraction.
        decay_epochs: where `piecewise` multiplies by the factor.
        decay_factor: that factor.
        power: exponent of `poly`.
    """

    optimizer: str = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-3
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    decay_epochs: tuple[float, ...] = ()
    decay_factor: float = 0.1
    power: float = 0.9

    def __post_init__(self):
        """Refuses values that make no sense."""
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise OptionError(name, f"'{getattr(self, name)}'", f"one of {', '.join(known)}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise OptionError("learning_rate", f"{self.learning_rate}", "a number above 0")
        for name in ("momentum", "decay_factor"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)}", "a number in [0, 1)")
        for name in ("weight_decay", "warmup_epochs", "power"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise OptionError(name, f"{getattr(self, name)}", "0 or more")
        if self.decay_epochs and self.schedule != "piecewise":
            raise OptionError(
                "decay_epochs", f"they are given with schedule {self.schedule}", "schedule piecewise", "leave one out"
            )
        if self.schedule == "piecewise" and not self.decay_epochs:
            raise OptionError("decay_epochs", "none are given", "where schedule piecewise lowers the rate")


@keras.saving.register_keras_serializable(package="eo_keras")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise, then one of `SCHEDULES`.

    Args:
        learning_rate: the peak.
        kind: one of `SCHEDULES`.
        total_steps: number of steps of the whole run; behind it the rate stays where it is.
        warmup_steps: number of steps of the rise; the first step takes `learning_rate / warmup_steps`.
        boundaries: steps from which on `piecewise` multiplies by `factor` (again).
        factor: see there.
        power: exponent of `poly`.
    """

    def __init__(self, learning_rate, kind, total_steps, warmup_steps=0, boundaries=(), factor=0.1, power=0.9):
        self.learning_rate, self.kind = learning_rate, kind
        self.total_steps, self.warmup_steps = total_steps, warmup_steps
        self.boundaries, self.factor, self.power = tuple(boundaries), factor, power

    def __call__(self, step):
        """Returns the rate of a step, counted from 0."""
        step = ops.cast(step, keras.config.floatx())
        share = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        share = ops.clip(share, 0.0, 1.0)
        if self.kind == "cosine":
            height = 0.5 * (1 + ops.cos(math.pi * share))
        elif self.kind == "poly":
            height = ops.power(1 - share, self.power)
        else:
            height = ops.ones_like(share)
            for boundary in self.boundaries:
                height = ops.where(step >= boundary, height * self.factor, height)
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
        }


def make_schedule(options: OptimizerOptions, epochs: int, steps_per_epoch: int) -> WarmupSchedule:
    """Turns epochs into steps.

    Raises:
        OptionError: if the warm-up or a decay does not lie within the run.
    """
    for name, values in (("warmup_epochs", (options.warmup_epochs,)), ("decay_epochs", options.decay_epochs)):
        if outside := [value for value in values if not 0 <= value < epochs]:
            raise OptionError(name, f"{outside[0]:g} in a run of {epochs} epochs", f"0 to below {epochs}")
    return WarmupSchedule(
        options.learning_rate,
        options.schedule,
        epochs * steps_per_epoch,
        round(options.warmup_epochs * steps_per_epoch),
        [round(epoch * steps_per_epoch) for epoch in options.decay_epochs],
        options.decay_factor,
        options.power,
    )


def make_optimizer(options: OptimizerOptions, schedule: WarmupSchedule) -> keras.optimizers.Optimizer:
    """Returns a new optimizer that follows a schedule."""
    common = {"learning_rate": schedule, "weight_decay": options.weight_decay or None}
    if options.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=options.momentum, nesterov=options.nesterov, **common)
    elif options.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(**common | {"weight_decay": options.weight_decay})
    else:
        optimizer = keras.optimizers.RMSprop(rho=0.9, momentum=options.momentum, **common)
    if options.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer
