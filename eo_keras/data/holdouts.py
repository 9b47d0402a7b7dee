"""Holdout of training examples for validation by whole cities or blocks; equal images stay together.

What lies in training should say nothing of what is held out. Tiles overlap where their stride is smaller than they
are, and several dates show one place; patches may be copies of each other, or overlap. So tiles are held out by city
where there are many, or in blocks, and what lies beside them is left out of training; patches with the same picture or
with ground in common are held out together. Where records tell no place, keys are all that there is to go by.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from eo_keras.data import subsets
from eo_keras.data.folder import PARSE_BATCH, RecordDataset, reading, serialized, unconverted
from eo_keras.data.subsets import Holdout
from eo_keras.errors import OptionError
from eo_keras.geo.footprints import Footprints, cells, joined, overlapping_pairs, within
from eo_keras.records import example as codec
from eo_keras.records.data_card import DataCard

BY_KEY = "held out by key"
"""Description of a holdout by a hash of the keys alone."""

_BORDERING_M = 1.0
_EDGES = (4, 3, 2, 1)
_FEWEST_BLOCKS = 4


@dataclasses.dataclass(frozen=True)
class Scanned:
    """Keys, image hashes and locations of a split's N examples; parallel sequences.

    Attributes:
        keys: their keys.
        digests: hashes of the stored images; of images with a place, where equal pictures show in it, empty.
        cities: names of tiles' cities, or empty.
        footprints: their ground, or None where that of one is not known.
    """

    keys: tuple[str, ...]
    digests: tuple[bytes, ...]
    cities: tuple[str, ...]
    footprints: Footprints | None


@dataclasses.dataclass(frozen=True)
class Division:
    """Choice of the examples that are held out.

    Attributes:
        held_out: bool (N,).
        kept: bool (N,); examples in neither are too near to held-out ones.
        how: its description.
    """

    held_out: np.ndarray
    kept: np.ndarray
    how: str


@dataclasses.dataclass(frozen=True)
class HoldOut:
    """A training split without its holdout, the holdout, and a description of it."""

    kept: Holdout
    held_out: Holdout
    name: str


def hold_out(folder: RecordDataset, fraction: float, seed: int) -> HoldOut:
    """Divides a training split into kept and held-out examples; it is read once, no image is decoded.

    Args:
        folder: the records.
        fraction: about this share of the examples is held out, 0 to 1.
        seed: another seed gives another division.

    Raises:
        OptionError: if no tile can be held out of whose ground the others show nothing.
        RecordsError: if a shard is missing or damaged.
    """
    scanned = scan(folder.card, folder.files("train"))
    found = divide(scanned, folder.card, fraction, lambda names: subsets.draw(names, seed))
    name = f"{fraction:.1%} of the split train, {found.how}"
    if found.how == BY_KEY:
        return HoldOut(*subsets.holdout(fraction, seed), name)
    sides = (
        Holdout(fraction, seed, held_out, frozenset(np.array(scanned.keys, object)[mask].tolist()))
        for held_out, mask in ((False, found.kept), (True, found.held_out))
    )
    return HoldOut(*sides, name)


def fraction_of(folder: RecordDataset, part: Holdout | None, fraction: float, seed: int) -> Holdout | None:
    """Returns a fraction of a training split's examples; those of a smaller fraction are among those of a larger one.

    Args:
        folder: the records.
        part: the part of the split to choose from; None for all of it.
        fraction: this share of the examples is chosen, above 0 and below 1; at least one.
        seed: another seed gives other examples.

    Returns:
        The chosen ones; `part` where these are all of it.

    Raises:
        RecordsError: if a shard is missing or damaged.
    """
    keys = [key for key, _ in _keys_and_labels(folder, part)]
    chosen = _shuffled("fraction", keys, seed)[: max(1, round(fraction * len(keys)))]
    return _chosen(chosen, len(keys), part, seed)


def of_each_class(folder: RecordDataset, part: Holdout | None, count: int, seed: int) -> Holdout | None:
    """Returns as many examples of each class of a training split; those of a smaller count are among those of a larger.

    Args:
        folder: the records, of patches with one class each.
        part: the part of the split to choose from; None for all of it.
        count: number of examples of each class.
        seed: another seed gives other examples.

    Returns:
        The chosen ones; `part` where these are all of it.

    Raises:
        OptionError: if a class has fewer.
        RecordsError: if a shard is missing or damaged.
    """
    by_class: dict[int, list[str]] = collections.defaultdict(list)
    for key, label in _keys_and_labels(folder, part):
        by_class[label].append(key)
    for number, name in enumerate(folder.card.legend.class_names):
        if len(by_class[number]) < count:
            found = f"{count:,}, but {len(by_class[number]):,} training examples that are not held out show {name}"
            raise OptionError("train_per_class", found, "at most what every class has")
    chosen = [key for keys in by_class.values() for key in _shuffled("class", keys, seed)[:count]]
    return _chosen(chosen, sum(map(len, by_class.values())), part, seed)


def _keys_and_labels(folder: RecordDataset, part: Holdout | None) -> Iterator[tuple[str, int]]:
    """Yields key and label of the examples of a training split; the label of tiles is -1."""
    spec = {
        codec.KEY: tf.io.FixedLenFeature([], tf.string),
        codec.LABEL: tf.io.FixedLenFeature([], tf.int64, default_value=-1),
    }
    batches = serialized(folder.files("train"), part).batch(PARSE_BATCH)
    for batch in reading(folder, batches.map(unconverted(lambda batch: tf.io.parse_example(batch, spec)))):
        for key, label in zip(batch[codec.KEY].numpy(), batch[codec.LABEL].numpy().tolist(), strict=True):
            yield key.decode(), label


def _shuffled(purpose: str, keys: Iterable[str], seed: int) -> list[str]:
    """Returns keys in an order that depends on them, purpose and seed alone."""
    keys = sorted(keys)
    order = np.argsort(subsets.draw([f"{purpose}/{key}" for key in keys], seed), kind="stable")
    return [keys[place] for place in order]


def _chosen(chosen: Sequence[str], total: int, part: Holdout | None, seed: int) -> Holdout | None:
    if len(chosen) == total:
        return part
    return Holdout(1 - len(chosen) / total, seed, held_out=False, keys=frozenset(chosen))


def scan(card: DataCard, paths: Iterable[str]) -> Scanned:
    """Reads keys, image hashes and locations of the examples of shards."""
    keys, digests, cities, crs, transforms = [], [], [], [], []
    for path in paths:
        for header in codec.read_headers(path):
            keys.append(header.key)
            placed = header.transform is not None and card.targets.per_pixel
            digests.append(b"" if placed else hashlib.blake2b(header.image, digest_size=16).digest())
            cities.append(header.city)
            crs.append(header.crs)
            transforms.append(header.transform or (np.nan,) * 6)
    footprints = None
    if keys and all(crs):
        footprints = Footprints.of_transforms(crs, transforms, card.patch_size)
        footprints = footprints if footprints.known.all() else None
    return Scanned(tuple(keys), tuple(digests), tuple(cities), footprints)


def divide(scanned: Scanned, card: DataCard, fraction: float, draw: Callable[[Sequence[str]], np.ndarray]) -> Division:
    """Chooses the held-out examples.

    Args:
        scanned: the examples.
        card: the records' card.
        fraction: about this share of them is held out.
        draw: gives each of some names a number from 0 to below 1.

    Raises:
        OptionError: see `hold_out`.
    """
    if card.targets.per_pixel and scanned.footprints is not None:
        return _by_place(scanned, card, fraction, draw)
    groups = _alike(scanned, card.resolution_m)
    sizes = np.bincount(groups)
    if not card.targets.per_pixel and scanned.footprints is not None and sizes.max() > 2 * fraction * len(groups) + 1:
        # Chains of overlapping patches connect most of them.
        return _by_place(scanned, card, fraction, draw)
    # An example counts by the first key of those that are like it.
    first = np.full(len(sizes), len(groups))
    order = np.argsort(np.array(scanned.keys))
    np.minimum.at(first, groups[order], np.arange(len(groups)))
    draws = draw([scanned.keys[order[place]] for place in first])
    held_out = (draws < fraction)[groups]
    how = BY_KEY if sizes.max() == 1 else f"{BY_KEY}, what is alike or overlaps together"
    return Division(held_out, ~held_out, how)


def _alike(scanned: Scanned, pixel_m: float) -> np.ndarray:
    """Numbers the examples so that those with equal images or common ground share a number; int64 (N,)."""
    first: dict[bytes, int] = {}
    pairs = [(first.setdefault(digest, place), place) for place, digest in enumerate(scanned.digests) if digest]
    found = [np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)]
    if scanned.footprints is not None:
        found.append(overlapping_pairs(scanned.footprints, pixel_m))
    return joined(len(scanned.keys), np.concatenate(found))


def _by_place(
    scanned: Scanned, card: DataCard, fraction: float, draw: Callable[[Sequence[str]], np.ndarray]
) -> Division:
    count, edge_m = len(scanned.keys), card.resolution_m * card.patch_size
    names, where = _places(scanned, fraction, edge_m)
    held_out = _drawn(names, fraction * count, draw)
    footprints = scanned.footprints
    pictures = footprints[held_out]
    others = np.flatnonzero(~held_out)
    for nearest, most in ((edge_m * 0.99, 1 / 4), (_BORDERING_M, 1 / 4), (None, 1 / 2)):
        near = _near(footprints[others], pictures, nearest, card.resolution_m)
        left_out = int(np.count_nonzero(near))
        if left_out <= most * len(others) and left_out < len(others):
            break
    else:
        raise OptionError(
            "validation_from_train",
            f"of {count:,} training images {int(held_out.sum()):,} would be held out, and {left_out:,} of the others "
            "show some of their ground",
            "images of which most show other ground than those that are held out",
            "build the records with `val_fraction`, or say `validation_from_train=0` to keep the last epoch",
        )
    kept = np.zeros(count, bool)
    kept[others[~near]] = True
    beside = {None: "on the same ground", _BORDERING_M: "beside them"}.get(
        nearest, f"nearer than {edge_m / 1000:.3g} km"
    )
    return Division(held_out, kept, f"held out {where}" + (f"; {left_out:,} {beside} left out" if left_out else ""))


def _places(scanned: Scanned, fraction: float, edge_m: float) -> tuple[list[str], str]:
    """Returns the city or block of each example, and the word for it."""
    if all(scanned.cities) and len(set(scanned.cities)) * fraction >= 1:
        return list(scanned.cities), "by city"
    degrees = scanned.footprints.degrees
    for images in _EDGES:
        blocks = [f"{row}/{column}" for row, column in cells(degrees, images * edge_m).tolist()]
        if len(set(blocks)) * fraction >= _FEWEST_BLOCKS:
            break
    return blocks, f"in blocks of {images * edge_m / 1000:.3g} km"


def _drawn(names: Sequence[str], wanted: float, draw: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
    """Draws whole places until a number of examples is reached; bool (N,)."""
    found, members = np.unique(np.array(names), return_inverse=True)
    sizes = np.bincount(members)
    chosen = np.zeros(len(found), bool)
    for place in np.argsort(draw(found.tolist()), kind="stable"):
        total = sizes[chosen].sum()
        # A place that is far larger than the share is passed over for smaller ones.
        if total < wanted and total + sizes[place] <= 2 * wanted:
            chosen[place] = True
    if not chosen.any():
        chosen[np.argmin(sizes)] = True
    return chosen[members]


def _near(others: Footprints, held_out: Footprints, nearest: float | None, pixel_m: float) -> np.ndarray:
    if nearest is not None:
        return within(others, held_out, nearest)
    count = len(held_out)
    pairs = overlapping_pairs(Footprints(np.concatenate([held_out.corners, others.corners])), pixel_m)
    near = np.zeros(len(others), bool)
    near[pairs[(pairs[:, 0] < count) & (pairs[:, 1] >= count)][:, 1] - count] = True
    return near
