"""Figures of segmentation: tiles beside their true and predicted masks, and scores by class with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eo_keras.legends.catalogue import IGNORE, Legend
from eo_keras.metrics.predictions import PredictedSample
from eo_keras.metrics.scores import Scores
from eo_keras.plots import classification
from eo_keras.plots.figure import GREY, classes_to_display, message_png, new_figure, plain, png_bytes
from eo_keras.records.data_card import DataCard

_MOST = 16
_EDGE = 256  # Pixels: a larger tile is drawn smaller.


def maps_png(
    shown: Sequence[PredictedSample], card: DataCard, bands: Sequence[str], title: str, across: int = 4
) -> bytes:
    """Draws tiles, 16 at the most: image, truth and prediction beside each other, in the legend's colors.

    Args:
        shown: the tiles.
        card: the card of the records folder.
        bands: the tiles' bands.
        title: title of the figure.
        across: tiles beside each other, each with its truth and its prediction.

    Returns:
        The figure as PNG. Truth is black where it is not known, and image and prediction where there is no data.
    """
    if not shown:
        return message_png("No tile was kept to be shown.", title)
    shown = shown[:_MOST]
    across = min(across, len(shown))
    rows = -(-len(shown) // across)
    figure = new_figure(4.2 * across, 1.75 * rows + 1.2, title)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set(xlim=(0, 3.2 * across - 0.2), ylim=(1.2 * rows, 0), aspect="equal")
    limits = axes.get_xlim(), axes.get_ylim()
    for number, tile in enumerate(shown):
        left, top = 3.2 * (number % across), 1.2 * (number // across)
        step = -(-tile.labels.shape[0] // _EDGE)
        smaller = np.s_[::step, ::step]
        image = tile.image[smaller]
        # Predictions of no data mean nothing.
        predicted = np.where((image == card.nodata).all(axis=-1), IGNORE, tile.predictions[smaller])
        pictures = (
            classification.to_display(image, bands, card.dtype, stretched=card.reflectance is None),
            classes_to_display(tile.labels[smaller], card.legend.colours),
            classes_to_display(predicted, card.legend.colours),
        )
        for column, (name, picture) in enumerate(zip(("image", "truth", "prediction"), pictures, strict=True)):
            extent = (left + column, left + column + 0.96, top + 0.96, top)
            axes.imshow(picture, extent=extent, interpolation="nearest", aspect="equal")
            if number < across:
                axes.text(left + column + 0.48, -0.04, name, ha="center", va="bottom", fontsize=8, color=GREY)
        known = tile.labels != IGNORE
        correct = np.mean(tile.predictions[known] == tile.labels[known]) if known.any() else 0.0
        caption = f"{tile.key[-40:]}: {100 * correct:.1f} % correct"
        axes.text(left + 1.48, top + 0.98, plain(caption), ha="center", va="top", fontsize=7, color=GREY)
    axes.set(xlim=limits[0], ylim=limits[1])
    _add_legend(figure, card.legend)
    return png_bytes(figure)


def _add_legend(figure, legend: Legend) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=item.colour, label=plain(item.name)) for item in legend.classes]
    handles.append(Patch(color="black", label="not known, or no data"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)), fontsize=9, frameon=False)


def class_scores_png(scores: Scores, legend: Legend, title: str) -> bytes:
    """Draws the intersection over union of every class with its interval, and the mean of all.

    Args:
        scores: the scores.
        legend: the classes' colors.
        title: title of the figure.

    Returns:
        The figure as PNG.
    """
    ious = [(name, values["iou"]) for name, values in scores.by_class.items()]
    found = [(name, iou, colour) for (name, iou), colour in zip(ious, legend.colours, strict=True) if iou]
    figure = new_figure(7.5, 1.6 + 0.34 * len(found), title)
    axes = figure.add_subplot()
    values = [iou for _, iou, _ in found]
    places = range(len(found))
    errors = [
        [value.value - value.low for value in values],
        [value.high - value.value for value in values],
    ]
    axes.barh(
        places,
        [value.value for value in values],
        xerr=np.maximum(errors, 0),
        color=[colour for *_, colour in found],
        edgecolor=GREY,
        linewidth=0.6,
        error_kw={"ecolor": "black", "elinewidth": 1, "capsize": 3},
    )
    mean = scores["miou"]
    label = f"mean {mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})"
    axes.axvline(mean.value, color="black", linestyle="--", linewidth=1, label=label)
    axes.set_yticks(places, [plain(name) for name, *_ in found], fontsize=9)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel=f"Intersection over union, 95 % intervals over {scores.details['places']:,} places")
    figure.legend(loc="outside lower center", fontsize=9, frameon=False)
    return png_bytes(figure)
