"""Figures of an evaluation or a training run, as PNG bytes, and images for display.

Figures are built from Matplotlib's objects, without pyplot: no global state, no window, any thread. Matplotlib is
imported when the first figure is drawn, so that importing this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from eo_keras.errors import BandError, RecordsError
from eo_keras.metrics.scores import ReliabilityBin
from eo_keras.plots.figure import BLUE, GREY, RED, message_png, new_figure, plain, png_bytes
from eo_keras.records.example import has_data
from eo_keras.sensors.radiometry import stretch_like_eurosat_jpeg
from eo_keras.sensors.sentinel2 import COMPOSITES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CORRECT, _INCORRECT = "#1a7a1a", "#b2182b"
_MOST_MISTAKES, _TILE_COLUMNS = 40, 8
_MOST_SAMPLES = 10


def confusion_matrix_png(
    confusion: npt.ArrayLike,
    class_names: Sequence[str],
    title: str,
    counted: str = "examples",
    *,
    small: bool = False,
) -> bytes:
    """Draws a confusion matrix: color is the share of the true class, cells hold count and per cent.

    The color scale follows the square root of the share, or the errors of a good model would all look white.

    Args:
        confusion: (C, C) counts, rows true and columns predicted.
        class_names: C names in the legend's order.
        title: the figure's title.
        counted: name of the counted items.
        small: whether it is to be read as a thumbnail too: cells hold whole per cent alone.

    Returns:
        The figure as PNG.

    Raises:
        ValueError: if the matrix is not square or does not fit the names.
    """
    from matplotlib.colors import PowerNorm

    confusion = np.asarray(confusion)
    size = len(class_names)
    if confusion.shape != (size, size):
        raise ValueError(f"a confusion matrix of shape {confusion.shape} does not fit {size} class names")
    support = confusion.sum(axis=1)
    shares = confusion / np.maximum(support, 1)[:, None]

    side = max(2.4, 0.36 * size) if small else max(4.5, 0.78 * size)
    figure = new_figure(side + 2.4, side * 0.85 + 1.6, title)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1), aspect="auto")
    for row, column in np.ndindex(size, size):
        count, share = int(confusion[row, column]), shares[row, column]
        # Zeros stay, but pale: they must not hide the cells in which something happened.
        text = f"{100 * share:.0f}" if small else f"{count:,}\n{_per_cent(share)}" if count else "0"
        color = "#aaaaaa" if not count else "white" if share > 0.4 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=color, linespacing=1.25)
    names = [plain(name) for name in class_names]
    axes.set_xticks(range(size), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), [f"{name} ({count:,})" for name, count in zip(names, support, strict=True)])
    axes.set_xlabel("Predicted class", fontsize=11)
    axes.set_ylabel(f"True class (number of {counted})", fontsize=11)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    if small:
        axes.set_xlabel("Predicted class (cells: per cent of the true class)", fontsize=9)
        return png_bytes(figure)
    bar = figure.colorbar(
        image, ax=axes, fraction=0.04, pad=0.02, aspect=30, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1]
    )
    bar.ax.set_yticklabels(["0 %", "1 %", "5 %", "10 %", "25 %", "50 %", "75 %", "100 %"])
    bar.ax.tick_params(which="minor", length=0)
    bar.set_label("Share of the true class")
    return png_bytes(figure)


def reliability_png(
    bins: Sequence[ReliabilityBin],
    ece: float,
    title: str,
    calibrated: Sequence[ReliabilityBin] = (),
    note: str = "",
) -> bytes:
    """Draws a reliability diagram (Guo et al. 2017, section 2) above a histogram of the confidences.

    Args:
        bins: the bins of `calibration.reliability`; empty ones have no bar.
        ece: the expected calibration error, a fraction of 1.
        title: the figure's title.
        calibrated: the bins of the same predictions after temperature scaling, drawn as a curve; empty for none.
        note: a line below the title that says what scaled them.

    Returns:
        The figure as PNG.
    """
    lines = [title, f"Expected calibration error: {100 * ece:.2f} %", *([note] if note else [])]
    figure = new_figure(6.2, 7.2, "\n".join(lines))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = [one for one in bins if one.count]
    left = [one.lower for one in filled]
    width = [one.upper - one.lower for one in filled]
    accuracy = [one.accuracy for one in filled]
    gap = [one.confidence - one.accuracy for one in filled]
    style = {"align": "edge", "linewidth": 0.8}
    upper.bar(left, accuracy, width, color="#92c5de", edgecolor=BLUE, label="Accuracy", **style)
    hatched = {"facecolor": "none", "edgecolor": RED, "hatch": "////"}
    upper.bar(left, gap, width, bottom=accuracy, label="Gap to mean confidence", **hatched, **style)
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="Perfect calibration")
    if scaled := [one for one in calibrated if one.count]:
        points = [one.confidence for one in scaled], [one.accuracy for one in scaled]
        upper.plot(*points, color=_CORRECT, linewidth=1.4, label="After temperature scaling")
        # Bins of few examples have smaller dots.
        sizes = [6 + 14 * np.log10(one.count) for one in scaled]
        upper.scatter(*points, s=sizes, color=_CORRECT, zorder=3, clip_on=False)
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="Accuracy")
    # Outside of the axes, where no bar can lie beneath it.
    figure.legend(loc="outside lower center", ncols=2 if scaled else 3, fontsize=9, frameon=False)
    lower.bar(left, [one.count for one in filled], width, color="#bbbbbb", edgecolor=GREY, **style)
    if scaled:
        edges = [calibrated[0].lower, *(one.upper for one in calibrated)]
        lower.stairs([one.count for one in calibrated], edges, color=_CORRECT, linewidth=1.4)
    if filled:
        # Most predictions of a good model are in the last bin: on a linear axis the others would not be seen.
        lower.set_yscale("log")
        lower.set_ylim(0.7, 2 * max(one.count for one in (*filled, *scaled)))
    lower.set(xlabel="Confidence (top probability)", ylabel="Examples (log)")
    for axes in (upper, lower):
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.7)
        axes.set_axisbelow(True)
    return png_bytes(figure)


def mistakes_png(
    images: npt.ArrayLike,
    true_names: Sequence[str],
    predicted_names: Sequence[str],
    confidences: npt.ArrayLike,
    keys: Sequence[str],
    title: str,
    total: int | None = None,
) -> bytes:
    """Draws the most confident mistakes in falling order, 40 at the most.

    Args:
        images: (M, H, W, 3) uint8, the incorrectly classified examples and no others.
        true_names: M names of the true classes.
        predicted_names: M names of the predicted classes.
        confidences: (M,) probabilities of the predicted classes, fractions of 1.
        keys: M keys of the examples; of long ones the part after the last slash, or the end, is shown.
        title: the figure's title.
        total: number of all mistakes, where M is only the most confident of them.

    Returns:
        The figure as PNG; without mistakes it says so.

    Raises:
        ValueError: if the arguments differ in length.
    """
    _check_lengths(images, true_names, predicted_names, confidences, keys)
    if not len(images):
        return message_png("No mistake: every example was classified correctly.", title)
    order = np.argsort(-np.asarray(confidences, dtype=np.float64), kind="stable")[:_MOST_MISTAKES]
    total = len(images) if total is None else total
    count = "1 mistake" if total == 1 else f"{total:,} mistakes"
    if total > len(order):
        count = f"The {len(order)} most confident of {count}"
    return _captioned_tiles_png(images, true_names, predicted_names, confidences, keys, order, f"{title}\n{count}")


def samples_png(
    images: npt.ArrayLike,
    true_names: Sequence[str],
    predicted_names: Sequence[str],
    confidences: npt.ArrayLike,
    keys: Sequence[str],
    title: str,
    columns: int = _TILE_COLUMNS,
) -> bytes:
    """Draws examples in the order given, 40 at the most; the arguments are those of `mistakes_png`.

    Raises:
        ValueError: if the arguments differ in length.
    """
    _check_lengths(images, true_names, predicted_names, confidences, keys)
    if not len(images):
        return message_png("No example.", title)
    order = np.arange(min(len(images), _MOST_MISTAKES))
    return _captioned_tiles_png(images, true_names, predicted_names, confidences, keys, order, title, columns)


def _check_lengths(*columns) -> None:
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        raise ValueError(f"images, names, confidences and keys have different lengths: {sorted(lengths)}")


def _captioned_tiles_png(
    images, true_names, predicted_names, confidences, keys, order, title: str, columns: int = _TILE_COLUMNS
) -> bytes:
    """Draws the images of `order`, each above its true and predicted name; an incorrect one is red."""
    columns = min(columns, len(order))
    rows = -(-len(order) // columns)
    # One unit is one column's width; a row is an image of one unit, three lines of caption and a gap.
    unit, caption = 1.85, 0.38
    figure = new_figure(max(unit * columns, 6) + 0.2, unit * rows * (1 + caption) + 0.7, title)
    axes = _tile_axes(figure, columns, rows * (1 + caption))
    for place, index in enumerate(order):
        left, top = place % columns, place // columns * (1 + caption)
        _draw_tile(axes, images[index], left, top)
        correct = true_names[index] == predicted_names[index]
        lines = (
            _shortened(true_names[index], 24),
            f"→ {_shortened(predicted_names[index], 22)} ({confidences[index]:.2f})",
            _shortened(keys[index], 28),
        )
        for line, (text, color) in enumerate(
            zip(lines, (_CORRECT, _CORRECT if correct else _INCORRECT, GREY), strict=True)
        ):
            axes.text(left + 0.47, top + 0.965 + 0.09 * line, text, ha="center", va="top", fontsize=7.3, color=color)
    return png_bytes(figure)


def contact_sheet_png(images_by_class: Mapping[str, Sequence[npt.ArrayLike]], title: str) -> bytes:
    """Draws samples of every class: one row a class, ten samples at the most, the name at the left.

    Args:
        images_by_class: for each class name its (H, W, 3) uint8 images, in the order of the rows; sizes may differ.
        title: the figure's title.

    Returns:
        The figure as PNG.
    """
    if not images_by_class:
        return message_png("No class, no image.", title)
    columns = max(1, *(min(_MOST_SAMPLES, len(images)) for images in images_by_class.values()), 1)
    rows = len(images_by_class)
    unit = 0.95
    figure = new_figure(unit * columns + 2.2, unit * rows + 0.7, title)
    axes = _tile_axes(figure, columns, rows)
    for row, images in enumerate(images_by_class.values()):
        for column, image in enumerate(images[:_MOST_SAMPLES]):
            _draw_tile(axes, np.asarray(image), column, row)
        if not len(images):
            axes.text(0.05, row + 0.47, "no image", va="center", fontsize=9, color=GREY, style="italic")
    axes.set_axis_on()
    axes.set_frame_on(False)
    axes.set_xticks([])
    axes.set_yticks(np.arange(rows) + 0.47, [plain(name) for name in images_by_class], fontsize=10)
    axes.tick_params(length=0)
    return png_bytes(figure)


def to_display(
    image: npt.ArrayLike, band_names: Sequence[str], dtype_name: str, *, stretched: bool = False
) -> np.ndarray:
    """Converts stored numbers to an image for display.

    Args:
        image: (..., H, W, B), numbers as they are in the records; any real dtype may hold them.
        band_names: B names in stored order.
        dtype_name: the dtype of the records: `uint8` is shown as it is, `uint16` holds harmonized digital numbers and
            is stretched like EuroSAT's JPEGs, `float32` is always `stretched`.
        stretched: where it is not known what the numbers mean: each shown band of each image is stretched from its
            second to its 98th percentile, of pixels with data.

    Returns:
        uint8 (..., H, W, 3). Three uint8 bands stay what they are. Otherwise it shows `displayed_bands`. It is black
        where there is no data, see `has_data`.

    Raises:
        BandError: if the last axis does not fit the names.
        RecordsError: if the dtype is another.
    """
    image, band_names = np.asarray(image), tuple(band_names)
    if image.ndim < 3 or image.shape[-1] != len(band_names) or not band_names:
        raise BandError(
            "image to display",
            f"shape {image.shape}",
            f"(..., height, width, {len(band_names)}) for the bands {','.join(band_names)}",
        )
    if dtype_name not in ("uint8", "uint16", "float32"):
        raise RecordsError("image to display", f"dtype '{dtype_name}'", "uint8, uint16 or float32")
    # All stored bands count, not only those shown: a dark pixel may be 0 in one of them and hold data in the rest.
    there, order = has_data(image), displayed_bands(band_names)
    if stretched or dtype_name == "float32":
        return _stretched(image[..., order], there)
    as_they_are = dtype_name == "uint8" and len(band_names) == 3
    shown = image if as_they_are else image[..., order]
    if dtype_name == "uint8":
        return np.ascontiguousarray(np.clip(np.rint(shown), 0, 255).astype(np.uint8))
    grey = stretch_like_eurosat_jpeg(shown)
    grey[~there] = 0
    return grey


def _stretched(shown: np.ndarray, there: np.ndarray) -> np.ndarray:
    found = np.zeros(shown.shape, np.uint8)
    for place in np.ndindex(there.shape[:-2]):
        numbers = shown[place][there[place]].astype(np.float64)
        if not len(numbers):
            continue
        low, high = np.percentile(numbers, [2, 98], axis=0)
        # A band of one number alone is gray.
        share = np.where(high > low, (numbers - low) / np.maximum(high - low, 1e-9), 0.5)
        found[place][there[place]] = np.rint(255 * np.clip(share, 0, 1))
    return found


def displayed_bands(band_names: Sequence[str]) -> list[int]:
    """Returns the places of the bands shown as red, green and blue.

    They are B04, B03 and B02 where all are present, else the first three, and of one or two bands the first as gray.
    """
    if set(COMPOSITES["RGB"]) <= set(band_names):
        return [band_names.index(name) for name in COMPOSITES["RGB"]]
    return [0, 1, 2] if len(band_names) >= 3 else [0, 0, 0]


def _tile_axes(figure: Figure, columns: float, rows: float) -> Axes:
    """Returns axes whose unit is one image, for many images on one pair of axes."""
    axes = figure.add_subplot()
    axes.set_axis_off()
    # The last gap is cut off, or the tiles would not be centered.
    axes.set(xlim=(0, columns - 0.06), ylim=(rows, 0), aspect="equal")
    return axes


def _draw_tile(axes: Axes, image: np.ndarray, left: float, top: float) -> None:
    height, width = image.shape[:2]
    scale = 0.94 / max(height, width)
    extent = (left, left + width * scale, top + height * scale, top)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(image, extent=extent, interpolation="nearest", aspect="equal")
    axes.set(xlim=limits[0], ylim=limits[1])


def _per_cent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "<0.1 %"


def _shortened(text: str, length: int) -> str:
    # The end of a key distinguishes examples; its beginning is the same folder for all.
    if len(text) > length:
        text = text.rstrip("/").rpartition("/")[2]
    return plain(text if len(text) <= length else "…" + text[1 - length :])
