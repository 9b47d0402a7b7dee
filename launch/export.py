r"""Exports a run's model for TensorFlow Serving: a checked SavedModel from digital numbers to classes.

Examples:
  python -m launch.export --run_dir=runs/a --export_dir=serving/eurosat
  python -m launch.export --run_dir=runs/b --export_dir=serving/eurosat      # the next version of the same service
"""

import re
import shlex

from absl import flags

from launch import app, path_flags

FLAGS = flags.FLAGS


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path("run_dir", None, "Run folder made by launch.train.", required=True, **where)
    path_flags.define_path(
        "export_dir",
        None,
        "Folder of the service's versions EXPORT_DIR/1 and so on; made where it is missing.",
        required=True,
        **where,
    )
    flags.DEFINE_integer(
        "version", None, "Number of the version, 1 or more. Default: the next after the highest.", **where
    )
    flags.DEFINE_bool(
        "calibrated",
        None,
        "Whether the export divides its logits by the temperature that launch.evaluate fitted for the run. Default: "
        "where there is one; if given, a run without is refused. The card of the export holds the temperature.",
        **where,
    )


def _examples(report) -> str:
    """Returns text to copy: how to serve the export, and how to run it from Python."""
    image, folder = report.inputs[0], report.path.parent.resolve()
    # A model's name is part of the URL of requests, and of a path in the container.
    name = re.sub(r"[^A-Za-z0-9_-]", "_", folder.name)
    mount = shlex.quote(f"type=bind,source={folder},target=/models/{name}")
    # A segmentation model takes any height and width.
    shape = (1, *(512 if edge is None else edge for edge in image.shape[1:]))
    # TensorFlow Serving turns no JSON into uint16.
    how = "gRPC: port 8500" if image.dtype == "uint16" else f"POST http://localhost:8501/v1/models/{name}:predict"
    lines = [
        f"serve it ({how}):",
        f"  docker run --rm -p 8500:8500 -p 8501:8501 --mount {mount} -e MODEL_NAME={name} tensorflow/serving",
        "run it from Python:",
        "  import numpy as np, tensorflow as tf",
        f"  model = tf.saved_model.load({str(report.path)!r})",
        f"  print(model.serve(np.ones({shape}, {image.dtype!r})))",
    ]
    return "\n".join(lines)


def main() -> None:
    """Runs the command."""
    app.import_tensorflow_quietly()
    from eo_keras.runs import folder as runs
    from eo_keras.runs import temperature
    from eo_keras.serving import saved_model as serving

    run = runs.open_run(FLAGS.run_dir)
    card = run.card
    version = serving.choose_version(run, FLAGS.export_dir, FLAGS.version)
    print(f"model:   {card.model} on {','.join(card.bands)}, {card.parameters:,} weights")
    found, text = temperature.find(FLAGS.run_dir, FLAGS.calibrated)
    app.say(f"temperature: {text}")
    if FLAGS.dry_run:
        print(f"dry run: would write version {version} to {FLAGS.export_dir}/{version}")
        return
    report = serving.export(run, FLAGS.export_dir, version=FLAGS.version, calibration=found)
    print(f"export:  {report.path}, {report.bytes / 1e6:,.1f} MB")
    for title, tensors in (("input:", report.inputs), ("output:", report.outputs)):
        for tensor in tensors:
            print(f"{title:8} {tensor}")
    print(
        f"checked: {report.checked_images} images, probabilities differ from the Keras model's by at most "
        f"{report.largest_difference:.1e}"
    )
    if report.version < report.newest:
        print(f"warning: version {report.newest} is there too, and TensorFlow Serving serves the highest only")
    print(_examples(report))


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
