"""Functions of all figures: new figures with a title, PNG bytes, figures of a message, fonts.

Figures are built from Matplotlib's objects, without pyplot: no global state, no window, any thread. Matplotlib is
imported when the first figure is drawn, so that importing this module costs nothing.
"""

from __future__ import annotations

import functools
import io
import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
BLUE, RED = "#2166ac", "#d6604d"
GREY = "#555555"
GRID = "#e5e5e5"

_FONT = "DejaVu Sans"
"""Font that comes with Matplotlib, with Latin, Greek, Cyrillic and Arabic letters."""

_FURTHER_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "SimHei"),
    *("Yu Gothic", "MS Gothic", "IPAGothic", "Malgun Gothic", "NanumGothic", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Ethiopic", "Noto Sans Bengali", "Noto Sans Tamil"),
)
"""Fonts of other scripts on common systems; those that are installed are used."""


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
    """Returns a figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    _set_fonts(figure)
    # "tight", because constrained layout does not see labels beside axes of fixed aspect and would cut long names off.
    # Without Matplotlib's version in the file, equal figures give equal bytes.
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
    """Escapes text for drawing: no formulas between dollar signs, and no characters that no font has."""
    return drawable(text).replace("$", r"\$")


def drawable(text: str) -> str:
    """Returns text with the characters that no font has replaced by code points, such as `[U+6797 U+5730]`."""
    if text.isascii():
        return text
    return "".join(
        "".join(run) if covered else f"[{' '.join(f'U+{ord(one):04X}' for one in run)}]"
        for covered, run in itertools.groupby(text, lambda one: one.isspace() or ord(one) in _characters())
    )


@functools.cache
def _families() -> tuple[str, ...]:
    """Returns fonts for the characters of texts."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return (_FONT, *(name for name in _FURTHER_FONTS if name in installed))


@functools.cache
def _characters() -> frozenset[int]:
    """Returns the code points that the fonts have."""
    from matplotlib import font_manager, ft2font

    paths = [font_manager.findfont(font_manager.FontProperties(family=name)) for name in _families()]
    return frozenset().union(*(ft2font.FT2Font(path).get_charmap() for path in paths))


def _set_fonts(figure: Figure) -> None:
    """Sets the fonts of all texts of a figure, without changing the global settings of Matplotlib."""
    from matplotlib.text import Text

    families = list(_families())
    for axes in figure.get_axes():
        # Also of ticks that are made while drawing.
        axes.tick_params(axis="both", which="both", labelfontfamily=families)
    for text in figure.findobj(Text):
        if not text.get_text().isascii():
            text.set_text(drawable(text.get_text()))
        if text.get_fontfamily() != ["monospace"]:
            text.set_fontfamily(families)


def classes_to_display(labels: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """Colors a mask by its classes.

    Args:
        labels: integers (..., height, width), indices of `colours`; any other number (such as 255, no class) is black.
        colours: one color `#rrggbb` a class.

    Returns:
        uint8 (..., height, width, 3).
    """
    table = np.zeros((len(colours) + 1, 3), np.uint8)
    table[:-1] = [[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in colours]
    labels = np.asarray(labels).astype(np.int64)
    return table[np.where((labels < 0) | (labels >= len(colours)), len(colours), labels)]
