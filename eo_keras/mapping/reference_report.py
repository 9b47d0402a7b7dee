"""Folder of a map's evaluation: `metrics.json`, the confusion matrix as a picture, and one HTML page."""

from __future__ import annotations

import os

from eo_keras.core import files
from eo_keras.core.number_format import ABSENT, interval, percent
from eo_keras.core.output_folders import OutputFolder
from eo_keras.mapping.reference import MapEvaluation
from eo_keras.metrics.estimate import Estimate
from eo_keras.metrics.metric import METRICS
from eo_keras.plots import html
from eo_keras.plots.classification import confusion_matrix_png

METRICS_NAME, CONFUSION_NAME, PAGE_NAME = "metrics.json", "confusion_matrix.png", "report.html"
FILES = (METRICS_NAME, CONFUSION_NAME, PAGE_NAME)
"""Names of the files of a map's evaluation."""

TITLES = {"precision": "user's accuracy", "recall": "producer's accuracy", "f1": "F1", "iou": "IoU"}
"""Titles of a class's scores, by their names in `metrics.json`."""

_OF_ALL = {"accuracy": "overall accuracy", "macro_f1": "macro F1", "miou": "mean IoU", "kappa": "kappa"}


def overall_line(evaluation: MapEvaluation) -> str:
    """Returns the overall accuracy with its interval, and what was scored, in one line."""
    scores = evaluation.scores
    accuracy = scores["accuracy"]
    return (
        f"overall accuracy {percent(accuracy.value)} ({interval(accuracy.ends)}), of {scores.count:,} {scores.unit}"
        f"{counts_text(evaluation)}"
    )


def counts_text(evaluation: MapEvaluation) -> str:
    """Returns what was not scored, by reason, as the rest of a sentence; empty where there is nothing."""
    reasons = [
        f"{count:,} {name.replace('_', ' ')}"
        for name, count in evaluation.counts.items()
        if count and name not in ("points", "polygons", "pixels", "scored")
    ]
    return f"; not scored: {', '.join(reasons)}" if reasons else ""


def class_table(evaluation: MapEvaluation) -> html.Table:
    """Returns the scores of each class with their intervals."""
    scores = evaluation.scores
    return html.Table(
        ("class", f"{scores.unit} of the reference", f"{scores.unit} of the map", *TITLES.values()),
        [
            (
                name,
                f"{one['support']:,}",
                f"{one['predicted']:,}",
                *(_text(one[score], METRICS[score].in_percent) for score in TITLES),
            )
            for name, one in scores.by_class.items()
        ],
        "Scores by class, with 95 % intervals",
    )


def overall_table(evaluation: MapEvaluation) -> html.Table:
    """Returns the scores over all classes with their intervals."""
    scores = evaluation.scores
    return html.Table(
        ("score", "value", "method of the interval"),
        [
            (title, _text(scores[name], METRICS[name].in_percent), (scores[name] and scores[name].method) or ABSENT)
            for name, title in _OF_ALL.items()
        ],
        "Scores over all classes, with 95 % intervals",
    )


def _text(value: Estimate | None, in_percent: bool) -> str:
    if value is None:
        return ABSENT
    if in_percent:
        return percent(value.value) + (f" ({interval(value.ends)})" if value.ends else "")
    return f"{value.value:.4f}" + (f" ({value.low:.4f} to {value.high:.4f})" if value.ends else "")


def intervals_text(evaluation: MapEvaluation) -> str:
    """Returns what the intervals assume."""
    details = evaluation.scores.details
    if "clusters" not in details:
        return (
            "The intervals take the points to be drawn at random and independently of each other. Points of a sample "
            "that is stratified by the map's classes are assessed by launch.assess."
        )
    return (
        f"The intervals are of a bootstrap over {details['clusters']:,} {details['clusters_are']}, since neighboring "
        "pixels resemble each other."
    )


def output_folder(folder: str | os.PathLike[str]) -> OutputFolder:
    """Returns the `OutputFolder` of a map's evaluation."""
    return OutputFolder(folder, "evaluation of a map")


def write_map_evaluation(
    evaluation: MapEvaluation, folder: str | os.PathLike[str], *, overwrite: bool = False
) -> list[str]:
    """Writes scores, confusion matrix and page into a folder; an earlier evaluation in it is replaced.

    Args:
        evaluation: the evaluation.
        folder: the folder, made if missing.
        overwrite: whether to write beside foreign files in the folder.

    Returns:
        Warnings for the user about foreign files.

    Raises:
        StorageError: if the folder belongs to something else, or cannot be written.
    """
    scores, options = evaluation.scores, evaluation.options
    subject, reference = os.path.basename(evaluation.map), os.path.basename(options.reference)
    title = f"{subject} against {reference}"
    accuracy = scores["accuracy"]
    shown = f"{title}: accuracy {percent(accuracy.value)} ({interval(accuracy.ends)})"
    picture = confusion_matrix_png(scores.confusion, scores.class_names, shown, scores.unit)
    page = html.Page(
        title,
        overall_line(evaluation),
        [
            html.Section("Scores", [overall_table(evaluation), html.Text(intervals_text(evaluation), "soft")]),
            html.Section("Classes", [class_table(evaluation)]),
            html.Section("Confusion matrix", [html.Picture(picture, f"Confusion matrix of {title}")]),
        ],
        f"Map in {evaluation.crs}, pixels of {evaluation.pixel_size:g}"
        + (f"; field {options.class_field}" if options.class_field else "")
        + (f"; names by {os.path.basename(options.class_table)}" if options.class_table else ""),
    )
    output = output_folder(folder)
    with output.held(overwrite=overwrite, writes=FILES):
        output.write(
            {
                CONFUSION_NAME: picture,
                PAGE_NAME: html.render(page).encode("utf-8"),
                METRICS_NAME: files.json_bytes(evaluation.to_json()),
            }
        )
        if overwrite:
            output.tell_foreign()
    return output.take_warnings()
