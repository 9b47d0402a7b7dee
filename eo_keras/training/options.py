"""Options of a training run. No TensorFlow."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from eo_keras import models
from eo_keras.core.options import (
    check,
    documented,
    fields,
    nested,
    nested_fields,
    option,
    result_names,
    with_present_names,
)
from eo_keras.core.serialization import to_json
from eo_keras.data.augment.options import NO_AUGMENTATION
from eo_keras.errors import OptionError, RunError
from eo_keras.records.targets import TARGETS
from eo_keras.runs import folder as runs
from eo_keras.tasks.options import ClassificationOptions, PretextOptions, SegmentationOptions

OPTIMIZERS = ("sgd", "adamw", "rmsprop", "muon")
SCHEDULES = ("cosine", "linear", "poly", "piecewise")
STRATEGIES = ("auto", "none", "mirrored", "multi_worker")


@documented
@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """Optimizer and learning rate schedule.

    Weight decay is decoupled: each step takes `learning_rate * weight_decay` of the kernels away; biases and the
    weights of batch normalization do not decay. The schedule rises linearly from 0 (warm-up), then falls by half a
    cosine, by a straight line, by `(1 - t) ** power` (Chen et al. 2018, DeepLabv3+) or by a factor at given epochs.
    """

    optimizer: str = option("sgd", choices=OPTIMIZERS, help="Optimizer.")
    learning_rate: float = option(
        0.05,
        above=0,
        help="Peak of the learning rate, after the warm-up; of muon, the length of a kernel's step as a fraction of "
        "the kernel's.",
    )
    sgd_learning_rate: float = option(
        0.05,
        above=0,
        help="Peak of the learning rate under muon of all weights but the convolutions' kernels; they follow sgd.",
        aliases=("other_rate",),
    )
    momentum: float = option(0.9, minimum=0, below=1, help="Momentum of sgd, rmsprop and muon; beta_1 of adamw.")
    nesterov: bool = option(True, help="Whether sgd takes Nesterov's momentum.")
    schedule: str = option("cosine", choices=SCHEDULES, help="How the learning rate falls after the warm-up.")
    warmup_epochs: float | None = option(
        None,
        minimum=0,
        help="Length of the linear rise of the learning rate in epochs; may be a fraction. Default: 1, of a shorter "
        "run half of it.",
    )
    decay_epochs: tuple[float, ...] = option(
        (),
        minimum=0,
        help="Epochs at which `schedule=piecewise` multiplies the learning rate by `decay_factor`, such as 30,60.",
    )
    decay_factor: float = option(0.1, minimum=0, below=1, help="Factor of `schedule=piecewise`.")
    power: float = option(0.9, minimum=0, help="Exponent of `schedule=poly`.")
    final_lr_fraction: float = option(
        0.0,
        minimum=0,
        maximum=1,
        help="Learning rate at the end of the other schedules, as a fraction of the peak; 1 keeps it.",
        aliases=("final_rate",),
    )
    layer_decay: float = option(
        1.0,
        above=0,
        maximum=1,
        help="The learning rate of a layer is multiplied by this once for each block between it and the head; below 1, "
        "pretrained layers near the input change less (Clark et al. 2020, arXiv 2003.10555, section 3.1).",
    )
    clip_norm: float = option(
        0.0,
        minimum=0,
        help="Largest norm of the gradient over all weights and devices together; longer ones are scaled down (Pascanu "
        "et al. 2013, arXiv 1211.5063, section 3.2). 0 for no limit.",
    )
    weight_decay: float = option(
        0.005,
        minimum=0,
        help="Decoupled weight decay of the kernels, as a fraction of the learning rate a step. Under sgd it is as "
        "strong as an L2 penalty of weight_decay * (1 - momentum).",
    )

    def __post_init__(self):
        check(self)
        if self.decay_epochs and self.schedule != "piecewise":
            raise OptionError(
                "decay_epochs",
                f"they are given with `schedule={self.schedule}`",
                "`schedule=piecewise`",
                "leave one out",
            )
        if self.schedule == "piecewise" and not self.decay_epochs:
            raise OptionError("decay_epochs", "none are given", "where `schedule=piecewise` lowers the learning rate")

    def warmup(self, epochs: int) -> float:
        """Returns the length of the warm-up in a run or phase of a number of epochs."""
        return min(1.0, epochs / 2) if self.warmup_epochs is None else self.warmup_epochs

    def check_epochs(self, epochs: int) -> None:
        """Checks that warm-up and decays are within a run or phase of a number of epochs.

        Raises:
            OptionError: if one is.
        """
        for name, values in (("warmup_epochs", (self.warmup(epochs),)), ("decay_epochs", self.decay_epochs)):
            if outside := [value for value in values if not 0 <= value < epochs]:
                raise OptionError(name, f"{outside[0]:g} in a run of {epochs} epochs", f"0 to below {epochs}")


@documented
@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Options of a training run."""

    records_dir: str = option(path=True, affects_result=False, help="Records folder made by launch.build.")
    run_dir: str = option(
        path=True, affects_result=False, repeatable=False, help="Run folder to make (new or empty) or to resume."
    )
    resume: bool = option(
        False, affects_result=False, repeatable=False, help="Whether to resume from the checkpoint in `run_dir`."
    )
    overwrite: bool = option(
        False,
        affects_result=False,
        repeatable=False,
        help="Whether to replace a run that is already in `run_dir`; other files there stay.",
    )
    model: str = option("resnet50", help=f"Network. {models.describe()}")
    bands: str = option(
        "all",
        help="Bands to train on: RGB, CI, SWIR, all, or names such as B04,B8A or RGB,B08; of records of several "
        "modalities each with its bands, such as s2:RGB,B08;s1:VV,VH.",
    )
    fusion: str | None = option(
        None,
        choices=models.FUSIONS,
        help="Several sensors: early stacks their bands; late averages the predictions of a network each, late_learned "
        "joins their last features, residual corrects the average; vfusenet adds features stage by stage; attention "
        "weights the features of each by those of the others. Default: early.",
    )
    dates: str | None = option(
        None,
        choices=models.DATES,
        help="Modalities X and X_before, two dates of one sensor: stacked as bands of one image, or each by the same "
        "encoder (siamese), which passes on the later features and their difference. Default: stacked.",
    )
    modality_dropout: float = option(
        0.0,
        minimum=0,
        below=1,
        help="Several sensors: probability that each of them, with both dates, is taken away from a training image, so "
        "that the model learns to do without; one sensor is always kept.",
    )
    weights: str | None = option(
        None,
        path=True,
        help="Weights to start from: imagenet, or a file (.keras, .h5). Default: none, they are random.",
    )
    stem: str = option(
        "by_name",
        choices=models.STEM_MODES,
        help="Which pretrained kernel each band takes: that of its own color or the nearest in wavelength (by_name), "
        "or that of its position (by_position).",
    )
    strategy: str = option(
        "auto",
        choices=STRATEGIES,
        affects_result=False,
        help="Devices: auto (mirrored where there are several GPUs), none (one device), mirrored, or multi_worker: all "
        "devices of the workers that the environment variable TF_CONFIG names, each of which runs this command.",
    )
    worker_wait: float = option(
        600.0,
        minimum=0,
        affects_result=False,
        help="Seconds that workers of `strategy=multi_worker` wait for each other at the start.",
    )
    virtual_devices: int = option(
        0,
        minimum=0,
        affects_result=False,
        help="Devices to split the processor into, to try a strategy without GPUs; 0 leaves it whole.",
    )
    batch_size: int = option(64, minimum=1, help="Examples in a step, over all devices together.")
    epochs: int = option(30, minimum=1, help="Length of the run in epochs.")
    steps_per_epoch: int | None = option(
        None, minimum=1, help="Steps in an epoch. Default: one pass over the training examples."
    )
    head_epochs: int = option(
        0,
        minimum=0,
        help="Number of first epochs that train the head alone, at the constant `head_learning_rate` (phase 1 of "
        "Helber et al. 2019, IEEE JSTARS 12(7), section V); the schedule applies to the epochs after them. Needs "
        "`weights`.",
    )
    head_learning_rate: float = option(0.01, above=0, help="Learning rate of these epochs.")
    head_only: bool = option(
        False,
        help="Whether the head alone is trained, in all epochs and by the schedule, on the features of the weights: a "
        "linear probe of a classifier, as a quick baseline. Needs `weights`.",
    )
    frozen_batch_norm: bool = option(
        False,
        help="Whether batch normalization keeps the statistics, gamma and beta of the weights. Needs `weights`.",
    )
    validation_from_train: float = option(
        0.05,
        minimum=0,
        below=1,
        help="Fraction of the training examples that is held out and chooses the epoch to keep, where the records have "
        "no split val: tiles by city or in blocks of ground, patches by a hash of their keys, copies and overlapping "
        "ones together. 0 keeps the last epoch. The test split is never used for this.",
    )
    train_fraction: float = option(
        1.0,
        above=0,
        maximum=1,
        help="Fraction of the training examples that is trained on, of those that are not held out, drawn by a hash of "
        "key and seed: to measure what more labels gain. A smaller fraction is part of a larger one.",
    )
    optimizer: OptimizerOptions = nested(OptimizerOptions)
    dropout: float | None = option(
        None,
        minimum=0,
        below=1,
        help="Fraction of the features dropped before the last layer. Default: the network's own.",
    )
    label_smoothing: float = option(
        0.0, minimum=0, below=1, help="Fraction of the target that is spread over all classes."
    )
    ema: float = option(
        0.0,
        minimum=0,
        below=1,
        help="Decay per step of an exponential moving average of all weights, which is then what is validated and "
        "kept; 0 for none.",
    )
    classification: ClassificationOptions = nested(ClassificationOptions)
    segmentation: SegmentationOptions = nested(SegmentationOptions)
    pretraining: PretextOptions = nested(PretextOptions)
    dtype_policy: str = option(
        "float32", choices=models.POLICIES, help="Precision; mixed_float16 works on one device only."
    )
    jit_compile: bool = option(False, help="Whether XLA compiles the training step (one device only).")
    seed: int = option(1, help="Seed of initial weights, order, augmentation and the validation examples held out.")
    deterministic: bool = option(
        False, help="Whether to use deterministic kernels only: repeatable to the bit, slower."
    )
    checkpoint_steps: int = option(
        0,
        minimum=0,
        affects_result=False,
        help="A checkpoint is written after every epoch, and after every so many steps; 0 for none within an epoch. "
        "SIGTERM and Ctrl-C write one more before the run stops.",
    )
    cache_gb: float = option(
        4.0,
        minimum=0,
        affects_result=False,
        help="Examples are kept in memory if they need no more gigabytes; 0 streams them.",
    )

    def __post_init__(self):
        check(self)
        if self.model not in models.MODELS:
            raise OptionError("model", f"'{self.model}'", f"one of {', '.join(models.MODELS)}")
        if self.head_epochs >= self.epochs:
            found = f"{self.head_epochs} in a run of {self.epochs} epochs"
            raise OptionError("head_epochs", found, "fewer than the run's")
        if self.head_only and self.head_epochs:
            raise OptionError("head_epochs", f"{self.head_epochs} together with `head_only`", "one of them")
        if self.weights is not None and self.segmentation.backbone_run is not None:
            raise OptionError("backbone_run", "it is given together with `weights`", "one of them")
        for name in ("head_epochs", "head_only", "frozen_batch_norm"):
            if getattr(self, name) and self.weights is None and self.segmentation.backbone_run is None:
                raise OptionError(
                    name,
                    f"{getattr(self, name)} without weights: what is kept fixed would be random",
                    "weights to start from",
                    f"give `weights`, or leave `{name}` out",
                )
        if self.strategy == "multi_worker" and self.virtual_devices:
            raise OptionError(
                "virtual_devices",
                f"{self.virtual_devices}, with `strategy=multi_worker`",
                "0",
                "start several workers on the machine instead",
            )
        if self.strategy == "none" and self.virtual_devices > 1:
            found = f"none, with {self.virtual_devices} virtual devices"
            raise OptionError("strategy", found, "mirrored", "one device needs no division")
        if self.resume and self.overwrite:
            raise OptionError("resume", "it is given together with `overwrite`", "one of them")
        progressive = sum(self.classification.progressive_epochs)
        if progressive >= self.epochs:
            raise OptionError(
                "progressive_epochs",
                f"{progressive} epochs on smaller images in a run of {self.epochs}",
                "numbers that leave at least one epoch for the whole images",
            )

    @property
    def warmup_shrinks(self) -> bool:
        """Whether the run is too short for the warm-up that is taken by default."""
        chosen = self.optimizer.warmup
        return self.optimizer.warmup_epochs is None and chosen(self.epochs - self.head_epochs) < chosen(self.epochs + 2)

    def of_task(self, task: str) -> Any:
        """Returns the options that belong to a task alone, an object of `eo_keras.tasks.options`."""
        return getattr(self, task)

    def head_optimizer(self) -> OptimizerOptions:
        """Returns the options of training the head alone: a constant rate, otherwise those of the whole network."""
        return dataclasses.replace(
            self.optimizer,
            learning_rate=self.head_learning_rate,
            schedule="linear",
            warmup_epochs=0.0,
            decay_epochs=(),
            final_lr_fraction=1.0,
            layer_decay=1.0,
        )

    def check_devices(self, replicas: int) -> None:
        """Checks the options that Keras and TensorFlow lack on several devices.

        Args:
            replicas: number of devices that share a batch.

        Raises:
            OptionError: if an option cannot work on so many.
        """
        if replicas > 1 and self.dtype_policy == "mixed_float16":
            raise OptionError(
                "dtype_policy",
                f"mixed_float16 on {replicas} devices: Keras cannot scale the loss under a strategy",
                "mixed_bfloat16 or float32",
            )
        if replicas > 1 and self.jit_compile:
            raise OptionError(
                "jit_compile",
                f"true on {replicas} devices: TensorFlow cannot compile a step across devices by XLA",
                "one device (`strategy=none`)",
                "leave `jit_compile` out",
            )
        if self.batch_size % replicas:
            raise OptionError(
                "batch_size",
                f"{self.batch_size} is not divisible by {replicas} devices",
                f"a multiple of {replicas}, for instance {-(-self.batch_size // replicas) * replicas}",
            )

    def comparable(self) -> dict[str, Any]:
        """Returns the options that change the result, without those of other tasks, as values of JSON."""
        others = TARGETS.keys() - {models.MODELS[self.model].task}
        kept = result_names(TrainingOptions) | nested_fields(TrainingOptions).keys() - others
        return {key: value for key, value in to_json(self).items() if key in kept}


def stored_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options in a checkpoint or model card, those of older versions with present names and defaults.

    Options that a version did not have get their defaults.

    Args:
        values: options by name, as JSON gives them back.
    """
    present = with_present_names(TrainingOptions, values)
    for name, kind in nested_fields(TrainingOptions).items():
        if name not in present:
            own = {field.name for field in dataclasses.fields(kind)}
            present[name] = {key: present.pop(key) for key in list(present) if key in own}
            # None stood for an augmentation that changes nothing.
            if "augmentation" in own:
                present[name]["augmentation"] = present[name].get("augmentation") or to_json(NO_AUGMENTATION)
    return _with_defaults(TrainingOptions, present)


def _with_defaults(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values with the defaults of options that an older version did not have: they change nothing."""
    added = {
        field.name: to_json(field.default)
        for field in fields(kind)
        if field.option.affects_result and not field.required and field.name not in values
    }
    inner = {
        name: _with_defaults(one, values[name])
        for name, one in nested_fields(kind).items()
        if isinstance(values.get(name), Mapping)
    }
    return {**values, **added, **inner}


def check_resumable(options: TrainingOptions, state: Mapping[str, Any], data_fingerprint: str) -> None:
    """Checks that a run is resumed with the options and records that it was started with.

    Args:
        options: the options now.
        state: state of the run's checkpoint, see `runs.read_state`.
        data_fingerprint: fingerprint of the records' card now.

    Raises:
        RunError: if an option that decides what is computed, or the records, are not the same.
    """
    folder, before = pathlib.Path(options.run_dir), stored_options(state["options"])
    for key, value in options.comparable().items():
        if before.get(key) != value:
            other = "start another run"
            if key == "epochs":
                other += f", such as a longer one from `weights={folder / runs.MODEL_NAME}`"
            name, was, now = _difference(key, before.get(key), value)
            raise RunError(
                folder,
                f"the run was started with `{name}={was}`, not `{name}={now}`",
                "the same options",
                f"resume with `flagfile={folder / runs.FLAGS_NAME}`, or {other}",
            )
    if state["data_fingerprint"] != data_fingerprint:
        raise RunError(
            folder,
            f"the run was started on other records ({state['data_fingerprint'][:12]})",
            f"the records {options.records_dir} ({data_fingerprint[:12]})",
            "name the records it was started on, or start another run",
        )


def _difference(name: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """Returns the first option that differs, by name, with its two values; within nested ones, theirs."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        # A later version may have options that this one does not know.
        keys, none = dict.fromkeys([*now, *before]), "(not an option of this version)"
        inner = next(key for key in keys if before.get(key, none) != now.get(key, none))
        return _difference(inner, before.get(inner, none), now.get(inner, none))
    return name, before, now
