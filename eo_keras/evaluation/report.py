"""Folder of one evaluation, written and read: `metrics.json`, `predictions.csv` and figures."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eo_keras import tasks
from eo_keras.core import files
from eo_keras.core.output_folders import OutputFolder
from eo_keras.errors import OptionError, RunError
from eo_keras.evaluation.options import EvaluationOptions
from eo_keras.metrics import by_location, selective
from eo_keras.metrics.comparison import EvaluatedRun
from eo_keras.metrics.estimate import RESAMPLES
from eo_keras.metrics.predictions import PREDICTIONS_NAME
from eo_keras.metrics.scores import ReliabilityBin, Scores
from eo_keras.plots import classification, confidence
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.runs.model_card import ModelCard
from eo_keras.tasks.task import Task

if TYPE_CHECKING:
    from eo_keras.evaluation.evaluate import Evaluation

METRICS_NAME = "metrics.json"
EARLIER_PREDICTIONS_NAME = "answers.csv"
"""Name of the predictions in folders of earlier versions."""

NOT_WANTED = "not wanted"
"""Reason in `metrics.json` where no temperature was fitted by choice."""
_EARLIER_NOT_WANTED = "not asked for"

CONFIDENCE_FIGURES = ("reliability.png", "selective_accuracy.png")
PLACE_FILES = ("accuracy_map.png", "accuracy_map.csv")
"""Files that are written only where the examples' locations are known."""

KIND = "evaluation"

_ENTRIES = ("scores", "calibration", "selective", "tta", "warnings", "trained_on", "selection")
"""Entries of `metrics.json` that are read again; older files lack some."""


def file_names(task: Task) -> tuple[str, ...]:
    """Returns the names of the files that an evaluation always has."""
    return (METRICS_NAME, PREDICTIONS_NAME, *CONFIDENCE_FIGURES, *task.figure_names)


def names(task: Task) -> tuple[str, ...]:
    """Returns the names of all files that an evaluation may write."""
    return (*file_names(task), *PLACE_FILES)


@dataclasses.dataclass(frozen=True)
class StoredEvaluation:
    """Evaluation as stored in its folder.

    Attributes:
        folder: the folder.
        metrics: its `metrics.json`.
        scores: the scores in it.
        predictions: the predictions, with keys.
    """

    folder: pathlib.Path
    metrics: Mapping[str, Any]
    scores: Scores
    predictions: Any

    @property
    def resamples(self) -> int:
        """Number of resamples of the bootstrap that gave intervals."""
        return self.scores.details.get("resamples", RESAMPLES)

    def as_run(self, name: str) -> EvaluatedRun:
        """Returns the evaluation as a run of a comparison, under a name."""
        outcomes = tasks.get(self.scores.task).outcomes(self.predictions, self.resamples)
        return EvaluatedRun(name, self.metrics, self.scores, outcomes)


def find_runs(words: Sequence[str]) -> list[pathlib.Path]:
    """Returns the run folders that match paths and patterns, each once, in the order given.

    Args:
        words: paths, several in one joined by commas, or patterns such as `runs/*`. Folders that match a pattern and
            hold no run are left out.

    Raises:
        OptionError: if a pattern finds no run.
    """
    found: dict[pathlib.Path, pathlib.Path] = {}
    for word in words:
        for name in [word] if os.path.isdir(word) else filter(None, word.split(",")):
            matches = [pathlib.Path(name)]
            # A folder may have a name that reads as a pattern.
            if not os.path.isdir(name) and glob.has_magic(name):
                matches = [pathlib.Path(one) for one in sorted(glob.glob(name))]
                matches = [one for one in matches if (one / model_cards.MODEL_CARD_NAME).is_file()]
                if not matches:
                    raise OptionError(
                        "run_dir", f"'{name}' finds no run", "folders made by launch.train", "check the pattern"
                    )
            for match in matches:
                found.setdefault(match.resolve(), match)
    if not found:
        raise OptionError("run_dir", "no folder is named", "one or more folders made by launch.train")
    return list(found.values())


def short_names(folders: Sequence[pathlib.Path]) -> list[str]:
    """Returns the folders' names, or their paths where two have the same name."""
    names = [folder.resolve().name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]


def folder_name(options: EvaluationOptions, model: ModelCard, records: Any) -> str:
    """Returns the name of an evaluation's folder in the run folder; other records than the run's own begin it.

    Args:
        options: options of the evaluation.
        model: the run's card.
        records: the card of the records folder.
    """
    other = records.fingerprint != model.data_fingerprint
    return f"{records.dataset}-{records.fingerprint[:8]}-{options.name}" if other else options.name


def output_folder(folder: str | os.PathLike[str]) -> OutputFolder:
    """Returns the `OutputFolder` of an evaluation."""
    return OutputFolder(folder, KIND, RunError)


def write_evaluation(evaluation: Evaluation, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[str]:
    """Writes scores, predictions and figures into a folder; an earlier evaluation in it is replaced.

    `metrics.json` comes last and holds the checksum of the predictions, so that an evaluation that was cut off is not
    taken for a whole one.

    Args:
        evaluation: the evaluation.
        folder: the evaluation's folder.
        overwrite: whether to write beside foreign files in the folder.

    Returns:
        Warnings for the user about foreign files.

    Raises:
        RunError: if the folder belongs to something else, or a foreign file has the name of a new one.
        StorageError: if the folder cannot be written.
    """
    run, card, options, scores = evaluation.run, evaluation.card, evaluation.options, evaluation.scores
    task, fitted = tasks.of(run.card), evaluation.calibration
    title = _title(evaluation)
    predictions = evaluation.predictions
    if fitted is not None:
        # As launch.predict and an export give them.
        predictions = task.calibrated(predictions, fitted.temperature)
    table = task.to_csv(predictions, card.legend.class_names).encode("utf-8")
    located, place_files = _by_place(evaluation, title)
    content = {
        "run": run.folder.resolve().name,
        "model": run.card.model,
        "model_file": options.model_name,
        "model_sha256": files.sha256_of_file(runs.model_path(run.folder, options.model_name)),
        "bands": list(run.card.bands),
        **({"inputs": {one.name: list(one.bands) for one in run.card.taken}} if run.card.inputs else {}),
        "initialisation": run.card.initialisation,
        "selection": dict(run.card.selection),
        "dataset": card.dataset,
        "data_fingerprint": card.fingerprint,
        "trained_on": run.card.data_fingerprint,
        "split": options.split,
        "split_method": dict(card.split_method),
        "tta": options.tta_name,
        **({"without": list(options.without)} if options.without else {}),
        **task.evaluated_as(options, run.card),
        "warnings": evaluation.warnings,
        "images_per_second": round(evaluation.images_per_second, 2),
        "versions": runs.versions(),
        "predictions_temperature": fitted and fitted.temperature,
        "predictions_sha256": files.sha256_of_bytes(table),
        **dataclasses.replace(scores, sections={**scores.sections, "places": located}).to_json(),
    }
    figures = task.report_figures(predictions, scores, evaluation.samples, card, run.card.shown_bands, title)
    figures |= {
        "reliability.png": _reliability_png(evaluation, title),
        "selective_accuracy.png": _selective_png(evaluation, title),
    }
    output = output_folder(folder)
    runs.list_folder(run.folder, folder)
    with output.held(overwrite=overwrite, writes=names(task)):
        output.remove([METRICS_NAME, EARLIER_PREDICTIONS_NAME, *({*PLACE_FILES} - place_files.keys())])
        output.write({PREDICTIONS_NAME: table, **figures, **place_files, METRICS_NAME: files.json_bytes(content)})
        if overwrite:
            output.tell_foreign()
    return output.take_warnings()


def _title(evaluation: Evaluation) -> str:
    run, options, scores = evaluation.run, evaluation.options, evaluation.scores
    bands = run.card.title_of_bands
    if run.card.inputs:
        bands = ",".join(one.name for one in run.card.inputs)
    elif len(run.card.bands) > 4:
        bands = f"{len(run.card.bands)} bands"
    metric, estimate = tasks.of(run.card).monitor, scores[scores.primary]
    found = f"{metric.text(estimate.value)} ({metric.show_interval(estimate.ends)})"
    return f"{run.card.model}, {bands}: {evaluation.card.dataset}, {options.name}: {found}"


def _reliability_png(evaluation: Evaluation, title: str) -> bytes:
    scores = evaluation.scores
    error = scores.value("expected_calibration_error")
    if evaluation.calibration is None:
        return classification.reliability_png(scores.reliability, error, title)
    calibrated = scores.sections["calibration"]
    bins = [ReliabilityBin(**one) for one in calibrated["reliability"]]
    after = calibrated["split"]["after"]["expected_calibration_error"]
    note = f"{100 * after:.2f} % at temperature {evaluation.calibration.temperature:.3f}, fitted on validation"
    return classification.reliability_png(scores.reliability, error, title, bins, note)


def _selective_png(evaluation: Evaluation, title: str) -> bytes:
    found = tasks.of(evaluation.run.card).probabilities(evaluation.predictions)
    if evaluation.calibration is not None:
        found = found.calibrated(evaluation.calibration.temperature)
    return confidence.selective_accuracy_png(selective.risk_coverage(found.confidences, found.correct), title)


def _by_place(evaluation: Evaluation, title: str) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """Returns the section `places` of `metrics.json`, and map and table of the accuracy where locations are known."""
    found, correct = evaluation.places, tasks.of(evaluation.run.card).correct(evaluation.predictions)
    if correct is None or found is None or not found.known.any():
        return None, {}
    grid = by_location.accuracy_by_cell(found.degrees, correct)
    picture = confidence.accuracy_map_png(found.degrees, correct, grid, title)
    content = {"source": found.source, "examples": int(found.known.sum()), "cell_degrees": grid.degrees}
    return content, {PLACE_FILES[0]: picture, PLACE_FILES[1]: grid.to_csv().encode("utf-8")}


def read_evaluation(folder: str | os.PathLike[str]) -> StoredEvaluation:
    """Reads an evaluation's folder, of this version or of an earlier one.

    Raises:
        RunError: if it is missing, damaged, or from before predictions were kept.
    """
    folder = pathlib.Path(folder)
    path = folder / METRICS_NAME
    remedy = "evaluate the run again with `force`"
    try:
        metrics = json.loads(files.read_bytes(path))
        checksum = metrics["predictions_sha256"]
        if absent := [name for name in _ENTRIES if name not in metrics]:
            raise ValueError(f"it lacks {', '.join(absent)}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"it cannot be read ({type(error).__name__}: {error})"
        raise RunError(path, problem, "the scores of an evaluation by launch.evaluate", remedy) from None
    scores = Scores.read(metrics, str(path))
    table = folder / PREDICTIONS_NAME
    if not table.is_file() and (folder / EARLIER_PREDICTIONS_NAME).is_file():
        table = folder / EARLIER_PREDICTIONS_NAME
    predictions = tasks.get(scores.task).read_csv(table, scores)
    if files.sha256_of_file(table) != checksum:
        problem = f"it is not the file that {METRICS_NAME} was made with"
        raise RunError(table, problem, f"SHA-256 {checksum}", remedy)
    return StoredEvaluation(folder, metrics, scores, predictions)


def find_evaluation(folder: str | os.PathLike[str], expected: Mapping[str, Any]) -> StoredEvaluation | None:
    """Returns the evaluation in a folder if it is complete and the expected one, else None.

    Args:
        folder: the folder.
        expected: entries of `metrics.json` that distinguish the evaluation, see `evaluate.identity`.
    """
    try:
        stored = read_evaluation(folder)
    except RunError:
        return None
    wanted = CONFIDENCE_FIGURES + tasks.get(stored.scores.task).figure_names
    wanted += PLACE_FILES if stored.metrics.get("places") else ()
    if not all((stored.folder / name).is_file() for name in wanted):
        return None
    return stored if all(stored.metrics.get(name) == value for name, value in expected.items()) else None


def suffices(stored: StoredEvaluation, options: EvaluationOptions) -> bool:
    """Returns whether a stored evaluation has the temperature, the map and the intervals that are needed."""
    metrics = stored.metrics
    if "predictions_temperature" not in metrics or ("schema" not in metrics and "interval" not in metrics["scores"]):
        return False  # It was made by an earlier version, with other intervals and confidences.
    if stored.resamples != options.resamples:
        return False
    found = metrics["calibration"]
    if found["temperature"] is None:
        left_out = found["reason"] in (NOT_WANTED, _EARLIER_NOT_WANTED)
        if options.calibrate or (options.calibrate is None and left_out):
            return False
    located = metrics["places"]
    return not options.coordinates or bool(located and located["source"] == pathlib.Path(options.coordinates).name)
