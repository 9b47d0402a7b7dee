r"""Measures DeepLabv3+ beside segmentation_models_pytorch's: training steps and forward passes on one batch in memory.

Both sides have the same backbone, image size, batch and processors; every measurement is a process of its own, and the
sides take turns. Ours is the training step that launch.train takes, from digital numbers on.

Example: python -m benchmarks.dense_step --runs=5
"""

import time
from typing import Any

from absl import flags

from benchmarks import harness
from benchmarks.harness import OURS, PEER, Side, Work
from launch import app, path_flags

FLAGS = flags.FLAGS

WORKS = {"step": "training step", "forward": "forward pass"}

CLASSES = 4
_WARM = 2


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path("output", "docs/results/dense_step.json", "JSON file to write.", **where)
    path_flags.define_path("peers_python", ".venv-peers/bin/python", "The peers' interpreter.", **where)
    flags.DEFINE_string("model", "deeplab_resnet50", "Ours.", **where)
    flags.DEFINE_string("encoder", "resnet50", "The peer's backbone.", **where)
    flags.DEFINE_integer("batch_size", 4, "Images in a batch.", **where)
    flags.DEFINE_integer("size", 256, "Edge of an image in pixels.", **where)
    flags.DEFINE_integer("steps", 5, "Steps or passes that are timed in a run.", **where)
    flags.DEFINE_integer("runs", 5, "Rounds.", **where)
    flags.DEFINE_enum(
        "side", None, list(WORKS), "Measure one side of ours only, and print it as a line of JSON.", **where
    )


def measure_ours(what: str) -> None:
    """Measures ours in this process."""
    app.import_tensorflow_quietly()
    from eo_keras import models

    statistics = models.Normalization((1000.0,) * 3, (500.0,) * 3)
    image_input = models.ImageInput(("B04", "B03", "B02"), "uint16", statistics, FLAGS.size)
    spec = models.NetworkSpec({models.IMAGE: image_input}, CLASSES, seed=1)
    measure_network(FLAGS.model, spec, what, FLAGS.batch_size, FLAGS.steps)


def measure_network(name: str, spec: Any, what: str, batch_size: int, steps: int) -> None:
    """Measures a segmentation network in this process, and prints its figures.

    Args:
        name: its name in the registry.
        spec: its specification (`eo_keras.models.NetworkSpec`), of inputs of one size.
        what: one of `WORKS`.
        batch_size: images in a batch.
        steps: steps or passes that are timed.
    """
    import numpy as np
    import tensorflow as tf

    from eo_keras import models
    from eo_keras.losses import segmentation
    from eo_keras.training import optimizers

    model, _ = models.build(name, spec)
    size, random = spec.patch_size, np.random.default_rng(1)
    shape = (batch_size, size, size)
    images = {
        one.name: tf.constant(random.integers(1, 256, (batch_size, *one.shape[1:])).astype(one.dtype))
        for one in model.inputs
    }
    image = images if len(images) > 1 else next(iter(images.values()))
    label = tf.constant((np.arange(np.prod(shape)).reshape(shape) % spec.num_classes).astype(np.uint8))
    if what == "step":
        training = models.logits_model(model)
        options = optimizers.OptimizerOptions(learning_rate=0.001)
        variables = training.trainable_variables
        optimizer = optimizers.make_optimizer(
            options, optimizers.make_schedule(options, 10, 100), variables, undecayed=models.depthwise_kernels(model)
        )
        loss = segmentation.DenseLoss(segmentation.DenseLossOptions(), spec.num_classes)

        @tf.function(autograph=False)
        def work():
            with tf.GradientTape() as tape:
                value = loss.combine(loss.terms(label, training(image, training=True)))
            optimizer.apply(tape.gradient(value, variables), variables)
            return value
    else:
        inference = models.inference_model(model, size)

        @tf.function(autograph=False)
        def work():
            return tf.reduce_mean(inference(image, training=False))

    values = [float(work()) for _ in range(_WARM)]
    started = time.perf_counter()
    values += [float(work()) for _ in range(steps)]
    seconds = time.perf_counter() - started
    if not np.isfinite(values).all():
        raise harness.MeasurementError(f"--side={what}", f"a value is not finite: {values}")
    harness.report(
        batch_size * steps,
        seconds,
        parameters=model.count_params(),
        multiply_adds=models.count_macs(model, size, size),
    )


def make_works(python: str) -> dict[str, Work]:
    """Returns the works by name.

    Args:
        python: the peers' interpreter.
    """
    shared = {name: FLAGS[name].value for name in ("batch_size", "size", "steps")}
    works = {}
    for what, title in WORKS.items():
        sides = {
            OURS: Side(FLAGS.model, harness.module("benchmarks.dense_step", side=what, model=FLAGS.model, **shared)),
            PEER: Side(
                f"segmentation_models_pytorch: DeepLabV3Plus on {FLAGS.encoder}",
                harness.peer(python, "dense_step.py", what=what, encoder=FLAGS.encoder, **shared),
            ),
        }
        works[what] = Work(title, "images/s", "one batch in memory, float32", sides, digits=2)
    return works


def main() -> None:
    """Runs the command."""
    if FLAGS.side:
        measure_ours(FLAGS.side)
        return
    if FLAGS.dry_run:
        print(f"dry run: would measure {FLAGS.runs} rounds of {' and '.join(WORKS)} and write {FLAGS.output}")
        return
    python = harness.peers_python(FLAGS.peers_python)
    facts = {name: FLAGS[name].value for name in ("batch_size", "size", "steps")}
    harness.record(FLAGS.output, make_works(python).items(), FLAGS.runs, facts, {python: "PEERS_PYTHON"})


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
