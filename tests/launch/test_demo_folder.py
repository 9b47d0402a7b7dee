"""Files of an output folder that the demo removes, and those that it keeps."""

import pytest

from eo_keras.core import output_files
from eo_keras.core.manifests import Written
from eo_keras.core.output_folders import DEMO, OutputFolder
from eo_keras.errors import OptionError
from eo_keras.runs import folder as runs
from launch import demo_folder
from tests.kept import contents


def folder_of(path):
    return OutputFolder(path, DEMO, OptionError)


@pytest.mark.parametrize("marker", ["demo/demo", "demo", "demo/.eo_keras.json"])
def test_a_folder_of_runs_is_no_demo(tmp_path, marker):
    for name in (marker, "a/model.keras", "a/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(OptionError, match="did not write"), demo_folder.prepared(folder_of(tmp_path), overwrite=False):
        pass
    assert contents(tmp_path) == before
    with demo_folder.prepared(folder_of(tmp_path), overwrite=True):
        pass
    assert before.items() <= contents(tmp_path).items()


def test_a_demo_is_replaced_where_that_is_said_and_nothing_else(tmp_path, capsys):
    """Also one that was killed."""
    output = folder_of(tmp_path / "d")
    with demo_folder.prepared(output, overwrite=False):
        with output.new_path("cities") as path:
            (path / "bonn").mkdir(parents=True)
            (path / "bonn" / "a.tif").write_bytes(b"1")
        runs.output_folder(output.path("run")).write({runs.MODEL_NAME: b"model", "evaluation/t.json": b"{}"})
        (output.path("predictions.csv")).write_bytes(b"a")
        output.note({"predictions.csv": Written.of_file(output.path("predictions.csv"))})
    theirs = {"run/notes.md": b"1", "mine/model.keras": b"2", "cities/bonn/b.tif": b"3", "run_b/model.keras": b"4"}
    for name, data in theirs.items():
        output.path(name).parent.mkdir(exist_ok=True)
        output.path(name).write_bytes(data)
    before = contents(tmp_path)
    with pytest.raises(OptionError, match="holds a demo. Replace it by --overwrite"):
        demo_folder.check(folder_of(tmp_path / "d"), overwrite=False)
    assert contents(tmp_path) == before
    with demo_folder.prepared(folder_of(tmp_path / "d"), overwrite=True):
        assert {name: data for name, data in contents(tmp_path / "d").items() if ".eo_keras" not in name} == theirs
    line = capsys.readouterr().out
    assert (
        line.startswith("warning: ")
        and line.count("\n") == 1
        and "'cities/bonn/b.tif', 'mine/model.keras', 'run/notes.md'" in line
    )


def test_a_page_that_was_changed_makes_way_for_the_next_demos(tmp_path, capsys):
    with demo_folder.prepared(folder_of(tmp_path), overwrite=False):
        output_files.write_files({tmp_path / "cities.html": b"page"}, overwrite=False)
    (tmp_path / "cities.html").write_bytes(b"page, and my notes")
    with demo_folder.prepared(folder_of(tmp_path), overwrite=True):
        output_files.write_files({tmp_path / "cities.html": b"new"}, overwrite=False)
    present = contents(tmp_path)
    assert (present["cities.html"], present["cities.html.kept-1"]) == (b"new", b"page, and my notes")
    assert "kept as cities.html.kept-1" in capsys.readouterr().out
