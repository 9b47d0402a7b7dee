"""Completion scripts of shells for `eo-keras`: names of commands, flags, choices and flag files.

A script holds the names itself, so that completing starts no Python; after an update of the package it is printed
again.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence

from absl import flags

import eo_keras
from launch import app, command_names, flag_files
from launch.path_flags import PathParser

SHELLS = ("bash", "zsh")


@dataclasses.dataclass(frozen=True)
class _Flag:
    """Properties of a flag for completion.

    Attributes:
        name: its name.
        text: its help, the first sentence.
        boolean: whether it may stand without a value, and with "no" before its name.
        repeated: whether it may be given several times.
        path: whether its value is a path.
        choices: its values, if they are few.
    """

    name: str
    text: str
    boolean: bool = False
    repeated: bool = False
    path: bool = False
    choices: tuple[str, ...] = ()


def script(shell: str, others: Mapping[str, str]) -> str:
    """Returns the script for a shell.

    Args:
        shell: one of `SHELLS`.
        others: names and explanations of what the program does beside the commands.
    """
    commands = {name: _flags(name) for name in command_names.COMMANDS}
    return {"bash": _bash, "zsh": _zsh}[shell](commands, others)


def _flags(command: str) -> list[_Flag]:
    module = importlib.import_module(f"{__package__}.{command}")
    values = flags.FlagValues()
    module.define_flags(values)
    app.define_flags(values)
    return [_described(flag) for flag in app.visible_flags(values)]


def _described(flag: flags.Flag) -> _Flag:
    declared = getattr(flag, "declared", None)
    choices = declared.option.choices if declared is not None else getattr(flag.parser, "enum_values", None)
    text = re.sub(r"^<.*?>: ", "", " ".join(flag.help.split()))  # absl begins with the choices.
    return _Flag(
        flag.name,
        textwrap.shorten(re.split(r"[.;] |\.$", text)[0], 80, placeholder=" ..."),
        boolean=bool(flag.boolean),
        repeated=isinstance(flag, flags.MultiFlag),
        path=isinstance(flag.parser, PathParser),
        choices=tuple(map(str, choices or ())),
    )


_HEAD = f"""\
# Completion of {command_names.PROGRAM} {eo_keras.__version__}, printed by: {command_names.PROGRAM} completion %s
"""

_BASH = """\
_eo_keras() {
    local command=${COMP_WORDS[1]} word=${COMP_WORDS[COMP_CWORD]} flag="" before="" words="" paths=""
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "%(commands)s" -- "$word"))
        return
    fi
    # --name=value is three words where = divides words, which is the default of bash.
    if [[ $word == "=" ]]; then
        flag=${COMP_WORDS[COMP_CWORD-1]} word=""
    elif [[ ${COMP_WORDS[COMP_CWORD-1]} == "=" ]]; then
        flag=${COMP_WORDS[COMP_CWORD-2]}
    elif [[ $word == --*=* ]]; then
        flag=${word%%%%=*} before=${word%%%%=*}= word=${word#*=}
    fi
    if [[ -z $flag ]]; then
        case $command in
%(flags)s
        esac
        COMPREPLY=($(compgen -W "$words" -- "$word"))
        [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
        return
    fi
    case "$command $flag" in
%(values)s
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if [[ $paths ]]; then
        local IFS=$'\\n'
        compopt -o filenames 2>/dev/null
        COMPREPLY+=($(compgen -f -- "$word"))
    fi
    COMPREPLY=("${COMPREPLY[@]/#/$before}")
}
complete -F _eo_keras %(program)s
"""


def _bash(commands: Mapping[str, Sequence[_Flag]], others: Mapping[str, str]) -> str:
    installed = " ".join(flag_files.installed())
    words, values = [], [f'*" --flagfile") words="{installed}" paths=yes ;;']
    for command, known in commands.items():
        names = ["--flagfile=", "--help", "--version"]
        for flag in known:
            names += [f"--{flag.name}", f"--no{flag.name}"] if flag.boolean else [f"--{flag.name}="]
            if flag.choices:
                values.append(f'"{command} --{flag.name}") words="{" ".join(flag.choices)}" ;;')
        words.append(f'{command}) words="{" ".join(sorted(set(names)))}" ;;')
        if paths := [f'"{command} --{flag.name}"' for flag in known if flag.path]:
            values.append(f"{' | '.join(paths)}) paths=yes ;;")
    words += [f'flagfiles) words="{installed}" ;;', f'completion) words="{" ".join(SHELLS)}" ;;']
    return _HEAD % "bash" + _BASH % {
        "program": command_names.PROGRAM,
        "commands": " ".join([*commands, *others, "--help", "--version"]),
        "flags": textwrap.indent("\n".join(words), " " * 12),
        "values": textwrap.indent("\n".join(values), " " * 8),
    }


_ZSH = """\
_eo_keras_flagfiles() {
    _alternative 'installed:installed flag file:(%(flagfiles)s)' 'files:file:_files'
}
_eo_keras() {
    local -a commands
    commands=(
%(commands)s
    )
    if ((CURRENT == 2)); then
        _describe -t commands command commands
        return
    fi
    shift words
    ((CURRENT--))
    case $words[1] in
%(flags)s
        flagfiles) _arguments '1:installed flag file:(%(flagfiles)s)' ;;
        completion) _arguments '1:shell:(%(shells)s)' ;;
    esac
}
# Read from a folder of fpath, the file is the function's body; sourced, it defines the function.
if [[ $funcstack[1] == _%(program)s ]]; then
    _eo_keras "$@"
else
    compdef _eo_keras %(program)s
fi
"""


def _zsh(commands: Mapping[str, Sequence[_Flag]], others: Mapping[str, str]) -> str:
    cases = []
    for command, known in commands.items():
        words = [
            "'--flagfile=-[Reads flags from a file]:flag file:_eo_keras_flagfiles'",
            "'--help[Explains the flags]'",
        ]
        words += [_argument(flag) for flag in known]
        cases.append(f"{command}) _arguments \\\n" + textwrap.indent(" \\\n".join(words), " " * 4) + " ;;")
    explained = {name: command_names.first_line(name) for name in commands} | dict(others)
    described = [shlex.quote(f"{name}:{text}") for name, text in explained.items()]
    return (
        f"#compdef {command_names.PROGRAM}\n"
        + _HEAD % "zsh"
        + _ZSH
        % {
            "program": command_names.PROGRAM,
            "commands": textwrap.indent("\n".join(described), " " * 8),
            "flags": textwrap.indent("\n".join(cases), " " * 8),
            "flagfiles": " ".join(flag_files.installed()),
            "shells": " ".join(SHELLS),
        }
    )


def _argument(flag: _Flag) -> str:
    """Returns a flag as an argument of zsh's `_arguments`."""
    text = flag.text.replace("\\", "").replace("[", "(").replace("]", ")").replace(":", " -")
    if flag.boolean:
        return shlex.quote(f"--{flag.name}[{text}]")
    values = f"({' '.join(flag.choices)})" if flag.choices else "_files" if flag.path else ""
    return shlex.quote(f"{'*' if flag.repeated else ''}--{flag.name}=-[{text}]:{flag.name}:{values or ' '}")
