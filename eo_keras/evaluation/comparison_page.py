"""What comparisons of patches and of maps have in common on disk: tables, a figure, Markdown and one HTML page."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras.core import files
from eo_keras.core.output_folders import OutputFolder
from eo_keras.errors import RunError
from eo_keras.plots import html
from eo_keras.plots.figure import GREY, GRID, new_figure, plain, png_bytes
from eo_keras.plots.html import Table

JSON_NAME, CSV_NAME = "comparison.json", "comparison.csv"
MARKDOWN_NAME, PAGE_NAME, FIGURE_NAME = "comparison.md", "comparison.html", "comparison.png"
NAMES = (JSON_NAME, CSV_NAME, MARKDOWN_NAME, PAGE_NAME, FIGURE_NAME)

SIGNIFICANT = 0.05
"""A corrected p-value below this shows a difference."""

_COLOURS = (
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


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of the figure.

    Attributes:
        name: its name.
        score: its score with the interval's ends, fractions of 1.
        difference: to the best run, likewise; None of that run itself.
        p: of this difference, corrected; None of the best run.
        by_class: float64 (C,), a score for each class; NaN of classes without one.
    """

    name: str
    score: tuple[float, float, float]
    difference: tuple[float, float, float] | None
    p: float | None
    by_class: np.ndarray


@dataclasses.dataclass(frozen=True)
class Chart:
    """What the figure of a comparison shows.

    Attributes:
        rows: the runs, the best first.
        class_names: names of the classes.
        score: what the score is called, such as `Accuracy`.
        best: what the best run is called, such as `the most accurate`.
        by_class: what a class's score is called, such as `F1`.
        test: what the p-values are of.
    """

    rows: Sequence[Row]
    class_names: Sequence[str]
    score: str
    best: str
    by_class: str
    test: str


@dataclasses.dataclass(frozen=True)
class Report:
    """A comparison, ready to be written.

    Attributes:
        title: its title.
        subtitle: a line below it.
        warnings: what a reader has to know.
        tables: of scores, pairs and classes.
        chart: what the figure shows.
        method: how intervals and p-values were found.
        caution: what they do not say.
        columns: head of the CSV file.
        lines: its lines.
        content: the JSON file.
    """

    title: str
    subtitle: str
    warnings: Sequence[str]
    tables: tuple[Table, Table, Table]
    chart: Chart
    method: str
    caution: str
    columns: Sequence[str]
    lines: Sequence[Sequence[Any]]
    content: Mapping[str, Any]


def verdict(first: str, second: str, difference: float, p_holm: float) -> str:
    """Says in words what a pair's corrected p-value means."""
    if p_holm >= SIGNIFICANT or not difference:
        return "no difference shown"
    return f"{first if difference > 0 else second} is better"


def p_text(value: float) -> str:
    """Returns a p-value as tables show it."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def bands_text(bands: Sequence[str]) -> str:
    """Returns bands as tables show them."""
    return ",".join(bands) if len(bands) <= 4 else f"{len(bands)} bands"


def lines(table: Table) -> list[str]:
    """Returns a table as lines of text for a terminal, columns padded."""
    rows = [table.columns, *table.rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]
    return [
        "  ".join(
            cell.ljust(width) if place < table.text_columns else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def output_folder(folder: str | os.PathLike[str]) -> OutputFolder:
    """Returns a comparison's folder as what it is written through."""
    return OutputFolder(folder, "comparison", RunError)


def write(report: Report, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[str]:
    """Writes all files of a comparison into a folder, which is made where it is missing.

    Args:
        report: the comparison.
        folder: where it goes; an earlier comparison in it is replaced.
        overwrite: whether to write beside what somebody else has there.

    Returns:
        Lines for the user about what somebody else has there.

    Raises:
        RunError: if the folder is somebody else's, or a file of somebody else's is in the way.
        StorageError: if it cannot be written.
    """
    picture = figure_png(report.chart, report.title)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([report.columns, *report.lines])
    contents = {
        FIGURE_NAME: picture,
        CSV_NAME: text.getvalue().encode("utf-8"),
        MARKDOWN_NAME: _markdown(report).encode("utf-8"),
        PAGE_NAME: _page(report, picture).encode("utf-8"),
        JSON_NAME: files.json_bytes(report.content),
    }
    output = output_folder(folder)
    with output.held(overwrite=overwrite, writes=NAMES):
        output.write(contents)
        if overwrite:
            output.tell_foreign()
    return output.take_warnings()


def _markdown(report: Report) -> str:
    parts = [f"# {report.title}", *(f"**Warning:** {warning}" for warning in report.warnings)]
    for table in report.tables:
        aligned = [":--" if place < table.text_columns else "--:" for place in range(len(table.columns))]
        rows = [table.columns, aligned, *table.rows]
        cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        parts += [table.caption, "\n".join(f"| {' | '.join(row)} |" for row in cells)]
    return "\n\n".join([*parts, report.method, report.caution]) + "\n"


def _page(report: Report, picture: bytes) -> str:
    scores, pairs, classes = report.tables
    warnings = [html.Text(warning, "warn") for warning in report.warnings]
    chart = report.chart
    alt = f"{chart.score} with intervals, differences to the best run, and {chart.by_class} by class"
    return html.render(
        html.Page(
            report.title,
            report.subtitle,
            [
                html.Section("Scores", [*warnings, scores, html.Text(report.caution, "soft")]),
                html.Section("Figure", [html.Picture(picture, alt)]),
                html.Section("Differences", [pairs, html.Text(report.method, "soft")]),
                html.Section("Classes", [classes]),
            ],
        )
    )


def figure_png(chart: Chart, title: str) -> bytes:
    """Draws scores with their intervals, differences to the best run, and scores by class.

    Args:
        chart: what to draw.
        title: the figure's title.

    Returns:
        The figure as PNG.
    """
    names, rows = chart.class_names, len(chart.rows)
    upper, lower = 0.9 + 0.34 * rows, 1.0 + 0.36 * len(names) + 0.25 * -(-rows // 4)
    figure = new_figure(10.5, 0.6 + upper + lower, title)
    above, below = figure.subfigures(2, 1, height_ratios=(upper, lower))
    left, right = above.subplots(1, 2, sharey=True)
    places = np.arange(rows)
    for place, row in enumerate(chart.rows):
        colour = _COLOURS[place % len(_COLOURS)]
        _interval(left, place, row.score, colour)
        if row.difference is not None:
            _interval(right, place, row.difference, colour)
            note = f"p {p_text(row.p)}"
        else:
            right.plot(0, 0, "o", color=colour, markersize=6)
            note = chart.best
        right.annotate(note, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=GREY)
    left.set_yticks(places, [plain(_shortened(row.name)) for row in chart.rows])
    left.set_ylim(rows - 0.5, -0.5)
    left.set_xlabel(f"{chart.score} (%), 95 % interval")
    right.axvline(0, color=GREY, linestyle="--", linewidth=1)
    right.set_xlabel(f"Difference to {chart.best} (percentage points)\np: {chart.test} with Holm's correction")
    axes = below.subplots()
    for place, row in enumerate(chart.rows):
        # Side by side within a class's row, or equal scores would hide each other.
        heights = np.arange(len(names)) + 0.6 * ((place + 0.5) / rows - 0.5)
        style = {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKERS[place // len(_COLOURS) % len(_MARKERS)]}
        label = plain(_shortened(row.name))
        axes.plot(100 * row.by_class, heights, linestyle="none", markersize=5.5, label=label, **style)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"{chart.by_class} by class (%)")
    for edge in np.arange(len(names) - 1) + 0.5:
        axes.axhline(edge, color=GRID, linewidth=0.7)
    below.legend(loc="outside lower center", ncols=min(4, rows), fontsize=9, frameon=False)
    for one in (left, right, axes):
        one.grid(axis="x", color=GRID, linewidth=0.7)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)


def _interval(axes: Any, place: int, estimate: tuple[float, float, float], colour: str) -> None:
    value, low, high = estimate
    axes.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot(100 * value, place, "o", color=colour, markersize=6)


def _shortened(name: str) -> str:
    return name if len(name) <= _MOST_NAME else "…" + name[1 - _MOST_NAME :]
