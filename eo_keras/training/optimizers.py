"""Optimizers that are the same on any number of devices, with a rate and a decay for every variable.

Keras's own clip each device's gradients before they are added up, so that two devices take steps twice as long as one
(keras 3.15, `base_optimizer.py`); here the sum is clipped. Only Keras is used here, as in models and losses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from eo_keras.errors import OptionError
from eo_keras.training.schedules import SCHEDULES, WarmupSchedule

OPTIMIZERS = ("sgd", "adamw", "rmsprop", "muon")


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """How the weights are changed.

    Attributes:
        optimizer: one of `OPTIMIZERS`.
        learning_rate: its peak, after the warm-up. Of `muon`, the length of a kernel's step as a share of the kernel's.
        other_rate: under `muon`, the peak for all that is no kernel of a convolution, which follows `sgd`.
        momentum: of `sgd`, `rmsprop` and `muon`.
        nesterov: whether `sgd` takes Nesterov's form.
        weight_decay: decoupled decay of the kernels: each step takes `learning_rate * weight_decay` of them away. Under
            `sgd` it is as strong as an L2 penalty of `weight_decay * (1 - momentum)`. Biases and the weights of batch
            normalisation are left alone.
        schedule: one of `SCHEDULES`: half a cosine; `(1 - t) ** power` (Chen et al. 2018, DeepLabv3+); a straight line;
            or a factor at certain epochs.
        warmup_epochs: length of the linear rise from 0; may be a fraction. None is one epoch, of shorter runs half.
        decay_epochs: where `piecewise` multiplies by the factor.
        decay_factor: that factor.
        power: exponent of `poly`.
        final_rate: what `cosine`, `linear` and `poly` end at, as a share of the peak; 1 keeps it.
        layer_decay: the rate of a layer is multiplied by this once for every block between it and the head: pretrained
            layers near the input change less (Clark et al. 2020, arXiv 2003.10555, section 3.1); 1 for none.
        clip_norm: the gradient over all weights and all devices is made no longer than this (Pascanu et al. 2013, arXiv
            1211.5063, section 3.2); 0 for no limit.
    """

    optimizer: str = "sgd"
    learning_rate: float = 0.05
    other_rate: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-3
    schedule: str = "cosine"
    warmup_epochs: float | None = None
    decay_epochs: tuple[float, ...] = ()
    decay_factor: float = 0.1
    power: float = 0.9
    final_rate: float = 0.0
    layer_decay: float = 1.0
    clip_norm: float = 0.0

    def __post_init__(self):
        """Refuses values that make no sense."""
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise OptionError(name, f"'{getattr(self, name)}'", f"one of {', '.join(known)}")
        for name in ("learning_rate", "other_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise OptionError(name, f"{getattr(self, name)}", "a number above 0")
        for name in ("momentum", "decay_factor"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)}", "a number in [0, 1)")
        if not 0 <= self.final_rate <= 1:
            raise OptionError("final_rate", f"{self.final_rate}", "a number in [0, 1]")
        for name in ("weight_decay", "warmup_epochs", "power", "clip_norm"):
            if getattr(self, name) is None:
                continue
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise OptionError(name, f"{getattr(self, name)}", "0 or more")
        if not 0 < self.layer_decay <= 1:
            raise OptionError("layer_decay", f"{self.layer_decay}", "a number above 0, up to 1")
        if self.decay_epochs and self.schedule != "piecewise":
            raise OptionError(
                "decay_epochs", f"they are given with schedule {self.schedule}", "schedule piecewise", "leave one out"
            )
        if self.schedule == "piecewise" and not self.decay_epochs:
            raise OptionError("decay_epochs", "none are given", "where schedule piecewise lowers the rate")

    def warmup(self, epochs: int) -> float:
        """Returns the length of the rise in a run, or a part of one, of so many epochs."""
        return min(1.0, epochs / 2) if self.warmup_epochs is None else self.warmup_epochs


def make_schedule(options: OptimizerOptions, epochs: int, steps_per_epoch: int) -> WarmupSchedule:
    """Turns epochs into steps.

    Raises:
        OptionError: if the warm-up or a decay does not lie within the run.
    """
    warmup = options.warmup(epochs)
    for name, values in (("warmup_epochs", (warmup,)), ("decay_epochs", options.decay_epochs)):
        if outside := [value for value in values if not 0 <= value < epochs]:
            raise OptionError(name, f"{outside[0]:g} in a run of {epochs} epochs", f"0 to below {epochs}")
    return WarmupSchedule(
        options.learning_rate,
        options.schedule,
        epochs * steps_per_epoch,
        round(warmup * steps_per_epoch),
        [round(epoch * steps_per_epoch) for epoch in options.decay_epochs],
        options.decay_factor,
        options.power,
        options.final_rate,
    )


class _OneForAllDevices:
    """What is done otherwise than in Keras's optimizers: clipping after the sum, rates and decays by variable."""

    rates: Sequence[float] = ()
    decays: Sequence[float] = ()

    def _clip_gradients(self, grads):
        # TensorFlow adds the devices' gradients up later, below; other backends see the whole batch at once.
        return grads if keras.config.backend() == "tensorflow" else super()._clip_gradients(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        reduced = super()._all_reduce_sum_gradients(grads_and_vars)
        grads = super()._clip_gradients([gradient for gradient, _ in reduced])
        return [(gradient, variable) for gradient, (_, variable) in zip(grads, reduced, strict=True)]

    def update_step(self, gradient, variable, learning_rate):
        """Changes one variable: its decay first, then what the optimizer does."""
        place = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self.rates[place]
        if self.decays[place]:
            self.assign_sub(variable, variable * (self.decays[place] * rate))
        super().update_step(gradient, variable, rate)


class SGD(_OneForAllDevices, keras.optimizers.SGD):
    """Stochastic gradient descent, see `_OneForAllDevices`."""


class Adam(_OneForAllDevices, keras.optimizers.Adam):
    """Adam; with decays it is AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), see `_OneForAllDevices`."""


class RMSprop(_OneForAllDevices, keras.optimizers.RMSprop):
    """RMSprop, see `_OneForAllDevices`."""


class Muon(_OneForAllDevices, keras.optimizers.SGD):
    """Momentum whose direction, for the kernels of convolutions, is made orthogonal (Jordan et al. 2024, Muon).

    The momentum of a kernel, as a matrix of all that an output channel sees by output channels, is replaced by the
    nearest matrix whose singular values are all about 1, so that rare directions count as much as common ones. The
    kernel keeps its length: batch normalisation behind it takes no notice of the length, and so the rate is the angle
    of a step, and decay of the kernels has no place. All other variables follow SGD with Nesterov's momentum, also
    kernels that no batch normalisation follows: their length matters, as that of a map's logits does.

    Attributes:
        turned: parallel to the variables, whether each is a kernel of the first kind.
    """

    turned: Sequence[bool] = ()

    def update_step(self, gradient, variable, learning_rate):
        """Changes one variable."""
        place = self._get_variable_index(variable)
        if not self.turned[place]:
            super().update_step(gradient, variable, learning_rate)
            return
        rate = ops.cast(learning_rate, variable.dtype) * self.rates[place]
        direction = gradient
        # Without momentum, Keras makes no buffers.
        if self.momentum:
            buffer = self.momentums[place]
            moved = self.momentum * ops.convert_to_tensor(buffer) + gradient
            self.assign(buffer, moved)
            direction = gradient + self.momentum * moved
        direction = ops.reshape(direction, (-1, variable.shape[-1]))
        direction = ops.reshape(_orthogonal(direction), variable.shape)
        before = _length(variable)
        changed = variable - rate * before / (_length(direction) + 1e-7) * direction
        self.assign(variable, changed * (before / _length(changed)))


def _length(values):
    return ops.sqrt(ops.sum(ops.square(values)))


def _orthogonal(matrix):
    """Returns about the nearest matrix of singular values 1, by five steps of a Newton-Schulz iteration.

    Coefficients of Jordan et al. 2024: they bring singular values of 0.01 to 1 into 0.7 to 1.2, fast and not exactly.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else ops.transpose(matrix)
    x = x / (_length(x) + 1e-7)
    # Each step is x -> q(x x') x with a polynomial q: all steps together are one small matrix times x, and x x' can be
    # followed without x, which is far longer than it is wide.
    square = ops.matmul(x, ops.transpose(x))
    identity = ops.eye(square.shape[0], dtype=square.dtype)
    product = identity
    for _ in range(5):
        step = 3.4445 * identity - 4.7750 * square + 2.0315 * ops.matmul(square, square)
        product = ops.matmul(step, product)
        square = ops.matmul(ops.matmul(step, square), step)
    x = ops.matmul(product, x)
    return x if wide else ops.transpose(x)


def make_optimizer(
    options: OptimizerOptions,
    schedule: WarmupSchedule,
    variables: Sequence[Any],
    *,
    groups: Mapping[str, int] | None = None,
    undecayed: Collection[str] = (),
    normalised: Collection[str] = (),
    scale_loss: bool = False,
) -> keras.optimizers.Optimizer:
    """Returns a new optimizer of some variables that follows a schedule.

    Args:
        options: which one, and how.
        schedule: its learning rate by step.
        variables: the trainable variables, in the order in which gradients will come.
        groups: depth of each layer by name, 0 nearest the input, see `eo_keras.models.depth_groups`; needed for
            `layer_decay`.
        undecayed: paths of kernels that do not decay, see `eo_keras.models.depthwise_kernels`.
        normalised: paths of kernels that batch normalisation follows, see `eo_keras.models.normalized_kernels`; needed
            for `muon`.
        scale_loss: whether the loss is scaled by a factor of the optimizer's own, as half precision needs.
    """
    common = {"learning_rate": schedule, "global_clipnorm": options.clip_norm or None}
    if options.optimizer == "sgd":
        optimizer = SGD(momentum=options.momentum, nesterov=options.nesterov, **common)
    elif options.optimizer == "muon":
        optimizer = Muon(momentum=options.momentum, nesterov=True, **common)
    elif options.optimizer == "adamw":
        optimizer = Adam(**common)
    else:
        optimizer = RMSprop(rho=0.9, momentum=options.momentum, **common)
    decaying = [variable.name == "kernel" and variable.path not in undecayed for variable in variables]
    optimizer.decays = [options.weight_decay if decays else 0.0 for decays in decaying]
    optimizer.rates = [1.0] * len(variables)
    if options.optimizer == "muon":
        ratio = options.other_rate / options.learning_rate
        optimizer.turned = [variable.path in normalised for variable in variables]
        optimizer.rates = [1.0 if turned else ratio for turned in optimizer.turned]
    if options.layer_decay < 1:
        deepest = max(groups.values())
        # A variable's path begins with its layer's name.
        powers = [options.layer_decay ** (deepest - groups[one.path.split("/")[0]]) for one in variables]
        optimizer.rates = [rate * power for rate, power in zip(optimizer.rates, powers, strict=True)]
    if scale_loss:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer
