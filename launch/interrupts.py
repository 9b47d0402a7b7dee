"""Handlers of Ctrl-C (SIGINT) and SIGTERM from the first import on.

An exception raised during an import may be caught by the imported module: of fifty interruptions while TensorFlow was
imported, Python's own `KeyboardInterrupt` was lost once. During imports the handler therefore ends the process itself;
no work has begun that could be lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import types

from launch import command_names

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"


class _State:
    under_way = False
    standard_error = 2


def listen() -> None:
    """Installs the handler of both signals, each unless the process ignores it or has another handler for it."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            with contextlib.suppress(ValueError):  # Only the main thread may.
                signal.signal(number, _end)


def begin() -> None:
    """Marks the start of the command's work: from now on Ctrl-C is a `KeyboardInterrupt`, except within an import."""
    _State.under_way = True


@contextlib.contextmanager
def standard_error_at(descriptor: int):
    """Sends the message to another descriptor while the process's standard error is turned off; a context manager."""
    _State.standard_error = descriptor
    try:
        yield
    finally:
        _State.standard_error = 2


def _end(number: int, frame: types.FrameType | None) -> None:
    if number == signal.SIGINT and _State.under_way and (not _imports(frame) or _has_workers()):
        raise KeyboardInterrupt
    with contextlib.suppress(Exception):  # A closed pipe, or a stream that was just being written.
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(_State.standard_error, f"{command_names.running()}: interrupted\n".encode(errors="replace"))
    # No exception, which could be caught, and no end of the interpreter, which waits for threads.
    os._exit(128 + number)


def _imports(frame: types.FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != _IMPORT_SYSTEM:
        frame = frame.f_back
    return frame is not None


def _has_workers() -> bool:
    """Returns whether there are worker processes, which only an exception ends in order."""
    # The module may be half imported.
    children = getattr(sys.modules.get("multiprocessing"), "active_children", None)
    return bool(children and children())
