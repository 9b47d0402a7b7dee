"""Curves of a training run by epoch."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from eo_keras.metrics.metric import ACCURACY, LOSS, Metric
from eo_keras.plots.figure import BLUE, GREY, RED, message_png, new_figure, plain, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATE = "learning_rate"


def training_curves_png(
    history: Mapping[str, Sequence[float]], title: str, note: str = "", metrics: Sequence[Metric] = (ACCURACY,)
) -> bytes:
    """Draws loss, scores and learning rate by epoch.

    Args:
        history: columns by name: `loss` and those of the metrics, also with the prefix `val_`, and `learning_rate`;
            what is absent is left out. `epoch`, where present, numbers the epochs, which otherwise count from 1. Values
            that are not finite (an epoch without validation) are left out.
        title: the figure's title.
        note: a line below the panels: why training and validation cannot be compared number by number.
        metrics: the scores, a panel each; the best epoch by each is marked.

    Returns:
        The figure as PNG.
    """
    series = {name: np.asarray(values, dtype=np.float64) for name, values in history.items()}
    known = {metric.name: metric for metric in (LOSS, *metrics)}
    there = {name.removeprefix("val_") for name in series}
    panels = [name for name in (*known, _RATE) if name in there]
    if not any(np.isfinite(series.get(kind + name, ())).any() for name in panels for kind in ("", "val_")):
        return message_png("No epoch has been completed.", title)

    width = 4.4 * max(len(panels), 2)
    figure = new_figure(width, 3.9, title)
    for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for label, column, color in (("Training", name, BLUE), ("Validation", f"val_{name}", RED)):
            values = series.get(column, np.empty(0))
            epochs = series.get("epoch", np.arange(1, len(values) + 1))[: len(values)]
            there = np.isfinite(values)
            if not there.any():
                continue
            if label == "Validation":
                best = int(np.argmax([known[name].rank(value) for value in values]))
                label += f" (best {values[best]:.4f}, epoch {epochs[best]:.0f})"
            # Markers, because one epoch alone would be a line without length.
            marker = "o" if there.sum() <= 40 else None
            axes.plot(epochs[there], values[there], color=color, marker=marker, markersize=3, label=label)
        _finish(axes, name, known[name].title if name in known else "learning rate")
    if note:
        figure.supxlabel(plain(textwrap.fill(note, int(14 * width))), fontsize=8.5, color=GREY)
    return png_bytes(figure)


def _finish(axes: Axes, name: str, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title[0].upper() + title[1:] if title.islower() else title, fontsize=11)
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    epochs = np.concatenate([line.get_xdata() for line in axes.get_lines()] or [np.empty(0)])
    if epochs.size and epochs.min() == epochs.max():
        # Matplotlib would divide the surroundings of a single epoch into hundredths.
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    axes.grid(color="#e5e5e5", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if name == _RATE:
        drawn = np.concatenate([line.get_ydata() for line in axes.get_lines()] or [np.empty(0)])
        if drawn.size and drawn.min() > 0 and drawn.max() > drawn.min():
            axes.set_yscale("log")
    elif axes.get_lines():
        axes.legend(fontsize=8.5, frameon=True, framealpha=0.9)
