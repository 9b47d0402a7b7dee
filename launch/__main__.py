"""Program `eo-keras COMMAND --name=value ...`, which runs the module `launch.COMMAND`."""

import difflib
import os
import runpy
import sys
from typing import NoReturn

from launch import command_names

_OTHERS = {
    "flagfiles": "Lists the installed flag files; with a name, prints that file, to be copied and changed.",
    "completion": "Prints a script that completes commands and flags in a shell: eo-keras completion bash (or zsh).",
}
"""Built-in commands of the program, with their explanations."""


def main() -> None:
    """Runs the command of the first word."""
    command_names.start_by_program()
    words = sys.argv[1:]
    if not words:
        _fail("no command is given")
    name, rest = words[0], words[1:]
    if name in command_names.COMMANDS:
        command_names.start_by_program(name)
        sys.argv[1:] = rest
        runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)
        return
    try:
        if name in ("--help", "-help", "-h", "-?", "help"):
            print(_help())
        elif name == "--version":
            import eo_keras

            print(f"{command_names.PROGRAM} {eo_keras.__version__}")
        elif name in _OTHERS:
            command_names.start_by_program(name)
            if {"--help", "-h"} & set(rest):
                print(_OTHERS[name])
            else:
                print(_flagfiles(rest) if name == "flagfiles" else _completion(rest), end="")
        else:
            known = (*command_names.COMMANDS, *_OTHERS)
            near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
            _fail(f"there is no command '{name}'", f"did you mean {near[0]}?" if near else "")
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has closed it; the interpreter must not complain about that at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(problem: str, remedy: str = "", see: str = f"{command_names.PROGRAM} --help") -> NoReturn:
    ending = f"; {remedy} See {see}" if remedy else f"; see {see}"
    print(f"{command_names.running()}: error: {problem}{ending}", file=sys.stderr)
    sys.exit(2)


def _help() -> str:
    import eo_keras

    program = command_names.PROGRAM
    lines = [
        f"EO-Keras {eo_keras.__version__}: land use and land cover from Sentinel-2 with TensorFlow and Keras 3.",
        "",
        f"usage: {program} COMMAND --name=value ...",
        f"       {program} COMMAND --help",
        "",
    ]
    commands = {name: command_names.first_line(name) for name in command_names.COMMANDS}
    lines += [f"  {name:<12}{text}" for name, text in (commands | _OTHERS).items()]
    return "\n".join([*lines, "", "--flagfile=FILE reads flags from a file: a path, or the name of an installed one."])


def _flagfiles(words: list[str]) -> str:
    from launch import flag_files

    if not words:
        installed = flag_files.installed()
        width = max(map(len, installed))
        return "".join(f"{name:<{width}}  {flag_files.title(path)}\n" for name, path in installed.items())
    if len(words) > 1:
        _fail(f"'{words[1]}' follows '{words[0]}', but only one file is printed")
    path = flag_files.find_installed(words[0])
    if path is None:
        near = flag_files.nearest_installed(words[0])
        remedy = f"did you mean {near}?" if near else ""
        _fail(f"no flag file '{words[0]}' is installed", remedy, f"{command_names.PROGRAM} flagfiles")
    return path.read_text(encoding="utf-8")


def _completion(words: list[str]) -> str:
    from launch import completion

    if len(words) != 1 or words[0] not in completion.SHELLS:
        _fail(f"'{' '.join(words)}' is no shell", f"expected {' or '.join(completion.SHELLS)}.")
    return completion.script(words[0], _OTHERS)


if __name__ == "__main__":
    main()
