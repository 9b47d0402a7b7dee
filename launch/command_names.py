"""Names of the commands, and the form that the user typed: `eo-keras NAME` or `python -m launch.NAME`."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import sys

PROGRAM = "eo-keras"

COMMANDS = (
    *("download", "build", "inspect", "train", "sweep", "evaluate", "predict", "map", "assess", "export", "doctor"),
    "demo",
)
"""Modules of this package that are commands, in the order of the workflow."""

_MODULE = re.compile(rf"(?:\bpython -m |(?<![\w./-]))launch\.({'|'.join(COMMANDS)})\b(?![/-]|\.\w)")


class _State:
    by_program = False
    name = ""


def start_by_program(name: str = "") -> None:
    """Records that the user typed `eo-keras`, with the name of a command or without."""
    _State.by_program, _State.name = True, name


def by_program() -> bool:
    """Returns whether the user typed `eo-keras`."""
    return _State.by_program


def running() -> str:
    """Returns the name of the running command for messages: `eo-keras train` or `launch.train`."""
    if _State.by_program:
        return f"{PROGRAM} {_State.name}".strip()
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return spec.name
    words = sys.orig_argv
    return words[words.index("-m") + 1] if "-m" in words[:-1] else os.path.basename(sys.argv[0])


def command_line() -> str:
    """Returns the shell command of the running command: `eo-keras train` or `python -m launch.train`."""
    return running() if _State.by_program else f"python -m {running()}"


def as_typed(text: str) -> str:
    """Returns a text with commands in the form that the user typed.

    Texts name commands `launch.train` and `python -m launch.train`; after `eo-keras`, both become `eo-keras train`.
    """
    return _MODULE.sub(rf"{PROGRAM} \1", text) if _State.by_program else text


def first_line(command: str) -> str:
    """Returns the first line of a command's docstring, without importing its module."""
    text = pathlib.Path(__file__).with_name(f"{command}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
