r"""Scores runs on a split and, of several, tells which is better and how sure that is. docs/evaluating.md explains it.

Each run's scores and figures go into its own folder, evaluation/<split>, a comparison of several into --output_dir.
An evaluation of patches that is already there and fits (the same model, records, split and symmetries) is not computed
again; maps always are.

Examples:
  python -m launch.evaluate --run_dir=runs/a --split=test
  python -m launch.evaluate --run_dir=runs/a --run_dir=runs/b --output_dir=comparison/a_b
  python -m launch.evaluate --run_dir='runs/*' --tta=d4
  python -m launch.evaluate --run_dir=runs/a --records_dir=records/other --checkpoint=last
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from eo_keras.core import files
from eo_keras.errors import EOKerasError, OptionError
from eo_keras.evaluation import comparison_report
from eo_keras.evaluation import report as evaluation_folder
from eo_keras.evaluation.report import Stored
from eo_keras.geo import coordinates as geo_coordinates
from eo_keras.metrics import by_location, calibration, comparison
from eo_keras.metrics.comparison import Difference, EvaluatedRun
from eo_keras.metrics.outcomes import ExampleOutcomes
from eo_keras.metrics.scores import SCHEMA, Scores
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.runs import temperature as run_temperature
from launch import app, evaluate_maps, evaluate_text, path_flags

if TYPE_CHECKING:
    from eo_keras.data.pipeline import RecordDataset

FLAGS = flags.FLAGS


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_multi_path(
        "run_dir",
        None,
        "Run folder made by launch.train; several joined by commas, or a pattern in quotes such as 'runs/*', are "
        "compared with each other",  # absl itself adds that the flag may be repeated.
        commas=True,
        required=True,
        **where,
    )
    path_flags.define_path(
        "records_dir", None, "Records folder to ask about. Default: the one that each run was trained on.", **where
    )
    flags.DEFINE_string("split", "test", "Split to score: train, val or test.", **where)
    flags.DEFINE_enum(
        "checkpoint", "best", ["best", "last"], "Which model: that of the kept epoch, or of the last one.", **where
    )
    flags.DEFINE_enum(
        "tta",
        "none",
        ["none", "d4"],
        "d4: probabilities averaged over the eight symmetries of the square, which takes eight times as long. Reported "
        "apart from the model's own answers, in a folder and under a name that end in -d4.",
        **where,
    )
    flags.DEFINE_bool(
        "calibrate",
        None,
        "Whether to fit a temperature on the run's validation examples and report calibration before and after. "
        "Default: where the run has validation examples; if said, a run without is refused.",
        **where,
    )
    path_flags.define_path(
        "coordinates",
        None,
        "CSV file of the patches' centres (header patch,latitude,longitude, in degrees), for a map of the accuracy. "
        "Default: the records' own CRS and transforms, where they hold them.",
        **where,
    )
    flags.DEFINE_bool("again", False, "Whether to compute also what is already there and fits.", **where)
    flags.DEFINE_integer(
        "batch_size", 256, "Examples asked about at a time; does not change the scores.", lower_bound=1, **where
    )
    path_flags.define_path(
        "output_dir",
        None,
        "Of one run: folder for scores and figures. Default: evaluation/<split> in the run folder, with -last and -d4 "
        "behind it where asked for, and the data set's name before it if other records are given. Of several runs: "
        "folder for the comparison. Default: comparison/<split>.",
        **where,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Whether to write beside other files that lie in the folder for scores or comparison; none of them is "
        "replaced. An earlier evaluation there is replaced without it.",
        **where,
    )
    evaluate_maps.define_flags(flag_values)


@dataclasses.dataclass(frozen=True)
class _Subject:
    """One run that is to be evaluated.

    Attributes:
        folder: its folder.
        card: its card.
        records: the records to ask about.
        output_dir: where the evaluation goes.
        stored: the evaluation that is already there and fits, or None.
        model_sha256: checksum of the model's file.
    """

    folder: pathlib.Path
    card: model_cards.ModelCard
    records: Any
    output_dir: pathlib.Path
    stored: Stored | None
    model_sha256: str


def main() -> None:
    """Runs the command."""
    folders = evaluation_folder.find_runs(FLAGS.run_dir)
    if len(folders) > 1 and (_comparison_dir() / model_cards.MODEL_CARD_NAME).exists():
        raise OptionError(
            "--output_dir", f"{_comparison_dir()} is a run folder", "a folder of its own for the comparison"
        )
    for folder in folders:
        model_cards.read_model_card(folder)  # What is no run shows before seconds are spent on importing TensorFlow.
    app.import_tensorflow_quietly()
    if evaluate_maps.concerns(folders):
        _evaluate_maps(folders)
        return
    if len(folders) > 1:
        _check_comparison(_comparison_dir())
    subjects = [_subject(folder, alone=len(folders) == 1) for folder in folders]
    stored = []
    for subject in subjects:
        _describe(subject)
        if not FLAGS.dry_run:
            stored.append(subject.stored or _evaluate(subject))
            _report(subject, stored[-1], alone=len(folders) == 1)
    if len(folders) > 1:
        _compare(folders, stored)
    elif not FLAGS.dry_run:
        print(f"next: python -m launch.export --run_dir={folders[0]} --export_dir=serving/{subjects[0].card.dataset}")


def _check_comparison(folder: pathlib.Path) -> None:
    comparison_report.output_folder(folder).check(overwrite=FLAGS.overwrite, writes=comparison_report.NAMES)


def _evaluate_maps(folders: list[pathlib.Path]) -> None:
    output_dir = _comparison_dir(evaluate_maps.variant(_model_name()))
    if len(folders) > 1:
        _check_comparison(output_dir)
    evaluated = [evaluate_maps.evaluate(folder, _model_name(), alone=len(folders) == 1) for folder in folders]
    if len(folders) == 1:
        return
    if FLAGS.dry_run:
        print(f"dry run: would compare {len(folders)} runs and write the comparison to {output_dir}")
        return
    print()
    _write_comparison(evaluate_maps.comparison_report(folders, evaluated), output_dir)


def _comparison_dir(name: str = "") -> pathlib.Path:
    name = name or evaluation_folder.variant(FLAGS.split, _model_name(), FLAGS.tta)
    return pathlib.Path(FLAGS.output_dir or pathlib.Path("comparison") / name)


def _model_name() -> str:
    return runs.MODEL_NAME if FLAGS.checkpoint == "best" else runs.LAST_MODEL_NAME


def _subject(folder: pathlib.Path, *, alone: bool) -> _Subject:
    """Checks all that can be checked without the model, and looks for an earlier evaluation that fits."""
    from eo_keras.evaluation import evaluate as evaluation

    card, records = model_cards.read_model_card(folder), _records(FLAGS.records_dir or _own_records(folder))
    evaluation.check_records(records.card, card, records.folder)
    records.split(FLAGS.split)
    model = runs.model_path(folder, _model_name())
    if not model.is_file():
        runs.load_model(model)  # Which says what is missing.
    subject = _Subject(
        folder, card, records, _output_dir(folder, card, records, alone), None, files.sha256_of_file(model)
    )
    stored = None if FLAGS.again else evaluation_folder.find_evaluation(subject.output_dir, _expected(subject))
    if stored is None or not _suffices(stored.metrics):
        stored, folder = None, evaluation_folder.output_folder(subject.output_dir)
        folder.check(overwrite=FLAGS.overwrite, writes=evaluation_folder.NAMES)
    return dataclasses.replace(subject, stored=stored)


@functools.cache
def _records(folder: str) -> "RecordDataset":
    from eo_keras.data import pipeline as pipelines

    return pipelines.RecordDataset(folder)


def _own_records(folder: pathlib.Path) -> str:
    return runs.find_records(folder, model_cards.read_model_card(folder))


def _output_dir(
    folder: pathlib.Path, card: model_cards.ModelCard, records: "RecordDataset", alone: bool
) -> pathlib.Path:
    if FLAGS.output_dir and alone:
        return pathlib.Path(FLAGS.output_dir)
    name = evaluation_folder.variant(FLAGS.split, _model_name(), FLAGS.tta)
    if records.card.fingerprint != card.data_fingerprint:
        name = f"{records.card.dataset}-{records.card.fingerprint[:8]}-{name}"
    return folder / runs.EVALUATION_DIR / name


def _expected(subject: _Subject, symmetries: str | None = None) -> dict[str, Any]:
    """Returns what tells an evaluation apart from those of other models, examples or questions."""
    return {
        "model_sha256": subject.model_sha256,
        "data_fingerprint": subject.records.card.fingerprint,
        "trained_on": subject.card.data_fingerprint,
        "split": FLAGS.split,
        "tta": FLAGS.tta if symmetries is None else symmetries,
    }


def _suffices(metrics: Mapping[str, Any]) -> bool:
    """Tells whether an earlier evaluation holds the temperature and the map that are asked for now."""
    if metrics.get("schema") != SCHEMA:
        return False  # It was made by an earlier version, with other intervals and confidences.
    found = metrics["calibration"]
    if found["temperature"] is None:
        if FLAGS.calibrate or (FLAGS.calibrate is None and found["reason"] == evaluation_folder.NOT_ASKED):
            return False
    located = metrics["places"]
    return not FLAGS.coordinates or bool(located and located["source"] == pathlib.Path(FLAGS.coordinates).name)


def _describe(subject: _Subject) -> None:
    card, chosen = subject.card, subject.card.selection
    print(f"run:      {subject.folder}")
    print(f"model:    {card.model} on {','.join(card.bands)}, {card.parameters:,} weights")
    if FLAGS.checkpoint == "last":
        print("chosen:   the last epoch, on request")
    elif chosen["metric"]:
        print(
            f"chosen:   epoch {chosen['epoch']}, by {chosen['metric']} ({chosen['value']:.2%}) on {chosen['split']}; "
            "never by the test split"
        )
    else:
        print(f"chosen:   epoch {chosen['epoch']}, the last one: the run had no validation examples")
    examples = subject.records.split(FLAGS.split).examples
    asked = "" if FLAGS.tta == "none" else f", answers averaged over the symmetries {FLAGS.tta}"
    print(f"examples: {examples:,} of the split {FLAGS.split} of {subject.records.folder}{asked}")
    if FLAGS.dry_run:
        what = f"reuse the evaluation in {subject.output_dir}" if subject.stored else _would_do(subject)
        print(f"dry run: would {what}")


def _would_do(subject: _Subject) -> str:
    temperature = (
        "" if FLAGS.calibrate is False or not subject.card.selection.get("split") else ", fit a temperature on"
    )
    fitted = f"{temperature} {subject.card.selection['split']}" if temperature else ""
    return f"ask the model{fitted}, and write scores and figures to {subject.output_dir}"


def _evaluate(subject: _Subject) -> Stored:
    from eo_keras.evaluation import evaluate as evaluation

    run = runs.open_run(subject.folder, _model_name())
    with app.ProgressBars(unit="batches") as bars:
        found, reason = _calibration(subject, run, bars)
        result = evaluation.evaluate(
            run, subject.records, FLAGS.split, batch_size=FLAGS.batch_size, symmetries=FLAGS.tta, progress=bars
        )
    located = _places(subject, result.answers.keys)
    result = dataclasses.replace(result, calibration=found, not_calibrated=reason, places=located)
    warnings = evaluation_folder.write_evaluation(
        result, subject.output_dir, model_name=_model_name(), overwrite=FLAGS.overwrite
    )
    if FLAGS.checkpoint == "best":
        warnings += evaluation.add_to_card(result)
    for warning in warnings:
        app.say(f"warning:  {warning}")
    return evaluation_folder.read_evaluation(subject.output_dir)


def _calibration(subject: _Subject, run: runs.Run, bars: Any) -> tuple[calibration.Calibration | None, str]:
    """Returns the run's temperature, fitted now or earlier, or the reason why there is none."""
    from eo_keras.evaluation import evaluate as evaluation

    if FLAGS.calibrate is False:
        return None, evaluation_folder.NOT_ASKED
    path = run_temperature.path(subject.folder, _model_name(), FLAGS.tta)
    if not FLAGS.again and path.is_file():
        kept = calibration.read_calibration(path)
        wanted = (subject.model_sha256, FLAGS.tta, subject.card.data_fingerprint)
        # Temperatures of earlier versions lack the thresholds of calibrated confidences.
        if (kept.model_sha256, kept.tta, kept.data_fingerprint) == wanted and kept.calibrated_thresholds:
            return kept, ""
    try:
        own = subject.records
        if own.card.fingerprint != subject.card.data_fingerprint:
            own = _records(_own_records(subject.folder))
        found = evaluation.fit_calibration(
            run,
            own,
            batch_size=FLAGS.batch_size,
            symmetries=FLAGS.tta,
            model_sha256=subject.model_sha256,
            progress=bars,
        )
    except EOKerasError as error:
        if FLAGS.calibrate:
            raise
        return None, str(error)
    name = path.relative_to(subject.folder).as_posix()
    for warning in runs.write_file(subject.folder, name, calibration.to_bytes(found)):
        app.say(f"warning:  {warning}")
    return found, ""


def _places(subject: _Subject, keys: tuple[str, ...]) -> by_location.Places | None:
    if not FLAGS.coordinates:
        return by_location.read_places(subject.records.folder, subject.records.card, FLAGS.split, keys)
    degrees, _ = geo_coordinates.read_coordinates(FLAGS.coordinates, keys)
    return by_location.Places(degrees, pathlib.Path(FLAGS.coordinates).name)


def _report(subject: _Subject, stored: Stored, *, alone: bool) -> None:
    """Prints the scores of one run."""
    metrics, scores = stored.metrics, Scores.read(stored.metrics)
    for warning in metrics["warnings"]:
        app.say(f"warning:  {warning}")
    if subject.stored:
        print(f"reused:   {subject.output_dir}; --again computes it anew")
    if alone:
        print("", *evaluate_text.class_lines(scores), "", sep="\n")
    print(*evaluate_text.score_lines(metrics), sep="\n")
    if metrics["tta"] != "none":
        _report_gain(subject, stored)
    located = metrics["places"]
    if located:
        print(f"map: {located['examples']:,} of {scores.count:,} examples have coordinates ({located['source']})")
    else:
        print("map: none, these records hold no coordinates; --coordinates=FILE gives them")
    names = [evaluation_folder.METRICS_NAME, evaluation_folder.PREDICTIONS_NAME, *evaluation_folder.FIGURES]
    names += evaluation_folder.MAP_FILES if located else ()
    print(f"{subject.output_dir}: {', '.join(names)}" + ("" if alone else "\n"))


def _report_gain(subject: _Subject, stored: Stored) -> None:
    """Prints what averaging gained, where the model's own answers about the same examples are there."""
    name = evaluation_folder.variant(FLAGS.split, _model_name(), "none")
    folder = _output_dir(subject.folder, subject.card, subject.records, alone=False)
    prefix = folder.name.removesuffix(evaluation_folder.variant(FLAGS.split, _model_name(), FLAGS.tta))
    plain = evaluation_folder.find_evaluation(folder.parent / f"{prefix}{name}", _expected(subject, "none"))
    if plain is None:
        print(f"gain over the model's own answers: not known; evaluate it without --tta={FLAGS.tta} too")
        return
    print(f"gain over the model's own answers: {_difference(comparison.gain(plain.answers, stored.answers, ('', '')))}")


def _difference(one: Difference) -> str:
    return (
        f"{100 * one.difference:+.2f} percentage points (95 % interval {100 * one.low:+.2f} to {100 * one.high:+.2f}; "
        f"McNemar p = {one.p_value:.3g}, {one.only_first_correct} against {one.only_second_correct} examples)"
    )


def _compare(folders: list[pathlib.Path], stored: list[Stored]) -> None:
    """Compares the evaluated runs, and writes and prints what comes out."""
    output_dir = _comparison_dir()
    if FLAGS.dry_run:
        print(f"dry run: would compare {len(folders)} runs and write the comparison to {output_dir}")
        return
    names = evaluation_folder.short_names(folders)
    members = [
        EvaluatedRun(name, one.metrics, Scores.read(one.metrics), ExampleOutcomes.of(one.answers))
        for name, one in zip(names, stored, strict=True)
    ]
    found = comparison.compare(members)
    variant = evaluation_folder.variant(FLAGS.split, _model_name(), FLAGS.tta)
    datasets = ", ".join(dict.fromkeys(member.metrics["dataset"] for member in members))
    title = f"{len(members)} runs on {datasets}, {variant}"
    _write_comparison(comparison_report.Report(found, title), output_dir)


def _write_comparison(report: comparison_report.Report, output_dir: pathlib.Path) -> None:
    for warning in comparison_report.write(report, output_dir, overwrite=FLAGS.overwrite):
        app.say(f"warning: {warning}")
    scores, pairs, _ = report.tables()
    print(*comparison_report.table_lines(scores), "", sep="\n")
    print(*comparison_report.table_lines(pairs), "", sep="\n")
    for warning in report.found.warnings:
        app.say(f"warning: {warning}")
    count = len(pairs.rows)
    print(f"p (Holm) is corrected for {count} pair{'s' if count > 1 else ''}; a p from 0.05 on shows no difference")
    print(f"{output_dir}: {', '.join(comparison_report.NAMES)}")


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
