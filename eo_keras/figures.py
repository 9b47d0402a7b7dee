"""What all figures share: an empty one with its title, its PNG bytes, and a figure that only says a sentence.

Figures are built from Matplotlib's objects, without pyplot: no global state, no window, any thread. Matplotlib is
imported when the first figure is drawn, so that importing this module costs nothing.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
GREY = "#555555"
GRID = "#e5e5e5"


def new_figure(width: float, height: float, title: str) -> Figure:
    """Returns an empty figure with a title, sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    # Matplotlib does not break titles; nine letters of this size take an inch.
    lines = [textwrap.fill(line, max(20, int(9 * width))) for line in title.splitlines()]
    figure.suptitle(plain("\n".join(lines)), fontsize=13)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """Returns a figure as PNG; equal pictures are equal bytes."""
    buffer = io.BytesIO()
    # "tight", because constrained layout does not see labels beside axes of fixed aspect and would cut long names off.
    # Without Matplotlib's version in the file equal pictures are equal bytes.
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
    return buffer.getvalue()


def message_png(message: str, title: str) -> bytes:
    """Returns a figure that holds a sentence in place of a drawing."""
    figure = new_figure(6.5, 2.2, title)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", fontsize=12, color=GREY, transform=axes.transAxes)
    return png_bytes(figure)


def plain(text: str) -> str:
    """Keeps Matplotlib from reading a pair of dollar signs as a formula."""
    return text.replace("$", r"\$")


def classes_to_display(labels: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """Draws a map of classes in their colours.

    Args:
        labels: integers (..., height, width), places in `colours`; any other number (such as 255, no class) is black.
        colours: one colour `#rrggbb` a class.

    Returns:
        uint8 (..., height, width, 3).
    """
    table = np.zeros((len(colours) + 1, 3), np.uint8)
    table[:-1] = [[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in colours]
    labels = np.asarray(labels).astype(np.int64)
    return table[np.where((labels < 0) | (labels >= len(colours)), len(colours), labels)]
