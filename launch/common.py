"""What every command shares: flags parsed strictly, errors in one line, exit codes, progress bars."""

from __future__ import annotations

import sys
import textwrap
import traceback
from collections.abc import Callable

import tqdm
from absl import flags

from eo_keras.errors import EOKerasError

FLAGS = flags.FLAGS

EXIT_BAD_INPUT = 2
"""Exit code for every mistake in flags or input; absl's own are 1 for unknown flags and 0 for stray arguments."""

flags.DEFINE_bool("dry_run", False, "Whether to say what would be done, and write nothing.")
flags.DEFINE_bool("debug", False, "Whether to show the whole traceback of an error.")

_HELP = {"--help", "-help", "--helpshort", "-helpshort", "--helpfull", "-helpfull", "-h", "-?"}


def run(main: Callable[[], None]) -> None:
    """Parses the command line, calls `main`, and ends the process with the right exit code.

    0: done, or help was asked for. 2: a mistake in flags or input, told in one line on standard error. 1: a fault of
    the program. 130: interrupted.
    """
    sys.exit(_run(main, sys.argv))


def _run(main: Callable[[], None], argv: list[str]) -> int:
    module = sys.modules["__main__"]
    command = module.__spec__.name if module.__spec__ else argv[0]
    if _HELP & set(argv[1:]):
        print(_help(command, module.__doc__ or "", full=any(word.endswith("full") for word in argv[1:])))
        return 0
    try:
        stray = FLAGS(argv)[1:]
        if stray:
            raise flags.Error(f"stray argument {stray[0]!r}; every option is written --name=value")
        main()
    except flags.Error as error:
        return _report(command, f"{error}; see python -m {command} --help")
    except EOKerasError as error:
        if FLAGS.debug:
            traceback.print_exc()
        return _report(command, str(error))
    except KeyboardInterrupt:
        return _report(command, "interrupted", code=130)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not complain about that on its way out.
        sys.stderr.close()
        return 1
    except Exception as error:
        if FLAGS.is_parsed() and FLAGS.debug:
            raise
        message = f"a fault of the program: {type(error).__name__}: {error} (--debug shows where)"
        return _report(command, message, code=1)
    return 0


def _report(command: str, message: str, code: int = EXIT_BAD_INPUT) -> int:
    print(f"{command}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _help(command: str, text: str, *, full: bool) -> str:
    own = FLAGS.flags_by_module_dict()
    modules = [name for name in own if name == "__main__" or full or name == __name__]
    # The command's own flags first; absl names the module that runs by the script it started from.
    ours = [flag for name in modules for flag in own[name]]
    known = {flag.name for flag in ours}
    running = [flag for flag in FLAGS.get_key_flags_for_module(sys.argv[0]) if flag.name not in known]
    lines = [text.strip(), "", f"usage: python -m {command} --name=value ...", ""]
    for flag in [*running, *ours]:
        default = "required" if flag.default is None and _is_required(flag) else f"default: {flag.default_as_str}"
        lines += textwrap.wrap(
            f"--{flag.name}: {flag.help} ({default})", 110, initial_indent="  ", subsequent_indent=" " * 6
        )
    return "\n".join([*lines, "", "  --flagfile=FILE reads flags from a file, one a line."])


def _is_required(flag: flags.Flag) -> bool:
    return any(flag.name in validator.get_flags_names() for validator in flag.validators)


class ProgressBars:
    """Shows one progress bar a stage; a context manager, to be called with (stage, done, total).

    Args:
        unit: what is counted.
    """

    def __init__(self, unit: str = "it"):
        """See the class."""
        self._unit = unit
        self._stage: str | None = None
        self._bar: tqdm.tqdm | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Moves the bar of a stage to `done` out of `total`."""
        if stage != self._stage:
            self._close()
            # disable=None: no bar where standard error is not a terminal.
            self._bar = tqdm.tqdm(total=total, desc=stage, unit=f" {self._unit}", disable=None, file=sys.stderr)
            self._stage = stage
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> ProgressBars:
        """Returns itself."""
        return self

    def __exit__(self, *exception) -> None:
        """Closes the last bar."""
        self._close()
