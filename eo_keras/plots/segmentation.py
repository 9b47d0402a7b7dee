"""Figures of segmentation: tiles beside mask, prediction and errors, and scores by class with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from eo_keras.geo.distance_classes import distance_classes
from eo_keras.legends.catalogue import IGNORE, Legend
from eo_keras.metrics import objects
from eo_keras.metrics.estimate import Estimate
from eo_keras.metrics.metric import metric_of
from eo_keras.metrics.predictions import PredictedSample
from eo_keras.metrics.scores import Scores
from eo_keras.plots import classification
from eo_keras.plots.figure import BLUE, GREY, GRID, RED, classes_to_display, message_png, new_figure, plain, png_bytes
from eo_keras.records.data_card import DataCard
from eo_keras.records.example import has_data
from eo_keras.records.targets import DistanceClasses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

_MOST = 16
_EDGE = 256  # Pixels: a larger tile is drawn smaller.
_PANELS = 14
_CELLS = 16  # Cells of the checkerboard along a panel.

OUTCOMES = {"true positive": "#3b3b3b", "false positive": RED, "false negative": BLUE, "true negative": "#ededed"}
"""Colors of the errors of one class."""

INCORRECT = "#000000"
"""Color of incorrect pixels of any class; correct ones are paler than in the mask."""

_PALE = 0.75  # Share of white in the colors of correct pixels.
_DISTANCES = "PRGn"
_BOUNDARY_COLORS = ("#9ecae1", "#4292c6", "#08519c", "#00264d")
_BOUNDARY_IOU_COLOR = "#d95f02"


def maps_png(
    shown: Sequence[PredictedSample],
    card: DataCard,
    bands: Sequence[str] | Mapping[str, Sequence[str]],
    title: str,
    *,
    object_class: str | None = None,
    panels: int = _PANELS,
) -> bytes:
    """Draws tiles, 16 at the most: their images, mask, prediction and errors beside each other.

    Images are stretched from the second to the 98th percentile of each. Errors are false positives and false negatives
    of the class of objects, see `objects.object_class`; of longer legends without one, all incorrect pixels. Where the
    card has distance classes, those of the mask are drawn too.

    Args:
        shown: the tiles; the images of one may be of several sizes.
        card: the card of the records folder.
        bands: the tiles' bands; of several images by their names.
        title: title of the figure.
        object_class: class whose errors are drawn; None for the second of two, and of a longer legend for all classes.
        panels: number of panels beside each other, where a tile does not have more.

    Returns:
        The figure as PNG. A checkerboard lies where there is no data or the truth is not known.
    """
    if not shown:
        return message_png("No tile was kept to be shown.", title)
    shown, names = shown[:_MOST], card.legend.class_names
    of_class = objects.object_class(names, object_class)
    drawn = [panels_of(tile, card, bands, of_class) for tile in shown]
    width = len(drawn[0])
    across = min(max(1, panels // width), len(shown))
    rows = -(-len(shown) // across)
    figure = new_figure(max(5, 1.32 * (width + 0.2) * across), 1.6 * rows + 1.4, title)
    axes = figure.add_subplot()
    axes.set_axis_off()
    limits = {"xlim": (0, (width + 0.2) * across - 0.2), "ylim": (1.2 * rows, -0.3)}
    axes.set(aspect="equal", **limits)
    for number, (tile, pictures) in enumerate(zip(shown, drawn, strict=True)):
        left, top = (width + 0.2) * (number % across), 1.2 * (number // across)
        for column, (name, picture) in enumerate(pictures.items()):
            _draw(axes, picture, left + column, top)
            if number < across:
                axes.text(left + column + 0.48, -0.04, plain(name), ha="center", va="bottom", fontsize=8, color=GREY)
        caption = plain(f"{tile.key[-40:]}: {_caption(tile, names, of_class)}")
        axes.text(left + width / 2 - 0.02, top + 0.98, caption, ha="center", va="top", fontsize=7.5, color=GREY)
    axes.set(**limits)
    handles = _handles(card.legend, of_class, card.distance)
    columns = min(7, len(handles), int(figure.get_figwidth() / 2))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
    return png_bytes(figure)


def panels_of(
    tile: PredictedSample, card: DataCard, bands: Sequence[str] | Mapping[str, Sequence[str]], of_class: str | None
) -> dict[str, np.ndarray]:
    """Returns the pictures of a tile, uint8 (height, width, 3), by their titles; see `maps_png`.

    Args:
        tile: the tile.
        card: the card of the records folder.
        bands: its bands; of several images by their names.
        of_class: class whose errors are told apart; None for all incorrect pixels.
    """
    several = isinstance(tile.image, Mapping)
    images = tile.image if several else {"image": tile.image}
    bands = bands if isinstance(bands, Mapping) else dict.fromkeys(images, bands)
    pictures, there = {}, np.zeros(tile.labels.shape, bool)
    for name, image in images.items():
        image, kind = _smaller(image), image.dtype.name
        data = has_data(image)
        picture = classification.to_display(image, bands[name], kind, stretched=True)
        order = dict.fromkeys(classification.displayed_bands(bands[name]))
        pictures[f"{name}\n{','.join(bands[name][place] for place in order)}"] = _with_board(picture, data)
        there |= _resized(data, there.shape)
    labels, predicted = _smaller(tile.labels), _smaller(tile.predictions)
    there, known = _smaller(there), labels != IGNORE
    colours = card.legend.colours
    pictures["mask"] = _with_board(classes_to_display(labels, colours), known)
    if card.distance is not None:
        of_objects = card.legend.class_names.index(card.distance.objects)
        distances = distance_classes(tile.labels, of_objects, card.distance)
        pictures["distance"] = _with_board(
            classes_to_display(_smaller(distances), _distance_colours(card.distance)), known
        )
    # Predictions of no data mean nothing.
    pictures["prediction"] = _with_board(classes_to_display(predicted, colours), there)
    if of_class is None:
        pale = [_paler(colour) for colour in colours]
        errors = classes_to_display(np.where(labels == predicted, labels, len(colours)), (*pale, INCORRECT))
    else:
        true, found = (classes == card.legend.class_names.index(of_class) for classes in (labels, predicted))
        errors = classes_to_display(np.where(found, np.where(true, 0, 1), np.where(true, 2, 3)), [*OUTCOMES.values()])
    pictures["errors"] = _with_board(errors, known & there)
    return pictures


def _smaller(array: np.ndarray) -> np.ndarray:
    step = -(-array.shape[0] // _EDGE)
    return array[::step, ::step]


def _resized(flags: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns the nearest flags on a grid of another size."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape, flags.shape, strict=True))
    return flags[np.ix_(rows, columns)]


def _with_board(picture: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Returns a picture with a checkerboard where there is nothing."""
    rows, columns = (np.arange(size) * _CELLS // size for size in there.shape)
    board = np.where((rows[:, np.newaxis] + columns) % 2, 255, 205).astype(np.uint8)
    return np.where(there[..., np.newaxis], picture, board[..., np.newaxis])


def _paler(colour: str) -> str:
    channels = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(_PALE * 255 + (1 - _PALE) * channel):02x}" for channel in channels)


def _distance_colours(distance: DistanceClasses) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps[_DISTANCES](share)) for share in np.linspace(0, 1, distance.classes)]


def _draw(axes: Axes, picture: np.ndarray, left: float, top: float) -> None:
    axes.imshow(picture, extent=(left, left + 0.96, top + 0.96, top), interpolation="nearest", aspect="equal")
    axes.plot([left, left + 0.96, left + 0.96, left, left], [top, top, top + 0.96, top + 0.96, top], color=GREY, lw=0.4)


def _caption(tile: PredictedSample, names: Sequence[str], of_class: str | None) -> str:
    known = tile.labels != IGNORE
    if not known.any():
        return "no truth is known"
    labels, predicted = tile.labels[known], tile.predictions[known]
    correct = f"{100 * np.mean(predicted == labels):.1f} % correct"
    if of_class is None:
        return correct
    true, found = (classes == names.index(of_class) for classes in (labels, predicted))
    union = np.count_nonzero(true | found)
    return f"{correct}, IoU of {of_class} {np.count_nonzero(true & found) / union:.2f}" if union else correct


def _handles(legend: Legend, of_class: str | None, distance: DistanceClasses | None) -> list[Patch]:
    from matplotlib.patches import Patch

    def patch(color, label):
        return Patch(facecolor=color, edgecolor=GREY, linewidth=0.4, label=plain(label))

    handles = [patch(item.colour, item.name) for item in legend.classes]
    if distance is not None:
        colours = _distance_colours(distance)
        places = {"far outside": 0, "on the boundary": distance.classes // 2, "far inside": -1}
        handles += [patch(colours[place], f"{name} of {distance.objects}") for name, place in places.items()]
    if of_class is None:
        handles += [patch(INCORRECT, "incorrect"), patch(_paler(legend.colours[0]), "correct: paler")]
    else:
        handles += [patch(color, name) for name, color in OUTCOMES.items()]
    board = {"facecolor": "white", "edgecolor": "#b0b0b0", "hatch": "xxxxx", "linewidth": 0.4}
    return [*handles, Patch(label="no data, or not known", **board)]


def class_scores_png(scores: Scores, legend: Legend, title: str) -> bytes:
    """Draws the scores of every class with their intervals: intersection over union, and those of boundaries.

    Args:
        scores: the scores.
        legend: the classes' colors.
        title: title of the figure.

    Returns:
        The figure as PNG.
    """
    found = [
        (name, values, colour)
        for (name, values), colour in zip(scores.by_class.items(), legend.colours, strict=True)
        if values["iou"]
    ]
    figure = new_figure(11, 1.9 + 0.46 * len(found), title)
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(found))
    values = [values["iou"] for _, values, _ in found]
    left.barh(
        places,
        [value.value for value in values],
        0.62,
        xerr=np.maximum(_distances_to_ends(values), 0),
        color=[colour for *_, colour in found],
        edgecolor=GREY,
        linewidth=0.6,
        error_kw={"ecolor": "black", "elinewidth": 1, "capsize": 3},
    )
    mean = scores["miou"]
    label = f"mean IoU {mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})"
    left.axvline(mean.value, color="black", linestyle="--", linewidth=1, label=label)
    left.set_yticks(places, [plain(name) for name, *_ in found], fontsize=9)
    left.invert_yaxis()
    left.set(xlim=(0, 1), xlabel="Intersection over union")
    names = [name for name in scores.overall if name.startswith("boundary_")]
    for place, name in enumerate(names):
        there = [(row, values[name]) for row, (_, values, _) in enumerate(found) if values[name]]
        if not there:
            continue
        of_iou = name.startswith("boundary_iou")
        rows = [row + 0.6 * ((place + 0.5) / len(names) - 0.5) for row, _ in there]
        color = _BOUNDARY_IOU_COLOR if of_iou else _BOUNDARY_COLORS[min(place, len(_BOUNDARY_COLORS) - 1)]
        estimates = [estimate for _, estimate in there]
        right.errorbar(
            [one.value for one in estimates],
            rows,
            xerr=np.maximum(_distances_to_ends(estimates), 0),
            fmt="D" if of_iou else "o",
            markersize=4.5,
            capsize=2,
            elinewidth=1.2,
            color=color,
            label=f"{metric_of(name).title}, mean {scores.value(name):.4f}",
        )
    right.set(xlim=(0, 1), xlabel=f"Scores of boundaries\n95 % intervals over {scores.details['places']:,} places")
    for axes in (left, right):
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return png_bytes(figure)


def _distances_to_ends(values: Sequence[Estimate]) -> list[list[float]]:
    return [[value.value - value.low for value in values], [value.high - value.value for value in values]]
