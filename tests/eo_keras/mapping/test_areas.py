import csv

import numpy as np
import pytest
import shapely

from eo_keras.errors import SourceError
from eo_keras.geo.class_map import open_class_map
from eo_keras.geo.grid import Grid
from eo_keras.geo.polygons import write_polygons
from eo_keras.legends.catalogue import HSL4
from eo_keras.mapping.areas import class_areas, read_zones
from eo_keras.mapping.cog import write_cog
from tests.eo_keras.mapping.test_cog import strip

GRID = Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_500_000.0), 1100, 40)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A map of four classes in vertical stripes of ten pixels, without a class in the last hundred rows."""
    folder = tmp_path_factory.mktemp("areas")
    labels = np.broadcast_to(np.repeat(np.arange(4, dtype=np.uint8), 10), (1000, 40))
    write_cog([strip(folder / "piece.tif", GRID, 0, 0, labels)], folder / "town.tif", GRID, HSL4, ["class"], {})
    return folder / "town.tif"


def rows_of(data):
    return list(csv.DictReader(data.decode().splitlines()))


def box(left, top, right, bottom):
    """A rectangle by the columns and rows of its edges."""
    (west, north), (east, south) = GRID.coordinates(left, top), GRID.coordinates(right, bottom)
    return shapely.box(west, south, east, north)


def zones_file(path, geometries, names, crs="EPSG:32633"):
    write_polygons(path, "districts", np.array(geometries, object), {"Name": names}, crs)
    return path


def test_areas_of_a_map(town):
    progress = []
    with open_class_map(town) as class_map:
        areas = class_areas(class_map, progress=lambda *said: progress.append(said))
    assert progress[-1] == ("adding up areas", 1100, 1100) and len(progress) == 3
    rows = rows_of(areas.csv_bytes())
    assert [row["class"] for row in rows] == [*HSL4.class_names, "no data"]
    assert [row["area_ha"] for row in rows] == ["100.0000"] * 4 + ["40.0000"]
    assert [row["share"] for row in rows] == ["0.250000"] * 4 + [""]
    assert [row["pixels"] for row in rows] == ["10000"] * 4 + ["4000"]
    assert rows[-1]["class_id"] == "255"


def test_areas_in_degrees_are_those_on_the_ground(tmp_path):
    grid = Grid("EPSG:4326", (1.0, 0.0, 10.0, 0.0, -30.0, 60.0), 2, 3)
    labels = np.array([[0, 0, 1], [2, 2, 255]], np.uint8)
    write_cog([strip(tmp_path / "piece.tif", grid, 0, 0, labels)], tmp_path / "m.tif", grid, HSL4, ["class"], {})
    with open_class_map(tmp_path / "m.tif") as class_map:
        areas = class_areas(class_map)
    # Between 30 and 60 degrees, and the equator and 30 degrees; of WGS84 within half a per cent of a sphere's.
    sphere = 6_371_007.2**2 * np.radians(1) / 10_000
    np.testing.assert_allclose(
        areas.hectares[:3] / sphere,
        np.array([2, 1, 2]) * [0.866025 - 0.5, 0.866025 - 0.5, 0.5],
        rtol=5e-3,
    )


def test_zones_by_the_centers_of_pixels(town, tmp_path):
    shapes = [
        box(0, 0, 10, 10),
        # Overlaps the first, and holds the centers of one column of the second stripe, and of one row beyond.
        box(5, 0, 10.6, 10.6),
        box(-50, 980, 10, 1050),
        box(36, 1000, 40, 1010),
        box(20, 0, 30, 10),
        box(30, 0, 31, 10),
    ]
    path = zones_file(tmp_path / "zones.gpkg", shapes, ["A", "B, east", "C", "D", "E", "E"])
    with open_class_map(town) as class_map:
        areas = class_areas(class_map, read_zones(path, "name", class_map.grid))
    found = {(row["zone"], row["class"]): row for row in rows_of(areas.zones_csv_bytes())}
    assert len(found) == 5 * 5
    assert found["A", "Other"]["area_ha"] == "1.0000" and found["A", "Other"]["share"] == "1.000000"
    assert found["B, east", "Other"]["pixels"] == "55" and found["B, east", "Residential"]["pixels"] == "11"
    assert found["B, east", "Residential"]["share"] == "0.166667"
    assert found["C", "Other"]["pixels"] == "200" and found["C", "no data"]["pixels"] == "500"
    assert found["D", "no data"]["pixels"] == "40" and found["D", "Forest"]["share"] == "0.000000"
    assert found["E", "Industrial"]["pixels"] == "100" and found["E", "Forest"]["pixels"] == "10"
    assert areas.notes == (
        "zone C: reaching beyond the map; what lies outside is not counted",
        "zone D: without a pixel that has a class",
    )


def test_zones_of_another_crs_without_names(town, tmp_path):
    from rasterio.warp import transform_geom

    degrees = [shapely.geometry.shape(transform_geom(GRID.crs, "EPSG:4326", box(0, 0, 20, 300)))]
    path = zones_file(tmp_path / "zones.gpkg", degrees, ["x"], "EPSG:4326")
    with open_class_map(town) as class_map:
        areas = class_areas(class_map, read_zones(path, None, class_map.grid))
    assert areas.zones == ("1",)
    np.testing.assert_array_equal(areas.zone_pixels[0, :4], [3000, 3000, 0, 0])


def test_zones_elsewhere(town, tmp_path):
    path = zones_file(tmp_path / "zones.gpkg", [box(5000, 0, 5100, 10)], ["far"])
    with open_class_map(town) as class_map:
        zones = read_zones(path, "Name", class_map.grid)
        with pytest.raises(SourceError, match="none of its polygons holds a pixel"):
            class_areas(class_map, zones)
        with pytest.raises(SourceError, match="its fields are Name; expected one called"):
            read_zones(path, "N.me", class_map.grid)
