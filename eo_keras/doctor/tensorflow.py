"""Checks of TensorFlow, of its devices, and of options of a training run that fail or are slow on this machine.

TensorFlow is imported by the functions that use it; an import that fails is a finding.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
import re
import time
from collections.abc import Callable, Mapping

from eo_keras.doctor import machine as doctor
from eo_keras.doctor.machine import NOTE, OK, PROBLEM, WARNING, Check
from eo_keras.errors import EOKerasError
from eo_keras.records.data_card import read_data_card
from eo_keras.training.options import TrainingOptions
from eo_keras.training.validate import validate

_ONEDNN_VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
_DRIVERS = ("proc/driver/nvidia/version", "dev/nvidia0", "dev/dxg")
"""Files that exist where there is an NVIDIA GPU, whether TensorFlow sees it or not; the last one under WSL."""

_INSTALL_CUDA = "pip install 'eo-keras[cuda]'"
_SPEED_SECONDS = 1.0
_FASTER = 1.1
"""Ratio of speeds from which one precision is reported as faster than the other."""

_FAST_HALF = (7, 0)  # The first compute capability with matrix units for float16.


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU as TensorFlow sees it: its name, its compute capability, and the bytes that TensorFlow may take of it."""

    name: str
    compute_capability: tuple[int, int]
    memory: int


def environment(variables: Mapping[str, str]) -> list[Check]:
    """Checks for environment variables that break training, or slow it down.

    Args:
        variables: those of the process, before TensorFlow is imported.
    """
    area, findings = "variables", []
    if (backend := variables.get("KERAS_BACKEND", "tensorflow")) != "tensorflow":
        what = f"KERAS_BACKEND={backend}: models run on it, but training, evaluation and export need TensorFlow"
        findings.append(Check(area, PROBLEM, what, "unset KERAS_BACKEND"))
    if variables.get("TF_USE_LEGACY_KERAS", "0") not in ("0", "", "False"):
        what = "TF_USE_LEGACY_KERAS is set: tf.keras would be Keras 2"
        findings.append(Check(area, PROBLEM, what, "unset TF_USE_LEGACY_KERAS"))
    if variables.get(_ONEDNN_VARIABLE) == "0":
        what = f"{_ONEDNN_VARIABLE}=0: training on a processor takes about three times as long"
        findings.append(Check(area, WARNING, what, f"unset {_ONEDNN_VARIABLE}; the commands switch it on"))
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        if variables.get(name) == "1":
            what = f"{name}=1: TensorFlow computes on one core"
            findings.append(Check(area, WARNING, what, f"unset {name}"))
    if variables.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        findings.append(Check(area, NOTE, "CUDA_VISIBLE_DEVICES hides all GPUs", "unset it to use them"))
    return findings or [Check(area, OK, "none that breaks or slows down a run")]


def onednn() -> list[Check]:
    """Runs a convolution and reports whether TensorFlow gave it to oneDNN."""
    import numpy as np
    import tensorflow as tf

    area, tf1 = "oneDNN", tf.compat.v1
    image = np.ones((1, 16, 16, 8), np.float32)
    with tf.Graph().as_default():
        images = tf1.placeholder(tf.float32, image.shape)
        output = tf.nn.conv2d(images, tf.ones((3, 3, 8, 8)), 1, "SAME")
        metadata, options = tf1.RunMetadata(), tf1.RunOptions(output_partition_graphs=True)
        with tf1.Session(config=tf1.ConfigProto(device_count={"GPU": 0})) as session:
            session.run(output, {images: image}, options=options, run_metadata=metadata)
    ran = [node.op for graph in metadata.partition_graphs for node in graph.node if "Conv2D" in node.op]
    switch = os.environ.get(_ONEDNN_VARIABLE, "TensorFlow's own choice")
    if any("Mkl" in name for name in ran):
        return [Check(area, OK, f"used: a convolution on the processor ran as {ran[0]} ({_ONEDNN_VARIABLE}={switch})")]
    what = f"not used: a convolution on the processor ran as {ran[0] if ran else 'nothing known'}"
    return [Check(area, WARNING, f"{what} ({_ONEDNN_VARIABLE}={switch})", f"export {_ONEDNN_VARIABLE}=1")]


def bfloat16_speed(device: str = "CPU:0", *, seconds: float = _SPEED_SECONDS) -> float:
    """Measures how fast a device trains in mixed_bfloat16, as a multiple of its speed in float32.

    A residual block of ResNet-50 is timed, forward and backward: such convolutions take most of a step,
    and a processor that multiplies matrices fast in bfloat16 may still be slow at their gradients.

    Args:
        device: TensorFlow's name of the device.
        seconds: duration of timing both precisions, at least two steps each.
    """
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(1)
    with tf.device(device):
        image = tf.constant(rng.normal(size=(16, 16, 16, 256)), tf.float32)
        shapes = ((1, 1, 256, 64), (3, 3, 64, 64), (1, 1, 64, 256))
        kernels = [tf.constant(rng.normal(0, 0.1, size=shape), tf.float32) for shape in shapes]

    def make(dtype: tf.DType):
        @tf.function
        def step():
            with tf.device(device), tf.GradientTape() as tape:
                tape.watch([image, *kernels])
                features = before = tf.cast(image, dtype)
                for kernel in kernels:
                    # As mixed precision does it: kernels in float32, cast at each use.
                    features = tf.nn.relu(tf.nn.conv2d(features, tf.cast(kernel, dtype), 1, "SAME"))
                loss = tf.reduce_sum(features + before)
            return tf.add_n([tf.reduce_sum(one) for one in tape.gradient(loss, [image, *kernels])])

        return step

    steps = {dtype: make(dtype) for dtype in (tf.float32, tf.bfloat16)}
    for step in steps.values():
        step().numpy()  # Traced, and its kernels made.
    taken: dict[tf.DType, list[float]] = {dtype: [] for dtype in steps}
    ends = time.monotonic() + seconds
    while len(taken[tf.float32]) < 2 or time.monotonic() < ends:
        # By turns, so that other programs slow both down alike.
        for dtype, step in steps.items():
            started = time.perf_counter()
            step().numpy()
            taken[dtype].append(time.perf_counter() - started)
    return min(taken[tf.float32]) / min(taken[tf.bfloat16])


def bfloat16(speed: float, device: str) -> list[Check]:
    """Reports whether `dtype_policy=mixed_bfloat16` pays.

    Args:
        speed: result of `bfloat16_speed`.
        device: name of the device that was measured.
    """
    what = f"convolutions in mixed_bfloat16 train at {speed:.2f} times the speed of float32 (measured on {device})"
    if speed >= _FASTER:
        return [Check("bfloat16", OK, f"{what}: `dtype_policy=mixed_bfloat16` pays")]
    if speed > 1 / _FASTER:
        return [Check("bfloat16", NOTE, f"{what}: it saves memory, not time")]
    return [Check("bfloat16", NOTE, f"{what}: `dtype_policy=mixed_bfloat16` is slower")]


def gpus() -> tuple[Gpu, ...]:
    """Returns the GPUs that TensorFlow sees. The call makes TensorFlow allocate their memory."""
    import tensorflow as tf
    from tensorflow.python.client import device_lib

    seen = tf.config.list_physical_devices("GPU")
    # Listed only where there is one, for that takes seconds.
    limits = [device.memory_limit for device in device_lib.list_local_devices() if seen and device.device_type == "GPU"]
    listed = []
    for place, device in enumerate(seen):
        details = tf.config.experimental.get_device_details(device)
        capability = tuple(details.get("compute_capability", (0, 0)))
        listed.append(Gpu(details.get("device_name", device.name), capability, (limits + [0] * len(seen))[place]))
    return tuple(listed)


def devices(visible: tuple[Gpu, ...], root: pathlib.Path = pathlib.Path("/")) -> list[Check]:
    """Reports which GPUs TensorFlow uses, or why it sees none.

    Args:
        visible: the GPUs, see `gpus`.
        root: folder that holds `proc` and `dev`.
    """
    import tensorflow as tf

    area, built = "GPU", tf.sysconfig.get_build_info()
    cuda = f"CUDA {built['cuda_version']}, cuDNN {built['cudnn_version']}" if built.get("is_cuda_build") else ""
    present = [name for name in _DRIVERS if (root / name).exists()]
    if visible:
        findings = []
        for gpu in visible:
            major, minor = gpu.compute_capability
            what = f"{gpu.name}, compute capability {major}.{minor}, {gpu.memory / 1e9:.1f} GB for TensorFlow ({cuda})"
            findings.append(Check(area, OK, what))
            fast = gpu.compute_capability >= _FAST_HALF
            what = f"`dtype_policy=mixed_float16` {'pays on it' if fast else 'does not pay on it: no fast float16'}"
            findings.append(Check(area, OK if fast else NOTE, f"{what}, with one device"))
        return findings
    if not present:
        return [Check(area, NOTE, "none: TensorFlow computes on the processor")]
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return [Check(area, NOTE, "there is one, hidden by CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES")]
    if not cuda:
        what = "there is one, but this TensorFlow was built without CUDA"
        return [Check(area, PROBLEM, what, _INSTALL_CUDA)]
    missing = missing_cuda_packages()
    what = f"there is one (/{present[0]}), but TensorFlow does not see it; it needs {cuda}"
    if missing:
        return [Check(area, PROBLEM, f"{what}, and {', '.join(missing)} are not installed", _INSTALL_CUDA)]
    remedy = "check the driver with nvidia-smi; put the folders of the nvidia packages into LD_LIBRARY_PATH"
    if present == ["dev/dxg"]:
        remedy += "; under WSL also /usr/lib/wsl/lib"
    return [Check(area, PROBLEM, f"{what}, and the packages of tensorflow[and-cuda] are installed", remedy)]


def missing_cuda_packages() -> list[str]:
    """Returns those packages of `tensorflow[and-cuda]` that are not installed."""
    wanted = [text for text in importlib.metadata.requires("tensorflow") or () if "and-cuda" in text]
    names = [re.match(r"[\w.-]+", text)[0] for text in wanted]
    missing = []
    for name in names:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return missing


@dataclasses.dataclass(frozen=True)
class Machine:
    """Properties of a machine that the checks of options need.

    Attributes:
        gpus: its GPUs, see `gpus`.
        bfloat16: speed of bfloat16 as a multiple of float32's, as `bfloat16_speed` measures it; None if unknown.
        memory: bytes of memory that are free for this process; None if unknown.
    """

    gpus: tuple[Gpu, ...] = ()
    bfloat16: float | None = None
    memory: int | None = None

    def replicas(self, strategy: str, virtual_devices: int) -> int:
        """Returns the number of devices that a training run with these flags divides a batch among."""
        return 1 if strategy == "none" else max(1, virtual_devices or len(self.gpus))


def this_machine(
    visible: tuple[Gpu, ...], bfloat16: float | None = None, root: pathlib.Path = pathlib.Path("/")
) -> Machine:
    """Describes this machine; unknown properties have their defaults."""
    try:
        _, free, limit = doctor.usable_memory(root)
        memory = min(free, limit or free)
    except (KeyError, ValueError, IndexError):
        memory = None
    return Machine(visible, bfloat16, memory)


def check_training(
    options: TrainingOptions, machine: Machine, message: Callable[[EOKerasError], str] = str
) -> list[Check]:
    """Reports the options of a training run that are known to fail on a machine, or to be slow on it.

    Options that depend on the records are checked where the records folder exists.

    Args:
        options: the options.
        machine: the machine.
        message: returns the text of an error with which training would refuse the options.
    """
    area, findings = "flags", []

    def add(level: str, what: str, remedy: str) -> None:
        findings.append(Check(area, level, what, remedy))

    replicas = machine.replicas(options.strategy, options.virtual_devices)
    exists = bool(options.records_dir) and os.path.isdir(options.records_dir)
    try:
        validate(options, read_data_card(options.records_dir) if exists else None, replicas)
    except EOKerasError as error:
        findings.append(Check(area, PROBLEM, message(error)))
    if options.virtual_devices > 1:
        where = "they take the processor, not the GPUs" if machine.gpus else "they share one processor"
        add(NOTE, f"`virtual_devices={options.virtual_devices}`: {where}, and make nothing faster", "leave them out")
    policy, on_gpu = options.dtype_policy, bool(machine.gpus) and not options.virtual_devices
    if policy == "mixed_float16":
        if not on_gpu:
            add(WARNING, "mixed_float16 on a processor: it has no fast float16", "take float32")
        elif any(gpu.compute_capability < _FAST_HALF for gpu in machine.gpus):
            add(WARNING, "mixed_float16 on a GPU before compute capability 7.0: no faster than float32", "take float32")
    if policy == "mixed_bfloat16" and machine.bfloat16 is not None and machine.bfloat16 <= 1 / _FASTER:
        add(WARNING, f"mixed_bfloat16: measured at {machine.bfloat16:.2f} times the speed of float32", "take float32")
    if policy == "float64":
        add(NOTE, "float64: made for comparing devices, several times slower than float32", "take float32 to train")
    if machine.memory is not None and 1e9 * options.cache_gb > 0.8 * machine.memory:
        what = f"`cache_gb={options.cache_gb:g}` of {machine.memory / 1e9:.1f} GB of free memory"
        add(WARNING, f"{what}: a data set of that size leaves no memory for the model", "make `cache_gb` smaller")
    if not any(finding.level == PROBLEM for finding in findings):
        findings.append(Check(area, OK, f"none known to break on {replicas} device{'s' if replicas > 1 else ''}"))
    return findings
