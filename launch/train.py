r"""Trains a model on a records folder and writes a run folder.

Examples:
  python -m launch.train --flagfile=launch/flagfiles/eurosat_rgb_resnet50_scratch.flags \
      --records_dir=records/rgb --run_dir=runs/a
  python -m launch.train --flagfile=runs/a/flags.txt --run_dir=runs/b       # repeats run a
  python -m launch.train --flagfile=runs/a/flags.txt --run_dir=runs/a --resume
"""

import dataclasses

from absl import flags

from eo_keras.errors import OptionError
from launch import common

FLAGS = flags.FLAGS

flags.DEFINE_string("records_dir", None, "Records folder made by launch.build.", required=True)
flags.DEFINE_string("run_dir", None, "Run folder to make: new or empty.", required=True)
flags.DEFINE_bool("resume", False, "Whether to go on from the last epoch's checkpoint in --run_dir.")
flags.DEFINE_bool("overwrite", False, "Whether to replace a run that is already in --run_dir.")

flags.DEFINE_string("model", "resnet50", "Architecture: resnet50, or the small resnet14.")
flags.DEFINE_string("bands", "all", "Bands to train on: RGB, CI, SWIR, all, or names such as B04,B8A.")
flags.DEFINE_string(
    "weights", None, "Weights to start from: imagenet, or a file (.keras, .h5). Default: none, they are random."
)
flags.DEFINE_string(
    "stem",
    "by_name",
    "Which pretrained kernel each band takes: by_name (its own colour's, or the nearest in wavelength) or by_position.",
)

flags.DEFINE_string(
    "strategy", "auto", "Devices: auto (mirrored where there are several GPUs), none (one device) or mirrored."
)
flags.DEFINE_integer(
    "virtual_devices", 0, "Devices to split the processor into, to try a strategy without GPUs; 0 leaves it whole."
)
flags.DEFINE_integer("batch_size", 64, "Examples in a step, over all devices together.")
flags.DEFINE_integer("epochs", 30, "Length of the run in epochs.")
flags.DEFINE_integer("steps_per_epoch", None, "Steps in an epoch. Default: one pass over the training examples.")
flags.DEFINE_float(
    "validation_from_train",
    0.05,
    "Share of the training examples (0 to 1), cut off by a hash of their keys, that chooses the epoch to keep, where "
    "the records have no split val; 0 keeps the last epoch. The test split is never used for this.",
)

flags.DEFINE_string("optimizer", "sgd", "Optimizer: sgd, adamw or rmsprop.")
flags.DEFINE_float("learning_rate", 0.05, "Learning rate at its peak, a step.")
flags.DEFINE_float("momentum", 0.9, "Momentum of sgd and rmsprop, 0 to 1.")
flags.DEFINE_bool("nesterov", True, "Whether sgd takes Nesterov's momentum.")
flags.DEFINE_string("schedule", "cosine", "How the rate falls after the warm-up: cosine, poly or piecewise.")
flags.DEFINE_float("warmup_epochs", 1.0, "Length of the linear rise of the rate in epochs; may be a fraction.")
flags.DEFINE_list("decay_epochs", [], "Epochs at which schedule piecewise multiplies the rate, such as 30,60.")
flags.DEFINE_float("decay_factor", 0.1, "What schedule piecewise multiplies the rate by.")
flags.DEFINE_float("power", 0.9, "Exponent of schedule poly.")
flags.DEFINE_float(
    "weight_decay",
    0.005,
    "Decoupled decay of the kernels, as a share of the learning rate a step. Under sgd it is as strong as an L2 "
    "penalty of weight_decay * (1 - momentum).",
)
flags.DEFINE_float("label_smoothing", 0.0, "Share of the target spread over all classes, 0 to 1.")
flags.DEFINE_float(
    "ema", 0.0, "Decay a step of a moving average of all weights, which is then validated and kept; 0 for none."
)

flags.DEFINE_bool("d4", True, "Whether training images are turned and mirrored (the symmetries of the square).")
flags.DEFINE_integer("shift", 8, "Largest shift of training images in pixels; the border is filled by reflection.")
flags.DEFINE_float("brightness", 0.1, "Largest change of training images' brightness, as a share of 1.")
flags.DEFINE_list(
    "progressive_sizes",
    [],
    "Image sizes in pixels to which training images are averaged down in the run's first parts, such as 32,48: several "
    "times faster. The last part takes them as they are.",
)
flags.DEFINE_list("progressive_epochs", [], "Lengths of these parts in epochs, such as 10,6.")

flags.DEFINE_string(
    "dtype_policy", "float32", "Precision: float32, mixed_bfloat16, mixed_float16 (one device only) or float64."
)
flags.DEFINE_integer("seed", 1, "Seed of initial weights, order, augmentation and the validation part.")
flags.DEFINE_bool("deterministic", False, "Whether to use deterministic kernels only: repeatable to the bit, slower.")
flags.DEFINE_float("cache_gb", 4.0, "Examples are kept in memory if they need no more gigabytes; 0 streams them.")


def _numbers(name: str, kind: type) -> tuple:
    try:
        return tuple(kind(value) for value in FLAGS[name].value)
    except ValueError:
        raise OptionError(f"--{name}", ",".join(FLAGS[name].value), "numbers separated by commas") from None


def _chosen(kind: type, given: dict) -> dict:
    return {field.name: given[field.name] for field in dataclasses.fields(kind)}


def main() -> None:
    """Runs the command."""
    common.import_tensorflow_quietly()
    from eo_keras import augment, schedules, training, training_options

    # A flag has the name of the option that it sets; those that need more than their value follow.
    given = common.own_flags() | {
        "decay_epochs": _numbers("decay_epochs", float),
        "progressive_sizes": _numbers("progressive_sizes", int),
        "progressive_epochs": _numbers("progressive_epochs", int),
    }
    changes = FLAGS.d4 or FLAGS.shift or FLAGS.brightness
    given |= {
        "run_dir": FLAGS.run_dir,
        "resume": FLAGS.resume,
        "overwrite": FLAGS.overwrite,
        "augmentation": augment.Augmentation(FLAGS.d4, FLAGS.shift, FLAGS.brightness) if changes else None,
    }
    given["optimizer"] = schedules.OptimizerOptions(**_chosen(schedules.OptimizerOptions, given))
    options = training_options.TrainingOptions(**_chosen(training_options.TrainingOptions, given))
    with common.ProgressBars(unit="steps") as progress:
        report = training.train(
            options, flags_text=common.flags_text(), progress=progress, report=progress.write, dry_run=FLAGS.dry_run
        )
    if report is None:
        print(f"dry run: everything fits, nothing was written to {FLAGS.run_dir}")
        return
    best = report.card.selection
    value = f", validation accuracy {best['value']:.2%}" if best["value"] is not None else ""
    print(f"{FLAGS.run_dir}: {len(report.history)} epochs, {report.seconds:,.0f} s; kept epoch {best['epoch']}{value}")
    print(f"next: python -m launch.evaluate --run_dir={FLAGS.run_dir} --split=test")


if __name__ == "__main__":
    common.run(main)
