r"""Trains a model on a records folder and writes a run folder.

Examples:
  python -m launch.train --flagfile=eurosat_rgb_resnet50_scratch.flags \
      --records_dir=records/rgb --run_dir=runs/a
  python -m launch.train --flagfile=runs/a/flags.txt --run_dir=runs/b       # repeats run a
  python -m launch.train --flagfile=runs/a/flags.txt --run_dir=runs/a --resume
"""

from __future__ import annotations

import dataclasses
import signal
from typing import TYPE_CHECKING

from absl import flags

from eo_keras import models
from eo_keras.errors import OptionError, RecordsError
from launch import app, path_flags
from launch import options as flag_options

if TYPE_CHECKING:
    from eo_keras.training import options as training_options

FLAGS = flags.FLAGS

_NUMBERS = {"decay_epochs": float, "progressive_sizes": int, "progressive_epochs": int}
"""The flags that hold lists of numbers."""

_CROP = 256
"""Height and width of crops where nothing is said, in pixels; more need much memory."""


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path("records_dir", None, "Records folder made by launch.build.", required=True, **where)
    path_flags.define_path("run_dir", None, "Run folder to make: new or empty.", required=True, **where)
    flags.DEFINE_bool("resume", False, "Whether to go on from the checkpoint in --run_dir.", **where)
    flags.DEFINE_bool(
        "overwrite", False, "Whether to replace a run that is already in --run_dir; other files there stay.", **where
    )
    flag_options.not_repeated(flag_values, "run_dir", "resume", "overwrite")
    flags.DEFINE_string(
        "model",
        "resnet50",
        f"Network. {models.describe()}",
    )
    flags.DEFINE_string("bands", "all", "Bands to train on: RGB, CI, SWIR, all, or names such as B04,B8A.", **where)
    path_flags.define_path(
        "weights",
        None,
        "Weights to start from: imagenet, or a file (.keras, .h5). Default: none, they are random.",
        **where,
    )
    flags.DEFINE_string(
        "stem",
        "by_name",
        "Which pretrained kernel each band takes: by_name (its own colour's, or the nearest in wavelength) or "
        "by_position.",
        **where,
    )
    flags.DEFINE_string(
        "strategy",
        "auto",
        "Devices: auto (mirrored where there are several GPUs), none (one device), mirrored, or multi_worker: all "
        "devices of the workers that the environment variable TF_CONFIG names, each of which runs this command.",
        **where,
    )
    flags.DEFINE_float(
        "worker_wait",
        600.0,
        "Of --strategy=multi_worker: seconds that workers wait for each other at the start.",
        lower_bound=0.0,
        **where,
    )
    flags.DEFINE_integer(
        "virtual_devices",
        0,
        "Devices to split the processor into, to try a strategy without GPUs; 0 leaves it whole.",
        **where,
    )
    flags.DEFINE_integer("batch_size", 64, "Examples in a step, over all devices together.", **where)
    flags.DEFINE_integer("epochs", 30, "Length of the run in epochs.", **where)
    flags.DEFINE_integer(
        "steps_per_epoch", None, "Steps in an epoch. Default: one pass over the training examples.", **where
    )
    flags.DEFINE_integer(
        "head_epochs",
        0,
        "So many epochs, the run's first, train the new last layer alone, at --head_learning_rate; the schedule below "
        "belongs to those behind them. Needs --weights.",
        **where,
    )
    flags.DEFINE_float("head_learning_rate", 0.01, "Learning rate of these epochs.", **where)
    flags.DEFINE_bool(
        "frozen_batch_norm",
        False,
        "Whether batch normalisation keeps what the weights hold of it. Needs --weights.",
        **where,
    )
    flags.DEFINE_float(
        "validation_from_train",
        0.05,
        "Share of the training examples (0 to 1) that is held out and chooses the epoch to keep, where the records "
        "have no split val: tiles by city or in blocks of ground, patches by a hash of their keys, copies and "
        "overlapping ones together. 0 keeps the last epoch. The test split is never used for this.",
        **where,
    )
    flags.DEFINE_string("optimizer", "sgd", "Optimizer: sgd, adamw, rmsprop or muon.", **where)
    flags.DEFINE_float(
        "learning_rate",
        0.05,
        "Learning rate at its peak, a step; of muon, the length of a kernel's step as a share of the kernel's.",
        **where,
    )
    flags.DEFINE_float("other_rate", 0.05, "Of muon: peak for all but the convolutions' kernels, by sgd.", **where)
    flags.DEFINE_float("momentum", 0.9, "Momentum of sgd, rmsprop and muon, 0 to 1.", **where)
    flags.DEFINE_bool("nesterov", True, "Whether sgd takes Nesterov's momentum.", **where)
    flags.DEFINE_string(
        "schedule", "cosine", "How the rate falls after the warm-up: cosine, linear, poly or piecewise.", **where
    )
    flags.DEFINE_float(
        "warmup_epochs",
        None,
        "Length of the linear rise of the rate in epochs; may be a fraction. Default: 1, of a shorter run half of it.",
        **where,
    )
    flags.DEFINE_list(
        "decay_epochs", [], "Epochs at which schedule piecewise multiplies the rate, such as 30,60.", **where
    )
    flags.DEFINE_float("decay_factor", 0.1, "What schedule piecewise multiplies the rate by.", **where)
    flags.DEFINE_float("power", 0.9, "Exponent of schedule poly.", **where)
    flags.DEFINE_float("final_rate", 0.0, "What the other schedules end at, as a share of the peak.", **where)
    flags.DEFINE_float(
        "layer_decay",
        1.0,
        "The rate of a layer is multiplied by this once for each block between it and the head; below 1, pretrained "
        "layers near the input change less.",
        **where,
    )
    flags.DEFINE_float(
        "clip_norm",
        0.0,
        "Greatest length of the gradient over all weights and devices together; 0 for no limit.",
        **where,
    )
    flags.DEFINE_float(
        "weight_decay",
        0.005,
        "Decoupled decay of the kernels, as a share of the learning rate a step. Under sgd it is as strong as an L2 "
        "penalty of weight_decay * (1 - momentum).",
        **where,
    )
    flags.DEFINE_float("aux_weight", 0.3, "What the loss of each auxiliary classifier of googlenet counts.", **where)
    flags.DEFINE_float(
        "dropout",
        None,
        "Share of the features dropped before the last layer. Default: the architecture's own.",
        **where,
    )
    flags.DEFINE_float("label_smoothing", 0.0, "Share of the target spread over all classes, 0 to 1.", **where)
    flags.DEFINE_float(
        "ema",
        0.0,
        "Decay a step of a moving average of all weights, which is then validated and kept; 0 for none.",
        **where,
    )
    flags.DEFINE_bool(
        "d4", True, "Whether training images are turned and mirrored (the symmetries of the square).", **where
    )
    flags.DEFINE_integer(
        "shift", 8, "Largest shift of training images in pixels; the border is filled by reflection.", **where
    )
    flags.DEFINE_float("brightness", 0.1, "Largest change of training images' brightness, as a share of 1.", **where)
    flags.DEFINE_integer(
        "cutout", 0, 'Side in pixels of a square of every training image that becomes "no data"; 0 for none.', **where
    )
    flags.DEFINE_list(
        "progressive_sizes",
        [],
        "Image sizes in pixels to which training images are averaged down in the run's first parts, such as 32,48: "
        "several times faster. The last part takes them as they are.",
        **where,
    )
    flags.DEFINE_list("progressive_epochs", [], "Lengths of these parts in epochs, such as 10,6.", **where)
    _define_flags_of_maps(where)
    flags.DEFINE_string(
        "dtype_policy",
        "float32",
        "Precision: float32, mixed_bfloat16, mixed_float16 (one device only) or float64.",
        **where,
    )
    flags.DEFINE_bool("jit_compile", False, "Whether XLA compiles the training step (one device only).", **where)
    flags.DEFINE_integer("seed", 1, "Seed of initial weights, order, augmentation and the validation part.", **where)
    flags.DEFINE_bool(
        "deterministic", False, "Whether to use deterministic kernels only: repeatable to the bit, slower.", **where
    )
    flags.DEFINE_integer(
        "checkpoint_steps",
        0,
        "A checkpoint is written at every epoch's end, and behind every so many steps; 0 for none within an epoch. "
        "Asked to end (SIGTERM, or Ctrl-C), the command writes one more.",
        **where,
    )
    flags.DEFINE_float(
        "cache_gb", 4.0, "Examples are kept in memory if they need no more gigabytes; 0 streams them.", **where
    )


def _define_flags_of_maps(where: dict) -> None:
    """Defines the flags of models whose answer is a map (deeplab_...); given for others, they are refused."""
    flags.DEFINE_integer(
        "crop",
        None,
        "Of maps: height and width in pixels of the crops that are trained on. Default: the tiles' size, of larger "
        f"tiles {_CROP}.",
        **where,
    )
    flags.DEFINE_float(
        "scale_min", 0.5, "Of maps: smallest scale of a crop; 0.5 shows twice as much ground in it.", **where
    )
    flags.DEFINE_float("scale_max", 2.0, "Of maps: largest scale of a crop.", **where)
    flags.DEFINE_float(
        "jitter",
        0.1,
        "Of maps: largest change of all bands' brightness together, and of every band by itself, as a share of 1.",
        **where,
    )
    flags.DEFINE_string(
        "loss",
        "cross_entropy",
        "Of maps: cross_entropy, focal, dice or cross_entropy+dice, over all pixels with a class.",
        **where,
    )
    flags.DEFINE_string(
        "class_weights",
        "none",
        "Of maps: what a pixel of each class counts: none (all the same), median_frequency or effective_number, from "
        "the training split's pixels.",
        **where,
    )
    flags.DEFINE_float("effective_beta", 0.999999, "Of maps: beta of --class_weights=effective_number.", **where)
    flags.DEFINE_float(
        "focal_gamma", 2.0, "Of maps: how much less the focal loss counts pixels answered well.", **where
    )
    flags.DEFINE_integer(
        "output_stride", 16, "Of maps: pixels of the image between two of the backbone's last map, 8 or 16.", **where
    )
    path_flags.define_path(
        "backbone_run",
        None,
        "Of maps: run folder of a classifier of the same backbone, whose weights are started from; refused where it "
        "was trained on an example that these records test on, by key, place or pixels.",
        **where,
    )


def options(flag_values: flags.FlagValues) -> training_options.TrainingOptions:
    """Returns the options that flags stand for.

    Raises:
        OptionError: if a value, or a combination, cannot work.
    """
    from eo_keras.data.augment import crops, patches
    from eo_keras.training import optimizers
    from eo_keras.training import options as training_options

    given = given_options(flag_values)
    if given["crop"] is None:
        given["crop"] = _default_crop(given["records_dir"])
    # One flag turns and mirrors both patches and crops.
    given["augmentation"] = crops.CropAugmentation(
        **_chosen(crops.CropAugmentation, given | {"symmetries": given["d4"]})
    )
    given["segmentation"] = training_options.SegmentationOptions(**_chosen(training_options.SegmentationOptions, given))
    changes = _chosen(patches.Augmentation, given)
    given["augmentation"] = patches.Augmentation(**changes) if any(changes.values()) else None
    given["optimizer"] = optimizers.OptimizerOptions(**_chosen(optimizers.OptimizerOptions, given))
    return training_options.TrainingOptions(**_chosen(training_options.TrainingOptions, given))


def given_options(flag_values: flags.FlagValues) -> dict:
    """Returns the flags' values by name; a flag has the name of the option that it sets.

    Raises:
        OptionError: if a list holds something else than numbers.
    """
    given = {name: flag_values[name].value for name in flag_values}
    for name, kind in _NUMBERS.items():
        try:
            given[name] = tuple(kind(value) for value in given[name])
        except ValueError:
            raise OptionError(f"--{name}", ",".join(given[name]), "numbers separated by commas") from None
    return given


def _default_crop(records_dir: str) -> int:
    from eo_keras.data.augment import crops
    from eo_keras.records import data_card as cards

    try:
        card = cards.read_data_card(records_dir)
    except RecordsError:
        return _CROP  # Training itself tells what is the matter with the records.
    return max(crops.SMALLEST_CROP, min(_CROP, card.patch_size)) if card.targets.per_pixel else _CROP


def _chosen(kind: type, given: dict) -> dict:
    return {field.name: given[field.name] for field in dataclasses.fields(kind)}


def main() -> None:
    """Runs the command."""
    app.import_tensorflow_quietly()
    from eo_keras.training import train as training

    chosen = options(FLAGS)
    with app.ProgressBars(unit="steps") as progress, app.StopOnSignal() as stop:
        report = training.train(
            chosen,
            flags_text=app.flags_text(),
            progress=progress,
            report=progress.write,
            stop=stop.asked,
            dry_run=FLAGS.dry_run,
        )
    if report is None:
        print(f"dry run: everything fits, nothing was written to {FLAGS.run_dir}")
        return
    if report.stopped:
        if stop.signal is None:
            print("another worker was asked to end")
        raise app.Stopped(stop.signal or signal.SIGTERM)
    if report.card is None:
        print(f"worker done: {len(report.history)} epochs, {report.seconds:,.0f} s; the first worker wrote the run")
        return
    best = report.card.selection
    name = {"accuracy": "accuracy", "miou": "mIoU"}.get(best["metric"])
    value = f", validation {name} {best['value']:.2%}" if best["value"] is not None else ""
    print(f"{FLAGS.run_dir}: {len(report.history)} epochs, {report.seconds:,.0f} s; kept epoch {best['epoch']}{value}")
    app.say(f"next: python -m launch.evaluate --run_dir={FLAGS.run_dir} --split=test")


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
