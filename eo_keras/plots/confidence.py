"""Figures of confidence, as PNG bytes: accuracy by coverage, and accuracy on a map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eo_keras.metrics.by_location import AccuracyGrid
from eo_keras.metrics.selective import ACCURACIES, COVERAGES, Curve
from eo_keras.plots.figure import GREY, GRID, message_png, new_figure, png_bytes

_FEW = 5
_NARROWEST = 0.4
"""Smallest ratio of a map's shorter side to its longer one."""

_LINE, _MARK, _INCORRECT = "#2166ac", "#d6604d", "#b2182b"


def selective_accuracy_png(curve: Curve, title: str) -> bytes:
    """Draws accuracy on the most confident share of the examples, above the threshold that leaves this share.

    Args:
        curve: of `selective.risk_coverage`.
        title: the figure's title.

    Returns:
        The figure as PNG.
    """
    figure = new_figure(6.6, 6.6, f"{title}\nArea under the risk-coverage curve: {curve.aurc:.4f}")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    coverages, accuracies = 100 * curve.coverages, 100 * curve.accuracies
    upper.plot(coverages, accuracies, color=_LINE, linewidth=1.6, label="Accuracy of the most confident")
    lower.plot(coverages, curve.confidences, color=GREY, linewidth=1.6)
    lowest = float(accuracies.min())
    bottom = max(0.0, lowest - 0.25 * (100 - lowest) - 0.05)
    lines = []
    for coverage in COVERAGES:
        accuracy, threshold = curve.accuracy_at(coverage)
        upper.plot(100 * coverage, 100 * accuracy, "o", color=_LINE, markersize=5, clip_on=False, zorder=3)
        lines.append(f"{100 * coverage:>3.0f} % kept: {100 * accuracy:6.2f} % correct")
        lower.plot(100 * coverage, threshold, "o", color=GREY, markersize=4, clip_on=False, zorder=3)
    # The curve falls to the right, so that the corner below its left is free; beside flat curves, labels of the points
    # would hide each other.
    note = {"family": "monospace", "fontsize": 9, "bbox": {"facecolor": "white", "edgecolor": GRID, "pad": 4}}
    upper.text(0.03, 0.05, "\n".join(lines), transform=upper.transAxes, ha="left", va="bottom", zorder=4, **note)
    for accuracy, style in zip(ACCURACIES, ("--", ":"), strict=True):
        found = curve.coverage_at(accuracy)
        reached = f"at {100 * found[0]:.1f} % coverage (confidence {found[1]:.3f})" if found else "never reached"
        label = f"{100 * accuracy:g} % {reached}"
        upper.axhline(100 * accuracy, color=_MARK, linestyle=style, linewidth=1.1, label=label)
    upper.set(xlim=(0, 100), ylim=(bottom, 100 + 0.05 * (100 - bottom)), ylabel="Accuracy (%)")
    lower.set(ylim=(0, 1.02), ylabel="Threshold", xlabel="Coverage: share of the examples that are kept (%)")
    for axes in (upper, lower):
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=1, fontsize=9, frameon=False)
    return png_bytes(figure)


def accuracy_map_png(degrees: npt.ArrayLike, correct: npt.ArrayLike, grid: AccuracyGrid, title: str) -> bytes:
    """Draws the accuracy by location: a square a cell with its number of examples, errors as dots.

    Cells of fewer than five examples are pale: one prediction more or less would give them another color.

    Args:
        degrees: (N, 2) longitude and latitude, NaN where they are not known.
        correct: bool (N,) whether the predictions are correct.
        grid: of `by_location.accuracy_by_cell`.
        title: the figure's title.

    Returns:
        The figure as PNG.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    degrees, correct = np.asarray(degrees, np.float64), np.asarray(correct, bool)
    known = np.isfinite(degrees).all(axis=1)
    if not known.any():
        return message_png("No example has a place.", title)
    cells = np.array([[cell.west, cell.south, cell.examples, cell.correct] for cell in grid.cells])
    side = grid.degrees
    west, south = cells[:, :2].min(axis=0) - side
    east, north = cells[:, :2].max(axis=0) + 2 * side
    # A degree of longitude is shorter than one of latitude, by the cosine.
    stretch = 1 / max(0.05, np.cos(np.radians((south + north) / 2)))
    across, along = east - west, (north - south) * stretch
    # Cells in a row, or one above the other, get surroundings: a strip would leave most of the figure empty.
    wider, taller = max(0.0, _NARROWEST * along - across) / 2, max(0.0, _NARROWEST * across - along) / 2
    west, east, across = west - wider, east + wider, across + 2 * wider
    south, north, along = south - taller / stretch, north + taller / stretch, along + 2 * taller
    width = float(np.clip(8.5 * across / along, 4.5, 8.0))
    incorrect = degrees[known & ~correct]
    note = f"{known.sum():,} of {len(known):,} examples have coordinates; {len(incorrect):,} of these are incorrect"
    figure = new_figure(width + 1.8, min(width * along / across, 9.0) + 1.5, f"{title}\n{note}")
    axes = figure.add_subplot()
    axes.set(xlim=(west, east), ylim=(south, north), xlabel="Longitude (degrees)", ylabel="Latitude (degrees)")
    axes.set_aspect(stretch)
    shares = cells[:, 3] / cells[:, 2]
    # From about the worst cells on, or those of a good model would all look alike.
    lowest = min(0.9, float(np.floor(20 * np.quantile(shares, 0.05)) / 20))
    # The light part of a color map: numbers and dots are read on top of it.
    colors = LinearSegmentedColormap.from_list("light", colormaps["YlGnBu"](np.linspace(0.08, 0.55, 64)))
    squares = PatchCollection([Rectangle(cell[:2], side, side) for cell in cells], cmap=colors, linewidth=0.6)
    squares.set(array=shares, clim=(lowest, 1), edgecolor="#bbbbbb", zorder=2)
    squares.set_alpha(np.where(cells[:, 2] < _FEW, 0.3, 1.0))
    axes.add_collection(squares)
    # In points, 1/72 inch: three digits fit into a cell.
    font = float(np.clip(0.3 * 72 * width * side / across, 3.5, 9))
    for x, y, examples, _ in cells:
        text, color = f"{int(examples):,}", "#888888" if examples < _FEW else "black"
        axes.text(x + side / 2, y + side / 2, text, ha="center", va="center", fontsize=font, color=color, zorder=3)
    marks = {"markersize": 5, "markeredgewidth": 0.8, "markeredgecolor": "white", "zorder": 4, "label": "incorrect"}
    axes.plot(incorrect[:, 0], incorrect[:, 1], linestyle="none", marker="o", color=_INCORRECT, **marks)
    axes.set_facecolor("#fafafa")
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    extend = "min" if shares.min() < lowest else "neither"
    scale = ScalarMappable(norm=squares.norm, cmap=colors)
    bar = figure.colorbar(scale, ax=axes, fraction=0.04, pad=0.02, aspect=30, extend=extend)
    bar.set_label(
        f"Share of correct predictions in a cell of {side:g} degrees\nnumber: its examples; pale: fewer than {_FEW}"
    )
    figure.legend(loc="outside lower center", fontsize=9, frameon=False)
    return png_bytes(figure)
