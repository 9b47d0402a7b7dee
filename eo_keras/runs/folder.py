"""Run folder: its files, its checks and lock, and loading of a trained model."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eo_keras.core import files, inflation
from eo_keras.core.output_folders import MANIFEST_NAME, OutputFolder
from eo_keras.errors import RecordsError, RunError, StorageError
from eo_keras.records import data_card as cards
from eo_keras.records.data_card import IMAGE
from eo_keras.runs import model_card as model_cards
from eo_keras.runs.event_files import EPOCH, STEPS, TRAIN, VALIDATION, name_of

if TYPE_CHECKING:
    import keras

FLAGS_NAME = "flags.txt"
ENVIRONMENT_NAME = "environment.json"
MODEL_NAME = "model.keras"
HISTORY_NAME = "history.csv"
CURVES_NAME = "training_curves.png"
CHECKPOINT_DIR = "checkpoints"
"""Name of the checkpoints' folder; not `checkpoint`, where TensorBoard expects a file."""
LAST_MODEL_NAME = f"{CHECKPOINT_DIR}/last.keras"
EVALUATION_DIR = "evaluation"
STATE_NAME, PREVIOUS_STATE_NAME = "state.json", "previous.json"
"""Files in the checkpoints' folder that name a checkpoint's files and hold its state without weights."""
KIND = "run"

_EARLIER_CHECKPOINT_DIR = "checkpoint"
"""Name of the checkpoints' folder in runs of earlier versions."""

_NAMES = (
    *(
        FLAGS_NAME,
        ENVIRONMENT_NAME,
        MODEL_NAME,
        HISTORY_NAME,
        CURVES_NAME,
        model_cards.MODEL_CARD_NAME,
        LAST_MODEL_NAME,
    ),
    *(f"{CHECKPOINT_DIR}/{name}" for name in (STATE_NAME, PREVIOUS_STATE_NAME)),
)
_PACKAGES = ("eo-keras", "tensorflow", "keras", "numpy")


def _names(run_dir: str | os.PathLike[str]) -> list[str]:
    """Returns the names of files that training writes, and of existing event files that TensorBoard would mix in."""
    folder, number = pathlib.Path(run_dir), 7 * "[0-9]"
    there = [
        path.relative_to(folder).as_posix()
        for run in (TRAIN, VALIDATION)
        for file in (STEPS, EPOCH)
        for path in folder.glob(name_of(run, file.replace("{:07d}", number)))
    ]
    return [*_NAMES, name_of(TRAIN, STEPS, 1), name_of(VALIDATION, EPOCH, 1), *there]


def output_folder(run_dir: str | os.PathLike[str]) -> OutputFolder:
    """Returns the `OutputFolder` of a run."""
    return OutputFolder(run_dir, KIND, RunError)


def has_checkpoint(run_dir: str | os.PathLike[str]) -> bool:
    """Tells whether there is a checkpoint, complete or not."""
    folder = pathlib.Path(run_dir) / CHECKPOINT_DIR
    return any((folder / name).is_file() for name in (STATE_NAME, PREVIOUS_STATE_NAME))


def check_folder(run_dir: str | os.PathLike[str], *, resume: bool, overwrite: bool) -> None:
    """Checks that a run can be started or resumed in a folder.

    One that holds a run of which no checkpoint was written yet is as good as an empty one.

    Raises:
        RunError: if it holds something else than a run, or a run and neither `resume` nor `overwrite` is said, or
            `resume` and there is nothing to go on from.
    """
    folder, output = pathlib.Path(run_dir), output_folder(run_dir)
    if resume and (folder / _EARLIER_CHECKPOINT_DIR / STATE_NAME).is_file() and output.manifest() is None:
        raise RunError(folder, "its checkpoint is of an earlier version", remedy=start_from_weights(folder))
    holds_model = output.lists(MODEL_NAME) and (folder / MODEL_NAME).exists()
    if resume and not has_checkpoint(folder):
        remedy = start_from_weights(folder) if holds_model else "start the run without `resume`"
        raise RunError(folder, "there is no checkpoint to go on from", remedy=remedy)
    if resume and output.manifest() is None:
        raise RunError(
            folder,
            f"it lacks {MANIFEST_NAME}, which says what may be replaced in it",
            remedy=f"copy the whole run folder again, or {start_from_weights(folder)}",
        )
    output.check(overwrite=overwrite, writes=_names(folder))
    if (has_checkpoint(folder) or holds_model) and not (resume or overwrite):
        others = "replace it by `overwrite`, or choose another folder"
        raise RunError(
            folder,
            "the folder holds another run",
            remedy=f"continue it with `resume`, {others}" if has_checkpoint(folder) else others,
        )


def start_from_weights(run_dir: str | os.PathLike[str]) -> str:
    """Returns a remedy for a run that cannot be resumed: the models that another run may start from."""
    for name in (MODEL_NAME, LAST_MODEL_NAME):
        path = model_path(run_dir, name)
        with contextlib.suppress(*inflation.UNREADABLE):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is None:
                    return f"start another run from its weights: `weights={path}` with another `run_dir`"
    return "start the run again in another `run_dir`"


def model_path(run_dir: str | os.PathLike[str], name: str = MODEL_NAME) -> pathlib.Path:
    """Returns where a run, also one of an earlier version, keeps its `MODEL_NAME` or `LAST_MODEL_NAME`."""
    folder = pathlib.Path(run_dir)
    earlier = folder / _EARLIER_CHECKPOINT_DIR / pathlib.PurePath(name).name
    if name == LAST_MODEL_NAME and not (folder / name).exists() and earlier.exists():
        return earlier
    return folder / name


def list_folder(run_dir: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Lists an output folder that lies in a run, such as an evaluation, as part of the run."""
    run, inner = pathlib.Path(run_dir).resolve(), pathlib.Path(folder).resolve()
    output = output_folder(run)
    if inner != run and inner.is_relative_to(run) and output.manifest() is not None:
        output.add_folder(inner.relative_to(run).as_posix())


def write_file(run_dir: str | os.PathLike[str], name: str, data: bytes) -> list[str]:
    """Writes a file of a run that is not being trained.

    Returns:
        Lines for the user about what was given another name.

    Raises:
        RunError: if the run is of an earlier version and has the file already.
        StorageError: if the run folder cannot be written.
    """
    output = output_folder(run_dir)
    if output.manifest() is not None:
        output.write({name: data})
        return output.take_warnings()
    path = pathlib.Path(run_dir) / name
    if os.path.lexists(path):
        raise RunError(
            path, "this program did not write it, or an earlier version did", remedy="move it away, and try again"
        )
    files.make_folder(path.parent)
    files.write_bytes(path, data)
    return []


@contextlib.contextmanager
def run_folder(
    run_dir: str | os.PathLike[str], *, resume: bool, overwrite: bool, flags_text: str
) -> Iterator[OutputFolder]:
    """Makes and locks a run folder and, for a new run, clears it; a context manager.

    Raises:
        RunError: if the folder is in use, or see `check_folder`.
        StorageError: if it cannot be written.
    """
    output = output_folder(run_dir)
    with output.held(overwrite=overwrite, writes=_names(run_dir)):
        # Looked at again, for another process may have begun a run before this one took the lock.
        check_folder(run_dir, resume=resume, overwrite=overwrite)
        if not resume:
            output.clear(first=(MODEL_NAME, model_cards.MODEL_CARD_NAME))
            if overwrite:
                output.tell_foreign()
            output.write({FLAGS_NAME: flags_text.encode("utf-8"), ENVIRONMENT_NAME: files.json_bytes(environment())})
        yield output


def write_card(card: model_cards.ModelCard, run_dir: str | os.PathLike[str]) -> list[str]:
    """Replaces the card of a run that is not being trained, such as by one with more scores.

    Returns:
        Lines for the user about what became of the card that is there.

    Raises:
        RunError: if the card that is there cannot be read.
        StorageError: if the run folder cannot be written.
    """
    output, path = output_folder(run_dir), pathlib.Path(run_dir) / model_cards.MODEL_CARD_NAME
    if output.manifest() is not None:
        output.write(model_cards.contents(card))
        return output.take_warnings()
    # A run of an earlier version: the new card must hold all that the old one holds.
    if os.path.lexists(path) and (path.is_symlink() or not _as_written(path)):
        return [f"{path}: left as it is, for it was changed, or an earlier version wrote it; it lacks these scores"]
    model_cards.write_model_card(card, run_dir)
    return []


def _as_written(path: pathlib.Path) -> bool:
    """Returns whether a card's file is byte for byte as this version writes its content."""
    data, card = path.read_bytes(), model_cards.read_model_card(path.parent)
    content = json.loads(data)
    kept = json.loads(model_cards.contents(card)[path.name])
    return data == files.json_bytes(content) and content.keys() | {"task", "records"} == kept.keys()


def environment() -> dict[str, Any]:
    """Describes the machine, its devices and the versions of packages."""
    import keras
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "working_directory": os.getcwd(),
        "versions": versions(),
        "backend": keras.config.backend(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "TensorFlow's own choice"),
        "devices": [{"name": device.name, "type": device.device_type} for device in tf.config.list_logical_devices()],
    }


def working_directory(run_dir: str | os.PathLike[str]) -> pathlib.Path | None:
    """Returns the folder that relative paths in a run's flags start from; None where it is not recorded."""
    try:
        found = json.loads((pathlib.Path(run_dir) / ENVIRONMENT_NAME).read_text(encoding="utf-8"))
        return pathlib.Path(found["working_directory"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_records(run_dir: str | os.PathLike[str], card: model_cards.ModelCard) -> str:
    """Returns the records folder that a run was trained on.

    A relative path starts from the current folder, from the one that the run was begun in, or from one above the run
    folder. The first whose fingerprint is that of the run's card is taken, else the one below the current folder.

    Raises:
        RecordsError: if none of them is there.
    """
    named = card.flags.get("records_dir", "")
    if files.local(named) is None:
        return named
    run = pathlib.Path(run_dir).resolve()
    starts = [folder for folder in (working_directory(run_dir), *run.parents) if folder is not None]
    places = [named, *(os.path.join(folder, named) for folder in starts)]
    there = [place for place in dict.fromkeys(places) if os.path.isfile(files.join(place, cards.DATA_CARD_NAME))]
    for place in there:
        with contextlib.suppress(RecordsError):
            if cards.read_data_card(place).fingerprint == card.data_fingerprint:
                return place
    if named in there:
        return named
    other = f"; {there[0]} holds other ones" if there else ""
    raise RecordsError(
        run_dir,
        f"the records it was trained on, {named}, are not there{other}",
        "a folder made by launch.build",
        "say where they are by `records_dir`",
    )


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that a model's predictions depend on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def history_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns the history as CSV: a header and a line an epoch."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def read_history(run_dir: str | os.PathLike[str]) -> list[dict[str, float | None]]:
    """Reads the CSV of `history_bytes`.

    Raises:
        RunError: if it cannot be read.
    """
    path = pathlib.Path(run_dir) / HISTORY_NAME
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [
                {name: float(value) if value else None for name, value in row.items()} for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RunError(path, f"it cannot be read ({error})", "the history of a run") from None


@dataclasses.dataclass(frozen=True)
class Run:
    """Trained model with its card.

    Attributes:
        folder: the run folder.
        card: its card.
        model: the network, from digital numbers to probabilities, or after pre-training to standardized numbers.
    """

    folder: pathlib.Path
    card: model_cards.ModelCard
    model: keras.Model

    @property
    def options(self) -> Mapping[str, Any]:
        """Training options by name, from the card."""
        return self.card.flags

    @functools.cached_property
    def history(self) -> list[dict[str, float | None]]:
        """One row an epoch, columns as in history.csv; see `read_history`."""
        return read_history(self.folder)


def open_run(run_dir: str | os.PathLike[str], model_name: str = MODEL_NAME) -> Run:
    """Reads the card and the model of a run.

    Args:
        run_dir: the run folder.
        model_name: `MODEL_NAME` for the kept epoch's model, `LAST_MODEL_NAME` for the last epoch's.

    Raises:
        RunError: if the folder, its card or the model is missing, damaged, or they do not fit each other.
    """
    folder = pathlib.Path(run_dir)
    card = model_cards.read_model_card(folder)
    path = model_path(folder, model_name)
    model = load_model(path)
    # Of another type, Keras would convert numbers silently, and they would mean something else.
    found = _described({one.name: (one.shape[1:], one.dtype) for one in model.inputs}, model.output_shape[-1])
    taken = {name: ((one.patch_size, one.patch_size, len(one.bands)), one.dtype) for name, one in card.by_input.items()}
    expected = _described(taken, card.channels)
    if found != expected:
        raise RunError(
            path,
            f"a model of {found}",
            f"{expected}, as {model_cards.MODEL_CARD_NAME} says",
            "train again, or copy the whole run folder again",
        )
    return Run(folder, card, model)


def _described(inputs: Mapping[str, tuple[tuple[int, ...], str]], classes: int) -> str:
    listed = ", ".join(
        f"input {shape}, {dtype}" if name == IMAGE else f"input {name} {shape}, {dtype}"
        for name, (shape, dtype) in sorted(inputs.items())
    )
    return f"{listed}, and {classes} classes"


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a `.keras` file in Keras's safe mode, which runs no code of the file.

    Raises:
        RunError: if the file is missing, damaged or holds anything but layers of Keras and this package.
    """
    import keras

    import eo_keras.models  # noqa: F401  Registers this package's layers.

    path = pathlib.Path(path)
    if not path.is_file():
        raise RunError(path, "there is no such file", "the model of a run", "let launch.train end its first epoch")
    if not zipfile.is_zipfile(path):
        raise RunError(path, "this is no .keras file", "a model saved by launch.train", "copy or train it again")
    try:
        inflation.check_archive(path)
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the damaged part brought about.
        problem = f"{type(error).__name__}: {str(error)[:200]}"
        raise RunError(
            path, f"it cannot be loaded ({problem})", "a model saved by launch.train", "copy or train it again"
        ) from error


def save_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Saves a model as a `.keras` file, atomically.

    Raises:
        StorageError: if the disk is full or the folder may not be written to.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f"{files.TEMPORARY_PREFIX}{path.name}")
    # Keras requires the suffix .keras, which the temporary name keeps.
    try:
        with files.storage_errors(path):
            model.save(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def storage_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns errors of TensorFlow and the system while writing files into a `StorageError`; a context manager."""
    import tensorflow as tf

    try:
        with files.storage_errors(path):
            yield
    except tf.errors.OpError as error:
        # TensorFlow puts the kernel before the cause, which is at the end of its message.
        reason = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", error.message).strip()
        raise StorageError(
            path,
            f"it could not be written ({reason[-300:]})",
            remedy="free some space or choose another folder, then run the same command again",
        ) from error


def epoch_of_card(run_dir: str | os.PathLike[str]) -> int | None:
    """Returns the epoch of the model that a run's card describes; None where there is no card."""
    try:
        return model_cards.read_model_card(run_dir).selection["epoch"]
    except RunError:
        return None


def read_state(run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the state, without weights, of the newest readable checkpoint.

    Raises:
        RunError: if none can be read.
    """
    try:
        return parse_state(run_dir, STATE_NAME)
    except RunError:
        with contextlib.suppress(RunError):
            return parse_state(run_dir, PREVIOUS_STATE_NAME)
        raise


def parse_state(run_dir: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """Parses the state of a checkpoint, without weights.

    Args:
        run_dir: the run folder.
        name: `STATE_NAME`, or `PREVIOUS_STATE_NAME` for the checkpoint before it.

    Raises:
        RunError: if it cannot be read.
    """
    path = pathlib.Path(run_dir) / CHECKPOINT_DIR / name
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(state, dict) or not {"epoch", "variables", "under_way"} <= set(state):
            raise ValueError("it is no state of a run of this version")
        return state
    except (OSError, ValueError) as error:
        raise RunError(
            path, f"it cannot be read ({error})", "the state of a run", start_from_weights(run_dir)
        ) from None
