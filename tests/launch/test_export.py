import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from eo_keras.core.output_folders import MANIFEST_NAME
from eo_keras.legends import catalogue as legends
from eo_keras.runs import model_card as model_cards
from eo_keras.sensors import sentinel2
from launch import app, export


@pytest.fixture(scope="module")
def rgb(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("rgb") / "run", "uint8", ("B04", "B03", "B02")).folder


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs the command in this process; returns its exit code and what it wrote, TensorFlow's own lines included."""

    def run(run_dir, export_dir, *arguments):
        # Flags of its own, so that other tests find the command's as they were.
        values = flags.FlagValues()
        app.define_flags(values)
        export.define_flags(values)
        monkeypatch.setattr(export, "FLAGS", values)
        argv = ["export", f"--run_dir={run_dir}", f"--export_dir={export_dir}", *arguments]
        code = app.exit_code(export.main, argv, values)
        return code, *capfd.readouterr()

    return run


def example(out):
    """Cuts the Python example out of the command's output."""
    return "\n".join(line.strip() for line in out.split("run it from Python:\n")[1].splitlines())


def test_the_command_and_its_example(rgb, tmp_path, capsys):
    folder = tmp_path / "my service"
    result = subprocess.run(
        [sys.executable, "-m", "launch.export", f"--run_dir={rgb}", f"--export_dir={folder}"],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
        # As a user would run it: without what the tests set.
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
    )
    assert result.returncode == 0 and result.stderr == "", result
    lines = result.stdout.splitlines()
    assert lines[0] == "model:   tiny on B04,B03,B02, 1,926 weights"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert lines[1] == "temperature: none: launch.evaluate has fitted none"
    assert lines[2] == f"export:  {folder}/1, {size / 1e6:.1f} MB"
    assert "input:   image: uint8 (None, 64, 64, 3) (signature serving_default)" in lines
    assert "input:   image_bytes: string (None,) (signature bytes)" in lines
    assert "input:   examples: string (None,) (signature examples)" in lines
    assert "output:  class_name: string (None,)" in lines
    assert any(line.startswith("checked: 6 images by each signature, probabilities differ") for line in lines)
    assert f"docker compose -f '{folder}/compose.yaml' up" in result.stdout
    assert "gRPC: port 8500; REST: POST http://localhost:8501/v1/models/my_service:predict):" in result.stdout
    assert set(os.listdir(folder)) == {"1", MANIFEST_NAME, "compose.yaml", "models.config"}
    assert len(example(result.stdout).splitlines()) == 3
    exec(example(result.stdout), {})
    printed = capsys.readouterr().out
    assert "probabilities" in printed and any(name in printed for name in legends.EUROSAT.class_names)


def test_13_bands_are_asked_for_by_grpc(make_run, command, tmp_path):
    run = make_run(tmp_path / "run", "uint16", sentinel2.EUROSAT_ORDER)
    # As an earlier version wrote it.
    model_cards.write_model_card(dataclasses.replace(run.card, records=None), run.folder)
    code, out, err = command(run.folder, tmp_path / "e")
    assert (code, err) == (0, "")
    assert "image: uint16 (None, 64, 64, 13)" in out and "models/e:predict, but no image of uint16):" in out
    assert out.count("input:") == 1 and "note: no signature takes examples" in out
    exec(example(out), {})


def test_dry_run_writes_nothing(command, rgb, tmp_path):
    code, out, err = command(rgb, tmp_path / "e", "--dry_run")
    assert (code, err) == (0, "") and f"would write version 1 to {tmp_path / 'e'}/1" in out
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "e" / "4").mkdir(parents=True)
    assert "version 5" in command(rgb, tmp_path / "e", "--dry_run")[1]
    assert command(rgb, tmp_path / "e", "--dry_run", "--version=4")[0] == 2
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"4"}


def test_an_older_number_is_warned_about(command, rgb, tmp_path):
    (tmp_path / "4").mkdir()
    code, out, err = command(rgb, tmp_path, "--version=2")
    assert (code, err) == (0, "") and f"{tmp_path}/2," in out
    assert "warning: version 4 is there too" in out


def test_mistakes_are_one_line_and_exit_code_2(command, rgb, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "e" / "1").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "model_card.json").write_bytes((rgb / "model_card.json").read_bytes())
    for run_dir, export_dir, version, words in (
        (tmp_path / "missing", "e", (), "there is no such folder"),
        (tmp_path / "empty", "e", (), "holds no model_card.json"),
        (tmp_path / "unfinished", "e", (), "model.keras: there is no such file"),
        (rgb, "file", (), "there is a file of this name"),
        (rgb, "e", ("--version=1",), "already holds version 1"),
        (rgb, "e", ("--version=0",), "version: 0; expected a whole number from 1"),
        (rgb, "e", ("--version=x",), "--version"),
        (rgb, "e", ("stray",), "stray argument"),
    ):
        code, out, err = command(run_dir, tmp_path / export_dir, *version)
        assert code == 2 and out == "", (words, out, err)
        assert err.count("\n") == 1 and words in err, err
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"1"}
