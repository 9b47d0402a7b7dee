"""Stand-in for a sensor that is missing: a run that predicts its images from those of others."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

from eo_keras import models
from eo_keras.core import files
from eo_keras.errors import RunError
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.runs.model_card import ModelCard, ModelInput

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class StandIn:
    """Run that predicts the images of a sensor, checked against the model that takes them.

    Attributes:
        folder: its folder.
        card: its card.
        sensor: the sensor.
        sha256: checksum of its model's file.
        taken: name of the other model's input by that of each of its own.
    """

    folder: pathlib.Path
    card: ModelCard
    sensor: str
    sha256: str
    taken: dict[str, str]

    def complete(self, model: keras.Model) -> keras.Model:
        """Returns a model that predicts the sensor's images where they are missing, see `models.with_stand_in`.

        Raises:
            RunError: if the file of the stand-in's model is damaged.
        """
        images = [
            models.PredictedImage(
                one.name, models.Normalization(*(tuple(one.normalisation[name]) for name in ("mean", "std")))
            )
            for one in self.card.predicted
        ]
        return models.with_stand_in(model, runs.open_run(self.folder).model, self.taken, images)


def read_stand_in(run_dir: str | os.PathLike[str], model: ModelCard) -> StandIn:
    """Reads the run of a stand-in, and checks that it fits a model; loads no model.

    Args:
        run_dir: run folder of the stand-in, trained by `pretext=translated`.
        model: card of the model that is given its predictions.

    Raises:
        RunError: if it is no such run, was trained on other records, or predicts or takes what the model does not.
    """
    folder = pathlib.Path(run_dir)
    card = model_cards.read_model_card(folder)
    if not card.predicted:
        raise RunError(
            folder,
            "its model predicts no images of a sensor",
            "the run of a stand-in",
            "train one by `pretext=translated`",
        )
    if card.data_fingerprint != model.data_fingerprint:
        raise RunError(
            folder,
            f"it was trained on records of the fingerprint {card.data_fingerprint[:12]}",
            f"{model.data_fingerprint[:12]}, those of the model: it may have seen what the model is tested on",
            "train the stand-in on the same records",
        )
    inputs = {one.name: one for one in model.inputs}
    for one in card.predicted:
        _check(folder, one, inputs.get(one.name), "predicts")
    taken = {}
    for one in card.inputs:
        # The only input of a model is named `image`, whatever its modality.
        fitting = [other for other in model.inputs if _same(one, other)]
        _check(folder, one, fitting[0] if fitting else inputs.get(one.modality), "takes")
        taken[one.name] = fitting[0].name
    checksum = files.sha256_of_file(runs.model_path(folder))
    return StandIn(folder, card, card.options_without_labels["translated_sensor"], checksum, taken)


def _same(one: ModelInput, other: ModelInput) -> bool:
    return (one.modality, one.bands, one.dtype) == (other.modality, other.bands, other.dtype)


def _check(folder: pathlib.Path, one: ModelInput, other: ModelInput | None, does: str) -> None:
    if other is None or not _same(one, other):
        has = "none of that name" if other is None else f"{other.modality}:{','.join(other.bands)}"
        raise RunError(
            folder,
            f"it {does} {one.modality}:{','.join(one.bands)}",
            f"an input of the model, which has {has}",
            "train the stand-in with the `bands` of the model",
        )
