import zipfile

import numpy as np
import pytest
import shapely

from eo_keras.errors import LegendError, OptionError, SourceError
from eo_keras.geo import polygons as vectors
from eo_keras.geo.grid import Grid
from eo_keras.legends import crosswalk
from tfrecords_builder.sources.urban_atlas import land_use as urban_atlas

HSL4, FULL = crosswalk.code_map("hsl4"), crosswalk.code_map("full")
GRID = Grid("EPSG:32633", (10.0, 0.0, 399_960.0, 0.0, -10.0, 5_900_040.0), 60, 80)


def area(west, north, width, height):
    """A rectangle in pixels of the grid."""
    x, y = GRID.coordinates(west, north)
    return shapely.box(x, y - 10 * height, x + 10 * width, y)


# West forest, east houses, a narrow road between them and another across, a square, and no data.
TOWN = (
    ("31000", area(5, 5, 30, 50)),
    ("12220", area(35, 5, 2, 50)),
    ("11220", area(37, 5, 38, 50)),
    ("12220", area(37, 20, 20, 1)),
    ("12220", area(45, 30, 24, 24)),
    ("92000", area(60, 5, 6, 6)),
)


def polygons(parts=TOWN, crs="EPSG:32633"):
    geometries = np.array([geometry for _, geometry in parts], object)
    return vectors.Polygons(geometries, np.array([code for code, _ in parts]), crs, "town.gpkg")


def write(path, field="code_2018", parts=TOWN, **more):
    brought = vectors.reprojected(polygons(parts), "EPSG:3035")
    codes = {field: brought.values} | {name: values for name, values in more.items()}
    vectors.write_polygons(path, "LAND", brought.geometries, codes, "EPSG:3035")
    return path


def test_narrow_roads_take_the_class_beside_them():
    labels = urban_atlas.LandUse(polygons(), HSL4).labels(GRID)
    assert labels.dtype == np.uint8 and labels.shape == (60, 80)
    forest, residential = HSL4.label("31000"), HSL4.label("11220")
    assert (labels[5:55, 5:36] == forest).all()
    # The second column of the road lies by the houses.
    assert (labels[12:20, 36:60] == residential).all() and (labels[20, 38:57] == residential).all()
    # What is wider than twice the reach keeps no class in its middle.
    reach = urban_atlas.ROAD_REACH
    square = labels[30:54, 45:69]
    inside = np.zeros((24, 24), bool)
    inside[reach:-reach, reach:-reach] = True
    assert (square[inside] == 255).all() and (square[~inside] == residential).all()
    # No data, and outside of all polygons.
    assert (labels[5:11, 60:66] == 255).all() and (labels[:5] == 255).all() and (labels[:, 75:] == 255).all()


def test_narrow_roads_ignored_or_kept():
    road = np.zeros((60, 80), bool)
    road[5:55, 35:37] = road[20, 37:57] = road[30:54, 45:69] = True
    ignored = urban_atlas.LandUse(polygons(), HSL4, "ignore").labels(GRID)
    assert (ignored[road] == 255).all() and (ignored[5:20, 37:60] == HSL4.label("11220")).all()
    kept = urban_atlas.LandUse(polygons(), HSL4, "keep").labels(GRID)
    assert (kept[road] == HSL4.label("12220")).all() and (kept[~road] == ignored[~road]).all()
    # A wide road has a code of its own, which stays.
    parts = [("12210" if code == "12220" else code, geometry) for code, geometry in TOWN]
    wide = urban_atlas.LandUse(polygons(parts), FULL).labels(GRID)
    assert (wide[road] == FULL.label("12210")).all()
    with pytest.raises(OptionError, match="roads: 'x'; expected one of merge, ignore, keep"):
        urban_atlas.LandUse(polygons(), HSL4, "x")


@pytest.mark.parametrize("roads", crosswalk.ROADS)
def test_windows_are_parts_of_the_whole(roads):
    rng = np.random.default_rng(5)
    streets = [("12220", area(*rng.integers(0, 60, 2), *rng.integers(1, 30, 2))) for _ in range(25)]
    fields = [("21000", area(*rng.integers(0, 60, 2), *rng.integers(2, 9, 2))) for _ in range(25)]
    land = urban_atlas.LandUse(polygons((*TOWN, *streets, *fields)), HSL4, roads)
    whole = land.labels(GRID)
    assert len(np.unique(whole)) > 3
    for _ in range(40):
        row, column = rng.integers(0, 40, 2)
        height, width = rng.integers(1, 20, 2)
        found = land.labels(GRID.window(row, column, height, width))
        np.testing.assert_array_equal(found, whole[row : row + height, column : column + width])
        assert found.flags.c_contiguous


def test_merging_looks_beyond_the_window():
    # The road fills the window; what it takes lies outside.
    land = urban_atlas.LandUse(polygons(), HSL4)
    assert (land.labels(GRID.window(10, 35, 10, 1)) == HSL4.label("31000")).all()


@pytest.mark.parametrize(
    ("field", "year"),
    [("code_2012", 2012), ("CODE2006", 2006), ("CODE_2018", 2018), ("code_2021", 2021), ("code_2024", 2024)],
)
def test_the_fields_name_tells_the_year(tmp_path, field, year):
    path = write(tmp_path / "a.gpkg", field, class_2018=[""] * len(TOWN), fua_code=["DE003L2"] * len(TOWN))
    land = urban_atlas.read_land_use([path], HSL4, "EPSG:32633")
    assert (land.year, land.crs, land.count, land.repaired) == (year, "EPSG:32633", 6, 0)
    assert str(path) in land.source
    west, south, east, north = land.bounds
    assert (west, north) == pytest.approx((400_010, 5_899_990), abs=0.01)
    # There and back through EPSG:3035.
    np.testing.assert_array_equal(land.labels(GRID), urban_atlas.LandUse(polygons(), HSL4).labels(GRID))


def test_the_first_edition_names_no_year(tmp_path):
    more = {"ITEM": ["Forests"] * len(TOWN), "PROD_DATE": ["2010"] * len(TOWN)}
    path = write(tmp_path / "a.gpkg", "CODE", **more)
    land = urban_atlas.read_land_use([path], HSL4, "EPSG:32633")
    assert (land.year, land.count) == (2006, 6)
    np.testing.assert_array_equal(land.labels(GRID), urban_atlas.LandUse(polygons(), HSL4).labels(GRID))
    # A field of that name alone is anything.
    with pytest.raises(SourceError, match="no field of it holds a land use; its fields are CODE"):
        urban_atlas.read_land_use([write(tmp_path / "b.gpkg", "CODE")], HSL4, "EPSG:32633")


def test_street_trees_are_no_land_use(tmp_path):
    trees = {"country": ["DE"] * len(TOWN), "fua_code": ["DE003L2"] * len(TOWN)}
    folder = tmp_path / "city"
    folder.mkdir()
    write(folder / "city_UA2018_stl.gpkg", "stl", **trees)
    with pytest.raises(SourceError, match="no field of it holds a land use; its fields are stl, country, fua_code"):
        urban_atlas.read_land_use([folder], HSL4, "EPSG:32633")
    write(folder / "city_UA2018.gpkg", "code_2018")
    land = urban_atlas.read_land_use([folder], HSL4, "EPSG:32633")
    assert land.year == 2018 and "stl" not in land.source


def test_several_files_of_one_city(tmp_path):
    paths = [write(tmp_path / f"{k}.gpkg", parts=TOWN[3 * k : 3 * k + 3]) for k in range(2)]
    land = urban_atlas.read_land_use(paths, HSL4, "EPSG:32633", roads="keep")
    np.testing.assert_array_equal(land.labels(GRID), urban_atlas.LandUse(polygons(), HSL4, "keep").labels(GRID))
    # The later file lies on top.
    other = urban_atlas.read_land_use(paths[::-1], HSL4, "EPSG:32633", roads="keep").labels(GRID)
    assert (other[5:11, 60:66] == HSL4.label("11220")).all()
    older = write(tmp_path / "older.gpkg", "code_2012")
    with pytest.raises(
        SourceError, match="0.gpkg of 2018, .*older.gpkg of 2012: land use of several years; expected one"
    ):
        urban_atlas.read_land_use([paths[0], older], HSL4, "EPSG:32633")


def test_a_layer_of_changes_needs_the_year(tmp_path):
    before = np.array(["21000"] * len(TOWN))
    path = write(tmp_path / "a.gpkg", code_2012=before)
    with pytest.raises(
        SourceError, match="a.gpkg: it holds land use of 2012 and 2018; expected one year.*`label_year=20"
    ):
        urban_atlas.read_land_use([path], HSL4, "EPSG:32633")
    for year, count in ((2012, 0), (2018, 30 * 50)):
        land = urban_atlas.read_land_use([path], HSL4, "EPSG:32633", "keep", year)
        assert land.year == year and np.count_nonzero(land.labels(GRID) == HSL4.label("31000")) == count
    with pytest.raises(SourceError, match="it holds land use of 2012 and 2018; expected of 2006"):
        urban_atlas.read_land_use([path], HSL4, "EPSG:32633", year=2006)


def test_what_is_no_land_use(tmp_path):
    path = write(tmp_path / "a.gpkg", "class_2018")
    with pytest.raises(
        SourceError, match="no field of it holds a land use; its fields are class_2018; expected one such"
    ):
        urban_atlas.read_land_use([path], HSL4, "EPSG:32633")
    path = write(tmp_path / "b.gpkg", parts=(*TOWN, ("10000", area(0, 0, 1, 1))))
    with pytest.raises(SourceError, match="b.gpkg, layer LAND: the code '10000' of 1 polygon is unknown"):
        urban_atlas.read_land_use([path], HSL4, "EPSG:32633")
    with pytest.raises(ValueError, match="a grid in EPSG:32632, and land use in EPSG:32633"):
        urban_atlas.LandUse(polygons(), HSL4).labels(Grid("EPSG:32632", GRID.transform, 5, 5))
    with pytest.raises(LegendError):
        FULL.label("10000")


def ground_areas(path, year, crs):
    """Area of each class on the grid of Sentinel-2's tiles and by the polygons' own field, in hectares, by code."""
    codes, areas = (vectors.read_polygons(path, field) for field in (f"code_{year}", "area"))
    land = urban_atlas.read_land_use([path], FULL, crs, roads="keep", year=year)
    west, south, east, north = land.bounds
    # The tiles' pixels begin at multiples of 10 m.
    left, top = np.floor(west / 10) * 10, np.ceil(north / 10) * 10
    grid = Grid(crs, (10.0, 0.0, left, 0.0, -10.0, top), int((top - south) / 10) + 1, int((east - left) / 10) + 1)
    counts = np.bincount(land.labels(grid).ravel(), minlength=256)
    # UTM stretches lengths, EPSG:3035 keeps areas: what a pixel measures on the ground.
    whole = vectors.Polygons(np.array([shapely.box(*land.bounds)], object), np.array([""]), crs, "grid")
    pixel = (
        shapely.area(vectors.reprojected(whole, "EPSG:3035").geometries[0]) / ((east - west) * (north - south)) / 100
    )
    assert 0.010005 < pixel < 0.01001  # Hectares.
    expected = areas.values.astype(float) / 1e4
    return {
        code: (counts[FULL.label(code)] * pixel, expected[codes.values == code].sum())
        for code in np.unique(codes.values)
    }


@pytest.mark.real_data
@pytest.mark.parametrize("year", [2012, 2018])
def test_areas_of_real_land_use(real_data, year):
    folder = real_data / "samples" / "urban_atlas" / "ua"
    path = folder / "gpkg" / "UK568L1_CHESHIRE_WEST_AND_CHESTER_change_2012_2018.zip"
    found = ground_areas(path, year, "EPSG:32630")
    assert len(found) == 19
    for code, (burnt, stored) in found.items():
        assert burnt == pytest.approx(stored, rel=0.01 if stored > 30 else 0.02), code
    # Centres of pixels favour neither side of a border: over all polygons the error averages out.
    burnt, stored = map(sum, zip(*found.values(), strict=True))
    assert burnt == pytest.approx(stored, rel=0.001)
    # Narva, in every form that it comes in.
    paths = [item for item in sorted(folder.glob("g*/EE*")) if str(year) in item.name and "stl" not in item.name]
    assert len(paths) == (5 if year == 2012 else 4)
    for path in paths:
        assert zipfile.is_zipfile(path) or path.suffix == ".gpkg"
        for code, (burnt, stored) in ground_areas(path, year, "EPSG:32635").items():
            assert burnt == pytest.approx(stored, rel=0.01), (path, code)
