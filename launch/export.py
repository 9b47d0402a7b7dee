r"""Exports a run's model for TensorFlow Serving: a checked SavedModel from digital numbers to classes.

Examples:
  python -m launch.export --run_dir=runs/a --export_dir=serving/eurosat
  python -m launch.export --run_dir=runs/b --export_dir=serving/eurosat      # the next version of the same service
"""

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

    path_flags.define_path(
        "stand_in",
        None,
        "Several sensors: run folder of a model that predicts the images of one of them (launch.train "
        "--pretext=translated), to be exported with this one: its predictions are taken where that sensor is missing.",
        **where,
    )


def _examples(report) -> str:
    """Returns text to copy: how to serve the export, and how to run it from Python."""
    from eo_keras.runs.export_folder import SIGNATURE
    from eo_keras.serving import server

    inputs, folder = report.inputs[SIGNATURE], report.path.parent.resolve()
    # A segmentation model takes any height and width.
    shapes = [(1, *(512 if edge is None else edge for edge in one.shape[1:])) for one in inputs]
    arrays = [f"np.ones({shape}, {one.dtype!r})" for shape, one in zip(shapes, inputs, strict=True)]
    if len(inputs) > 1:
        arrays = [f"{one.name}={array}" for one, array in zip(inputs, arrays, strict=True)]
    rest = f"POST http://localhost:{server.REST_PORT}/v1/models/{server.model_name(folder)}:predict"
    # TensorFlow Serving turns no JSON into uint16.
    short = [one.name for one in inputs if one.dtype == "uint16"]
    without = f", but no {' or '.join(short)} of uint16" if short else ""
    lines = [
        f"serve it (gRPC: port {server.GRPC_PORT}; REST: {rest}{without}):",
        f"  docker compose -f {shlex.quote(str(folder / server.COMPOSE_NAME))} up",
        "run it from Python:",
        "  import numpy as np, tensorflow as tf",
        f"  model = tf.saved_model.load({str(report.path)!r})",
        f"  print(model.serve({', '.join(arrays)}))",
    ]
    return "\n".join(lines)


def main() -> None:
    """Runs the command."""
    app.import_tensorflow_quietly()
    from eo_keras.runs import folder as runs
    from eo_keras.runs import temperature
    from eo_keras.runs.stand_in import read_stand_in
    from eo_keras.serving import saved_model as serving

    run = runs.open_run(FLAGS.run_dir)
    card = run.card
    card.check_predicts_classes()
    version = serving.choose_version(run, FLAGS.export_dir, FLAGS.version)
    print(f"model:   {card.model} on {card.title_of_bands}, {card.parameters:,} weights")
    if FLAGS.stand_in:
        stand_in = read_stand_in(FLAGS.stand_in, card)
        print(f"stand-in: {stand_in.folder} predicts {stand_in.sensor} where it is missing")
    found, text = temperature.find(FLAGS.run_dir, FLAGS.calibrated)
    app.say(f"temperature: {text}")
    if FLAGS.dry_run:
        print(f"dry run: would write version {version} to {FLAGS.export_dir}/{version}")
        return
    report = serving.export(run, FLAGS.export_dir, version=FLAGS.version, calibration=found, stand_in=FLAGS.stand_in)
    print(f"export:  {report.path}, {report.bytes / 1e6:,.1f} MB")
    for name, tensors in report.inputs.items():
        for tensor in tensors:
            print(f"input:   {tensor} (signature {name})")
    for tensor in report.outputs:
        print(f"output:  {tensor}")
    print(
        f"checked: {report.checked_images} images by each signature, probabilities differ from the Keras model's by at "
        f"most {report.largest_difference:.1e}"
    )
    if card.records is None:
        print("note: no signature takes examples, because a run of an earlier version does not say how they are stored")
    if report.version < report.newest:
        print(f"warning: version {report.newest} is there too, and TensorFlow Serving serves the highest only")
    print(_examples(report))


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
