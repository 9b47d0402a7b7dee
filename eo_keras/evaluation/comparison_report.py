"""A comparison of runs as a report: tables, a figure, CSV, JSON, Markdown and one HTML page."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from eo_keras.core import files
from eo_keras.core.output_folders import OutputFolder
from eo_keras.errors import RunError
from eo_keras.metrics.comparison import Comparison, Difference, EvaluatedRun
from eo_keras.metrics.metric import METRICS, Metric, metric_of
from eo_keras.metrics.scores import CALIBRATION_SCORES
from eo_keras.plots import html
from eo_keras.plots.figure import GREY, GRID, new_figure, plain, png_bytes
from eo_keras.plots.html import Table

JSON_NAME, CSV_NAME = "comparison.json", "comparison.csv"
MARKDOWN_NAME, PAGE_NAME, FIGURE_NAME = "comparison.md", "comparison.html", "comparison.png"
NAMES = (JSON_NAME, CSV_NAME, MARKDOWN_NAME, PAGE_NAME, FIGURE_NAME)

SIGNIFICANT = 0.05
"""Corrected p-value below which a difference is reported."""

_COLORS = (
    "#2166ac",
    "#d6604d",
    "#1a7a1a",
    "#e6a817",
    "#762a83",
    "#4393c3",
    "#8c510a",
    "#c51b7d",
    "#35978f",
    "#777777",
)
_MARKERS = "osD^vPX<>*"
_MOST_NAME = 28

_OF_RUN = ("model", "bands", "model_sha256", "trained_on", "data_fingerprint", "selection", "output_stride", "tta")
"""Entries of a run's `metrics.json` that the comparison repeats, where they exist."""

_VERSUS = ("minus_best", "minus_best_low", "minus_best_high", "p_value", "p_holm")


@dataclasses.dataclass(frozen=True)
class Report:
    """Report of a comparison.

    Attributes:
        found: the comparison.
        title: its title.
    """

    found: Comparison
    title: str

    @property
    def of_class(self) -> Metric:
        """Score by class whose mean is the compared score, or else F1."""
        by_class = next(iter(self.found.runs[0].scores.by_class.values()))
        return METRICS["iou" if "iou" in by_class else "f1"]

    @property
    def subtitle(self) -> str:
        """A line below the title."""
        return f"{len(self.found.runs)} runs, {len(self.found.outcomes.keys):,} {self.found.outcomes.unit}"

    @property
    def method(self) -> str:
        """Text on the computation of intervals and p-values."""
        return (
            f"{self.found.outcomes.method} p (Holm) is corrected for the number of pairs, and a run is called better "
            f"where it is below {SIGNIFICANT:g}."
        )

    @property
    def caution(self) -> str:
        """Text on the limits of intervals and p-values."""
        unit = self.found.outcomes.unit
        return (
            f"The best of many runs by these same {unit} has a score that is biased upwards: choose by the validation "
            f"{self.found.metric.title}, and read here how sure that choice is. The intervals are about other {unit} "
            "of the same sites, not about other sites or another training."
        )

    def tables(self) -> tuple[Table, Table, Table]:
        """Returns the tables of scores, pairs and classes."""
        return self._scores(), self._pairs(), self._classes()

    def tables_of_others(self) -> list[Table]:
        """Returns the tables of boundaries and objects, their scores and the pairs; none where there are none."""
        names = dict.fromkeys(name for run in self.found.runs for name in run.scores.overall if _is_apart(name))
        return [self._apart(list(names)), self._pairs_apart()] if names else []

    def _scores(self) -> Table:
        found, metric = self.found, self.found.metric
        first = found.runs[0].scores
        left_out = (metric.name, *CALIBRATION_SCORES)
        others = [METRICS[name] for name in first.overall if name not in left_out and not _is_apart(name)]
        calibrated = "expected_calibration_error" in first.overall
        rows = []
        for run in found.ranked:
            scores = run.scores
            row = [
                run.name,
                f"{run.metrics['model']}, {bands_text(run.metrics.get('inputs') or run.metrics['bands'])}",
                metric.show(_validation(run, metric)),
                metric.show(scores.value(metric.name)),
                metric.show_interval(scores[metric.name].ends),
                *(one.show(scores.value(one.name)) for one in others),
            ]
            if calibrated:
                ece = METRICS["expected_calibration_error"]
                row += [ece.show(scores.value(ece.name)), ece.show(_calibrated_ece(run)), _show_aurc(run)]
            rows.append(tuple(row))
        titles = [one.title for one in others] + (["ECE", "ECE, T", "AURC"] if calibrated else [])
        caption = (
            f"Scores on {len(found.outcomes.keys):,} {found.outcomes.unit}; means over classes are over the "
            f"{first.details['averaged_classes']} of {len(first.by_class)} that occur. Validation: {metric.title} on "
            f"the {found.outcomes.unit} that chose the epoch."
        )
        if calibrated:
            caption += (
                " ECE: expected calibration error; ECE, T: after temperature scaling. AURC: area under the "
                "risk-coverage curve."
            )
        return Table(("run", "network", "validation", metric.title, "95 % interval", *titles), rows, caption, 2)

    def _apart(self, names: Sequence[str]) -> Table:
        metrics = [metric_of(name) for name in names]
        rows = []
        for run in self.found.ranked:
            found = [run.scores.overall.get(name) for name in names]
            cells = [
                f"{metric.show(one.value)} ({metric.show_interval(one.ends)})" if one else metric.show(None)
                for metric, one in zip(metrics, found, strict=True)
            ]
            rows.append((run.name, *cells))
        of_class = self.found.runs[0].scores.details.get("object_class")
        caption = "Boundaries, means over classes" + (f", and objects of the class {of_class}" if of_class else "")
        return Table(("run", *(metric.title for metric in metrics)), rows, f"{caption}; in parentheses 95 % intervals.")

    def _pairs_apart(self) -> Table:
        rows = []
        for name, differences in self.found.others.items():
            metric = metric_of(name)
            rows += [
                (
                    metric.title,
                    f"{one.first} - {one.second}",
                    verdict(one),
                    metric.show_difference(one.difference),
                    f"{metric.show_difference(one.low)} to {metric.show_difference(one.high)}",
                    p_text(one.p_value),
                    p_text(one.p_holm),
                )
                for one in differences
            ]
        columns = ("score", "pair", "verdict", "difference", "95 % interval", "p", "p (Holm)")
        caption = (
            f"Differences of scores that all runs have, on the same {self.found.outcomes.unit}; p (Holm) is corrected "
            "for the pairs of one score, not for the number of scores."
        )
        return Table(columns, rows, caption, 3)

    def _pairs(self) -> Table:
        metric, counted = self.found.metric, self.found.differences[0].only_first_correct is not None
        rows = [
            (
                f"{one.first} - {one.second}",
                verdict(one),
                metric.show_difference(one.difference),
                f"{metric.show_difference(one.low)} to {metric.show_difference(one.high)}",
                *([f"{one.only_first_correct:,} : {one.only_second_correct:,}"] if counted else []),
                p_text(one.p_value),
                p_text(one.p_holm),
            )
            for one in self.found.differences
        ]
        counts = ["only one correct"] if counted else []
        columns = ("pair", "verdict", "difference", "95 % interval", *counts, "p", "p (Holm)")
        points = " in percentage points" if metric.in_percent else ""
        caption = f"Differences of {metric.title}{points}, on the same {self.found.outcomes.unit}."
        return Table(columns, rows, caption, 2)

    def _classes(self) -> Table:
        ranked, of_class = self.found.ranked, self.of_class
        rows = [
            (name, *(of_class.show(run.scores.value(of_class.name, name)) for run in ranked))
            for name in ranked[0].scores.class_names
        ]
        caption = f"{of_class.title} by class; - where a class does not occur."
        return Table(("class", *(run.name for run in ranked)), rows, caption)

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison as plain dictionaries, lists and numbers."""
        found = self.found
        first = found.runs[0]
        return {
            "schema": 2,
            "task": first.scores.task,
            "split": first.metrics["split"],
            "metric": found.metric.name,
            "unit": found.outcomes.unit,
            "count": len(found.outcomes.keys),
            "details": dict(first.scores.details),
            "best": found.ranked[0].name,
            "test": f"{found.outcomes.test}, two-sided; p_holm: Holm's correction over all pairs",
            "warnings": list(found.warnings),
            "runs": [self._run(run) for run in found.runs],
            "differences": _to_json(found.differences),
        } | ({"other_differences": {name: _to_json(one) for name, one in found.others.items()}} if found.others else {})

    def _run(self, run: EvaluatedRun) -> dict[str, Any]:
        content = run.scores.to_json()
        kept = {name: run.metrics[name] for name in _OF_RUN if name in run.metrics}
        kept = {"name": run.name, **kept, "scores": content["scores"], "by_class": content["by_class"]}
        if calibration := run.scores.sections.get("calibration"):
            kept |= {"temperature": calibration["temperature"], "calibration": calibration["split"]}
        return kept | ({"aurc": _aurc(run)} if _aurc(run) is not None else {})

    def lines(self) -> list[list[Any]]:
        """Returns the lines of the CSV file, its head first."""
        found, metric, of_class = self.found, self.found.metric, self.of_class
        best, others = found.ranked[0], [name for name in found.runs[0].scores.overall if name != metric.name]
        scored = (metric.name, f"{metric.name}_low", f"{metric.name}_high", *others)
        by_class = [f"{of_class.name}_{name}" for name in best.scores.class_names]
        extra = ("temperature", "calibrated_ece", "aurc")
        versus = [f"{name}_{column}" for name in found.others for column in _VERSUS]
        lines: list[list[Any]] = [
            ["run", "model", "bands", f"validation_{metric.name}", *scored, *extra, *_VERSUS, *by_class, *versus]
        ]
        for run in found.ranked:
            against = self._against_best(run)
            compared = run.scores[metric.name]
            lines.append(
                [
                    run.name,
                    run.metrics["model"],
                    " ".join(run.metrics.get("inputs") or run.metrics["bands"]),
                    _validation(run, metric),
                    *(compared.value, compared.low, compared.high),
                    *(run.scores.value(name) for name in others),
                    (run.scores.sections.get("calibration") or {}).get("temperature"),
                    _calibrated_ece(run),
                    _aurc(run),
                    *against,
                    *(run.scores.value(of_class.name, name) for name in best.scores.class_names),
                    *(cell for name in found.others for cell in self._against_best(run, name)),
                ]
            )
        return lines

    def _against_best(self, run: EvaluatedRun, score: str | None = None) -> list[Any]:
        """Returns the cells of `_VERSUS`, empty for the best run."""
        best = self.found.ranked[0]
        if run is best:
            return [""] * len(_VERSUS)
        one = self.found.between(run.name, best.name, score)
        return [one.difference, one.low, one.high, one.p_value, one.p_holm]


def _is_apart(name: str) -> bool:
    """Returns whether a score has a place in the tables of boundaries and objects."""
    return name.startswith(("boundary_", "object_"))


def _to_json(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    return [one.to_json() | {"verdict": verdict(one)} for one in differences]


def verdict(one: Difference) -> str:
    """Returns the verdict on a pair by its corrected p-value."""
    if one.p_holm >= SIGNIFICANT or not one.difference:
        return "no difference shown"
    return f"{one.first if one.difference > 0 else one.second} is better"


def p_text(value: float) -> str:
    """Returns a p-value as tables show it."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def bands_text(bands: Collection[str]) -> str:
    """Returns bands, or the names of several inputs, as tables show them."""
    return ",".join(bands) if len(bands) <= 4 else f"{len(bands)} bands"


def output_folder(folder: str | os.PathLike[str]) -> OutputFolder:
    """Returns the `OutputFolder` of a comparison."""
    return OutputFolder(folder, "comparison", RunError)


def write(report: Report, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[str]:
    """Writes all files of a comparison into a folder, which is made if missing.

    Args:
        report: the comparison.
        folder: the comparison's folder; an earlier comparison in it is replaced.
        overwrite: whether to write beside other files there.

    Returns:
        Lines for the user about other files there.

    Raises:
        RunError: if the folder, or a file in the way, is not a comparison's.
        StorageError: if it cannot be written.
    """
    picture = figure_png(report)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(report.lines())
    contents = {
        FIGURE_NAME: picture,
        CSV_NAME: text.getvalue().encode("utf-8"),
        MARKDOWN_NAME: _markdown(report).encode("utf-8"),
        PAGE_NAME: _page(report, picture).encode("utf-8"),
        JSON_NAME: files.json_bytes(report.to_json()),
    }
    output = output_folder(folder)
    with output.held(overwrite=overwrite, writes=NAMES):
        output.write(contents)
        if overwrite:
            output.tell_foreign()
    return output.take_warnings()


def _markdown(report: Report) -> str:
    parts = [f"# {report.title}", *(f"**Warning:** {warning}" for warning in report.found.warnings)]
    for table in (*report.tables(), *report.tables_of_others()):
        aligned = [":--" if place < table.text_columns else "--:" for place in range(len(table.columns))]
        rows = [table.columns, aligned, *table.rows]
        cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        parts += [table.caption, "\n".join(f"| {' | '.join(row)} |" for row in cells)]
    return "\n\n".join([*parts, report.method, report.caution]) + "\n"


def _page(report: Report, picture: bytes) -> str:
    (scores, pairs, classes), others = report.tables(), report.tables_of_others()
    warnings = [html.Text(warning, "warn") for warning in report.found.warnings]
    alt = (
        f"{report.found.metric.title} with intervals, differences to the best run, and {report.of_class.title} by class"
    )
    return html.render(
        html.Page(
            report.title,
            report.subtitle,
            [
                html.Section("Scores", [*warnings, scores, html.Text(report.caution, "soft")]),
                html.Section("Figure", [html.Picture(picture, alt)]),
                html.Section("Differences", [pairs, html.Text(report.method, "soft")]),
                html.Section("Classes", [classes]),
                *([html.Section("Boundaries and objects", others)] if others else []),
            ],
        )
    )


def figure_png(report: Report) -> bytes:
    """Draws scores with their intervals, differences to the best run, and scores by class, as PNG."""
    found, metric, of_class = report.found, report.found.metric, report.of_class
    ranked = found.ranked
    names, rows = ranked[0].scores.class_names, len(ranked)
    upper, lower = 0.9 + 0.34 * rows, 1.0 + 0.36 * len(names) + 0.25 * -(-rows // 4)
    figure = new_figure(10.5, 0.6 + upper + lower, report.title)
    above, below = figure.subfigures(2, 1, height_ratios=(upper, lower))
    left, right = above.subplots(1, 2, sharey=True)
    places = np.arange(rows)
    for place, run in enumerate(ranked):
        color = _COLORS[place % len(_COLORS)]
        compared = run.scores[metric.name]
        _interval(left, place, (compared.value, compared.low, compared.high), color)
        if place:
            one = found.between(run.name, ranked[0].name)
            _interval(right, place, (one.difference, one.low, one.high), color)
            note = f"p {p_text(one.p_holm)}"
        else:
            right.plot(0, 0, "o", color=color, markersize=6)
            note = "the best"
        right.annotate(note, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=GREY)
    left.set_yticks(places, [plain(_shortened(run.name)) for run in ranked])
    left.set_ylim(rows - 0.5, -0.5)
    left.set_xlabel(f"{metric.title} (%), 95 % interval")
    right.axvline(0, color=GREY, linestyle="--", linewidth=1)
    right.set_xlabel(f"Difference to the best run (percentage points)\np: {found.outcomes.test} with Holm's correction")
    axes = below.subplots()
    for place, run in enumerate(ranked):
        # Side by side within a class's row, or equal scores would hide each other.
        heights = np.arange(len(names)) + 0.6 * ((place + 0.5) / rows - 0.5)
        style = {"color": _COLORS[place % len(_COLORS)], "marker": _MARKERS[place // len(_COLORS) % len(_MARKERS)]}
        values = np.array([run.scores.value(of_class.name, name) for name in names], np.float64)
        label = plain(_shortened(run.name))
        axes.plot(100 * values, heights, linestyle="none", markersize=5.5, label=label, **style)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"{of_class.title} by class (%)")
    for edge in np.arange(len(names) - 1) + 0.5:
        axes.axhline(edge, color=GRID, linewidth=0.7)
    below.legend(loc="outside lower center", ncols=min(4, rows), fontsize=9, frameon=False)
    for one in (left, right, axes):
        one.grid(axis="x", color=GRID, linewidth=0.7)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)


def _interval(axes: Any, place: int, estimate: tuple[float, float, float], color: str) -> None:
    value, low, high = estimate
    axes.plot([100 * low, 100 * high], [place, place], color=color, linewidth=2.2, solid_capstyle="butt")
    axes.plot(100 * value, place, "o", color=color, markersize=6)


def _shortened(name: str) -> str:
    return name if len(name) <= _MOST_NAME else "…" + name[1 - _MOST_NAME :]


def _validation(run: EvaluatedRun, metric: Metric) -> float | None:
    """Returns the score that chose the epoch, where it is the compared one."""
    chosen = run.metrics["selection"]
    return chosen.get("value") if chosen.get("metric") == metric.name else None


def _calibrated_ece(run: EvaluatedRun) -> float | None:
    after = ((run.scores.sections.get("calibration") or {}).get("split") or {}).get("after")
    return after and after["expected_calibration_error"]


def _aurc(run: EvaluatedRun) -> float | None:
    return (run.scores.sections.get("selective") or {}).get("aurc")


def _show_aurc(run: EvaluatedRun) -> str:
    return "-" if _aurc(run) is None else f"{_aurc(run):.4f}"
