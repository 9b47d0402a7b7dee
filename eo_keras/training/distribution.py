"""Devices, workers and strategies of a training run, and the distribution of batches."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from eo_keras.data.folder import unconverted
from eo_keras.errors import OptionError
from eo_keras.training.options import STRATEGIES

_AGREED_STEPS = 20
"""Number of steps between two decisions of several workers on whether to stop."""


_SEED_STEP = 0x9E3779B9
"""Step between the seeds of two devices: the golden ratio of 2**32, whose multiples lie far apart."""


@dataclasses.dataclass(frozen=True)
class Worker:
    """One of the processes that train together.

    Attributes:
        number: its number, from 0; the first one is the chief, which writes the run folder.
        count: number of workers.
        tasks: TensorFlow's name of each, such as `/job:worker/replica:0/task:1`; empty for one that trains alone.
        addresses: address of each, as `host:port`; likewise.
    """

    number: int = 0
    count: int = 1
    tasks: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    addresses: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.number == 0

    def name_of(self, number: int) -> str:
        """Returns the name of a worker in messages, such as `worker 2 (two:2222)`."""
        return f"worker {number + 1} ({self.addresses[number]})"

    @property
    def input_context(self) -> tf.distribute.InputContext | None:
        """Input context of the worker's share of every batch; None for a process that trains alone."""
        if self.count == 1:
            return None
        return tf.distribute.InputContext(num_input_pipelines=self.count, input_pipeline_id=self.number)


ALONE = Worker()


def this_worker(strategy: str) -> Worker:
    """Returns this process's worker, from TF_CONFIG under `multi_worker`, else the only one.

    Raises:
        OptionError: if TF_CONFIG is missing or cannot be understood.
    """
    if strategy != "multi_worker":
        return ALONE
    form = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        cluster = {kind: list(addresses) for kind, addresses in config["cluster"].items()}
        kind, index = config["task"]["type"], int(config["task"]["index"])
        if not set(cluster) <= {"chief", "worker"} or not 0 <= index < len(cluster[kind]):
            raise ValueError(f"there is no {kind} {index} among its workers and chief")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found = (
            f"TF_CONFIG cannot be understood ({error!r})" if text else "the environment variable TF_CONFIG is not set"
        )
        raise OptionError("strategy", f"multi_worker, but {found}", f"TF_CONFIG={form} on every worker") from None
    all_tasks = [(name, place) for name in ("chief", "worker") for place in range(len(cluster.get(name, ())))]
    return Worker(
        number=all_tasks.index((kind, index)),
        count=len(all_tasks),
        tasks=tuple(f"/job:{name}/replica:0/task:{place}" for name, place in all_tasks),
        addresses=tuple(str(cluster[name][place]) for name, place in all_tasks),
    )


class StopConsensus:
    """Decision of all workers on whether to stop: they stop if any one of them has to.

    Args:
        wants_to_stop: returns whether this worker has to stop.
        strategy: the strategy.
        worker: this worker.
    """

    def __init__(self, wants_to_stop: Callable[[], bool], strategy: tf.distribute.Strategy, worker: Worker):
        self._wants_to_stop, self._strategy, self._worker = wants_to_stop, strategy, worker
        self._sum = tf.function(self._added, autograph=False)

    def _added(self, vote: tf.Tensor) -> tf.Tensor:
        # A value of each device's own: a tensor that comes from outside belongs to none of them.
        votes = self._strategy.run(tf.identity, (vote,))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, votes, axis=None)

    def __call__(self) -> bool:
        """Returns whether to stop; every worker must call this at the same place."""
        wanted = bool(self._wants_to_stop())
        if self._worker.count == 1:
            return wanted
        return int(self._sum(tf.constant(int(wanted)))) > 0

    def after(self, step: int) -> bool:
        """Returns whether to stop after a step; several workers decide after some steps only, one alone after each."""
        return self() if self._worker.count == 1 or step % _AGREED_STEPS == 0 else False


def desynchronize_dropout(states: Sequence[Any], strategy: tf.distribute.Strategy, worker: Worker) -> None:
    """Sets different states of random layers on every device, so that dropout masks differ.

    Args:
        states: states of the layers' random generators, see `eo_keras.models.seed_states`; equal on all devices.
        strategy: the strategy.
        worker: this worker.
    """
    first = worker.number * (strategy.num_replicas_in_sync // worker.count)
    for state in states:
        key, draws = state.numpy()
        for place, copy in enumerate(strategy.experimental_local_results(state.value)):
            copy.assign([(int(key) + _SEED_STEP * (first + place)) % 2**32, draws])


def distributed(strategy: tf.distribute.Strategy, worker: Worker, dataset: tf.data.Dataset) -> Any:
    """Divides batches among the devices.

    Args:
        strategy: the strategy.
        worker: this worker.
        dataset: global batches, or this worker's share of them.
    """
    if worker.count == 1:
        return strategy.experimental_distribute_dataset(dataset)
    replicas = strategy.num_replicas_in_sync // worker.count
    if replicas > 1:
        # Every element of what follows goes to a device of its own.

        @unconverted
        def divided(*batch: tf.Tensor) -> tf.data.Dataset:
            parts = (tf.reshape(value, (replicas, value.shape[0] // replicas, *value.shape[1:])) for value in batch)
            return tf.data.Dataset.from_tensor_slices(tuple(parts))

        dataset = dataset.flat_map(divided)
    return strategy.distribute_datasets_from_function(lambda context: dataset)


def prepare_devices(*, virtual_devices: int = 0, deterministic: bool = False, seed: int | None = None) -> None:
    """Sets the options of TensorFlow that must precede its first use of a device.

    Args:
        virtual_devices: number of devices to split the processor into, to try a strategy without GPUs; 0 leaves it
            whole.
        deterministic: whether to use deterministic kernels only, which may be slower.
        seed: of TensorFlow's, NumPy's and Python's global generators.

    Raises:
        OptionError: if the number is negative, or TensorFlow is already running with another division.
    """
    if virtual_devices < 0:
        raise OptionError("virtual_devices", f"{virtual_devices}", "0 or more")
    if virtual_devices:
        parts = [tf.config.LogicalDeviceConfiguration()] * virtual_devices
        try:
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
        except RuntimeError:
            raise OptionError(
                "virtual_devices", "TensorFlow is already running", "a fresh process", "set it before anything else"
            ) from None
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if seed is not None:
        keras.utils.set_random_seed(seed)


def make_strategy(name: str = "auto", *, virtual_devices: int = 0) -> tf.distribute.Strategy:
    """Returns the strategy of that name. Only one mirrored strategy may be made in a process.

    Args:
        name: `auto` is `mirrored` where there are several GPUs (or virtual devices), else `none`; `none` uses one
            device; `multi_worker` uses all devices of all workers of TF_CONFIG.
        virtual_devices: as given to `prepare_devices`; they are used instead of GPUs.

    Raises:
        OptionError: if the name is unknown, or there are several virtual devices without a strategy that uses them.
    """
    if name not in STRATEGIES:
        raise OptionError("strategy", f"'{name}'", f"one of {', '.join(STRATEGIES)}")
    if name == "multi_worker":
        # Before a device is touched, even to list them, or the workers' collective operations cannot be set up.
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise OptionError(
                "strategy",
                f"multi_worker, but the workers cannot be connected ({error.message})",
                "addresses in TF_CONFIG that are this worker's own and free, and others that can be reached",
            ) from None
    kind = "CPU" if virtual_devices else "GPU"
    devices = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices(kind)]
    if name == "none" and virtual_devices > 1:
        raise OptionError(
            "strategy", f"none, with {virtual_devices} virtual devices", "mirrored", "one device needs no division"
        )
    if name == "none" or (name == "auto" and len(devices) < 2):
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(devices or ["CPU:0"])
