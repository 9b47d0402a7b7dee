"""Samples of maps and what they estimate."""

import dataclasses
import json

import numpy as np
import pytest

from eo_keras.errors import EOKerasError, LegendError, OptionError, SourceError
from eo_keras.geo.class_map import open_class_map
from eo_keras.geo.grid import Grid
from eo_keras.geo.pixel_areas import row_areas
from eo_keras.geo.points import points_file, read_points
from eo_keras.legends.catalogue import IGNORE
from eo_keras.mapping import assessment, sampling
from eo_keras.mapping.assessment import InterpretationOptions, assess_map, write_assessment
from eo_keras.mapping.sampling import SampleOptions, count_strata, draw_sample
from eo_keras.metrics.area_estimation import allocate, estimate_areas, sample_size
from tests.harness.class_maps import GRID, NAMES, patches, write_class_map

LABELS = patches()
DEGREES = Grid("EPSG:4326", (0.05, 0.0, 5.0, 0.0, -0.5, 80.0), 120, 60)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A map."""
    return write_class_map(tmp_path_factory.mktemp("map") / "town.tif", LABELS)


def test_a_sample(town):
    found = draw_sample(town, SampleOptions(sample=200, seed=5))
    pixels = np.bincount(LABELS.ravel(), minlength=256)[:4]
    np.testing.assert_array_equal(found.strata.pixels, pixels)
    np.testing.assert_allclose(found.strata.hectares, pixels / 100)
    np.testing.assert_array_equal(found.drawn, allocate(200, pixels / pixels.sum()))
    np.testing.assert_array_equal(LABELS[found.rows, found.columns], found.labels)
    np.testing.assert_array_equal(np.bincount(found.labels, minlength=4), found.drawn)
    assert len({*zip(found.rows.tolist(), found.columns.tolist(), strict=True)}) == len(found) == 200
    centers = np.stack(GRID.coordinates(found.columns + 0.5, found.rows + 0.5), axis=-1)
    np.testing.assert_array_equal(found.coordinates, centers)
    # The order does not tell the class.
    assert (np.diff(found.labels.astype(int)) != 0).sum() > 80


def test_blocks_change_nothing_and_seeds_do(town, monkeypatch):
    options = SampleOptions(sample=100, seed=3)
    whole = draw_sample(town, options).to_bytes()
    monkeypatch.setattr(sampling, "_PIXELS", 7 * GRID.width)
    assert draw_sample(town, options).to_bytes() == whole
    other = draw_sample(town, dataclasses.replace(options, seed=4))
    assert other.to_bytes() != whole
    larger, smaller = (draw_sample(town, SampleOptions(sample=size, allocation="equal")) for size in (80, 40))
    places = [{*zip(one.rows.tolist(), one.columns.tolist(), strict=True)} for one in (larger, smaller)]
    assert places[1] < places[0]


@pytest.mark.parametrize("grid", [GRID, DEGREES], ids=["equal", "degrees"])
def test_all_pixels_are_drawn_as_often_as_their_area_says(tmp_path, grid):
    labels = np.zeros((grid.height, grid.width), np.uint8)
    labels[:, grid.width // 2 :] = 1
    path = write_class_map(tmp_path / "a.tif", labels, grid)
    counts = np.zeros(labels.shape)
    for seed in range(60):
        found = draw_sample(path, SampleOptions(sample=200, seed=seed, allocation="equal"))
        counts[found.rows, found.columns] += 1
    areas = np.broadcast_to(row_areas(grid, np.arange(grid.height)), labels.shape)
    for part in (np.s_[:, : grid.width // 2], np.s_[:, grid.width // 2 :]):
        expected = areas[part] / areas[part].sum() * 60 * 100
        thirds = [
            (counts[part][rows].sum(), expected[rows].sum()) for rows in np.array_split(np.arange(grid.height), 3)
        ]
        chi_squared = sum((drawn - mean) ** 2 / mean for drawn, mean in thirds)
        assert chi_squared < 13.8  # The quantile 0.999 of two degrees of freedom.
    if grid is DEGREES:
        assert areas.max() > 2 * areas.min()


def test_size_by_error(town):
    options = SampleOptions(target_error=0.04, expected_accuracy=(0.7, 0.8, 0.9, 0.6), allocation="proportional")
    found = draw_sample(town, options)
    weights = found.strata.weights
    assert len(found) == sample_size(weights, options.expected_accuracy, 0.04, found.strata.pixels.sum()) > 50
    with pytest.raises(
        OptionError, match="expected_accuracy: 2 numbers; expected one, or one for each of .* 4 classes"
    ):
        draw_sample(town, SampleOptions(expected_accuracy=(0.7, 0.8)))


def test_blind_interpretation(town, tmp_path):
    sample = draw_sample(town, SampleOptions(sample=60))
    (tmp_path / "open.gpkg").write_bytes(sample.to_bytes())
    (tmp_path / "blind.gpkg").write_bytes(sample.to_bytes(hide_classes=True))
    for name, fields in (("open", {"map_class", "stratum_weight", "id"}), ("blind", {"id"})):
        points = read_points(tmp_path / f"{name}.gpkg", "reference_class", others=("map_class", "stratum_weight", "id"))
        assert set(points.others) == fields and set(points.values.tolist()) == {""}
    assert NAMES[0].encode() not in (tmp_path / "blind.gpkg").read_bytes()


def truth_of(labels, seed=9):
    """The reference of a map: some of each class is another one."""
    random = np.random.default_rng(seed)
    return np.where(random.random(labels.shape) < 0.15, (labels + random.integers(1, 4, labels.shape)) % 4, labels)


def interpreted(path, sample, truth, blank=0, **changed):
    """Writes the sample as an interpreter would, the first places left blank."""
    names = np.array(NAMES, object)[truth[sample.rows, sample.columns]]
    names[:blank] = ""
    fields = {"id": np.arange(len(sample)), "map_class": np.array(NAMES)[sample.labels], "reference_class": names}
    metadata = {sampling.STRATA_KEY: sample.strata.checksum}
    path.write_bytes(points_file(sample.coordinates, fields | changed, sample.crs, "sample", metadata))
    return InterpretationOptions(interpreted=path)


@pytest.fixture(scope="module")
def done(town, tmp_path_factory):
    """An interpreted sample: the sample, the truth, options and assessment."""
    sample, truth = draw_sample(town, SampleOptions(sample=400)), truth_of(LABELS)
    options = interpreted(tmp_path_factory.mktemp("sample") / "a.gpkg", sample, truth, blank=3)
    return sample, truth, options, assess_map(town, options)


def test_an_assessment(done):
    sample, truth, _, found = done
    used = np.arange(400) >= 3
    matrix = np.zeros((4, 4), np.int64)
    np.add.at(matrix, (sample.labels[used], truth[sample.rows, sample.columns][used]), 1)
    expected = estimate_areas(matrix, sample.strata.hectares, NAMES)
    np.testing.assert_array_equal(found.estimation.counts, matrix)
    assert found.estimation.areas == expected.areas and found.estimation.overall == expected.overall
    assert found.counts["interpreted"] == 397 and found.counts["not_interpreted"] == 3
    assert any("3 of 400 places are not used" in warning for warning in found.warnings)
    valid = LABELS != IGNORE
    areas = np.bincount(truth[valid], minlength=4) / 100
    for estimate, area in zip(found.estimation.areas, areas, strict=True):
        assert estimate.low <= area <= estimate.high
    assert found.estimation.overall.low < (truth == LABELS)[valid].mean() < found.estimation.overall.high


def test_files(done, tmp_path):
    found = done[-1]
    assert write_assessment(found, tmp_path / "a") == []
    assert {path.name for path in (tmp_path / "a").iterdir()} >= set(assessment.FILES)
    content = json.loads((tmp_path / "a" / "assessment.json").read_text())
    assert content["classes"][2]["area"]["value"] == found.estimation.areas[2].value
    header, *rows = (line.split(",") for line in (tmp_path / "a" / "areas.csv").read_text().splitlines())
    assert [row[0] for row in rows] == list(NAMES)
    assert float(rows[1][header.index("area_ha_low")]) == pytest.approx(found.estimation.areas[1].low, abs=1e-4)
    matrix = (tmp_path / "a" / "error_matrix.csv").read_text().splitlines()
    shares = np.array([line.split(",")[5:] for line in matrix[1:]], float)
    np.testing.assert_allclose(shares, found.estimation.proportions, atol=1e-8)
    text = (tmp_path / "a" / "assessment.txt").read_text()
    assert "places: 397 of 400 (3 not interpreted)" in text and "overall accuracy 8" in text
    write_assessment(found, tmp_path / "a")  # Its own files are replaced.


def test_names_by_a_table(town, done, tmp_path):
    sample, truth, _, found = done
    options = interpreted(tmp_path / "a.gpkg", sample, truth, blank=3)
    points = read_points(options.interpreted, "reference_class")
    codes = np.array([{"Wood": "311", "Water": "sea", "": ""}.get(name, name) for name in points.values], object)
    options = interpreted(tmp_path / "b.gpkg", sample, truth, reference_class=codes)
    with pytest.raises(LegendError, match="'311', 'sea'"):
        assess_map(town, options)
    (tmp_path / "table.csv").write_text("source,target\n311,Wood\nsea,Water\nWood,Forest\n")
    again = assess_map(town, dataclasses.replace(options, class_table=tmp_path / "table.csv"))
    assert again.estimation.to_json() == found.estimation.to_json()


def test_another_map(town, done, tmp_path):
    sample, truth, options, _ = done
    labels = LABELS.copy()
    labels[sample.rows, sample.columns] = IGNORE
    row, column = np.argwhere(labels != IGNORE)[0]  # A pixel that is not in the sample.
    labels = LABELS.copy()
    labels[row, column] = (labels[row, column] + 1) % 4
    other = write_class_map(tmp_path / "other.tif", labels)
    with pytest.raises(EOKerasError, match="its strata are not those of this map"):
        assess_map(other, options)
    write_class_map(tmp_path / "far.tif", (LABELS + 1) % 4)
    with pytest.raises(EOKerasError, match=r"\d+ of 400 places have another class on the map than map_class says"):
        assess_map(tmp_path / "far.tif", options)
    few = interpreted(tmp_path / "few.gpkg", sample, truth, blank=399)
    with pytest.raises(EOKerasError, match=r"Built \(\d+.\d\d% of the map\) has [01] places"):
        assess_map(town, few)


def test_strata_of_a_map_without_a_class(tmp_path):
    path = write_class_map(tmp_path / "a.tif", np.full((5, 5), IGNORE, np.uint8), GRID.window(0, 0, 5, 5))
    with open_class_map(path) as class_map, pytest.raises(SourceError, match="no class anywhere"):
        count_strata(class_map)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": 30, "target_error": 0.1}, "target_error: it is given beside `sample`"),
        ({"allocation": "equal", "min_per_class": 5}, "min_per_class: it does not apply to `allocation=equal`"),
        ({"expected_accuracy": (1.0,)}, "expected_accuracy"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options(options, message):
    with pytest.raises(OptionError, match=message):
        SampleOptions(**options)
