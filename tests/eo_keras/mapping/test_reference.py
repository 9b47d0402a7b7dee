"""Maps against points, polygons and rasters, compared with what is counted pixel by pixel."""

import dataclasses

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.warp import transform

from eo_keras.errors import EOKerasError, LegendError, OptionError
from eo_keras.geo.grid import Grid
from eo_keras.geo.points import points_file, read_points
from eo_keras.geo.polygons import write_polygons
from eo_keras.legends.catalogue import IGNORE, Legend, LegendClass
from eo_keras.mapping import reference
from eo_keras.mapping.reference import ReferenceOptions, evaluate_map
from eo_keras.metrics.confusion import confusion_matrix
from eo_keras.metrics.estimate import BOOTSTRAP, WILSON, wilson
from tests.harness.class_maps import GRID, NAMES, patches, write_class_map

LABELS = patches()


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A map."""
    return write_class_map(tmp_path_factory.mktemp("map") / "town.tif", LABELS)


def centers(rows, columns, grid=GRID):
    return np.stack(grid.coordinates(np.asarray(columns) + 0.5, np.asarray(rows) + 0.5), axis=-1)


def in_crs(places, crs):
    return np.stack(transform(GRID.crs, crs, *places.T), axis=-1)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", "EPSG:3035"])
def test_points(town, tmp_path, crs):
    random = np.random.default_rng(4)
    rows, columns = random.integers(0, 90, 300), random.integers(0, 130, 300)
    truth = random.integers(0, 4, 300)
    places = in_crs(np.concatenate([centers(rows, columns) + 3, [[500_000, 5_000_000]]]), crs)
    names = [*(NAMES[label] for label in truth), "Wood"]
    (tmp_path / "a.gpkg").write_bytes(points_file(places, {"class": [*names[:10], "", *names[11:]]}, crs, "a", {}))
    found = evaluate_map(town, ReferenceOptions(points=tmp_path / "a.gpkg", class_field="class", resamples=200))
    known = (LABELS[rows, columns] != IGNORE) & (np.arange(300) != 10)
    expected = confusion_matrix(truth[known], LABELS[rows, columns][known], 4)
    np.testing.assert_array_equal(found.scores.confusion, expected)
    assert found.scores.class_names == NAMES
    assert found.counts == {
        "points": 301,
        "scored": known.sum(),
        "without_class": 1,
        "outside_map": 1,
        "on_no_data": (LABELS[rows, columns] == IGNORE).sum(),
        "left_out": 0,
    }
    assert 3 < found.counts["on_no_data"] and LABELS[rows[10], columns[10]] != IGNORE
    accuracy = found.scores["accuracy"]
    assert accuracy.method == WILSON and accuracy.ends == wilson(accuracy.value, known.sum())
    assert {"precision", "recall", "f1", "iou"} <= set(found.scores.by_class["Wood"])


def test_a_table_of_names(town, tmp_path):
    rows, columns = np.array([40, 41, 42, 80]), np.array([50, 60, 70, 100])
    (tmp_path / "a.gpkg").write_bytes(
        points_file(centers(rows, columns), {"class": ["forest", "Built-up", "Water", "sky"]}, GRID.crs, "a", {})
    )
    (tmp_path / "table.csv").write_text("source,target\nforest,Wood\nsky,\nBuilt,Built-up\nField,Built-up\nWater,\n")
    options = ReferenceOptions(points=tmp_path / "a.gpkg", class_field="class", resamples=10)
    with pytest.raises(LegendError, match="'Built-up', 'forest', 'sky'; expected names of the map's classes: Built, F"):
        evaluate_map(town, options)
    found = evaluate_map(town, dataclasses.replace(options, class_table=tmp_path / "table.csv"))
    assert found.scores.class_names == ("Built-up", "Wood")
    predicted = np.array([0, 0, 1, -1])[LABELS[rows[:2], columns[:2]]]
    assert found.scores.count == (predicted >= 0).sum() and found.counts["left_out"] == 4 - found.scores.count


def polygons(seed=3, count=40):
    random = np.random.default_rng(seed)
    points = shapely.points(random.uniform((599_900, 5_399_000), (601_400, 5_400_100), (count, 2)))
    shapes = shapely.buffer(points, random.uniform(5, 60, count), quad_segs=3)
    return np.append(shapes, shapely.box(600_500, 5_399_500, 600_500.5, 5_399_500.5)), random.integers(0, 4, count + 1)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3035"])
def test_polygons(town, tmp_path, crs, monkeypatch):
    shapes, truth = polygons()
    written = shapely.transform(shapely.segmentize(shapes, 5), lambda places: in_crs(places, crs))
    write_polygons(tmp_path / "a.gpkg", "a", written, {"Kind": [NAMES[label] for label in truth]}, crs)
    options = ReferenceOptions(polygons=tmp_path / "a.gpkg", class_field="kind", resamples=200)
    found = evaluate_map(town, options)
    rows, columns = np.indices(LABELS.shape)
    places = shapely.points(centers(rows.ravel(), columns.ravel()))
    matrix, owner = np.zeros((4, 4), np.int64), np.full(LABELS.size, -1)
    for number, shape in enumerate(shapes):
        owner[shapely.contains_xy(shape, shapely.get_coordinates(places))] = number
    for number, label in enumerate(truth):
        predicted = LABELS.ravel()[owner == number]
        matrix[label] += np.bincount(predicted[predicted != IGNORE], minlength=4)
    np.testing.assert_array_equal(found.scores.confusion, matrix)
    assert (
        found.counts["polygons"] == 41
        and found.counts["polygons_without_pixels"] == 41 - np.unique(owner[owner >= 0]).size
    )
    assert found.counts["pixels_on_no_data"] == ((owner >= 0) & (LABELS.ravel() == IGNORE)).sum() > 0
    accuracy = found.scores["accuracy"]
    assert accuracy.method == BOOTSTRAP and found.scores.details["clusters"] == found.counts["scored"]
    # Hundreds of pixels, but tens of polygons.
    low, high = wilson(accuracy.value, found.scores.count)
    assert accuracy.high - accuracy.low > 1.5 * (high - low)
    monkeypatch.setattr(reference, "_BLOCK", 16)
    assert evaluate_map(town, options) == found


FINE = Grid("EPSG:25832", (4.0, 0.0, 600_103.0, 0.0, -4.0, 5_399_901.0), 200, 310)
DEGREES = Grid("EPSG:4326", (0.0002, 0.0, 10.358, 0.0, -0.00013, 48.747), 60, 110)


@pytest.mark.parametrize("grid", [GRID, FINE, DEGREES], ids=["same", "finer", "degrees"])
def test_raster(town, tmp_path, grid, monkeypatch):
    names = ("Water", "Field", "Wood", "Built")
    legend = Legend("other", tuple(LegendClass(name, "#010101") for name in names))
    truth = patches(grid, seed=7, size=13)
    path = write_class_map(tmp_path / "reference.tif", truth, grid, legend)
    options = ReferenceOptions(raster=path, resamples=50)
    found = evaluate_map(town, options)
    # Every pixel's center, by itself.
    rows, columns = np.indices(LABELS.shape)
    x, y = np.array(transform(GRID.crs, grid.crs, *centers(rows.ravel(), columns.ravel()).T))
    at_columns, at_rows = (np.floor(place + 1e-6).astype(int) for place in grid.pixel(x, y))
    inside = (at_rows >= 0) & (at_rows < grid.height) & (at_columns >= 0) & (at_columns < grid.width)
    there = np.full(LABELS.size, IGNORE, np.uint8)
    there[inside] = truth[at_rows[inside], at_columns[inside]]
    known = (there != IGNORE) & (LABELS.ravel() != IGNORE)
    expected = confusion_matrix(np.array([3, 1, 2, 0])[there[known]], LABELS.ravel()[known], 4)
    difference = np.abs(np.array(found.scores.confusion) - expected).sum()
    assert difference <= (0 if grid != DEGREES else 2)  # Centers on a border, but for interpolated places.
    assert found.counts["pixels"] == LABELS.size and abs(found.counts["scored"] - known.sum()) <= 1
    assert found.scores.details["clusters"] > 2
    monkeypatch.setattr(reference, "_MOST_READ", 200)
    assert evaluate_map(town, options) == found
    monkeypatch.setattr(reference, "_BLOCK", 32)
    blocks = evaluate_map(town, options)
    assert np.abs(np.array(blocks.scores.confusion) - found.scores.confusion).sum() <= difference


def test_a_raster_across_the_antimeridian(tmp_path):
    """A map in UTM zone 1 against degrees on both sides of 180."""
    grid = Grid("EPSG:32701", (100.0, 0.0, 100_000.0, 0.0, -100.0, 8_100_000.0), 60, 1500)
    other = Grid("EPSG:4326", (0.01, 0.0, -180.0, 0.0, -0.01, -16.0), 300, 36_000)
    labels = np.zeros((60, 1500), np.uint8)
    (longitude,) = transform(grid.crs, other.crs, *centers([0] * 1500, range(1500), grid).T)[:1]
    labels[:, np.array(longitude) < 0] = 1
    truth = np.zeros((300, 36_000), np.uint8)
    truth[:, :18_000] = 1
    a, b = write_class_map(tmp_path / "a.tif", labels, grid), write_class_map(tmp_path / "b.tif", truth, other)
    found = evaluate_map(a, ReferenceOptions(raster=b, resamples=10))
    assert found.counts["scored"] == labels.size and found.scores["accuracy"].value > 0.99
    assert 0.3 < labels.mean() < 0.98


def test_classes_of_a_raster_that_do_not_occur_need_no_match(town, tmp_path):
    names = (*NAMES, "Ice")
    legend = Legend("other", tuple(LegendClass(name, "#010101") for name in names))
    path = write_class_map(tmp_path / "a.tif", LABELS, GRID, legend)
    assert evaluate_map(town, ReferenceOptions(raster=path, resamples=10)).scores["accuracy"].value == 1
    labels = LABELS.copy()
    labels[50, 50] = 4
    write_class_map(path, labels, GRID, legend)
    with pytest.raises(LegendError, match="no class 'Ice'"):
        evaluate_map(town, ReferenceOptions(raster=path, resamples=10))


def test_nothing_on_the_map(town, tmp_path):
    places = np.array([[10.0, 60.0], [11.0, 61.0]])
    (tmp_path / "a.gpkg").write_bytes(points_file(places, {"class": ["Wood", "Wood"]}, "EPSG:4326", "a", {}))
    with pytest.raises(EOKerasError, match=r"nothing of it can be scored \(2 points, 2 outside map\).*EPSG:32632"):
        evaluate_map(town, ReferenceOptions(points=tmp_path / "a.gpkg", class_field="class"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "points: no reference is given; expected one of `points`"),
        ({"points": "a", "raster": "b"}, "raster: it is given beside `points`"),
        ({"raster": "a", "class_field": "b"}, "class_field: it does not apply to `raster`"),
        ({"polygons": "a"}, "class_field: it is not given; expected the field with the class of the polygons"),
        ({"polygons": "a", "class_field": "b", "points_crs": "EPSG:4326"}, "points_crs: it does not apply"),
        ({"raster": "a", "resamples": 0}, "resamples"),
    ],
)
def test_options(options, message):
    with pytest.raises(OptionError, match=message):
        ReferenceOptions(**options)


@pytest.mark.real_data
def test_the_points_of_leipzig(real_data, tmp_path):
    """A map by thresholds of NDVI and near infrared against 97 real points, read by rasterio's sampling too."""
    folder = real_data / "samples" / "s2" / "leipzig" / "inst" / "extdata"
    names = ("urban", "forest", "pasture", "water")
    with rasterio.open(folder / "leipzig_raster.tif") as dataset:
        bands = dict(zip(dataset.descriptions, dataset.read(), strict=True))
        grid = Grid("EPSG:32632", tuple(dataset.transform)[:6], dataset.height, dataset.width)
    green = np.where(bands["b11"] < 1700, 1, 2)
    labels = np.where(bands["b08"] < 700, 3, np.where(bands["ndvi"] < 0.45, 0, green)).astype(np.uint8)
    legend = Legend("leipzig", tuple(LegendClass(name, "#010101") for name in names))
    path = write_class_map(tmp_path / "leipzig.tif", labels, grid, legend)
    points = folder / "leipzig_points.gpkg"
    found = evaluate_map(path, ReferenceOptions(points=points, class_field="land_cover", resamples=100))
    assert found.counts["points"] == found.counts["scored"] == 97
    read = read_points(points, "land_cover")
    with rasterio.open(path) as dataset:
        predicted = np.array([value[0] for value in dataset.sample(read.coordinates)])
    correct = np.mean(np.array(names)[predicted] == read.values)
    assert found.scores["accuracy"].value == pytest.approx(correct) and correct > 0.6
