"""Baselines of classification by color: accuracy of logistic regression on mean colors.

A class that mean color gives away needs no network; the difference between a network's score and this one is what the
layout of the ground is worth.
"""

from __future__ import annotations

import dataclasses
import os
import warnings

import numpy as np
import rasterio.errors
import rasterio.io

from eo_keras.errors import OptionError, SourceError
from tfrecords_builder.sources.archive import Archive

_RIDGE = 1.0  # On the sum of the losses, as scikit-learn's default C = 1.


@dataclasses.dataclass(frozen=True)
class PixelScore:
    """Pixel accuracy of a linear model on colors.

    Attributes:
        accuracy: share of the test pixels whose class is found.
        most_frequent: share of the most frequent class, which is what guessing it would find.
    """

    accuracy: float
    most_frequent: float


def band_mean_baseline(features: np.ndarray, labels: np.ndarray, train: np.ndarray) -> float:
    """Fits multinomial logistic regression on standardized features by Newton's method; returns its accuracy.

    Args:
        features: float (patches, bands), for instance the patches' band means.
        labels: integers (patches,), class labels.
        train: bool (patches,), which patches to learn from; the rest are the test.

    Returns:
        Share of the test patches whose class is found.

    Raises:
        OptionError: if the shapes disagree, or train or test is empty.
    """
    features, labels, train = np.asarray(features, np.float64), np.asarray(labels), np.asarray(train, bool)
    if features.ndim != 2 or labels.shape != train.shape or labels.shape != features.shape[:1]:
        found = f"shapes {features.shape}, {labels.shape}, {train.shape}"
        raise OptionError("band_mean_baseline", found, "(patches, bands), (patches,), (patches,)")
    if train.all() or not train.any():
        raise OptionError("band_mean_baseline", "no patches to learn from, or none to test on", "some of both")
    classes, labels = np.unique(labels, return_inverse=True)
    mean, spread = features[train].mean(0), features[train].std(0)
    standardised = (features - mean) / np.where(spread > 0, spread, 1.0)
    inputs = np.concatenate([standardised, np.ones((len(features), 1))], axis=1)
    weights = _fit(inputs[train], np.eye(len(classes))[labels[train]])
    found = np.argmax(inputs[~train] @ weights, axis=1)
    return float(np.mean(found == labels[~train]))


def _fit(inputs: np.ndarray, targets: np.ndarray, steps: int = 100) -> np.ndarray:
    """Minimizes the regularized cross-entropy; returns weights (inputs, classes), the last row the intercepts."""
    size, classes = inputs.shape[1], targets.shape[1]
    penalty = np.full((size, classes), _RIDGE)
    penalty[-1] = 1e-6  # Intercepts are free, but for what keeps the Hessian regular.
    weights = np.zeros((size, classes))
    loss, probabilities = _loss(inputs, targets, weights, penalty)
    for _ in range(steps):
        gradient = inputs.T @ (probabilities - targets) + penalty * weights
        if np.abs(gradient).max() < 1e-4:
            break
        hessian = np.zeros((size, classes, size, classes))
        for a in range(classes):
            for b in range(a, classes):
                curvature = probabilities[:, a] * ((a == b) - probabilities[:, b])
                hessian[:, a, :, b] = hessian[:, b, :, a] = inputs.T @ (inputs * curvature[:, None])
        flat = hessian.reshape(size * classes, -1) + np.diag(penalty.ravel())
        direction = np.linalg.solve(flat, gradient.ravel()).reshape(weights.shape)
        step = 1.0
        # The loss is convex, but a full step from afar may overshoot.
        while True:
            trial = weights - step * direction
            trial_loss, trial_probabilities = _loss(inputs, targets, trial, penalty)
            if trial_loss <= loss or step < 1e-6:
                break
            step /= 2
        weights, loss, probabilities = trial, trial_loss, trial_probabilities
    return weights


def _loss(
    inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray, penalty: np.ndarray
) -> tuple[float, np.ndarray]:
    logits = inputs @ weights
    logits -= logits.max(axis=1, keepdims=True)
    norm = np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss = -np.sum(targets * (logits - norm)) + 0.5 * np.sum(penalty * weights * weights)
    return float(loss), np.exp(logits - norm)


def mean_colour_baseline(archive_path: str | os.PathLike[str], *, seed: int = 0) -> float:
    """Scores the linear model on an archive's mean colors, 80 % of each class for training and the rest for testing.

    Args:
        archive_path: a zip or folder of patches `<...>/<Class>/<Class>_<n>.jpg` or `.tif`.
        seed: of the random split.

    Returns:
        Share of the test patches whose class is found.

    Raises:
        SourceError: if the archive cannot be read or holds no such patches, or fewer than two of a class.
    """
    features, labels = archive_band_means(archive_path)
    train = np.zeros(len(labels), bool)
    rng = np.random.default_rng(seed)
    for class_name in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == class_name))
        if len(places) < 2:
            raise SourceError(archive_path, f"class {class_name} has a single patch", "at least two of each class")
        train[places[: min(len(places) - 1, round(0.8 * len(places)))]] = True
    return band_mean_baseline(features, labels, train)


def pixel_colour_baseline(
    image: np.ndarray, labels: np.ndarray, *, window: int = 1, ignore: int = 255, sample: int = 20_000, seed: int = 0
) -> PixelScore:
    """Scores the linear model on the colors of pixels, or on mean colors around them.

    The model learns from the western half of the pixels drawn and is tested on the eastern half, then the other way
    round, so that it cannot profit from neighbors.

    Args:
        image: numbers of any type (height, width, bands).
        labels: integers (height, width), class labels.
        window: edge of the square around a pixel whose mean color is taken, in pixels; odd, 1 for the pixel alone.
        ignore: the label of pixels that have none.
        sample: number of pixels that are drawn from each half.
        seed: of the drawing.

    Returns:
        The score.

    Raises:
        OptionError: if the shapes disagree, the window is even or too large, or a half has no pixels with a label.
    """
    image, labels = np.asarray(image), np.asarray(labels)
    if image.ndim != 3 or labels.shape != image.shape[:2]:
        raise OptionError("pixel_colour_baseline", f"shapes {image.shape}, {labels.shape}", "(h, w, bands), (h, w)")
    if window % 2 == 0 or not 1 <= window <= min(labels.shape):
        raise OptionError("pixel_colour_baseline", f"a window of {window}", "an odd number within the image")
    features, labels = _window_means(image, window), labels[window // 2 :, window // 2 :]
    labels = labels[: features.shape[0], : features.shape[1]]
    known = np.argwhere(labels != ignore)
    rng = np.random.default_rng(seed)
    middle = np.median(known[:, 1]) if len(known) else 0
    halves = [known[known[:, 1] < middle], known[known[:, 1] >= middle]]
    if not all(map(len, halves)):
        raise OptionError("pixel_colour_baseline", "too few pixels with a label", "some in both halves")
    drawn = [half[rng.permutation(len(half))[:sample]] for half in halves]
    places = np.concatenate(drawn)
    west = np.arange(len(places)) < len(drawn[0])
    chosen, truth = features[places[:, 0], places[:, 1]], labels[places[:, 0], places[:, 1]]
    right = [band_mean_baseline(chosen, truth, train) for train in (west, ~west)]
    share = np.bincount(truth).max() / len(truth)
    return PixelScore(float(right[0] * (~west).mean() + right[1] * west.mean()), float(share))


def _window_means(image: np.ndarray, window: int) -> np.ndarray:
    """Averages all complete windows, float64 (height - window + 1, width - window + 1, bands)."""
    sums = np.pad(image.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
    rows = sums[window:] - sums[:-window]
    return (rows[:, window:] - rows[:, :-window]) / window**2


def archive_band_means(archive_path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Computes the band means of all patches of an archive.

    Returns:
        Band means, float64 (patches, bands), in the files' units and band order; and class names, str (patches,).

    Raises:
        SourceError: if the archive cannot be read or holds no patches, or patches of different numbers of bands.
    """
    archive = Archive(archive_path)
    means, names = [], []
    for member in archive.members():
        if not member.path.lower().endswith((".jpg", ".tif")):
            continue
        means.append(_band_means(archive, member.path))
        names.append(member.path.rsplit("/", 2)[-2] if "/" in member.path else "")
    if not means or len({len(mean) for mean in means}) != 1:
        found = "it holds patches of different numbers of bands" if means else "it holds no .jpg or .tif patches"
        raise SourceError(archive_path, found, "an archive in EuroSAT's layout")
    return np.stack(means), np.array(names)


def _band_means(archive: Archive, member: str) -> np.ndarray:
    try:
        with warnings.catch_warnings(), rasterio.io.MemoryFile(archive.read(member)) as memory:
            # JPEG patches have no place; nothing here needs one.
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with memory.open() as dataset:
                return dataset.read().mean(axis=(1, 2), dtype=np.float64)
    except rasterio.errors.RasterioError as error:
        raise SourceError(f"{archive.path}: {member}", f"it cannot be read ({error})", "an image") from None
