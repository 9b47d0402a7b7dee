"""The program `eo-keras`: commands by name, flag files, completion, and what an installation holds."""

import ast
import fnmatch
import functools
import importlib
import pathlib
import runpy
import shutil
import subprocess
import sys

import pytest
import setuptools
from absl import flags

import eo_keras
from launch import app, command_names, flag_files
from tests.launch.commands import assert_one_line_error

ROOT = pathlib.Path(__file__).parents[2]


@functools.cache
def program(*words, **keywords):
    """Runs the program, which the installed script starts by the same function."""
    return subprocess.run([sys.executable, "-m", "launch", *words], capture_output=True, text=True, **keywords)


@pytest.fixture
def by_program():
    """The user has typed eo-keras."""
    command_names.start_by_program("train")
    yield
    command_names._State.by_program, command_names._State.name = False, ""


def test_help_lists_every_command():
    modules = [path for path in (ROOT / "launch").glob("*.py") if "    app.run(main)" in path.read_text()]
    assert sorted(command_names.COMMANDS) == sorted(path.stem for path in modules)
    out = program("--help").stdout
    for path in modules:
        first = ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]
        assert any(line.split(maxsplit=1) == [path.stem, first] for line in out.splitlines()), path.stem
    assert out.startswith(f"EO-Keras {eo_keras.__version__}: ") and "\n  completion " in out and "\n  flagfiles " in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "eo-keras: error: no command is given; see eo-keras --help"),
        (["trian"], "eo-keras: error: there is no command 'trian'; did you mean train? See eo-keras --help"),
        (["#"], "eo-keras: error: there is no command '#'; see eo-keras --help"),
        (["completion"], "eo-keras completion: error: '' is no shell; expected bash or zsh. See eo-keras --help"),
        (["flagfiles", "dmo"], "no flag file 'dmo' is installed; did you mean demo.flags? See eo-keras flagfiles"),
        (["download", "--dataset=x"], "eo-keras download: error: flag --dataset=x: value should be one of <"),
        (["download"], "; see eo-keras download --help"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words, message):
    assert_one_line_error(program(*words), message)


@pytest.mark.parametrize("words", [["--version"], ["download", "--version"], ["export", "--version"]])
def test_version(words):
    assert program(*words).stdout == f"eo-keras {eo_keras.__version__}\n"


def test_a_command_is_named_as_the_user_called_it():
    out = program("download", "--help").stdout
    assert "\nExample: eo-keras download --dataset=" in out and "\nusage: eo-keras download --name=value" in out
    assert "launch." not in out
    done = program("download", "--dataset=eurosat_rgb", "--dry_run")
    assert done.returncode == 0 and "dry run: would" in done.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("next: python -m launch.evaluate --run_dir=a", "next: eo-keras evaluate --run_dir=a"),
        ("made by launch.train.", "made by eo-keras train."),
        ("set `crop=65` of launch.train", "set --crop=65 of eo-keras train"),
        ("/home/launch.train, launch.json, launch.trainer", "/home/launch.train, launch.json, launch.trainer"),
    ],
)
def test_texts_name_commands_as_typed(by_program, text, expected):
    assert app.with_flags(text) == expected


def test_texts_name_modules_after_python_m():
    assert app.with_flags("python -m launch.train, `crop=65`") == "python -m launch.train, --crop=65"


def test_flag_files_are_listed_and_printed():
    lines = program("flagfiles").stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.name for path in flag_files.INSTALLED.glob("*.flags"))
    assert lines[0].split(maxsplit=1)[1] == "The demo's small network on 1,600 synthetic RGB patches"
    for name in ("demo", "demo.flags"):
        assert program("flagfiles", name).stdout == (flag_files.INSTALLED / "demo.flags").read_text()


@functools.cache
def script(shell):
    done = program("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def bash(*words):
    """Returns what bash proposes for the last of the words; it takes --name=value for three."""
    typed = " ".join(f"'{word}'" for word in words)
    call = f'\nCOMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _eo_keras; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script("bash") + call], capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes(tmp_path, monkeypatch):
    (tmp_path / "deal.flags").touch()
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert bash("eo-keras", "e") == ["evaluate", "export"]
    assert bash("eo-keras", "train", "--rec") == ["--records_dir="]
    assert bash("eo-keras", "download", "--dry") == ["--dry_run"]
    assert bash("eo-keras", "evaluate", "--tta", "=") == ["none", "d4"]
    assert bash("eo-keras", "evaluate", "--tta", "=", "d") == ["d4"]
    assert bash("eo-keras", "evaluate", "--tta=d") == ["--tta=d4"]
    assert bash("eo-keras", "train", "--flagfile", "=", "de") == ["demo.flags", "demo_maps.flags", "deal.flags"]
    assert bash("eo-keras", "train", "--run_dir", "=", "r") == ["runs"]
    assert bash("eo-keras", "flagfiles", "demo_") == ["demo_maps.flags"]
    assert bash("eo-keras", "completion", "") == ["bash", "zsh"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_reads_its_script(tmp_path):
    done = subprocess.run(["zsh", "-f", "-n", "-c", script("zsh")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_names_the_flags_of_every_command(shell):
    for flag in ("--dataset=", "--records_dir=", "--learning_rate=", "--sweep_dir=", "--export_dir=", "--check_flags="):
        assert flag in script(shell), flag


def test_an_installation_holds_every_file_that_is_no_python(monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **keywords: given.update(keywords))
    runpy.run_path(str(ROOT / "setup.py"))
    packages = given["packages"]
    for package in ("eo_keras", "tfrecords_builder", "launch"):
        files = [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        for path in files:
            name = str(path.relative_to(ROOT / package))
            inside = path.suffix == ".py" or any(fnmatch.fnmatch(name, one) for one in given["package_data"][package])
            assert inside, path
            if path.suffix == ".py":
                assert ".".join(path.parent.relative_to(ROOT).parts) in packages, path
    assert given["entry_points"]["console_scripts"] == ["eo-keras = launch.__main__:main"]


def test_the_flags_of_all_commands_can_be_defined_in_one_process():
    before = set(flags.FLAGS)
    for name in command_names.COMMANDS:
        values = flags.FlagValues()
        app.define_flags(values)
        importlib.import_module(f"launch.{name}").define_flags(values)
        # Flags of absl and of every command come besides.
        assert len(set(values) - before) > 1, name
    assert set(flags.FLAGS) == before
