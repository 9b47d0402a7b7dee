import sqlite3
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import rasterio.features
import shapely

from eo_keras.errors import StorageError
from eo_keras.geo.class_map import open_class_map
from eo_keras.geo.grid import Grid
from eo_keras.legends.catalogue import HSL4
from eo_keras.mapping import polygonize
from eo_keras.mapping.cog import write_cog
from tests.eo_keras.mapping.test_cog import strip

UTM = Grid("EPSG:32733", (10.0, 0.0, 399_960.0, 0.0, -10.0, 5_500_020.0), 90, 120)
TURNED = Grid("EPSG:32733", (8.0, 6.0, 399_960.0, 6.0, -8.0, 5_500_020.0), 90, 120)
DEGREES = Grid("EPSG:4326", (1e-4, 0.0, 11.1, 0.0, -1e-4, 48.9), 90, 120)


def town():
    """Squares of four classes with noise; a corner and single pixels have no class."""
    rng = np.random.default_rng(2)
    labels = np.kron(rng.integers(0, 4, (9, 12)), np.ones((10, 10))).astype(np.uint8)
    noise = rng.random(labels.shape) < 0.12
    labels[noise] = rng.integers(0, 4, noise.sum())
    labels[np.add.outer(np.arange(90), np.arange(120)) < 40] = 255
    labels[3, 3] = 1  # Isolated.
    labels[rng.random(labels.shape) < 0.01] = 255
    return labels


def write_map(folder, grid=UTM, labels=None):
    labels = town() if labels is None else labels
    confidence = np.where(labels == 255, 0, 100 + 30 * (labels % 4) + np.arange(labels.shape[1]) % 7).astype(np.uint8)
    piece = strip(folder / "piece.tif", grid, 0, 0, labels, confidence)
    write_cog([piece], folder / "town.tif", grid, HSL4, ["class", "confidence"], {})
    return folder / "town.tif", labels, confidence


def polygons_of(path, folder, **options):
    with open_class_map(path) as class_map:
        written = polygonize.write_polygons(class_map, folder / "town.gpkg", **options)
    info = pyogrio.read_info(folder / "town.gpkg", layer="classes")
    _, _, wkb, columns = pyogrio.raw.read(folder / "town.gpkg", layer="classes")
    fields = dict(zip(info["fields"], columns, strict=True))
    assert written.polygons == len(wkb)
    assert list(fields) == ["class", "class_id", "area_ha", "confidence"]
    assert info["crs"] == "EPSG:" + info["crs"].split(":")[1] and info["geometry_type"] == "MultiPolygon"
    polygons = shapely.from_wkb(wkb)
    assert shapely.is_valid(polygons).all()
    return polygons, fields, written


def burnt(polygons, fields, grid):
    return rasterio.features.rasterize(
        zip(polygons, fields["class_id"], strict=True),
        (grid.height, grid.width),
        fill=255,
        transform=rasterio.Affine(*grid.transform),
        dtype=np.uint8,
    )


@pytest.fixture(params=[100_000_000, 120 * 16], ids=["one band", "six bands"])
def bands(request, monkeypatch):
    """The map in one piece, and in bands of 16 rows with windows of 16 pixels."""
    monkeypatch.setattr(polygonize, "_BAND", request.param)
    if request.param < 10_000:
        monkeypatch.setattr(polygonize, "_CORE", 16)
        monkeypatch.setattr(polygonize, "_FIRST_PIXELS", 3)


@pytest.mark.parametrize("grid", [UTM, TURNED, DEGREES], ids=["UTM", "turned", "degrees"])
def test_polygons_are_the_regions_of_the_map(tmp_path, bands, grid):
    path, labels, confidence = write_map(tmp_path, grid)
    polygons, fields, written = polygons_of(path, tmp_path)
    np.testing.assert_array_equal(burnt(polygons, fields, grid), labels)
    expected = list(rasterio.features.shapes(labels, mask=labels != 255, connectivity=4))
    assert written == polygonize.Written(len(expected), 0)
    assert (fields["class"] == np.array(HSL4.class_names, object)[fields["class_id"]]).all()
    if grid is not DEGREES:
        np.testing.assert_allclose(fields["area_ha"], shapely.area(polygons) / 10_000, atol=1e-4)
    for polygon, value in list(zip(polygons, fields["confidence"], strict=True))[::40]:
        inside = burnt([polygon], {"class_id": [1]}, grid) == 1
        assert value == pytest.approx(confidence[inside].mean() / 255, abs=1e-4)


@pytest.mark.parametrize("tolerance", [0, 20])
def test_minimum_mapping_unit_and_shared_borders(tmp_path, bands, tolerance):
    path, labels, _ = write_map(tmp_path)
    polygons, fields, written = polygons_of(path, tmp_path, min_area_ha=0.12, simplify_m=tolerance)
    assert 0 < written.merged_pixels < labels.size / 5
    small = np.flatnonzero(fields["area_ha"] < 0.12)
    merged = shapely.union_all(polygons[fields["area_ha"] >= 0.12])
    assert small.size >= 1 and (shapely.length(shapely.intersection(polygons[small], merged)) == 0).all()
    # No gaps and no overlaps: all together they cover what has a class, and no more.
    whole = 100.0 * np.count_nonzero(labels != 255)
    assert shapely.area(polygons).sum() == pytest.approx(whole, abs=1e-3)
    assert shapely.area(shapely.union_all(polygons)) == pytest.approx(whole, abs=1e-3)
    assert shapely.coverage_is_valid(polygons) or not tolerance
    if tolerance:
        exact = polygons_of(path, tmp_path, min_area_ha=0.12)[0]
        assert shapely.get_num_coordinates(polygons).sum() < 0.8 * shapely.get_num_coordinates(exact).sum()


def test_bands_do_not_show(tmp_path, monkeypatch):
    path, _, _ = write_map(tmp_path)
    whole, whole_fields, _ = polygons_of(path, tmp_path)
    monkeypatch.setattr(polygonize, "_BAND", 1)
    parts, part_fields, _ = polygons_of(path, tmp_path)
    order, part_order = (np.lexsort(shapely.bounds(some).T) for some in (whole, parts))
    assert shapely.equals(whole[order], parts[part_order]).all()
    for name, values in whole_fields.items():
        assert (values[order] == part_fields[name][part_order]).all()


def test_regions_that_touch_themselves_at_a_corner(tmp_path):
    labels = np.ones((6, 7), np.uint8)
    labels[1, 1] = labels[2, 2] = labels[0, 5] = labels[1, 4] = 2
    grid = Grid(*UTM.__dict__.values()).window(0, 0, 6, 7)
    path, _, _ = write_map(tmp_path, grid, labels)
    polygons, fields, _ = polygons_of(path, tmp_path, simplify_m=1)
    np.testing.assert_array_equal(burnt(polygons, fields, grid), labels)


def test_style_for_qgis_and_equal_bytes(tmp_path):
    path, _, _ = write_map(tmp_path)
    contents = []
    for _ in range(2):
        polygons_of(path, tmp_path)
        contents.append((tmp_path / "town.gpkg").read_bytes())
    assert contents[0] == contents[1]
    with sqlite3.connect(tmp_path / "town.gpkg") as database:
        ((qml, table, column),) = database.execute(
            "SELECT styleQML, f_table_name, f_geometry_column FROM layer_styles WHERE useAsDefault"
        )
    assert (table, column) == ("classes", "geom")
    renderer = ElementTree.fromstring(qml).find("renderer-v2")
    assert renderer.attrib["attr"] == "class"
    assert tuple(one.attrib["value"] for one in renderer.iter("category")) == HSL4.class_names
    colors = {
        symbol.attrib["name"]: symbol.find("layer/Option/Option[@name='color']").attrib["value"]
        for symbol in renderer.iter("symbol")
    }
    assert colors["1"] == "255,0,0,255"


def test_map_without_any_class(tmp_path):
    path, _, _ = write_map(tmp_path, labels=np.full((90, 120), 255, np.uint8))
    polygons, _, written = polygons_of(path, tmp_path, min_area_ha=1, simplify_m=20)
    assert len(polygons) == 0 and written == polygonize.Written(0, 0)


def test_folder_that_is_not_there(tmp_path):
    path, _, _ = write_map(tmp_path)
    with open_class_map(path) as class_map, pytest.raises((StorageError, FileNotFoundError)):
        polygonize.write_polygons(class_map, tmp_path / "no" / "town.gpkg")
