"""Segmentation by commands: records of tiles, their page, a training run, its evaluation and export."""

import json
import shutil

import pytest

from eo_keras.runs import model_card as model_cards
from tests.harness import tiny, towns
from tests.launch.commands import assert_one_line_error, launch


@pytest.fixture(scope="module")
def cities(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towns")
    lines = [towns.write_town(folder, name, place=place, size=128) for place, name in enumerate("ABC")]
    lines = [line[:-1] + f"{split}," for line, split in zip(lines, ("train", "val", "test"), strict=True)]
    return towns.write_list(folder, *lines)


@pytest.fixture(scope="module")
def records_dir(cities, tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "ua"
    done = launch("build", dataset="urban_atlas", cities=cities, bands="RGB", tile_size=64, output_dir=folder)
    assert done.returncode == 0, done.stderr
    assert "train       4 examples" in done.stdout
    return folder


def test_a_dry_run_says_how_many_tiles_there_will_be(cities, tmp_path):
    done = launch(
        "build",
        "--dry_run",
        "--num_workers=1",
        dataset="urban_atlas",
        cities=cities,
        tile_size=64,
        output_dir=tmp_path / "r",
    )
    assert done.returncode == 0, done.stderr
    assert "all        12 examples" in done.stdout
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "a.zip"}, "--source: it does not apply to --dataset=urban_atlas"),
        ({"split": "random"}, "would lie on both sides"),
        ({"bands": "B04,B11"}, "it does not hold B11"),
        ({"legend": "hsl5"}, "legend 'hsl5'"),
        ({"tile_size": 8}, "--tile_size: 8; expected a number in [16, 4096]"),
        ({"stride": 1000, "tile_size": 64}, "--stride: 1000 pixels"),
        ({"band_order": "x,y"}, "--band_order"),
    ],
)
def test_mistakes_are_one_line(cities, tmp_path, arguments, message):
    done = launch("build", **({"dataset": "urban_atlas", "cities": cities, "output_dir": tmp_path / "r"} | arguments))
    assert_one_line_error(done, message)
    assert not (tmp_path / "r").exists()


def test_each_data_set_needs_its_own_source(tmp_path):
    assert_one_line_error(launch("build", dataset="urban_atlas", output_dir=tmp_path / "r"), "--cities: it is missing")
    assert_one_line_error(launch("build", dataset="eurosat_rgb", output_dir=tmp_path / "r"), "--source: it is missing")
    done = launch("build", dataset="eurosat_rgb", source="a.zip", legend="hsl8", output_dir=tmp_path / "r")
    assert_one_line_error(done, "--legend: it does not apply to --dataset=eurosat_rgb")


def test_the_page_of_tiles(records_dir, tmp_path):
    done = launch("inspect", "--verify", records_dir=records_dir, output=tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "clear pixels" in done.stdout
    page = (tmp_path / "page.html").read_text()
    assert "12 tiles of 4 classes" in page and "beside each its mask" in page


def test_a_segmentation_model_is_trained_evaluated_and_exported(records_dir, tmp_path):
    run_dir = tmp_path / "run"
    done = launch(
        "train",
        *(
            "--epochs=1",
            "--warmup_epochs=0",
            "--steps_per_epoch=2",
            "--batch_size=2",
            "--crop=32",
            f"--model={tiny.SEGMENTER}",
        ),
        records_dir=records_dir,
        run_dir=run_dir,
    )
    assert done.returncode == 0, done.stderr
    assert "mIoU" in done.stdout
    second, compared = tmp_path / "second", tmp_path / "compared"
    shutil.copytree(run_dir, second)
    done = launch("evaluate", "--output_stride=8", "--flip", run_dir=f"{run_dir},{second}", output_dir=compared)
    assert done.returncode == 0, done.stderr
    assert "Residential" in done.stdout and "boundary" in done.stdout
    # Equal predictions of four tiles: no difference, and a wide interval.
    (pair,) = json.loads((compared / "comparison.json").read_text())["differences"]
    assert (pair["verdict"], pair["difference"], pair["method"]) == ("no difference shown", 0, "MOVER")
    assert pair["high"] > 0.2 and "run - second  no difference shown" in done.stdout
    metrics = json.loads((run_dir / "evaluation" / "test-os8-flip" / "metrics.json").read_text())
    assert metrics["output_stride"] == 8 and metrics["tta"] == "flip"
    assert metrics["calibration"]["fitted_on"] == "pixels of the split val"
    assert "test-os8-flip" in model_cards.read_model_card(run_dir).scores
    again = launch("evaluate", "--output_stride=8", "--flip", run_dir=run_dir)
    assert again.returncode == 0 and "reused:" in again.stdout and "temperature" in again.stdout, again.stderr
    done = launch("export", run_dir=run_dir, export_dir=tmp_path / "serving")
    assert done.returncode == 0, done.stderr
    assert "np.ones((1, 512, 512, 3), 'uint16')" in done.stdout
    done = launch("predict", run_dir=run_dir, images=tmp_path, output=tmp_path / "a.csv")
    assert done.returncode == 2
    done = launch("evaluate", "--tta=d4", run_dir=run_dir)
    assert_one_line_error(done, "--tta: it does not apply to records of one class a pixel")
    assert_one_line_error(launch("evaluate", "--scales=1,x", run_dir=run_dir), "flag --scales=1,x")
    done = launch("train", "--model=resnet14", records_dir=records_dir, run_dir=tmp_path / "other")
    assert_one_line_error(done, "is for classification, the records are for segmentation")
