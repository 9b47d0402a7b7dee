"""Records built from the generated world, and a run that was trained on them."""

import pytest

from tfrecords_builder import build
from tfrecords_builder.splits import split as splits
from tfrecords_builder.synthetic import archives


@pytest.fixture(scope="session")
def rgb_records(tmp_path_factory):
    """A records folder of 160 training and 40 test patches in ten classes."""
    folder = tmp_path_factory.mktemp("generated")
    source = archives.write_eurosat_archive(folder / "rgb.zip", kind="rgb", patches_per_class=20)
    options = build.BuildOptions("eurosat_rgb", str(source), str(folder / "rgb"), splits.SplitOptions(seed=1))
    build.build(options)
    return folder / "rgb"


@pytest.fixture(scope="session")
def short_training(rgb_records):
    """Options of three short epochs of a small network; the run folder is to be filled in."""
    from eo_keras.training.options import OptimizerOptions, TrainingOptions

    return TrainingOptions(
        records_dir=str(rgb_records),
        run_dir="",
        model="resnet14",
        batch_size=16,
        epochs=3,
        steps_per_epoch=4,
        validation_from_train=0.2,
        optimizer=OptimizerOptions(learning_rate=0.02),
    )


@pytest.fixture(scope="session")
def finished(short_training, tmp_path_factory):
    """A finished run: its options, its report, and the lines that it reported."""
    import dataclasses

    from eo_keras.training import train as training

    folder, lines = tmp_path_factory.mktemp("runs") / "a", []
    options = dataclasses.replace(short_training, run_dir=str(folder))
    report = training.train(options, flags_text="--model=resnet14\n", report=lines.append)
    return options, report, lines


@pytest.fixture(scope="session")
def tile_records(tmp_path_factory):
    """A records folder of twelve tiles of 64 pixels and three bands: three towns, one for each split."""
    from tests.harness import towns
    from tfrecords_builder.sources.urban_atlas.options import UrbanAtlasOptions

    folder = tmp_path_factory.mktemp("towns")
    lines = [
        towns.write_town(folder, name, place=place, size=128, bands=("B02", "B03", "B04"))
        for place, name in enumerate("ABC")
    ]
    lines = [line[:-1] + f"{split}," for line, split in zip(lines, ("train", "val", "test"), strict=True)]
    tiles = UrbanAtlasOptions(str(towns.write_list(folder, *lines)), bands="RGB", tile_size=64)
    build.build(build.BuildOptions("urban_atlas", tiles, str(folder / "records")))
    return folder / "records"
