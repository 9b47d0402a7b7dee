import json
import pickle
import re

import numpy as np
import pytest

from eo_keras.errors import LegendError, OptionError, SourceError
from eo_keras.legends import crosswalk
from eo_keras.legends.catalogue import EUROSAT, IGNORE, LEGENDS, URBAN_ATLAS

CODES = """11100 11210 11220 11230 11240 11300 12100 12210 12220 12230 12300 12400 13100 13300 13400 14100 14200 21000
22000 23000 24000 25000 31000 32000 33000 40000 50000 91000 92000""".split()
GREEN = ["14110", "14120", "14130"]
# As EEA's checks of deliveries list them, and for 2006 the guide.
EDITIONS = {
    2006: [code for code in CODES if code[0] not in "234"] + ["20000", "30000"],
    2012: CODES,
    2018: CODES,
    2021: [code for code in CODES if code not in ("14100", "25000")] + GREEN,
    2024: [code for code in CODES if code != "14100"] + GREEN,
}


def becomes(name):
    """Classes by code as a map has them, None where there is none."""
    found = crosswalk.code_map(name)
    labels = {code: found.label(code) for code in (*CODES, "20000", "30000")}
    return {code: None if label == IGNORE else found.legend.class_names[label] for code, label in labels.items()}


def test_the_codes_are_those_of_the_guide():
    assert list(crosswalk.TITLES) == CODES
    assert crosswalk.TITLES["11230"] == "Discontinuous low density urban fabric (S.L. 10% - 30%)"


def test_hsl4():
    found = becomes("hsl4")
    assert {code for code in found if found[code] == "Residential"} == set(
        "11100 11210 11220 11230 11240 11300".split()
    )
    assert {code for code in found if found[code] == "Industrial"} == set("12100 12300 12400 13100 13300".split())
    assert {code for code in found if found[code] == "Forest"} == {"31000", "30000"}
    assert {code for code in found if found[code] is None} == {"91000", "92000"}
    assert crosswalk.code_map("hsl4").legend.class_names == ("Other", "Residential", "Industrial", "Forest")


def test_hsl8():
    found = becomes("hsl8")
    assert [
        found[code] for code in ("11300", "13400", "12220", "12210", "14200", "25000", "30000", "33000", "50000")
    ] == [
        *("Residential", "Industrial", "Transport", "Transport", "GreenLeisure"),
        *("Agriculture", "Forest", "Natural", "Water"),
    ]
    assert {code for code in found if found[code] is None} == {"91000", "92000", "20000"}


def test_eurosat10():
    found = becomes("eurosat10")
    assert crosswalk.code_map("eurosat10").legend is EUROSAT
    # Urban Atlas does not tell rivers from lakes.
    assert found["50000"] == "SeaLake" and "River" not in found.values()
    named = {code: found[code] for code in found if found[code]}
    assert named.pop("12210") == "Highway" and named.pop("12100") == "Industrial"
    assert [named.pop(code) for code in ("21000", "22000", "25000", "23000", "31000", "30000", "32000", "50000")] == [
        *("AnnualCrop", "PermanentCrop", "PermanentCrop", "Pasture", "Forest", "Forest", "HerbaceousVegetation"),
        "SeaLake",
    ]
    assert named == dict.fromkeys(("11100", "11210", "11220", "11230", "11240"), "Residential")


def test_full_has_a_class_for_every_code():
    found = crosswalk.code_map("full")
    assert len(found.legend) == 27
    for label, code in enumerate(CODES[:27]):
        assert found.label(code) == label
        # The legend's names are the titles, shortened.
        first = found.legend.class_names[label].split()[0].rstrip(",")
        assert crosswalk.TITLES[code].split()[0].rstrip(",") == first
    assert [found.label(code) for code in ("91000", "92000", "20000", "30000")] == [IGNORE] * 3 + [22]


def test_every_named_map_knows_all_codes_and_its_colours_differ():
    for name, found in crosswalk.CODE_MAPS.items():
        assert found.name == name and set(found.labels) == set().union(*EDITIONS.values())
        assert set(found.labels.values()) <= {*range(len(found.legend)), IGNORE}
        colours = found.legend.colours
        assert len(set(colours)) == len(colours) == len(set(found.legend.class_names))
        assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)
        assert LEGENDS[found.legend.name] is found.legend
    assert pickle.loads(pickle.dumps(crosswalk.CODE_MAPS["full"])) == crosswalk.CODE_MAPS["full"]
    assert URBAN_ATLAS.colours[0] == "#a03037" and URBAN_ATLAS.colours[26] == "#0095cf"


@pytest.mark.parametrize("name", crosswalk.CODE_MAPS)
def test_every_edition_is_understood(name):
    found = crosswalk.code_map(name)
    for codes in EDITIONS.values():
        assert len(found.labels_of(np.array(codes), "a.gpkg")) == len(codes)
    assert {found.label(code) for code in GREEN} == {found.label("14100")}


def test_many_codes_at_once():
    found = crosswalk.code_map("hsl4")
    labels = found.labels_of(np.array(["31000", "92000", "11100", "31000"]), "a.gpkg")
    assert labels.dtype == np.uint8 and labels.tolist() == [3, 255, 1, 3]
    with pytest.raises(SourceError, match=r"a.gpkg: the code '99999' of 2 polygons is unknown to legend 'hsl4'; .*"):
        found.labels_of(np.array(["31000", "99999", "99999"]), "a.gpkg")
    with pytest.raises(SourceError, match="the codes '1' of 2 polygons, '99999' of 1 polygon are unknown"):
        found.labels_of(np.array(["99999", "1", "31000", "1"]), "a.gpkg")
    with pytest.raises(
        LegendError, match="legend 'hsl4': it does not know the code '1'; expected a code of Urban Atlas"
    ):
        found.label("1")


def test_no_such_legend(tmp_path):
    with pytest.raises(OptionError, match="legend 'hsl5': there is no such legend or file; expected hsl4, hsl8, euro"):
        crosswalk.code_map("hsl5")
    with pytest.raises(OptionError, match="there is no such legend or file"):
        crosswalk.code_map(tmp_path)


def two_classes():
    return {
        "name": "two",
        "classes": [
            {"name": "Built up", "colour": "#FF0000", "codes": CODES[:15]},
            {"name": "Open", "colour": "#00ff00", "codes": [*map(int, CODES[15:27]), "20000"]},
        ],
        "ignore": ["91000", "92000"],
    }


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_a_legend_of_ones_own(tmp_path):
    found = crosswalk.code_map(write(tmp_path / "two.json", two_classes()))
    assert found.legend.name == found.name == "two"
    assert found.legend.class_names == ("Built up", "Open") and found.legend.colours == ("#ff0000", "#00ff00")
    assert [found.label(code) for code in ("13400", "14100", "91000", "20000")] == [0, 1, 255, 1]
    # The coarse codes need not be named, but then they are unknown.
    with pytest.raises(
        SourceError, match="'30000' of 1 polygon is unknown .*Name a class for it, or ignore it, in a leg"
    ):
        found.labels_of(np.array(["30000"]), "a.gpkg")


def test_an_unknown_code_can_be_ignored(tmp_path):
    codes = np.array(["99999", "14100"])
    stored = two_classes()
    with pytest.raises(SourceError, match="'99999' of 1 polygon .*add it to ignore in a legend file of your own"):
        crosswalk.code_map(write(tmp_path / "two.json", stored)).labels_of(codes, "a.gpkg")
    stored["ignore"].append("99999")
    found = crosswalk.code_map(write(tmp_path / "two.json", stored))
    assert found.labels_of(codes, "a.gpkg").tolist() == [IGNORE, 1]


def test_the_codes_that_divide_green_areas(tmp_path):
    def labels(*changes):
        stored = two_classes()
        for codes, change in zip((stored["classes"][0]["codes"], stored["classes"][1]["codes"]), changes, strict=True):
            codes += change
        stored["classes"][1]["codes"].remove(14100)
        return crosswalk.code_map(write(tmp_path / "two.json", stored)).labels

    # As what they divide, unless they are named.
    found = labels([], ["14100", "14110"])
    assert [found[code] for code in ("14100", *GREEN)] == [1, 1, 1, 1]
    assert [labels(["14120"], ["14100"])[code] for code in ("14100", *GREEN)] == [1, 1, 0, 1]
    # Named in its place: it is what all of them are, or unknown where they differ.
    assert labels([], GREEN)["14100"] == 1
    assert "14100" not in labels(GREEN[:1], GREEN[1:])
    with pytest.raises(LegendError, match="what becomes of 14100; .*Give 14100"):
        labels([], GREEN[:2])


def broken(change):
    stored = two_classes()
    change(stored)
    return stored


@pytest.mark.parametrize(
    ("stored", "match"),
    [
        ("{", "it cannot be read"),
        ([], r"it is \[\]; expected an object with name, classes, ignore"),
        (broken(lambda s: s.pop("classes")), "it has no classes"),
        (broken(lambda s: s.update(colour="x")), "it has an unknown colour; expected name, classes, ignore"),
        (broken(lambda s: s.update(name=" ")), 'its name is " "'),
        (broken(lambda s: s["classes"].pop()), "a list of 2 to 254"),
        (broken(lambda s: s.update(classes={})), "its classes are {}"),
        (broken(lambda s: s["classes"][0].pop("colour")), "class 1 has no colour"),
        (
            broken(lambda s: s["classes"][1].update(colour="green")),
            "the colour of 'Open' is \"green\"; expected one su",
        ),
        (broken(lambda s: s["classes"][1].update(name="")), 'the name of class 2 is ""'),
        (broken(lambda s: s["classes"][1].update(name="Built up")), "two classes are called 'Built up'"),
        (broken(lambda s: s["classes"][1].update(codes="31000")), "the codes of 'Open' are \"31000\"; expected a list"),
        (broken(lambda s: s["classes"][1]["codes"].append("11100")), "the code 11100 is there twice"),
        (broken(lambda s: s["ignore"].append("31000")), "the code 31000 is there twice"),
        (broken(lambda s: s["classes"][0]["codes"].append("11111")), "'Built up' has the unknown code '11111'"),
        (broken(lambda s: s["ignore"].append("x")), "ignore has the unknown code 'x'"),
        (broken(lambda s: s["classes"][0]["codes"].append("91000")), "'Built up' has 91000, No data"),
        (broken(lambda s: s["classes"][1]["codes"].remove(40000)), r"what becomes of 40000; .*Give 40000 \(Wetlands\)"),
        (broken(lambda s: s.pop("ignore")), "what becomes of 91000, 92000"),
    ],
)
def test_a_legend_that_is_refused(tmp_path, stored, match):
    with pytest.raises(LegendError, match=match) as caught:
        crosswalk.code_map(write(tmp_path / "own.json", stored))
    assert str(caught.value).startswith(f"{tmp_path / 'own.json'}: ") and "\n" not in str(caught.value)
