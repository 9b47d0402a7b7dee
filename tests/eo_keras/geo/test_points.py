"""Points: read from vector files and tables in any coordinate reference system, and written as GeoPackages."""

import json

import numpy as np
import pytest
import shapely
from pyogrio import raw
from rasterio.warp import transform

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo.points import points_file, read_points

PLACES = np.array([[600_005.0, 5_400_015.0], [600_045.0, 5_399_985.0], [601_000.0, 5_390_000.0]])
CRS = "EPSG:32632"


def geopackage(path, geometries, values, layer="points", **options):
    raw.write(
        path,
        geometry=shapely.to_wkb(geometries),
        field_data=[np.array(values, object)],
        fields=["Class"],
        layer=layer,
        driver="GPKG",
        crs=CRS,
        **({"geometry_type": "Unknown"} | options),
    )
    return path


def test_a_written_file_is_read_again(tmp_path):
    fields = {"id": np.arange(3), "class": np.array(["a", "", "c"])}
    data = points_file(PLACES, fields, CRS, "sample", {"SEED": "7"})
    assert data == points_file(PLACES, fields, CRS, "sample", {"SEED": "7"})
    (tmp_path / "a.gpkg").write_bytes(data)
    found = read_points(tmp_path / "a.gpkg", "CLASS", others=("id", "weight"))
    np.testing.assert_array_equal(found.coordinates, PLACES)
    assert found.values.tolist() == ["a", "", "c"] and found.crs == CRS
    assert {name: values.tolist() for name, values in found.others.items()} == {"id": ["0", "1", "2"]}
    assert found.metadata["SEED"] == "7"


def test_any_crs(tmp_path):
    degrees = np.stack(transform(CRS, "EPSG:4326", *PLACES[:2].T), axis=1).tolist()
    features = [
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": place}, "properties": {"code": 311.0}}
        for place in degrees
    ]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = read_points(tmp_path / "a.geojson", "code")
    assert found.values.tolist() == ["311", "311"] and found.crs == "EPSG:4326"
    np.testing.assert_allclose(found.in_crs(CRS), PLACES[:2], rtol=0, atol=0.01)
    (tmp_path / "b.csv").write_text("id;Lon;Lat;code\n1;{};{};311\n\n2;{};{};311\n".format(*degrees[0], *degrees[1]))
    table = read_points(tmp_path / "b.csv", "code")
    np.testing.assert_allclose(table.coordinates, found.coordinates, rtol=1e-12)
    (tmp_path / "c.csv").write_text("x,y,code\n600005,5400015,311\n")
    np.testing.assert_array_equal(read_points(tmp_path / "c.csv", "code", crs=CRS).coordinates, PLACES[:1])


def test_layers_of_points_are_found_beside_others(tmp_path):
    path = geopackage(tmp_path / "a.gpkg", shapely.box(0, 0, 1, [1, 2]), ["x", "y"], "areas", geometry_type="Polygon")
    geopackage(path, shapely.multipoints(PLACES[:, None]), ["a", "b", None], append=True)
    assert read_points(path, "class").values.tolist() == ["a", "b", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lon,lat,code\n1,2,a\n1,2\n", "row 3 has 2 cells"),
        ("lon,lat,code\n1,north,a\n", "row 2: could not convert"),
        ("lon,lat,code\n1,nan,a\n", "row 2 has a coordinate that is no number"),
        ("a,b,code\n1,2,a\n", "expected longitude and latitude, or x and y"),
        ("lon,lat,kind\n1,2,a\n", "one called code"),
        ("", "cannot be read"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_points(tmp_path / "a.csv", "code")


def test_refusals(tmp_path):
    with pytest.raises(SourceError, match="feature 2 is a LineString"):
        read_points(
            geopackage(tmp_path / "a.gpkg", [shapely.Point(1, 2), shapely.LineString(PLACES)], ["a", "b"]), "class"
        )
    with pytest.raises(SourceError, match="feature 1 has no place"):
        read_points(geopackage(tmp_path / "b.gpkg", [None, shapely.Point(1, 2)], ["a", "b"]), "class")
    with pytest.raises(SourceError, match="its fields are Class; expected one called kind"):
        read_points(tmp_path / "a.gpkg", "kind")
    areas = geopackage(tmp_path / "c.gpkg", [shapely.box(0, 0, 1, 1)], ["a"], geometry_type="Polygon")
    with pytest.raises(SourceError, match="no layer in it has points"):
        read_points(areas, "class")
    (tmp_path / "a.csv").write_text("x,y,code\n1,2,a\n")
    with pytest.raises(OptionError, match="points_crs"):
        read_points(tmp_path / "a.csv", "code")
    with pytest.raises(OptionError, match="points_crs.*'nowhere'"):
        read_points(tmp_path / "a.csv", "code", crs="nowhere")
    with pytest.raises(OptionError, match="points_crs"):
        read_points(tmp_path / "a.gpkg", "class", crs=CRS)
