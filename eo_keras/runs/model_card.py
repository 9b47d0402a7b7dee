"""Card of a trained model, `model_card.json` in a run folder and in an export."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from eo_keras.core import files
from eo_keras.core.serialization import later_field, read_signed, signed_bytes
from eo_keras.errors import RunError
from eo_keras.legends.catalogue import Legend
from eo_keras.records import targets
from eo_keras.records.data_card import IMAGE, StoredImages
from eo_keras.records.inputs import InputBands, shown_bands
from eo_keras.records.targets import Targets
from eo_keras.sensors.radiometry import Reflectance

MODEL_CARD_NAME = "model_card.json"
SCHEMA = 1
"""Version of the card's layout."""


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """One input of a model of several inputs, or the only one where it is a named modality.

    Attributes:
        name: name of the input, see `eo_keras.records.inputs.InputBands`.
        modality: name of its modality in the records.
        sensor: name of the sensor.
        bands: the bands that it takes, in order.
        dtype: type of its numbers.
        units: their units.
        level: Sentinel-2 processing level; empty for other sensors.
        reflectance: relation of the numbers to reflectance, or None.
        resolution_m: pixel size in meters.
        patch_size: height and width in pixels that it was trained with.
        normalisation: means and standard deviations that the model holds inside, one a band.
        records: layout of the modality's images in the records that it was trained on.
        feature: name of their feature in a record.
        missing: number of training examples that lacked it.
    """

    name: str
    modality: str
    sensor: str
    bands: tuple[str, ...]
    dtype: str
    units: str
    level: str
    reflectance: Reflectance | None
    resolution_m: float
    patch_size: int
    normalisation: Mapping[str, tuple[float, ...]]
    records: StoredImages
    feature: str
    missing: int = later_field(0)


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Inputs, outputs and provenance of a trained model.

    Attributes:
        model: name of the architecture, as `eo_keras.models.build` knows it.
        task: name of the task that it was trained for, see `eo_keras.tasks`.
        dataset: the data set that it was trained on.
        data_fingerprint: fingerprint of that data's card.
        bands: the bands that the model takes, in order.
        dtype: type of the numbers that the model takes.
        level: their processing level.
        reflectance: their relation to reflectance.
        nodata: the number that means "no data".
        resolution_m: pixel size in meters.
        patch_size: height and width in pixels that it was trained with.
        normalisation: means and standard deviations that the model holds inside, one a band.
        legend: the classes, in the order of the probabilities.
        parameters: number of weights.
        initialisation: origin of the weights before training.
        flags: the options that trained it.
        selection: choice of the kept epoch: split, metric, value, epoch.
        scores: scores by split, as `launch.evaluate` measured them.
        versions: versions of the packages that trained it.
        attribution: whom to name when the model is published.
        temperature: of a run, the temperature that was fitted for its model, and on what; the model itself predicts
            without it. Of an export, what it divides its logits by. None: none.
        records: layout of the images in the records that it was trained on; None in cards of earlier versions.
        inputs: the inputs of a model of several, or of named modalities; bands and numbers above are those of the first
            one. Empty for one input of the only modality of its records.
        predicted: of a stand-in for a sensor, the images that it predicts, as inputs of other models have them.
        stand_in: of an export, the sensor that is predicted where it is missing, and the checksum of the stand-in.
        needs: imports that opening the model's own file needs; an export needs TensorFlow alone.
    """

    model: str
    task: str
    dataset: str
    data_fingerprint: str
    bands: tuple[str, ...]
    dtype: str
    level: str
    reflectance: Reflectance | None
    nodata: int
    resolution_m: float
    patch_size: int
    normalisation: Mapping[str, tuple[float, ...]]
    legend: Legend
    parameters: int
    initialisation: str
    flags: Mapping[str, Any]
    selection: Mapping[str, Any]
    scores: Mapping[str, Any]
    versions: Mapping[str, str]
    attribution: str
    temperature: Mapping[str, Any] | None = None
    records: StoredImages | None = None
    needs: str = "import eo_keras.models, then keras.saving.load_model('model.keras', compile=False)"
    schema: int = SCHEMA
    inputs: tuple[ModelInput, ...] = later_field(())
    predicted: tuple[ModelInput, ...] = later_field(())
    stand_in: Mapping[str, str] | None = later_field(None)

    @property
    def taken(self) -> tuple[InputBands, ...]:
        """Inputs by modality and bands, as a pipeline delivers them."""
        if not self.inputs:
            return (InputBands(IMAGE, IMAGE, self.bands),)
        return tuple(InputBands(one.name, one.modality, one.bands) for one in self.inputs)

    @property
    def sensor_names(self) -> tuple[str, ...]:
        """Names of the sensors of several inputs: of their modalities, without their dates."""
        return tuple(dict.fromkeys(one.sensor_name for one in self.taken))

    def check_one_image(self, where: str | os.PathLike[str]) -> None:
        """Checks that the model takes one image.

        Args:
            where: place in errors.

        Raises:
            RunError: if it takes several.
        """
        if len(self.inputs) > 1:
            names = ", ".join(one.name for one in self.inputs)
            raise RunError(
                where,
                f"{self.model} takes several images of each place ({names})",
                "a model of one image",
                ("predict image files by launch.predict, " if self.targets.per_pixel else "predict ")
                + "records by launch.evaluate, or export it: the SavedModel takes them by these names",
            )

    def learned_without(self, name: str) -> bool:
        """Returns whether a model of several inputs has seen examples in training that lacked one of them."""
        return bool(self.flags.get("modality_dropout")) or any(one.missing for one in self.inputs if one.name == name)

    @property
    def pretext(self) -> str | None:
        """Kind of training without labels, see `eo_keras.tasks.options.PRETEXTS`; None of a run with labels."""
        return self.options_without_labels.get("pretext")

    @property
    def options_without_labels(self) -> Mapping[str, Any]:
        """Options of training without labels, see `eo_keras.tasks.options.PretextOptions`; of earlier versions none."""
        return self.flags.get("pretraining", {})

    @property
    def channels(self) -> int:
        """Number of channels of the model's output: classes, or without labels the bands that are predicted."""
        return len(self.legend) if self.pretext is None else sum(len(one.bands) for one in self.predicted or self.taken)

    def check_predicts_classes(self) -> None:
        """Checks that the model predicts classes.

        Raises:
            RunError: if it was pre-trained without labels.
        """
        if self.pretext is not None:
            raise RunError(
                self.flags["run_dir"],
                f"its model was trained without labels (`pretext={self.pretext}`) and predicts no classes",
                "a run that was trained on labels",
                f"give it to one by `{'stand_in' if self.predicted else 'backbone_run'}={self.flags['run_dir']}`",
            )

    @property
    def title_of_bands(self) -> str:
        """Bands of all inputs, such as `B04,B03,B02` or `s2:B04,B03,B02;s1:VV,VH`."""
        named = [f"{one.modality}:{','.join(one.bands)}" for one in self.inputs]
        return ";".join(named) or ",".join(self.bands)

    @property
    def shown_bands(self) -> Any:
        """Names of the bands, of several inputs by the input's name, for figures."""
        return shown_bands(self.taken)

    @property
    def by_input(self) -> Mapping[str, Any]:
        """Bands, dtype, patch size and normalization of each input by its name, the only one as `image`."""
        return {one.name: one for one in self.inputs} if len(self.inputs) > 1 else {IMAGE: self}

    @property
    def targets(self) -> Targets:
        """Layout of the labels in training."""
        return targets.of_task(self.task)


def write_model_card(card: ModelCard, folder: str | os.PathLike[str]) -> None:
    """Writes a card into a folder under its fixed name."""
    for name, data in contents(card).items():
        files.write_bytes(files.join(folder, name), data)


def contents(card: ModelCard) -> dict[str, bytes]:
    """Returns the content of a card's file, by the file's name."""
    return {MODEL_CARD_NAME: signed_bytes(card)}


def read_model_card(run_dir: str | os.PathLike[str]) -> ModelCard:
    """Reads a run folder's or an export's card.

    Raises:
        RunError: if the folder or the card is missing, or the card cannot be read.
    """
    return read_signed(
        ModelCard,
        run_dir,
        MODEL_CARD_NAME,
        schema=SCHEMA,
        error=RunError,
        expected="a folder made by launch.train",
        complete=_with_task,
    )


_EARLIER_NETWORKS = {
    **dict.fromkeys(("resnet14", "resnet50", "resnet101", "inception_v3", "googlenet"), "classification"),
    **dict.fromkeys(("xception65", "compact"), "classification"),
    **dict.fromkeys(("deeplab_resnet14", "deeplab_resnet50", "deeplab_resnet101"), "segmentation"),
    **dict.fromkeys(("deeplab_xception65", "deeplab_xception_small"), "segmentation"),
}
"""Networks of versions whose cards name no task; the registry would import Keras."""


def _with_task(content: dict[str, Any]) -> dict[str, Any]:
    """Returns a card's content with its task, which cards of earlier versions lack: that of their network."""
    if "task" in content:
        return content
    if content.get("model") not in _EARLIER_NETWORKS:
        raise ValueError(f"it names no task, and the network '{content.get('model')}' is not known")
    return content | {"task": _EARLIER_NETWORKS[content["model"]]}
