"""Export of a run's model as a SavedModel for TensorFlow Serving, from digital numbers to classes.

An export folder holds versions, `EXPORT/1`, `EXPORT/2` and so on, each whole from the moment it has its name, and
beside them what TensorFlow Serving needs to serve the highest one, see `eo_keras.serving.server`. A version's signature
`serving_default`, also callable as `serve`, takes `image` and returns `probabilities` float32 `(batch, classes)`,
`class_id` int64 `(batch,)` and `class_name` string `(batch,)`. A segmentation model takes images of any size and
returns `probabilities` `(batch, height, width, classes)` and `class_id` uint8 `(batch, height, width)`. Normalization
is inside. Other signatures take encoded images and return the same, see `eo_keras.serving.signatures`.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from eo_keras import models, tasks
from eo_keras.core import files
from eo_keras.core.output_folders import OutputFolder
from eo_keras.data.parse import unwrapped
from eo_keras.errors import OptionError, RunError, StorageError
from eo_keras.metrics.calibration import Calibration
from eo_keras.records.example import no_data
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.runs.export_folder import EXTRA_DIR, MODEL_FILE, PROBABILITIES, SIGNATURE, versions
from eo_keras.runs.stand_in import StandIn, read_stand_in
from eo_keras.serving import server, signatures, warmup
from eo_keras.serving.signatures import Signature

ENDPOINT = "serve"
NEEDS = "import tensorflow, then tensorflow.saved_model.load(folder)"
"""Text of the card on opening an export without this package and Keras."""

TOLERANCE = 1e-4
"""Largest difference between probabilities of the export and of the Keras model.

TensorFlow fuses layers of an export, and single precision rounds otherwise: logits of 20 then differ by some 1e-5.
"""

_MAX_VERSION = 2**63 - 1
"""Largest version number, an int64 in TensorFlow Serving."""


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature; `None` in its shape stands for any length."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {self.shape}"


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """Report of an export.

    Attributes:
        path: the version's folder.
        version: its number.
        newest: the highest version in the export folder, which is the one that TensorFlow Serving serves.
        bytes: size of the version's files.
        inputs: the inputs of each signature, by the signature's name, as they were read back.
        outputs: the outputs of all signatures.
        checked_images: number of images that each signature and the Keras model predicted.
        largest_difference: by how much their probabilities differed at the most.
    """

    path: pathlib.Path
    version: int
    newest: int
    bytes: int
    inputs: Mapping[str, tuple[TensorInfo, ...]]
    outputs: tuple[TensorInfo, ...]
    checked_images: int
    largest_difference: float


def choose_version(run: runs.Run, export_dir: str | os.PathLike[str], version: int | None = None) -> int:
    """Checks that a run can be exported into a folder, and returns its version number.

    Args:
        run: the run.
        export_dir: the folder of versions; it may be missing.
        version: the number wished for; by default the next one after the highest, because a gap below it would not be
            served.

    Raises:
        OptionError: if the version is taken or no number from 1 on, or the folder lies in the run folder.
        StorageError: if the folder is a file, or itself a version.
    """
    folder = pathlib.Path(export_dir)
    if folder.exists() and not folder.is_dir():
        raise StorageError(folder, "there is a file of this name", "a folder, or nothing", "choose another export_dir")
    if (folder / MODEL_FILE).exists():
        raise StorageError(
            folder,
            f"it holds {MODEL_FILE}, so it is one version of an export",
            "the folder of all versions",
            "name the folder above it",
        )
    if folder.resolve().is_relative_to(run.folder.resolve()):
        raise OptionError(
            "export_dir",
            f"{folder} lies in the run folder, which launch.train keeps for itself",
            "a folder of its own",
            "choose another export_dir",
        )
    taken = versions(folder)
    if version is None:
        version = max(taken, default=0) + 1
    if not 1 <= version <= _MAX_VERSION:
        raise OptionError("version", f"{version}", f"a whole number from 1 to {_MAX_VERSION}")
    if version in taken:
        raise OptionError(
            "version",
            f"{folder} already holds version {version}",
            "a free number",
            f"leave the version out to get {max(taken) + 1}",
        )
    return version


def export(
    run: runs.Run,
    export_dir: str | os.PathLike[str],
    *,
    version: int | None = None,
    calibration: Calibration | None = None,
    stand_in: str | os.PathLike[str] | None = None,
) -> ExportReport:
    """Writes a run's model as the next version of an export, after checking it.

    Args:
        run: the run.
        export_dir: the folder of versions; made where it is missing.
        version: the version's number; by default the next one after the highest.
        calibration: the temperature to divide the logits by, see `eo_keras.runs.temperature`; its card says so.
        stand_in: run folder of a model that predicts the images of a sensor where they are missing, see
            `eo_keras.runs.stand_in`; its card says so.

    Raises:
        OptionError: if the version is taken or no number from 1 on, or the folder lies in the run folder.
        RunError: if the export and the Keras model differ, or the stand-in does not fit the model.
        StorageError: if the folder cannot be written, is in use, or is not a folder of versions.
    """
    choose_version(run, export_dir, version)
    completing = None if stand_in is None else read_stand_in(stand_in, run.card)
    run = _as_exported(run, calibration, completing)
    folder = pathlib.Path(export_dir)
    output = OutputFolder(folder, "export", StorageError)
    # Versions that other programs exported may lie beside it.
    with output.held(overwrite=True):
        # Again, now that no other process can take the number.
        version = choose_version(run, folder, version)
        path = folder / str(version)
        with output.new_path(path.name) as temporary:
            offered, loaded = _write(run, temporary, path, completing)
            count, difference = _check(run, offered, loaded, completing)
            size = _settle(temporary, path)
        newest = max(versions(folder))
        # What is there may have been edited, and may be in use.
        files_beside = server.contents(server.model_name(folder))
        output.write({name: data for name, data in files_beside.items() if not os.path.lexists(folder / name)})
    return ExportReport(
        path=path,
        version=version,
        newest=newest,
        bytes=size,
        inputs={one.name: _described(loaded.signatures[one.name].structured_input_signature[1]) for one in offered},
        outputs=_described(loaded.signatures[SIGNATURE].structured_outputs),
        checked_images=count,
        largest_difference=difference,
    )


def _as_exported(run: runs.Run, calibration: Calibration | None, stand_in: StandIn | None) -> runs.Run:
    """Returns the run with the exported model, the stand-in left out, and its card."""
    card = dataclasses.replace(
        run.card,
        temperature=calibration and calibration.summary(),
        stand_in=stand_in and {"sensor": stand_in.sensor, "model_sha256": stand_in.sha256},
        needs=NEEDS,
    )
    model = run.model if calibration is None else models.with_temperature(run.model, calibration.temperature)
    return dataclasses.replace(run, card=card, model=model)


def _write(
    run: runs.Run, temporary: pathlib.Path, path: pathlib.Path, stand_in: StandIn | None
) -> tuple[Sequence[Signature], Any]:
    """Writes the version under a temporary name and loads it; returns its signatures too."""
    task, names = tasks.of(run.card), run.card.legend.class_names
    model = task.served_model(run.model)
    model = model if stand_in is None else stand_in.complete(model)
    offered = signatures.of_model(run.card, {one.name: one.shape[1:] for one in model.inputs})

    # Traced once: all signatures run this function, so that none can give other numbers.
    @tf.function(input_signature=[dict(offered[0].specs)], autograph=False)
    def predict(images: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        # The model's output is float64 under the policy of that name; clients get one type always.
        return task.served(tf.cast(model(unwrapped(images), training=False), tf.float32), names)

    archive = keras.export.ExportArchive()
    for signature in offered:
        # The first one is the default signature too.
        name = ENDPOINT if signature.name == SIGNATURE else signature.name
        _add_endpoint(archive, name, signature, predict)
    with runs.storage_errors(path):
        archive.write_out(str(temporary), verbose=False)
        extra = files.make_folder(temporary / EXTRA_DIR)
        model_cards.write_model_card(run.card, extra)
        images = {name: values[1:2] for name, values in _numbers(run.card).items()}
        warmup.write(extra / warmup.NAME, [(one.name, one.request(images)) for one in offered])
        return offered, tf.saved_model.load(str(temporary))


def _add_endpoint(
    archive: keras.export.ExportArchive, name: str, signature: Signature, predict: Callable[[Any], Any]
) -> None:
    """Adds a signature to an export: of one input, which may be given by position too, or of several by name."""
    if len(signature.specs) == 1:
        ((only, spec),) = signature.specs.items()
        archive.add_endpoint(name, lambda value: predict(signature.images({only: value})), [spec])
        return
    named = tf.function(lambda **given: predict(signature.images(given)), autograph=False)
    named.get_concrete_function(**signature.specs)
    archive.add_endpoint(name, named)


def _check(run: runs.Run, offered: Sequence[Signature], loaded: Any, stand_in: StandIn | None) -> tuple[int, float]:
    """Runs all signatures and the Keras model on the same images; returns their number and the largest difference.

    Raises:
        RunError: if the outputs differ, or the model's are no numbers.
    """
    images = _numbers(run.card)
    model = run.model if stand_in is None else stand_in.complete(run.model)
    expected = np.asarray(model(unwrapped(images), training=False))
    if not np.isfinite(expected).all():
        raise RunError(
            run.folder / runs.MODEL_NAME,
            "its outputs are not finite numbers",
            "probabilities",
            "its training has diverged: train again with a lower learning_rate",
        )
    differences = [_check_signature(run, one, loaded.signatures[one.name], images, expected) for one in offered]
    return len(expected), max(differences)


def _check_signature(
    run: runs.Run, signature: Signature, served: Any, images: Mapping[str, np.ndarray], expected: np.ndarray
) -> float:
    """Returns by how much the probabilities of a signature differ from the model's at the most.

    Raises:
        RunError: if they differ by more than `TOLERANCE`, or the classes are others.
    """
    request = {name: tf.constant(values) for name, values in signature.request(images).items()}
    outputs = {name: value.numpy() for name, value in served(**request).items()}
    difference = float(np.abs(outputs[PROBABILITIES] - expected).max())
    places = outputs["class_id"][..., None].astype(np.int64)
    chosen = np.take_along_axis(outputs[PROBABILITIES], places, axis=-1)[..., 0]
    named = (
        "class_name" not in outputs
        or [run.card.legend.class_names[label].encode() for label in outputs["class_id"]]
        == outputs["class_name"].tolist()
    )
    # Written so that a difference that is no number fails too.
    alike = difference <= TOLERANCE
    if not alike or (chosen < outputs[PROBABILITIES].max(axis=-1)).any() or not named:
        raise RunError(
            run.folder / runs.MODEL_NAME,
            f"its export predicts otherwise by the signature '{signature.name}': probabilities differ by "
            f"{difference:.2g}" + (", classes by their name or number" if alike else ""),
            f"at most {TOLERANCE:g}, and the legend's names",
            "export on the processor instead of a GPU; if that does not help, report it with the model card",
        )
    return difference


def _numbers(card: model_cards.ModelCard) -> dict[str, np.ndarray]:
    """Makes images of each input: like the training data, of all numbers, partly and wholly without data.

    Returns:
        (6, patch, patch, bands) of the input's dtype, by its name. Random, but the same for each run of equal
        statistics.
    """
    rng = np.random.default_rng(0)
    return {name: _numbers_of(one, rng) for name, one in card.by_input.items()}


def _numbers_of(given: Any, rng: np.random.Generator) -> np.ndarray:
    dtype, size = np.dtype(given.dtype), given.patch_size
    shape = (size, size, len(given.bands))
    mean, std = (np.asarray(given.normalisation[name]) for name in ("mean", "std"))
    lowest, largest = (1, np.iinfo(dtype).max) if dtype.kind == "u" else (-np.inf, np.inf)
    # Of different brightness, or a trained model would predict the same for all.
    usual = [rng.normal(mean + shift * std, std, shape).clip(lowest, largest) for shift in (-1, 0, 1)]
    anything = (
        rng.normal(mean, 100 * std, shape) if dtype.kind == "f" else rng.integers(0, largest, shape, endpoint=True)
    )
    nothing = no_data(dtype)
    half = np.where(np.arange(size)[:, None, None] < size // 2, usual[1], nothing)
    return np.stack([*usual, anything, half, np.full(shape, nothing)]).astype(dtype)


def _settle(temporary: pathlib.Path, path: pathlib.Path) -> int:
    """Flushes a version's files to disk, so that a power failure cannot empty them; returns their size in bytes."""
    size = 0
    with files.storage_errors(path):
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb") as opened:
                    os.fsync(opened.fileno())
                size += file.stat().st_size
    return size


def _described(specs: dict[str, tf.TensorSpec]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(name, spec.dtype.name, tuple(spec.shape)) for name, spec in sorted(specs.items()))
