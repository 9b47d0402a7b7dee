import hashlib
import json
import os
import pathlib

import pytest

from eo_keras.core import files, output_folders
from eo_keras.core.output_folders import MANIFEST_NAME, OutputFolder
from eo_keras.errors import RunError
from tests.kept import contents


def folder_of(path, kind="run"):
    return OutputFolder(path, kind, RunError)


@pytest.fixture
def ours(tmp_path):
    """A folder with three files of this program, one below."""
    with folder_of(tmp_path / "f").held() as folder:
        folder.write({"a.txt": b"a", "deep/b.txt": b"b"})
        with folder.new_path("model") as path:
            path.mkdir()
            (path / "c.pb").write_bytes(b"c")
    return tmp_path / "f"


def test_a_manifest_lists_what_was_written(ours):
    listed = json.loads((ours / MANIFEST_NAME).read_text())
    assert listed["kind"] == "run" and "scratch" not in listed
    assert listed["files"]["deep/b.txt"] == [{"bytes": 1, "sha256": hashlib.sha256(b"b").hexdigest()}]
    assert set(contents(ours)) == {"a.txt", "deep/b.txt", "model/c.pb", MANIFEST_NAME}


def test_many_files_get_their_names_together_and_an_error_loses_none_that_was_finished(tmp_path):
    folder, stages = folder_of(tmp_path / "f"), []

    def there():
        return sorted(path.name for path in (tmp_path / "f").glob("*.txt")), folder.listed()

    with pytest.raises(ZeroDivisionError), folder.held(), folder.new_paths(3600) as paths:
        for name in ("a.txt", "b.txt", "c.txt"):
            with paths.path(name) as temporary:
                temporary.write_bytes(name.encode())
                stages.append(there())
                assert name != "c.txt" or 1 / 0
    assert stages == [([], [])] * 3 and there() == (["a.txt", "b.txt"], ["a.txt", "b.txt"])
    assert contents(tmp_path / "f")["b.txt"] == b"b.txt" and folder.foreign() == []
    with folder.held(), folder.new_paths() as paths:
        assert folder.own(["a.txt", "c.txt"]) == {"a.txt"}
        for name in ("a.txt", "c.txt"):
            with paths.path(name) as temporary:
                temporary.write_bytes(b"again")
            assert name in there()[0] and (tmp_path / "f" / name).read_bytes() == b"again"


def test_clearing_removes_what_is_listed_and_nothing_else(ours, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.txt").write_bytes(b"b")
    theirs = {"notes.md": b"1", "deep/mine.txt": b"2", "model/.ipynb_checkpoints/x": b"3", "a.txt": b"edited"}
    for name, data in theirs.items():
        (ours / name).parent.mkdir(exist_ok=True)
        (ours / name).write_bytes(data)
    (ours / "link").symlink_to(outside)
    folder = folder_of(ours)
    with folder.held(overwrite=True):
        folder.clear()
        folder.tell_foreign()
    left = contents(ours)
    # The changed file's name stays listed.
    del left[MANIFEST_NAME]
    assert left == theirs and (ours / "link").is_symlink() and contents(outside) == {"b.txt": b"b"}
    (line,) = folder.take_warnings()
    assert "'a.txt', 'deep/mine.txt', 'link' and 1 more" in line


def test_a_listed_file_behind_a_link_is_not_followed(ours, tmp_path):
    os.rename(ours / "deep", tmp_path / "elsewhere")
    (ours / "deep").symlink_to(tmp_path / "elsewhere")
    with folder_of(ours).held() as folder:
        folder.clear()
    assert contents(tmp_path / "elsewhere") == {"b.txt": b"b"}
    (tmp_path / "whole").symlink_to(ours)
    with folder_of(tmp_path / "whole").held(overwrite=True) as folder:  # The folder itself may be a link.
        folder.write({"n.txt": b"n"})
    assert (ours / "n.txt").read_bytes() == b"n"


@pytest.mark.parametrize("name", ["thesis.doc", "deep", ".lock", MANIFEST_NAME, ".partial-mine", ".unfinished"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_without_a_manifest_is_somebody_elses(tmp_path, name, overwrite):
    path = tmp_path / "f" / name
    path.mkdir(parents=True)
    (path / "x").write_bytes(b"x")
    if name not in ("deep", ".unfinished"):
        path = path / "x"
        path.rename(tmp_path / "x")
        (tmp_path / "f" / name).rmdir()
        path = (tmp_path / "x").rename(tmp_path / "f" / name)
    before = contents(tmp_path / "f")

    def use():
        with folder_of(tmp_path / "f").held(overwrite=overwrite, writes=["thesis.doc"]) as folder:
            folder.clear()
            with folder.new_path("a.txt") as temporary:
                temporary.write_bytes(b"a")

    if overwrite and name not in ("thesis.doc", MANIFEST_NAME, ".unfinished"):
        use()
        after = contents(tmp_path / "f")
        assert before.items() <= after.items() and after["a.txt"] == b"a"
        return
    with pytest.raises(RunError, match=name):
        use()
    assert before.items() <= contents(tmp_path / "f").items()


@pytest.mark.parametrize("name", [".DS_Store", "train.log", "slurm-1234.out", ".ipynb_checkpoints/a"])
def test_what_systems_and_schedulers_leave_blocks_nothing(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"log")
    for _ in range(2):
        with folder_of(tmp_path).held() as folder:
            folder.clear()
            folder.write({"a.txt": b"a"})
    assert contents(tmp_path)[name] == b"log" and not folder.take_warnings()


def test_what_was_changed_since_is_kept_under_another_name(ours):
    (ours / "a.txt").write_bytes(b"edited")
    (ours / "new.txt").write_bytes(b"theirs")
    with folder_of(ours).held() as folder:
        folder.write({"a.txt": b"a2", "new.txt": b"ours", "deep/b.txt": b"b2"})
        folder.write({"a.txt": b"a3"})
    found = contents(ours)
    assert (found["a.txt"], found["a.txt.kept-1"]) == (b"a3", b"edited")
    assert (found["new.txt"], found["new.txt.kept-1"]) == (b"ours", b"theirs")
    assert found["deep/b.txt"] == b"b2" and "deep/b.txt.kept-1" not in found
    assert len(folder.take_warnings()) == 2


@pytest.mark.parametrize("moment", ["listed", "named"])
def test_a_kill_between_list_and_name_leaves_nothing_unknown(ours, monkeypatch, moment):
    class Killed(BaseException):
        pass

    def killed(*arguments):
        if moment == "named":
            os.rename(*arguments)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        folder = folder_of(ours)
        patched.setattr(output_folders.os, "replace", killed)
        # What a kill leaves out.
        patched.setattr(output_folders.OutputFolder, "drop_scratch", lambda self, name: None)
        patched.setattr(output_folders.shutil, "rmtree", lambda *arguments, **words: None)
        # The manifest is written by files, which knows `os` by the same name.
        patched.setattr(output_folders.OutputFolder, "_list", listing(patched, killed))
        with folder.held(), folder.new_path("a.txt") as path:
            path.write_bytes(b"later")
    with folder_of(ours).held() as folder:
        assert not list(ours.glob(".unfinished/*"))
        folder.write({"a.txt": b"last"})
        assert folder.foreign() == [] and folder.take_warnings() == []
    assert contents(ours)["a.txt"] == b"last"


def listing(patched, killed):
    original = output_folders.OutputFolder._list

    def listed(self, entries):
        patched.undo()
        original(self, entries)
        patched.setattr(output_folders.os, "replace", killed)
        patched.setattr(output_folders.OutputFolder, "drop_scratch", lambda self, name: None)
        patched.setattr(output_folders.shutil, "rmtree", lambda *arguments, **words: None)

    return listed


def test_a_folder_of_another_kind_is_refused_even_to_overwrite(ours):
    with pytest.raises(RunError, match="another kind of output .run.; expected sweep"):
        folder_of(ours, "sweep").check(overwrite=True)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
def test_a_manifest_that_names_what_lies_outside_is_not_believed(ours, tmp_path, name):
    (tmp_path / "x").write_bytes(b"x")
    path = ours / MANIFEST_NAME
    value = json.loads(path.read_text())
    value["files"][name] = [{"bytes": None, "sha256": None}]
    path.write_text(json.dumps(value))
    with pytest.raises(RunError, match="cannot be read as a list"):
        folder_of(ours).check()
    assert (tmp_path / "x").exists()


def test_folders_inside_are_removed_by_their_own_manifests(ours):
    with folder_of(ours).held() as folder, folder_of(ours / "in" / "side", "evaluation").held() as inner:
        folder.add_folder("in/side")
        folder.add_folder("in/theirs")
        inner.write({"m.json": b"{}"})
    (ours / "in" / "theirs").mkdir()
    (ours / "in" / "theirs" / "x").write_bytes(b"x")
    with folder_of(ours).held() as folder:
        folder.clear()
    assert contents(ours) == {"in/theirs/x": b"x"}


def test_a_folder_that_nothing_was_written_to_is_left_as_it_was(tmp_path):
    for path in (tmp_path / "new", tmp_path):
        with pytest.raises(KeyError), folder_of(path).held():
            raise KeyError
    assert not list(tmp_path.iterdir())


def test_elsewhere_too(tmp_path):
    url = f"memory://{tmp_path.name}/owned"
    with folder_of(url).held() as folder:
        folder.write({"a.txt": b"a"})
    files.write_bytes(files.join(url, "theirs.txt"), b"x")
    with pytest.raises(RunError, match="theirs.txt: this program did not write it"):
        folder_of(url).check(overwrite=True, writes=["theirs.txt"])
    with folder_of(url).held() as folder:
        folder.clear()
        folder.tell_foreign()
    assert files.list_names(url) == ["theirs.txt"] and "'theirs.txt'" in folder.take_warnings()[0]
    files.write_bytes(files.join(tmp_path.as_uri(), "theirs.txt"), b"x")
    with pytest.raises(RunError, match="'theirs.txt'"):
        folder_of(tmp_path.as_uri()).check()
    assert pathlib.Path(tmp_path, "theirs.txt").read_bytes() == b"x"


@pytest.mark.parametrize("name", [".build", output_folders.SCRATCH_NAME])
def test_what_somebody_puts_beside_unfinished_files_is_kept(tmp_path, name):
    folder = folder_of(tmp_path)
    with folder.held():
        folder.write({"a.txt": b"a"})
    scratch = folder.scratch(name)
    for inner in (f"{files.TEMPORARY_PREFIX}a.txt-0", "row-00000-0", "scan-0.npz", "notes.txt", "mine/b.txt"):
        (scratch / inner).parent.mkdir(exist_ok=True)
        (scratch / inner).write_bytes(b"1")
    with folder.held():
        folder.drop_scratch(name)
    assert set(contents(tmp_path)) == {"a.txt", f"{name}.kept-1/notes.txt", f"{name}.kept-1/mine/b.txt", MANIFEST_NAME}
    (line,) = folder.take_warnings()
    assert f"kept in {name}.kept-1" in line
