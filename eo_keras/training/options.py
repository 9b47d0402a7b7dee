"""What a training run is told: a frozen set of options that refuses what cannot work."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from eo_keras import models, tasks
from eo_keras.data.augment.crops import CropAugmentation
from eo_keras.data.augment.patches import Augmentation
from eo_keras.errors import OptionError, RunError
from eo_keras.records import data_card as cards
from eo_keras.runs import folder as runs
from eo_keras.tasks.segmentation import SegmentationOptions
from eo_keras.training import optimizers

_PER_RUN = (
    "records_dir",
    "run_dir",
    "resume",
    "overwrite",
    "strategy",
    "virtual_devices",
    "cache_gb",
    "checkpoint_steps",
    "worker_wait",
)
"""Options that do not change what is computed; a resumed run may have others."""


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """What to train, on what, and how.

    Attributes:
        records_dir: the records folder.
        run_dir: the run folder to make, or to go on with.
        model: a name of `eo_keras.models.MODELS`.
        bands: a composite, `all`, or names separated by commas.
        weights: None, `imagenet` or a file, see `eo_keras.models.build`.
        stem: which pretrained kernel each band takes, see `eo_keras.models.pretrained.stem`.
        strategy: a name of `eo_keras.training.distribution.STRATEGIES`.
        virtual_devices: number of devices to split the processor into; 0 leaves it whole.
        batch_size: examples in a step, over all devices together.
        epochs: length of the run.
        steps_per_epoch: steps in an epoch; None for one pass over the data.
        head_epochs: so many epochs of the run train the last layer alone, at a constant rate (phase 1 of Helber et al.
            2019, IEEE JSTARS 12(7), section V); the schedule of `optimizer` belongs to the epochs behind them.
        head_learning_rate: that rate.
        frozen_batch_norm: whether batch normalisation keeps the statistics, gamma and beta of the weights.
        optimizer: see `eo_keras.training.optimizers`.
        augmentation: of patches, see `eo_keras.data.augment.patches`; None for none.
        segmentation: of tiles.
        progressive_sizes: image sizes in pixels of the run's first parts, smaller than the patches; the last part takes
            them as they are.
        progressive_epochs: the number of epochs of each of these parts.
        aux_weight: what the loss of each auxiliary classifier counts (GoogLeNet has two).
        dropout: share of the features that are dropped before the last layer; None for the architecture's own.
        label_smoothing: share of the target that is spread over all classes.
        ema: decay a step of an exponential moving average of all weights, which is then what is validated and kept; 0
            for none.
        validation_from_train: share of the training examples held out to choose the epoch, see
            `eo_keras.data.holdouts`, where the records have no validation split; 0 for none: the last epoch is kept.
        dtype_policy: one of `eo_keras.models.POLICIES`.
        jit_compile: whether XLA compiles the training step (one device only).
        checkpoint_steps: a checkpoint is also written behind every so many steps; 0 for none within an epoch.
        seed: of initial weights, order and augmentation.
        deterministic: whether to use deterministic kernels only.
        cache_gb: examples are kept in memory if they need no more than this, in gigabytes.
        worker_wait: how long workers wait for each other at the start, in seconds.
        resume: whether to go on from the run folder's checkpoint.
        overwrite: whether to replace a run that is already in the folder.
    """

    records_dir: str
    run_dir: str
    model: str = "resnet50"
    bands: str = "all"
    weights: str | None = None
    stem: str = "by_name"
    strategy: str = "auto"
    virtual_devices: int = 0
    batch_size: int = 64
    epochs: int = 30
    steps_per_epoch: int | None = None
    head_epochs: int = 0
    head_learning_rate: float = 0.01
    frozen_batch_norm: bool = False
    optimizer: optimizers.OptimizerOptions = optimizers.OptimizerOptions()
    augmentation: Augmentation | None = Augmentation()
    segmentation: SegmentationOptions = SegmentationOptions()
    progressive_sizes: tuple[int, ...] = ()
    progressive_epochs: tuple[int, ...] = ()
    aux_weight: float = 0.3
    dropout: float | None = None
    label_smoothing: float = 0.0
    ema: float = 0.0
    validation_from_train: float = 0.05
    dtype_policy: str = "float32"
    jit_compile: bool = False
    checkpoint_steps: int = 0
    seed: int = 1
    deterministic: bool = False
    cache_gb: float = 4.0
    worker_wait: float = 600.0
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self):
        """Refuses values and combinations that cannot work."""
        for name in ("epochs", "batch_size", "steps_per_epoch"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)}", "1 or more")
        for name in ("label_smoothing", "ema", "validation_from_train"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)}", "a number in [0, 1)")
        for name in ("cache_gb", "aux_weight", "checkpoint_steps", "head_epochs", "worker_wait"):
            if not getattr(self, name) >= 0:
                raise OptionError(name, f"{getattr(self, name)}", "0 or more")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise OptionError("dropout", f"{self.dropout}", "a number in [0, 1), or none for the architecture's own")
        if self.head_epochs >= self.epochs:
            raise OptionError(
                "head_epochs", f"{self.head_epochs} in a run of {self.epochs} epochs", "fewer than the run's"
            )
        if self.weights is not None and self.segmentation.backbone_run is not None:
            raise OptionError("backbone_run", "it is given together with weights", "one of them")
        for name in ("head_epochs", "frozen_batch_norm"):
            if getattr(self, name) and self.weights is None and self.segmentation.backbone_run is None:
                raise OptionError(
                    name,
                    f"{getattr(self, name)} without weights: what is kept fixed would be random",
                    "weights to start from",
                    f"give `weights`, or leave {name} out",
                )
        if self.strategy == "multi_worker" and self.virtual_devices:
            raise OptionError(
                "virtual_devices",
                f"{self.virtual_devices}, with strategy multi_worker",
                "0",
                "start several workers on the machine instead",
            )
        if self.resume and self.overwrite:
            raise OptionError("resume", "it is given together with overwrite", "one of them")
        if len(self.progressive_sizes) != len(self.progressive_epochs):
            raise OptionError(
                "progressive_sizes",
                f"{len(self.progressive_sizes)} sizes and {len(self.progressive_epochs)} numbers of epochs",
                "one number of epochs (progressive_epochs) for each size",
            )
        if any(size < models.MIN_PATCH_SIZE for size in self.progressive_sizes):
            raise OptionError("progressive_sizes", f"{min(self.progressive_sizes)}", f"{models.MIN_PATCH_SIZE} or more")
        if any(count < 1 for count in self.progressive_epochs) or sum(self.progressive_epochs) >= self.epochs:
            raise OptionError(
                "progressive_epochs",
                f"{sum(self.progressive_epochs)} epochs on smaller images in a run of {self.epochs}",
                "numbers from 1 on that leave at least one epoch for the whole images",
            )

    @property
    def warmup_shrinks(self) -> bool:
        """Whether the run is too short for the warm-up that is taken by default."""
        chosen = self.optimizer.warmup
        return self.optimizer.warmup_epochs is None and chosen(self.epochs - self.head_epochs) < chosen(self.epochs + 2)

    def image_size(self, epoch: int) -> int | None:
        """Returns the image size of an epoch, counted from 0; None for the patches as they are."""
        for size, count in zip(self.progressive_sizes, self.progressive_epochs, strict=True):
            if epoch < count:
                return size
            epoch -= count
        return None

    def input_size(self, card: cards.DataCard) -> int | None:
        """Returns height and width of the trained model's input in pixels; None for any."""
        varies = self.progressive_sizes or tasks.of(card).crop(self) is not None
        return None if varies else card.patch_size

    def head_optimizer(self) -> optimizers.OptimizerOptions:
        """Returns how the head alone is trained: at a constant rate, otherwise as the whole network."""
        return dataclasses.replace(
            self.optimizer,
            learning_rate=self.head_learning_rate,
            schedule="linear",
            warmup_epochs=0.0,
            decay_epochs=(),
            final_rate=1.0,
            layer_decay=1.0,
        )

    def check_devices(self, replicas: int) -> None:
        """Refuses what Keras and TensorFlow cannot do on several devices.

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
                f"it is asked for on {replicas} devices: TensorFlow cannot compile a step across devices by XLA",
                "one device (strategy none)",
                "leave `jit_compile` out",
            )

    def comparable(self) -> dict[str, Any]:
        """Returns the options that decide what is computed, as JSON would give them back."""
        return {key: value for key, value in cards.to_json(self).items() if key not in _PER_RUN}


def check_task(options: TrainingOptions, card: cards.DataCard) -> None:
    """Refuses a model and options that are for another task than the records.

    An option counts as given where its value is not the default.

    Raises:
        OptionError: naming the model, or the first of such options.
    """
    task = tasks.of(card)
    known = models.MODELS.get(options.model)
    if known is not None and known.task != task.name:
        fitting = ", ".join(name for name, model in models.MODELS.items() if model.task == task.name)
        raise OptionError(
            "model", f"{options.model} is for {known.task}, the records are for {task.name}", f"one of {fitting}"
        )
    for name in tasks.TASKS:
        others = [] if name == task.name else sorted(tasks.get(name).options)
        given, default = _values(options, others), _values(TrainingOptions("", ""), others)
        for option in others:
            if given[option] != default[option]:
                raise OptionError(
                    option, f"it does not apply to {task.description} (task {task.name})", remedy="leave it out"
                )


def _values(options: TrainingOptions, names: Sequence[str]) -> dict[str, Any]:
    """Returns the values of options of one task by name."""
    # Without augmentation nothing is changed, whatever the default would be.
    patches = options.augmentation or Augmentation(d4=False, shift=0, brightness=0.0, cutout=0)
    crops = options.segmentation.augmentation or CropAugmentation()
    parts = (options, options.segmentation, patches, crops)
    return {name: next(getattr(part, name) for part in parts if hasattr(part, name)) for name in names}


def check_resumable(options: TrainingOptions, state: Mapping[str, Any], data_fingerprint: str) -> None:
    """Refuses to go on with a run under other options or on other records than it was started with.

    Args:
        options: the options now.
        state: what the run's checkpoint says, see `runs.read_state`.
        data_fingerprint: fingerprint of the records' card now.

    Raises:
        RunError: if an option that decides what is computed, or the records, are not the same.
    """
    folder = pathlib.Path(options.run_dir)
    for key, value in options.comparable().items():
        if state["options"].get(key) != value:
            other = "start another run"
            if key == "epochs":
                other += f", such as a longer one from `weights={folder / runs.MODEL_NAME}`"
            raise RunError(
                folder,
                f"the run was started with {key}={state['options'].get(key)!r}, not {value!r}",
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
