"""Functions of all commands: strict parsing of flags, errors in one line, exit codes and progress."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import tqdm
from absl import flags

import eo_keras
from eo_keras.core import process_memory
from eo_keras.errors import EOKerasError, OptionError
from launch import command_names, flag_files, interrupts, options
from launch.options import with_flags
from launch.progress_lines import ProgressLines

FLAGS = flags.FLAGS

EXIT_BAD_INPUT = 2
"""Exit code for every mistake in flags or input; absl's own are 1 for unknown flags and 0 for stray arguments."""


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of every command."""
    where = {"flag_values": flag_values, "module_name": __name__}
    flags.DEFINE_bool("dry_run", False, "Whether to print what would be done, and write nothing.", **where)
    flags.DEFINE_bool("debug", False, "Whether to print the traceback of an error.", **where)
    options.not_repeated(flag_values, "dry_run", "debug")


define_flags(FLAGS)

_HELP = {"--help", "-help", "--helpshort", "-helpshort", "--helpfull", "-helpfull", "-h", "-?"}


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow and Keras without their log lines.

    TensorFlow 2.21 writes some of them before it reads TF_CPP_MIN_LOG_LEVEL, straight to the process's standard error.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    process_memory.keep_freed()
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere, interrupts.standard_error_at(kept):
        os.dup2(nowhere.fileno(), 2)
        try:
            import keras  # noqa: F401
            import tensorflow
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    # Its Python side warns, for instance, of the fifth function traced: each run of a comparison has its own.
    tensorflow.get_logger().setLevel("ERROR")


def run(main: Callable[[], None], flag_values: flags.FlagValues = FLAGS) -> None:
    """Parses the command line, calls `main`, and ends the process with the exit code of `exit_code`."""
    interrupts.listen()
    sys.exit(exit_code(main, sys.argv, flag_values))


def exit_code(main: Callable[[], None], argv: list[str], flag_values: flags.FlagValues = FLAGS) -> int:
    """Parses a command line, calls `main`, and reports an error in one line on standard error.

    Args:
        main: the command's work, which reads `flag_values`.
        argv: the command line, the program's name first.
        flag_values: the command's flags, defined.

    Returns:
        0: done, or help or the version was printed. 2: a mistake in flags or input. 1: a fault of the program. 130 and
        143: interrupted by Ctrl-C or SIGTERM.
    """
    command, help_words = command_names.running(), _HELP & set(argv[1:])
    try:
        if argv[1:] == ["--version"]:
            print(f"{command_names.PROGRAM} {eo_keras.__version__}", flush=True)
            return 0
        if help_words:
            full = any(word.endswith("full") for word in help_words)
            print(_help(sys.modules["__main__"].__doc__ or "", flag_values, full=full), flush=True)
            return 0
        stray = flag_files.parse(flag_values, argv)[1:]
        if stray:
            raise flags.Error(f"stray argument {stray[0]!r}; every option is written --name=value")
        interrupts.begin()
        main()
        # A closed output is noticed here and not at the interpreter's end, where it would be a fault.
        sys.stdout.flush()
    except flags.Error as error:
        return _report(command, f"{error}; see {command_names.command_line()} --help")
    except EOKerasError as error:
        if flag_values.is_parsed() and flag_values.debug:
            traceback.print_exc()
        return _report(command, error_text(error, flag_values))
    except Stopped as stopped:
        return stopped.code
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has closed it; the interpreter must not complain about that at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if flag_values.is_parsed() and flag_values.debug:
            traceback.print_exc()
        message = f"a fault of the program: {type(error).__name__}: {error}; run again with --debug for the traceback"
        return _report(command, message, code=1)
    return 0


def say(text: str) -> None:
    """Prints a text to standard output at once, with options and commands as `with_flags` writes them."""
    print(with_flags(text), flush=True)


def error_text(error: EOKerasError, flag_values: flags.FlagValues) -> str:
    """Returns the message of an error, its place and options written as flags."""
    where, *rest = error.args
    if isinstance(error, OptionError) and where in flag_values:
        where = f"--{where}"
    return with_flags(EOKerasError(where, *rest).message)


def _report(command: str, message: str, code: int = EXIT_BAD_INPUT) -> int:
    print(f"{command}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _help(text: str, flag_values: flags.FlagValues, *, full: bool) -> str:
    lines = [text.strip(), "", f"usage: {command_names.command_line()} --name=value ...", ""]
    for flag in _flags(flag_values, full=full):
        if flag.default is None:
            default = "required" if _is_required(flag) else "default: none"
        else:
            # absl quotes all but lists; without its quotes an empty text would not be seen.
            default = f"default: {flag.default_as_str.strip(chr(39)) or flag.default_as_str}"
        lines += textwrap.wrap(
            # absl breaks a line within the help of flags that may be repeated.
            f"--{flag.name}: {' '.join(flag.help.split())} ({default})",
            110,
            initial_indent="  ",
            subsequent_indent=" " * 6,
        )
    lines += [
        "",
        "  --flagfile=FILE: Reads flags from a file, one a line; # begins a comment. FILE is a path, or the name of an",
        f"      installed file, which {command_names.PROGRAM} flagfiles lists.",
        "  --version alone: Prints the version of EO-Keras.",
    ]
    return command_names.as_typed("\n".join(lines))


def _flags(flag_values: flags.FlagValues, *, full: bool) -> list[flags.Flag]:
    """Returns the command's flags, then those of every command and, if `full`, those of all libraries."""
    by_module = flag_values.flags_by_module_dict()
    # absl names the module that runs by the script that it started from.
    running = [name for name in by_module if name in ("__main__", sys.argv[0])]
    launch = [name for name in by_module if name.startswith(f"{__package__}.")]
    others = [name for name in by_module if full and name not in (*running, *launch)]
    unique = {flag.name: flag for name in (*running, *launch, *others) for flag in by_module[name]}
    return list(unique.values())


def _is_required(flag: flags.Flag) -> bool:
    return any(flag.name in validator.get_flags_names() for validator in flag.validators)


def own_flags(flag_values: flags.FlagValues = FLAGS) -> dict[str, Any]:
    """Returns the values of the command's flags, given or by default, by name.

    Neither absl's own flags are among them nor those that do not change what is computed (such as --overwrite).
    """
    return {flag.name: flag.value for flag in _repeated(flag_values)}


def flags_text(flag_values: flags.FlagValues = FLAGS) -> str:
    """Returns `own_flags` as the text of a flag file that repeats the command; flags without a value are left out."""
    lines = []
    for flag in _repeated(flag_values):
        if flag.value is None:
            continue
        if flag.boolean:
            lines.append(f"--{flag.name}={str(flag.value).lower()}")
        else:
            # A flag that may be given several times takes a line each time.
            lines += flag.serialize().splitlines()
    return "".join(f"{line}\n" for line in lines)


def visible_flags(flag_values: flags.FlagValues) -> list[flags.Flag]:
    """Returns the flags that help and shell completion name: the command's own and those of every command."""
    return _flags(flag_values, full=False)


def _repeated(flag_values: flags.FlagValues) -> list[flags.Flag]:
    return [flag for flag in _flags(flag_values, full=False) if options.is_repeated(flag)]


@contextlib.contextmanager
def progress(total: int, description: str, *, unit: str = "it") -> Iterator[Callable[[int], None]]:
    """Shows a progress bar; where standard error is no terminal, prints a line from time to time.

    Args:
        total: number of units.
        description: the work, such as "generating".
        unit: name of the units.

    Yields:
        A function that advances the bar by a number of units.
    """
    with _bar(total, description, unit) as bar:
        yield lambda count=1: bar.update(count) and None


def _bar(total: int, description: str, unit: str) -> tqdm.tqdm | ProgressLines:
    if not sys.stderr.isatty():
        return ProgressLines(total, description, unit)
    # Bytes are shown in kilobytes, megabytes and so on.
    scaled = unit == "bytes"
    return tqdm.tqdm(
        total=total,
        desc=description,
        unit="B" if scaled else f" {unit}",
        unit_scale=scaled,
        file=sys.stderr,
    )


class Stopped(Exception):
    """Exception of a command that has saved its work after a signal; the exit code is 128 plus the signal's number."""

    def __init__(self, signal_number: int):
        super().__init__(signal_number)
        self.code = 128 + signal_number


class StopOnSignal:
    """Handler of SIGTERM and Ctrl-C, after which a command saves its work and ends; a second signal ends it at once.

    A context manager.

    Attributes:
        signal: number of the signal received, or None.
    """

    def __init__(self):
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def received(self) -> bool:
        """Returns whether a signal was received."""
        # TensorFlow replaces the handler of SIGTERM when it connects several workers, after the context has begun.
        self._take()
        return self.signal is not None

    def _take(self) -> None:
        if self.signal is None:
            for number in self._before:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __enter__(self) -> StopOnSignal:
        """Returns itself."""
        self._before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self._take()
        return self

    def __exit__(self, *exception) -> None:
        """Restores the handlers."""
        self._restore()


class ProgressBars:
    """Progress bars or lines, one for each stage; a context manager, called with (stage, done, total).

    Args:
        unit: name of the units.
    """

    def __init__(self, unit: str = "it"):
        self._unit = unit
        self._stage: str | None = None
        self._bar: tqdm.tqdm | ProgressLines | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Moves the bar of a stage to `done` out of `total`."""
        if stage != self._stage:
            self.close()
            self._bar = _bar(total, stage, self._unit)
            self._stage = stage
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def write(self, line: str) -> None:
        """Prints a line to standard output at once, above the bar where there is one."""
        tqdm.tqdm.write(with_flags(line), file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Closes the last bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = self._stage = None

    def __enter__(self) -> ProgressBars:
        """Returns itself."""
        return self

    def __exit__(self, *exception) -> None:
        """Closes the last bar."""
        self.close()
