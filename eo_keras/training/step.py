"""Training step that does not depend on the number of devices.

What is counted over a batch is counted over the whole of it, on all devices and workers: the loss is divided by the
global number of valid examples, gradients are added up before they are clipped (`eo_keras.training.optimizers`), and
batch normalization, synchronized, takes its moments over all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from eo_keras import models
from eo_keras.tasks.task import LossFn
from eo_keras.training.phases import Phase


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """Options of a training step.

    Attributes:
        ema: decay per step of a moving average of all weights; 0 for none.
        frozen_batch_norm: whether batch normalization keeps its statistics.
        jit_compile: whether XLA compiles the step.
    """

    ema: float = 0.0
    frozen_batch_norm: bool = False
    jit_compile: bool = False


class StepResult(NamedTuple):
    """Result of a step.

    Attributes:
        loss: the loss of the global batch.
        right: number of correct predictions, of examples of weight above 0 or of their labeled pixels.
        counted: number of predictions.
        parts: what the loss is made of, see `eo_keras.tasks.task.StepLoss`.
    """

    loss: tf.Tensor
    right: tf.Tensor
    counted: tf.Tensor
    parts: dict[str, tf.Tensor]


class TrainStep:
    """Takes steps on distributed batches.

    Args:
        model: a model of this package, made in the strategy's scope.
        strategy: the strategy.
        options: its options.
        loss: the loss, see `eo_keras.tasks.task`.
        averages: variables parallel to `model.weights` that hold their moving averages, or none.
    """

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        options: StepOptions,
        loss: LossFn,
        averages: Sequence[tf.Variable] = (),
    ):
        self._whole, self._strategy, self._options, self._averages = model, strategy, options, averages
        self._loss = loss
        # The loss is computed from logits: the logarithm of a rounded softmax would lose what is small.
        self._model = models.logits_model(model)
        self._phase: Phase | None = None
        self._compiled: dict[str, Any] = {}

    def enter(self, phase: Phase) -> None:
        """Sets the phase of the following steps."""
        models.set_trainable(self._whole, only_head=phase.only_head, frozen_batch_norm=self._options.frozen_batch_norm)
        self._phase = phase
        if phase.title not in self._compiled:
            self._compiled[phase.title] = tf.function(
                self.step, autograph=False, jit_compile=self._options.jit_compile or None
            )

    def __call__(self, *batch: Any) -> StepResult:
        """Takes a step, compiled; see `step`."""
        return self._compiled[self._phase.title](*batch)

    def trace(self, *batch: Any) -> None:
        """Traces a step on batches of a specification, so that errors are raised before the first step."""
        self._compiled[self._phase.title].get_concrete_function(*batch)

    def step(self, image: Any, label: Any, weight: Any = None) -> StepResult:
        """Takes one step.

        Args:
            image: digital numbers (batch, height, width, band), distributed.
            label: integers (batch,), of segmentation (batch, height, width), with distances (batch, height, width, 2),
                distributed.
            weight: real numbers (batch,), distributed: weight of each example, 0 for one that only fills
                the batch; None where each counts 1.

        Returns:
            The result over all devices.
        """
        phase = self._phase

        def replica_step(image, label, weight=None):
            with tf.GradientTape() as tape:
                outputs = keras.tree.flatten(self._model(image, training=True))
                result = self._loss(outputs, label, weight)
                scaled = phase.optimizer.scale_loss(result.objective)
            phase.optimizer.apply(tape.gradient(scaled, phase.variables), phase.variables)
            return StepResult(result.value, result.correct, result.counted, dict(result.parts))

        arguments = (image, label) if weight is None else (image, label, weight)
        result = self._strategy.run(replica_step, arguments)
        if self._averages:
            self._move_averages()

        def added(value):
            return self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)

        *sums, parts = result
        return StepResult(*map(added, sums), {name: added(part) for name, part in parts.items()})

    def _move_averages(self) -> None:
        # Shorter memory at first, or the average would long be one of the initial weights.
        step = tf.cast(self._phase.optimizer.iterations, tf.float32)
        decay = tf.minimum(self._options.ema, (1 + step) / (10 + step))

        def move(average, weight, decay):
            decay = tf.cast(decay, average.dtype)
            average.assign(decay * average + (1 - decay) * tf.cast(weight, average.dtype))

        for average, weight in zip(self._averages, self._whole.weights, strict=True):
            self._strategy.extended.update(average, move, args=(weight.value, decay), group=False)
