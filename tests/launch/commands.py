"""Commands run as a user runs them: each a process of its own."""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile


def launch(command, *arguments, **flags):
    """Runs a command in a fork of a process that has TensorFlow imported, which saves seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (os.path.join(folder, name) for name in ("out", "err"))
        given = {"module": f"launch.{command}", "words": _words(arguments, flags), "folder": os.getcwd()}
        server = _server()
        print(
            json.dumps(given | {"variables": dict(os.environ), "out": out, "err": err}), file=server.stdin, flush=True
        )
        code = int(server.stdout.readline())
        out, err = (pathlib.Path(path).read_text() for path in (out, err))
        return subprocess.CompletedProcess(given["words"], code, out, err)


def launch_whole(command, *arguments, **flags):
    """Runs a command from the interpreter's start on."""
    words = [sys.executable, "-m", f"launch.{command}", *_words(arguments, flags)]
    return subprocess.run(words, capture_output=True, text=True)


def _words(arguments, flags):
    return [*map(str, arguments), *(f"--{name}={value}" for name, value in flags.items())]


@functools.cache
def _server():
    root = pathlib.Path(__file__).parents[2]
    command, pipe = [sys.executable, "-m", "tests.launch.command_server"], subprocess.PIPE
    # Its standard error is this process's: what goes wrong in it itself is shown.
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root, start_new_session=True)
    atexit.register(server.kill)
    assert server.stdout.readline() == "ready\n"
    return server


def assert_one_line_error(result, words):
    assert result.returncode == 2, result
    assert result.stderr.count("\n") == 1 and words in result.stderr, result.stderr
    assert result.stdout == ""
