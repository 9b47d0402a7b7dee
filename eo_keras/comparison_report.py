"""A comparison as files: JSON and CSV to compute with, Markdown and one HTML page to read, and a figure."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import pathlib
from typing import Any

import numpy as np

from eo_keras import comparison, files, pages
from eo_keras.comparison import Comparison, Difference, Member
from eo_keras.figures import GREY, GRID, new_figure, plain, png_bytes
from eo_keras.pages import Table

JSON_NAME, CSV_NAME = "comparison.json", "comparison.csv"
MARKDOWN_NAME, PAGE_NAME, FIGURE_NAME = "comparison.md", "comparison.html", "comparison.png"

SIGNIFICANT = 0.05
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

_METHOD = (
    f"Intervals are 95 % percentile intervals of a bootstrap over the examples, {comparison.RESAMPLES:,} resamples; "
    "those of differences draw the same examples for both runs. p is that of McNemar's exact test on the examples that "
    "only one of the two answers rightly; p (Holm) is corrected for the number of pairs, and a run is called better "
    f"where it is below {SIGNIFICANT:g}."
)
_CAUTION = (
    "The best of many runs by these same examples looks better than it is: choose by the validation accuracy, and "
    "read here how sure that choice is. The intervals know of other test examples, not of another training."
)


def verdict(difference: Difference) -> str:
    """Says in words what a pair's corrected p-value means."""
    if difference.p_holm >= SIGNIFICANT or not difference.difference:
        return "no difference shown"
    return f"{difference.first if difference.difference > 0 else difference.second} is better"


def score_table(found: Comparison) -> Table:
    """Returns the runs with their scores, the most accurate first."""
    rows = []
    for member in _ranked(found):
        content, scores = member.metrics, member.metrics["scores"]
        after = content["calibration"]["split"]["after"]
        rows.append(
            (
                member.name,
                f"{content['model']}, {_bands(content)}",
                _validation(content),
                f"{scores['accuracy']:.2%}",
                f"{scores['accuracy_low']:.2%} to {scores['accuracy_high']:.2%}",
                f"{scores['macro_f1']:.2%}",
                f"{scores['kappa']:.4f}",
                f"{scores['expected_calibration_error']:.2%}",
                f"{after['expected_calibration_error']:.2%}" if after else "-",
                f"{content['selective']['aurc']:.4f}",
            )
        )
    columns = (
        "run",
        "network",
        "validation",
        "accuracy",
        "95 % interval",
        "macro F1",
        "kappa",
        "ECE",
        "ECE, T",
        "AURC",
    )
    caption = (
        f"Scores on {found.examples:,} examples. Validation: accuracy on the examples that chose the epoch. ECE: "
        "expected calibration error; ECE, T: after temperature scaling. AURC: area under the risk-coverage curve."
    )
    return Table(columns, rows, caption, 2)


def pair_table(found: Comparison) -> Table:
    """Returns all pairs: difference, interval, counts and p-values."""
    rows = [
        (
            f"{one.first} - {one.second}",
            verdict(one),
            f"{100 * one.difference:+.2f}",
            f"{100 * one.low:+.2f} to {100 * one.high:+.2f}",
            f"{one.only_first_right:,} : {one.only_second_right:,}",
            _p(one.p_value),
            _p(one.p_holm),
        )
        for one in found.differences
    ]
    columns = ("pair", "verdict", "difference", "95 % interval", "only one right", "p", "p (Holm)")
    return Table(columns, rows, "Differences of accuracy in percentage points, on the same examples.", 2)


def class_table(found: Comparison) -> Table:
    """Returns F1 by class and run."""
    ranked = _ranked(found)
    scores = [comparison.by_class(member) for member in ranked]
    rows = [
        (name, *(f"{by_class[place]:.2%}" for by_class in scores))
        for place, name in enumerate(found.members[0].class_names)
    ]
    return Table(("class", *(member.name for member in ranked)), rows, "F1 by class.")


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


def write_comparison(found: Comparison, folder: str | os.PathLike[str], title: str) -> pathlib.Path | str:
    """Writes all files of a comparison into a folder, which is made where it is missing, and returns the folder.

    Raises:
        StorageError: if it cannot be written.
    """
    folder = files.make_folder(folder)
    tables = (score_table(found), pair_table(found), class_table(found))
    picture = figure_png(found, title)
    files.write_bytes(files.join(folder, FIGURE_NAME), picture)
    files.write_text(files.join(folder, CSV_NAME), _csv(found))
    files.write_text(files.join(folder, MARKDOWN_NAME), _markdown(found, tables, title))
    files.write_text(files.join(folder, PAGE_NAME), _page(found, tables, picture, title))
    files.write_json(files.join(folder, JSON_NAME), to_json(found))
    return folder


def to_json(found: Comparison) -> dict[str, Any]:
    """Returns a comparison as plain dictionaries, lists and numbers."""
    first = found.members[0].metrics
    return {
        "split": first["split"],
        "tta": first["tta"],
        "examples": found.examples,
        "best": found.best.name,
        "resamples": comparison.RESAMPLES,
        "seed": comparison.SEED,
        "test": "McNemar, exact, two-sided; p_holm: Holm's correction over all pairs",
        "warnings": list(found.warnings),
        "runs": [
            {
                "name": member.name,
                **{
                    name: member.metrics[name] for name in ("model", "bands", "model_sha256", "trained_on", "selection")
                },
                "data_fingerprint": member.metrics["data_fingerprint"],
                "scores": {
                    name: value
                    for name, value in member.metrics["scores"].items()
                    if name not in ("confusion", "reliability")
                },
                "temperature": member.metrics["calibration"]["temperature"],
                "calibration": member.metrics["calibration"]["split"],
                "aurc": member.metrics["selective"]["aurc"],
            }
            for member in found.members
        ],
        "differences": [dataclasses.asdict(one) | {"verdict": verdict(one)} for one in found.differences],
    }


def _csv(found: Comparison) -> str:
    names = found.members[0].class_names
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scored = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "kappa", "expected_calibration_error")
    versus = ("minus_best", "minus_best_low", "minus_best_high", "p_value", "p_holm")
    head = ("run", "model", "bands", "validation_accuracy", *scored, "temperature", "calibrated_ece", "aurc", *versus)
    writer.writerow([*head, *(f"f1_{name}" for name in names)])
    for member in _ranked(found):
        content = member.metrics
        after = content["calibration"]["split"]["after"]
        against: list[Any] = [""] * len(versus)
        if member is not found.best:
            one = found.between(member.name, found.best.name)
            against = [one.difference, one.low, one.high, one.p_value, one.p_holm]
        writer.writerow(
            [
                member.name,
                content["model"],
                " ".join(content["bands"]),
                content["selection"].get("value"),
                *(content["scores"][name] for name in scored),
                content["calibration"]["temperature"],
                after["expected_calibration_error"] if after else None,
                content["selective"]["aurc"],
                *against,
                *comparison.by_class(member).tolist(),
            ]
        )
    return text.getvalue()


def _markdown(found: Comparison, tables: tuple[Table, ...], title: str) -> str:
    parts = [f"# {title}", *(f"**Warning:** {warning}" for warning in found.warnings)]
    for table in tables:
        aligned = [":--" if place < table.text_columns else "--:" for place in range(len(table.columns))]
        rows = [table.columns, aligned, *table.rows]
        cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        parts += [table.caption, "\n".join(f"| {' | '.join(row)} |" for row in cells)]
    return "\n\n".join([*parts, _METHOD, _CAUTION]) + "\n"


def _page(found: Comparison, tables: tuple[Table, ...], picture: bytes, title: str) -> str:
    scores, pairs, classes = tables
    warnings = [pages.Text(warning, "warn") for warning in found.warnings]
    alt = "Accuracies with intervals, differences to the best run, and F1 by class"
    return pages.render(
        pages.Page(
            title,
            f"{len(found.members)} runs, {found.examples:,} examples",
            [
                pages.Section("Scores", [*warnings, scores, pages.Text(_CAUTION, "soft")]),
                pages.Section("Figure", [pages.Picture(picture, alt)]),
                pages.Section("Differences", [pairs, pages.Text(_METHOD, "soft")]),
                pages.Section("Classes", [classes]),
            ],
        )
    )


def figure_png(found: Comparison, title: str) -> bytes:
    """Draws accuracies with their intervals, differences to the most accurate run, and F1 by class.

    Args:
        found: the comparison.
        title: the figure's title.

    Returns:
        The figure as PNG.
    """
    ranked, names = _ranked(found), found.members[0].class_names
    rows = len(ranked)
    upper, lower = 0.9 + 0.34 * rows, 1.0 + 0.36 * len(names) + 0.25 * -(-rows // 4)
    figure = new_figure(10.5, 0.6 + upper + lower, title)
    above, below = figure.subfigures(2, 1, height_ratios=(upper, lower))
    left, right = above.subplots(1, 2, sharey=True)
    places = np.arange(rows)
    for place, member in enumerate(ranked):
        scores, colour = member.metrics["scores"], _COLOURS[place % len(_COLOURS)]
        accuracy = scores["accuracy"]
        _interval(left, place, accuracy, scores["accuracy_low"], scores["accuracy_high"], colour)
        if place:
            one = found.between(member.name, ranked[0].name)
            _interval(right, place, one.difference, one.low, one.high, colour)
            note = f"p {_p(one.p_holm)}"
        else:
            right.plot(0, 0, "o", color=colour, markersize=6)
            note = "the most accurate"
        right.annotate(note, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=GREY)
    left.set_yticks(places, [plain(_shortened(member.name)) for member in ranked])
    left.set_ylim(rows - 0.5, -0.5)
    left.set_xlabel("Accuracy (%), 95 % interval")
    right.axvline(0, color=GREY, linestyle="--", linewidth=1)
    right.set_xlabel("Difference to the most accurate (percentage points)\np: McNemar's test with Holm's correction")
    axes = below.subplots()
    for place, member in enumerate(ranked):
        # Side by side within a class's row, or equal scores would hide each other.
        heights = np.arange(len(names)) + 0.6 * ((place + 0.5) / rows - 0.5)
        style = {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKERS[place // len(_COLOURS) % len(_MARKERS)]}
        axes.plot(
            100 * comparison.by_class(member),
            heights,
            linestyle="none",
            markersize=5.5,
            label=plain(_shortened(member.name)),
            **style,
        )
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("F1 by class (%)")
    for edge in np.arange(len(names) - 1) + 0.5:
        axes.axhline(edge, color=GRID, linewidth=0.7)
    below.legend(loc="outside lower center", ncols=min(4, rows), fontsize=9, frameon=False)
    for one in (left, right, axes):
        one.grid(axis="x", color=GRID, linewidth=0.7)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)


def _interval(axes: Any, place: int, value: float, low: float, high: float, colour: str) -> None:
    axes.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot(100 * value, place, "o", color=colour, markersize=6)


def _ranked(found: Comparison) -> list[Member]:
    return sorted(found.members, key=lambda member: -member.metrics["scores"]["accuracy"])


def _bands(content: Any) -> str:
    bands = content["bands"]
    return ",".join(bands) if len(bands) <= 4 else f"{len(bands)} bands"


def _validation(content: Any) -> str:
    value = content["selection"].get("value")
    return f"{value:.2%}" if isinstance(value, float) else "-"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _shortened(name: str) -> str:
    return name if len(name) <= _MOST_NAME else "…" + name[1 - _MOST_NAME :]
