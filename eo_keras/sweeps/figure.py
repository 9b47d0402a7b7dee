"""The figure of a sweep: validation score against one varied flag, a line for each value of another."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eo_keras.plots.figure import GREY, GRID, message_png, new_figure, plain, png_bytes
from eo_keras.sweeps.grid import SEED, format_value
from eo_keras.sweeps.state import FAILED, FINISHED, RunStatus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_USUAL = ("learning_rate", "weight_decay")
_MARKERS = "osD^vPX<>*"
_BAD = "#b2182b"
_SPREAD = 0.22
"""Share of the distance between two values over which the lines' dots stand beside each other."""


def shown_flags(results: Sequence[RunStatus]) -> tuple[str, str | None]:
    """Returns the flag of the horizontal axis and that of the lines, or None where one flag alone is varied.

    Learning rate and weight decay where nothing else but seeds is varied, otherwise the two flags of most values.
    """
    names = [name for name in results[0].settings if name != SEED]
    if not names:
        return SEED, None
    if set(names) <= set(_USUAL):
        ranked = sorted(names, key=_USUAL.index)
    else:
        ranked = sorted(names, key=lambda name: -len(_values(results, name)))
    return ranked[0], ranked[1] if len(ranked) > 1 else None


def _values(results: Sequence[RunStatus], name: str) -> list[Any]:
    values = {format_value(result.settings[name]): result.settings[name] for result in results}
    ordered = all(isinstance(value, (int, float)) for value in values.values())
    return sorted(values.values()) if ordered else list(values.values())


def figure_png(results: Sequence[RunStatus], best: Mapping[str, Any] | None = None, metric: str = "accuracy") -> bytes:
    """Draws the score of the kept epoch on validation examples: a dot a run, a line through the means.

    Args:
        results: the runs; those that are not finished are left out, and failed ones are crosses on the lower edge.
        best: values of the flags of the best setting, whose runs are ringed.
        metric: name of the score.

    Returns:
        The figure as PNG.
    """
    across, lines = shown_flags(results)
    title = f"Validation {metric} of a sweep"
    finished = [result for result in results if result.status == FINISHED]
    failed = [result for result in results if result.status == FAILED]
    if not finished:
        return message_png("No run has been finished.", title)

    from matplotlib import colormaps

    figure = new_figure(8.2, 4.9, title)
    axes = figure.add_subplot()
    values = _values(results, across)
    places, step = _axis(axes, across, values)
    kinds = _values(results, lines) if lines else [None]
    for number, kind in enumerate(kinds):
        # From dark to light, for the values are in order; the lightest end cannot be seen on white.
        colour = colormaps["viridis"](0.82 * number / max(1, len(kinds) - 1))
        shift = _SPREAD * ((number + 0.5) / len(kinds) - 0.5)
        marker = _MARKERS[number % len(_MARKERS)]
        mine = [one for one in finished if lines is None or one.settings[lines] == kind]
        means = []
        for value in values:
            here = [one for one in mine if one.settings[across] == value]
            at = step(places[format_value(value)], shift)
            for one in here:
                chosen = bool(best) and all(one.settings[name] == value for name, value in best.items())
                axes.plot(
                    at,
                    100 * one.score,
                    marker,
                    color=colour,
                    markersize=8 if chosen else 6,
                    alpha=0.75,
                    markeredgecolor="black" if chosen else "white",
                    markeredgewidth=1.3 if chosen else 0.6,
                    zorder=3,
                )
            if here and across != SEED:
                means.append((at, 100 * statistics.fmean(one.score for one in here)))
        if means:
            # A bar at each mean: a dot would look like a run.
            axes.plot(*zip(*means, strict=True), color=colour, marker="_", markersize=15, linewidth=1.8)
            label = f"{lines} {format_value(kind)}" if lines else "mean"
            axes.plot([], [], color=colour, marker=marker, linewidth=1.8, label=plain(label))
        _crosses(
            axes, [one for one in failed if lines is None or one.settings[lines] == kind], across, places, step, shift
        )
    _finish(axes, results, across, lines, failed, best)
    axes.set_ylabel(f"Validation {metric} (%)")
    if lines or across != SEED:
        figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    return png_bytes(figure)


def _axis(axes: Axes, name: str, values: Sequence[Any]) -> tuple[dict[str, float], Any]:
    """Sets the horizontal axis up; returns the place of each value, and how a place is shifted by a share of a step."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 for value in values)
    if numbers and name != SEED and len(values) > 1:
        axes.set_xscale("log")
        ratio = min(later / earlier for earlier, later in zip(values, values[1:], strict=False))
        places = {format_value(value): float(value) for value in values}
        axes.set_xlim(values[0] / ratio**0.5, values[-1] * ratio**0.5)

        def step(place: float, share: float) -> float:
            return place * ratio**share
    else:
        places = {format_value(value): float(number) for number, value in enumerate(values)}
        axes.set_xlim(-0.5, len(values) - 0.5)

        def step(place: float, share: float) -> float:
            return place + share

    axes.set_xticks(list(places.values()), [plain(text) for text in places])
    axes.minorticks_off()
    return places, step


def _crosses(axes: Axes, failed: Sequence[RunStatus], across: str, places, step, shift: float) -> None:
    for one in failed:
        at = step(places[format_value(one.settings[across])], shift)
        # Placed by a share of the vertical axis: a failed run has no score.
        axes.plot(
            at, 0.03, "x", color=_BAD, markersize=8, markeredgewidth=2, transform=axes.get_xaxis_transform(), zorder=3
        )


def _finish(axes: Axes, results, across: str, lines: str | None, failed, best) -> None:
    scale = ", logarithmic" if axes.get_xscale() == "log" else ""
    averaged = [name for name in results[0].settings if name not in (across, lines)]
    note = "dots: runs"
    if averaged:
        note += f"; bars and lines: means over {' and '.join(averaged)}"
    if best:
        note += "; black rings: the best setting"
    if failed:
        note += "; red crosses: failed runs"
    axes.set_xlabel(plain(f"{across}{scale}\n{note}"))
    axes.xaxis.label.set_color(GREY)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if failed:
        # Room for the crosses below the lowest dot.
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.1 * (high - low), high)
