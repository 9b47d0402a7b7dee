"""Commands run as a user runs them: each a process of its own."""

import subprocess
import sys


def launch(command, *arguments, **flags):
    words = [*map(str, arguments), *(f"--{name}={value}" for name, value in flags.items())]
    return subprocess.run([sys.executable, "-m", f"launch.{command}", *words], capture_output=True, text=True)


def assert_one_line_error(result, words):
    assert result.returncode == 2, result
    assert result.stderr.count("\n") == 1 and words in result.stderr, result.stderr
    assert result.stdout == ""
