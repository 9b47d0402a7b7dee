"""Checks of a training run's options against each other, the registry of networks and the records.

`train`, the sweep and the doctor call `validate`, so that all three refuse the same runs with the same words.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from eo_keras import models, tasks
from eo_keras.core.options import all_fields, nested_fields
from eo_keras.errors import OptionError
from eo_keras.records.data_card import DataCard
from eo_keras.records.inputs import parse_inputs, sides
from eo_keras.tasks.task import Task
from eo_keras.training.options import TrainingOptions


def validate(options: TrainingOptions, card: DataCard | None, replicas: int | None = None) -> TrainingOptions:
    """Checks the options without using a device or reading an example.

    Args:
        options: the options.
        card: the records' card; None without records, on which some checks depend.
        replicas: number of devices that will share a batch; None where it is not known.

    Returns:
        The options, defaults that depend on the records replaced by their values.

    Raises:
        OptionError: if the options cannot work together, or do not fit the records or the devices; it names one.
        BandError: if the records lack a band.
    """
    if replicas is not None:
        options.check_devices(replicas)
    info = models.MODELS[options.model]
    if options.weights == "imagenet" and not info.imagenet:
        having = ", ".join(name for name, one in models.MODELS.items() if one.imagenet)
        found = f"there are no ImageNet weights for `model={options.model}`"
        raise OptionError("weights", found, f"a file, none, or one of the networks {having}")
    if options.head_epochs:
        options.head_optimizer().check_epochs(options.head_epochs)
    options.optimizer.check_epochs(options.epochs - options.head_epochs)
    if card is None:
        return options
    if info.task != card.task:
        fitting = ", ".join(models.list_models(card.task))
        found = f"{options.model} is for {info.task}, the records are for {card.task}"
        raise OptionError("model", found, f"one of {fitting}")
    _check_others(options, tasks.of(card))
    task = tasks.trained(card, options)
    inputs = parse_inputs(options.bands, card)
    sensor = options.pretraining.translated_sensor
    for one in inputs if sensor is None else sides(inputs, sensor)[0]:
        models.check_stem(one.bands, options.stem)
    if options.modality_dropout and len({one.sensor_name for one in inputs}) < 2:
        found = f"`bands={options.bands}` is one sensor, which every image would keep"
        raise OptionError("modality_dropout", found, "two sensors or more", "leave it out, or choose more of `bands`")
    own = options.of_task(card.task).for_patches(card.patch_size)
    options = dataclasses.replace(options, **{card.task: own})
    task.network(options, card)
    task.loss(options, card)
    return options


def _check_others(options: TrainingOptions, task: Task) -> None:
    """Checks that options of other tasks than the records' have their defaults.

    Raises:
        OptionError: naming the first of them.
    """
    shared = {field.name for field in all_fields(type(options.of_task(task.name)))}
    for other in tasks.TASKS:
        chosen = options.of_task(other)
        given, default = _values(chosen), _values(type(chosen)())
        for option, value in given.items():
            if option not in shared and value != default.get(option, value):
                found = f"it does not apply to {task.description} (task {task.name})"
                raise OptionError(option, found, remedy="leave it out")


def _values(options: Any) -> dict[str, Any]:
    """Returns the values of a task's options by name, nested ones included."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    for name in nested_fields(type(options)):
        inner = values.pop(name)
        values |= {} if inner is None else _values(inner)
    return values
