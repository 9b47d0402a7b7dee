"""The checkpoint of a run: everything that changes in it, in files of which one, written in one go, makes it count.

    checkpoint/state.json           names the files below, and holds history, best epoch and the epoch under way
    checkpoint/step-00000340.npz    weights, optimizers, moving averages and the states of random layers
    checkpoint/epoch-00002.keras    models: of the best epoch and of the last one

`model.keras` and `checkpoint/last.keras` are further names of these models, given after the state.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from eo_keras import files, runs
from eo_keras.errors import RunError

_KEPT_NAMES = (runs.STATE_NAME, pathlib.PurePath(runs.LAST_MODEL_NAME).name)


def step_name(step: int) -> str:
    """Returns the name of the file of variables at a step."""
    return f"step-{step:08d}.npz"


def model_name(epoch: int) -> str:
    """Returns the name of an epoch's model."""
    return f"epoch-{epoch:05d}.keras"


def write_variables(path: pathlib.Path, groups: Mapping[str, Sequence[Any]]) -> None:
    """Writes the values of variables, bit by bit.

    Args:
        path: the file.
        groups: variables of Keras or TensorFlow; a variable is known by its group and place.

    Raises:
        StorageError: if the disk is full or the folder may not be written to.
    """
    with files.atomic_file(path) as file:
        np.savez(file, **{name: one.numpy() for name, one in _named(groups).items()})


def read_variables(path: pathlib.Path, groups: Mapping[str, Sequence[Any]]) -> None:
    """Gives variables the values that `write_variables` wrote, on every device.

    Raises:
        RunError: if the file is missing, damaged, or was written for other variables; no variable is changed then.
    """
    variables = _named(groups)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if set(archive.files) != set(variables):
                raise ValueError(f"it holds {len(archive.files)} variables and not {len(variables)}")
            values = {name: archive[name] for name in variables}
        for name, one in variables.items():
            expected = (tuple(one.shape), keras.backend.standardize_dtype(one.dtype))
            if (values[name].shape, values[name].dtype.name) != expected:
                raise ValueError(f"{name} has shape {values[name].shape} and not {tuple(one.shape)}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            path, f"the checkpoint cannot be read ({error})", remedy="start the run again with --overwrite"
        ) from None
    for name, one in variables.items():
        one.assign(values[name])


def _named(groups: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {f"{group}/{place:05d}": one for group, row in groups.items() for place, one in enumerate(row)}


def commit(folder: pathlib.Path, state: Mapping[str, Any]) -> None:
    """Writes the state, which makes a checkpoint count, and then what follows from it; see `publish`.

    Raises:
        StorageError: if the disk is full or the folder may not be written to.
    """
    files.write_json(folder / runs.CHECKPOINT_DIR / runs.STATE_NAME, state)
    publish(folder, state)


def publish(folder: pathlib.Path, state: Mapping[str, Any]) -> None:
    """Gives the models that a state names their names for the user, and removes what no state needs any more.

    To do it twice does no harm: a run that was killed between the state and this does it when it goes on.
    """
    checkpoint = folder / runs.CHECKPOINT_DIR
    needed = {state["variables"]}
    if state["epoch"]:
        last, best = model_name(state["epoch"]), model_name(state["best"]["epoch"])
        needed |= {last, best}
        _name_again(checkpoint / last, folder / runs.LAST_MODEL_NAME)
        _name_again(checkpoint / best, folder / runs.MODEL_NAME)
    for path in checkpoint.iterdir():
        if path.name not in (*needed, *_KEPT_NAMES):
            path.unlink()


def _name_again(path: pathlib.Path, name: pathlib.Path) -> None:
    if not path.is_file():
        raise RunError(path, "there is no such file", "the model that the state names", "start again with --overwrite")
    if name.is_file() and name.samefile(path):
        return
    temporary = name.with_name(f"{files.TEMPORARY_PREFIX}{name.name}")
    temporary.unlink(missing_ok=True)
    with files.storage_errors(name):
        try:
            os.link(path, temporary)
        except OSError:  # Not every file system has links.
            shutil.copyfile(path, temporary)
        os.replace(temporary, name)
