"""Single files that a command writes into whatever folder a user names."""

import pytest

from eo_keras.core import output_files
from eo_keras.core.output_folders import MANIFEST_NAME, OutputFolder
from eo_keras.errors import OptionError
from tests.kept import contents


def written(folder, data, *, overwrite=False):
    files = {folder / "a.html": data, folder / "a.json": b"{" + data + b"}"}
    output_files.write_files(files, overwrite=overwrite, error=OptionError)


@pytest.mark.parametrize("name", ["a.html", "a.json"])
def test_a_file_of_somebody_elses_is_replaced_only_where_that_is_said(tmp_path, name):
    theirs = {name: b"mine", "notes.md": b"notes"}
    for path, data in theirs.items():
        (tmp_path / path).write_bytes(data)
    with pytest.raises(OptionError, match=f"{name}: it is already there.*`overwrite"):
        written(tmp_path, b"1")
    assert contents(tmp_path) == theirs
    written(tmp_path, b"1", overwrite=True)
    found = contents(tmp_path)
    assert (found["a.html"], found["a.json"], found["notes.md"]) == (b"1", b"{1}", b"notes")


def test_its_own_earlier_files_are_replaced_unless_they_were_changed(tmp_path):
    written(tmp_path / "new", b"1")
    written(tmp_path / "new", b"2")
    assert contents(tmp_path / "new")["a.html"] == b"2"
    (tmp_path / "new" / "a.json").write_bytes(b"edited")
    with pytest.raises(OptionError, match="a.json"):
        written(tmp_path / "new", b"3")
    assert contents(tmp_path / "new")["a.html"] == b"2"


def test_in_a_run_they_are_no_part_of_it(tmp_path):
    with OutputFolder(tmp_path, "run").held() as folder:
        folder.write({"flags.txt": b""})
    written(tmp_path, b"1")
    with folder.held():
        folder.clear()
    assert set(contents(tmp_path)) == {"a.html", "a.json"}
    (tmp_path / "a.html").unlink()
    (tmp_path / "a.html").mkdir()
    with pytest.raises(OptionError, match="it is a folder"):
        written(tmp_path, b"2", overwrite=True)


def test_a_folder_of_single_files_is_no_run(tmp_path):
    written(tmp_path, b"1")
    with pytest.raises(OptionError, match="another kind of output"):
        OutputFolder(tmp_path, "run", OptionError).check(overwrite=True)
    assert MANIFEST_NAME in contents(tmp_path)


@pytest.mark.parametrize("kind", ["run", "records folder"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_parts_of_a_run_or_of_records_are_never_replaced(tmp_path, kind, overwrite):
    with OutputFolder(tmp_path, kind).held() as folder:
        folder.write({"a.json": b"{}", "deep/a.json": b"{}"})
    before = contents(tmp_path)
    for place in (tmp_path, tmp_path / "deep"):
        with pytest.raises(OptionError, match=rf"a\.json: it is part of the {kind} in .*another name"):
            written(place, b"1", overwrite=overwrite)
    assert contents(tmp_path) == before


def test_a_list_that_cannot_be_read_is_refused_before_anything_is_computed(tmp_path):
    (tmp_path / MANIFEST_NAME).write_bytes(b"{")
    with pytest.raises(OptionError, match="cannot be read as a list.*another folder"):
        output_files.check_files([tmp_path / "a.html"], overwrite=True, error=OptionError)
    with pytest.raises(OptionError, match="cannot be read as a list.*another folder"):
        OutputFolder(tmp_path, "run", OptionError).check(overwrite=True)
