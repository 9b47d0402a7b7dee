import dataclasses
import gc
import hashlib
import io
import itertools
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from eo_keras.data.augment.patches import Augmentation
from eo_keras.data.pipeline import PipelineOptions, RecordDataset, TrainingDataset, evaluation, kept_bytes, reading
from eo_keras.data.subsets import holdout
from eo_keras.errors import BandError, OptionError, RecordsError
from eo_keras.legends.catalogue import Legend, LegendClass
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from eo_keras.sensors.radiometry import Reflectance
from eo_keras.sensors.sentinel2 import EUROSAT_ORDER

RNG = np.random.default_rng(5)
TRAIN, TEST, SHARDS = 50, 13, 3


def _write(folder, splits, encoding="raw", size=16):
    """Writes a records folder; image n of a split holds n + 1 in its first pixel's first band where it is raw."""
    raw = encoding == "raw"
    bands, dtype, size = (EUROSAT_ORDER, "uint16", size) if raw else (("B04", "B03", "B02"), "uint8", 64)
    entries, images = {}, {}
    for split, count in splits.items():
        shards = []
        for index, numbers in enumerate(np.array_split(np.arange(count), SHARDS)):
            path = folder / f"test-{split}.tfrecord-{index:05d}-of-{SHARDS:05d}"
            with open(path, "wb") as file:
                for number in map(int, numbers):
                    image = RNG.integers(1, 256, (size, size, len(bands))).astype(dtype)
                    image[0, 0, 0] = number + 1
                    if raw:
                        data = image.astype("<u2").tobytes()
                    else:
                        stream = io.BytesIO()
                        Image.fromarray(image).save(stream, "JPEG", quality=100)
                        data = stream.getvalue()
                        image = np.asarray(Image.open(stream))
                    images[f"{split}-{number}"] = image
                    tfrecord.write_record(file, records.encode(records.Example(data, number % 2, f"{split}-{number}")))
            content = path.read_bytes()
            shards.append(cards.Shard(path.name, len(numbers), len(content), hashlib.sha256(content).hexdigest()))
        entries[split] = cards.Split(count, {"Forest": (count + 1) // 2, "River": count // 2}, tuple(shards))
    legend = Legend("test", (LegendClass("Forest", "#00ff00"), LegendClass("River", "#0000ff")))
    card = cards.DataCard(
        "test", "1", "classification", bands, dtype, encoding, "L1C", True, Reflectance(1e-4), 0, 10.0, size,
        False, legend, entries, {}, (), (), (), "nobody",
    )  # fmt: skip
    cards.write_card(card.with_fingerprint(), folder)
    return images


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    return folder, _write(folder, {"train": TRAIN, "test": TEST})


@pytest.fixture
def own(tmp_path):
    """A folder that a test may damage."""
    _write(tmp_path, {"train": 12, "val": 0})
    return tmp_path


def _batches(dataset):
    return [tuple(value.numpy() for value in batch) for batch in dataset]


def _numbers(batches):
    return [int(number) for image, *_ in batches for number in image[:, 0, 0, 0]]


def _assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for value, again in zip(one, other, strict=True):
            np.testing.assert_array_equal(value, again)


MODES = pytest.mark.parametrize("cache", [True, False], ids=["memory", "streamed"])


@MODES
def test_epochs_are_reproducible_permutations(raw, cache):
    folder, images = raw
    options = PipelineOptions(5, seed=4, augmentation=None, cache=cache, shuffle_buffer=30)
    pipeline = TrainingDataset(RecordDataset(folder), options)
    assert (pipeline.examples, pipeline.steps, pipeline.in_memory) == (TRAIN, 10, cache)
    epochs = [_batches(pipeline.epoch(number)) for number in range(3)]
    for batches in epochs:
        assert sorted(_numbers(batches)) == list(range(1, TRAIN + 1))
        for image, label in batches:
            assert image.shape == (5, 16, 16, 13) and image.dtype == np.uint16 and label.dtype == np.int32
            for one, its_label in zip(image, label, strict=True):
                number = int(one[0, 0, 0]) - 1
                np.testing.assert_array_equal(one, images[f"train-{number}"])
                assert its_label == number % 2
    orders = [_numbers(batches) for batches in epochs]
    assert all(one != other for one, other in itertools.combinations([*orders, sorted(orders[0])], 2))
    assert _numbers(_batches(pipeline.epoch(1))) == orders[1]
    other_seed = TrainingDataset(RecordDataset(folder), dataclasses.replace(options, seed=5))
    assert _numbers(_batches(other_seed.epoch(0))) != orders[0]


@MODES
def test_an_epoch_does_not_depend_on_what_was_read_before(raw, cache):
    options = PipelineOptions(8, seed=2, augmentation=Augmentation(), cache=cache)
    used = TrainingDataset(RecordDataset(raw[0]), options)
    for number in range(3):
        next(iter(used.epoch(number)))
    epoch = _batches(used.epoch(3))
    assert len(epoch) == 6
    fresh = TrainingDataset(RecordDataset(raw[0]), options)
    _assert_same(epoch, _batches(fresh.epoch(3)))
    resumed = fresh.epoch(3, first_step=4)
    assert resumed.cardinality() == 2
    _assert_same(epoch[4:], _batches(resumed))
    assert _batches(fresh.epoch(3, first_step=6)) == []


def _nodes(dataset):
    return 1 + sum(map(_nodes, dataset._inputs()))


@MODES
@pytest.mark.parametrize("first", [0, 3])
def test_many_passes_are_one_short_dataset(raw, cache, first):
    pipeline = TrainingDataset(RecordDataset(raw[0]), PipelineOptions(8, seed=2, augmentation=None, cache=cache))
    short, long = pipeline.steps_from(first, 2), pipeline.steps_from(first, 50_000)
    assert _nodes(short) == _nodes(long) < 25
    assert long.cardinality() == 50_000
    _assert_same(_batches(short), _batches(long.take(2)))


@MODES
def test_steps_run_on_over_the_ends_of_epochs(raw, cache):
    options = PipelineOptions(8, seed=2, augmentation=Augmentation(), cache=cache)
    pipeline = TrainingDataset(RecordDataset(raw[0]), options)
    assert pipeline.steps == 6
    whole = [batch for number in range(4) for batch in _batches(pipeline.epoch(number))]
    _assert_same(whole[4:20], _batches(pipeline.steps_from(4, 16)))
    _assert_same(whole[7:8], _batches(pipeline.steps_from(7, 1)))


def test_smaller_images_are_the_same_ones(raw):
    options = PipelineOptions(8, seed=2, augmentation=Augmentation())
    pipeline = TrainingDataset(RecordDataset(raw[0]), options)
    for (large, label), (small, again) in zip(pipeline.epoch(1), pipeline.epoch(1, size=8), strict=True):
        assert small.shape == (8, 8, 8, 13) and small.dtype == tf.uint16
        np.testing.assert_array_equal(label, again)
        expected = large.numpy().reshape(8, 8, 2, 8, 2, 13).astype(np.float64).mean(axis=(2, 4))
        np.testing.assert_allclose(small.numpy(), expected, atol=0.51)
    _assert_same(_batches(pipeline.epoch(0)), _batches(pipeline.epoch(0, size=16)))


def test_augmentation_differs_between_steps_and_epochs(raw):
    options = PipelineOptions(TRAIN, augmentation=Augmentation(max_shift=0, brightness=0))
    pipeline = TrainingDataset(RecordDataset(raw[0]), options)
    seen = []
    for number in range(2):
        ((image, _),) = _batches(pipeline.epoch(number))
        order = np.argsort(image.reshape(TRAIN, -1).astype(np.int64).sum(axis=1), kind="stable")
        seen.append(image[order])
    assert (seen[0] != seen[1]).any(axis=(1, 2, 3)).mean() > 0.6


@pytest.mark.parametrize("bands", [("B8A",), ("B04", "B03", "B02"), EUROSAT_ORDER[::-1]])
@MODES
def test_bands_are_selected_by_name(raw, bands, cache):
    folder, images = raw
    options = PipelineOptions(4, bands=bands, cache=cache)
    columns = [EUROSAT_ORDER.index(band) for band in bands]
    for image, _, weight, key in evaluation(RecordDataset(folder), options, "test", with_keys=True):
        for one, counts, name in zip(image.numpy(), weight.numpy(), key.numpy(), strict=True):
            if counts:
                np.testing.assert_array_equal(one, images[name.decode()][..., columns])
    pipeline = TrainingDataset(RecordDataset(folder), options)
    assert pipeline.inputs[0].bands == bands
    expected = {images[f"train-{number}"][..., columns].tobytes() for number in range(TRAIN)}
    assert {one.tobytes() for image, _ in _batches(pipeline.epoch(0)) for one in image} <= expected


@MODES
def test_evaluation_counts_every_example_once(raw, cache):
    dataset = evaluation(RecordDataset(raw[0]), PipelineOptions(5, cache=cache), "test", with_keys=True)
    assert dataset.cardinality() == 3
    assert [spec.shape[0] for spec in dataset.element_spec] == [5] * 4
    batches = _batches(dataset)
    keys = [key.decode() for batch in batches for key in batch[3]]
    assert keys == [f"test-{number}" for number in range(TEST)] + [""] * 2
    np.testing.assert_array_equal(np.concatenate([batch[2] for batch in batches]), [1] * TEST + [0] * 2)
    image, label, weight, _ = batches[-1]
    assert not image[3:].any() and not label[3:].any() and weight.dtype == np.float32
    _assert_same(batches, _batches(dataset))
    assert len(evaluation(RecordDataset(raw[0]), PipelineOptions(5), "test").element_spec) == 3


def test_whole_last_batch_is_not_padded(raw):
    batches = _batches(evaluation(RecordDataset(raw[0]), PipelineOptions(TEST), "test"))
    assert len(batches) == 1 and batches[0][2].all()


def test_jpeg_pixels_are_those_of_pillow(tmp_path):
    images = _write(tmp_path, {"train": 6}, "jpeg")
    for image, _, weight, key in evaluation(RecordDataset(tmp_path), PipelineOptions(4), "train", with_keys=True):
        for one, counts, name in zip(image.numpy(), weight.numpy(), key.numpy(), strict=True):
            if counts:
                np.testing.assert_array_equal(one, images[name.decode()])
    memory, streamed = (
        TrainingDataset(RecordDataset(tmp_path), PipelineOptions(3, cache=cache, augmentation=None))
        for cache in (True, False)
    )
    contents = [
        sorted(one.tobytes() for image, _ in pipeline.epoch(0) for one in image.numpy())
        for pipeline in (memory, streamed)
    ]
    assert contents[0] == contents[1] == sorted(image.tobytes() for image in images.values())


def test_memory_limit(raw):
    size = TRAIN * (16 * 16 * 2 + 4)  # Images, and labels of 32 bits.
    for limit, in_memory in ((size, True), (size - 1, False)):
        options = PipelineOptions(5, bands=("B04",), cache_limit_bytes=limit)
        pipeline = TrainingDataset(RecordDataset(raw[0]), options)
        assert (pipeline.in_memory, pipeline.kept_bytes) == (in_memory, in_memory * size)
        assert len(_batches(pipeline.epoch(0))) == 10


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of memory cannot be reset")
def test_examples_are_read_into_the_memory_that_keeps_them(tmp_path):
    _write(tmp_path, {"train": 384}, size=128)
    records = RecordDataset(tmp_path)

    def resident(peak):
        name = "VmHWM:" if peak else "VmRSS:"
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

    # What TensorFlow sets up once, and what an earlier test freed and the C library kept.
    next(iter(TrainingDataset(records, PipelineOptions(4, cache=False)).epoch(0)))
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = resident(peak=False)
    pipeline = TrainingDataset(records, PipelineOptions(4))
    grown = resident(peak=True) - before
    assert pipeline.kept_bytes == 384 * (128**2 * 13 * 2 + 4) > 150e6
    assert grown < 1.2 * pipeline.kept_bytes
    assert sum(len(label) for _, label in pipeline.epoch(0)) == 384


def test_what_is_kept_of_maps_counts_their_labels(raw):
    data = RecordDataset(raw[0])
    options = PipelineOptions(5, bands=("B04", "B03"))
    assert kept_bytes(data, options, 7) == 7 * (16 * 16 * 2 * 2 + 4)
    data.card = dataclasses.replace(data.card, task="segmentation")
    assert kept_bytes(data, options, 7) == 7 * 16 * 16 * (2 * 2 + 1)


def test_holdout_divides_a_split(raw):
    data = RecordDataset(raw[0])
    kept, held_out = holdout(0.3, 1)
    counts = data.count("train", kept), data.count("train", held_out)
    assert sum(counts) == TRAIN == data.count("train") and min(counts) > 5
    found = _batches(evaluation(data, PipelineOptions(1), "train", part=held_out))
    for cache in (True, False):
        pipeline = TrainingDataset(data, PipelineOptions(1, cache=cache), part=kept)
        numbers = _numbers(_batches(pipeline.epoch(0))) + _numbers(found)
        assert sorted(numbers) == list(range(1, TRAIN + 1))
    other = _numbers(_batches(evaluation(data, PipelineOptions(1), "train", part=holdout(0.3, 2)[1])))
    assert other != _numbers(found)


def test_holdout_fraction():
    kept, held_out = holdout(0.1, 1)
    keys = tf.constant([f"Forest/Forest_{number}.tif" for number in range(20_000)])
    assert abs(float(tf.reduce_mean(tf.cast(held_out.contains(keys), tf.float32))) - 0.1) < 0.01
    assert tf.reduce_all(held_out.contains(keys) != kept.contains(keys))
    assert bool(held_out.contains(keys)[5]) == bool(held_out.contains("Forest/Forest_5.tif"))
    with pytest.raises(OptionError, match="fraction"):
        holdout(1.0, 1)


def test_batches_are_distributed(raw):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    pipeline = TrainingDataset(RecordDataset(raw[0]), PipelineOptions(10, augmentation=Augmentation()))
    plain = _batches(pipeline.epoch(0))
    distributed = strategy.experimental_distribute_dataset(pipeline.epoch(0))
    _assert_same(plain, _batches(distributed))


def test_options_that_cannot_work(raw):
    data = RecordDataset(raw[0])
    with pytest.raises(OptionError, match="more than the 50 examples"):
        TrainingDataset(data, PipelineOptions(51))
    with pytest.raises(OptionError, match="batch_size: 0"):
        PipelineOptions(0)
    with pytest.raises(OptionError, match="less than the images' 16 pixels"):
        TrainingDataset(data, PipelineOptions(5, augmentation=Augmentation(max_shift=16)))
    with pytest.raises(BandError, match="B99"):
        TrainingDataset(data, PipelineOptions(5, bands=("B04", "B99")))


def test_bands_that_the_records_do_not_hold(tmp_path):
    _write(tmp_path, {"train": 3}, "jpeg")
    with pytest.raises(BandError, match="does not hold B08"):
        evaluation(RecordDataset(tmp_path), PipelineOptions(1, bands=("B08",)), "train")


def test_unknown_and_empty_splits(own):
    data = RecordDataset(own)
    with pytest.raises(RecordsError, match="there is no split 'tset'; expected one of train"):
        data.files("tset")
    with pytest.raises(RecordsError, match="'val' is empty"):
        evaluation(data, PipelineOptions(1), "val")


def test_missing_and_cut_shards(own):
    data = RecordDataset(own)
    path, other = own / data.card.splits["train"].shards[1].name, own / data.card.splits["train"].shards[0].name
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    with pytest.raises(RecordsError, match=rf"{path.name}: it has {len(content) - 7} bytes; expected {len(content)} b"):
        TrainingDataset(data, PipelineOptions(1))
    path.write_bytes(content)
    other.unlink()
    with pytest.raises(RecordsError, match=f"{other.name}: there is no such file"):
        evaluation(data, PipelineOptions(1), "train")


@MODES
def test_a_damaged_record_is_reported(own, cache):
    data = RecordDataset(own)
    path = own / data.card.splits["train"].shards[1].name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    # Of the shard's four records, the two in the middle meet there.
    with pytest.raises(RecordsError, match=f"{path.name}: record [12] is cut off or damaged"):
        list(reading(data, TrainingDataset(data, PipelineOptions(1, cache=cache)).epoch(0)))
    with pytest.raises(RecordsError, match=f"{path.name}: record [12] is cut off or damaged"):
        list(reading(data, evaluation(data, PipelineOptions(1), "train")))


@MODES
def test_a_card_that_counts_wrongly_is_reported(own, cache):
    card = cards.read_data_card(own)
    split = dataclasses.replace(card.splits["train"], examples=14)
    cards.write_card(dataclasses.replace(card, splits={"train": split}), own)
    data = RecordDataset(own)
    with pytest.raises(RecordsError):
        list(reading(data, TrainingDataset(data, PipelineOptions(1, cache=cache)).epoch(0)))


def test_no_records_folder(tmp_path):
    with pytest.raises(RecordsError, match="no card.json"):
        RecordDataset(tmp_path)


def _worker(number, workers):
    return tf.distribute.InputContext(workers, number, num_replicas_in_sync=workers)


def _of_worker(data, number, workers=3, part=None, **options):
    chosen = PipelineOptions(12, seed=4, **options)
    return TrainingDataset(data, chosen, part=part, input_context=_worker(number, workers))


def test_streaming_every_worker_reads_shards_of_its_own(raw):
    data = RecordDataset(raw[0])
    pipelines = [_of_worker(data, number, cache=False) for number in range(3)]
    assert [pipeline.examples for pipeline in pipelines] == [17, 17, 16]
    assert {(pipeline.steps, pipeline.batch_size) for pipeline in pipelines} == {(4, 4)}
    seen = [set() for _ in pipelines]
    for epoch in range(8):
        for pipeline, numbers in zip(pipelines, seen, strict=True):
            batches = _batches(pipeline.epoch(epoch))
            assert len(batches) == 4 and len(set(_numbers(batches))) == 16
            numbers.update(_numbers(batches))
    assert seen == [set(range(1, 18)), set(range(18, 35)), set(range(35, 51))]


def test_from_memory_the_workers_shares_are_the_batches_of_one_process(raw):
    data, augmentation = RecordDataset(raw[0]), Augmentation(True, 3, 0.2)
    whole = TrainingDataset(data, PipelineOptions(12, seed=4, augmentation=augmentation))
    workers = [_of_worker(data, number, augmentation=augmentation) for number in range(3)]
    assert {(worker.examples, worker.steps, worker.batch_size) for worker in workers} == {(50, 4, 4)}
    parts = [_batches(worker.epoch(1, first_step=1)) for worker in workers]
    for batch, *shares in zip(_batches(whole.epoch(1, first_step=1)), *parts, strict=True):
        for place in range(2):
            np.testing.assert_array_equal(np.concatenate([share[place] for share in shares]), batch[place])


def test_workers_draw_different_augmentations_and_resume_alike(raw):
    data = RecordDataset(raw[0])
    _assert_same(
        _batches(_of_worker(data, 1, augmentation=Augmentation(), cache=False).epoch(1))[2:],
        _batches(_of_worker(data, 1, augmentation=Augmentation(), cache=False).epoch(1, first_step=2)),
    )
    turned, plain = (
        [_of_worker(data, number, augmentation=augmentation, cache=False).epoch(0) for number in range(2)]
        for augmentation in (Augmentation(max_shift=0, brightness=0), None)
    )
    corners = [
        [tuple(np.argwhere((image == image0[0, 0]).all(-1))[0]) for image, image0 in zip(a, b, strict=True)]
        for (a, _), (b, _) in zip(
            (batch for epoch in turned for batch in _batches(epoch)),
            (batch for epoch in plain for batch in _batches(epoch)),
            strict=True,
        )
    ]
    assert corners[:4] != corners[4:]


def test_workers_share_a_part_too(raw):
    data, (kept, _) = RecordDataset(raw[0]), holdout(0.4, 7)
    pipelines = [_of_worker(data, number, 2, part=kept, cache=False) for number in range(2)]
    assert sum(pipeline.examples for pipeline in pipelines) == data.count("train", kept)
    assert len({pipeline.steps for pipeline in pipelines}) == 1
    numbers = [set(_numbers(_batches(pipeline.epoch(0)))) for pipeline in pipelines]
    assert not numbers[0] & numbers[1]


def test_more_workers_than_shards_and_batches_that_cannot_be_shared(raw):
    data = RecordDataset(raw[0])
    with pytest.raises(RecordsError, match="3 shards for 4 workers.*fewer workers, or build .* smaller `shard_mb"):
        _of_worker(data, 0, 4, cache=False)
    words = "12 is not divisible by 5 workers; expected a multiple of 5, for instance 15"
    with pytest.raises(OptionError, match=words):
        _of_worker(data, 0, 5)
    with pytest.raises(OptionError, match="20 is more than the 16 examples that a worker has.*expected 48 or less"):
        TrainingDataset(data, PipelineOptions(60, cache=False), input_context=_worker(0, 3))


def test_a_strategy_gets_the_worker_s_own_batches(raw):
    data, strategy = RecordDataset(raw[0]), tf.distribute.get_strategy()
    batches = strategy.distribute_datasets_from_function(
        lambda context: TrainingDataset(data, PipelineOptions(12, seed=4), input_context=context).epoch(0)
    )
    _assert_same(_batches(batches), _batches(TrainingDataset(data, PipelineOptions(12, seed=4)).epoch(0)))
