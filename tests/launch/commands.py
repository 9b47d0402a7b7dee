"""Commands run as a user runs them: each a process of its own."""

import atexit
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile


@dataclasses.dataclass(frozen=True)
class Started:
    """A module that runs in a fork of a process that has TensorFlow imported, which saves seconds.

    Attributes:
        words: its arguments.
        pid: its process.
        folder: where `out` and `err` hold what it writes.
    """

    words: tuple[str, ...]
    pid: int
    folder: tempfile.TemporaryDirectory

    @property
    def out(self):
        """The path of its standard output, which may be read while it runs."""
        return pathlib.Path(self.folder.name) / "out"

    def wait(self):
        """Waits for its end, and returns exit code and outputs."""
        code = _call({"wait": self.pid})
        out, err = ((pathlib.Path(self.folder.name) / name).read_text() for name in ("out", "err"))
        self.folder.cleanup()
        return subprocess.CompletedProcess(self.words, code, out, err)


def start(module, *words, variables=None):
    """Starts `python -m MODULE WORDS`, or `python -c WORDS` for the module "-c", with further environment variables."""
    folder, words = tempfile.TemporaryDirectory(), tuple(map(str, words))
    out, err = (os.path.join(folder.name, name) for name in ("out", "err"))
    pathlib.Path(out).touch()  # A caller may read it before the process opens it.
    given = {"module": module, "words": words, "folder": os.getcwd(), "out": out, "err": err}
    return Started(words, _call(given | {"variables": dict(os.environ) | (variables or {})}), folder)


def launch(command, *arguments, **flags):
    """Runs a command to its end."""
    return start(f"launch.{command}", *_words(arguments, flags)).wait()


def _words(arguments, flags):
    return [*map(str, arguments), *(f"--{name}={value}" for name, value in flags.items())]


def _call(request):
    server = _server()
    print(json.dumps(request), file=server.stdin, flush=True)
    return int(server.stdout.readline())


@functools.cache
def _server():
    root = pathlib.Path(__file__).parents[2]
    command, pipe = [sys.executable, "-m", "tests.launch.command_server"], subprocess.PIPE
    # Its standard error is this process's: an error of the server itself is shown.
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root, start_new_session=True)
    atexit.register(server.kill)
    assert server.stdout.readline() == "ready\n"
    return server


def assert_one_line_error(result, words):
    assert result.returncode == 2, result
    assert result.stderr.count("\n") == 1 and words in result.stderr, result.stderr
    assert result.stdout == ""
