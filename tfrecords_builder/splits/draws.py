"""Draws by hash of key and seed, and functions of every kind of split: quotas, folds, checks, counts."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from eo_keras.errors import OptionError, SourceError
from tfrecords_builder.splits.types import TEST, TRAIN, VAL, Patches, SplitOptions, SplitResult


def hash_order(key: str, seed: int) -> bytes:
    """Returns the sort key of a pseudo-random order that depends on key and seed alone."""
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=16).digest()


def with_fraction_of_fold(options: SplitOptions) -> SplitOptions:
    """Returns the options with the test fraction of a fold, if there is one."""
    if options.fold is None:
        return options
    return dataclasses.replace(options, test_fraction=1 / max(2, options.folds[1]))


def check_not_empty(result: SplitResult, options: SplitOptions, what: str, groups: int | None = None) -> None:
    """Checks that train, test and a requested val are not empty.

    Args:
        result: the split.
        options: its options.
        what: the examples and their number, such as `27,000 patches`.
        groups: of what is divided in whole groups, such as cities, their number.

    Raises:
        SourceError: if train, test, or a requested val is empty.
    """
    named = options.method in ("published", "lists")
    wanted = [TRAIN, *([VAL] if options.val_fraction and not named else []), TEST]
    if not (empty := [split for split in wanted if split not in result.assignment]):
        return
    method = result.method
    if "blocks" in method:
        groups = method["blocks"]
    left_out = method.get("left_out_by_buffer", 0) + method.get("left_out_beside_other_parts", 0)
    if groups is not None and groups < len(wanted):
        remedy = _REMEDIES_OF_FEW_GROUPS[options.method].format(splits=len(wanted))
    elif left_out:
        remedy = _REMEDIES_OF_LEFT_OUT[options.method]
        if not options.buffer_km:
            remedy = _REMEDIES_WITHOUT_BUFFER[options.method]
    elif options.fold is not None:
        remedy = "use fewer folds, or another `seed`"
    else:
        remedy = _REMEDIES_OF_EMPTY_SPLITS[options.method]
    raise SourceError(
        f"`split={options.method}`",
        f"of {what} none falls into {' and '.join(empty)}"
        + (f"; {left_out:,} are left out for their nearness to another split" if left_out else ""),
        "examples in every split",
        remedy,
    )


def check_folds(options: SplitOptions, groups: int, what: str) -> None:
    """Checks that there are as many groups as folds; `what` names them, such as `blocks`.

    Raises:
        OptionError: if there are more.
    """
    if options.fold is not None and options.folds[1] > groups:
        raise OptionError(
            "fold",
            f"{options.fold}, and the number of {what} is {groups}",
            f"as many folds as {what} at the most",
            "use fewer folds" + (", or make `block_km` smaller" if what == "blocks" else ""),
        )


_REMEDIES_OF_EMPTY_SPLITS = {
    "random": "change `test_fraction` or `val_fraction`, or give more patches",
    "published": "give the whole archive, or split it with `split=random`",
    "lists": "give lists that name patches of this source",
    "spatial": "change `test_fraction` or `val_fraction`, make `block_km` smaller, or take another `seed`",
    "city": "leave the column split empty for some cities, or name one for every split there",
}

_REMEDIES_OF_FEW_GROUPS = {
    "spatial": "make `block_km` smaller, so that there are {splits} blocks at least",
    "city": "give {splits} cities at least, or divide their ground with `split=spatial` `block_km=KILOMETRES`",
}

_REMEDIES_OF_LEFT_OUT = {
    "spatial": "make `buffer_km` smaller, or `block_km` larger where the ground is wide enough",
    "city": "name splits in the column split that lie apart, make `buffer_km` smaller, or divide the ground with "
    "`split=spatial` `block_km=KILOMETRES`",
}


_REMEDIES_WITHOUT_BUFFER = {
    "spatial": "make `block_km` larger where the ground is wide enough, or smaller tiles",
    "city": "name splits in the column split that lie apart, or divide the ground with `split=spatial` "
    "`block_km=KILOMETRES`",
}


def describe_identical(patches: Patches) -> dict[str, int]:
    """Counts the patches that share their pixels with another, their groups, and those of groups of several classes."""
    classes = collections.defaultdict(list)
    for group, class_name in zip(patches.groups.tolist(), patches.classes, strict=True):
        classes[group].append(class_name)
    shared = [names for names in classes.values() if len(names) > 1]
    return {
        "identical_images": sum(len(names) for names in shared),
        "identical_groups": len(shared),
        "identical_with_different_classes": sum(len(names) for names in shared if len(set(names)) > 1),
    }


def describe_draw(options: SplitOptions) -> dict[str, Any]:
    """Returns the card's entries on fractions and seed."""
    fold = {} if options.fold is None else {"fold": options.folds[0], "folds": options.folds[1]}
    fractions = {"test_fraction": options.test_fraction, "val_fraction": options.val_fraction}
    return {**fold, **fractions, "seed": options.seed}


def quotas(count: int, options: SplitOptions) -> dict[str, int]:
    """Returns the number of test and validation patches out of `count`."""
    return {TEST: round(count * options.test_fraction), VAL: round(count * options.val_fraction)}


def fill(groups: Iterable[Sequence[int]], left: dict[str, int], assignment: list[str | None]) -> None:
    """Assigns whole groups of positions to the first split with space left for them, the rest to train."""
    for members in groups:
        split = next((name for name, free in left.items() if len(members) <= free), TRAIN)
        if split in left:
            left[split] -= len(members)
        for position in members:
            assignment[position] = split


def draw_fold(groups: Sequence[Sequence[int]], fold: tuple[int, int]) -> tuple[list[Sequence[int]], int]:
    """Moves the test groups of a fold to the front; also returns the number of their patches.

    A group belongs to the fold in whose fraction of all patches, counted in the order given, its first patch lies. So
    the folds are about as large as each other, and no group is in two.
    """
    number, folds = fold
    total = sum(map(len, groups))
    tested, others, before = [], [], 0
    for group in groups:
        (tested if before * folds // total == number - 1 else others).append(group)
        before += len(group)
    return tested + others, sum(map(len, tested))
