import hashlib

import pytest
from absl import flags

from eo_keras.core.output_folders import FILES, OutputFolder
from launch import app, download
from tfrecords_builder import downloads

CONTENT = b"an archive"


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs the command's main for a small file that no server has; the network is not used."""
    file = downloads.PublishedFile(
        "a.zip", "http://127.0.0.1:9/a.zip", len(CONTENT), hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    )
    monkeypatch.setitem(downloads.PUBLISHED, "eurosat_rgb", file)

    def run(*arguments):
        # Flags of its own, so that other tests find the command's as they were.
        values = flags.FlagValues()
        app.define_flags(values)
        flags.DEFINE_string("dataset", "eurosat_rgb", "", flag_values=values)
        flags.DEFINE_string("output_dir", str(tmp_path), "", flag_values=values)
        values(["download", *arguments])
        monkeypatch.setattr(download, "FLAGS", values)
        download.main()

    return run


def test_dry_run_tells_the_plan(command, tmp_path, capsys):
    command("--dry_run")
    out = capsys.readouterr().out
    assert "http://127.0.0.1:9/a.zip" in out and "10 bytes" in out and str(tmp_path / "a.zip") in out
    assert hashlib.md5(CONTENT).hexdigest() in out and "would download the whole file" in out
    assert list(tmp_path.iterdir()) == []
    partial = OutputFolder(tmp_path, FILES).scratch(downloads.PARTIAL_FOLDER) / "a.zip"
    partial.write_bytes(CONTENT[:4])
    command("--dry_run")
    assert "resume after the 4 bytes" in capsys.readouterr().out
    (tmp_path / "a.zip").write_bytes(CONTENT)
    command("--dry_run")
    assert "verify the file that is there" in capsys.readouterr().out


def test_a_file_that_is_there_is_verified(command, tmp_path, capsys):
    (tmp_path / "a.zip").write_bytes(CONTENT)
    command()
    summary, following = capsys.readouterr().out.splitlines()
    assert "already there" in summary and "MD5 verified" in summary
    assert following.startswith("next: python -m launch.build --dataset=eurosat_rgb --source=")
