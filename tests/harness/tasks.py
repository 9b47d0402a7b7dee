"""Checks that every task must pass: what training, evaluation, comparison and serving call it for."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from eo_keras import models, tasks
from eo_keras.data import parse
from eo_keras.data import pipeline as pipelines
from eo_keras.errors import OptionError, RunError
from eo_keras.evaluation import comparison_report, report
from eo_keras.evaluation import evaluate as evaluation
from eo_keras.evaluation.options import EvaluationOptions
from eo_keras.metrics import calibration, comparison
from eo_keras.records import example as codec
from eo_keras.records import tfrecord
from eo_keras.runs import export_folder
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.serving import saved_model
from eo_keras.tasks.predictor import Predictor
from eo_keras.training import train as training
from tests.harness import figures


def check_task(options, folder):
    """Trains a run, and holds its task against all that is done with one.

    Args:
        options: of a short training run whose records have a test split.
        folder: an empty folder to write into.

    Returns:
        The run and its evaluation on the test split.
    """
    report_of_run = training.train(dataclasses.replace(options, run_dir=str(folder / "run")))
    run, records = runs.open_run(folder / "run"), pipelines.RecordDataset(options.records_dir)
    task = tasks.of(records.card)
    assert tasks.of(run.card) is task is tasks.get(task.name)
    _check_training(task, report_of_run, run)
    fitted = evaluation.fit_calibration(run, records, model_sha256="ab")
    result = evaluation.evaluate(run, records, EvaluationOptions(resamples=100), fitted=fitted)
    _check_scores(task, result, run, records)
    _check_calibration(result, fitted)
    _check_folder(task, result, folder)
    _check_comparison(result, folder)
    _check_card(task, result, run)
    _check_options(task, run, records)
    _check_export(task, result, records, folder)
    return run, result


def _check_training(task, trained, run):
    columns = {"val_loss", *(metric.column for metric in task.metrics)}
    assert all(columns <= row.keys() and np.isfinite([row[name] for name in columns]).all() for row in trained.history)
    chosen, monitor = run.card.selection, task.monitor
    best = max(trained.history, key=lambda row: (monitor.rank(row[monitor.column]), -row["val_loss"]))
    assert (chosen["metric"], chosen["epoch"], chosen["value"]) == (monitor.name, best["epoch"], best[monitor.column])
    assert run.card.task == task.name


def _check_scores(task, result, run, records):
    scores, names = result.scores, records.card.legend.class_names
    assert (scores.task, scores.primary, scores.class_names) == (task.name, task.monitor.name, names)
    assert len(result.predictions.keys) == records.count("test") == len(set(result.predictions.keys))
    expected = task.validation(result.predictions)
    assert expected.keys() == {"loss", *(metric.name for metric in task.metrics)}
    assert scores.value("negative_log_likelihood") == pytest.approx(expected["loss"], rel=1e-6)
    for metric in task.metrics:
        if metric.name in scores.overall:
            found = scores[metric.name]
            assert found.value == pytest.approx(expected[metric.name], rel=1e-12)
            assert found.low <= found.value <= found.high and found.low < found.high
    assert np.array(scores.confusion).sum() == scores.count
    # Neither the batches nor the order in which scorers are merged change anything.
    other = evaluation.evaluate(run, records, EvaluationOptions(resamples=100, batch_size=3))
    assert other.predictions.keys == result.predictions.keys and other.scores.confusion == scores.confusion
    assert other.scores.value("negative_log_likelihood") == pytest.approx(expected["loss"], rel=1e-5)
    _check_merging(task, run, records, result)


def _check_merging(task, run, records, result):
    settings = pipelines.PipelineOptions(batch_size=4, bands=run.card.bands)
    dataset = pipelines.evaluation(records, settings, "test", with_keys=True)
    names, merged = records.card.legend.class_names, task.scorer(records.card.legend.class_names)
    for image, label, weight, key in dataset:
        one = task.scorer(names)
        kept = one.keep(tf.convert_to_tensor(run.model(image, training=False)), label)
        there = weight.numpy() > 0
        keys = [name.decode() for name in key.numpy()[there]]
        predicted = one.add(keys, label.numpy()[there], [values.numpy()[there] for values in kept])
        assert predicted.shape == label.numpy()[there].shape
        merged.merge(one)
    found = task.scores(merged.result(), names, 10)
    assert found.confusion == result.scores.confusion and merged.result().keys == result.predictions.keys
    predicted = Predictor(run.model, task, names)(records, dataset, samples=3)
    assert [sample.key for sample in predicted.samples] == list(result.predictions.keys[:3])
    figures = task.figures(predicted, records.card, run.card.bands, "Validation")
    assert figures.keys() == {"confusion_matrix", "samples"}
    for png in figures.values():
        assert Image.open(io.BytesIO(png)).size[0] > 300


def _check_calibration(result, fitted):
    section = result.scores.sections["calibration"]
    assert section["temperature"] == fitted.temperature and fitted.examples > 0
    assert fitted.after.negative_log_likelihood <= fitted.before.negative_log_likelihood + 1e-12
    error = result.scores.value("expected_calibration_error")
    assert section["split"]["before"]["expected_calibration_error"] == error
    assert calibration.expected_calibration_error(result.scores.reliability) == error


def _check_folder(task, result, folder):
    path = folder / "evaluation"
    assert report.write_evaluation(result, path) == []
    assert set(report.file_names(task)) <= {file.name for file in path.iterdir()}
    for name in (*task.figure_names, *report.CONFIDENCE_FIGURES):
        assert Image.open(path / name).size[0] > 300
    expected = evaluation.identity(
        result.options, result.run.card, result.card, json.loads((path / "metrics.json").read_text())["model_sha256"]
    )
    stored = report.find_evaluation(path, expected)
    assert report.suffices(stored, result.options)
    assert not report.suffices(stored, dataclasses.replace(result.options, resamples=101))
    assert dataclasses.replace(stored.scores, sections={}) == dataclasses.replace(result.scores, sections={})
    assert stored.predictions.keys == result.predictions.keys
    mine, its = (task.outcomes(one, 10) for one in (result.predictions, stored.predictions))
    np.testing.assert_array_equal(mine.truth, its.truth)
    paired = mine.paired(its, result.scores.overall, result.scores.overall)
    assert next(iter(paired)) == task.monitor.name and {one.difference.value for one in paired.values()} == {0}
    assert report.find_evaluation(path, expected | {"tta": "another"}) is None
    for name in report.file_names(task):
        copy = shutil.copytree(path, folder / "damaged")
        (copy / name).unlink()
        assert report.find_evaluation(copy, expected) is None, name
        shutil.rmtree(copy)
    table = path / report.PREDICTIONS_NAME
    copy = shutil.copytree(path, folder / "damaged")
    key = result.predictions.keys[0]
    (copy / table.name).write_text(table.read_text().replace(key, f"{key}x"))
    with pytest.raises(RunError, match="it is not the file that metrics.json was made with"):
        report.read_evaluation(copy)
    shutil.rmtree(copy)
    # Earlier versions gave the predictions another name.
    table.rename(path / report.EARLIER_PREDICTIONS_NAME)
    assert report.find_evaluation(path, expected).predictions.keys == result.predictions.keys
    with figures.undrawn():
        report.write_evaluation(result, path)


def _check_comparison(result, folder):
    stored = report.read_evaluation(folder / "evaluation")
    found = comparison.compare([stored.as_run("one"), stored.as_run("other")])
    (pair,) = found.differences
    assert (pair.difference, comparison_report.verdict(pair)) == (0, "no difference shown") and pair.low < 0 < pair.high
    comparison_report.write(comparison_report.Report(found, "Two"), folder / "comparison")
    content = json.loads((folder / "comparison" / "comparison.json").read_text())
    assert content["task"] == result.scores.task and len(content["runs"]) == 2


def _check_card(task, result, run):
    evaluation.add_to_card(result)
    card = model_cards.read_model_card(run.folder)
    name, found = task.monitor.name, result.scores[task.monitor.name]
    kept = card.scores["test"]
    assert (kept[name], kept[f"{name}_low"], kept[f"{name}_high"]) == (found.value, found.low, found.high)
    assert card.temperature["temperature"] == result.calibration.temperature


def _check_options(task, run, records):
    changed = {"tta": "d4", "scales": (0.5, 1.0), "flip": True, "output_stride": 8, "coordinates": "places.csv"}
    changed |= {"boundary_tolerances": (3.0,), "boundary_width": 5.0, "object_class": "Forest"}
    known = set().union(*(tasks.get(name).evaluation_options for name in tasks.TASKS))
    assert changed.keys() == known
    for name in known - task.evaluation_options:
        with pytest.raises(OptionError, match=f"{name}: it does not apply to {task.description}"):
            evaluation.evaluate(run, records, EvaluationOptions(**{name: changed[name]}))


def _check_export(task, result, records, folder):
    exported = saved_model.export(result.run, folder / "serving", calibration=result.calibration)
    outputs = {one.name: one for one in exported.outputs}
    assert outputs["probabilities"].dtype == "float32" and exported.largest_difference < 1e-5
    assert len(outputs["class_id"].shape) == len(outputs["probabilities"].shape) - 1
    card = model_cards.read_model_card(exported.path / export_folder.EXTRA_DIR)
    assert card.task == task.name and card.needs == saved_model.NEEDS
    assert card.temperature["temperature"] == result.calibration.temperature
    _check_signatures(result.run, result.calibration.temperature, records, exported)


def _check_signatures(run, temperature, records, exported):
    """Serves records as the builder wrote them."""
    loaded, stored = tf.saved_model.load(str(exported.path)), records.card
    data = tf.constant(list(tfrecord.read_records(records.files("test")[0])))
    images = parse.select_bands(parse.parse_batch(data, stored)["image"], stored.bands, run.card.bands)
    expected = loaded.serve(images)["probabilities"]
    # Where a model takes images of any size, TensorFlow optimizes the graph of a known size in another way.
    np.testing.assert_allclose(loaded.examples(data)["probabilities"], expected, rtol=0, atol=1e-6)
    if "bytes" in exported.inputs:
        pictures = [codec.decode(one).image for one in data.numpy()]
        np.testing.assert_allclose(loaded.bytes(tf.constant(pictures))["probabilities"], expected, rtol=0, atol=1e-6)
    calibrated = models.with_temperature(run.model, temperature)
    np.testing.assert_allclose(expected, calibrated(images), rtol=0, atol=1e-5)
