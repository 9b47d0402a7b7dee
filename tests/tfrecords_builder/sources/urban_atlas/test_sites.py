"""The list of cities: paths from its own folder, and mistakes told by line."""

import pytest

from eo_keras.errors import SourceError
from eo_keras.geo.scene_numbers import UserScaling
from tfrecords_builder.sources.urban_atlas.options import UrbanAtlasOptions
from tfrecords_builder.sources.urban_atlas.sites import Site, read_cities

HEADER = "name,scenes,vectors,split,area"


def write(tmp_path, *lines, header=HEADER):
    for name in ("a.tif", "b.tif", "land.gpkg", "area.geojson"):
        (tmp_path / name).touch()
    path = tmp_path / "cities.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_cities_are_sorted_and_their_paths_start_from_the_list(tmp_path):
    path = write(
        tmp_path, "Poznań,a.tif; b.tif,land.gpkg,test,16.8 52.3 17.1 52.5", "Berlin,b.tif,land.gpkg,,area.geojson"
    )
    here = str(tmp_path)
    assert read_cities(path) == (
        Site("Berlin", (f"{here}/b.tif",), (f"{here}/land.gpkg",), None, f"{here}/area.geojson"),
        Site("Poznań", (f"{here}/a.tif", f"{here}/b.tif"), (f"{here}/land.gpkg",), "test", (16.8, 52.3, 17.1, 52.5)),
    )


def test_split_and_area_may_be_missing_and_paths_absolute(tmp_path):
    path = write(tmp_path, f"Berlin,{tmp_path}/a.tif,land.gpkg", header="name,scenes,vectors")
    assert read_cities(path) == (Site("Berlin", (f"{tmp_path}/a.tif",), (f"{tmp_path}/land.gpkg",)),)


def test_home_folders_in_every_column(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "~").mkdir()
    for name in ("a.tif", "land.gpkg", "area.geojson"):
        (tmp_path / "home" / name).touch()
    (tmp_path / "~" / "a.tif").touch()
    path, home = write(tmp_path, "Berlin,~/a.tif; ./~/a.tif;b.tif,~/land.gpkg,,~/area.geojson"), f"{tmp_path}/home"
    scenes = (f"{home}/a.tif", f"{tmp_path}/./~/a.tif", f"{tmp_path}/b.tif")
    assert read_cities(path) == (Site("Berlin", scenes, (f"{home}/land.gpkg",), None, f"{home}/area.geojson"),)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "it names no city"),
        (("Berlin,a.tif,land.gpkg,,", "Berlin,b.tif,land.gpkg,,"), "line 3: 'Berlin' is named twice"),
        (("Berlin,a.tif,land.gpkg",), "line 2: it has more or fewer values"),
        (("Berlin,a.tif,land.gpkg,,,",), "line 2: it has more or fewer values"),
        (("Berlin,,land.gpkg,,",), "scenes is empty"),
        (("Berlin,a.tif,absent.gpkg,,",), "there is no"),
        (("Berlin,~nobody-here/a.tif,land.gpkg,,",), "line 2: scenes: ~nobody-here/a.tif: there is no user"),
        (("Berlin,a.tif;a.tif,land.gpkg,,",), "scenes names a path twice"),
        (("Berlin,a.tif,land.gpkg,testing,",), "split is 'testing'"),
        (("Berlin,a.tif,land.gpkg,,17 52 16 53",), "area is '17 52 16 53'"),
        (("Ber/lin,a.tif,land.gpkg,,",), "the name is 'Ber/lin'"),
    ],
)
def test_mistakes_are_told_by_line(tmp_path, lines, said):
    with pytest.raises(SourceError) as error:
        read_cities(write(tmp_path, *lines))
    assert said in str(error.value)


def test_other_files_are_no_lists(tmp_path):
    with pytest.raises(SourceError, match="its columns are name,paths"):
        read_cities(write(tmp_path, "Berlin,a.tif", header="name,paths"))
    with pytest.raises(SourceError, match="it cannot be read"):
        read_cities(tmp_path / "absent.csv")
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + b"\nK\xf6ln,a,b,,\n")
    with pytest.raises(SourceError, match="it cannot be read"):
        read_cities(tmp_path / "latin.csv")


def test_a_line_may_say_what_its_scenes_numbers_mean(tmp_path):
    for name in ("a.tif", "land.gpkg"):
        (tmp_path / name).touch()
    path = tmp_path / "cities.csv"
    header = "name,scenes,vectors,scene_units,scene_offset,scene_scale"
    path.write_text(f"{header}\nA,a.tif,land.gpkg,,-1000,\nB,a.tif,land.gpkg,,,0.01\nC,a.tif,land.gpkg,,,\n")
    scalings = {city.name: city.scaling for city in read_cities(path)}
    assert scalings == {"A": UserScaling(offset=-1000, first=True), "B": UserScaling(scale=0.01, first=True), "C": None}
    tiles = UrbanAtlasOptions(scene_units="reflectance")
    assert tiles.scene_of(scalings["C"]) == tiles.scene and tiles.scene.user_scaling == UserScaling(units="reflectance")
    assert tiles.scene_of(scalings["B"]).user_scaling == UserScaling(scale=0.01, first=True)
    for values, said in ((",x,", "scene_offset is 'x'"), (",,-1", "scene_scale: -1"), ("percent,,", "scene_units")):
        path.write_text(f"{header}\nA,a.tif,land.gpkg,{values}\n")
        with pytest.raises(SourceError, match=f"line 2: {said}"):
            read_cities(path)
