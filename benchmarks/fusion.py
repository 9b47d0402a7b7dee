r"""Measures networks of several sensors beside the network of one: training steps and forward passes.

Each has the same backbone, image size, batch and processors; every measurement is a process of its own, and they take
turns. The single network takes two dates of Sentinel-2, the others two dates of Sentinel-1 too.

Example: python -m benchmarks.fusion --runs=3
"""

from absl import flags

from benchmarks import dense_step, harness
from benchmarks.harness import PEER, Side, Work
from launch import app, path_flags

FLAGS = flags.FLAGS

SINGLE = "single"
NETWORKS = {
    SINGLE: ("one sensor", {}),
    "early": ("early", {"fusion": "early"}),
    "late": ("late", {"fusion": "late"}),
    "late_learned": ("late, learned", {"fusion": "late_learned"}),
    "residual": ("residual correction", {"fusion": "residual"}),
    "vfusenet": ("V-FuseNet", {"fusion": "vfusenet"}),
    "attention": ("attention, dates by one encoder", {"fusion": "attention", "dates": "siamese"}),
}
"""Title and choices of each network by name."""

CLASSES = 2


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path("output", "docs/results/fusion_speed.json", "JSON file to write.", **where)
    flags.DEFINE_string("model", "deeplab_resnet14", "Network.", **where)
    flags.DEFINE_integer("batch_size", 4, "Images in a batch.", **where)
    flags.DEFINE_integer("size", 256, "Edge of an image in pixels.", **where)
    flags.DEFINE_integer("steps", 5, "Steps or passes that are timed in a run.", **where)
    flags.DEFINE_integer("runs", 3, "Rounds.", **where)
    flags.DEFINE_enum("what", None, list(dense_step.WORKS), "Measure one network, and print a line of JSON.", **where)
    flags.DEFINE_enum("network", SINGLE, list(NETWORKS), "With --what: which.", **where)


def measure(what: str) -> None:
    """Measures one network in this process."""
    app.import_tensorflow_quietly()
    from eo_keras import models

    def image(bands: tuple[str, ...]) -> models.ImageInput:
        statistics = models.Normalization((100.0,) * len(bands), (50.0,) * len(bands))
        return models.ImageInput(bands, "uint8", statistics, FLAGS.size)

    _, choices = NETWORKS[FLAGS.network]
    inputs = dict.fromkeys(("s2", "s2_before"), image(("B11", "B08", "B03")))
    if FLAGS.network != SINGLE:
        inputs |= dict.fromkeys(("s1", "s1_before"), image(("VV",)))
    spec = models.NetworkSpec(inputs, CLASSES, seed=1, **choices)
    dense_step.measure_network(FLAGS.model, spec, what, FLAGS.batch_size, FLAGS.steps)


def make_works() -> dict[str, Work]:
    """Returns the works by name; what the others are compared with is the network of one sensor."""
    shared = {name: FLAGS[name].value for name in ("model", "batch_size", "size", "steps")}
    works = {}
    for what, title in dense_step.WORKS.items():
        sides = {
            PEER if name == SINGLE else name: Side(
                network, harness.module("benchmarks.fusion", what=what, network=name, **shared)
            )
            for name, (network, _) in NETWORKS.items()
        }
        works[what] = Work(title, "images/s", "one batch in memory, float32", sides, digits=1)
    return works


def main() -> None:
    """Runs the command."""
    if FLAGS.what:
        measure(FLAGS.what)
        return
    if FLAGS.dry_run:
        listed = " and ".join(dense_step.WORKS)
        print(
            f"dry run: would measure {FLAGS.runs} rounds of {listed} of {len(NETWORKS)} networks and write "
            f"{FLAGS.output}"
        )
        return
    facts = {name: FLAGS[name].value for name in ("model", "batch_size", "size", "steps")}
    harness.record(FLAGS.output, make_works().items(), FLAGS.runs, facts, {})


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
