"""The command that maps scenes, from its flags to its exit code."""

import os
import signal
import time

import numpy as np
import pytest
import rasterio

from tests.harness import products
from tests.launch.commands import assert_one_line_error, launch, start

BANDS = ["B02", "B03", "B04"]
SIZE = 150


def textured(name, size, resolution):
    return np.random.default_rng(int(name[1:])).integers(300, 3000, (size, size)).astype(np.uint16)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return products.write_product(tmp_path_factory.mktemp("town"), bands=BANDS, size=SIZE, pixels=textured)


def test_a_scene_becomes_a_map(finished_on_tiles, town, tmp_path):
    words = {"run_dir": finished_on_tiles[0].run_dir, "scenes": town, "output": tmp_path / "new" / "town.tif"}
    done = launch("map", "--dry_run", **words)
    assert done.returncode == 0 and done.stderr == "", done
    assert f"dry run: would write {words['output']}" in done.stdout and "150 x 150 pixels of 10 m" in done.stdout
    assert not any(tmp_path.iterdir())
    done = launch("map", "--confidence", **words)
    assert done.returncode == 0, done
    assert f"{words['output']}: 22,500 pixels in" in done.stdout.splitlines()[-1]
    files = {path.name for path in words["output"].parent.iterdir()}
    assert files >= {"town.tif", "town.tif.aux.xml", "town_bands.tif"} and "town.tif.unfinished" not in files
    with rasterio.open(words["output"]) as dataset:
        assert dataset.crs == "EPSG:32633" and dataset.shape == (SIZE, SIZE) and dataset.nodata == 255
        assert dataset.read(1).max() < 4


def test_mistakes_are_one_line(finished_on_tiles, town, tmp_path):
    words = {"run_dir": finished_on_tiles[0].run_dir, "scenes": town, "output": tmp_path / "map.tif"}
    for changes, message in (
        ({"stride": 8}, "--stride: it does not apply to models of pixels"),
        ({"scenes": tmp_path / "*.zip"}, "nothing is called"),
        ({"run_dir": tmp_path}, "model_card.json"),
    ):
        assert_one_line_error(launch("map", **words | changes), message)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_command_that_was_ended_goes_on_when_called_again(finished_on_tiles, tmp_path):
    scene = products.write_product(tmp_path, bands=BANDS, size=1200, pixels=textured)
    flags = [f"--run_dir={finished_on_tiles[0].run_dir}", f"--scenes={scene}", "--block_rows=96", "--overlap=32"]
    whole = start("launch.map", *flags, f"--output={tmp_path / 'whole.tif'}").wait()
    assert whole.returncode == 0, whole
    stopped = start("launch.map", *flags, f"--output={tmp_path / 'map.tif'}")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "map.tif.unfinished").glob(".map/row-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(stopped.pid, signal.SIGTERM)
    assert stopped.wait().returncode == 143
    assert not (tmp_path / "map.tif").exists()
    done = start("launch.map", *flags, f"--output={tmp_path / 'map.tif'}").wait()
    assert done.returncode == 0 and "resumed: " in done.stdout, done
    for end in (".tif", ".tif.aux.xml"):
        assert (tmp_path / f"map{end}").read_bytes() == (tmp_path / f"whole{end}").read_bytes()
