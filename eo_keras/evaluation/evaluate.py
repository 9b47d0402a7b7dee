"""A run asked about the examples of a split: its answers, their scores, and the temperature that calibrates them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from eo_keras import tasks
from eo_keras.data import holdouts
from eo_keras.data import pipeline as pipelines
from eo_keras.data.pipeline import RecordDataset
from eo_keras.data.subsets import Holdout, holdout
from eo_keras.errors import RecordsError, RunError
from eo_keras.evaluation import tta
from eo_keras.legends import catalogue as legends
from eo_keras.metrics import classification as metrics
from eo_keras.metrics.by_location import Places
from eo_keras.metrics.calibration import Calibration, calibrate
from eo_keras.metrics.predictions import ClassPredictions
from eo_keras.metrics.scores import Scores
from eo_keras.records import data_card as cards
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.tasks.predictor import Predictor

_MISTAKES = 40

_Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run.

    Attributes:
        run: the run.
        split: name of the split.
        card: the card of the records folder.
        answers: what the model answered, with keys.
        scores: the scores of that.
        images_per_second: how fast it answered.
        mistakes: numbers of the most confident wrong answers, the surest first.
        mistaken_images: their images (height, width, band), stored numbers.
        tta: which average over symmetries answered, see `eo_keras.evaluation.tta`.
        calibration: the run's temperature, fitted on its validation examples, or None.
        not_calibrated: why there is none.
        places: where the examples lie, or None.
    """

    run: runs.Run
    split: str
    card: cards.DataCard
    answers: ClassPredictions
    scores: Scores
    images_per_second: float
    mistakes: np.ndarray
    mistaken_images: list[np.ndarray]
    tta: str = tta.NONE
    calibration: Calibration | None = None
    not_calibrated: str = ""
    places: Places | None = None

    @property
    def warnings(self) -> list[str]:
        """What a reader of the scores has to know."""
        if self.card.fingerprint != self.run.card.data_fingerprint:
            return ["these are not the records that the run was trained on: what is tested may have been trained on"]
        if self.split == "train":
            return ["these examples were trained on: the scores say nothing about others"]
        if self.split == "val":
            return ["these examples chose the epoch and fit the temperature: the scores are a little too good"]
        return []


def check_records(card: cards.DataCard, model: model_cards.ModelCard, where: pathlib.Path) -> None:
    """Refuses records that a model cannot be asked about.

    Raises:
        LegendError: if the classes differ.
        BandError: if bands are missing (by `RecordDataset.bands`, later).
        RecordsError: if the numbers mean something else: their type, level, scale or size.
    """
    legends.check_same_classes(card.legend, model.legend, str(where))
    for name in ("dtype", "level", "reflectance", "nodata", "patch_size"):
        found, expected = getattr(card, name), getattr(model, name)
        if found != expected:
            raise RecordsError(
                where, f"{name} is {found}", f"{expected}, as the model was trained with", "use records of that kind"
            )


def evaluate(
    run: runs.Run,
    records: RecordDataset,
    split: str = "test",
    *,
    batch_size: int = 256,
    symmetries: str = tta.NONE,
    progress: _Progress | None = None,
) -> Evaluation:
    """Asks a run's model about every example of a split, and scores the answers.

    Args:
        run: the run.
        records: the records folder.
        split: which split of it.
        batch_size: examples asked about at a time.
        symmetries: which average over symmetries answers, see `eo_keras.evaluation.tta`.
        progress: called with (stage, done, total) batches.

    Raises:
        RecordsError: if the records cannot be used, or do not fit the model.
        BandError: if they do not hold the model's bands.
        LegendError: if the classes differ.
    """
    check_records(records.card, run.card, records.folder)
    dataset = _dataset(run, records, split, None, batch_size)
    found = _predictor(run, symmetries)(records, dataset, f"predicting {split}", progress)
    answers = found.predictions
    wrong = np.flatnonzero(~answers.right)
    surest = wrong[np.argsort(-answers.confidences[wrong], kind="stable")][:_MISTAKES]
    return Evaluation(
        run=run,
        split=split,
        card=records.card,
        answers=answers,
        scores=metrics.score_classification(answers.labels, answers.probabilities, records.card.legend.class_names),
        images_per_second=found.images_per_second,
        mistakes=surest,
        mistaken_images=_images_of(dataset, [answers.keys[number] for number in surest]),
        tta=symmetries,
    )


def validation_part(run: runs.Run, records: RecordDataset) -> tuple[str, Holdout | None]:
    """Returns the examples that validated a run's training: a split, and the part of it, None for the whole.

    Args:
        run: the run.
        records: the records that it was trained on.

    Raises:
        RunError: if the run had no validation examples.
        RecordsError: if these are other records.
    """
    chosen = run.card.selection.get("split")
    if not chosen:
        raise RunError(
            run.folder,
            "the run had no validation examples",
            "some, which neither trained nor tested the model",
            "train with `validation_from_train`, or build records with `val_fraction`",
        )
    if records.card.fingerprint != run.card.data_fingerprint:
        raise RecordsError(
            records.folder,
            f"these records have the fingerprint {records.card.fingerprint[:12]}",
            f"{run.card.data_fingerprint[:12]}, those that {run.folder} was trained on",
            "put the run's own records back where they were",
        )
    # As training chose them: a split of their own goes before a part of the training split.
    if "val" in records.card.splits and records.card.splits["val"].examples:
        return "val", None
    fraction, seed = run.card.flags["validation_from_train"], run.card.flags["seed"]
    if chosen.endswith(holdouts.BY_KEY):
        return "train", holdout(fraction, seed)[1]
    return "train", holdouts.hold_out(records, fraction, seed).held_out


def fit_calibration(
    run: runs.Run,
    records: RecordDataset,
    *,
    batch_size: int = 256,
    symmetries: str = tta.NONE,
    model_sha256: str = "",
    progress: _Progress | None = None,
) -> Calibration:
    """Fits the temperature of a run's model on the run's validation examples, never on those of a test.

    Args:
        run: the run.
        records: the records that it was trained on.
        batch_size: examples asked about at a time.
        symmetries: which average over symmetries answers, see `eo_keras.evaluation.tta`.
        model_sha256: checksum of the model's file, kept with the temperature.
        progress: called with (stage, done, total) batches.

    Raises:
        RunError: if the run had no validation examples.
        RecordsError: if the records are others than the run's, or cannot be used.
    """
    split, part = validation_part(run, records)
    dataset = _dataset(run, records, split, part, batch_size)
    answers = _predictor(run, symmetries)(records, dataset, "predicting validation", progress).predictions
    return calibrate(
        answers.labels,
        answers.probabilities,
        run.card.selection["split"],
        model_sha256=model_sha256,
        tta=symmetries,
        data_fingerprint=records.card.fingerprint,
    )


def _predictor(run: runs.Run, symmetries: str) -> Predictor:
    return Predictor(tta.answering(run.model, symmetries), tasks.get("classification"), run.card.legend.class_names)


def _dataset(run: runs.Run, records: RecordDataset, split: str, part: Holdout | None, batch_size: int) -> Any:
    size = min(batch_size, records.count(split, part) or 1)
    options = pipelines.PipelineOptions(batch_size=size, bands=run.card.bands)
    return pipelines.evaluation(records, options, split, part=part, with_keys=True)


def _images_of(dataset: Any, keys: Iterable[str]) -> list[np.ndarray]:
    """Reads the images of some keys in a second pass: all images of a split would not fit into the memory."""
    keys = list(keys)
    wanted, found = {key.encode() for key in keys}, {}
    if not wanted:
        return []
    for image, _, _, key in dataset:
        for place, name in enumerate(key.numpy()):
            if name in wanted:
                found[name.decode()] = image[place].numpy()
        if len(found) == len(wanted):
            break
    return [found[key] for key in keys]


def add_to_card(evaluation: Evaluation) -> list[str]:
    """Adds temperature and scores to the run's card; scores of other records say nothing about the run, and stay out.

    Returns:
        Lines for the user, see `runs.write_card`.

    Raises:
        StorageError: if the run folder cannot be written.
    """
    run, scores = evaluation.run, evaluation.scores
    card = run.card
    if evaluation.calibration is not None and evaluation.tta == tta.NONE:
        card = dataclasses.replace(card, temperature=evaluation.calibration.summary())
    if evaluation.card.fingerprint != card.data_fingerprint:
        return runs.write_card(card, run.folder) if card != run.card else []
    summary = {
        "accuracy": scores["accuracy"].value,
        "accuracy_low": scores["accuracy"].low,
        "accuracy_high": scores["accuracy"].high,
        "macro_f1": scores.value("macro_f1"),
        "kappa": scores.value("kappa"),
        "expected_calibration_error": scores.value("expected_calibration_error"),
        "count": scores.count,
    }
    # Averaged answers are an entry of their own: they must never pass for those of the model by itself.
    name = evaluation.split if evaluation.tta == tta.NONE else f"{evaluation.split}-{evaluation.tta}"
    card = dataclasses.replace(card, scores={**card.scores, name: summary})
    return runs.write_card(card, run.folder)
