"""The cards that travel with data and models: what the numbers are, where they come from, what the classes mean.

`DataCard` is `card.json` in a records folder, `ModelCard` is `model_card.json` in a run folder and in an export. Both
are frozen dataclasses; `to_json` and `from_json` convert them and everything inside them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import types
import typing
from collections.abc import Mapping
from typing import Any

from eo_keras.core import files
from eo_keras.errors import EOKerasError, RecordsError, RunError
from eo_keras.legends.catalogue import Legend
from eo_keras.records import targets as label_layouts
from eo_keras.records.targets import Targets
from eo_keras.sensors.radiometry import Reflectance

DATA_CARD_NAME = "card.json"
MODEL_CARD_NAME = "model_card.json"
SCHEMA = 1
"""Version of both cards' layout; a card of another layout is refused instead of misread."""


_CHECKSUM = "checksum"
"""Of all else in the file, and no part of the card: a changed digit is noticed. Cards from before it lack it."""


_LISTED = 10
"""Classes that a line names; of more it gives the number."""


@dataclasses.dataclass(frozen=True)
class BandStatistics:
    """Statistics of one band over the training split, in stored numbers: of pixels with data, of tiles the clear ones.

    Attributes:
        band: the band's name.
        mean: arithmetic mean.
        std: population standard deviation.
        minimum: smallest valid value.
        maximum: largest valid value.
        valid: number of valid pixels.
        nodata: number of pixels without data.
        percentiles: by percentage (`"1"` to `"99"`), the smallest number that so many per cent of the pixels do not
            exceed; empty in cards that were written before percentiles were.
    """

    band: str
    mean: float
    std: float
    minimum: int
    maximum: int
    valid: int
    nodata: int
    percentiles: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def nodata_share(self) -> float:
        """Share of the pixels that hold no data, 0 to 1."""
        return self.nodata / max(1, self.valid + self.nodata)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file of a split."""

    name: str
    examples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of the data: its examples by class (of tiles, the clear pixels), and the shards that hold them."""

    examples: int
    classes: Mapping[str, int]
    shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """Where the data came from: a file's name, size and SHA-256; of a folder, the hash over all its images."""

    name: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class DataCard:
    """What a records folder holds. See the module's and the fields' comments.

    Attributes:
        dataset: the data set's name, also the beginning of the shards' names.
        version: version of the records' content.
        task: what the labels are for: `classification` of patches, or `segmentation`, where every pixel has one.
        bands: names of the stored bands, in stored order.
        dtype: type of the stored numbers, `uint8` or `uint16`.
        encoding: how an image is stored: `jpeg`, or `raw` little-endian numbers in height, width, band order.
        level: Sentinel-2 processing level, `L1C` or `L2A`.
        harmonised: whether the product's radiometric offset is already applied.
        reflectance: relation of the numbers to reflectance; None where the source does not say it.
        nodata: the number that means "no data".
        resolution_m: pixel size in metres.
        patch_size: height and width of an image in pixels.
        georeferenced: whether every record holds its CRS and transform.
        legend: the classes.
        splits: the parts by name (`train`, `val`, `test`).
        split_method: how the parts were made: the options and the counts that came out of them.
        statistics: one entry a band, over the training split.
        sources: the files the records were made from.
        products: Sentinel-2 product identifiers, where known.
        attribution: whom to name when the data or a model trained on it is published.
        fingerprint: SHA-256 over all of the above but the percentiles, which follow from the shards.
    """

    dataset: str
    version: str
    task: str
    bands: tuple[str, ...]
    dtype: str
    encoding: str
    level: str
    harmonised: bool
    reflectance: Reflectance | None
    nodata: int
    resolution_m: float
    patch_size: int
    georeferenced: bool
    legend: Legend
    splits: Mapping[str, Split]
    split_method: Mapping[str, Any]
    statistics: tuple[BandStatistics, ...]
    sources: tuple[SourceFile, ...]
    products: tuple[str, ...]
    attribution: str
    fingerprint: str = ""
    schema: int = SCHEMA

    @property
    def targets(self) -> Targets:
        """Layout of the labels."""
        return label_layouts.of_task(self.task)

    def missing_classes(self) -> tuple[str, ...]:
        """Returns a line for each part that has no example, or no clear pixel, of some classes of its legend."""
        what = self.targets.counted.removesuffix("s")
        lines = []
        for name, split in self.splits.items():
            missing = [found for found in self.legend.class_names if split.examples and not split.classes.get(found)]
            if missing:
                means = "which cannot be learned" if name == "train" else "which cannot be scored there"
                listed = ", ".join(missing[:_LISTED]) + (
                    f" and {len(missing) - _LISTED} more" * (len(missing) > _LISTED)
                )
                lines.append(f"the split '{name}' has no {what} of {listed}, {means}")
        return tuple(lines)

    def with_fingerprint(self) -> DataCard:
        """Returns the card with its fingerprint filled in."""
        content = to_json(dataclasses.replace(self, fingerprint=""))
        # Records from before percentiles were kept have the fingerprint of the same records made today.
        for band in content["statistics"]:
            del band["percentiles"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return dataclasses.replace(self, fingerprint=hashlib.sha256(text.encode()).hexdigest())


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What a trained model eats and answers, and how it came about.

    Attributes:
        model: name of the architecture, as `eo_keras.models.build` knows it.
        dataset: the data set that it was trained on.
        data_fingerprint: fingerprint of that data's card.
        bands: the bands that the model takes, in order.
        dtype: type of the numbers that the model takes.
        level: their processing level.
        reflectance: their relation to reflectance.
        nodata: the number that means "no data".
        resolution_m: pixel size in metres.
        patch_size: height and width in pixels that it was trained with.
        normalisation: means and standard deviations that the model holds inside, one a band.
        legend: the classes, in the order of the probabilities.
        parameters: number of weights.
        initialisation: where the weights came from before training.
        flags: the options that trained it.
        selection: what chose the kept epoch: split, metric, value, epoch.
        scores: scores by split, as `launch.evaluate` measured them.
        versions: versions of the packages that trained it.
        attribution: whom to name when the model is published.
        temperature: of a run, the temperature that was fitted for its model, and on what; the model itself answers
            without it. Of an export, what it divides its logits by. None: none.
        needs: what must be imported to open the model's own file; an export needs TensorFlow alone.
    """

    model: str
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
    needs: str = "import eo_keras.models, then keras.saving.load_model('model.keras', compile=False)"
    schema: int = SCHEMA


def to_json(card: Any) -> Any:
    """Turns a card, or any dataclass inside one, into what `json` can write."""
    if dataclasses.is_dataclass(card):
        return {field.name: to_json(getattr(card, field.name)) for field in dataclasses.fields(card)}
    if isinstance(card, Mapping):
        return {str(key): to_json(value) for key, value in card.items()}
    if isinstance(card, (list, tuple)):
        return [to_json(value) for value in card]
    return card


def from_json(kind: type, value: Any) -> Any:
    """Builds a dataclass of type `kind` from parsed JSON.

    Raises:
        ValueError: if fields are missing, unknown or of the wrong type.
    """
    origin = typing.get_origin(kind)
    if origin is types.UnionType:
        if value is None:
            return None
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
        return from_json(kind, value)
    if dataclasses.is_dataclass(kind):
        hints = _type_hints(kind)
        if not isinstance(value, dict) or set(value) - set(hints):
            raise ValueError(f"no {kind.__name__}: {str(value)[:80]}")
        try:
            return kind(**{name: from_json(hints[name], item) for name, item in value.items()})
        except TypeError as error:
            raise ValueError(str(error)) from None
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"no list: {str(value)[:80]}")
        return tuple(from_json(typing.get_args(kind)[0], item) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise ValueError(f"no object: {str(value)[:80]}")
        content = typing.get_args(kind)[1]
        return types.MappingProxyType({key: from_json(content, item) for key, item in value.items()})
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{str(value)[:80]!r} is no {kind.__name__}")
    return value


@functools.cache
def _type_hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def write_card(card: DataCard | ModelCard, folder: str | os.PathLike[str]) -> None:
    """Writes a card into a folder under its fixed name."""
    for name, data in contents(card).items():
        files.write_bytes(files.join(folder, name), data)


def contents(card: DataCard | ModelCard) -> dict[str, bytes]:
    """Returns a card as its file holds it, under its fixed name."""
    name = DATA_CARD_NAME if isinstance(card, DataCard) else MODEL_CARD_NAME
    value = to_json(card)
    return {name: files.json_bytes(value | {_CHECKSUM: _checksum(value)})}


def _checksum(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_data_card(records_dir: str | os.PathLike[str]) -> DataCard:
    """Reads a records folder's card.

    Raises:
        RecordsError: if the folder or the card is missing, or the card cannot be read.
    """
    return _read_card(DataCard, records_dir, DATA_CARD_NAME, RecordsError, "a folder made by launch.build")


def read_model_card(run_dir: str | os.PathLike[str]) -> ModelCard:
    """Reads a run folder's or an export's card.

    Raises:
        RunError: if the folder or the card is missing, or the card cannot be read.
    """
    return _read_card(ModelCard, run_dir, MODEL_CARD_NAME, RunError, "a folder made by launch.train")


def _read_card(
    kind: type[DataCard | ModelCard],
    folder: str | os.PathLike[str],
    name: str,
    error: type[EOKerasError],
    expected: str,
) -> Any:
    path = files.join(folder, name)
    if not files.is_folder(folder):
        raise error(folder, "there is no such folder", expected)
    if not files.exists(path):
        raise error(
            folder,
            f"it holds no {name}, so it is empty, unfinished or something else",
            expected,
            "let the command that makes it finish, or name another folder",
        )
    try:
        value = json.loads(files.read_bytes(path))
        if isinstance(value, dict) and (found := value.get("schema", SCHEMA)) != SCHEMA:
            raise ValueError(f"its layout has version {found}, this program reads version {SCHEMA}")
        checksum = value.pop(_CHECKSUM, None) if isinstance(value, dict) else None
        card = from_json(kind, value)
        if checksum is not None and checksum != _checksum(value):
            raise ValueError("its content does not agree with its checksum: it is damaged, or was edited by hand")
        return card
    except (ValueError, OSError, RecursionError) as problem:
        raise error(path, f"it cannot be read ({problem})", "the card as it was written", "make it anew") from None
