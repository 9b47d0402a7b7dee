"""Weights of the losses of several tasks: learned by their uncertainty, or fixed. Only Keras is used here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from eo_keras.errors import OptionError


class TaskWeights:
    """Weights of several tasks' losses, and the sum of the weighted losses.

    Learned ones minimize `L = sum_t exp(-a_t) L_t + a_t` (Kendall et al. 2018, arXiv 1705.07115, section 3; Bischke et
    al. 2019, arXiv 1709.05932, equations 6 to 8). With L_t a cross-entropy, `a_t = log(s_t ** 2)` is the logarithm of
    the variance of task t: the temperature that its logits would have to be divided by. Where the sum is smallest,
    `exp(a_t) = L_t`, so that every task contributes 1. The sum falls below 0 once the losses are small.

    The variables are made in `__init__`: in a strategy's scope. They belong to training; the model does not hold them.

    Args:
        names: names of the tasks.
        fixed: weight of each task; None to learn them.
        dtype: of the variables, that of the losses.

    Attributes:
        names: names of the tasks.
        variables: `log_variance_<name>` of each task, scalars that start at 0; empty for fixed weights.

    Raises:
        OptionError: if there is not one fixed weight of 0 or more for each task.
    """

    def __init__(self, names: Sequence[str], fixed: Sequence[float] | None = None, dtype: str = "float32"):
        self.names, self._fixed = tuple(names), None if fixed is None else tuple(fixed)
        self.variables: tuple[keras.Variable, ...] = ()
        if self._fixed is None:
            self.variables = tuple(
                keras.Variable(0.0, dtype=dtype, trainable=True, name=f"log_variance_{name}") for name in self.names
            )
        elif len(self._fixed) != len(self.names) or not all(weight >= 0 for weight in self._fixed):
            found = ", ".join(f"{weight:g}" for weight in self._fixed) or "none"
            raise OptionError("fixed", found, f"a number of 0 or more for each of {', '.join(self.names)}")

    def weights(self) -> dict[str, Any]:
        """Returns the weight of each task's loss, `exp(-a_t)` where it is learned."""
        if self._fixed is not None:
            return dict(zip(self.names, self._fixed, strict=True))
        return {
            name: ops.exp(-ops.convert_to_tensor(variable))
            for name, variable in zip(self.names, self.variables, strict=True)
        }

    def combine(self, losses: Mapping[str, Any], devices: int = 1) -> Any:
        """Returns the weighted sum of losses, a scalar.

        Args:
            losses: scalars by name of task, those of the whole batch, equal on all devices (see
                `eo_keras.losses.segmentation.whole_sums`).
            devices: number of devices whose gradients are added up. Each one computes all of the variables' gradients,
                of which it returns its share.
        """
        if self._fixed is not None:
            return sum(weight * losses[name] for name, weight in zip(self.names, self._fixed, strict=True))
        total = 0.0
        for name, variable in zip(self.names, self.variables, strict=True):
            whole = ops.convert_to_tensor(variable)
            share = whole / devices
            log_variance = share + ops.stop_gradient(whole - share)
            total += ops.exp(-log_variance) * losses[name] + log_variance
        return total
