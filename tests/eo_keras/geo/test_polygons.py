import json
import shutil
import sys
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pyogrio
import pyogrio.raw
import pytest
import rasterio.warp
import shapely

from eo_keras.errors import OptionError, SourceError, StorageError
from eo_keras.geo import polygons as vectors
from eo_keras.geo.grid import Grid
from eo_keras.geo.rasterize import Rasterizer

SQUARES = np.array([shapely.box(x, 2000, x + 900, 3000) for x in (4_000_000, 4_001_000, 4_002_000)], object)
CODES = ("11100", "31000", "50000")
DRIVERS = {
    ".gpkg": "GPKG",
    ".shp": "ESRI Shapefile",
    ".fgb": "FlatGeobuf",
    ".geojson": "GeoJSON",
    ".gdb": "OpenFileGDB",
}


def write(path, geometries=SQUARES, crs="EPSG:3035", layer=None, append=False, **fields):
    """Writes a file of the form that its name tells, with fields by name."""
    fields = fields or {"code_2018": CODES}
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(np.array(geometries, object)),
        field_data=[
            np.array(values, object if isinstance(values[0], str | None) else None) for values in fields.values()
        ],
        fields=list(fields),
        geometry_type="Unknown" if path.suffix in (".gpkg", ".geojson") else "MultiPolygon",
        promote_to_multi=path.suffix in (".fgb", ".gdb"),
        driver=DRIVERS[path.suffix],
        layer=layer or path.stem,
        crs=crs,
        append=append,
    )
    return path


def write_parquet(path, geometries=SQUARES, encoding="WKB", codes=CODES, **column):
    column = {"encoding": encoding, "geometry_types": ["Polygon"], **column}
    table = pyarrow.table({"code_2018": list(codes), "geometry": list(shapely.to_wkb(geometries)), "area": [1.0] * 3})
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}
    pyarrow.parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    return path


def zipped(path, *sources, folder=""):
    """Puts files and folders into a zip, below a folder in it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sources:
            for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
                archive.write(file, folder + file.relative_to(source.parent).as_posix())
    return path


def same(polygons, geometries=SQUARES, codes=CODES):
    assert polygons.crs == "EPSG:3035"
    # FlatGeobuf orders its features by place.
    order = np.argsort(shapely.bounds(polygons.geometries)[:, 0])
    assert polygons.values[order].tolist() == list(codes)
    assert shapely.equals(polygons.geometries[order], geometries).all()
    return True


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".gdb", ".geojson"])
def test_odd_letters_in_paths_are_no_obstacle(tmp_path, suffix):
    for folder in ("a!b", "a?b#c", "a{b", "my.zips", "ä 中"):
        (tmp_path / folder).mkdir()
        path = write(tmp_path / f"a{suffix}")
        archive = zipped(tmp_path / folder / "b.zip", path)
        if suffix == ".shp":
            archive = zipped(archive, *tmp_path.glob("a.*"))
        for source in [*tmp_path.glob("a.*")]:
            source.rename(tmp_path / folder / source.name)
        assert same(vectors.read_polygons(tmp_path / folder / path.name, "code_2018"))
        assert same(vectors.read_polygons(archive, "code_2018"))


@pytest.mark.parametrize("suffix", DRIVERS)
def test_files_of_every_form_as_they_are_and_in_zips(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}")
    polygons = vectors.read_polygons(path, "code_2018")
    assert same(polygons) and (polygons.field, polygons.repaired, polygons.empty) == ("code_2018", 0, 0)
    assert str(path) in polygons.source
    siblings = sorted(tmp_path.glob("a.*"))
    archive = zipped(tmp_path / "b.zip", *siblings, folder="pkg/pkg/Data/")
    polygons = vectors.read_polygons(archive, "code_2018")
    assert same(polygons) and "b.zip: pkg/pkg/Data/a" in polygons.source
    assert same(vectors.read_polygons(zipped(tmp_path / "c.zip", archive, folder="x/"), "code_2018"))


def test_a_geodatabase_at_the_root_of_a_zip(tmp_path):
    files = sorted(write(tmp_path / "a.gdb").iterdir())
    assert same(vectors.read_polygons(zipped(tmp_path / "a.gdb.zip", *files), "code_2018"))


def test_geoparquet(tmp_path):
    # PROJJSON names its code.
    crs = {"type": "ProjectedCRS", "id": {"authority": "EPSG", "code": 3035}}
    path = write_parquet(tmp_path / "a.parquet", crs=crs)
    assert same(vectors.read_polygons(path, "code_2018"))
    assert same(vectors.read_polygons(zipped(tmp_path / "b.zip", path, folder="deep/er/"), "code_2018"))
    # The standard's default is longitude and latitude.
    assert vectors.read_polygons(write_parquet(tmp_path / "b.parquet"), "code_2018").crs == "EPSG:4326"
    with pytest.raises(SourceError, match=r"c.parquet, layer c: the vectors have no coordinate reference system"):
        vectors.read_polygons(write_parquet(tmp_path / "c.parquet", crs=None), "code_2018")
    with pytest.raises(SourceError, match="encoded as polygon; expected WKB"):
        vectors.read_polygons(write_parquet(tmp_path / "d.parquet", encoding="polygon"), "code_2018")
    with pytest.raises(SourceError, match="code_2018 is empty in feature 1;"):
        vectors.read_polygons(write_parquet(tmp_path / "e.parquet", codes=("11100", None, "1")), "code_2018")


def test_geoparquet_without_its_reader(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(OptionError, match=r"a.parquet: .*pyarrow is not installed. Run pip install 'eo-keras\[geop"):
        vectors.read_polygons(write_parquet(tmp_path / "a.parquet"), "code_2018")


def test_the_layer_with_the_field_is_found(tmp_path):
    path = write(tmp_path / "a.gpkg", layer="PL005L2_POZNAN_UA2012", CODE_2012=CODES)
    write(path, SQUARES[:1], layer="PL005L2_POZNAN_UA2012_Boundary", append=True, fua_code=["PL005L2"])
    points = shapely.points([1, 2, 3], [1, 2, 3])
    write_points(path, points)
    assert same(vectors.read_polygons(path, "code_?(2012|2018)"))
    boundary = vectors.read_polygons(path, None, layer="PL005L2_POZNAN_UA2012_Boundary")
    assert boundary.values.tolist() == [""] and boundary.field == ""
    assert shapely.equals(boundary.geometries, SQUARES[:1]).all()
    with pytest.raises(SourceError, match="its fields are CODE_2012, fua_code; expected one called code_2006"):
        vectors.read_polygons(path, "code_2006")
    # The whole name must match.
    with pytest.raises(SourceError, match="its fields are CODE_2012, fua_code"):
        vectors.read_polygons(path, "code")
    with pytest.raises(SourceError, match=r"several layers match: .*UA2012, .*UA2012_Boundary; expected one"):
        vectors.read_polygons(path, None)
    with pytest.raises(SourceError, match="no layer of polygons in it is called 'x'; expected one of PL005L2_POZNAN"):
        vectors.read_polygons(path, "CODE_2012", layer="x")


def write_points(path, points):
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(points),
        field_data=[np.array(CODES, object)],
        fields=["code_2012"],
        geometry_type="Point",
        driver="GPKG",
        layer="points",
        crs="EPSG:3035",
        append=path.exists(),
    )
    return path


def test_of_several_files_the_one_with_the_field(tmp_path):
    first = write(tmp_path / "a.gpkg", code_2012=CODES)
    second = write(tmp_path / "b.gpkg", code_2018=CODES[::-1])
    write(tmp_path / "sub.shp", fua=CODES)
    archive = zipped(tmp_path / "c.zip", first, second, *tmp_path.glob("sub.*"))
    assert same(vectors.read_polygons(archive, "code_2018"), codes=CODES[::-1])
    with pytest.raises(SourceError, match=r"c.zip: several layers match: .*a.gpkg, layer a, .*b.gpkg, layer b"):
        vectors.read_polygons(archive, r"code_20\d\d")
    # A folder, with what an operating system left behind in it.
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(second, folder / "deep")
    (folder / "deep" / "._b.gpkg").write_bytes(b"junk")
    (folder / "card.json").write_text("{}")
    assert same(vectors.read_polygons(folder, "code_2018"), codes=CODES[::-1])
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("__MACOSX/._b.gpkg", b"junk")
        opened.writestr("deep/._b.gpkg", b"junk")
    assert same(vectors.read_polygons(archive, "code_2018"), codes=CODES[::-1])


def test_both_years_of_a_layer_of_changes(tmp_path):
    path = write(tmp_path / "a.gpkg", code_2012=CODES, code_2018=CODES[::-1])
    with pytest.raises(SourceError, match="several fields match .*: code_2012, code_2018; expected one"):
        vectors.read_polygons(path, "code_2012|code_2018")
    assert same(vectors.read_polygons(path, "CODE_2018"), codes=CODES[::-1])


@pytest.mark.parametrize("values", [(11100, 31000, 50000), (11100.0, 31000.0, 50000.0), (" 11100", "31000 ", "50000")])
def test_codes_become_text(tmp_path, values):
    assert same(vectors.read_polygons(write(tmp_path / "a.gpkg", code_2018=values), "code_2018"))


def test_features_without_code_or_area(tmp_path):
    path = write(tmp_path / "a.gpkg", code_2018=("11100", None, "50000"))
    with pytest.raises(SourceError, match="layer a: code_2018 is empty in feature 2; expected a value for every pol"):
        vectors.read_polygons(path, "code_2018")
    path = write(tmp_path / "b.gpkg", code_2018=(np.nan, 31000.0, np.nan))
    with pytest.raises(SourceError, match="code_2018 is empty in feature 1 and 1 others"):
        vectors.read_polygons(path, "code_2018")
    path = write(tmp_path / "f.gpkg", [None, *SQUARES[:2]], code_2018=("11100", "31000", None))
    with pytest.raises(SourceError, match="code_2018 is empty in feature 3;"):
        vectors.read_polygons(path, "code_2018")
    # What has no area needs no code.
    path = write(tmp_path / "c.gpkg", [SQUARES[0], None, shapely.Polygon()], code_2018=("11100", None, "50000"))
    polygons = vectors.read_polygons(path, "code_2018")
    assert same(polygons, SQUARES[:1], CODES[:1]) and polygons.empty == 2
    with pytest.raises(SourceError, match="e.gpkg, layer e: it holds no polygon that has an area"):
        vectors.read_polygons(write(tmp_path / "e.gpkg", [None] * 3), "code_2018")
    with pytest.raises(SourceError, match="feature 2 is a LineString; expected polygons"):
        line = shapely.LineString([(0, 0), (1, 1)])
        vectors.read_polygons(write(tmp_path / "d.gpkg", [SQUARES[0], line, SQUARES[1]]), "code_2018")


def test_no_crs(tmp_path):
    with pytest.warns(UserWarning, match="crs"):
        path = write(tmp_path / "a.shp", crs=None)
    with pytest.raises(
        SourceError, match="no coordinate reference system; .*Assign it; that of Urban Atlas is EPSG:3035"
    ):
        vectors.read_polygons(path, "code_2018")
    with pytest.warns(UserWarning, match="crs"):
        path = write(tmp_path / "a.gpkg", crs=None)
    with pytest.raises(SourceError, match="no coordinate reference system"):
        vectors.read_polygons(path, "code_2018")
    assert vectors.read_polygons(write(tmp_path / "a.geojson", crs="EPSG:4326"), "code_2018").crs == "EPSG:4326"
    # A drawing's coordinates are of no place.
    drawing = 'LOCAL_CS["Drawing",LOCAL_DATUM["Drawing",0],UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]'
    with pytest.raises(SourceError, match="no coordinate reference system"):
        vectors.read_polygons(write(tmp_path / "d.gpkg", crs=drawing), "code_2018")


def test_what_cannot_be_read(tmp_path):
    def refused(name, data, match):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(SourceError, match=match) as caught:
            vectors.read_polygons(path, "code_2018")
        assert "\n" not in str(caught.value) and name in str(caught.value)

    with pytest.raises(SourceError, match="none.gpkg: there is no such file"):
        vectors.read_polygons(tmp_path / "none.gpkg", "code_2018")
    whole = write(tmp_path / "a.gpkg").read_bytes()
    refused("empty.gpkg", b"", "it is empty")
    refused("list.txt", b"x", "it holds no vectors by the names in it; expected a GeoPackage, ")
    # GDAL would follow the paths in these, whatever they are called.
    refused("vrt.gpkg", b"<OGRVRTDataSource></OGRVRTDataSource>", "its bytes are not what its name says")
    refused("vrt.geojson", b" <OGRVRTDataSource></OGRVRTDataSource>", "its bytes are not what its name says")
    refused("cut.gpkg", whole[: len(whole) // 3], "it cannot be read")
    refused("no.zip", whole, "this is no zip .*; expected a whole zip")
    refused("cut.parquet", write_parquet(tmp_path / "b.parquet").read_bytes()[:-20], "it cannot be read")
    refused(
        "a.geojson",
        b'{"type": "FeatureCollection", "features": []}',
        "its fields are none; expected one called code_2018",
    )
    with zipfile.ZipFile(tmp_path / "readme.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    refused("readme.zip", (tmp_path / "readme.zip").read_bytes(), "it holds no vectors")
    with pytest.raises(SourceError, match="points.gpkg: no layer in it has polygons"):
        vectors.read_polygons(write_points(tmp_path / "points.gpkg", shapely.points([1, 2, 3], [1, 2, 3])), "code_2012")


def test_invalid_rings_are_repaired(tmp_path):
    bow = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    # A hole that touches itself, and a spike without area.
    flat = shapely.Polygon([(0, 0), (10, 0), (0, 0)])
    spiked = shapely.Polygon([(0, 0), (100, 0), (100, 100), (150, 100), (100, 100), (0, 100)])
    path = write(tmp_path / "a.gpkg", [bow, spiked, flat, SQUARES[0]], code_2018=(*CODES, "92000"))
    polygons = vectors.read_polygons(path, "code_2018")
    assert (polygons.repaired, polygons.empty) == (3, 1)
    assert shapely.is_valid(polygons.geometries).all()
    assert set(shapely.get_type_id(polygons.geometries)) <= {3, 6}
    assert shapely.area(polygons.geometries) == pytest.approx([5000, 10_000, 900_000])
    assert polygons.values.tolist() == ["11100", "31000", "92000"]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_coordinates_that_are_no_numbers(tmp_path, bad):
    # Repairing would leave the corner out, and with it half the area.
    corner = shapely.polygons([[0, 0], [10, 0], [bad, 10], [0, 10], [0, 0]])
    with pytest.raises(SourceError, match="a coordinate of feature 2 is no number"):
        vectors.read_polygons(write_parquet(tmp_path / "a.parquet", np.array([*SQUARES[:2], corner])), "code_2018")


def test_long_edges_follow_the_other_projection():
    # 100 km along a line of EPSG:3035, which is bent in UTM.
    strip = shapely.Polygon(
        [(4_000_000, 3_000_000), (4_100_000, 3_000_000), (4_100_000, 3_000_100), (4_000_000, 3_000_100)]
    )
    polygons = vectors.Polygons(np.array([strip], object), np.array(["x"]), "EPSG:3035", "here")
    found = vectors.reprojected(polygons, "EPSG:32632")
    assert found.crs == "EPSG:32632" and found.values.tolist() == ["x"]
    x = np.linspace(4_000_000, 4_100_000, 4001)
    places = rasterio.warp.transform("EPSG:3035", "EPSG:32632", x, np.full(x.size, 3_000_000.0))
    distance = shapely.distance(shapely.points(np.transpose(places)), shapely.boundary(found.geometries[0]))
    assert distance.max() < 0.002
    # The ends alone would be metres off.
    line = shapely.LineString([(places[0][0], places[1][0]), (places[0][-1], places[1][-1])])
    assert shapely.distance(shapely.points(np.transpose(places)), line).max() > 4
    assert vectors.reprojected(polygons, "EPSG:3035") is polygons
    # Back again, and from degrees.
    back = vectors.reprojected(vectors.reprojected(found, "EPSG:4326"), "EPSG:3035")
    assert shapely.hausdorff_distance(back.geometries[0], strip) < 0.01
    degrees = vectors.Polygons(np.array([shapely.box(9, 50, 10, 50.1)], object), np.array(["x"]), "EPSG:4326", "here")
    count = shapely.get_num_coordinates(vectors.reprojected(degrees, "EPSG:32632").geometries[0])
    assert 2 * (222 + 22) <= count <= 2 * (225 + 25)


def test_reprojection_that_cannot_be(monkeypatch):
    # Nothing is divided before it is known to lie on the Earth: it could be millions of kilometres long.
    monkeypatch.setattr(shapely, "segmentize", None)
    far = vectors.Polygons(np.array([shapely.box(1e9, 1e9, 2e9, 2e9)], object), np.array(["x"]), "EPSG:3035", "a.gpkg")
    with pytest.raises(SourceError, match="a.gpkg: some of its polygons lie where EPSG:32632 does not reach"):
        vectors.reprojected(far, "EPSG:32632")
    # Metres that are said to be degrees.
    metres = vectors.Polygons(SQUARES, np.array(CODES), "EPSG:4326", "a.gpkg")
    with pytest.raises(SourceError, match="in EPSG:4326 as they say. Check the vectors' coordinate reference system"):
        vectors.reprojected(metres, "EPSG:32632")
    with pytest.raises(OptionError, match="'x': it is no coordinate reference system"):
        vectors.reprojected(far, "x")


def test_joining_keeps_the_order(tmp_path):
    parts = [
        vectors.Polygons(SQUARES[k : k + 1], np.array([CODES[k]]), "EPSG:3035", f"{k}", "c", k, 1) for k in range(3)
    ]
    whole = vectors.joined(parts)
    assert same(whole) and (whole.source, whole.repaired, whole.empty) == ("0, 1, 2", 3, 3)
    assert whole.bounds == (4_000_000, 2000, 4_002_900, 3000)
    with pytest.raises(ValueError, match="several coordinate reference systems"):
        vectors.joined([parts[0], vectors.reprojected(parts[1], "EPSG:32632")])


def test_traced_polygons_burn_to_the_same_labels():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, (9, 13), np.uint8).repeat(5, 0).repeat(4, 1)
    labels[rng.random(labels.shape) < 0.1] = 255
    grid = Grid("EPSG:32633", (10.0, 0.0, 400_000.0, 0.0, -10.0, 5_900_000.0), *labels.shape)
    geometries, values = vectors.trace(labels, grid)
    assert shapely.is_valid(geometries).all() and values.dtype == np.uint8
    assert shapely.area(geometries).sum() == 100 * np.count_nonzero(labels != 255)
    np.testing.assert_array_equal(Rasterizer(geometries, values).rasterize(grid), labels)
    # Pixels that touch at a corner are apart.
    corner = np.array([[1, 255], [255, 1]], np.uint8)
    assert len(vectors.trace(corner, grid.window(0, 0, 2, 2))[0]) == 2
    assert vectors.trace(corner, grid.window(0, 0, 2, 2), ignore=1)[1].tolist() == [255, 255]
    with pytest.raises(ValueError, match="do not fit a grid"):
        vectors.trace(corner, grid)


def test_written_layers_are_read_again(tmp_path):
    path = tmp_path / "new" / "a.gpkg"
    when = "2020-01-01T00:00:00Z"
    vectors.write_polygons(path, "land", SQUARES, {"code_2018": CODES, "area": [1.5, 2.5, 3.5]}, "EPSG:3035", when)
    first = path.read_bytes()
    vectors.write_polygons(path, "edge", SQUARES[:1], {"fua_name": np.array(["Poznań"])}, "EPSG:3035", when)
    assert pyogrio.list_layers(path).tolist() == [["land", "MultiPolygon"], ["edge", "MultiPolygon"]]
    assert same(vectors.read_polygons(path, "code_2018"))
    assert vectors.read_polygons(path, "area").values.tolist() == ["1.5", "2.5", "3.5"]
    assert vectors.read_polygons(path, "fua_name").values.tolist() == ["Poznań"]
    # The same content at the same time is the same file, and nothing else is left behind.
    again = tmp_path / "new" / "b.gpkg"
    vectors.write_polygons(again, "land", SQUARES, {"code_2018": CODES, "area": [1.5, 2.5, 3.5]}, "EPSG:3035", when)
    assert again.read_bytes() == first
    assert sorted(item.name for item in path.parent.iterdir()) == ["a.gpkg", "b.gpkg"]
    with pytest.raises(StorageError):
        vectors.write_polygons(path / "c.gpkg", "land", SQUARES, {"code": CODES}, "EPSG:3035")


@pytest.mark.real_data
def test_real_vectors(real_data):
    folder = real_data / "samples" / "urban_atlas"
    narva = sorted((folder / "ua").glob("g*/EE*UA20*")) + sorted((folder / "ua").glob("g*/EE*hange*"))
    assert len(narva) == 8
    for path in narva:
        field = "STL" if "stl" in path.name else "code_20(12|18)" if "hange" not in path.name else "code_2018"
        polygons = vectors.read_polygons(path, field)
        areas = vectors.read_polygons(path, "area").values.astype(float)
        assert polygons.crs == "EPSG:3035" and len(polygons) == (1 if "hange" in path.name else 2)
        assert shapely.area(polygons.geometries) == pytest.approx(areas, rel=1e-4), path
    malta = vectors.read_polygons(folder / "corine_malta" / "CLC2024_MT.zip", "code_18", layer="clc18_mt")
    assert len(malta) > 100 and set(map(len, malta.values)) == {3}
