"""Phases of a run: the head alone where there are head epochs, then the whole network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from eo_keras import models
from eo_keras.training import optimizers
from eo_keras.training.options import OptimizerOptions
from eo_keras.training.schedules import WarmupSchedule


@dataclasses.dataclass(frozen=True)
class Phase:
    """Phase of a run in which the same weights are trained by one optimizer.

    Attributes:
        title: `head` or `whole`.
        first_epoch: its first epoch, counted from 0.
        steps: steps in an epoch.
        schedule: its learning rate by step, counted from the phase's first.
        optimizer: its optimizer, built for `variables`.
        variables: the trained variables.
    """

    title: str
    first_epoch: int
    steps: int
    schedule: WarmupSchedule
    optimizer: keras.optimizers.Optimizer
    variables: Sequence[Any]

    @property
    def only_head(self) -> bool:
        """Whether the layers of the head alone are trained."""
        return self.title == "head"

    def rate(self, epoch: int, step: int) -> float:
        """Returns the learning rate at a step of an epoch of the run, both counted from 0."""
        return float(self.schedule((epoch - self.first_epoch) * self.steps + step))


@dataclasses.dataclass(frozen=True)
class PhaseOptions:
    """Options of a run's phases.

    Attributes:
        epochs: length of the run in epochs.
        head_epochs: number of first epochs that train the head alone.
        head_only: whether all do, by the optimizer of the whole network.
        head_optimizer: optimizer options of the head epochs.
        optimizer: optimizer options of the epochs after them.
        frozen_batch_norm: whether batch normalization keeps its statistics.
        scale_loss: whether the loss is scaled, as half precision needs.
    """

    epochs: int
    head_epochs: int
    head_optimizer: OptimizerOptions
    optimizer: OptimizerOptions
    frozen_batch_norm: bool = False
    scale_loss: bool = False
    head_only: bool = False


def make_phases(
    options: PhaseOptions, model: keras.Model, steps: int, variables_of_loss: Sequence[Any] = ()
) -> list[Phase]:
    """Returns the phases of a run in their order; called in the strategy's scope.

    Args:
        options: options of the phases.
        model: the model.
        steps: steps in an epoch.
        variables_of_loss: variables that every phase trains besides the model's.

    Raises:
        OptionError: if a warm-up or a decay does not lie within the phase of the whole network.
    """

    def phase(title, first, epochs, chosen):
        models.set_trainable(model, only_head=title == "head", frozen_batch_norm=options.frozen_batch_norm)
        variables = [*model.trainable_variables, *variables_of_loss]
        schedule = optimizers.make_schedule(chosen, epochs, steps)
        optimizer = optimizers.make_optimizer(
            chosen,
            schedule,
            variables,
            groups=models.depth_groups(model),
            undecayed=models.depthwise_kernels(model),
            normalised=models.normalized_kernels(model),
            scale_loss=options.scale_loss,
        )
        return Phase(title, first, steps, schedule, optimizer, variables)

    if options.head_only:
        return [phase("head", 0, options.epochs, options.optimizer)]
    head = options.head_epochs
    phases = [phase("head", 0, head, options.head_optimizer)] if head else []
    return [*phases, phase("whole", head, options.epochs - head, options.optimizer)]
