r"""Scores runs on a split, of several says which is better and how sure that is; or scores a map against a reference.

Each run's scores, predictions and figures go into its own folder, evaluation/<split>, a comparison of several into
--output_dir. An evaluation that is already there and fits (the same model, records, split and options) is not computed
again. docs/guides/evaluate.md explains the files.

Examples:
  python -m launch.evaluate --run_dir=runs/a --split=test
  python -m launch.evaluate --run_dir=runs/a --run_dir=runs/b --output_dir=comparison/a_b
  python -m launch.evaluate --run_dir='runs/*' --tta=d4
  python -m launch.evaluate --run_dir=runs/tiles --output_stride=8 --scales=0.75,1,1.25 --flip
  python -m launch.evaluate --run_dir=runs/a --records_dir=records/other --checkpoint=last

A class map instead of runs is compared with points, polygons or another raster; docs/guides/assess.md explains it.

  python -m launch.evaluate --map=munich.tif --points=points.gpkg --class_field=land_cover
  python -m launch.evaluate --map=munich.tif --polygons=urban_atlas.gpkg --class_field=code_2018 --class_table=hsl4
  python -m launch.evaluate --map=munich.tif --raster=corine.tif --class_table=names.csv --output_dir=evaluation/corine
"""

import dataclasses
import functools
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from eo_keras import tasks
from eo_keras.core import files
from eo_keras.core.options import all_fields
from eo_keras.errors import EOKerasError, OptionError
from eo_keras.evaluation import comparison_report, report
from eo_keras.evaluation.options import EvaluationOptions
from eo_keras.evaluation.report import StoredEvaluation
from eo_keras.geo.coordinates import read_coordinates
from eo_keras.mapping.reference import ReferenceOptions
from eo_keras.metrics import by_location, calibration, comparison
from eo_keras.metrics.calibration import Calibration
from eo_keras.metrics.metric import METRICS
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.runs import temperature as run_temperature
from eo_keras.runs.stand_in import read_stand_in
from launch import app, evaluate_map, evaluate_text, options, path_flags

if TYPE_CHECKING:
    from eo_keras.data.pipeline import RecordDataset

FLAGS = flags.FLAGS

_EVALUATION_NAMES, _REFERENCE_NAMES = (
    tuple(field.name for field in all_fields(kind)) for kind in (EvaluationOptions, ReferenceOptions)
)


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_multi_path(
        "run_dir",
        None,
        "Run folder made by launch.train; several joined by commas, or a pattern in quotes such as 'runs/*', are "
        "compared with each other",  # absl itself adds that the flag may be repeated.
        commas=True,
        **where,
    )
    path_flags.define_path(
        "records_dir", None, "Records folder to predict. Default: the one that each run was trained on.", **where
    )
    options.define(EvaluationOptions, flag_values, module_name=__name__)
    path_flags.define_path(
        "map",
        None,
        "Class map to score instead of runs, against --points, --polygons or --raster: a map made by launch.map, or "
        "another raster of whole numbers with category names or a color table.",
        **where,
    )
    options.define(ReferenceOptions, flag_values, module_name=__name__)
    flags.DEFINE_bool(
        "each_removed",
        False,
        "Of one run of several sensors: evaluate it with all of them and with each taken away in turn, with --stand_in "
        "that one predicted too, and compare.",
        **where,
    )
    flags.DEFINE_bool("force", False, "Compute also what is already there and fits.", **where)
    flag_values["force"].aliases = ("again",)
    path_flags.define_path(
        "output_dir",
        None,
        "Of one run: folder for scores and figures. Default: evaluation/<split> in the run folder, followed by what "
        "distinguishes the evaluation (-last, -d4, -os8, -flip), and with the data set's name before it if other "
        "records are given. Of several runs: folder for the comparison. Default: comparison/<split>. "
        "Of a map: folder for scores and page. Default: evaluation/<map>-<reference>.",
        **where,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Write beside other files that lie in the folder for scores or comparison; none of them is replaced. An "
        "earlier evaluation there is replaced without it.",
        **where,
    )
    options.not_repeated(flag_values, "force", "output_dir", "overwrite")


@dataclasses.dataclass(frozen=True)
class _Subject:
    """A run that is to be evaluated.

    Attributes:
        folder: its folder.
        card: its card.
        records: the records to predict.
        output_dir: folder of the evaluation.
        stored: the evaluation that is already there and fits, or None.
        model_sha256: checksum of the model's file.
    """

    folder: pathlib.Path
    card: model_cards.ModelCard
    records: Any
    output_dir: pathlib.Path
    stored: Any
    model_sha256: str


def main() -> None:
    """Runs the command."""
    _check_use()
    if FLAGS.map is not None:
        evaluate_map.main(FLAGS)
    else:
        _evaluate_runs()


def _check_use() -> None:
    """Checks that runs or a map are given, and no flag that applies to the other."""
    both = set(_EVALUATION_NAMES) & set(_REFERENCE_NAMES)
    if FLAGS.map is None and not FLAGS.run_dir:
        raise OptionError("--run_dir", "it is not given", "run folders by --run_dir, or a map by --map")
    of_runs, of_map = (
        ("run_dir", "records_dir", "each_removed", "force", *_EVALUATION_NAMES),
        ("map", *_REFERENCE_NAMES),
    )
    what, others = ("a map", of_runs) if FLAGS.map is not None else ("runs", of_map)
    for name in others:
        if name not in both and FLAGS[name].present:
            raise OptionError(f"--{name}", f"it does not apply to the evaluation of {what}", remedy="leave it out")


def _evaluate_runs() -> None:
    folders = report.find_runs(FLAGS.run_dir)
    chosen = options.read(EvaluationOptions, FLAGS)
    variants = _variants(folders, chosen)
    several = len(folders) * len(variants) > 1
    output_dir = pathlib.Path("comparison") / chosen.name
    if len(variants) > 1:
        output_dir = folders[0] / runs.EVALUATION_DIR / f"{chosen.name}-each-removed"
    output_dir = pathlib.Path(FLAGS.output_dir or output_dir)
    if several and (output_dir / model_cards.MODEL_CARD_NAME).exists():
        raise OptionError("--output_dir", f"{output_dir} is a run folder", "a folder of its own for the comparison")
    cards = [model_cards.read_model_card(folder) for folder in folders]
    # What is no run shows before seconds are spent on importing TensorFlow.
    _check_one_task(folders, cards)
    app.import_tensorflow_quietly()
    chosen.check_task(tasks.of(cards[0]))
    if several:
        comparison_report.output_folder(output_dir).check(overwrite=FLAGS.overwrite, writes=comparison_report.NAMES)
    subjects = [
        (_subject(folder, card, variant, alone=not several), variant)
        for folder, card in zip(folders, cards, strict=True)
        for variant in variants.values()
    ]
    stored = []
    for subject, variant in subjects:
        _describe(subject, variant)
        if not FLAGS.dry_run:
            stored.append(subject.stored or _evaluate(subject, variant))
            _report(subject, stored[-1], variant, alone=not several)
    if several:
        names = list(variants) if len(variants) > 1 else report.short_names(folders)
        _compare(names, stored, chosen, output_dir)
    elif not FLAGS.dry_run:
        app.say(f"next: python -m launch.export --run_dir={folders[0]} --export_dir=serving/{cards[0].dataset}")


def _variants(folders: list[pathlib.Path], chosen: EvaluationOptions) -> dict[str, EvaluationOptions]:
    """Returns the evaluations of each run by name: one, or with --each_removed one for each sensor taken away too."""
    if not FLAGS.each_removed:
        return {"": chosen}
    names = model_cards.read_model_card(folders[0]).sensor_names
    problem = "several runs" if len(folders) > 1 else "a run of one sensor" if len(names) < 2 else ""
    if problem or chosen.without:
        problem = problem or f"--without={','.join(chosen.without)}, which it says itself"
        raise OptionError("--each_removed", problem, "one run of several sensors", "leave it out")
    found = dataclasses.replace(chosen, stand_in=None)
    removed = {f"without {name}": dataclasses.replace(found, without=(name,)) for name in names}
    if chosen.stand_in is not None:
        sensor = read_stand_in(chosen.stand_in, model_cards.read_model_card(folders[0])).sensor
        removed[f"without {sensor}, predicted"] = dataclasses.replace(chosen, without=(sensor,))
    return {"all sensors": found, **removed}


def _check_one_task(folders: list[pathlib.Path], cards: list[model_cards.ModelCard]) -> None:
    for folder, card in zip(folders, cards, strict=True):
        if card.task != cards[0].task:
            found = f"{folder} is for {card.task}, {folders[0]} for {cards[0].task}"
            raise OptionError("--run_dir", found, "runs of one task")


def _subject(folder: pathlib.Path, card: model_cards.ModelCard, chosen: EvaluationOptions, *, alone: bool) -> _Subject:
    """Checks a run without loading its model, and looks for an earlier evaluation that can be reused."""
    from eo_keras.evaluation import evaluate as evaluation

    records = _records(FLAGS.records_dir or runs.find_records(folder, card))
    evaluation.check_without(chosen, card)
    evaluation.check_records(records.card, card, records.folder)
    evaluation.check_missing(chosen, card, records.card, records.folder)
    records.split(chosen.split)
    model = runs.model_path(folder, chosen.model_name)
    if not model.is_file():
        runs.load_model(model)  # Which says what is missing.
    output_dir = folder / runs.EVALUATION_DIR / report.folder_name(chosen, card, records.card)
    if FLAGS.output_dir and alone:
        output_dir = pathlib.Path(FLAGS.output_dir)
    checksum = files.sha256_of_file(model)
    expected = evaluation.identity(chosen, card, records.card, checksum)
    stored = None if FLAGS.force else report.find_evaluation(output_dir, expected)
    if stored is None or not report.suffices(stored, chosen):
        stored = None
        names = report.names(tasks.of(card))
        report.output_folder(output_dir).check(overwrite=FLAGS.overwrite, writes=names)
    return _Subject(folder, card, records, output_dir, stored, checksum)


@functools.cache
def _records(folder: str) -> "RecordDataset":
    from eo_keras.data import pipeline as pipelines

    return pipelines.RecordDataset(folder)


def _describe(subject: _Subject, chosen: EvaluationOptions) -> None:
    card, selection = subject.card, subject.card.selection
    print(f"run:      {subject.folder}")
    print(f"model:    {card.model} on {card.title_of_bands}, {card.parameters:,} weights")
    if chosen.model_name == runs.LAST_MODEL_NAME:
        print("chosen:   the last epoch, as `--checkpoint=last` says")
    elif selection["metric"]:
        value = METRICS[selection["metric"]].text(selection["value"])
        print(f"chosen:   epoch {selection['epoch']}, by {value} on {selection['split']}; never by the test split")
    else:
        print(f"chosen:   epoch {selection['epoch']}, the last one: the run had no validation examples")
    examples = subject.records.split(chosen.split).examples
    averaged = "" if chosen.tta_name == "none" else f", probabilities averaged over {chosen.tta_name}"
    what, where = card.targets.examples, subject.records.folder
    print(f"examples: {examples:,} {what} of the split {chosen.split} of {where}{averaged}")
    if FLAGS.dry_run:
        what = f"reuse the evaluation in {subject.output_dir}" if subject.stored else _would_do(subject, chosen)
        print(f"dry run: would {what}")


def _would_do(subject: _Subject, chosen: EvaluationOptions) -> str:
    split = subject.card.selection.get("split")
    fitted = "" if chosen.calibrate is False or not split else f", fit a temperature on {split}"
    return f"predict{fitted}, and write scores and figures to {subject.output_dir}"


def _evaluate(subject: _Subject, chosen: EvaluationOptions) -> StoredEvaluation:
    from eo_keras.evaluation import evaluate as evaluation

    run = runs.open_run(subject.folder, chosen.model_name)
    places = functools.partial(_places, chosen.coordinates) if chosen.coordinates else None
    with app.ProgressBars(unit="batches") as bars:
        fitted, reason = _calibration(subject, run, chosen, bars)
        result = evaluation.evaluate(
            run, subject.records, chosen, fitted=fitted, not_calibrated=reason, places=places, progress=bars
        )
    warnings = report.write_evaluation(result, subject.output_dir, overwrite=FLAGS.overwrite)
    if chosen.model_name == runs.MODEL_NAME:
        warnings += evaluation.add_to_card(result)
    for warning in warnings:
        app.say(f"warning:  {warning}")
    return report.read_evaluation(subject.output_dir)


def _calibration(
    subject: _Subject, run: runs.Run, chosen: EvaluationOptions, bars: Any
) -> tuple[Calibration | None, str]:
    """Returns the run's temperature, fitted now or earlier, or the reason for having none."""
    from eo_keras.evaluation import evaluate as evaluation

    if chosen.calibrate is False:
        return None, report.NOT_WANTED
    name = chosen.variant
    path = run_temperature.path(subject.folder, chosen.model_name, name)
    if not FLAGS.force and path.is_file():
        kept = calibration.read_calibration(path)
        wanted = (subject.model_sha256, name, subject.card.data_fingerprint)
        # Temperatures of earlier versions lack the thresholds of calibrated confidences.
        if (kept.model_sha256, kept.tta, kept.data_fingerprint) == wanted and kept.calibrated_thresholds:
            return kept, ""
    try:
        own = subject.records
        if own.card.fingerprint != subject.card.data_fingerprint:
            own = _records(runs.find_records(subject.folder, subject.card))
        found = evaluation.fit_calibration(run, own, chosen, model_sha256=subject.model_sha256, progress=bars)
    except EOKerasError as error:
        if chosen.calibrate:
            raise
        return None, str(error)
    written = path.relative_to(subject.folder).as_posix()
    for warning in runs.write_file(subject.folder, written, calibration.to_bytes(found)):
        app.say(f"warning:  {warning}")
    return found, ""


def _places(path: str, keys: tuple[str, ...]) -> by_location.Locations:
    degrees, _ = read_coordinates(path, keys)
    return by_location.Locations(degrees, pathlib.Path(path).name)


def _report(subject: _Subject, stored: StoredEvaluation, chosen: EvaluationOptions, *, alone: bool) -> None:
    """Prints the scores of one run."""
    metrics, scores = stored.metrics, stored.scores
    for warning in metrics["warnings"]:
        app.say(f"warning:  {warning}")
    if subject.stored:
        print(f"reused:   {subject.output_dir}; --force computes it again")
    print("", *evaluate_text.class_lines(scores), "", sep="\n")
    print(*evaluate_text.score_lines(scores), sep="\n")
    if chosen.tta_name != "none":
        _report_gain(subject, stored, chosen)
    located, task = scores.sections.get("places"), tasks.of(subject.card)
    if located:
        print(f"map: {located['examples']:,} of {scores.count:,} examples have coordinates ({located['source']})")
    elif task.correct(stored.predictions) is not None:
        print("map: none, these records hold no coordinates; --coordinates=FILE gives them")
    names = [*report.file_names(task), *(report.PLACE_FILES if located else ())]
    print(f"{subject.output_dir}: {', '.join(names)}" + ("" if alone else "\n"))


def _report_gain(subject: _Subject, stored: StoredEvaluation, chosen: EvaluationOptions) -> None:
    """Prints the gain of test-time augmentation, where predictions without it exist for the same examples."""
    from eo_keras.evaluation import evaluate as evaluation

    plain = chosen.without_augmentation
    name = report.folder_name(plain, subject.card, subject.records.card)
    expected = evaluation.identity(plain, subject.card, subject.records.card, subject.model_sha256)
    found = report.find_evaluation(subject.folder / runs.EVALUATION_DIR / name, expected)
    if found is None:
        print("gain over the model's own predictions: not known; evaluate it without averaging too")
        return
    mine, its = stored.as_run("averaged"), found.as_run("own")
    paired = mine.outcomes.paired(its.outcomes, mine.scores.overall, its.scores.overall)[stored.scores.primary]
    print(f"gain over the model's own predictions: {evaluate_text.paired_text(paired, METRICS[stored.scores.primary])}")


def _compare(
    names: list[str], stored: list[StoredEvaluation], chosen: EvaluationOptions, output_dir: pathlib.Path
) -> None:
    """Compares the evaluated runs, and writes and prints the result."""
    if FLAGS.dry_run:
        print(f"dry run: would compare {len(names)} runs and write the comparison to {output_dir}")
        return
    found = comparison.compare([one.as_run(name) for name, one in zip(names, stored, strict=True)])
    datasets = ", ".join(dict.fromkeys(one.metrics["dataset"] for one in stored))
    written = comparison_report.Report(found, f"{len(names)} runs on {datasets}, {chosen.name}")
    for warning in comparison_report.write(written, output_dir, overwrite=FLAGS.overwrite):
        app.say(f"warning: {warning}")
    scores, pairs, _ = written.tables()
    print(*scores.lines(), "", sep="\n")
    print(*pairs.lines(), "", sep="\n")
    for table in written.tables_of_others():
        print(*table.lines(), "", sep="\n")
    for warning in found.warnings:
        app.say(f"warning: {warning}")
    count = len(pairs.rows)
    print(f"p (Holm) is corrected for {count} pair{'s' if count > 1 else ''}; a p from 0.05 on shows no difference")
    print(f"{output_dir}: {', '.join(comparison_report.NAMES)}")


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
