"""What a training step spends its time on: parts timed one by one, and kernels as TensorFlow's profiler saw them.

A part's time is that of a graph with it less that of the graph without it. Kernels run on several threads at once, so
theirs are shares of all kernels' time and not of the clock's.
"""

from __future__ import annotations

import collections
import pathlib
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from eo_keras import models, tasks
from eo_keras.data import pipeline as pipelines
from eo_keras.data.augment import patches
from eo_keras.losses import classification
from eo_keras.training import options as training_options
from eo_keras.training import phases
from eo_keras.training import step as stepping

FORWARD, BACKWARD, UPDATE, WAIT = "forward", "backward", "update and metrics", "waiting for the input"
KINDS = (
    "convolutions, forward",
    "convolutions, backward",
    "batch normalisation, forward",
    "batch normalisation, backward",
    "weight update",
    "conversions between precisions",
    "other",
)

_PROFILED_STEPS = 3
_BACKWARD = "gradient_tape/"


def parts(forward: float, gradients: float, step: float, wait: float) -> dict[str, Any]:
    """Returns the parts of a step in seconds and as shares of the whole.

    Args:
        forward: seconds of the loss alone.
        gradients: seconds of the loss and its gradients.
        step: seconds of a step on a batch that is there already.
        wait: seconds that a step of a run waits for its batch.
    """
    seconds = {FORWARD: forward, BACKWARD: gradients - forward, UPDATE: step - gradients, WAIT: wait}
    whole = sum(seconds.values())
    return {
        "step_seconds": whole,
        "seconds": seconds,
        "shares": {name: value / whole for name, value in seconds.items()},
    }


def kind_of(name: str, kernel: str, optimizer: str = "sgd") -> str:
    """Returns which of `KINDS` a kernel belongs to.

    Args:
        name: the operation's name, which begins with the model's and the layer's.
        kernel: the operation's type.
        optimizer: the optimizer's name, which its operations' begin with.
    """
    if "Conv2D" in kernel:
        return KINDS[1] if "Backprop" in kernel else KINDS[0]
    if kernel == "Cast":
        return KINDS[5]
    if re.search(r"_bn(_\d+)?/", name):
        return KINDS[3] if name.startswith(_BACKWARD) else KINDS[2]
    return KINDS[4] if name.startswith(f"{optimizer}/") else KINDS[6]


def kernel_shares(events: Iterable[tuple[str, float]], optimizer: str = "sgd") -> tuple[float, dict[str, float]]:
    """Returns the time of all kernels in seconds, and what share of it each of `KINDS` takes.

    Args:
        events: `operation:type`, as the profiler writes it, and seconds; what is no operation is passed over.
        optimizer: see `kind_of`.
    """
    seconds: dict[str, float] = collections.defaultdict(float)
    for title, duration in events:
        # The executor's own entries (ExecutorState::Process, EagerLocalExecute: f) hold the kernels' time once more.
        if found := re.fullmatch(r"([^\s:]+):(\w+)", title):
            seconds[kind_of(found[1], found[2], optimizer)] += duration
    whole = sum(seconds.values())
    return whole, {kind: seconds[kind] / whole if whole else 0.0 for kind in KINDS}


def profile(records_dir: str, model_name: str, dtype_policy: str, batch_size: int, steps: int) -> dict[str, Any]:
    """Takes a step of `launch.train` apart, with its default options.

    Args:
        records_dir: the records folder.
        model_name: a name of `eo_keras.models.MODELS`.
        dtype_policy: the precision.
        batch_size: examples in a step.
        steps: how often each part is timed.

    Returns:
        `parts`, `kernel_seconds` of a step on all threads and `kernels`, ready for JSON.
    """
    options = training_options.TrainingOptions(
        records_dir, "", model=model_name, batch_size=batch_size, dtype_policy=dtype_policy, epochs=2
    )
    records = pipelines.RecordDataset(records_dir)
    pipeline = pipelines.TrainingDataset(
        records, pipelines.PipelineOptions(batch_size, augmentation=patches.Augmentation())
    )
    card = records.card
    spec = models.NetworkSpec.of_card(
        card, pipeline.bands, patch_size=card.patch_size, dtype_policy=dtype_policy, seed=options.seed
    )
    model, _ = models.build(model_name, spec)
    stepper = stepping.TrainStep(
        model, tf.distribute.get_strategy(), stepping.StepOptions(), tasks.get("classification").loss(options)
    )
    optimizer = options.optimizer
    (phase,) = phases.make_phases(phases.PhaseOptions(2, 0, optimizer, optimizer), model, pipeline.steps)
    stepper.enter(phase)
    batch = next(iter(pipeline.epoch(0).take(1)))

    def step():
        return stepper(*batch)[0]

    # The step first: behind it the optimizer's and the moments' memory is there for all.
    step_seconds = _median(step, steps)
    forward, gradients = (_median(one, steps) for one in _partial(model, options, phase, batch))
    found = parts(forward, gradients, step_seconds, _wait(stepper, pipeline, steps))
    kernel_seconds, kernels = kernel_shares(_events(step), phase.optimizer.name)
    return {
        "model": model_name,
        "dtype_policy": dtype_policy,
        "batch_size": batch_size,
        **found,
        "kernel_seconds": kernel_seconds / _PROFILED_STEPS,
        "kernels": kernels,
    }


def _partial(model: keras.Model, options: Any, phase: phases.Phase, batch: Any) -> list[Callable[[], Any]]:
    training = models.logits_model(model)
    image, label = batch

    def loss():
        logits, *auxiliary = keras.tree.flatten(training(image, training=True))
        value = tf.reduce_mean(classification.softmax_cross_entropy(label, logits))
        for others in auxiliary:
            value += options.classification.aux_weight * tf.reduce_mean(
                classification.softmax_cross_entropy(label, others)
            )
        return value

    def gradients():
        with tf.GradientTape() as tape:
            value = loss()
        # All are handed back, or the graph would leave them out.
        return value, *tape.gradient(value, phase.variables)

    return [tf.function(one, autograph=False) for one in (loss, gradients)]


def _median(one: Callable[[], Any], repetitions: int) -> float:
    seconds = []
    for _ in range(repetitions + 1):
        started = time.perf_counter()
        tf.nest.flatten(one())[0].numpy()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _wait(stepper: stepping.TrainStep, pipeline: pipelines.TrainingDataset, steps: int) -> float:
    """Returns how long a step within an epoch waits for its batch; the wait for the first one is left out."""
    batches = iter(pipeline.steps_from(0, steps + 1))
    stepper(*next(batches))[0].numpy()
    waited = 0.0
    for _ in range(steps):
        started = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - started
        stepper(*batch)[0].numpy()
    return waited / steps


def _events(step: Callable[[], tf.Tensor]) -> list[tuple[str, float]]:
    """Returns the entries of some profiled steps."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(_PROFILED_STEPS):
            step().numpy()
        tf.profiler.experimental.stop()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(path.read_bytes())
    return [
        (plane.event_metadata[event.metadata_id].name, event.duration_ps / 1e12)
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    ]
