"""Optimizers whose steps do not depend on the number of devices, with a rate and a decay for every variable.

Keras's own clip each device's gradients before they are added up, so that two devices take steps twice as long as one
(keras 3.15, `base_optimizer.py`); here the sum is clipped. Only Keras is used here, as in models and losses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from eo_keras.training.options import OptimizerOptions
from eo_keras.training.schedules import WarmupSchedule


def make_schedule(options: OptimizerOptions, epochs: int, steps_per_epoch: int) -> WarmupSchedule:
    """Returns the learning rate schedule by step.

    Raises:
        OptionError: if the warm-up or a decay does not lie within the run.
    """
    options.check_epochs(epochs)
    return WarmupSchedule(
        options.learning_rate,
        options.schedule,
        epochs * steps_per_epoch,
        round(options.warmup(epochs) * steps_per_epoch),
        [round(epoch * steps_per_epoch) for epoch in options.decay_epochs],
        options.decay_factor,
        options.power,
        options.final_lr_fraction,
    )


class _OneForAllDevices:
    """Mixin for Keras's optimizers: clipping after the sum over devices, rates and decays by variable."""

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
        """Updates one variable, its decay first."""
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
    """Muon: momentum with orthogonalized updates of convolution kernels (Jordan et al. 2024).

    The momentum of a kernel, as a matrix of all that an output channel sees by output channels, is replaced by the
    nearest matrix whose singular values are all about 1, so that rare directions count as much as common ones. The
    kernel keeps its length: the batch normalization that follows it is invariant to the length, so the rate is the
    angle of a step, and decay of the kernels has no place. All other variables follow SGD with Nesterov's momentum,
    also kernels that no batch normalization follows: their length matters, as that of the logits does.

    Attributes:
        turned: parallel to the variables, whether each is a kernel of the first kind.
    """

    turned: Sequence[bool] = ()

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable."""
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
    """Orthogonalizes a matrix approximately, by five steps of a Newton-Schulz iteration.

    Coefficients of Jordan et al. 2024: they bring singular values of 0.01 to 1 into 0.7 to 1.2, fast and not exactly.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else ops.transpose(matrix)
    x = x / (_length(x) + 1e-7)
    # Each step is x -> q(x x') x with a polynomial q: all steps together are one small matrix times x, and x x' can be
    # followed without x, which is far longer than it is wide. It needs float32 where the network computes in half
    # precision, for its eigenvalues are the squares of the singular values.
    square = ops.matmul(x, ops.transpose(x))
    identity = ops.eye(square.shape[0], dtype=square.dtype)
    product = step = _newton_schulz(square, identity)
    for _ in range(4):
        square = ops.matmul(ops.matmul(step, square), step)
        step = _newton_schulz(square, identity)
        product = ops.matmul(step, product)
    x = ops.matmul(product, x)
    return x if wide else ops.transpose(x)


def _newton_schulz(square, identity):
    return 3.4445 * identity - 4.7750 * square + 2.0315 * ops.matmul(square, square)


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
        options: options of the optimizer.
        schedule: its learning rate by step.
        variables: the trainable variables, in the order of the gradients.
        groups: depth of each layer by name, 0 nearest the input, see `eo_keras.models.depth_groups`; needed for
            `layer_decay`.
        undecayed: paths of kernels that do not decay, see `eo_keras.models.depthwise_kernels`.
        normalised: paths of kernels that batch normalization follows, see `eo_keras.models.normalized_kernels`; needed
            for `muon`.
        scale_loss: whether the loss is scaled by a factor of the optimizer's own, as half precision needs.
    """
    common = {"learning_rate": schedule, "global_clipnorm": options.clip_norm or None}
    if options.optimizer == "sgd":
        optimizer = SGD(momentum=options.momentum, nesterov=options.nesterov, **common)
    elif options.optimizer == "muon":
        optimizer = Muon(momentum=options.momentum, nesterov=True, **common)
    elif options.optimizer == "adamw":
        optimizer = Adam(beta_1=options.momentum, **common)
    else:
        optimizer = RMSprop(rho=0.9, momentum=options.momentum, **common)
    decaying = [variable.name == "kernel" and variable.path not in undecayed for variable in variables]
    optimizer.decays = [options.weight_decay if decays else 0.0 for decays in decaying]
    optimizer.rates = [1.0] * len(variables)
    if options.optimizer == "muon":
        ratio = options.sgd_learning_rate / options.learning_rate
        optimizer.turned = [variable.path in normalised for variable in variables]
        optimizer.rates = [1.0 if turned else ratio for turned in optimizer.turned]
    if options.layer_decay < 1:
        deepest = max(groups.values())
        # A variable's path begins with its layer's name; those of a loss are of no layer, and have the head's rate.
        depths = [groups.get(one.path.split("/")[0], deepest) for one in variables]
        powers = [options.layer_decay ** (deepest - depth) for depth in depths]
        optimizer.rates = [rate * power for rate, power in zip(optimizer.rates, powers, strict=True)]
    if scale_loss:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer
