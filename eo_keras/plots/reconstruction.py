"""Figure of reconstructed images: every input as it is, as the network saw it, and as it was filled in."""

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
    if not shown:
        return message_png("No example was kept to be shown.", title)
    rows, columns = len(shown), len(STATES) * len(statistics)
    figure = new_figure(max(5, 1.15 * columns), 1.25 * rows + 0.9, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for line, (axes, one) in enumerate(zip(grid, shown, strict=True)):
        for place, (axis, (name, picture)) in enumerate(zip(axes, _pictures(one, statistics), strict=True)):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if not line:
                axis.set_title(plain(f"{name}\n{STATES[place % len(STATES)]}"), fontsize=7, color=GREY)
        axes[0].set_ylabel(plain(one.key[-18:]), fontsize=6, color=GREY)
    return png_bytes(figure)


def _pictures(
    one: PredictedSample, statistics: Mapping[str, tuple[Sequence[str], np.ndarray, np.ndarray]]
) -> list[tuple[str, np.ndarray]]:
    """Returns name and picture, uint8 (height, width, 3), of each input in each state."""
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
        # Side by side they are one image, and are stretched alike.
        drawn = classification.to_display(np.concatenate(states, axis=1), bands, "float32")
        step = -(-len(masked) // _EDGE)
        found += [(name, picture[::step, ::step]) for picture in np.split(drawn, len(states), axis=1)]
    return found


def _of_size(numbers: np.ndarray, size: int) -> np.ndarray:
    """Averages numbers (height, width, bands) down to an input of coarser resolution."""
    ratio = len(numbers) // size
    return numbers.reshape(size, ratio, size, ratio, -1).mean(axis=(1, 3))
