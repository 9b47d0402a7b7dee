"""Records built from the generated world, and runs trained on them."""

import hashlib

import pytest

from tests.harness import figures, tiny
from tests.harness.shared import once
from tfrecords_builder import build
from tfrecords_builder.splits import split as splits
from tfrecords_builder.synthetic import archives


@pytest.fixture(scope="session")
def rgb_records(tmp_path_factory):
    """A records folder of 160 training and 40 test patches in ten classes."""
    return once(tmp_path_factory, "rgb_records", _build_patches)


def _build_patches(folder):
    source = archives.write_eurosat_archive(folder / "rgb.zip", kind="rgb", patches_per_class=20)
    options = build.BuildOptions("eurosat_rgb", str(source), str(folder / "rgb"), splits.SplitOptions(seed=1))
    build.build(options)
    return folder / "rgb"


TILE = 64
"""Height and width of the tiles in pixels."""


@pytest.fixture(scope="session")
def tile_records(tmp_path_factory):
    """A records folder of four training, four validation and four test tiles with masks of four classes."""
    return once(tmp_path_factory, "tile_records", _build_tiles)


def _build_tiles(folder):
    from tests.harness import towns
    from tfrecords_builder.sources.urban_atlas.options import UrbanAtlasOptions

    lines = [
        towns.write_town(folder, name, place=place, size=2 * TILE, bands=("B02", "B03", "B04"))
        for place, name in enumerate("ABC")
    ]
    lines = [line[:-1] + f"{split}," for line, split in zip(lines, ("train", "val", "test"), strict=True)]
    tiles = UrbanAtlasOptions(str(towns.write_list(folder, *lines)), bands="RGB", tile_size=TILE)
    build.build(build.BuildOptions("urban_atlas", tiles, str(folder / "records")))
    return folder / "records"


@pytest.fixture(scope="session")
def distance_records(tile_records, tmp_path_factory):
    """The same tiles with five distance classes of the residential land, known where the mask is."""
    import dataclasses

    from eo_keras.geo.distance_classes import distance_classes
    from eo_keras.records import data_card as cards
    from eo_keras.records import example as codec
    from eo_keras.records import tfrecord
    from eo_keras.records.targets import DistanceClasses

    folder, card = tmp_path_factory.mktemp("distances") / "records", cards.read_data_card(tile_records)
    folder.mkdir()
    kinds, splits_of = DistanceClasses(8.0, 5, "Residential"), {}
    label = card.legend.label_of(kinds.objects)
    for name, split in card.splits.items():
        shards = []
        for shard in split.shards:
            with open(folder / shard.name, "wb") as file:
                for example in codec.read_examples(tile_records / shard.name):
                    tile = dataclasses.replace(example.tile, distance=distance_classes(example.tile.mask, label, kinds))
                    tfrecord.write_record(file, codec.encode(dataclasses.replace(example, tile=tile)))
            data = (folder / shard.name).read_bytes()
            shards.append(cards.Shard(shard.name, shard.examples, len(data), hashlib.sha256(data).hexdigest()))
        splits_of[name] = dataclasses.replace(split, shards=tuple(shards))
    cards.write_card(dataclasses.replace(card, distance=kinds, splits=splits_of).with_fingerprint(), folder)
    return folder


def _short(records, **options):
    """Returns options of three epochs of four steps; the run folder is to be filled in."""
    from eo_keras.training.options import TrainingOptions

    tiny.register()
    return TrainingOptions(str(records), "", epochs=3, steps_per_epoch=4, **options)


@pytest.fixture(scope="session")
def short_training(rgb_records):
    """Options of a short training of a small network."""
    from eo_keras.training.options import OptimizerOptions

    optimizer = OptimizerOptions(learning_rate=0.02)
    return _short(rgb_records, model=tiny.CLASSIFIER, batch_size=16, validation_from_train=0.2, optimizer=optimizer)


@pytest.fixture(scope="session")
def short_tile_training(tile_records):
    """Options of a short training of a small segmentation network."""
    from eo_keras.data.augment.options import CropAugmentation
    from eo_keras.training.options import SegmentationOptions

    segmentation = SegmentationOptions(augmentation=CropAugmentation(crop=32))
    return _short(tile_records, model=tiny.SEGMENTER, batch_size=4, segmentation=segmentation)


@pytest.fixture(scope="session")
def short_distance_training(distance_records):
    """Options of a short training of a small SegNet that predicts distances too."""
    from eo_keras.data.augment.options import CropAugmentation
    from eo_keras.training.options import SegmentationOptions

    segmentation = SegmentationOptions(augmentation=CropAugmentation(crop=32), distance_head="cascaded")
    return _short(distance_records, model=tiny.SEGNET, batch_size=4, segmentation=segmentation)


def _run(options, folder):
    import dataclasses

    from eo_keras.training import train as training

    lines = []
    options = dataclasses.replace(options, run_dir=str(folder))
    with figures.undrawn():
        return options, training.train(options, flags_text=f"--model={options.model}\n", report=lines.append), lines


@pytest.fixture(scope="session")
def finished(short_training, tmp_path_factory):
    """A finished run: its options, its report, and the lines that it reported."""
    return once(tmp_path_factory, "finished", lambda folder: _run(short_training, folder / "a"))


@pytest.fixture(scope="session")
def finished_on_tiles(short_tile_training, tmp_path_factory):
    """A finished run of a segmentation network, likewise."""
    return once(tmp_path_factory, "finished_on_tiles", lambda folder: _run(short_tile_training, folder / "tiles"))
