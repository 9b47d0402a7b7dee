"""Which training examples are held out: none whose ground or picture the others show."""

import dataclasses
import hashlib
import itertools
import types

import numpy as np
import pytest

from eo_keras.data import holdouts, subsets
from eo_keras.data import pipeline as pipelines
from eo_keras.data.pipeline import PipelineOptions, RecordDataset, TrainingDataset
from eo_keras.errors import OptionError
from eo_keras.geo.footprints import Footprints
from eo_keras.legends.catalogue import HSL4
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from eo_keras.records.targets import CLASS_LABEL, PIXEL_LABELS
from eo_keras.sensors.radiometry import Reflectance

TILES = types.SimpleNamespace(targets=PIXEL_LABELS, resolution_m=10.0, patch_size=64)
PATCHES = types.SimpleNamespace(targets=CLASS_LABEL, resolution_m=10.0, patch_size=64)


def draw(names):
    return subsets.draw(names, 1)


def scanned(corners, cities=None, digests=None):
    """Images of 640 m, whose upper left corners are given in metres from a place in Bohemia; None has no place."""
    footprints = None
    if corners is not None:
        transforms = [(10.0, 0.0, 500_000.0 + x, 0.0, -10.0, 5_500_000.0 - y) for x, y in corners]
        footprints = Footprints.of_transforms(["EPSG:32633"] * len(corners), transforms, 64)
    count = len(corners or digests)
    keys = tuple(f"k{number:04d}" for number in range(count))
    return holdouts.Scanned(keys, tuple(digests or (b"",) * count), tuple(cities or ("",) * count), footprints)


def grid(side, stride, west=0.0):
    return [(west + stride * x, stride * y) for x in range(side) for y in range(side)]


def shared(found, corners):
    """The largest share of a held-out image's ground that images to train on show, and how many do."""
    held, kept = (np.array(corners)[mask] for mask in (found.held_out, found.kept))
    apart = np.abs(held[:, None] - kept[None])
    return (np.clip(640 - apart, 0, None).prod(axis=2) / 640**2).max()


@pytest.mark.parametrize("stride", [160, 320, 640])
def test_nothing_of_the_ground_that_is_held_out_is_trained_on(stride):
    corners = grid(36, stride)
    # Two dates of every place.
    found = holdouts.divide(scanned(corners * 2), TILES, 0.05, draw)
    assert (found.held_out[: len(corners)] == found.held_out[len(corners) :]).all()
    assert not (found.held_out & found.kept).any()
    assert shared(found, corners * 2) == 0
    assert 0.04 <= found.held_out.mean() <= 0.1 and found.kept.mean() >= 0.5
    assert found.how.startswith("held out in blocks of ") and "left out" in found.how
    again = holdouts.divide(scanned(corners * 2), TILES, 0.05, lambda names: subsets.draw(names, 2))
    assert (again.held_out != found.held_out).any()


def test_of_many_cities_whole_ones_are_held_out():
    corners = list(itertools.chain(*(grid(3, 640, west=20_000 * city) for city in range(30))))
    cities = [f"c{city}" for city in range(30) for _ in range(9)]
    found = holdouts.divide(scanned(corners, cities), TILES, 0.05, draw)
    assert {cities[place] for place in np.flatnonzero(found.held_out)}.isdisjoint(
        cities[place] for place in np.flatnonzero(found.kept)
    )
    assert found.held_out.sum() == 18 and found.kept.sum() == 270 - 18 and found.how == "held out by city"
    # Where the cities of training border on each other, what lies beside is left out.
    close = list(itertools.chain(*(grid(3, 640, west=3 * 640 * city) for city in range(30))))
    found = holdouts.divide(scanned(close, cities), TILES, 0.05, draw)
    apart = np.abs(np.array(close)[found.held_out][:, None] - np.array(close)[found.kept][None]).max(axis=2)
    assert apart.min() > 640 and not (found.held_out | found.kept).all()


def test_few_tiles_keep_what_only_borders():
    found = holdouts.divide(scanned(grid(2, 640)), TILES, 0.2, draw)
    assert 1 <= found.held_out.sum() <= 2 and (found.held_out | found.kept).all()


def test_what_cannot_be_held_out_is_refused():
    for corners in (grid(3, 64), [(0, 0)], [(0, 0)] * 5):
        with pytest.raises(OptionError, match="validation_from_train: of .* `val_fraction`, or say `validation_from"):
            holdouts.divide(scanned(corners), TILES, 0.1, draw)


def test_pictures_without_a_place_go_by_key_and_copies_together():
    digests = [bytes([number]) for number in range(200)]
    plain = holdouts.divide(scanned(None, digests=digests), PATCHES, 0.2, draw)
    assert plain.how == "held out by key"
    kept, held_out = subsets.holdout(0.2, 1)
    keys = scanned(None, digests=digests).keys
    assert plain.held_out.tolist() == held_out.contains(list(keys)).numpy().tolist()
    digests[150:] = digests[:50]
    found = holdouts.divide(scanned(None, digests=digests), PATCHES, 0.2, draw)
    assert found.how == "held out by key, what is alike or overlaps together"
    assert found.held_out[150:].tolist() == found.held_out[:50].tolist() == plain.held_out[:50].tolist()
    assert (found.held_out != found.kept).all()


def test_patches_with_ground_in_common_are_held_out_together():
    corners = [(2000 * number, 0) for number in range(150)] + [(2000 * number + 300, 300) for number in range(50)]
    found = holdouts.divide(scanned(corners, digests=[bytes([n]) for n in range(200)]), PATCHES, 0.2, draw)
    assert shared(found, corners) == 0 and (found.held_out != found.kept).all()
    assert 0.1 < found.held_out.mean() < 0.3
    # Those that merely border on each other are neighbours, as in a random split.
    assert holdouts.divide(scanned(grid(12, 640)), PATCHES, 0.2, draw).how == "held out by key"
    # Of a field of overlapping ones there is no group to hold out: blocks are.
    field = grid(24, 320)
    found = holdouts.divide(scanned(field), PATCHES, 0.1, draw)
    assert shared(found, field) == 0 and found.how.startswith("held out in blocks")


@pytest.fixture
def folder(tmp_path):
    """Tiles of 16 pixels with half a tile's stride, in three shards."""
    rng, corners = np.random.default_rng(0), grid(12, 8 * 10)
    shards = []
    for number, places in enumerate(np.array_split(np.arange(len(corners)), 3)):
        path = tmp_path / f"t-train.tfrecord-{number:05d}-of-00003"
        with open(path, "wb") as file:
            for place in places.tolist():
                x, y = corners[place]
                image = rng.integers(1, 4000, (16, 16, 1)).astype("<u2")
                tile = records.PixelLabels(np.zeros((16, 16), np.uint8), np.ones((16, 16), np.uint8), "A", "", "p")
                transform = (10.0, 0.0, 500_000.0 + x, 0.0, -10.0, 5_500_000.0 - y)
                example = records.Example(image.tobytes(), None, f"A-{place:03d}", "EPSG:32633", transform, tile)
                tfrecord.write_record(file, records.encode(example))
        content = path.read_bytes()
        shards.append(cards.Shard(path.name, len(places), len(content), hashlib.sha256(content).hexdigest()))
    split = cards.Split(len(corners), dict.fromkeys(HSL4.class_names, 0), tuple(shards))
    card = cards.DataCard(
        "t", "1", "segmentation", ("B04",), "uint16", "raw", "L1C", True, Reflectance(1e-4), 0, 10.0, 16,
        True, HSL4, {"train": split}, {}, (), (), (), "nobody",
    )  # fmt: skip
    cards.write_card(card.with_fingerprint(), tmp_path)
    return tmp_path


def test_the_pipelines_deliver_the_two_parts(folder):
    data = RecordDataset(folder)
    division = holdouts.hold_out(data, 0.05, 1)
    assert division.name.startswith("5.0% of the split train, held out in blocks of 0.16 km")
    again = holdouts.hold_out(RecordDataset(folder), 0.05, 1)
    assert (again.kept, again.held_out) == (division.kept, division.held_out)

    def seen(part):
        dataset = pipelines.evaluation(data, PipelineOptions(4), "train", part=part, with_keys=True)
        return {key.decode() for *_, keys in dataset for key in keys.numpy() if key}

    for part in (division.kept, division.held_out):
        assert seen(part) == part.keys and data.count("train", part) == len(part.keys)
        shares = [data.count("train", part, subsets.WorkerShard(number, 3)) for number in range(3)]
        assert sum(shares) == len(part.keys)
    for cache in (True, False):
        pipeline = TrainingDataset(data, PipelineOptions(2, cache=cache), part=division.kept)
        assert pipeline.examples == len(division.kept.keys)
    places = {f"A-{place:03d}": corner for place, corner in enumerate(grid(12, 80))}
    held, kept = (np.array([places[key] for key in part.keys]) for part in (division.held_out, division.kept))
    assert np.abs(held[:, None] - kept[None]).max(axis=2).min() >= 160


def test_another_division_is_another_part():
    one = subsets.Holdout(0.1, 1, True, frozenset({"a"}))
    assert one != dataclasses.replace(one, keys=frozenset({"b"})) and len({one, dataclasses.replace(one)}) == 1


def test_a_smaller_fraction_is_part_of_a_larger_one(rgb_records):
    records = RecordDataset(rgb_records)
    kept = holdouts.hold_out(records, 0.25, seed=3).kept
    sizes = {}
    for part, whole in ((None, records.count("train")), (kept, records.count("train", kept))):
        chosen = [holdouts.fraction_of(records, part, share, seed=3).keys for share in (0.1, 0.5)]
        assert chosen[0] < chosen[1]
        assert [len(keys) for keys in chosen] == [round(0.1 * whole), round(0.5 * whole)]
        sizes[whole] = chosen
    assert len(sizes) == 2
    other = holdouts.fraction_of(records, None, 0.5, seed=4)
    assert other.keys != sizes[160][1] and records.count("train", other) == 80
    inside = kept.contains(sorted(sizes[records.count("train", kept)][1]))
    assert bool(np.all(inside))
    # A share that rounds to all of it is all of it.
    assert holdouts.fraction_of(records, kept, 0.9999, seed=3) is kept


def test_as_many_examples_of_each_class_are_chosen(rgb_records):
    records = RecordDataset(rgb_records)
    kept = holdouts.hold_out(records, 0.25, seed=3).kept
    chosen = [holdouts.of_each_class(records, kept, count, seed=3) for count in (2, 5)]
    assert chosen[0].keys < chosen[1].keys and all(kept.contains(sorted(chosen[1].keys)))
    data = TrainingDataset(records, PipelineOptions(batch_size=10, seed=1), part=chosen[1])
    labels = np.concatenate([labels for _, labels in data.epoch(0)])
    assert np.bincount(labels, minlength=10).tolist() == [5] * 10
    assert holdouts.of_each_class(records, kept, 5, seed=4).keys != chosen[1].keys
    with pytest.raises(OptionError, match="train_per_class: 17, but 16 training examples .* show AnnualCrop"):
        holdouts.of_each_class(records, None, 17, seed=3)
    assert holdouts.of_each_class(records, None, 16, seed=3) is None
