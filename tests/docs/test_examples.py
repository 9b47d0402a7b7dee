"""Examples of README, BUILD, guides and notebook: Python is run, shell commands are parsed, a quick start is run."""

import contextlib
import functools
import importlib
import io
import itertools
import pathlib
import re
import shlex
import shutil
import sys
import types

import nbformat
import numpy as np
import pytest
from absl import flags
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from launch import app, command_names, flag_files
from tests.harness import figures, products, tiny
from tests.launch.commands import launch
from tfrecords_builder.synthetic.archives import write_eurosat_archive

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "BUILD.md", ROOT / "CONTRIBUTING.md"]
PAGES += [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.stem not in ("accuracy", "results")]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OF_OTHERS = {"runner", "logdir", "setup_file", "environment_config", "dask_partition_size", "plan", "runs_dir", "next"}
"""Flags of TensorBoard, Apache Beam and the benchmarks that the text names."""


def blocks(page, language):
    """The fenced blocks of a language, in order."""
    return [text for found, text in _BLOCK.findall(page.read_text()) if found == language]


def command_lines(text):
    """The words of each command in a shell block, comments and continued lines resolved."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def name(page):
    return str(page.relative_to(ROOT))


def _pages_with(language):
    return [pytest.param(page, id=name(page)) for page in PAGES if blocks(page, language)]


@pytest.fixture(scope="module", autouse=True)
def quick_trainings():
    """The examples of the pages are run as they stand, with a network of a few channels and figures of one pixel."""
    with tiny.narrow_resnet14(), figures.undrawn():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the examples read and do not make themselves."""
    folder = tmp_path_factory.mktemp("examples")
    archive = write_eurosat_archive(folder / "ms.zip", kind="ms", patches_per_class=1)
    shutil.unpack_archive(archive, folder / "unpacked")
    (folder / "patches").mkdir()
    for path in (folder / "unpacked").rglob("*.tif"):
        shutil.copy(path, folder / "patches")
    bands = [products.band_pixels(band, 96, 10) for band in ("B02", "B03", "B04")]
    products.write_raster(folder / "scene.tif", np.stack(bands), 10, names=("B02", "B03", "B04"))
    return folder


def run_page(page, folder):
    """Runs a page's Python blocks in one module, in the folder; returns what they print."""
    module = types.ModuleType("example")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
        sys.modules[module.__name__] = module
        for number, block in enumerate(blocks(page, "python"), 1):
            exec(compile(block, f"{name(page)}, block {number}", "exec"), module.__dict__)
    return out.getvalue()


@pytest.fixture(scope="module")
def quick_start(folder):
    """The output of the quick start, whose records and run the guides use; the run is exported too."""
    import eo_keras as eo

    out = run_page(README, folder)
    eo.export(eo.open_run(folder / "runs" / "a"), folder / "serving" / "eurosat")
    return out


def test_the_quick_start_in_python_runs(quick_start):
    assert re.search(r"^accuracy [\d.]+%, 95 % interval [\d.]+% to [\d.]+%$", quick_start, re.MULTILINE)


@pytest.mark.parametrize("page", [one for one in _pages_with("python") if one.values != (README,)])
def test_python_examples_run(page, quick_start, folder):
    run_page(page, folder)


@functools.cache
def flags_of(command):
    """The names of a command's flags, "no" before those that are switches."""
    values = _flag_values(command)
    return {form for flag in values for form in (flag, f"no{flag}" if values[flag].boolean else flag)}


def _flag_values(command):
    values = flags.FlagValues()
    importlib.import_module(f"launch.{command}").define_flags(values)
    app.define_flags(values)
    return values


def check(words):
    """Refuses a shell command that does not exist, or flags that it cannot parse."""
    program, *rest = itertools.dropwhile(re.compile(r"[A-Z_]+=").match, words)
    if program == "eo-keras":
        command, *rest = rest
        assert command in command_names.COMMANDS, words
        assert flag_files.parse(_flag_values(command), [command, *rest]) == [command]
    elif program == "make":
        assert set(rest) <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)), words
    elif program.endswith("/pip"):
        extras = re.findall(r"\[(\w+)\]", " ".join(rest))
        assert all(f'"{extra}": [' in (ROOT / "setup.py").read_text() for extra in extras), words
    else:
        assert program in ("python3", "source", "tensorboard"), words


@pytest.mark.parametrize("page", _pages_with("shell"))
def test_shell_examples_can_be_parsed(page, tmp_path, monkeypatch):
    # Flag files are read.
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "flags.txt").write_text("--model=compact\n--records_dir=records/rgb\n")
    monkeypatch.chdir(tmp_path)
    for text in blocks(page, "shell"):
        for words in command_lines(text):
            check(words)


@pytest.mark.parametrize("page", [pytest.param(page, id=name(page)) for page in PAGES if "--" in page.read_text()])
def test_flags_named_in_the_text_exist(page):
    known = set().union(*map(flags_of, command_names.COMMANDS)) | {"flagfile", "help", "version", "name"}
    text = re.sub(r"--(beam_option)=--\w+", r"--\1", page.read_text())
    named = set(re.findall(r"(?<![\w-])--([a-z]\w+)", text))
    assert named <= known | OF_OTHERS, f"{sorted(named - known - OF_OTHERS)} are flags of no command"


def test_the_quick_start_in_the_shell_runs(folder, tmp_path, monkeypatch):
    (quick_start,) = (text for text in blocks(README, "shell") if "eo-keras train" in text)
    shorter = {
        "download": ["--dry_run"],  # The archive is generated.
        "train": [f"--model={tiny.CLASSIFIER}", "--epochs=1", "--warmup_epochs=0", "--steps_per_epoch=2"]
        + ["--batch_size=32", "--progressive_sizes=", "--progressive_epochs="],
    }
    monkeypatch.chdir(tmp_path)
    write_eurosat_archive("data/EuroSAT_RGB.zip", kind="rgb", patches_per_class=20)
    for program, command, *words in command_lines(quick_start):
        assert program == "eo-keras"
        result = launch(command, *words, *shorter.get(command, []))
        assert result.returncode == 0, result
    assert "accuracy" in result.stdout


def test_the_notebook_runs(tmp_path, monkeypatch):
    """By the IPython that is in Jupyter's kernel."""
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # The shell puts its own in its place.
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source).raise_error()
    assert (tmp_path / "serving" / "eurosat" / "1" / "saved_model.pb").exists()
