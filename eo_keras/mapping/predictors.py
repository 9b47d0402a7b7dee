"""Predictors: the model of a run folder, a `.keras` file with its card, or an export, for windows of one shape."""

from __future__ import annotations

import functools
import os
import pathlib
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from eo_keras.errors import OptionError, RunError
from eo_keras.mapping.lattice import Lattice
from eo_keras.runs import export_folder, temperature
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.runs.model_card import ModelCard

if TYPE_CHECKING:
    import tensorflow as tf

TTA = ("none", "d4")
"""Test-time augmentations: none, or the mean over the eight symmetries of a window."""

_PIXELS = 64 * 64 * 32
"""Pixels of a batch by which the default batch size is chosen; the stream of a block predicts two batches at once."""


def read_card(model: str | os.PathLike[str]) -> ModelCard:
    """Reads the card of a model without opening the model.

    Args:
        model: a run folder, a `.keras` file, or an export.

    Raises:
        RunError: if there is no such model, its card cannot be read, or it was pre-trained without labels.
    """
    if export_folder.is_export(model):
        return export_folder.read_card(model)
    card = model_cards.read_model_card(_place(model)[0])
    card.check_predicts_classes()
    return card


def lattice_of(
    card: ModelCard, window: int | None = None, overlap: int | None = None, stride: int | None = None
) -> Lattice:
    """Returns the lattice of a model's windows.

    Args:
        card: the model's card.
        window: height and width of a segmentation model's windows in pixels. Default: those of its training.
        overlap: pixels by which they overlap. Default: a quarter.
        stride: pixels from one patch of a classifier to the next. Default: a quarter of the patch.

    Raises:
        OptionError: if a value does not fit the model.
    """
    if card.targets.per_pixel:
        if stride is not None:
            raise OptionError("stride", "it does not apply to models of pixels", "`window` and `overlap`")
        window = window or card.patch_size
        overlap = window // 4 if overlap is None else overlap
        if not 0 <= overlap <= window // 2:
            raise OptionError("overlap", f"{overlap} pixels", f"0 to {window // 2}, half of the window")
        return Lattice.of_masks(window, overlap)
    if window not in (None, card.patch_size) or overlap is not None:
        name = "overlap" if overlap is not None else "window"
        expected = f"patches of {card.patch_size} pixels and `stride`"
        raise OptionError(name, "it does not apply to a classifier of patches", expected)
    stride = max(1, card.patch_size // 4) if stride is None else stride
    if stride > card.patch_size:
        raise OptionError("stride", f"{stride} pixels", f"at most the patch's {card.patch_size}")
    return Lattice.of_patches(card.patch_size, stride)


def batch_size_of(lattice: Lattice) -> int:
    """Returns the default number of windows that are predicted at once."""
    return max(1, _PIXELS // lattice.window**2)


class StackedInputs:
    """Layout of the images of several inputs in one array, as windows of a map are read, and a model of such arrays.

    The bands of all lie beside each other, on the finest input's pixels: a coarser one's are repeated.

    Args:
        card: card of a model of one input or several.

    Attributes:
        dtype: type that holds the numbers of all inputs.
        ratios: by the input's name, how many of the finest input's pixels lie along a side of one of its own.
    """

    def __init__(self, card: ModelCard):
        inputs = card.by_input
        finest = max(one.patch_size for one in inputs.values())
        self.dtype = np.result_type(*(one.dtype for one in inputs.values())).name
        self.ratios = {name: finest // one.patch_size for name, one in inputs.items()}
        self._inputs = inputs

    @property
    def bands(self) -> int:
        """Number of bands of all inputs."""
        return sum(len(one.bands) for one in self._inputs.values())

    def stack(self, images: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the images of all inputs, each on the finest one's pixels, as one (height, width, bands)."""
        return np.concatenate([images[name] for name in self._inputs], axis=-1, dtype=self.dtype)

    def model(self, model: Any) -> Any:
        """Returns a function from stacked images (batch, height, width, bands) to the outputs of a model."""
        import tensorflow as tf

        if len(self._inputs) == 1:
            return model

        def predict(windows: tf.Tensor, training: bool = False) -> tf.Tensor:
            images, first = {}, 0
            for name, one in self._inputs.items():
                step, last = self.ratios[name], first + len(one.bands)
                images[name] = tf.cast(windows[:, ::step, ::step, first:last], one.dtype)
                first = last
            return model(images, training=training)

        return predict


class Predictor:
    """Model that predicts batches of windows; compiled once for each shape, and called by any number of threads.

    Args:
        model: called as a Keras model is; from numbers (batch, window, window, bands) to probabilities, of several
            inputs from such by their names.
        card: its card.
        calibration: text on the temperature of its probabilities.
        tta: one of `TTA`.

    Attributes:
        card: its card.
        calibration: see above.
    """

    def __init__(self, model: Any, card: ModelCard, calibration: str, tta: str = "none"):
        self.card, self.calibration = card, calibration
        model = StackedInputs(card).model(model)
        if tta != "none":
            from eo_keras.tasks.symmetry_mean import SymmetryMean

            model = SymmetryMean(model, len(card.legend), per_pixel=card.targets.per_pixel)
        self._model = model
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._compiling = threading.Lock()

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Predicts windows.

        Args:
            windows: (batch, window, window, bands), numbers of the card's dtype; of several inputs see `StackedInputs`.

        Returns:
            float32 (batch, classes) or, of a segmentation model, (batch, window, window, classes); read-only.
        """
        import tensorflow as tf

        with self._compiling:
            if windows.shape not in self._compiled:
                self._compiled[windows.shape] = tf.function(
                    self._predict, input_signature=[tf.TensorSpec(windows.shape, windows.dtype)], autograph=False
                ).get_concrete_function()
        # On the CPU, the array shares the tensor's memory; `numpy` would copy it.
        found = np.asarray(self._compiled[windows.shape](tf.constant(windows)))
        return found.transpose(0, 2, 3, 1) if found.ndim == 4 else found

    def _predict(self, windows: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        found = tf.cast(self._model(windows, training=False), tf.float32)
        # In memory class by class, as they are blended.
        return tf.transpose(found, (0, 3, 1, 2)) if self.card.targets.per_pixel else found


def open_predictor(
    model: str | os.PathLike[str] | runs.Run,
    *,
    tta: str = "none",
    calibrated: bool | None = None,
    stand_in: str | os.PathLike[str] | None = None,
) -> Predictor:
    """Opens a model for maps.

    Args:
        model: a run folder, a `.keras` file with its card beside it, an export, or an open run.
        tta: one of `TTA`.
        calibrated: whether the temperature that was fitted for the run divides the logits: None where there is one,
            True in any case, False not at all. An export's is part of it.
        stand_in: of a run of several sensors, a run that predicts one where it is missing, see
            `eo_keras.runs.stand_in`. An export's is part of it.

    Raises:
        RunError: if there is no such model, it or its card is damaged, it has no temperature and must have one, or the
            stand-in does not fit it.
        OptionError: if the export's temperature was to be left out, or it was to have another stand-in.
    """
    from eo_keras import models, tasks
    from eo_keras.runs.stand_in import read_stand_in

    if not isinstance(model, runs.Run) and export_folder.is_export(model):
        if stand_in is not None:
            raise OptionError(
                "stand_in", "an export has its own, or none", remedy="export the run with it, or predict by the run"
            )
        card, exported = export_folder.open_export(model)
        return Predictor(exported, card, _of_export(card, calibrated), tta)
    folder, name = (model.folder, runs.MODEL_NAME) if isinstance(model, runs.Run) else _place(model)
    run = model if isinstance(model, runs.Run) else runs.open_run(folder, name)
    network = run.model
    found, text = temperature.find(folder, calibrated, tta, name)
    if found is not None:
        network = models.with_temperature(network, found.temperature)
    served = tasks.of(run.card).served_model(network)
    if stand_in is not None:
        served = read_stand_in(stand_in, run.card).complete(served)
    return Predictor(served, run.card, text, tta)


def calibration_of(model: str | os.PathLike[str], card: ModelCard, tta: str, calibrated: bool | None) -> str:
    """Returns a text on the temperature that `open_predictor` applies, without opening the model; raises as it."""
    if export_folder.is_export(model):
        return _of_export(card, calibrated)
    folder, name = _place(model)
    return temperature.find(folder, calibrated, tta, name)[1]


def model_path(model: str | os.PathLike[str]) -> pathlib.Path:
    """Returns what changes with a model: the `.keras` file, or the folder of an export."""
    return pathlib.Path(model) if export_folder.is_export(model) else runs.model_path(*_place(model))


def _place(model: str | os.PathLike[str]) -> tuple[pathlib.Path, str]:
    """Returns the run folder of a model and the model's name in it."""
    path = pathlib.Path(model)
    if path.suffix != ".keras":
        return path, runs.MODEL_NAME
    # The last model of a run lies a folder below the card.
    for folder in (path.parent, path.parent.parent):
        if (folder / model_cards.MODEL_CARD_NAME).is_file():
            return folder, path.relative_to(folder).as_posix()
    raise RunError(
        path,
        f"there is no {model_cards.MODEL_CARD_NAME} beside it, which says what it takes and predicts",
        "a model with its card, as in a run folder",
        "put the card of its run beside it",
    )


def _of_export(card: ModelCard, calibrated: bool | None) -> str:
    if card.temperature is None:
        if calibrated:
            raise RunError("the export", "its model has no temperature", "one", "export the run with one")
        return "none: the export has none"
    if calibrated is False:
        raise OptionError(
            "calibrated", "the export divides its logits by a temperature", remedy="map with the run, or leave it out"
        )
    return f"{card.temperature['temperature']:.3f}, in the export"


@functools.lru_cache(maxsize=1)
def cached_predictor(model: str, stamp: tuple[int, ...], tta: str, calibrated: bool | None) -> Predictor:
    """Opens a model as `open_predictor`; a process that computes several blocks opens it once.

    Args:
        model: its path.
        stamp: numbers that change with its files, for processes that outlive a map.
        tta: see `open_predictor`.
        calibrated: see `open_predictor`.
    """
    return open_predictor(model, tta=tta, calibrated=calibrated)
