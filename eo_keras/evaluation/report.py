"""The folder of one evaluation, `metrics.json`, `predictions.csv` and figures: written, and found again."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eo_keras.core import files
from eo_keras.core.output_folders import OutputFolder
from eo_keras.errors import OptionError, RunError
from eo_keras.metrics import by_location, calibration, selective
from eo_keras.metrics.predictions import PREDICTIONS_NAME, ClassPredictions, read_answers
from eo_keras.metrics.scores import ReliabilityBin
from eo_keras.plots import classification, confidence
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards

if TYPE_CHECKING:
    from eo_keras.evaluation.evaluate import Evaluation

METRICS_NAME = "metrics.json"
NOT_ASKED = "not asked for"
"""Reason of an evaluation without a temperature that could have had one."""

FIGURES = ("confusion_matrix.png", "reliability.png", "selective_accuracy.png", "mistakes.png")
MAP_FILES = ("accuracy_map.png", "accuracy_map.csv")
"""Only where the examples' places are known."""

KIND = "evaluation"
NAMES = (METRICS_NAME, PREDICTIONS_NAME, *FIGURES, *MAP_FILES)

_ENTRIES = ("scores", "calibration", "selective", "places", "tta", "warnings", "trained_on", "selection")
"""What those who read an evaluation again rely on; older ones lack some."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """An evaluation as its folder holds it.

    Attributes:
        folder: the folder.
        metrics: its `metrics.json`.
        answers: the answers, with keys.
        class_names: names of the classes in the legend's order.
    """

    folder: pathlib.Path
    metrics: Mapping[str, Any]
    answers: ClassPredictions
    class_names: tuple[str, ...]


def find_runs(words: Sequence[str]) -> list[pathlib.Path]:
    """Returns the run folders that are meant, each once, in the order given.

    Args:
        words: paths, several in one joined by commas, or patterns such as `runs/*`. Of what a pattern finds, folders
            that hold no run are left out.

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


def variant(split: str, model_name: str, symmetries: str) -> str:
    """Returns a name that tells a split's evaluations apart: `test`, `test-last`, `test-d4`, `test-last-d4`."""
    last = "-last" if model_name == runs.LAST_MODEL_NAME else ""
    return split + last + ("" if symmetries == "none" else f"-{symmetries}")


def output_folder(folder: str | os.PathLike[str]) -> OutputFolder:
    """Returns an evaluation's folder as what it is written through."""
    return OutputFolder(folder, KIND, RunError)


def write_evaluation(
    evaluation: Evaluation,
    folder: str | os.PathLike[str],
    *,
    model_name: str = runs.MODEL_NAME,
    overwrite: bool = False,
) -> list[str]:
    """Writes scores, predictions and figures into a folder; an earlier evaluation in it is replaced.

    `metrics.json` comes last and holds the checksum of the predictions, so that an evaluation that was cut off is not
    taken for a whole one.

    Args:
        evaluation: the evaluation.
        folder: where it goes.
        model_name: which of the run's models was asked.
        overwrite: whether to write beside what somebody else has in the folder.

    Returns:
        Lines for the user about what somebody else has there.

    Raises:
        RunError: if the folder is somebody else's, or a file of somebody else's is in the way.
        StorageError: if the folder cannot be written.
    """
    run, answers, scores = evaluation.run, evaluation.answers, evaluation.scores
    names = evaluation.card.legend.class_names
    symmetries = "" if evaluation.tta == "none" else f", averaged over {evaluation.tta}"
    bands = ",".join(run.card.bands) if len(run.card.bands) <= 4 else f"{len(run.card.bands)} bands"
    title = f"{run.card.model}, {bands}: {evaluation.card.dataset}, {evaluation.split}{symmetries}"
    calibrated = calibration.to_json(
        evaluation.calibration, answers.labels, answers.probabilities, evaluation.not_calibrated
    )
    taken, temperature = (), None
    if evaluation.calibration is not None:
        # What launch.predict and an export say too.
        taken, temperature = evaluation.calibration.calibrated_thresholds, evaluation.calibration.temperature
        answers = answers.with_probabilities(calibration.apply_temperature(answers.probabilities, temperature))
    curve = selective.risk_coverage(answers.confidences, answers.right)
    by_validation = selective.apply_thresholds(taken, answers.confidences, answers.right)
    predictions = answers.to_csv(names).encode("utf-8")
    mistakes = classification.mistakes_png(
        [
            classification.to_display(image, run.card.bands, run.card.dtype, stretched=run.card.reflectance is None)
            for image in evaluation.mistaken_images
        ],
        *answers.captions(evaluation.mistakes, names),
        title,
        total=int(np.count_nonzero(~answers.right)),
    )
    located, map_files = _map(evaluation, title)
    content = {
        "model": run.card.model,
        "model_file": model_name,
        "model_sha256": files.sha256_of_file(runs.model_path(run.folder, model_name)),
        "bands": list(run.card.bands),
        "initialisation": run.card.initialisation,
        "selection": dict(run.card.selection),
        "dataset": evaluation.card.dataset,
        "data_fingerprint": evaluation.card.fingerprint,
        "trained_on": run.card.data_fingerprint,
        "split": evaluation.split,
        "split_method": dict(evaluation.card.split_method),
        "tta": evaluation.tta,
        "warnings": evaluation.warnings,
        "images_per_second": round(evaluation.images_per_second, 1),
        "versions": runs.versions(),
        "predictions_temperature": temperature,
        "predictions_sha256": files.sha256_of_bytes(predictions),
        **scores.to_json(),
        "calibration": calibrated,
        "selective": {**curve.to_json(), "by_validation": by_validation},
        "places": located,
    }
    figures = {
        "confusion_matrix.png": classification.confusion_matrix_png(scores.confusion, names, title),
        "reliability.png": _reliability_png(evaluation, calibrated, title),
        "selective_accuracy.png": confidence.selective_accuracy_png(curve, title),
        "mistakes.png": mistakes,
    }
    output = output_folder(folder)
    runs.list_folder(run.folder, folder)
    with output.held(overwrite=overwrite, writes=NAMES):
        if not map_files:
            output.remove(MAP_FILES)
        output.write({PREDICTIONS_NAME: predictions, **figures, **map_files, METRICS_NAME: files.json_bytes(content)})
        if overwrite:
            output.tell_foreign()
    return output.take_warnings()


def _reliability_png(evaluation: Evaluation, calibrated: Mapping[str, Any], title: str) -> bytes:
    scores, ece = evaluation.scores, evaluation.scores.value("expected_calibration_error")
    if evaluation.calibration is None:
        return classification.reliability_png(scores.reliability, ece, title)
    bins = [ReliabilityBin(**part) for part in calibrated["reliability"]]
    after = calibrated["split"]["after"]["expected_calibration_error"]
    note = f"{100 * after:.2f} % at temperature {evaluation.calibration.temperature:.3f}, fitted on validation"
    return classification.reliability_png(scores.reliability, ece, title, bins, note)


def _map(evaluation: Evaluation, title: str) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """Returns what `metrics.json` says of places, and map and table where places are known."""
    found = evaluation.places
    if found is None or not found.known.any():
        return None, {}
    right = evaluation.answers.right
    grid = by_location.by_cell(found.degrees, right)
    picture = confidence.accuracy_map_png(found.degrees, right, grid, title)
    content = {"source": found.source, "examples": int(found.known.sum()), "cell_degrees": grid.degrees}
    return content, {MAP_FILES[0]: picture, MAP_FILES[1]: grid.to_csv().encode("utf-8")}


def read_evaluation(folder: str | os.PathLike[str]) -> Stored:
    """Reads an evaluation's folder.

    Raises:
        RunError: if it is missing, damaged, or from before probabilities were kept.
    """
    folder = pathlib.Path(folder)
    path = folder / METRICS_NAME
    remedy = "evaluate the run again with `again`"
    try:
        metrics = json.loads(files.read_bytes(path))
        checksum = metrics["predictions_sha256"]
        if absent := [name for name in _ENTRIES if name not in metrics]:
            raise ValueError(f"it lacks {', '.join(absent)}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"it cannot be read ({type(error).__name__}: {error})"
        raise RunError(path, problem, "the scores of an evaluation by launch.evaluate", remedy) from None
    answers, class_names = read_answers(folder / PREDICTIONS_NAME)
    if files.sha256_of_file(folder / PREDICTIONS_NAME) != checksum:
        problem = f"it is not the file that {METRICS_NAME} was made with"
        raise RunError(folder / PREDICTIONS_NAME, problem, f"SHA-256 {checksum}", remedy)
    return Stored(folder, metrics, answers, class_names)


def find_evaluation(folder: str | os.PathLike[str], expected: Mapping[str, Any]) -> Stored | None:
    """Returns the evaluation in a folder if it is whole and is the expected one, else None.

    Args:
        folder: the folder.
        expected: entries of `metrics.json` that tell which evaluation is meant, such as `model_sha256`.
    """
    try:
        stored = read_evaluation(folder)
    except RunError:
        return None
    wanted = FIGURES + (MAP_FILES if stored.metrics.get("places") else ())
    if not all((stored.folder / name).is_file() for name in wanted):
        return None
    return stored if all(stored.metrics.get(name) == value for name, value in expected.items()) else None
