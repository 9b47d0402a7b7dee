"""Flag files: one flag a line, in UTF-8 or with a byte order mark; errors name file and line."""

from __future__ import annotations

import codecs
import difflib
import itertools
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from eo_keras.core import files
from eo_keras.errors import OptionError, StorageError
from eo_keras.runs import folder as runs
from launch import options
from launch.path_flags import PathParser

INSTALLED = pathlib.Path(__file__).parent / "flagfiles"
"""Folder of the flag files that come with the package."""

SUFFIX = ".flags"

_BYTE_ORDER_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_FORM = "a line --name=value, or a comment that begins with #"
_UNREADABLE = re.compile("[\0\udc80-\udcff]")
"""Pattern of characters that stand for bytes that are not UTF-8, and of the zeros of UTF-16."""

_MOST_BYTES = 1 << 20


def installed() -> dict[str, pathlib.Path]:
    """Returns the flag files that come with the package, by name."""
    return {path.name: path for path in sorted(INSTALLED.glob(f"*{SUFFIX}"))}


def find_installed(name: str) -> pathlib.Path | None:
    """Returns the flag file of this name that comes with the package, the suffix left out or not, or None."""
    files_by_name = installed()
    return files_by_name.get(name) or files_by_name.get(f"{name}{SUFFIX}")


def nearest_installed(name: str) -> str | None:
    """Returns the name of the installed flag file that is most similar to an unknown name, or None."""
    names = {path.stem: path.name for path in installed().values()}
    near = difflib.get_close_matches(name.removesuffix(SUFFIX), names, 1)
    return names[near[0]] if near else None


def title(path: pathlib.Path) -> str:
    """Returns the beginning of the first comment of a flag file, up to a colon, a bracket or a full stop."""
    head = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return re.split(r" ?[:;(]|\.(?= [A-Z]|$)", " ".join(line.lstrip("# ") for line in head))[0]


def parse(flag_values: flags.FlagValues, argv: Sequence[str], *, named_by: str = "--flagfile") -> list[str]:
    """Sets flags from a command line and from the flag files that it names, later ones over earlier ones.

    Args:
        flag_values: the flags.
        argv: the command line, the program's name first.
        named_by: name in messages of the flag that names a file.

    Returns:
        The words that are no flags, as `flag_values(argv)` does, the program's name first.

    Raises:
        OptionError: if a flag file cannot be read, or a line of it is no flag or has a value that its flag refuses.
        flags.Error: if the command line has such a flag, or a required one is missing.
    """
    words, rest = [argv[0]], list(argv[1:])
    renamed = _Renamed(flag_values, "the command line")
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in ("--flagfile", "-flagfile"):
            if not equals:
                value = rest.pop(0) if rest else ""
            words += _Reader(flag_values, words).words(value, named_by)
            continue
        words.append(renamed(word))
        if word == "--":
            words += rest
            break
    return flag_values(words)


_warned: set[str] = set()
"""Earlier names of flags that this process has warned about."""


class _Renamed:
    """Translator of earlier names of flags to present ones, in one flag file or on the command line.

    Args:
        flag_values: the flags, see `launch.options.aliases`.
        where: its place, for messages.
    """

    def __init__(self, flag_values: flags.FlagValues, where: str):
        self._present = options.aliases(flag_values)
        self._where = where
        self._given: dict[str, str] = {}

    def __call__(self, word: str) -> str:
        """Returns a word, such as `--name=value`, `--name` or `--noname`, with the present name of its flag.

        Raises:
            OptionError: if a flag is given by both of its names.
        """
        match = re.match(r"--?(no)?([\w-]+)", word)
        if match is None:
            return word
        negation, name = match.groups(default="")
        if negation + name in self._present:
            negation, name = "", negation + name
        present = self._present.get(name, name)
        if self._given.setdefault(present, name) != name:
            both = f"{self._where} gives it also as --{self._given[present]}"
            raise OptionError(f"--{name}", both, f"--{present} alone", "leave one out")
        if name == present:
            return word
        if name not in _warned:
            _warned.add(name)
            print(f"warning: --{name} is now --{present}; its old name will not be read much longer", file=sys.stderr)
        return f"--{negation}{present}{word[match.end() :]}"


class _Reader:
    """Reader of flag files, which become words of a command line.

    Args:
        flag_values: the flags of the command.
        before: the words before; --undefok in them allows unknown flags.
    """

    def __init__(self, flag_values: flags.FlagValues, before: Sequence[str]):
        self._flags = flag_values
        self._allowed: set[str] = set()
        self._open: list[pathlib.Path] = []
        for word in before:
            self._allow(*word.lstrip("-").partition("=")[::2])

    def words(self, name: str, where: str) -> Iterator[str]:
        """Yields the flags of a file and of those that it names in turn, a word each.

        Args:
            name: the file.
            where: the flag or line that names it, for messages.
        """
        path = self._find(name, where)
        real = path.resolve()
        if real in self._open:
            raise OptionError(where, f"it leads back to {path}, which is being read", remedy="leave this line out")
        self._open.append(real)
        folder, renamed = _folder_of_run(path), _Renamed(self._flags, str(path))
        for number, line in enumerate(_lines(path, where), start=1):
            here = f"{path}, line {number}"
            if not line or line.startswith(("#", "//")):
                continue
            if bad := _UNREADABLE.search(line):
                problem = f"byte 0x{ord(bad[0]) & 0xFF:02x}, character {bad.start() + 1}, is not UTF-8"
                raise OptionError(here, problem, "text in UTF-8", "save the file as UTF-8")
            yield from self._words(renamed(line), here, folder)
        self._open.pop()

    def _find(self, name: str, where: str) -> pathlib.Path:
        """Searches the file beside the one that names it, in the current folder, and among the installed ones."""
        if not name:
            raise OptionError(where, "no file is named", "--flagfile=FILE")
        try:
            path = pathlib.Path(files.expand_home(name))
        except StorageError as error:
            raise OptionError(where, str(error)) from None
        places = [self._open[-1].parent / path] if self._open else []
        places.append(path)
        # The second is how a working copy of the repository names them.
        if path.parent in (pathlib.Path(), pathlib.Path("launch/flagfiles")) and (shipped := find_installed(path.name)):
            places.append(shipped)
        for place in places:
            if place.is_file():
                return place
        folder = next((place for place in places if place.is_dir()), None)
        if folder is not None:
            inside = folder / runs.FLAGS_NAME
            remedy = f"say --flagfile={inside}" if inside.is_file() else "name a file in it"
            raise OptionError(where, f"{folder} is a folder", "a flag file", remedy)
        if not path.exists():
            near = nearest_installed(path.name)
            raise OptionError(
                where,
                f"there is no {path}",
                f"a flag file: a path, or the name of an installed one ({', '.join(installed())})",
                f"did you mean {near}?" if near else "check the path",
            )
        return path  # A pipe, such as a shell's <(...).

    def _words(self, line: str, here: str, folder: pathlib.Path | None) -> Iterator[str]:
        match = re.fullmatch(r"--?([\w.-]+)(\s*=\s*|\s+|$)(.*)", line, re.DOTALL)
        if match is None:
            match = re.fullmatch(r"\W*([\w-]+)\s*[=:\s]\s*(.*)", line)
            known = match is not None and match[1] in self._flags
            remedy = f"write --{match[1]}={match[2]}" if known else ""
            raise OptionError(here, f"'{line}' is no flag", _FORM, remedy)
        name, between, value = match.groups()
        if name == "flagfile":
            yield from self.words(value, here)
            return
        self._allow(name, value)
        if name == "undefok" or name in self._allowed:
            yield f"--{name}={value}" if between else f"--{name}"
            return
        negated = name.removeprefix("no")
        if name not in self._flags and negated in self._flags and self._flags[negated].boolean and not between:
            yield f"--{name}"
            return
        if name not in self._flags:
            near = difflib.get_close_matches(name.replace("-", "_"), list(self._flags), 1)
            raise OptionError(here, f"there is no flag --{name}", remedy=f"did you mean --{near[0]}?" if near else "")
        flag = self._flags[name]
        if not between:
            if not flag.boolean:
                raise OptionError(here, f"--{name} has no value", f"--{name}=VALUE")
            yield f"--{name}"
            return
        try:
            parsed = flag.parser.parse(value)
        except (ValueError, TypeError) as error:
            reason = error.args[0] if error.args else error
            raise OptionError(here, f"--{name}={value}: {reason}") from None
        if isinstance(flag.parser, PathParser) and folder is not None and "://" not in parsed:
            # A run's relative paths start in the folder where it was trained, unless they exist in this one.
            moved = folder / parsed
            value = str(moved) if not os.path.lexists(parsed) and moved.exists() else value
        yield f"--{name}={value}"

    def _allow(self, name: str, value: str) -> None:
        if name == "undefok":
            self._allowed.update(one.strip() for one in value.split(","))


def _folder_of_run(path: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder in which a run was begun, if the file is its `flags.txt` and it is known."""
    if path.name != runs.FLAGS_NAME:
        return None
    return runs.working_directory(path.parent)


def _lines(path: pathlib.Path, where: str) -> list[str]:
    """Returns the lines without blanks around them; bytes that are no UTF-8 become the characters of `_UNREADABLE`."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise OptionError(where, f"{path} cannot be read ({error.strerror})", "a flag file") from None
    if len(data) > _MOST_BYTES:
        raise OptionError(where, f"{path} is longer than {_MOST_BYTES:,} bytes", "a flag file")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, "surrogateescape")
    except UnicodeDecodeError as error:
        problem = f"its first bytes say {encoding}, but it is not ({error.reason})"
        raise OptionError(path, problem, "text in UTF-8", "save the file as UTF-8") from None
    # Files that were joined hold a byte order mark within.
    return [line.strip().strip("\ufeff").strip() for line in re.split(r"\r\n|\r|\n", text)]
