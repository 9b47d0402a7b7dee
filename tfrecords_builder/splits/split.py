"""Who is train, validation and test: at random by class, as the archive or published lists have it, or by place.

(Tiles are split by city too: `tfrecords_builder.splits.by_site`.)

Patches with identical pixels are never divided between the parts of a random or a spatial split. Everything here is
pure, apart from reading the lists and the coordinates; the order of the patches given does not matter.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from eo_keras.errors import OptionError, SourceError

TRAIN, VAL, TEST = "train", "val", "test"
METHODS = ("random", "published", "lists", "spatial", "city")


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """How to split.

    Attributes:
        method: one of `METHODS`.
        test_fraction: share of the patches for testing.
        val_fraction: share of the patches for validation.
        seed: changes who is drawn.
        fold: (number from 1, folds) of a cross-validation, in place of `test_fraction`: with one seed, each patch is
            for testing in exactly one of the folds. For `random`, and `spatial` with `block_km`.
        lists: prefix of the lists' file names: PREFIX-train.txt, PREFIX-val.txt (may be absent), PREFIX-test.txt.
        allow_missing_patches: whether lists may name patches that the source lacks.
        block_km: edge of the blocks of a spatial split in kilometres; None splits by longitude.
        buffer_km: patches of another part that are nearer than this, edge to edge in kilometres, are left out.
        coordinates: CSV file with the header `patch,latitude,longitude`, in degrees.
    """

    method: str = "random"
    test_fraction: float = 0.2
    val_fraction: float = 0.0
    seed: int = 1
    fold: tuple[int, int] | None = None
    lists: str | None = None
    allow_missing_patches: bool = False
    block_km: float | None = None
    buffer_km: float = 0.0
    coordinates: str | None = None


@dataclasses.dataclass(frozen=True)
class Patches:
    """What splitting needs to know of the patches; parallel sequences of N entries.

    Attributes:
        keys: unique keys.
        classes: class names.
        groups: int64 (N,); patches with identical pixels share a number.
        crs: coordinate reference systems, or None.
        transforms: float64 (N, 6) affine transforms, or None where the images are not georeferenced.
        size_m: edge of a patch in metres.
        pixels: edge of a patch in pixels.
        parts: the parts that the archive gives them to; empty, or of empty texts, where it gives none.
    """

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    groups: np.ndarray
    crs: tuple[str | None, ...]
    transforms: np.ndarray | None
    size_m: float
    pixels: int
    parts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SplitResult:
    """A split: each patch's part (None is left out), what the card says of it, and warnings."""

    assignment: tuple[str | None, ...]
    method: dict[str, Any]
    warnings: tuple[str, ...] = ()


def hash_order(key: str, seed: int) -> bytes:
    """Returns what patches are sorted by wherever an order must look random and yet follow from key and seed."""
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=16).digest()


def check_options(options: SplitOptions) -> None:
    """Checks that the options can work together.

    Raises:
        OptionError: if they cannot; the flag is named.
    """
    if options.method not in METHODS:
        raise OptionError("split", f"'{options.method}' is unknown", f"one of {', '.join(METHODS)}")
    test, val = options.test_fraction, options.val_fraction
    if not (0 < test < 1 and 0 <= val < 1 and test + val < 1):
        raise OptionError(
            "`test_fraction` and `val_fraction`",
            f"{test:g} and {val:g}",
            "shares between 0 and 1 that leave something for training, the test share above 0",
        )
    if options.fold is not None:
        number, folds = options.fold
        if not (folds >= 2 and 1 <= number <= folds):
            raise OptionError("fold", f"{number}/{folds}", "a fold of at least two, such as 1/5 to 5/5")
        if options.method in ("published", "lists") or (options.method == "spatial" and options.block_km is None):
            raise OptionError(
                "fold", "it needs parts to draw from", "`split=random`, or `split=spatial` with `block_km`"
            )
    if (options.method == "lists") != (options.lists is not None):
        raise OptionError("lists", "it belongs to `split=lists`, and that needs it", "both or neither")
    if options.allow_missing_patches and options.method != "lists":
        raise OptionError("allow_missing_patches", f"it says nothing to `split={options.method}`", "`split=lists`")
    if options.method != "spatial":
        for flag, value in (
            ("block_km", options.block_km),
            ("buffer_km", options.buffer_km or None),
            ("coordinates", options.coordinates),
        ):
            if value is not None:
                raise OptionError(flag, f"it says nothing to `split={options.method}`", "`split=spatial`")
    # Written so that NaN, which compares as false, is refused too.
    if options.block_km is not None and not 0 < options.block_km < math.inf:
        raise OptionError("block_km", f"{options.block_km:g}", "kilometres above 0")
    if not 0 <= options.buffer_km < math.inf or (options.buffer_km and options.block_km is None):
        raise OptionError("buffer_km", f"{options.buffer_km:g}", "kilometres, at least 0, together with `block_km`")


def with_fraction_of_fold(options: SplitOptions) -> SplitOptions:
    """Returns the options with the share of the patches that a fold tests on, if there is one."""
    if options.fold is None:
        return options
    return dataclasses.replace(options, test_fraction=1 / max(2, options.fold[1]))


def make_split(patches: Patches, options: SplitOptions) -> SplitResult:
    """Splits patches.

    Raises:
        OptionError: if the options cannot work together, or need coordinates that are not there.
        SourceError: if a list or the coordinates do not fit the patches, or a part comes out empty.
    """
    options = with_fraction_of_fold(options)
    check_options(options)
    if options.method == "city":
        raise OptionError("`split=city`", "patches are of no city", "random, lists or spatial")
    if options.method == "lists":
        result = _split_by_lists(patches, options)
    elif options.method == "published":
        result = _split_as_published(patches, options)
    elif options.method == "spatial":
        from tfrecords_builder.splits import spatial

        result = spatial.split_by_place(patches, options)
    else:
        result = _split_at_random(patches, options)
    check_parts(result, options, f"{len(patches.keys):,} patches")
    return result


def split_before_scan(patches: Patches, options: SplitOptions) -> None:
    """Refuses what cannot be split before a patch has been read, as far as keys, classes and parts tell.

    Args:
        patches: what is known of them; which are identical, and where they lie, may be known only later.
        options: how they are going to be split.

    Raises:
        OptionError, SourceError: see `make_split`.
    """
    if options.method != "spatial" or options.coordinates is not None:
        # Distances take their time, and are measured once the patches have been read.
        make_split(patches, dataclasses.replace(options, buffer_km=0.0))


def check_parts(result: SplitResult, options: SplitOptions, what: str, groups: int | None = None) -> None:
    """Refuses a split of which a part is empty.

    Args:
        result: the split.
        options: how it was made.
        what: what has been split, and how much, such as `27,000 patches`.
        groups: of what is divided in whole groups, such as cities, their number.

    Raises:
        SourceError: if training, testing, or the validation that was asked for is empty.
    """
    named = options.method in ("published", "lists")
    wanted = [TRAIN, *([VAL] if options.val_fraction and not named else []), TEST]
    if not (empty := [part for part in wanted if part not in result.assignment]):
        return
    method = result.method
    if "blocks" in method:
        groups = method["blocks"]
    left_out = method.get("left_out_by_buffer", 0) + method.get("left_out_beside_other_parts", 0)
    if groups is not None and groups < len(wanted):
        remedy = _REMEDIES_OF_FEW_GROUPS[options.method].format(parts=len(wanted))
    elif left_out:
        remedy = _REMEDIES_OF_LEFT_OUT[options.method]
        if not options.buffer_km:
            remedy = _REMEDIES_WITHOUT_BUFFER[options.method]
    elif options.fold is not None:
        remedy = "use fewer folds, or another `seed`"
    else:
        remedy = _REMEDIES_OF_EMPTY_PARTS[options.method]
    raise SourceError(
        f"`split={options.method}`",
        f"of {what} none comes into {' and '.join(empty)}"
        + (f"; {left_out:,} are left out for their nearness to another part" if left_out else ""),
        "examples in every part",
        remedy,
    )


def check_folds(options: SplitOptions, groups: int, what: str) -> None:
    """Refuses more folds than there are groups to deal out; `what` names these, such as `blocks`.

    Raises:
        OptionError: if there are more.
    """
    if options.fold is not None and options.fold[1] > groups:
        raise OptionError(
            "fold",
            f"{options.fold[0]}/{options.fold[1]}, and the number of {what} is {groups}",
            f"as many folds as {what} at the most",
            "use fewer folds" + (", or make `block_km` smaller" if what == "blocks" else ""),
        )


_REMEDIES_OF_EMPTY_PARTS = {
    "random": "change `test_fraction` or `val_fraction`, or give more patches",
    "published": "give the whole archive, or split it with `split=random`",
    "lists": "give lists that name patches of this source",
    "spatial": "change `test_fraction` or `val_fraction`, make `block_km` smaller, or take another `seed`",
    "city": "leave the column split empty for some cities, or name one for every part there",
}

_REMEDIES_OF_FEW_GROUPS = {
    "spatial": "make `block_km` smaller, so that there are {parts} blocks at least",
    "city": "give {parts} cities at least, or divide their ground with `split=spatial` `block_km=KILOMETRES`",
}

_REMEDIES_OF_LEFT_OUT = {
    "spatial": "make `buffer_km` smaller, or `block_km` larger where the ground is wide enough",
    "city": "name parts in the column split that lie apart, make `buffer_km` smaller, or divide the ground with "
    "`split=spatial` `block_km=KILOMETRES`",
}


_REMEDIES_WITHOUT_BUFFER = {
    "spatial": "make `block_km` larger where the ground is wide enough, or smaller tiles",
    "city": "name parts in the column split that lie apart, or divide the ground with `split=spatial` "
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
    """Returns what the card says of shares and seed."""
    fold = {} if options.fold is None else {"fold": options.fold[0], "folds": options.fold[1]}
    shares = {"test_fraction": options.test_fraction, "val_fraction": options.val_fraction}
    return {**fold, **shares, "seed": options.seed}


def quotas(count: int, options: SplitOptions) -> dict[str, int]:
    """Returns how many of `count` patches testing and validation should get."""
    return {TEST: round(count * options.test_fraction), VAL: round(count * options.val_fraction)}


def fill(groups: Iterable[Sequence[int]], left: dict[str, int], assignment: list[str | None]) -> None:
    """Gives whole groups of positions to the first part that still has room for them, the rest to training."""
    for members in groups:
        part = next((name for name, room in left.items() if len(members) <= room), TRAIN)
        if part in left:
            left[part] -= len(members)
        for position in members:
            assignment[position] = part


def draw_fold(groups: Sequence[Sequence[int]], fold: tuple[int, int]) -> tuple[list[Sequence[int]], int]:
    """Puts those groups first that a fold tests on; also returns how many patches they hold.

    A group belongs to the fold in whose share of all patches, counted in the order given, its first patch lies. So the
    folds are about as large as each other, and no group is in two.
    """
    number, folds = fold
    total = sum(map(len, groups))
    tested, others, before = [], [], 0
    for group in groups:
        (tested if before * folds // total == number - 1 else others).append(group)
        before += len(group)
    return tested + others, sum(map(len, tested))


def _split_at_random(patches: Patches, options: SplitOptions) -> SplitResult:
    members = collections.defaultdict(list)
    for position in sorted(range(len(patches.keys)), key=lambda position: patches.keys[position]):
        members[int(patches.groups[position])].append(position)
    by_class = collections.defaultdict(list)
    for group in members.values():
        # A group that has several classes counts with the class of its first key.
        by_class[patches.classes[group[0]]].append(group)
    check_folds(options, len(members), "patches")
    assignment: list[str | None] = [None] * len(patches.keys)
    for groups in by_class.values():
        groups.sort(key=lambda group: hash_order(patches.keys[group[0]], options.seed))
        left = quotas(sum(map(len, groups)), options)
        if options.fold is not None:
            groups, left[TEST] = draw_fold(groups, options.fold)
        fill(groups, left, assignment)
    method = {"method": "random", **describe_draw(options), **describe_identical(patches)}
    return SplitResult(tuple(assignment), method)


def _split_as_published(patches: Patches, options: SplitOptions) -> SplitResult:
    if not any(patches.parts):
        raise OptionError(
            "`split=published`",
            "the archive has no parts of its own",
            "random, lists or spatial",
            "say `split=random`, or `split=lists` with `lists`",
        )
    across = _across(patches, patches.parts)
    method = {
        "method": "published",
        **describe_identical(patches),
        # The archive is followed to the letter, so that results stay comparable.
        "identical_across_splits": across,
        "seed": options.seed,
    }
    warnings = (f"{across:,} identical images lie in different parts of the archive",) if across else ()
    return SplitResult(tuple(part or None for part in patches.parts), method, warnings)


def _across(patches: Patches, assignment: Sequence[str | None]) -> int:
    """Counts the patches whose pixels lie in another part too."""
    parts_of = collections.defaultdict(collections.Counter)
    for group, part in zip(patches.groups.tolist(), assignment, strict=True):
        if part:
            parts_of[group][part] += 1
    return sum(sum(parts.values()) for parts in parts_of.values() if len(parts) > 1)


def _read_list(path: pathlib.Path) -> tuple[list[str], str]:
    """Returns the keys that a list names, and the MD5 checksum of its file."""
    try:
        data = path.read_bytes()
        # A byte order mark, as some editors write it, would become part of the first name.
        lines = data.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            path,
            f"the list cannot be read ({error})",
            "a text file with one patch a line",
            "give `lists=PREFIX` so that PREFIX-train.txt and PREFIX-test.txt exist; PREFIX-val.txt may be absent",
        ) from None
    names = [line.strip() for line in lines]
    keys = [pathlib.PurePosixPath(name).stem for name in names if name and not name.startswith("#")]
    return keys, hashlib.md5(data, usedforsecurity=False).hexdigest()


def _split_by_lists(patches: Patches, options: SplitOptions) -> SplitResult:
    positions = {key: position for position, key in enumerate(patches.keys)}
    assignment: list[str | None] = [None] * len(patches.keys)
    missing: dict[str, int] = {}
    checksums: dict[str, str] = {}
    list_of: dict[str, str] = {}
    for part in (TRAIN, VAL, TEST):
        path = pathlib.Path(f"{options.lists}-{part}.txt")
        if part == VAL and not path.exists():
            continue
        names, checksums[part] = _read_list(path)
        for name in names:
            if name in list_of:
                raise SourceError(
                    path, f"{name} is listed already in {list_of[name]}", "every patch once", "mend the lists"
                )
            list_of[name] = path.name
        absent = [name for name in names if name not in positions]
        if absent and not options.allow_missing_patches:
            raise SourceError(
                path,
                f"{len(absent):,} of its {len(names):,} patches are not in the source, first {', '.join(absent[:3])}",
                "a source with every listed patch",
                "give the whole archive, or say `allow_missing_patches` if a part of it is meant",
            )
        missing[part] = len(absent)
        for name in names:
            if name in positions:
                assignment[positions[name]] = part
    across = _across(patches, assignment)
    unlisted = assignment.count(None)
    method = {
        "method": "lists",
        "lists": os.path.basename(str(options.lists)),
        "md5": checksums,
        "missing": missing,
        "unlisted": unlisted,
        **describe_identical(patches),
        # Published lists are followed to the letter, so that results stay comparable.
        "identical_across_splits": across,
        "seed": options.seed,
    }
    warnings = []
    if unlisted:
        warnings.append(f"{unlisted:,} patches are on no list and are left out")
    if across:
        warnings.append(f"{across:,} identical images lie in different parts of these lists")
    return SplitResult(tuple(assignment), method, tuple(warnings))
