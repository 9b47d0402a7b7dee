r"""Measures the stages from a records folder to the model, and says whether the input or the model is the bottleneck.

Every stage holds all those before it; the model's step is repeated on one batch. The last stages are those of
launch.train: batches streamed from the shards, or from memory.

Example: python -m benchmarks.input_pipeline --records_dir=records/ms --bands=all --model=resnet50 --output=input.json
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from absl import flags

from benchmarks import harness
from eo_keras.core import files
from eo_keras.errors import OptionError
from launch import app, path_flags

FLAGS = flags.FLAGS

path_flags.define_path("records_dir", None, "Records folder, of which the split train is read.", required=True)
flags.DEFINE_integer("batch_size", 64, "Examples in a batch.")
flags.DEFINE_string("bands", "all", "Bands to deliver: RGB, CI, SWIR, all, or names such as B04,B8A.")
flags.DEFINE_string("model", "resnet50", "Architecture whose training step is timed; none measures the input alone.")
flags.DEFINE_integer("shift", 8, "Largest shift in pixels, beside the symmetries.")
flags.DEFINE_float("brightness", 0.1, "Largest change of brightness, as a share of 1.")
flags.DEFINE_float("cache_gb", 4.0, "Examples are kept in memory if they need no more gigabytes.")
flags.DEFINE_integer("repetitions", 3, "How often every stage is measured.")
flags.DEFINE_float("seconds", 3.0, "Shortest duration of one measurement of one stage; whole passes are made.")
path_flags.define_path("output", None, "JSON file to write. Default: none.")

STREAMED, IN_MEMORY = "as delivered, streamed", "as delivered, in memory"
STAGES = (
    "raw read",
    "TFRecord read",
    "parse and decode",
    "band selection",
    "augmentation",
    STREAMED,
    f"{STREAMED}, float32",
    IN_MEMORY,
    f"{IN_MEMORY}, float32",
)

_READ_BUFFER_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class Rate:
    """How fast a stage is.

    Attributes:
        examples: examples a second, over the repetitions.
        megabytes: of what the stage hands on, in a second, by the median.
    """

    examples: harness.Spread
    megabytes: float


def rate(
    passes: Iterator[int], *, seconds: float, repetitions: int, example_bytes: float, clock=time.perf_counter
) -> Rate:
    """Measures an endless row of passes, each of which yields its number of examples when it is done.

    Args:
        passes: the passes; the first one, in which caches fill and functions are traced, does not count.
        seconds: shortest duration of a repetition.
        repetitions: number of repetitions.
        example_bytes: size of what the stage makes of an example.
        clock: returns the time in seconds.
    """
    next(passes)
    rates = []
    for _ in range(repetitions):
        examples, started = 0, clock()
        while not examples or clock() - started < seconds:
            examples += next(passes)
        rates.append(examples / (clock() - started))
    found = harness.spread(rates)
    return Rate(found, found.median * example_bytes / 1e6)


def verdict(model: float | None, streamed: float, in_memory: float | None) -> str:
    """Says whether the input or the model is the bottleneck.

    Args:
        model: examples a second that training steps take; None if they were not measured.
        streamed: examples a second delivered from the shards.
        in_memory: examples a second delivered from memory; None if they do not fit.
    """
    delivered, place = (streamed, "from the shards") if in_memory is None else (in_memory, "from memory")
    if model is None:
        return f"The input delivers {delivered:,.0f} examples/s {place}; no model was measured beside it."
    if delivered >= model:
        return (
            f"The model is the bottleneck: it takes {model:,.0f} examples/s, the input delivers {delivered:,.0f} "
            f"{place} ({delivered / model:,.1f} times as many)."
        )
    remedy = "Use more processor cores, fewer bands or less augmentation (brightness costs most)."
    if in_memory is None:
        remedy = f"Raise --cache_gb so that the examples stay in memory. {remedy}"
    return (
        f"The input is the bottleneck: it delivers {delivered:,.0f} examples/s {place}, the model takes {model:,.0f} "
        f"({model / delivered:,.1f} times as many). {remedy}"
    )


def _passes(one: Callable[[int], int]) -> Iterator[int]:
    number = 0
    while True:
        yield one(number)
        number += 1


def _stages(records: Any, options: Any) -> Iterator[tuple[str, Callable[[int], int], float]]:
    """Yields every stage's name, its pass number n, and the bytes that it makes of an example."""
    import numpy as np
    import tensorflow as tf

    from eo_keras.data import pipeline as pipelines
    from eo_keras.data.augment import patches
    from eo_keras.data.parse import parse_batch

    card, split, paths = records.card, records.split("train"), records.files("train")
    bands, batch = records.inputs(options.bands)[0].bands, options.batch_size
    stored = sum(shard.bytes for shard in split.shards) / split.examples
    image = card.patch_size**2 * np.dtype(card.dtype).itemsize
    chosen = [card.bands.index(band) for band in bands]
    block = bytearray(_READ_BUFFER_BYTES)

    def raw_read(_):
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(block):
                    pass
        return split.examples

    def run(dataset):
        return sum(int(first.shape[0]) for first, *_ in pipelines.reading(records, dataset))

    as_delivered = tf.data.Options()
    as_delivered.autotune.enabled = False  # As in the pipelines: its thread would hold up the end of every pass.
    serialized = tf.data.TFRecordDataset(paths, buffer_size=_READ_BUFFER_BYTES).batch(batch).with_options(as_delivered)

    def parse(data):
        return parse_batch(data, card)["image"]

    def select(images):
        return images if bands == card.bands else tf.gather(images, chosen, axis=-1)

    def change(images):
        return patches.augment_batch(images, tf.constant([1, 1], tf.int64), options.augmentation)

    def mapped(*functions):
        def apply(data):
            for function in functions:
                data = function(data)
            return (data,)

        return serialized.map(apply, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)

    steps = [parse, select, change]
    yield "raw read", raw_read, stored
    yield "TFRecord read", lambda _: run(serialized.map(lambda data: (data,)).prefetch(2)), stored
    # Made once, as the map's functions are to be traced once.
    for name, count, planes in zip(STAGES[2:5], (1, 2, 3), (len(card.bands), len(bands), len(bands)), strict=True):
        dataset = mapped(*steps[:count])
        yield name, lambda _, dataset=dataset: run(dataset), image * planes

    def to_float(images, labels):
        return tf.cast(images, tf.float32), labels

    for name, cache in ((STREAMED, False), (IN_MEMORY, True)):
        pipeline = pipelines.TrainingDataset(records, dataclasses.replace(options, cache=cache))
        if pipeline.in_memory == cache:
            floats = image * len(bands) * 4 / np.dtype(card.dtype).itemsize
            yield name, lambda n, pipeline=pipeline: run(pipeline.epoch(n)), image * len(bands)
            yield (
                f"{name}, float32",
                lambda n, pipeline=pipeline: run(
                    pipeline.epoch(n).map(to_float, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
                ),
                floats,
            )


def _training_pass(records: Any, options: Any, model: str) -> Callable[[int], int]:
    """Returns what takes one step of launch.train on one batch."""
    import tensorflow as tf

    from eo_keras.data import pipeline as pipelines
    from eo_keras.data.augment.options import NO_AUGMENTATION
    from eo_keras.training import options as training_options
    from eo_keras.training.trainer import Trainer

    pipeline = pipelines.TrainingDataset(records, dataclasses.replace(options, cache=False))
    batch = next(iter(pipelines.reading(records, pipeline.epoch(0).take(1))))
    settings = training_options.TrainingOptions(
        records_dir=str(records.folder),
        run_dir="",
        model=model,
        bands=",".join(pipeline.inputs[0].bands),
        batch_size=options.batch_size,
        classification=training_options.ClassificationOptions(augmentation=NO_AUGMENTATION),
        validation_from_train=0,
        cache_gb=0,
    )
    trainer = Trainer(settings, records, tf.distribute.get_strategy())
    trainer.train_step.enter(trainer.phases[0])

    def one(_):
        loss, *_ = trainer.train_step(*batch)
        loss.numpy()  # A device may still be at work when the call is back.
        return options.batch_size

    return one


def main() -> None:
    """Measures."""
    if FLAGS.repetitions < 1:
        raise OptionError("repetitions", f"{FLAGS.repetitions}", "1 or more")
    app.import_tensorflow_quietly()
    from eo_keras import models
    from eo_keras.data import pipeline as pipelines
    from eo_keras.data.augment import patches
    from eo_keras.sensors import sentinel2

    if FLAGS.model != "none" and FLAGS.model not in models.MODELS:
        raise OptionError("model", f"'{FLAGS.model}'", f"none, {', '.join(models.MODELS)}")
    records = pipelines.RecordDataset(FLAGS.records_dir)
    options = pipelines.PipelineOptions(
        FLAGS.batch_size,
        bands=sentinel2.parse_bands(FLAGS.bands, records.card.bands),
        augmentation=patches.Augmentation(max_shift=FLAGS.shift, brightness=FLAGS.brightness),
        cache_limit_bytes=int(FLAGS.cache_gb * 1e9) or 1,
    )
    if FLAGS.dry_run:
        records.files("train")
        print(
            f"dry run: would measure {len(STAGES)} stages and the step of model {FLAGS.model} on "
            f"{records.split('train').examples:,} examples of {len(options.bands)} bands in batches of "
            f"{FLAGS.batch_size}"
        )
        return
    how = {"seconds": FLAGS.seconds, "repetitions": FLAGS.repetitions}
    rates: dict[str, Rate] = {}
    print(f"{'stage':34} {'examples/s':>34} {'MB/s':>8}")
    for name, one, size in _stages(records, options):
        rates[name] = rate(_passes(one), example_bytes=size, **how)
        print(f"{name:34} {rates[name].examples.text():>34} {rates[name].megabytes:8,.0f}", flush=True)
    step = None
    if FLAGS.model != "none":
        one = _training_pass(records, options, FLAGS.model)
        step = rate(_passes(one), example_bytes=0, **how).examples
        milliseconds = 1000 * FLAGS.batch_size / step.median
        print(f"{f'training step of {FLAGS.model}':34} {step.text():>34}   ({milliseconds:,.1f} ms a step)")
    sentence = verdict(
        step.median if step else None,
        rates[STREAMED].examples.median,
        rates[IN_MEMORY].examples.median if IN_MEMORY in rates else None,
    )
    print(sentence)
    if FLAGS.output:
        files.write_json(FLAGS.output, _result(records, options, rates, step, sentence))


def _result(
    records: Any, options: Any, rates: Mapping[str, Rate], step: harness.Spread | None, sentence: str
) -> dict[str, Any]:
    return {
        "dataset": records.card.dataset,
        "data_fingerprint": records.card.fingerprint,
        "examples": records.split("train").examples,
        "bands": list(options.bands),
        "batch_size": options.batch_size,
        "augmentation": dataclasses.asdict(options.augmentation),
        "stages": {
            name: {"examples_per_second": dataclasses.asdict(one.examples), "megabytes_per_second": one.megabytes}
            for name, one in rates.items()
        },
        "model": FLAGS.model,
        "training_step": dataclasses.asdict(step) if step else None,
        "verdict": sentence,
        "machine": harness.machine(),
    }


if __name__ == "__main__":
    app.run(main)
