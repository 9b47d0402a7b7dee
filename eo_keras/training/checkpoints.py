"""Checkpoints of a run: variables, models and state; the state file, written last, completes a checkpoint.

    checkpoints/state.json           names the files below with their SHA-256, and holds history, best epoch and the
                                     epoch under way
    checkpoints/previous.json        the state of the checkpoint before, which is kept too
    checkpoints/step-00000340.npz    weights, optimizers, moving averages and the states of random layers
    checkpoints/epoch-00002.keras    models: of the best epoch and of the last one

`model.keras` and `checkpoints/last.keras` are further names of these models, given after the state.
"""

from __future__ import annotations

import contextlib
import copy
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from eo_keras.core import files, inflation
from eo_keras.core.output_folders import OutputFolder
from eo_keras.errors import RunError
from eo_keras.runs import folder as runs

_KEPT_NAMES = (runs.STATE_NAME, runs.PREVIOUS_STATE_NAME, pathlib.PurePath(runs.LAST_MODEL_NAME).name)


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
    """Assigns the values that `write_variables` wrote, on every device.

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
    except inflation.UNREADABLE as error:
        raise RunError(
            path, f"the checkpoint cannot be read ({error})", remedy=runs.start_from_weights(path.parents[1])
        ) from None
    for name, one in variables.items():
        one.assign(values[name])


def _named(groups: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {f"{group}/{place:05d}": one for group, row in groups.items() for place, one in enumerate(row)}


def commit(output: OutputFolder, state: Mapping[str, Any], previous: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Writes the state, which completes a checkpoint, and publishes its models; see `publish`.

    Args:
        output: the run folder.
        state: the state, see `runs.read_state`; the SHA-256 of its files are added.
        previous: the state of the checkpoint before, which is kept too.

    Returns:
        The state as it was written.

    Raises:
        StorageError: if the disk is full or the folder may not be written to.
    """
    # What the run changes later, such as its history, must not change in what is kept of this checkpoint.
    state = copy.deepcopy(dict(state)) | {
        "sha256": {name: output.sha256(_inside(name)) for name in _named_files(state)}
    }
    states = {} if previous is None else {_inside(runs.PREVIOUS_STATE_NAME): files.json_bytes(previous)}
    output.write(states | {_inside(runs.STATE_NAME): files.json_bytes(state)})
    publish(output, state)
    return state


def publish(output: OutputFolder, state: Mapping[str, Any]) -> None:
    """Links a state's models to their public names, and removes files that no state needs.

    To do it twice does no harm: a run that was killed between the state and this does it when it is resumed.
    """
    needed = {*_KEPT_NAMES, *_named_files(state)}
    with contextlib.suppress(RunError):
        needed |= _named_files(runs.parse_state(output.folder, runs.PREVIOUS_STATE_NAME))
    if state["epoch"]:
        output.link(_inside(model_name(state["epoch"])), runs.LAST_MODEL_NAME)
        output.link(_inside(model_name(state["best"]["epoch"])), runs.MODEL_NAME)
    inside = [name for name in output.listed() if name.startswith(_inside(""))]
    output.remove([name for name in inside if name not in map(_inside, needed)])


def choose(run_dir: str | os.PathLike[str]) -> tuple[dict[str, Any], str]:
    """Returns the state of the newest complete checkpoint, and the problem of a newer one or an empty text.

    Raises:
        RunError: if none is whole; the first damaged file is named.
    """
    problems = []
    for name in (runs.STATE_NAME, runs.PREVIOUS_STATE_NAME):
        try:
            state = runs.parse_state(run_dir, name)
            check_whole(run_dir, state)
            return state, str(problems[0]) if problems else ""
        except RunError as error:
            problems.append(error)
    raise problems[0]


def check_whole(run_dir: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Checks the SHA-256 of the files of a state.

    Raises:
        RunError: if one is missing, damaged or another; it is named.
    """
    for name, digest in state.get("sha256", {}).items():
        path = pathlib.Path(run_dir) / runs.CHECKPOINT_DIR / name
        if not path.is_file():
            problem = "there is no such file"
        elif files.sha256_of_file(path) != digest:
            problem = "it is damaged, or not the file that this run wrote"
        else:
            continue
        raise RunError(path, problem, f"the file of SHA-256 {digest[:12]}", runs.start_from_weights(run_dir))


def _inside(name: str) -> str:
    return f"{runs.CHECKPOINT_DIR}/{name}"


def _named_files(state: Mapping[str, Any]) -> set[str]:
    models = {model_name(state["epoch"]), model_name(state["best"]["epoch"])} if state["epoch"] else set()
    return {state["variables"], *models}
