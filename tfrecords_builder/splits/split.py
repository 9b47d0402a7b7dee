"""Splits: at random by class, as the archive or published lists have it, by place, or by site.

Patches with identical pixels are never divided between the splits of a random or a spatial split. Everything here is
pure, apart from reading the lists and the coordinates; the order of the patches given does not matter.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import os
import pathlib
from collections.abc import Sequence

from eo_keras.core.options import check
from eo_keras.errors import OptionError, SourceError
from tfrecords_builder.splits import by_site, spatial
from tfrecords_builder.splits.draws import (
    check_folds,
    check_not_empty,
    describe_draw,
    describe_identical,
    draw_fold,
    fill,
    hash_order,
    quotas,
    with_fraction_of_fold,
)
from tfrecords_builder.splits.types import TEST, TRAIN, VAL, Patches, SplitOptions, SplitResult


def check_options(options: SplitOptions) -> None:
    """Checks that the options can work together.

    Raises:
        OptionError: if they cannot; the flag is named.
    """
    check(options)
    test, val = options.test_fraction, options.val_fraction
    if not (0 < test < 1 and 0 <= val < 1 and test + val < 1):
        raise OptionError(
            "`test_fraction` and `val_fraction`",
            f"{test:g} and {val:g}",
            "fractions between 0 and 1 that leave something for training, the test fraction above 0",
        )
    if options.fold is not None:
        number, folds = options.folds
        if not (folds >= 2 and 1 <= number <= folds):
            raise OptionError("fold", f"{number}/{folds}", "a fold of at least two, such as 1/5 to 5/5")
        if options.method in ("published", "lists") or (options.method == "spatial" and options.block_km is None):
            raise OptionError(
                "fold", "it needs splits to draw from", "`split=random`, or `split=spatial` with `block_km`"
            )
    if (options.method == "lists") != (options.lists is not None):
        raise OptionError("lists", "it belongs to `split=lists`, and that needs it", "both or neither")
    if options.allow_missing_patches and options.method != "lists":
        raise OptionError("allow_missing_patches", f"it does not apply to `split={options.method}`", "`split=lists`")
    if options.method != "spatial":
        for flag, value in (
            ("block_km", options.block_km),
            ("buffer_km", options.buffer_km or None),
            ("coordinates", options.coordinates),
        ):
            if value is not None:
                raise OptionError(flag, f"it does not apply to `split={options.method}`", "`split=spatial`")
    # Written so that NaN, which compares as false, is refused too.
    if options.block_km is not None and not 0 < options.block_km < math.inf:
        raise OptionError("block_km", f"{options.block_km:g}", "kilometers above 0")
    if not 0 <= options.buffer_km < math.inf or (options.buffer_km and options.block_km is None):
        raise OptionError("buffer_km", f"{options.buffer_km:g}", "kilometers, at least 0, together with `block_km`")


def make_split(patches: Patches, options: SplitOptions) -> SplitResult:
    """Splits patches.

    Raises:
        OptionError: if the options cannot work together, or need coordinates that are not there.
        SourceError: if a list or the coordinates do not fit the patches, or a split is empty.
    """
    options = with_fraction_of_fold(options)
    check_options(options)
    if patches.sites and (options.method == "city" or options.block_km is not None):
        return by_site.split_tiles(patches, options)
    if options.method == "city":
        raise OptionError("`split=city`", "patches are of no city", "random, lists or spatial")
    if options.method == "lists":
        result = _split_by_lists(patches, options)
    elif options.method == "published":
        result = _split_as_published(patches, options)
    elif options.method == "spatial":
        result = spatial.split_by_place(patches, options)
    else:
        result = _split_at_random(patches, options)
    check_not_empty(result, options, f"{len(patches.keys):,} patches")
    return result


def split_before_scan(patches: Patches, options: SplitOptions) -> None:
    """Checks by keys, classes and published splits whether the patches can be split, before one is read.

    Args:
        patches: the patches; identical ones and locations may be known only later.
        options: options of the split.

    Raises:
        OptionError, SourceError: see `make_split`.
    """
    if patches.sites and (options.method == "city" or patches.transforms is not None):
        make_split(patches, options)
    elif options.method != "spatial" or options.coordinates is not None:
        # Distances take their time, and are measured once the patches have been read.
        make_split(patches, dataclasses.replace(options, buffer_km=0.0))


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
            groups, left[TEST] = draw_fold(groups, options.folds)
        fill(groups, left, assignment)
    method = {"method": "random", **describe_draw(options), **describe_identical(patches)}
    return SplitResult(tuple(assignment), method)


def _split_as_published(patches: Patches, options: SplitOptions) -> SplitResult:
    if not any(patches.published):
        raise OptionError(
            "`split=published`",
            "the archive has no splits of its own",
            "random, lists or spatial",
            "say `split=random`, or `split=lists` with `lists`",
        )
    across = _across(patches, patches.published)
    method = {
        "method": "published",
        **describe_identical(patches),
        # The archive is followed to the letter, so that results stay comparable.
        "identical_across_splits": across,
        "seed": options.seed,
    }
    warnings = (f"{across:,} identical images lie in different splits of the archive",) if across else ()
    return SplitResult(tuple(split or None for split in patches.published), method, warnings)


def _across(patches: Patches, assignment: Sequence[str | None]) -> int:
    """Counts the patches with identical pixels in another split."""
    splits_of = collections.defaultdict(collections.Counter)
    for group, split in zip(patches.groups.tolist(), assignment, strict=True):
        if split:
            splits_of[group][split] += 1
    return sum(sum(splits.values()) for splits in splits_of.values() if len(splits) > 1)


def _read_list(path: pathlib.Path) -> tuple[list[str], str]:
    """Returns the keys that a list names, and the MD5 checksum of its file."""
    try:
        data = path.read_bytes()
        # A byte order mark, as some editors write it, would belong to the first name.
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
    for split in (TRAIN, VAL, TEST):
        path = pathlib.Path(f"{options.lists}-{split}.txt")
        if split == VAL and not path.exists():
            continue
        names, checksums[split] = _read_list(path)
        for name in names:
            if name in list_of:
                raise SourceError(
                    path, f"{name} is listed already in {list_of[name]}", "every patch once", "fix the lists"
                )
            list_of[name] = path.name
        absent = [name for name in names if name not in positions]
        if absent and not options.allow_missing_patches:
            raise SourceError(
                path,
                f"{len(absent):,} of its {len(names):,} patches are not in the source, first {', '.join(absent[:3])}",
                "a source with every listed patch",
                "give the whole archive, or say `allow_missing_patches` if a subset is meant",
            )
        missing[split] = len(absent)
        for name in names:
            if name in positions:
                assignment[positions[name]] = split
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
        warnings.append(f"{across:,} identical images lie in different splits of these lists")
    return SplitResult(tuple(assignment), method, tuple(warnings))
