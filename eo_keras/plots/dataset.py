"""Figures of a data set, as PNG bytes: class balance, band histograms, and a map of the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from eo_keras.plots.figure import GREY, GRID, message_png, new_figure, plain, png_bytes
from eo_keras.sensors.radiometry import Reflectance

SPLIT_COLORS = {"train": "#4393c3", "val": "#e6a817", "test": "#b2182b"}
"""Colors of the splits, which differ in brightness too, for readers with red-green blindness."""

_OTHER_COLOR = "#777777"
_HISTOGRAM_COLUMNS = 3
_NARROWEST = 0.4
"""Smallest ratio of a map's shorter side to its longer one."""
_BARS = 96
_ACROSS = (0.001, 0.999)
"""Quantiles at which the axis of a histogram begins and ends."""


def class_balance_png(
    counts: Mapping[str, Mapping[str, int]], class_names: Sequence[str], title: str, counted: str = "Examples"
) -> bytes:
    """Draws the number of examples, or pixels, of each class and split.

    Args:
        counts: by split, the numbers by class.
        class_names: the classes in the order of the legend.
        title: the figure's title.
        counted: name of the counted units, in the plural.

    Returns:
        The figure as PNG.
    """
    if not counts or not class_names:
        return message_png("No example.", title)
    figure = new_figure(5.6, 0.9 + len(class_names) * (0.2 + 0.19 * len(counts)), title)
    axes = figure.add_subplot()
    height = 0.82 / len(counts)
    most = max(1, *(counts[split].get(name, 0) for split in counts for name in class_names))
    for place, (split, by_class) in enumerate(counts.items()):
        rows = np.arange(len(class_names)) - 0.41 + height * (place + 0.5)
        values = [by_class.get(name, 0) for name in class_names]
        total = sum(values)
        label = f"{split} ({total:,})"
        axes.barh(rows, values, height * 0.94, color=SPLIT_COLORS.get(split, _OTHER_COLOR), label=plain(label))
        for row, value in zip(rows, values, strict=True):
            text = f"{value:,} ({100 * value / max(1, total):.1f} %)"
            axes.text(value + most * 0.01, row, text, va="center", fontsize=7.5, color=GREY)
    axes.set_yticks(range(len(class_names)), [plain(name) for name in class_names])
    axes.set(xlim=(0, most * 1.33), ylim=(len(class_names) - 0.5, -0.5))
    axes.set_xlabel(f"{counted} (per cent of the split)")
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(counts), fontsize=9, frameon=False)
    return png_bytes(figure)


def band_histograms_png(
    counts: Mapping[str, npt.ArrayLike], bands: Sequence[str], reflectance: Reflectance | None, nodata: int, title: str
) -> bytes:
    """Draws the distribution of every band's numbers, one panel a band, one line a split.

    The axis spans the 0.1th to the 99.9th percentile of all splits together; dashed lines mark their 2nd and 98th.
    The lower axis shows stored numbers, the upper one reflectance where it is known.
    Each line is a share of its split's valid pixels, so that splits of different size can be compared.

    Args:
        counts: by split, the number of pixels (bands, numbers) with each stored number.
        bands: the bands' names.
        reflectance: relation of the stored numbers to reflectance, for a second axis above; None draws none.
        nodata: the number that means "no data"; it is left out.
        title: the figure's title.

    Returns:
        The figure as PNG.
    """
    from matplotlib.ticker import MaxNLocator

    splits = {}
    for split, numbers in counts.items():
        splits[split] = np.array(numbers, dtype=np.int64)
        splits[split][:, nodata] = 0
    if not any(numbers.any() for numbers in splits.values()):
        return message_png("No valid pixel.", title)
    columns = min(_HISTOGRAM_COLUMNS, len(bands))
    rows = -(-len(bands) // columns)
    figure = new_figure(max(2.5 * columns, 5), 2.1 * rows + 0.9, title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(bands) :]:
        axes.set_axis_off()
    for number, (axes, band) in enumerate(zip(panels, bands, strict=False)):
        whole = sum(numbers[number] for numbers in splits.values())
        axes.set_title(plain(band), fontsize=10.5, fontweight="bold")
        axes.tick_params(labelsize=7.5)
        axes.set_yticks([])
        axes.spines[["left", "right"]].set_visible(False)
        if not whole.any():
            axes.text(0.5, 0.5, "no valid pixel", ha="center", va="center", color=GREY, transform=axes.transAxes)
            continue
        first, last, low, high = (_percentile(whole, share) for share in (*_ACROSS, 0.02, 0.98))
        # Whole numbers in every bar, or bars would hold one number more or less and look ragged.
        width = max(1, -(-(last - first + 1) // _BARS))
        edges = np.arange(first, last + width + 1, width)
        for split, numbers in splits.items():
            seen = numbers[number]
            inside = np.add.reduceat(np.append(seen, 0), np.minimum(edges, len(seen)))[:-1]
            shares = inside / max(1, seen.sum())
            color = SPLIT_COLORS.get(split, _OTHER_COLOR)
            axes.stairs(shares, edges - 0.5, color=color, linewidth=1.1, label=plain(split) if not number else None)
        for mark in (low, high):
            axes.axvline(mark, color=GREY, linestyle="--", linewidth=0.8)
        axes.set_xlim(edges[0] - 0.5, edges[-1] - 0.5)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if reflectance is None:
            continue
        scale, offset = reflectance.scale, reflectance.offset
        above = axes.secondary_xaxis(
            "top", functions=(lambda x, s=scale, o=offset: x * s + o, lambda x, s=scale, o=offset: (x - o) / s)
        )
        above.tick_params(labelsize=7.5, colors=GREY)
        above.xaxis.set_major_locator(MaxNLocator(4))
    figure.legend(loc="outside lower center", ncols=len(splits), fontsize=9, frameon=False)
    return png_bytes(figure)


def _percentile(counts: np.ndarray, share: float) -> int:
    """Returns the smallest number that at least this share of the pixels does not exceed."""
    reached = np.cumsum(counts)
    return int(np.searchsorted(reached, max(1, share * reached[-1])))


def map_png(places: Mapping[str, npt.ArrayLike], title: str) -> bytes:
    """Draws the locations of examples; test examples are drawn over training examples.

    Args:
        places: by split, longitudes and latitudes (n, 2) in degrees.
        title: the figure's title.

    Returns:
        The figure as PNG.
    """
    splits = {split: np.asarray(points, np.float64).reshape(-1, 2) for split, points in places.items()}
    everything = np.concatenate([*splits.values(), np.empty((0, 2))])
    everything = everything[np.isfinite(everything).all(axis=1)]
    if not len(everything):
        return message_png("No example has coordinates.", title)
    (west, south), (east, north) = everything.min(axis=0), everything.max(axis=0)
    # A degree of longitude is shorter by the cosine of the latitude; a single location still gets a margin.
    stretch = 1 / max(0.05, np.cos(np.radians((south + north) / 2)))
    margin = max(0.02 * max(east - west, (north - south) * stretch), 0.01)
    across, along = east - west + 2 * margin, (north - south + 2 * margin / stretch) * stretch
    # Locations along a line get a wider margin: a strip would leave most of the figure empty.
    wider, taller = max(0.0, _NARROWEST * along - across) / 2, max(0.0, _NARROWEST * across - along) / 2
    west, east, across = west - wider, east + wider, across + 2 * wider
    south, north, along = south - taller / stretch, north + taller / stretch, along + 2 * taller
    # Size of the axes in inches, close to the map's aspect; labels, legend and title lie around them.
    width = float(np.clip(7.5 * across / along, 3.0, 5.0))
    figure = new_figure(width + 0.9, min(width * along / across, 7.5) + 1.3, title)
    axes = figure.add_subplot()
    size = float(np.clip(80 / np.sqrt(len(everything)), 1.2, 5))
    order = sorted(splits, key=lambda split: {"train": 0, "val": 1, "test": 2}.get(split, 3))
    for split in order:
        longitude, latitude = splits[split].T
        axes.plot(
            longitude,
            latitude,
            linestyle="none",
            marker="o",
            markersize=size,
            markeredgewidth=0,
            alpha=0.55,
            color=SPLIT_COLORS.get(split, _OTHER_COLOR),
            label=plain(f"{split} ({len(splits[split]):,})"),
        )
    axes.set(xlim=(west - margin, east + margin), ylim=(south - margin / stretch, north + margin / stretch))
    axes.set_aspect(stretch)
    axes.set(xlabel="Longitude (degrees)", ylabel="Latitude (degrees)")
    axes.set_facecolor("#fafafa")
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    legend = figure.legend(loc="outside lower center", ncols=len(splits), fontsize=9, frameon=False)
    for handle in legend.legend_handles:
        handle.set(markersize=6, alpha=1)
    return png_bytes(figure)
