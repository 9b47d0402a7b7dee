import fcntl
import hashlib
import os
import subprocess
import sys

import pytest

from eo_keras.core import files
from eo_keras.errors import RunError, StorageError


def test_atomic_file_appears_only_when_whole(tmp_path):
    path = tmp_path / "a.bin"
    with files.atomic_file(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b"whole")
    assert path.read_bytes() == b"halfwhole"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")
    with pytest.raises(ValueError), files.atomic_file(path) as file:
        file.write(b"new")
        raise ValueError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_files_are_for_whoever_the_umask_lets_read_and_threads_leave_it_alone(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", None)  # The process's, not the thread's: nobody may set it for a moment.
        files.write_bytes(tmp_path / "a", b"")
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    finally:
        monkeypatch.undo()
        os.umask(before)


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path):
    code = (
        "import sys, resource, signal; from eo_keras.core import files; from eo_keras import errors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: files.write_bytes(sys.argv[1], bytes(5000))\n"
        "except errors.StorageError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True)
    assert "no room is left" in result.stdout and "Free some space" in result.stdout
    assert os.listdir(tmp_path) == []


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StorageError, match="expected a folder"):
        files.make_folder(tmp_path / "a")


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path):
    code = (
        "import sys; from eo_keras.core import files; from eo_keras import errors\n"
        "try:\n  with files.FolderLock(sys.argv[1], errors.RunError): print('held')\n"
        "except errors.RunError as error: print(error)"
    )

    def try_to_hold():
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True).stdout

    with files.FolderLock(tmp_path, RunError):
        assert "another process is writing" in try_to_hold()
    assert try_to_hold() == "held\n"
    assert os.listdir(tmp_path) == []


def test_paths_elsewhere_behave_like_local_ones(tmp_path):
    for folder in (f"memory://{tmp_path.name}/a", f"file://{tmp_path}/a", str(tmp_path / "b")):
        files.make_folder(folder)
        path = files.join(folder, "deep", "x.json")
        files.make_folder(files.join(folder, "deep"))
        files.write_json(path, {"a": 1})
        assert files.exists(path) and files.is_folder(folder) and not files.is_folder(path)
        assert files.size(path) == len(files.read_bytes(path)) == 13
        assert files.list_names(folder) == ["deep"] and files.list_names(files.join(folder, "deep")) == ["x.json"]
        assert files.list_names(files.join(folder, "none")) == []
        with files.open_for_reading(path) as file:
            file.seek(4)
            assert file.read(3) == b'"a"'
        assert files.sha256_of_file(path) == hashlib.sha256(b'{\n  "a": 1\n}\n').hexdigest()
        with pytest.raises(FileNotFoundError):
            files.read_bytes(files.join(folder, "none"))
        files.remove(files.join(folder, "deep"))
        files.remove(files.join(folder, "none"))
        assert not files.exists(path)


def test_a_file_elsewhere_appears_only_when_whole():
    path = "memory://whole/x.bin"
    with pytest.raises(ValueError), files.atomic_file(path) as file:
        file.write(b"half")
        raise ValueError
    assert not files.exists(path)


def test_unknown_file_systems_are_named():
    with pytest.raises(StorageError, match="nosuch://x: it cannot be opened .*Protocol not known: nosuch"):
        files.exists("nosuch://x")


def test_a_file_url_is_a_local_path():
    assert str(files.local("file:///a/b")) == "/a/b"
    assert files.local("s3://a/b") is None
    assert files.join("s3://a/", "b", "c") == "s3://a/b/c"


def test_one_process_alone_holds_a_folder_whose_holder_ends_while_another_comes(tmp_path, monkeypatch):
    first, flock = files.FolderLock(tmp_path, RunError), fcntl.flock
    first.__enter__()

    def slow(file, how):
        # The second has opened the file that the first removes now.
        monkeypatch.setattr(fcntl, "flock", flock)
        first.__exit__(None, None, None)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with files.FolderLock(tmp_path, RunError):
        assert (tmp_path / files.FolderLock.NAME).is_file()
        with pytest.raises(RunError, match="another process"), files.FolderLock(tmp_path, RunError):
            pass
    assert not list(tmp_path.iterdir())
