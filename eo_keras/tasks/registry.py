"""Registry of tasks by name; a task, and with it TensorFlow, is imported at first use."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

from eo_keras.errors import RecordsError
from eo_keras.records.targets import TARGETS
from eo_keras.runs.model_card import ModelCard
from eo_keras.tasks.options import MASKED, TRANSLATED
from eo_keras.tasks.task import Task

if TYPE_CHECKING:
    from eo_keras.tasks.task import TaskOptions, TrainingTask

TASKS = tuple(TARGETS)
"""Names of the tasks; each is the object `TASK` of the module of that name."""

_MODULES = {MASKED: "pretext", TRANSLATED: "translation"}
"""Modules of what is trained without labels."""


def get(name: str) -> Task:
    """Returns a task by name.

    Raises:
        RecordsError: if there is no such task.
    """
    if name not in TASKS:
        raise RecordsError("task", f"'{name}'", f"one of {', '.join(TASKS)}", "update EO-Keras")
    return _load(name)


def of(card: Any) -> Task:
    """Returns the task of a card: of records, of a run or of an export.

    Raises:
        RecordsError: if the card names a task that does not exist.
        RunError: if it is that of a run of pre-training, whose model is for no task.
    """
    if isinstance(card, ModelCard):
        card.check_predicts_classes()
    return get(card.task)


def trained(card: Any, options: TaskOptions) -> TrainingTask:
    """Returns the task that a run trains: one without labels where its options say so, else that of a card.

    Args:
        card: the card of the records, or the network's entry in the registry.
        options: the run's options.

    Raises:
        RecordsError: if the card names a task that does not exist.
    """
    return of(card) if options.pretraining.pretext is None else _load(_MODULES[options.pretraining.pretext])


@functools.cache
def _load(name: str) -> Task:
    return importlib.import_module(f"eo_keras.tasks.{name}").TASK
