"""A model's answers about the examples of a split, their scores, and the folder that shows them."""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from eo_keras import cards, files, legends, metrics, pipelines, reports, runs
from eo_keras.errors import RecordsError
from eo_keras.pipelines import Records, reading

METRICS_NAME = "metrics.json"
PREDICTIONS_NAME = "predictions.csv"
_MISTAKES = 40

_Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a model answers about N examples, in their stored order.

    Attributes:
        labels: int64 (N,), the true labels.
        probabilities: float (N, C), the model's answers.
        keys: N keys of the examples; empty where the pipeline was made without.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    keys: tuple[str, ...] = ()

    @property
    def predictions(self) -> np.ndarray:
        """int64 (N,): the most probable class, the first one of equals."""
        return self.probabilities.argmax(axis=1)

    def captions(
        self, places: Sequence[int], class_names: Sequence[str]
    ) -> tuple[list[str], list[str], np.ndarray, list[str]]:
        """Returns true names, predicted names, top probabilities and keys of some examples, as `reports` draws them."""
        predictions = self.predictions
        return (
            [class_names[self.labels[place]] for place in places],
            [class_names[predictions[place]] for place in places],
            self.probabilities[places].max(axis=1),
            [self.keys[place] for place in places],
        )

    def cross_entropy(self) -> float:
        """Returns the mean negative logarithm of the true class's probability, in nats."""
        true = self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())

    def accuracy(self) -> float:
        """Returns the share of right predictions."""
        return float((self.predictions == self.labels).mean())


class Answerer:
    """Asks a model about the examples of a pipeline, on all devices of a strategy.

    Args:
        model: from digital numbers to probabilities, made in the strategy's scope.
        strategy: the strategy, or None for one device.
    """

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy | None = None):
        self._strategy = strategy or tf.distribute.get_strategy()
        self._answer = tf.function(lambda image: self._strategy.run(lambda part: model(part, training=False), (image,)))

    def __call__(self, records: Records, dataset: Any, stage: str = "", progress: _Progress | None = None) -> Answers:
        """Asks about every example of weight above 0.

        Args:
            records: the records folder that the pipeline reads.
            dataset: what `eo_keras.pipelines.evaluation` returns, with or without keys.
            stage: what progress is to be called with.
            progress: called with (stage, done, total) batches.

        Raises:
            RecordsError: if a record is damaged.
        """
        total = int(dataset.cardinality())
        labels, probabilities, keys = [], [], []
        for number, batch in enumerate(reading(records, self._strategy.experimental_distribute_dataset(dataset)), 1):
            image, label, weight, *key = batch
            counts = self._gathered(weight) > 0
            labels.append(self._gathered(label)[counts])
            probabilities.append(self._gathered(self._answer(image))[counts])
            keys += [one.decode() for values in key for one in self._gathered(values)[counts]]
            if progress:
                progress(stage, number, total)
        return Answers(np.concatenate(labels).astype(np.int64), np.concatenate(probabilities), tuple(keys))

    def _gathered(self, values: Any) -> np.ndarray:
        # A batch is divided in order: the first device holds its first examples.
        return np.concatenate([part.numpy() for part in self._strategy.experimental_local_results(values)])


def first_images(dataset: Any, count: int) -> list[np.ndarray]:
    """Returns the images of a pipeline's first examples, as many as there are, `count` at the most."""
    images: list[np.ndarray] = []
    for image, _, weight, *_ in dataset:
        images += list(image.numpy()[weight.numpy() > 0])
        if len(images) >= count:
            break
    return images[:count]


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
    """

    run: runs.Run
    split: str
    card: cards.DataCard
    answers: Answers
    scores: metrics.ClassificationScores
    images_per_second: float
    mistakes: np.ndarray
    mistaken_images: list[np.ndarray]

    @property
    def warnings(self) -> list[str]:
        """What a reader of the scores has to know."""
        if self.card.fingerprint != self.run.card.data_fingerprint:
            return ["these are not the records that the run was trained on: what is tested may have been trained on"]
        if self.split == "train":
            return ["these examples were trained on: the scores say nothing about others"]
        return []


def check_records(card: cards.DataCard, model: cards.ModelCard, where: pathlib.Path) -> None:
    """Refuses records that a model cannot be asked about.

    Raises:
        LegendError: if the classes differ.
        BandError: if bands are missing (by `Records.bands`, later).
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
    run: runs.Run, records: Records, split: str = "test", *, batch_size: int = 256, progress: _Progress | None = None
) -> Evaluation:
    """Asks a run's model about every example of a split, and scores the answers.

    Raises:
        RecordsError: if the records cannot be used, or do not fit the model.
        BandError: if they do not hold the model's bands.
        LegendError: if the classes differ.
    """
    check_records(records.card, run.card, records.folder)
    options = pipelines.PipelineOptions(batch_size=min(batch_size, records.split(split).examples), bands=run.card.bands)
    dataset = pipelines.evaluation(records, options, split, with_keys=True)
    started = time.monotonic()
    answers = Answerer(run.model)(records, dataset, f"asking about {split}", progress)
    seconds = time.monotonic() - started
    wrong = np.flatnonzero(answers.predictions != answers.labels)
    surest = wrong[np.argsort(-answers.probabilities[wrong].max(axis=1), kind="stable")][:_MISTAKES]
    return Evaluation(
        run=run,
        split=split,
        card=records.card,
        answers=answers,
        scores=metrics.score_classification(answers.labels, answers.probabilities, records.card.legend.class_names),
        images_per_second=len(answers.labels) / seconds,
        mistakes=surest,
        mistaken_images=_images_of(dataset, [answers.keys[number] for number in surest]),
    )


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


def write_evaluation(evaluation: Evaluation, folder: str | pathlib.Path, *, model_name: str = runs.MODEL_NAME) -> None:
    """Writes scores, predictions and figures into a folder; an earlier evaluation in it is replaced.

    Raises:
        StorageError: if the folder cannot be written.
    """
    folder = files.make_folder(folder)
    run, answers, scores = evaluation.run, evaluation.answers, evaluation.scores
    names = evaluation.card.legend.class_names
    title = f"{run.card.model}, {','.join(run.card.bands)}: {evaluation.card.dataset}, {evaluation.split}"
    files.write_json(
        folder / METRICS_NAME,
        {
            "model": run.card.model,
            "model_file": model_name,
            "model_sha256": files.sha256_of_file(run.folder / model_name),
            "bands": list(run.card.bands),
            "initialisation": run.card.initialisation,
            "selection": dict(run.card.selection),
            "dataset": evaluation.card.dataset,
            "data_fingerprint": evaluation.card.fingerprint,
            "trained_on": run.card.data_fingerprint,
            "split": evaluation.split,
            "split_method": dict(evaluation.card.split_method),
            "warnings": evaluation.warnings,
            "images_per_second": round(evaluation.images_per_second, 1),
            "versions": runs.versions(),
            "scores": scores.to_json(),
        },
    )
    files.write_text(folder / PREDICTIONS_NAME, _predictions_csv(answers, names))
    files.write_bytes(folder / "confusion_matrix.png", reports.confusion_matrix_png(scores.confusion, names, title))
    reliability = reports.reliability_png(scores.reliability, scores.expected_calibration_error, title)
    files.write_bytes(folder / "reliability.png", reliability)
    mistakes = reports.mistakes_png(
        [reports.to_display(image, run.card.bands, run.card.dtype) for image in evaluation.mistaken_images],
        *answers.captions(evaluation.mistakes, names),
        title,
        total=int(np.count_nonzero(answers.predictions != answers.labels)),
    )
    files.write_bytes(folder / "mistakes.png", mistakes)


def add_to_card(evaluation: Evaluation) -> None:
    """Adds the scores of a split of the run's own records to the run's card; other records say nothing about the run.

    Raises:
        StorageError: if the run folder cannot be written.
    """
    run, scores = evaluation.run, evaluation.scores
    if evaluation.card.fingerprint != run.card.data_fingerprint:
        return
    summary = {
        "accuracy": scores.accuracy,
        "accuracy_low": scores.accuracy_low,
        "accuracy_high": scores.accuracy_high,
        "macro_f1": scores.macro_f1,
        "kappa": scores.kappa,
        "expected_calibration_error": scores.expected_calibration_error,
        "count": scores.count,
    }
    card = dataclasses.replace(run.card, scores={**run.card.scores, evaluation.split: summary})
    cards.write_card(card, run.folder)


def _predictions_csv(answers: Answers, names: tuple[str, ...]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", "true", "predicted", "probability"])
    for key, label, row in zip(answers.keys, answers.labels, answers.probabilities, strict=True):
        writer.writerow([key, names[label], names[row.argmax()], f"{row.max():.6f}"])
    return text.getvalue()
