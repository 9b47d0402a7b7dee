"""Folder of an export: versions of a SavedModel that TensorFlow Serving serves, each with its model card.

`EXPORT/1`, `EXPORT/2` and so on are versions. `eo_keras.serving.saved_model` writes them.
"""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Any

from eo_keras.core import files
from eo_keras.errors import RunError
from eo_keras.runs import model_card as model_cards
from eo_keras.runs.model_card import ModelCard

if TYPE_CHECKING:
    import tensorflow as tf

MODEL_FILE = "saved_model.pb"
"""File of a version by which TensorFlow knows a SavedModel."""

EXTRA_DIR = "assets.extra"
"""Folder in a version for files that TensorFlow does not read."""

SIGNATURE = "serving_default"
"""Default signature of TensorFlow Serving: digital numbers in."""

IMAGE, PROBABILITIES = "image", "probabilities"
"""Names of the default signature's input and of its output of float32 probabilities."""

_MADE_BY = "a folder made by launch.export"
_REMEDY = "copy the whole version again, or export the run again"


def versions(export_dir: str | os.PathLike[str]) -> tuple[int, ...]:
    """Returns the numbers of the versions in an export folder in rising order; none where there is no such folder."""
    return tuple(sorted(_by_version(pathlib.Path(export_dir))))


def _by_version(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    if not folder.is_dir():
        return {}
    with files.storage_errors(folder):
        names = os.listdir(folder)
    # TensorFlow Serving takes each name that reads as a number for a version, 007 for 7.
    return {int(name): folder / name for name in names if name.isascii() and name.isdigit()}


class ExportedModel:
    """Model of an export, called as a Keras model is.

    Args:
        folder: the version's folder.
        loaded: the SavedModel.

    Attributes:
        folder: the version's folder.
        image_size: height and width of the images in pixels; None for any.
    """

    def __init__(self, folder: pathlib.Path, loaded: Any):
        self.folder = folder
        # The signature does not keep the variables; the object that was loaded does.
        self._loaded, self._signature = loaded, loaded.signatures[SIGNATURE]
        self.image_size: int | None = next(iter(self._specs.values())).shape[1]

    @property
    def _specs(self) -> dict[str, tf.TensorSpec]:
        return self._signature.structured_input_signature[1]

    def __call__(self, images: Any, training: bool = False) -> tf.Tensor:
        """Predicts a batch.

        Args:
            images: (batch, height, width, bands), digital numbers of the card's dtype, the bands in the card's order;
                of several inputs by their names.
            training: without effect.

        Returns:
            float32 probabilities (batch, classes), or (batch, height, width, classes) of a segmentation model.
        """
        import tensorflow as tf

        images = images if isinstance(images, dict) else {IMAGE: images}
        given = {name: tf.convert_to_tensor(values) for name, values in images.items()}
        return self._signature(**given)[PROBABILITIES]


def open_export(path: str | os.PathLike[str]) -> tuple[ModelCard, ExportedModel]:
    """Opens an export without Keras.

    A SavedModel is a program that TensorFlow runs: open those of people you trust.

    Args:
        path: an export folder, of which the highest version is opened, or one version.

    Returns:
        Card and model. The logits have been divided by the temperature of the card already.

    Raises:
        RunError: if the folder holds no version, the version or its card is damaged, or they do not fit each other.
    """
    folder = _version(path)
    card = model_cards.read_model_card(folder / EXTRA_DIR)
    model = _load(folder)
    classes = model._signature.structured_outputs[PROBABILITIES].shape[-1]
    given = {name: (*spec.shape[1:], spec.dtype.name) for name, spec in model._specs.items()}
    expected = {}
    for name, one in card.by_input.items():
        size = (None, None) if card.targets.per_pixel else (one.patch_size, one.patch_size)
        expected[name] = (*size, len(one.bands), one.dtype)
    if (given, classes) != (expected, len(card.legend)):
        raise RunError(
            folder,
            f"a model of {classes} classes and of inputs of height, width, bands and type {given}",
            f"{len(card.legend)} classes and {expected}, as {model_cards.MODEL_CARD_NAME} says",
            _REMEDY,
        )
    return card, model


def is_export(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is an export folder with a version, or one version."""
    folder = pathlib.Path(path)
    return (folder / MODEL_FILE).is_file() or any((one / MODEL_FILE).is_file() for one in _by_version(folder).values())


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Reads the card of the export that `open_export` opens, without TensorFlow.

    Raises:
        RunError: if the folder holds no version, or its card is damaged.
    """
    return model_cards.read_model_card(_version(path) / EXTRA_DIR)


def _version(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder of a version: the highest one of an export folder, or the version itself."""
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise RunError(folder, "there is no such folder", _MADE_BY)
    if (folder / MODEL_FILE).is_file():
        return folder
    if not (found := _by_version(folder)):
        raise RunError(folder, f"it holds neither {MODEL_FILE} nor a version", _MADE_BY, "name an export")
    return found[max(found)]


def _load(folder: pathlib.Path) -> ExportedModel:
    import tensorflow as tf

    try:
        return ExportedModel(folder, tf.saved_model.load(str(folder)))
    except Exception as error:  # TensorFlow raises whatever the damaged part brought about.
        problem = f"{type(error).__name__}: {str(error)[:200]}"
        raise RunError(folder, f"it cannot be loaded ({problem})", _MADE_BY, _REMEDY) from error
