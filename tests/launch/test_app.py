import os
import signal
import subprocess
import sys

import pytest
from absl import flags

from eo_keras.errors import SourceError
from launch import app, options, progress_lines


@pytest.fixture
def values():
    """Flags of a made-up command, beside those of every command."""
    values = flags.FlagValues()
    app.define_flags(values)
    ours = {"flag_values": values, "module_name": "launch.imagined"}
    flags.DEFINE_string("name", None, "Some name.", required=True, **ours)
    flags.DEFINE_integer("count", 3, "Some count.", lower_bound=1, **ours)
    flags.DEFINE_bool("fast", False, "Whether to hurry.", **ours)
    flags.DEFINE_bool("overwrite", False, "Whether to replace.", **ours)
    options.not_repeated(values, "overwrite")
    flags.DEFINE_multi_string("bands", None, "Some bands.", **ours)
    flags.DEFINE_string("foreign", "x", "A library's flag.", flag_values=values, module_name="library")
    return values


def run(values, *arguments, main=lambda: None):
    return app.exit_code(main, ["command", *arguments], values)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name=a", "--bogus"], "bogus"),
        (["--name=a", "--count=x"], "--count"),
        (["--name=a", "--count=0"], "--count"),
        (["--name=a", "stray"], "stray argument 'stray'"),
        ([], "--name"),
        (["--flagfile=/no/such/file"], "/no/such/file"),
    ],
)
def test_mistakes_are_one_line(values, capsys, arguments, words):
    assert run(values, *arguments, main=lambda: pytest.fail("called")) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and ": error: " in err and words in err


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(("error", "code"), [(SourceError("a.zip", "it is\nbad"), 2), (ZeroDivisionError("oh"), 1)])
def test_tracebacks_are_for_debug_only(values, capsys, error, code, debug):
    def fail():
        raise error

    assert run(values, "--name=a", f"--debug={debug}", main=fail) == code
    err = capsys.readouterr().err
    assert ("Traceback" in err) == debug
    last = err.splitlines()[-1]
    if code == 2:
        assert last.endswith(": error: a.zip: it is bad")
    else:
        assert "ZeroDivisionError: oh; run again with --debug for the traceback" in last


def test_interrupted(values, capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert run(values, "--name=a", main=interrupt) == 130
    err = capsys.readouterr().err
    assert err.endswith(": interrupted\n") and err.count("\n") == 1


def test_help(values, capsys):
    for word in ("--help", "--helpshort"):
        assert run(values, word) == 0
        out, err = capsys.readouterr()
        assert err == "" and "--foreign" not in out
        assert "--count: Some count." in out and "--name: Some name. (required)" in out and "--dry_run" in out
    assert run(values, "--helpfull") == 0
    assert "--foreign" in capsys.readouterr().out


def test_flags_text_repeats_the_command(values, tmp_path):
    given = ["--name=a b", "--fast", "--bands=B02", "--bands=B03", "--overwrite", "--dry_run"]
    assert run(values, *given) == 0
    expected = {"name": "a b", "count": 3, "fast": True, "bands": ["B02", "B03"]}
    assert app.own_flags(values) == expected
    text = app.flags_text(values)
    assert sorted(text.splitlines()) == ["--bands=B02", "--bands=B03", "--count=3", "--fast=true", "--name=a b"]
    (tmp_path / "flags").write_text(text)
    values.unparse_flags()
    for name in values:
        values[name].unparse()
    assert run(values, f"--flagfile={tmp_path / 'flags'}") == 0
    assert app.own_flags(values) == expected and not values.overwrite


def test_a_command_as_a_process(tmp_path):
    (tmp_path / "tiny.py").write_text(
        '"""Does next to nothing."""\n'
        "from absl import flags\n"
        "from launch import app as common\n"
        'flags.DEFINE_integer("count", 3, "Some count.")\n'
        "def main():\n"
        "    print(common.flags_text(), end='', flush=True)\n"
        "    if flags.FLAGS.count == 9: raise KeyboardInterrupt\n"
        "common.run(main)\n"
    )
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])

    def tiny(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "tiny", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )

    done = tiny("--count=4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "--count=4\n", "")
    shown = tiny("--help")
    assert shown.returncode == 0 and shown.stdout.startswith("Does next to nothing.\n") and "Some count" in shown.stdout
    stray = tiny("x")
    assert stray.returncode == 2 and stray.stderr.startswith("tiny: error: stray argument 'x'")
    assert tiny("--count=9").returncode == 128 + signal.SIGINT


class Terminal:
    def __init__(self, terminal):
        self.text, self._terminal = "", terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return self._terminal


def test_without_a_terminal_a_line_tells_every_so_often(monkeypatch):
    clock = iter([0.0, 4.0, 12.0, 13.0, 30.0, 1000.0, 1059.0, 1061.0])
    monkeypatch.setattr(progress_lines.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "stderr", Terminal(False))
    bars = app.ProgressBars(unit="steps")
    for done in (10, 30, 31, 75, 90, 95, 99):
        bars("epoch 2/3", done, 100)
    bars.close()
    assert sys.stderr.text.splitlines() == [
        "epoch 2/3: 30 of 100 steps (30%), 2.5 a second, about 28 s left",
        "epoch 2/3: 75 of 100 steps (75%), 2.5 a second, about 10 s left",
        "epoch 2/3: 90 of 100 steps (90%), 0.09 a second, about 2 min left",
        "epoch 2/3: 99 of 100 steps (99%), 0.0933 a second, about 11 s left",
    ]
    clock = iter([0.0, 20.0])
    with app.progress(3_000_000, "downloading", unit="bytes") as advance:
        advance(2_000_000)
    assert sys.stderr.text.endswith("downloading: 2.0 of 3.0 MB (67%), 0.1 MB a second, about 10 s left\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bars_are_for_terminals(monkeypatch, terminal):
    monkeypatch.setattr(sys, "stderr", Terminal(terminal))
    with app.progress(5, "scanning", unit="patches") as advance:
        advance(2)
        advance(3)
    bars = app.ProgressBars(unit="patches")
    bars("reading", 1, 2)
    bars("reading", 2, 2)
    bars("writing", 7, 7)
    bars.close()
    bars.close()
    for words in ("scanning: 100%", "5/5", "reading: 100%", "2/2", "writing: 100%", "7/7"):
        assert (words in sys.stderr.text) == terminal


def test_functions_traced_for_each_of_many_models_bring_no_warning_of_tensorflows(monkeypatch):
    import tensorflow as tf

    logger, records = tf.get_logger(), []
    monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.setattr(logger, "handle", records.append)
    app.import_tensorflow_quietly()
    for number in range(8):
        tf.function(lambda value, number=number: value + number)(tf.constant(1))
    assert not records
