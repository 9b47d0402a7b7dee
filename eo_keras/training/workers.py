"""Meeting of several workers before training, and errors that name a lost worker.

TensorFlow waits for the workers of TF_CONFIG for an hour, prints nothing, and handles no signal meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from eo_keras.errors import OptionError, TrainingError
from eo_keras.training.distribution import Worker

_TRY_SECONDS = 0.5
_SAY_AFTER_SECONDS, _SAY_EVERY_SECONDS = 3.0, 60.0
_REACH_SECONDS = 2.0

_OF_OTHERS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)
"""Exceptions of TensorFlow in a worker when another one has ended."""


def meet(
    worker: Worker,
    seconds: float,
    report: Callable[[str], None] = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Waits until all workers can be reached.

    Each worker listens at its own address, and has met another one when a connection to that one's address succeeds,
    whether this function or already TensorFlow listens there.

    Args:
        worker: this worker.
        seconds: time limit.
        report: called with lines for the user while the wait lasts.
        stop: called twice a second; whether to give up.

    Returns:
        Whether all workers were reached; False if `stop` returned True first.

    Raises:
        OptionError: if another program listens at this worker's address.
        TrainingError: if a worker was not reached in time.
    """
    missing = {number: "" for number in range(worker.count) if number != worker.number}
    started, said = time.monotonic(), _SAY_AFTER_SECONDS - _SAY_EVERY_SECONDS
    with _listening(worker):
        while missing:
            for number in list(missing):
                try:
                    _reach(worker.addresses[number], _TRY_SECONDS)
                    del missing[number]
                except (OSError, ValueError) as error:
                    missing[number] = str(error)
            if stop():
                return False
            waited = time.monotonic() - started
            names = ", ".join(worker.name_of(number) for number in missing)
            if missing and waited > seconds:
                raise TrainingError(
                    names,
                    f"not there after {waited:.0f} s ({next(iter(missing.values()))})",
                    "every worker of TF_CONFIG within `worker_wait`",
                    "start the command on each, check the addresses in TF_CONFIG and the network between them, or wait "
                    "longer by `worker_wait=SECONDS`",
                )
            if missing and waited - said >= _SAY_EVERY_SECONDS:
                report(f"waiting for {names}; {max(0.0, seconds - waited):.0f} s more at most")
                said = waited
            if missing:
                time.sleep(_TRY_SECONDS)
    return not stop()


@contextlib.contextmanager
def _listening(worker: Worker) -> Iterator[None]:
    address = worker.addresses[worker.number]
    try:
        _, port = _split(address)
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        # At every address of this machine, as TensorFlow does: the name that others use may be known to them alone.
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=128)
    except (OSError, ValueError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        raise OptionError(
            "strategy",
            f"multi_worker, but the workers cannot be connected: {worker.name_of(worker.number)} is this one, and "
            + ("another program listens there" if taken else f"nothing can listen there ({error})"),
            "an address in TF_CONFIG that is this worker's own and free",
            "end what is left of an earlier run, or choose another port" if taken else "choose another address",
        ) from None
    with listener:
        yield


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _reach(address: str, seconds: float) -> None:
    socket.create_connection(_split(address), timeout=seconds).close()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Lets SIGTERM and Ctrl-C end the process at once, as TensorFlow blocks Python's handlers; a context manager."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            signal.signal(number, signal.SIG_DFL)
    except ValueError:  # Only the main thread may.
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def named_when_lost(worker: Worker) -> Iterator[None]:
    """Turns TensorFlow's error about a worker that has ended into one that names it; a context manager.

    Raises:
        TrainingError: if that has happened.
    """
    try:
        yield
    except _OF_OTHERS as error:
        if worker.count == 1:
            raise
        lost = _lost(worker, str(error))
        if not lost and isinstance(error, (tf.errors.InternalError, tf.errors.UnknownError)):
            raise  # A fault of this worker's own.
        raise TrainingError(
            lost or "one of the other workers",
            "was lost",
            remedy="see what it said; then start all workers again with `resume`",
        ) from error


def _lost(worker: Worker, said: str) -> str:
    """Returns the names of the workers that an error names, and of those that cannot be reached where there are any."""
    others = [number for number in range(worker.count) if number != worker.number]
    lost = [number for number in others if not _is_reached(worker.addresses[number])]
    named = [number for number in others if worker.tasks[number] in said]
    return ", ".join(map(worker.name_of, [number for number in named if number in lost] or lost or named))


def _is_reached(address: str) -> bool:
    try:
        _reach(address, _REACH_SECONDS)
    except (OSError, ValueError):
        return False
    return True
