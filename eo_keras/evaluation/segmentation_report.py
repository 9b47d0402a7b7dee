"""One evaluation of a model of maps: asked, scored, and written as `metrics.json` and figures."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from eo_keras import models, tasks
from eo_keras.core import files
from eo_keras.data import pipeline as pipelines
from eo_keras.evaluation.evaluate import check_records
from eo_keras.evaluation.report import METRICS_NAME, output_folder
from eo_keras.evaluation.segmentation_evaluate import DenseTTA
from eo_keras.metrics import by_location as places
from eo_keras.metrics.scores import Scores
from eo_keras.plots import classification, segmentation
from eo_keras.records import data_card as cards
from eo_keras.runs import folder as runs
from eo_keras.tasks.predictor import Predictor
from eo_keras.tasks.task import Predicted

FIGURES = ("class_scores.png", "confusion_matrix.png", "maps.png")

NAMES = (METRICS_NAME, *FIGURES)

_SHOWN = 16

_Progress = Callable[[str, int, int], None] | None


@dataclasses.dataclass(frozen=True)
class DenseEvaluationOptions:
    """How a model of maps is asked.

    Attributes:
        split: split of the records.
        batch_size: tiles asked about at a time; does not change the scores.
        output_stride: 8 or 16; None is what the model was trained with.
        tta: versions of a tile whose answers are averaged.
        tolerance: how many pixels a boundary may be off.
        resamples: of the bootstrap over tiles behind the intervals.
    """

    split: str = "test"
    batch_size: int = 8
    output_stride: int | None = None
    tta: DenseTTA = DenseTTA()
    tolerance: float = 2.0
    resamples: int = 10_000

    @property
    def name(self) -> str:
        """What tells the evaluations of a run apart, such as `test-os8-flip`."""
        stride = "" if self.output_stride is None else f"-os{self.output_stride}"
        return self.split + stride + ("" if self.tta == DenseTTA() else f"-{self.tta.name}")


@dataclasses.dataclass(frozen=True)
class DenseEvaluation:
    """One evaluation of a run.

    Attributes:
        run: the run.
        card: the card of the records folder.
        options: how it was asked.
        predicted: its predictions.
        scores: the scores of that.
        places: by key, the ground that each tile shows; None where the records do not say.
    """

    run: runs.Run
    card: cards.DataCard
    options: DenseEvaluationOptions
    predicted: Predicted
    scores: Scores
    places: Mapping[str, str] | None = None

    @property
    def warnings(self) -> list[str]:
        """What a reader of the scores has to know."""
        if self.card.fingerprint != self.run.card.data_fingerprint:
            return ["these are not the records that the run was trained on: what is tested may have been trained on"]
        if self.options.split == "train":
            return ["these tiles were trained on: the scores say nothing about others"]
        if self.options.split == "val":
            return ["these tiles chose the epoch: the scores are a little too good"]
        return []


def evaluate_maps(
    run: runs.Run, records: pipelines.RecordDataset, options: DenseEvaluationOptions, *, progress: _Progress = None
) -> DenseEvaluation:
    """Asks a run's model about every tile of a split, and scores the answers.

    Args:
        run: the run.
        records: the records folder.
        options: how.
        progress: called with (stage, done, total) batches.

    Raises:
        RecordsError: if the records cannot be used, or do not fit the model.
        BandError: if they do not hold the model's bands.
        LegendError: if the classes differ, or a mask holds a number outside the legend.
        OptionError: if the output stride does not fit the model.
    """
    check_records(records.card, run.card, records.folder)
    model = run.model
    if options.output_stride is not None or options.tta != DenseTTA():
        # Another stride, and other sizes than the tiles' own.
        model = models.inference_model(model, None, options.output_stride)
    size = min(options.batch_size, records.count(options.split) or 1)
    settings = pipelines.PipelineOptions(batch_size=size, bands=run.card.bands, cache=False)
    dataset = pipelines.evaluation(records, settings, options.split, with_keys=True)
    names = records.card.legend.class_names
    predictor = Predictor(options.tta.answering(model), tasks.get("segmentation"), names, tolerance=options.tolerance)
    found = predictor(records, dataset, f"predicting {options.split}", progress, samples=_SHOWN)
    answers = found.predictions
    ground = _ground(records, options.split, list(answers.scorer.sums))
    scores = answers.scorer.scores(
        resamples=options.resamples, places=ground, negative_log_likelihood=answers.cross_entropy
    )
    return DenseEvaluation(run, records.card, options, found, scores, ground)


def _ground(records: pipelines.RecordDataset, split: str, keys: list[str]) -> dict[str, str] | None:
    found = places.read_places(records.folder, records.card, split, keys)
    card = records.card
    return None if found is None else places.grounds(found, keys, card.patch_size * card.resolution_m)


def write_maps_evaluation(
    evaluation: DenseEvaluation,
    folder: str | os.PathLike[str],
    *,
    model_sha256: str,
    model_name: str,
    overwrite: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Writes scores and figures into a folder, `metrics.json` last; an earlier evaluation in it is replaced.

    Args:
        evaluation: the evaluation.
        folder: where it goes.
        model_sha256: checksum of the model's file.
        model_name: which of the run's models was asked.
        overwrite: whether to write beside what somebody else has in the folder.

    Returns:
        What `metrics.json` holds, and lines for the user about what somebody else has in the folder.

    Raises:
        RunError: if the folder is somebody else's, or a file of somebody else's is in the way.
        StorageError: if the folder cannot be written.
    """
    run, card, options, scores = evaluation.run, evaluation.card, evaluation.options, evaluation.scores
    mean = scores["miou"]
    title = (
        f"{run.card.model} on {card.dataset}, {options.name}: mIoU {mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})"
    )
    pictures = (
        segmentation.class_scores_png(scores, card.legend, title),
        classification.confusion_matrix_png(scores.confusion, card.legend.class_names, title, "pixels"),
        segmentation.maps_png(evaluation.predicted.samples, card, run.card.bands, title),
    )
    content: dict[str, Any] = {
        "run": run.folder.resolve().name,
        "model": run.card.model,
        "model_file": model_name,
        "model_sha256": model_sha256,
        "bands": list(run.card.bands),
        "selection": dict(run.card.selection),
        "dataset": card.dataset,
        "data_fingerprint": card.fingerprint,
        "trained_on": run.card.data_fingerprint,
        "split": options.split,
        "split_method": dict(card.split_method),
        "output_stride": options.output_stride or run.card.flags["segmentation"]["output_stride"],
        "tta": options.tta.name,
        "warnings": evaluation.warnings,
        "tiles_per_second": round(evaluation.predicted.images_per_second, 2),
        "versions": runs.versions(),
        **scores.to_json(),
    }
    output = output_folder(folder)
    runs.list_folder(run.folder, folder)
    with output.held(overwrite=overwrite, writes=NAMES):
        output.remove([METRICS_NAME])
        output.write({**dict(zip(FIGURES, pictures, strict=True)), METRICS_NAME: files.json_bytes(content)})
        if overwrite:
            output.tell_foreign()
    return content, output.take_warnings()


def add_maps_to_card(evaluation: DenseEvaluation) -> list[str]:
    """Adds the scores of a split of the run's own records to the run's card.

    Returns:
        Lines for the user, see `runs.write_card`.

    Raises:
        StorageError: if the run folder cannot be written.
    """
    run, scores = evaluation.run, evaluation.scores
    if evaluation.card.fingerprint != run.card.data_fingerprint:
        return []
    summary = {
        "miou": scores["miou"].value,
        "miou_low": scores["miou"].low,
        "miou_high": scores["miou"].high,
        "accuracy": scores.value("accuracy"),
        "kappa": scores.value("kappa"),
        "images": scores.details["images"],
        "pixels": scores.count,
    }
    card = dataclasses.replace(run.card, scores={**run.card.scores, evaluation.options.name: summary})
    return runs.write_card(card, run.folder)
