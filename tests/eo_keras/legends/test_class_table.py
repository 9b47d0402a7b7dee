"""Tables of class names, and the matching of a map's classes with a reference's."""

import pytest

from eo_keras.errors import LegendError, OptionError, SourceError
from eo_keras.legends.class_table import LEFT_OUT, match, read_class_table

MAP = ("Residential", "Industrial", "Forest", "Water")


def table(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return read_class_table(path)


def test_equal_names_match_without_a_table():
    found = match(MAP)
    assert found.class_names == MAP
    assert found.labels_of(["Water", "Forest", "Water"], "points").tolist() == [3, 2, 3]


def test_a_table_renames_merges_and_leaves_out(tmp_path):
    found = match(
        MAP, table(tmp_path, "\ufeffSource, target\nwood,Forest\nResidential,Built\nIndustrial,Built\nsea,\nWater,\n")
    )
    assert found.class_names == ("Built", "Forest")
    assert found.of_map.tolist() == [0, 0, 1, LEFT_OUT]
    assert found.labels_of(["wood", "Built", "Industrial", "sea"], "points").tolist() == [1, 0, 0, LEFT_OUT]


def test_strata_are_not_merged(tmp_path):
    found = match(MAP, table(tmp_path, "source,target\nIndustrial,Residential\n"), merge=False)
    assert found.class_names == MAP
    assert found.labels_of(["Industrial"], "points").tolist() == [0]


def test_unknown_names_are_listed(tmp_path):
    with pytest.raises(LegendError, match="points.csv: the map has no class 'ice', 'moor'.*Residential, Ind.*`class_t"):
        match(MAP).labels_of(["moor", "Water", "ice", "moor"], "points.csv")
    found = match(MAP, table(tmp_path, "source,target\nwood,Trees\n"))
    with pytest.raises(LegendError, match=r"'wood' \('Trees' by the table\)"):
        found.labels_of(["wood"], "points.csv")


def test_codes_of_urban_atlas():
    found = match(("Other", "Residential", "Industrial", "Forest"), read_class_table("hsl4"))
    assert found.labels_of(["11100", "31000", "91000"], "polygons").tolist() == [1, 3, LEFT_OUT]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from,to\na,b\n", "its header is from,to"),
        ("", "its header is missing"),
        ("source,target\na,b\na,c\n", "'a' has two targets"),
        ("source,target\na\n", "line 2"),
        ("source,target\n,b\n", "line 2"),
        ("source,target\na,b,c\n", "line 2"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        table(tmp_path, text)


def test_no_table():
    with pytest.raises(OptionError, match="no file 'none.csv'.*hsl4"):
        read_class_table("none.csv")
