"""Devices and strategies: which processors a run uses, and how a batch is divided among them."""

from __future__ import annotations

import keras
import tensorflow as tf

from eo_keras.errors import OptionError

STRATEGIES = ("auto", "none", "mirrored")


def prepare_devices(*, virtual_devices: int = 0, deterministic: bool = False, seed: int | None = None) -> None:
    """Sets what has to be set before TensorFlow touches a device.

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
            device.
        virtual_devices: as given to `prepare_devices`; they are used instead of GPUs.

    Raises:
        OptionError: if the name is unknown, or several virtual devices are asked for without a strategy to use them.
    """
    if name not in STRATEGIES:
        raise OptionError("strategy", f"'{name}'", f"one of {', '.join(STRATEGIES)}")
    kind = "CPU" if virtual_devices else "GPU"
    devices = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices(kind)]
    if name == "none" and virtual_devices > 1:
        raise OptionError(
            "strategy", f"none, with {virtual_devices} virtual devices", "mirrored", "one device needs no division"
        )
    if name == "none" or (name == "auto" and len(devices) < 2):
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(devices or ["CPU:0"])


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Refuses a global batch that the replicas cannot share evenly.

    Raises:
        OptionError: if it is not a multiple of the number of replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise OptionError(
            "batch_size",
            f"{batch_size} is not divisible by {replicas} devices",
            f"a multiple of {replicas}, for instance {-(-batch_size // replicas) * replicas}",
        )
