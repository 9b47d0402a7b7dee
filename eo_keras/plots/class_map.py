"""Figures of a class map, as PNG bytes: a quick look with legend, scale bar, north arrow and grid, and areas."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eo_keras.geo import reference_systems
from eo_keras.geo.footprints import transformed
from eo_keras.geo.grid import Grid
from eo_keras.legends.catalogue import Legend
from eo_keras.plots.figure import DPI, GREY, GRID, classes_to_display, new_figure, plain, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST = 1350
"""Pixels of the longer side of a drawn map."""

_LEFT_IN, _GAP_IN = 0.6, 0.25
"""Inches for the labels left of the map, and between map and legend."""

_LEGEND_IN, _LEGEND_LETTERS = 2.3, 13
"""Widest text of the legend in inches, and letters per inch in it."""

_NARROWEST_IN = 4.0  # Width of the scale bar and the line below it.
_LINE_IN = 0.205  # Height of a line of the legend.
_NO_DATA = "#ffffff"
_INK = "#222222"
_LONGEST_BAR_IN = 2.4


def class_map_png(
    labels: np.ndarray,
    grid: Grid,
    legend: Legend,
    title: str,
    attribution: str = "",
    shares: Sequence[float] | None = None,
) -> bytes:
    """Draws a map in the colors of its legend, north as in its CRS.

    Args:
        labels: uint8 (rows, columns), the whole map or a smaller copy of it; other numbers than labels are no data.
        grid: the grid of the whole map.
        legend: the classes; those that occur are listed beside the map.
        title: the figure's title.
        attribution: a line below the map.
        shares: share of each class in the area that has a class, for the legend; None for none.

    Returns:
        The figure as PNG.
    """
    west, south, east, north = grid.bounds
    stretch = _stretch(grid)
    across, along = (east - west) * stretch, north - south
    # The map is as large as its pixels are at most; the smaller side of a narrow one stays visible.
    width, height = (max(LONGEST / DPI * side / max(across, along), 0.05) for side in (across, along))
    entries = _entries(labels, legend, shares)
    lines = [line for text, _ in entries for line in text.split("\n")]
    across_in = max(width + _GAP_IN + 0.45 + max(map(len, lines), default=0) / _LEGEND_LETTERS, _NARROWEST_IN)
    title = _wrapped(title, across_in, 8)
    note = _wrapped(" · ".join(filter(None, (_crs_title(grid.crs), attribution))), max(width, _NARROWEST_IN), 15)
    above, below = 0.35 + 0.24 * (1 + title.count("\n")), 1.3 + 0.14 * note.count("\n")
    size = _LEFT_IN + across_in, above + max(height + below, len(lines) * _LINE_IN + 0.1)
    figure = new_figure(*size, "")
    figure.set_layout_engine("none")
    axes = figure.add_axes(
        (_LEFT_IN / size[0], 1 - (above + height) / size[1], width / size[0], height / size[1]), zorder=1
    )
    _draw_labels(axes, labels, grid, legend)
    axes.set(xlim=(west, east), ylim=(south, north))
    axes.set_aspect("auto")
    _draw_grid(axes, grid, (width, height))
    # Everything else is placed in inches from the lower left corner of the figure.
    page = figure.add_axes((0, 0, 1, 1), zorder=2)
    page.set(xlim=(0, size[0]), ylim=(0, size[1]))
    page.set_axis_off()
    top, bottom = size[1] - above, size[1] - above - height
    page.text(_LEFT_IN, top + 0.16, plain(title), fontsize=13, fontweight="bold", color=_INK, va="bottom")
    _draw_legend(page, entries, (_LEFT_IN + width + _GAP_IN, top))
    _draw_north(page, grid, stretch, (_LEFT_IN + 0.16, bottom - 0.72))
    _draw_scale(page, grid, width, (_LEFT_IN + 0.62, bottom - 0.84))
    page.text(_LEFT_IN, bottom - 1.1, plain(note), fontsize=7.5, color=GREY, va="top", linespacing=1.3)
    return png_bytes(figure)


def class_areas_png(hectares: Sequence[float], legend: Legend, title: str) -> bytes:
    """Draws the areas of a map's classes as bars in the colors of its legend.

    Args:
        hectares: area of each class.
        legend: the classes.
        title: the figure's title.

    Returns:
        The figure as PNG.
    """
    figure = new_figure(7.2, 1.0 + 0.27 * len(legend), title)
    axes = figure.add_subplot()
    values = np.asarray(hectares, float)
    whole, most = max(values.sum(), 1e-9), max(values.max(), 1e-9)
    rows = np.arange(len(legend))
    axes.barh(rows, values, 0.74, color=legend.colours, edgecolor=_INK, linewidth=0.5)
    for row, value in zip(rows, values, strict=True):
        text = f"{value:,.{1 if value < 100 else 0}f} ha ({_per_cent(value / whole)})"
        axes.text(value + most * 0.012, row, text, va="center", fontsize=8, color=GREY)
    axes.set_yticks(rows, [plain(name) for name in legend.class_names], fontsize=8.5)
    axes.set(xlim=(0, most * 1.32), ylim=(len(legend) - 0.5, -0.5))
    axes.set_xlabel("Area in hectares", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.xaxis.set_major_formatter("{x:,.0f}" if most >= 10 else "{x:g}")
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)


def _stretch(grid: Grid) -> float:
    """Returns the length of a unit of x on the ground over that of a unit of y, in the middle of a grid."""
    if not reference_systems.is_in_degrees(grid.crs):
        return 1.0
    _, south, _, north = grid.bounds
    return max(0.05, math.cos(math.radians(min(abs(south + north) / 2, 89))))


def _draw_labels(axes: Axes, labels: np.ndarray, grid: Grid, legend: Legend) -> None:
    from matplotlib.transforms import Affine2D

    colours = classes_to_display(labels, legend.colours)
    colours[labels >= len(legend)] = [int(_NO_DATA[place : place + 2], 16) for place in (1, 3, 5)]
    a, b, c, d, e, f = grid.transform
    down, right = grid.height / labels.shape[0], grid.width / labels.shape[1]
    turned = b != 0 or d != 0
    placed = Affine2D.from_values(a * right, d * right, b * down, e * down, c, f)
    axes.imshow(
        colours,
        extent=(0, labels.shape[1], labels.shape[0], 0),
        transform=placed + axes.transData,
        interpolation="nearest",
        zorder=1,
    )
    axes.set_facecolor(_NO_DATA if not turned else "#f4f4f4")


def _draw_grid(axes: Axes, grid: Grid, inches: tuple[float, float]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    degrees = reference_systems.is_in_degrees(grid.crs)
    for axis, letters, length in zip((axes.xaxis, axes.yaxis), ("EW", "NS"), inches, strict=True):
        ticks = min(8, int(length / 1.1))
        # The lowest label of y would meet the first one of x.
        prune = "lower" if axis is axes.yaxis else None
        locator = MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10], prune=prune) if ticks else NullLocator()
        axis.set_major_locator(locator)
        axis.set_major_formatter(FuncFormatter(_Degrees(letters) if degrees else _thousands))
    axes.tick_params(labelsize=7, colors=GREY, length=3)
    axes.tick_params(axis="y", labelrotation=90)
    for label in axes.get_yticklabels():
        label.set_verticalalignment("center")
    axes.grid(color="black", alpha=0.28, linewidth=0.4)
    for spine in axes.spines.values():
        spine.set(linewidth=0.8, color=_INK)


class _Degrees:
    """Formatter of degrees with the letter of their side, such as 11.5° E."""

    def __init__(self, letters: str):
        self._letters = letters

    def __call__(self, value: float, _: Any = None) -> str:
        value = round(value, 9)
        letter = f" {self._letters[int(value < 0)]}" if value else ""
        return f"{abs(value):.7g}°{letter}"


def _thousands(value: float, _: Any = None) -> str:
    return f"{value:,.10g}".replace(",", "\u202f")


def _entries(labels: np.ndarray, legend: Legend, shares: Sequence[float] | None) -> list[tuple[str, str]]:
    """Returns the texts and colors of the legend: the classes that occur, and no data if there is some."""
    present = np.bincount(labels.ravel(), minlength=256) > 0
    if shares is not None:
        present[: len(legend)] |= np.asarray(shares) > 0
    entries = []
    for label, item in enumerate(legend.classes):
        if present[label]:
            share = "" if shares is None else f"  {_per_cent(shares[label])}"
            entries.append((_wrapped(f"{item.name}{share}", _LEGEND_IN, _LEGEND_LETTERS), item.colour))
    if present[len(legend) :].any():
        entries.append(("no data", _NO_DATA))
    return entries


def _draw_legend(page: Axes, entries: Sequence[tuple[str, str]], place: tuple[float, float]) -> None:
    from matplotlib.patches import Rectangle

    left, top = place
    for text, colour in entries:
        page.add_patch(Rectangle((left, top - 0.15), 0.24, 0.14, facecolor=colour, edgecolor=_INK, linewidth=0.5))
        page.text(left + 0.34, top - 0.08, plain(text.partition("\n")[0]), fontsize=8.5, color=_INK, va="center")
        for number, line in enumerate(text.split("\n")[1:], 1):
            page.text(left + 0.34, top - 0.08 - 0.16 * number, plain(line), fontsize=8.5, color=_INK, va="center")
        top -= _LINE_IN * (1 + 0.8 * text.count("\n"))


def _per_cent(share: float) -> str:
    per_cent = 100 * share
    return f"{per_cent:.1f} %" if per_cent >= 0.05 or not per_cent else "< 0.1 %"


def _draw_north(page: Axes, grid: Grid, stretch: float, place: tuple[float, float]) -> None:
    """Draws an arrow to true north in the middle of the map."""
    from matplotlib.patches import Polygon

    west, south, east, north = grid.bounds
    middle = np.array([[(west + east) / 2, (south + north) / 2]])
    degrees = transformed(middle, grid.crs, "EPSG:4326")
    step = transformed(degrees + [[0.0, 1e-4]], "EPSG:4326", grid.crs) - middle
    if not np.isfinite(step).all():
        return
    up = np.array([step[0, 0] * stretch, step[0, 1]]) / math.hypot(step[0, 0] * stretch, step[0, 1])
    right = np.array([up[1], -up[0]])
    for sign, colour in ((-1, _INK), (1, "white")):
        half = [place + along * up + sign * across * right for along, across in ((0.26, 0), (-0.18, 0.1), (-0.1, 0))]
        page.add_patch(Polygon(half, closed=True, facecolor=colour, edgecolor=_INK, linewidth=0.8))
    page.text(*(place + 0.36 * up), "N", ha="center", va="center", fontsize=9, fontweight="bold", color=_INK)


def _draw_scale(page: Axes, grid: Grid, width: float, place: tuple[float, float]) -> None:
    """Draws a bar whose length on the ground is that in the middle of the map."""
    from matplotlib.patches import Rectangle

    meters = _ground_width(grid)
    if not math.isfinite(meters) or meters <= 0:
        return
    length = _nice_length(meters / width * _LONGEST_BAR_IN)
    (left, bottom), inches = place, length / meters * width
    for part in range(4):
        page.add_patch(
            Rectangle(
                (left + part * inches / 4, bottom),
                inches / 4,
                0.07,
                facecolor="white" if part % 2 else _INK,
                edgecolor=_INK,
                linewidth=0.7,
            )
        )
    unit, factor = ("km", 1000) if length >= 1000 else ("m", 1)
    texts = ("0", f"{length / 2 / factor:g}", f"{length / factor:g} {unit}")
    for part, text in zip((0, 2, 4), texts, strict=True):
        page.text(left + part * inches / 4, bottom + 0.13, text, ha="center", va="bottom", fontsize=7.5, color=_INK)


def _ground_width(grid: Grid) -> float:
    """Returns the length in meters of the horizontal line through the middle of the bounds, from one edge to the other.

    It is that of a pixel in the middle, as often as it fits, so that it is true in the middle.
    """
    west, south, east, north = grid.bounds
    pixel = grid.pixel_size
    here = Grid(grid.crs, (pixel, 0.0, (west + east) / 2, 0.0, -pixel, (south + north) / 2), 1, 1)
    return reference_systems.pixel_on_ground(here)[0] * (east - west) / pixel


def _nice_length(most: float) -> float:
    """Returns the largest of 1, 2, 5, 10, 20, ... that is not above a number."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(nice * power for nice in (1, 2, 5) if nice * power <= most * (1 + 1e-9))


def _crs_title(crs: str) -> str:
    return crs if crs.startswith("EPSG:") else crs.partition('"')[2].partition('"')[0] or "CRS of its own"


def _wrapped(text: str, inches: float, letters_per_inch: float) -> str:
    return "\n".join(textwrap.fill(line, max(12, int(letters_per_inch * inches))) for line in text.splitlines())
