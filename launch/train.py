r"""Trains a model on a records folder and writes a run folder.

Examples:
  python -m launch.train --flagfile=eurosat_rgb_resnet50_scratch.flags \
      --records_dir=records/rgb --run_dir=runs/a
  python -m launch.train --flagfile=runs/a/flags.txt --run_dir=runs/b       # repeats run a
  python -m launch.train --flagfile=runs/a/flags.txt --run_dir=runs/a --resume
"""

from __future__ import annotations

import signal

from absl import flags

from eo_keras.metrics.metric import METRICS
from eo_keras.training.options import TrainingOptions
from launch import app, options

FLAGS = flags.FLAGS


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out: those of `TrainingOptions`."""
    options.define(TrainingOptions, flag_values, module_name=__name__)


def main() -> None:
    """Runs the command."""
    chosen = options.read(TrainingOptions, FLAGS)
    app.import_tensorflow_quietly()
    from eo_keras.training import train as training

    with app.ProgressBars(unit="steps") as progress, app.StopOnSignal() as stop:
        report = training.train(
            chosen,
            flags_text=app.flags_text(),
            progress=progress,
            report=progress.write,
            stop=stop.received,
            dry_run=FLAGS.dry_run,
        )
    if report is None:
        print(f"dry run: everything fits, nothing was written to {FLAGS.run_dir}")
        return
    if report.stopped:
        if stop.signal is None:
            print("another worker was stopped")
        raise app.Stopped(stop.signal or signal.SIGTERM)
    if report.card is None:
        print(f"worker done: {len(report.history)} epochs, {report.seconds:,.0f} s; the first worker wrote the run")
        return
    best = report.card.selection
    value = ""
    if best["value"] is not None:
        value = f", validation {METRICS[best['metric']].title} {best['value']:.2%}"
    print(f"{FLAGS.run_dir}: {len(report.history)} epochs, {report.seconds:,.0f} s; kept epoch {best['epoch']}{value}")
    if report.card.pretext is None:
        app.say(f"next: python -m launch.evaluate --run_dir={FLAGS.run_dir} --split=test")
    else:
        what = "launch.train --backbone_run={0} --model={1} ... on labels"
        if report.card.predicted:
            what = "launch.evaluate --run_dir=... --each_removed --stand_in={0}"
        app.say(f"next: python -m {what.format(FLAGS.run_dir, chosen.model)}")


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
