"""Figures of predicted images: of reconstructions, masked and filled in, and of a sensor told from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from eo_keras.metrics.predictions import PredictedSample
from eo_keras.plots import classification
from eo_keras.plots.figure import GREY, message_png, new_figure, plain, png_bytes
from eo_keras.records.example import has_data

STATES = ("image", "masked", "reconstructed")
_EDGE = 256  # Pixels: a larger image is drawn smaller.


def reconstruction_png(
    shown: Sequence[PredictedSample], statistics: Mapping[str, tuple[Sequence[str], np.ndarray, np.ndarray]], title: str
) -> bytes:
    """Draws examples, one in a row: each input as it is, masked, and with predictions where it was masked.

    The three are stretched alike, from the second to the 98th percentile of the image and its reconstruction.

    Args:
        shown: the examples: masked images by the inputs' names; as labels standardized numbers (height, width, bands of
            all inputs), NaN where nothing was to be predicted; as predictions all predicted numbers, likewise.
        statistics: names of the bands, their means and standard deviations, by the inputs' names, in the order of the
            channels.
        title: title of the figure.

    Returns:
        The figure as PNG; black where there is no data.
    """
    return _grid_png([(one.key, _states(one, statistics)) for one in shown], title)


def translation_png(
    shown: Sequence[PredictedSample],
    bands: Sequence[str] | Mapping[str, Sequence[str]],
    statistics: Mapping[str, tuple[Sequence[str], np.ndarray, np.ndarray]],
    title: str,
) -> bytes:
    """Draws examples, one in a row: the images of the other sensors, and of each predicted one the true and predicted.

    The last two are stretched alike.

    Args:
        shown: the examples: images of the other sensors by the inputs' names, or the only one; as labels standardized
            numbers (height, width, bands), those of the predicted images first, NaN where they have no data; as
            predictions all predicted numbers.
        bands: names of the bands of the other sensors, by the inputs' names where there are several.
        statistics: of the predicted images, as for `reconstruction_png`.
        title: title of the figure.

    Returns:
        The figure as PNG; black where there is no data.
    """
    return _grid_png([(one.key, _translated(one, bands, statistics)) for one in shown], title)


def _grid_png(rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]], title: str) -> bytes:
    """Draws a row of titled pictures for each key."""
    if not rows:
        return message_png("No example was kept to be shown.", title)
    columns = len(rows[0][1])
    figure = new_figure(max(5, 1.15 * columns), 1.25 * len(rows) + 0.9, title)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (axes, (key, pictures)) in enumerate(zip(grid, rows, strict=True)):
        for axis, (name, picture) in zip(axes, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if not line:
                axis.set_title(plain(name), fontsize=7, color=GREY)
        axes[0].set_ylabel(plain(key[-18:]), fontsize=6, color=GREY)
    return png_bytes(figure)


def _translated(
    one: PredictedSample,
    bands: Sequence[str] | Mapping[str, Sequence[str]],
    statistics: Mapping[str, tuple[Sequence[str], np.ndarray, np.ndarray]],
) -> list[tuple[str, np.ndarray]]:
    """Returns title and picture, uint8 (height, width, 3), of what was taken, and of what was predicted both."""
    images = one.image if isinstance(one.image, Mapping) else {"image": one.image}
    names = bands if isinstance(bands, Mapping) else {"image": bands}
    found, first = [], 0
    for name, image in images.items():
        found += _drawn([image], names[name], image.dtype.name, [name])
    for name, (of_image, mean, std) in statistics.items():
        own = slice(first, first + len(of_image))
        first += len(of_image)
        both = [part[..., own] * std + mean for part in (one.labels, one.predictions)]
        found += _drawn(both, of_image, "float32", [f"{name}\ntrue", f"{name}\npredicted"])
    return found


def _drawn(
    images: Sequence[np.ndarray], bands: Sequence[str], dtype: str, titles: Sequence[str]
) -> list[tuple[str, np.ndarray]]:
    """Returns titles and pictures of images of one size, stretched alike."""
    # Side by side they are one image.
    drawn = classification.to_display(np.concatenate(images, axis=1), bands, dtype)
    step = -(-len(images[0]) // _EDGE)
    pictures = np.split(drawn, len(images), axis=1)
    return [(title, picture[::step, ::step]) for title, picture in zip(titles, pictures, strict=True)]


def _states(
    one: PredictedSample, statistics: Mapping[str, tuple[Sequence[str], np.ndarray, np.ndarray]]
) -> list[tuple[str, np.ndarray]]:
    """Returns title and picture, uint8 (height, width, 3), of each input in each state."""
    images = one.image if isinstance(one.image, Mapping) else dict.fromkeys(statistics, one.image)
    found, first = [], 0
    for name, (bands, mean, std) in statistics.items():
        masked, own = images[name], slice(first, first + len(bands))
        first += len(bands)
        target, predicted = (
            _of_size(part[..., own], len(masked)) * std + mean for part in (one.labels, one.predictions)
        )
        there = has_data(masked)[..., np.newaxis]
        hidden = np.isfinite(target).all(axis=-1, keepdims=True)
        numbers = np.where(there, masked.astype(np.float64), np.nan)
        states = (np.where(hidden, target, numbers), numbers, np.where(hidden, predicted, numbers))
        found += _drawn(states, bands, "float32", [f"{name}\n{state}" for state in STATES])
    return found


def _of_size(numbers: np.ndarray, size: int) -> np.ndarray:
    """Averages numbers (height, width, bands) down to an input of coarser resolution."""
    ratio = len(numbers) // size
    return numbers.reshape(size, ratio, size, ratio, -1).mean(axis=(1, 3))
