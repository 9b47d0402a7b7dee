"""The grid of a sweep: its points, the names of its runs, and the checks before the first run."""

from __future__ import annotations

import dataclasses
import itertools
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from eo_keras.errors import EOKerasError, OptionError
from eo_keras.records.data_card import DataCard
from eo_keras.training.options import TrainingOptions
from eo_keras.training.validate import validate

SEED = "seed"
_SHORT = {"learning_rate": "lr", "weight_decay": "wd"}
_MOST_NAME = 180


def format_value(value: Any) -> str:
    """Returns a value as text that a flag reads back as the same value: 0.05, 1e-05, 2, true, none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e6 else repr(value)
    return str(value)


def run_name(settings: Mapping[str, Any]) -> str:
    """Returns the name of a run's folder: its settings, learning rate and weight decay first and the seed last.

    Characters that a file system or a shell treats specially are written as `%` and two hexadecimal digits.

    Raises:
        OptionError: if the name is too long for a folder.
    """
    parts = [
        f"{_SHORT.get(name, name)}={urllib.parse.quote(format_value(settings[name]), safe='+')}" for name in settings
    ]
    name = ",".join(parts)
    if len(name) > _MOST_NAME:
        raise OptionError(f"run {name[:60]}...", f"its name has {len(name)} letters", f"{_MOST_NAME} at most")
    return name


def expand(varied: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns all combinations of values.

    The first seed goes through all settings before the second one begins, so that an interrupted sweep has run
    all of them.

    Args:
        varied: values by name of a flag.

    Returns:
        One entry a run: a value for each name, in the order that names of runs have.

    Raises:
        OptionError: if nothing is varied, or a flag has no value or the same one twice.
    """
    if not varied:
        raise OptionError("sweep", "nothing is varied", "two values or more of some flag, such as `learning_rate=...`")
    for name, values in varied.items():
        if not values:
            raise OptionError(name, "it has no values", "one or more, separated by commas")
        texts = [format_value(value) for value in values]
        if twice := [text for text in texts if texts.count(text) > 1]:
            raise OptionError(name, f"{twice[0]} is given twice", "each value once")
    first = [name for name in _SHORT if name in varied]
    order = [
        *first,
        *(name for name in varied if name not in (*first, SEED)),
        *(name for name in (SEED,) if name in varied),
    ]
    slowest = sorted(order, key=lambda name: name != SEED)
    combinations = itertools.product(*(varied[name] for name in slowest))
    points = [dict(zip(slowest, values, strict=True)) for values in combinations]
    return [{name: point[name] for name in order} for point in points]


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep that is to be trained.

    Attributes:
        settings: its values of the varied flags, in the order of `expand`.
        options: all of its options; `run_dir` is its folder.
        flags_text: the same as the text of a flag file.
    """

    settings: Mapping[str, Any]
    options: TrainingOptions
    flags_text: str

    @property
    def name(self) -> str:
        """Its name, see `run_name`."""
        return run_name(self.settings)


def check(planned: PlannedRun, card: DataCard) -> PlannedRun:
    """Returns a run with defaults that depend on the records filled in, after checking that it can be trained.

    Raises:
        EOKerasError: if training would refuse the run, or there are no validation examples to compare runs by; the
            message names the run.
    """
    options = planned.options
    try:
        if options.strategy == "multi_worker":
            raise OptionError("strategy", "multi_worker: a sweep trains in processes of this machine", "another one")
        if not has_split(card) and not options.validation_from_train:
            raise OptionError(
                "validation_from_train",
                "0, and the records have no split val: nothing but the test split could compare the runs",
                "validation examples",
                "hold some out by `validation_from_train=0.05` in the base, or build records with `val_fraction`",
            )
        return dataclasses.replace(planned, options=validate(options, card))
    except EOKerasError as error:
        raise named(planned.name, error) from None


def named(run: str, error: EOKerasError) -> EOKerasError:
    """Returns an error whose place names a run too."""
    where, *others = error.args
    return type(error)(f"run {run}: {where}", *others)


def has_split(card: DataCard) -> bool:
    """Returns whether the records have a split of validation examples."""
    return "val" in card.splits and bool(card.splits["val"].examples)
