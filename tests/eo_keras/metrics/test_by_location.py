import csv
import io

import numpy as np
import pytest
from PIL import Image

from eo_keras.geo.coordinates import read_coordinates
from eo_keras.metrics import by_location
from eo_keras.plots import confidence
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from tfrecords_builder import build
from tfrecords_builder.splits import split as splits
from tfrecords_builder.synthetic import archives


@pytest.fixture(scope="module")
def located(tmp_path_factory):
    """Records of GeoTIFFs, and a file of their coordinates that was made without them."""
    folder = tmp_path_factory.mktemp("located")
    source = archives.write_eurosat_archive(folder / "ms.zip", kind="ms", patches_per_class=3)
    coordinates = archives.write_coordinates(folder / "coordinates.csv", patches_per_class=3)
    split = splits.SplitOptions(seed=1, test_fraction=0.5)
    build.build(build.BuildOptions("eurosat_ms", str(source), str(folder / "ms"), split))
    return folder / "ms", coordinates


def test_places_of_records_are_those_of_the_coordinates_file(located):
    folder, coordinates = located
    card = cards.read_data_card(folder)
    keys = [one.key for shard in card.splits["test"].shards for one in records.read_examples(folder / shard.name)]
    keys = keys[::-1]
    found = by_location.read_locations(folder, card, "test", keys)
    expected, _ = read_coordinates(str(coordinates), tuple(keys))
    np.testing.assert_allclose(found.degrees, expected, atol=2e-6)
    assert found.known.all() and len(found.known) == card.splits["test"].examples
    # Examples of another split have no place here.
    some = by_location.read_locations(folder, card, "test", [*keys[:2], "elsewhere"])
    np.testing.assert_array_equal(some.known, [True, True, False])
    np.testing.assert_array_equal(some.degrees[:2], found.degrees[:2])


def test_records_without_places(rgb_records):
    assert by_location.read_locations(rgb_records, cards.read_data_card(rgb_records), "test", ["a"]) is None


def test_cells_by_hand():
    degrees = [[10.3, 45.2], [10.9, 45.9], [11.0, 45.0], [-5.5, 39.99], [np.nan, np.nan], [25.0, 50.0]]
    grid = by_location.accuracy_by_cell(degrees, [True, False, True, False, True, True])
    assert grid.degrees == 5.0, "too few examples for small cells, but four cells side by side at least"
    assert grid.cells == (
        by_location.Cell(25.0, 50.0, 1, 1),
        by_location.Cell(10.0, 45.0, 3, 2),
        by_location.Cell(-10.0, 35.0, 1, 0),
    )
    many = by_location.accuracy_by_cell(np.repeat(degrees, 20, axis=0), np.ones(120))
    assert many.degrees == 2.0, "30.5 degrees of extent, thirty cells at the most"
    assert many.cells[1] == by_location.Cell(10.0, 44.0, 60, 60)
    rows = list(csv.DictReader(io.StringIO(grid.to_csv())))
    assert rows[1] == {
        "west": "10",
        "south": "45",
        "degrees": "5",
        "examples": "3",
        "correct": "2",
        "accuracy": "0.666667",
    }


def test_edges_of_small_cells_are_exact():
    # In floats, 0.3 / 0.1 is less than 3.
    degrees = [[0.3, k / 10] for k in range(25)] * 8
    grid = by_location.accuracy_by_cell(degrees, np.ones(200))
    assert grid.degrees == 0.1 and len(grid.cells) == 25 and grid.cells[0].west == pytest.approx(0.3)
    assert [cell.examples for cell in grid.cells] == [8] * 25
    assert by_location.accuracy_by_cell(np.full((2, 2), np.nan), [True, False]).cells == ()


def test_the_map():
    rng = np.random.default_rng(0)
    degrees = np.stack([rng.uniform(-10, 20, 300), rng.uniform(35, 60, 300)], axis=1)
    degrees[:10] = np.nan
    correct = rng.random(300) < 0.9
    grid = by_location.accuracy_by_cell(degrees, correct)
    assert sum(cell.examples for cell in grid.cells) == 290 and 20 < len(grid.cells) <= 290 / 8
    picture = confidence.accuracy_map_png(degrees, correct, grid, "Map")
    assert Image.open(io.BytesIO(picture)).size[0] > 600
    assert picture != confidence.accuracy_map_png(
        degrees, ~correct, by_location.accuracy_by_cell(degrees, ~correct), "Map"
    )
    none = confidence.accuracy_map_png(
        np.full((2, 2), np.nan), [True, False], by_location.AccuracyGrid(1.0, ()), "None"
    )
    assert Image.open(io.BytesIO(none)).size[1] < 600
    # One place alone has surroundings.
    one = confidence.accuracy_map_png(
        [[8.0, 50.0]], [False], by_location.accuracy_by_cell([[8.0, 50.0]], [False]), "One"
    )
    assert Image.open(io.BytesIO(one)).size[0] > 600


@pytest.mark.parametrize("latitude", [0.0, 52.0, -65.0])
@pytest.mark.parametrize(("stride", "grounds"), [(1.0, 100), (0.5, 36)])
def test_images_of_the_same_ground_belong_together(latitude, stride, grounds):
    side_m, rows = 2560.0, np.arange(10)
    step = stride * side_m / 111_320
    north = latitude + step * np.repeat(rows, 10)
    east = 7 + step * np.tile(rows, 10) / np.cos(np.radians(latitude))
    # Each at two dates, and one whose place is not known.
    degrees = np.concatenate([np.stack([east, north], -1)] * 2 + [np.full((1, 2), np.nan)])
    keys = [f"k{number}" for number in range(201)]
    found = by_location.grounds(by_location.Locations(degrees, ""), keys, side_m)
    assert list(found) == keys and all(found[f"k{n}"] == found[f"k{n + 100}"] for n in range(100))
    assert found["k200"] == "k200"
    # Half a side apart, blocks of two sides hold four by four; those at the edge fewer.
    assert len(set(found.values())) - 1 <= grounds and len(set(found.values())) - 1 >= 0.25 * grounds
    assert (len(set(found.values())) == 101) == (stride == 1)
