"""Evaluation of a run on a split of records: predictions, their scores, and the temperature that calibrates them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from eo_keras import tasks
from eo_keras.data import holdouts
from eo_keras.data import pipeline as pipelines
from eo_keras.data.parse import by_name, unwrapped
from eo_keras.data.pipeline import RecordDataset
from eo_keras.data.subsets import Holdout, holdout
from eo_keras.errors import OptionError, RecordsError, RunError
from eo_keras.evaluation import tta
from eo_keras.evaluation.options import OWN, EvaluationOptions
from eo_keras.legends import catalogue as legends
from eo_keras.metrics import calibration, selective
from eo_keras.metrics.by_location import Locations, read_locations
from eo_keras.metrics.calibration import Calibration
from eo_keras.metrics.predictions import PredictedSample
from eo_keras.metrics.scores import Scores
from eo_keras.records import data_card as cards
from eo_keras.records.inputs import InputBands
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.runs.stand_in import read_stand_in
from eo_keras.tasks.predictor import Predictor
from eo_keras.tasks.task import Task

_Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run.

    Attributes:
        run: the run.
        card: the card of the records folder.
        options: options of the evaluation.
        predictions: the model's predictions, not calibrated.
        scores: their scores, with the sections of metrics.json.
        samples: examples that the figures show.
        images_per_second: speed of prediction.
        calibration: the run's temperature, fitted on its validation examples, or None.
        places: locations of the examples, or None.
    """

    run: runs.Run
    card: cards.DataCard
    options: EvaluationOptions
    predictions: Any
    scores: Scores
    samples: tuple[PredictedSample, ...]
    images_per_second: float
    calibration: Calibration | None = None
    places: Locations | None = None

    @property
    def warnings(self) -> list[str]:
        """Warnings about the scores."""
        if self.card.fingerprint != self.run.card.data_fingerprint:
            return ["these are not the records that the run was trained on: what is tested may have been trained on"]
        if self.options.split == "train":
            return ["these examples were trained on: the scores do not apply to others"]
        if self.options.split == "val":
            return ["these examples chose the epoch and fit the temperature: the scores are a little too good"]
        return []


def check_records(card: cards.DataCard, model: model_cards.ModelCard, where: pathlib.Path) -> None:
    """Checks that a model can predict the records.

    Raises:
        LegendError: if the classes differ.
        BandError: if bands are missing (by `RecordDataset.bands`, later).
        RecordsError: if the numbers mean something else: their type, level, scale or size; or if the task differs.
    """
    legends.check_same_classes(card.legend, model.legend, str(where))
    modalities = card.modalities
    compared = [("", card, model, ("task", "nodata"))]
    for one in model.inputs or (model,):
        # A model of records of one modality takes the first one.
        modality = one.modality if model.inputs else card.modality
        if modality not in modalities:
            raise RecordsError(
                where,
                f"they have no modality '{modality}', but {', '.join(modalities)}",
                "those that the model was trained with",
                "use records of that kind, or a model of fewer modalities",
            )
        names = ("sensor", "units") if model.inputs else ()
        compared.append((modality, modalities[modality], one, (*names, "dtype", "level", "reflectance", "patch_size")))
    for modality, data, trained, names in compared:
        of = f" of '{modality}'" if modality and model.inputs else ""
        for name in names:
            found, expected = getattr(data, name), getattr(trained, name)
            if found != expected:
                raise RecordsError(
                    where,
                    f"{name}{of} is {found}",
                    f"{expected}, as the model was trained with",
                    "use records of that kind",
                )


def check_without(options: EvaluationOptions, model: model_cards.ModelCard) -> None:
    """Checks that a model has the sensors that an evaluation removes, and others.

    Raises:
        OptionError: if not.
    """
    sensors = model.sensor_names
    for name in options.without:
        if name not in sensors:
            found = f"'{name}', which is no sensor of {model.model}"
            raise OptionError("without", found, f"one of {', '.join(sensors)}")
    if options.without and not set(sensors) - set(options.without):
        raise OptionError("without", f"{','.join(options.without)}, all that the model has", "at least one left")


def check_missing(
    options: EvaluationOptions, model: model_cards.ModelCard, card: cards.DataCard, where: pathlib.Path
) -> None:
    """Checks that no example lacks an image that the model was never trained without.

    Raises:
        RecordsError: if one does, and its sensor is neither removed from all nor predicted by a stand-in.
    """
    standing_in = () if options.stand_in is None else (read_stand_in(options.stand_in, model).sensor,)
    known = {*options.without, *standing_in}
    # A model of records of one modality names no inputs; no record lacks that one.
    for one, taken in zip(model.inputs, model.taken, strict=False):
        lacking, sensor = card.modalities[one.modality].missing.get(options.split, 0), taken.sensor_name
        if lacking and not model.learned_without(one.name) and sensor not in known:
            raise RecordsError(
                where,
                f"{lacking:,} examples of the split {options.split} lack '{one.modality}'",
                "all images that the model takes: it was trained without a missing one",
                f"train with `modality_dropout`, give a `stand_in`, or say `without={sensor}` to score it so",
            )


def identity(
    options: EvaluationOptions, model: model_cards.ModelCard, records: cards.DataCard, model_sha256: str
) -> dict[str, Any]:
    """Returns the entries of metrics.json that distinguish an evaluation from those of other models and examples."""
    return {
        "model_sha256": model_sha256,
        "data_fingerprint": records.fingerprint,
        "trained_on": model.data_fingerprint,
        "split": options.split,
        "tta": options.tta_name,
        **({"without": list(options.without)} if options.without else {}),
        **({} if options.stand_in is None else {"stand_in": read_stand_in(options.stand_in, model).sha256}),
        **tasks.of(model).evaluated_as(options, model),
    }


def evaluate(
    run: runs.Run,
    records: RecordDataset,
    options: EvaluationOptions | None = None,
    *,
    fitted: Calibration | None = None,
    not_calibrated: str = "",
    places: Callable[[tuple[str, ...]], Locations | None] | None = None,
    progress: _Progress | None = None,
) -> Evaluation:
    """Predicts every example of a split and scores the predictions.

    Args:
        run: the run.
        records: the records folder.
        options: options of the evaluation; None for the defaults.
        fitted: the temperature of the run's model, see `fit_calibration`; None for none.
        not_calibrated: why there is none.
        places: returns where the examples of given keys lie. Default: the records' own CRS and transforms.
        progress: called with (stage, done, total) batches.

    Raises:
        RecordsError: if the records cannot be used, do not fit the model, or lack images that it cannot do without.
        BandError: if they do not hold the model's bands.
        RunError: if there is a stand-in that does not fit the model.
        LegendError: if the classes differ, or a mask holds a number outside the legend.
        OptionError: if an option does not apply to the task or the model.
    """
    options, task = options or EvaluationOptions(), tasks.of(run.card)
    options.check_task(task)
    check_without(options, run.card)
    check_records(records.card, run.card, records.folder)
    check_missing(options, run.card, records.card, records.folder)
    split, card = options.split, records.card
    dataset = _dataset(run, records, options, split)
    predictor = _predictor(run, options, records.count(split))
    found = predictor(records, dataset, f"predicting {split}", progress, samples=task.samples)
    keys = found.predictions.keys
    located = read_locations(records.folder, card, split, keys) if places is None else places(keys)
    predictions = task.with_places(found.predictions, located, card)
    scores = task.scores(predictions, card.legend.class_names, options.resamples)
    sections = _sections(task, predictions, fitted, not_calibrated)
    return Evaluation(
        run=run,
        card=card,
        options=options,
        predictions=predictions,
        scores=dataclasses.replace(scores, sections={**scores.sections, **sections}),
        samples=found.samples or _samples(dataset, task.highlights(predictions)),
        images_per_second=found.images_per_second,
        calibration=fitted,
        places=located,
    )


def _sections(task: Task, predictions: Any, fitted: Calibration | None, reason: str) -> Mapping[str, Any]:
    """Returns the sections of metrics.json about probabilities."""
    found = task.probabilities(predictions)
    calibrated = calibration.to_json(fitted, found.labels, found.probabilities, reason)
    taken = ()
    if fitted is not None:
        # As launch.predict and an export give them.
        taken = fitted.calibrated_thresholds
        found = found.calibrated(fitted.temperature)
    curve = selective.risk_coverage(found.confidences, found.correct)
    by_validation = selective.apply_thresholds(taken, found.confidences, found.correct)
    return {"calibration": calibrated, "selective": {**curve.to_json(), "by_validation": by_validation}}


def validation_part(run: runs.Run, records: RecordDataset) -> tuple[str, Holdout | None]:
    """Returns the validation examples of a run: a split, and its holdout or None for the whole split.

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
    # As training chose them: the split val, else a holdout of the training split.
    if "val" in records.card.splits and records.card.splits["val"].examples:
        return "val", None
    fraction, seed = run.card.flags["validation_from_train"], run.card.flags["seed"]
    if chosen.endswith(holdouts.BY_KEY):
        return "train", holdout(fraction, seed)[1]
    return "train", holdouts.hold_out(records, fraction, seed).held_out


def fit_calibration(
    run: runs.Run,
    records: RecordDataset,
    options: EvaluationOptions | None = None,
    *,
    model_sha256: str = "",
    progress: _Progress | None = None,
) -> Calibration:
    """Fits the temperature of a run's model on the run's validation examples, never on those of a test.

    Args:
        run: the run.
        records: the records that it was trained on.
        options: options of its predictions; the split is ignored.
        model_sha256: checksum of the model's file, kept with the temperature.
        progress: called with (stage, done, total) batches.

    Raises:
        RunError: if the run had no validation examples.
        RecordsError: if the records are others than the run's, or cannot be used.
    """
    options, task = options or EvaluationOptions(), tasks.of(run.card)
    split, part = validation_part(run, records)
    dataset = _dataset(run, records, options, split, part)
    predictor = _predictor(run, options, records.count(split, part))
    found = predictor(records, dataset, "predicting validation", progress).predictions
    sample, fitted_on = task.probabilities(found), run.card.selection["split"]
    if sample is not found:
        fitted_on = f"pixels of {fitted_on}"
    return calibration.calibrate(
        sample.labels,
        sample.probabilities,
        fitted_on,
        model_sha256=model_sha256,
        tta=options.variant,
        data_fingerprint=records.card.fingerprint,
    )


def _predictor(run: runs.Run, options: EvaluationOptions, examples: int) -> Predictor:
    task = tasks.of(run.card)
    model = task.evaluated_model(run.model, options)
    if options.stand_in is not None:
        model = read_stand_in(options.stand_in, run.card).complete(model)
    model = tta.wrap(model, options)
    return Predictor(model, task, run.card.legend.class_names, **task.scoring(options, examples))


def _dataset(
    run: runs.Run, records: RecordDataset, options: EvaluationOptions, split: str, part: Holdout | None = None
) -> Any:
    size = options.batch_size or tasks.of(run.card).batch_size
    size = min(size, records.count(split, part) or 1)
    settings = pipelines.PipelineOptions(
        batch_size=size, inputs=_inputs(run.card, records.card), without=options.without, cache=False
    )
    return pipelines.evaluation(records, settings, split, part=part, with_keys=True)


def _inputs(model: model_cards.ModelCard, card: cards.DataCard) -> tuple[InputBands, ...]:
    """Returns the inputs of a model in records; one of a model without named modalities is the first one there."""
    if model.inputs:
        return model.taken
    return tuple(dataclasses.replace(one, modality=card.modality) for one in model.taken)


def _samples(dataset: Any, keys: Iterable[str]) -> tuple[PredictedSample, ...]:
    """Reads the images of some keys in a second pass, since all images of a split may not fit into memory."""
    keys = list(keys)
    wanted, found = {key.encode() for key in keys}, {}
    if not wanted:
        return ()
    for image, label, _, key in dataset:
        for place, name in enumerate(key.numpy()):
            if name in wanted:
                one = {name: values[place].numpy() for name, values in by_name(image).items()}
                found[name.decode()] = unwrapped(one), label[place].numpy()
        if len(found) == len(wanted):
            break
    return tuple(PredictedSample(key, *found[key]) for key in keys)


def add_to_card(evaluation: Evaluation) -> list[str]:
    """Adds temperature and scores to the run's card, but no scores of other records.

    Returns:
        Lines for the user, see `runs.write_card`.

    Raises:
        StorageError: if the run folder cannot be written.
    """
    run, scores, options = evaluation.run, evaluation.scores, evaluation.options
    card = run.card
    if evaluation.calibration is not None and evaluation.calibration.tta == OWN:
        card = dataclasses.replace(card, temperature=evaluation.calibration.summary())
    if evaluation.card.fingerprint != card.data_fingerprint:
        return runs.write_card(card, run.folder) if card != run.card else []
    summary = {name: scores.value(name) for name in scores.overall}
    ends = dict(zip(("low", "high"), scores[scores.primary].ends, strict=True))
    summary |= {f"{scores.primary}_{end}": value for end, value in ends.items()} | {"count": scores.count}
    # Averaged predictions are an entry of their own: they must never pass for those of the model by itself.
    card = dataclasses.replace(card, scores={**card.scores, options.name: summary})
    return runs.write_card(card, run.folder)
