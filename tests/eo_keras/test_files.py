import os
import subprocess
import sys

import pytest

from eo_keras import files
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


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path):
    code = (
        "import sys, resource, signal; from eo_keras import files, errors\n"
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
        "import sys; from eo_keras import files, errors\n"
        "try:\n  with files.FolderLock(sys.argv[1], errors.RunError): print('held')\n"
        "except errors.RunError as error: print(error)"
    )

    def try_to_hold():
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True).stdout

    with files.FolderLock(tmp_path, RunError):
        assert "another process is writing" in try_to_hold()
    assert try_to_hold() == "held\n"
    assert os.listdir(tmp_path) == []
