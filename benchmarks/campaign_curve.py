"""Figure of a campaign whose rows differ in a number: the first score against it, with its intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.campaign_plan import SPLIT, Plan
from eo_keras.metrics.metric import metric_of
from eo_keras.plots.figure import GRID, message_png, new_figure, plain, png_bytes

_COLOURS = ("#2166ac", "#d6604d", "#1b7837", "#762a83", "#8c510a", "#555555")


def lines_of(plan: Plan, found: Mapping[str, Any]) -> dict[str, list[tuple[float, Mapping[str, Any]]]]:
    """Returns, by name of the line, the places of its rows and their first scores, in order.

    Args:
        plan: the plan, with `curve`.
        found: content of its results.json.
    """
    lines: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
    for row in found["rows"]:
        name, score = row["title"].rpartition(",")[0] or row["title"], row["evaluations"][SPLIT][plan.scores[0]]
        if score is not None:
            lines.setdefault(name, []).append((float(row["flags"][plan.curve]), score))
    return {name: sorted(line, key=lambda point: point[0]) for name, line in lines.items()}


def curve_png(plan: Plan, found: Mapping[str, Any]) -> bytes:
    """Draws the mean of each row with its 95 % interval, and its seeds as dots; returns the figure as PNG."""
    metric, lines = metric_of(plan.scores[0].partition(":")[0]), lines_of(plan, found)
    if not lines:
        return message_png("No row has been evaluated.", plan.title)
    figure = new_figure(7.5, 4.6, plan.title)
    axes = figure.add_subplot()
    for (name, line), colour in zip(lines.items(), _COLOURS * len(lines), strict=False):
        places, scores = [place for place, _ in line], [score for _, score in line]
        means = [score["mean"] for score in scores]
        axes.plot(places, means, color=colour, marker="_", markersize=14, linewidth=1.6, label=plain(name))
        with_ends = [(place, score["low"], score["high"]) for place, score in line if "low" in score]
        if with_ends:
            axes.fill_between(*zip(*with_ends, strict=True), color=colour, alpha=0.15, linewidth=0)
        for place, score in line:
            values = score["values"]
            axes.plot([place] * len(values), values, "o", color=colour, markersize=3.5, alpha=0.6)
    ticks = sorted({place for line in lines.values() for place, _ in line})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: metric.show(value))
    axes.set_xlabel(f"--{plan.curve}")
    axes.set_ylabel(plain(metric.title))
    axes.grid(color=GRID, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return png_bytes(figure)
