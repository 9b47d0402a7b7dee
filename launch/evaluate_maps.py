"""What launch.evaluate does with runs whose model answers with maps; it has no command of its own."""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from eo_keras.core import files
from eo_keras.core.number_format import number
from eo_keras.errors import OptionError
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from launch import app

FLAGS = flags.FLAGS

OF_PATCHES = ("tta", "calibrate", "coordinates")
"""Flags that say nothing to maps."""

OF_MAPS = ("output_stride", "scales", "flip", "boundary_tolerance")
"""Flags that say nothing to patches."""


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of `OF_MAPS`."""
    where = {"flag_values": flag_values}
    flags.DEFINE_integer(
        "output_stride",
        None,
        "Of maps: 8 looks twice as closely as a model of stride 16 was trained to, with the same weights, and takes "
        "several times as long. Default: as trained.",
        **where,
    )
    flags.DEFINE_list(
        "scales", ["1"], "Of maps: sizes of the tile, as shares of its own, whose answers are averaged.", **where
    )
    flags.DEFINE_bool("flip", False, "Of maps: whether each is also asked about mirrored.", **where)
    flags.DEFINE_float("boundary_tolerance", 2.0, "Of maps: how many pixels a boundary may be off.", **where)


def concerns(folders: Sequence[pathlib.Path]) -> bool:
    """Tells whether runs answer with maps.

    Raises:
        OptionError: if some do and others do not, or flags are given that say nothing to their kind.
    """
    from eo_keras import models

    names = [model_cards.read_model_card(folder).model for folder in folders]
    maps = [name in models.MODELS and models.MODELS[name].task == "segmentation" for name in names]
    if any(maps) and not all(maps):
        patches = folders[maps.index(False)]
        raise OptionError("--run_dir", f"{patches} answers about patches, others with maps", "runs of one kind")
    for flag in OF_PATCHES if all(maps) else OF_MAPS:
        if FLAGS[flag].present:
            kind = "a model of maps" if all(maps) else "a model of patches"
            raise OptionError(f"--{flag}", f"it says nothing to {kind}", remedy="leave it out")
    return all(maps)


def evaluate(folder: pathlib.Path, model_name: str, *, alone: bool):
    """Evaluates one run and tells its scores.

    Args:
        folder: the run folder.
        model_name: which of its models.
        alone: whether it is the only run, so that --output_dir is for it.

    Returns:
        The evaluation and what its `metrics.json` holds; None in a dry run.
    """
    from eo_keras.data import pipeline as pipelines
    from eo_keras.evaluation import report, segmentation_report

    card = model_cards.read_model_card(folder)
    records = pipelines.RecordDataset(FLAGS.records_dir or runs.find_records(folder, card))
    records.split(FLAGS.split)
    options, name = _options(), variant(model_name)
    if records.card.fingerprint != card.data_fingerprint:
        name = f"{records.card.dataset}-{records.card.fingerprint[:8]}-{name}"
    output_dir = pathlib.Path(FLAGS.output_dir) if FLAGS.output_dir and alone else folder / runs.EVALUATION_DIR / name
    report.output_folder(output_dir).check(overwrite=FLAGS.overwrite, writes=segmentation_report.NAMES)
    print(f"run:      {folder}\nrecords:  {records.folder}, {records.count(FLAGS.split):,} tiles of '{FLAGS.split}'")
    if FLAGS.dry_run:
        print(f"dry run: would write {output_dir}")
        return None
    run = runs.open_run(folder, model_name)
    with app.ProgressBars(unit="batches") as progress:
        found = segmentation_report.evaluate_maps(run, records, options, progress=progress)
    for warning in found.warnings:
        app.say(f"warning: {warning}")
    checksum = files.sha256_of_file(runs.model_path(folder, model_name))
    content, warnings = segmentation_report.write_maps_evaluation(
        found, output_dir, model_sha256=checksum, model_name=model_name, overwrite=FLAGS.overwrite
    )
    if model_name == runs.MODEL_NAME:
        warnings += segmentation_report.add_maps_to_card(found)
    for warning in warnings:
        app.say(f"warning: {warning}")
    _report(found.scores)
    print(f"{output_dir}: scores and figures ({found.predicted.images_per_second:.1f} tiles a second)")
    return found, content


def comparison_report(folders: Sequence[pathlib.Path], evaluated: Sequence[Any]):
    """Compares evaluated runs, and returns the report."""
    from eo_keras.evaluation import comparison_report, report
    from eo_keras.metrics import comparison
    from eo_keras.metrics.outcomes import PlaceOutcomes

    members = [
        comparison.EvaluatedRun(
            name, content, one.scores, PlaceOutcomes.of(one.predicted.predictions.scorer, one.places)
        )
        for name, (one, content) in zip(report.short_names(folders), evaluated, strict=True)
    ]
    datasets = ", ".join(dict.fromkeys(member.metrics["dataset"] for member in members))
    found = comparison.compare(members)
    return comparison_report.Report(found, f"{len(members)} runs on {datasets}, {evaluated[0][0].options.name}")


def variant(model_name: str) -> str:
    """Returns a name that tells this way to evaluate a split apart from others."""
    return _options().name + ("-last" if model_name == runs.LAST_MODEL_NAME else "")


def _options():
    from eo_keras.evaluation.segmentation_evaluate import DenseTTA
    from eo_keras.evaluation.segmentation_report import DenseEvaluationOptions

    try:
        scales = tuple(map(float, FLAGS.scales))
    except ValueError:
        raise OptionError(
            "--scales", ",".join(FLAGS.scales), "numbers separated by commas, such as 0.75,1,1.25"
        ) from None
    return DenseEvaluationOptions(
        split=FLAGS.split,
        # A tile has as many pixels as 16 patches and more.
        batch_size=FLAGS.batch_size if FLAGS["batch_size"].present else 8,
        output_stride=FLAGS.output_stride,
        tta=DenseTTA(scales, FLAGS.flip),
        tolerance=FLAGS.boundary_tolerance,
    )


def _report(scores) -> None:
    def told(estimate) -> str:
        return (
            "-" if estimate is None else f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"
        )

    details, miou = scores.details, scores["miou"]
    where = f"{details['images']:,} tiles"
    if details["places"] < details["images"]:
        where += f" of {details['places']:,} places"
    print(f"mIoU      {told(miou)}, over the {details['averaged_classes']} classes that have pixels")
    print(f"accuracy  {told(scores['accuracy'])} of {scores.count:,} pixels; kappa {number(scores.value('kappa'))}")
    print(f"boundary  F1 {told(scores['boundary_f1'])}, within {details['boundary_tolerance']:g} pixels")
    print(f"intervals of 95 %: {_method(scores)} over {where}")
    print(f"{'class':<28}{'pixels':>12}{'precision':>11}{'recall':>9}  IoU")
    few = {name for name, one in scores.by_class.items() if one["iou"] and one["iou"].method != miou.method}
    for name, one in scores.by_class.items():
        precision, recall = (number(scores.value(score, name)) for score in ("precision", "recall"))
        mark = " *" if name in few else ""
        print(f"{name:<28}{one['support']:>12,}{precision:>11}{recall:>9}  {told(one['iou'])}{mark}")
    if few:
        print("* Wilson's interval: the class is in few tiles, or is the same in all draws")


def _method(scores) -> str:
    return "bootstrap" if scores["miou"].method == "bootstrap" else "Wilson's, as wide as so few places leave open,"
