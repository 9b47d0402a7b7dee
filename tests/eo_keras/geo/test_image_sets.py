"""Images of places, found by patterns and put together by their names."""

import re

import pytest

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo.image_sets import by_modality, find_places


@pytest.fixture
def floods(tmp_path):
    """Files of three places, of which the last has no radar image."""
    for name in ("S1/S1_after_1.png", "S1/S1_after_22.png", "S2/S2_after_1.tif", "S2/S2_after_22.tif"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "S2/S2_after_333.tif").touch()
    (tmp_path / "S2/notes.txt").touch()
    return tmp_path


def test_patterns_say_their_modality():
    found = by_modality(["s1:a/*.png", "s2:b", "s2:c"], ("s2", "s1", "height"))
    assert found == {"s2": ["b", "c"], "s1": ["a/*.png"], "height": []}
    assert by_modality(["a:b", "image:c"], ("image",)) == {"image": ["a:b", "c"]}
    with pytest.raises(OptionError, match="'a' does not say which.*expected s2, s1 and a colon.*`images=s2:a`"):
        by_modality(["a"], ("s2", "s1"))


def test_images_belong_together_by_what_a_star_stands_for(floods):
    patterns = {"s2": [floods / "S2/S2_after_*"], "s1": [floods / "S1/S1_after_*.png"]}
    places = find_places(patterns, optional=("s1",))
    assert [one.name for one in places] == ["1", "22", "333"]
    assert places[1].files == {"s2": floods / "S2/S2_after_22.tif", "s1": floods / "S1/S1_after_22.png"}
    assert list(places[2].files) == ["s2"]
    told = r"S2_after_333.tif: there is no image s1 of its name \('333'\); 1 of 3 places lack theirs"
    with pytest.raises(SourceError, match=told):
        find_places(patterns)
    # Without patterns of a sensor, all places lack it.
    alone = {"s2": patterns["s2"], "s1": []}
    assert [list(one.files) for one in find_places(alone, optional=("s1",))] == [["s2"]] * 3
    with pytest.raises(OptionError, match="there are none of s1.*`images=s1:FOLDER`"):
        find_places(alone)


def test_images_in_folders_belong_together_by_their_paths(tmp_path):
    for name in ("a/x/1.tif", "a/2.png", "b/x/1.png", "b/2.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    places = find_places({"s2": [tmp_path / "a"], "s1": [tmp_path / "b"]})
    assert [one.name for one in places] == ["2", "x/1"]
    single = find_places({"s2": [tmp_path / "a/2.png"], "s1": [tmp_path / "b/2.tif"]})
    assert [one.name for one in single] == ["2"]
    # Of one modality, from the innermost folder on that holds all.
    assert [one.name for one in find_places({"image": [tmp_path / "a"]})] == ["2", "x/1"]
    assert [one.name for one in find_places({"image": [tmp_path / "a/x"]})] == ["1"]


def test_names_that_are_not_clear_are_refused(floods):
    other = {"s1": [floods / "S1/S1_after_*.png"]}
    for pattern, told in (
        ("S2/*_after_*.tif", "OptionError.*one \\*, in the name of the file"),
        ("*/S2_after_*.tif", "OptionError.*one \\*"),
        ("S3/S2_after_*.tif", "SourceError.*there is no such folder"),
        ("S2/S2_after_4.tif", "SourceError.*there is no such image or folder of s2"),
    ):
        with pytest.raises((OptionError, SourceError)) as refused:
            find_places({"s2": [floods / pattern], **other})
        assert re.search(told, f"{type(refused.value).__name__}: {refused.value}"), pattern
    (floods / "S2/S2_after_1.png").touch()
    with pytest.raises(SourceError, match=r"S2_after_1.\w+ is an image of s2 too of the same name \('1'\)"):
        find_places({"s2": [floods / "S2/S2_after_*"], **other})
    (floods / "none").mkdir()
    with pytest.raises(SourceError, match="there is none"):
        find_places({"s2": [floods / "none"], "s1": [floods / "none"]})
