"""Engine on a Dask cluster, and what its workers run. To import it needs the package distributed."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import distributed
from distributed.scheduler import KilledWorker

import eo_keras
from eo_keras.core.engines import UnitFunction
from eo_keras.errors import EOKerasError, OptionError

_PACKAGE = "eo_keras"
"""Name by which Dask finds this package's version: as a module, and since 2025.3 as a distribution."""

_LOOK_SECONDS = 1.0
"""Time after which the cluster is looked at when no unit is done."""


class DaskEngine:
    """Engine on the workers of a Dask scheduler.

    Units of a worker that is lost run again on others. Workers may come and go.

    Args:
        scheduler: address of the scheduler, such as `tcp://HOST:8786`.
        patience: seconds to wait for the scheduler, and for a worker where there is none.
    """

    def __init__(self, scheduler: str, patience: float = 30.0):
        self._scheduler, self._patience = scheduler, patience
        self._run, self._futures = "", collections.deque[distributed.Future]()

    def __enter__(self) -> DaskEngine:
        """Connects to the scheduler.

        Raises:
            OptionError: if it does not answer.
            EOKerasError: if the scheduler or a worker has another version of this package.
        """
        with contextlib.ExitStack() as opened:
            opened.enter_context(_quiet())
            failure = None
            try:
                self._client = distributed.Client(self._scheduler, timeout=self._patience, set_as_default=False)
                opened.callback(self._client.close)
                self._check_versions()
            except (OSError, ValueError) as error:
                failure = str(error)
            if failure is not None:
                # A failed client closes when it is collected; if that happens while another starts, both wait forever.
                gc.collect()
                text = f"no Dask scheduler answers at {self._scheduler} ({failure})"
                raise OptionError("scheduler", text, "the address that `dask scheduler` prints")
            opened.callback(self._settle)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        self._opened.close()

    def run(self, function: UnitFunction, context: Any, units: Sequence[Any]) -> Iterator[int]:
        """Runs all units, see `Engine.run`."""
        self._run = secrets.token_hex(8)
        self._futures.extend(
            # Of one graph with all units, Dask would warn that it is large.
            self._client.submit(_on_dask, self._run, eo_keras.__version__, function, context, unit, pure=False)
            for unit in units
        )
        try:
            for position in range(len(units)):
                self._wait(self._futures[0])
                # What is kept of a unit is lost with its worker, and the unit would run again.
                self._futures.popleft()
                yield position
        finally:
            self._settle()

    def _wait(self, future: distributed.Future) -> None:
        """Waits until a unit is done, as long as there is a worker."""
        last = time.monotonic()
        while not future.done():
            with contextlib.suppress(TimeoutError):
                future.exception(timeout=_LOOK_SECONDS)
                break
            if self._has_workers():
                last = time.monotonic()
            elif time.monotonic() - last > self._patience:
                raise EOKerasError(
                    self._scheduler,
                    f"there has been no Dask worker for {self._patience:g} seconds",
                    remedy=f"start workers (dask worker {self._scheduler}), look at their logs, and run again",
                )
        if future.status == "error":
            self._raise(future.exception())
        if future.status != "finished":
            raise self._lost()

    def _has_workers(self) -> bool:
        try:
            return bool(self._client.nthreads())
        except OSError:
            raise self._lost() from None

    def _lost(self) -> EOKerasError:
        return EOKerasError(
            self._scheduler,
            "the Dask scheduler was lost, or has dropped the work",
            remedy="look at its log, start it and its workers, and run again",
        )

    def _raise(self, error: BaseException) -> None:
        """Raises the error of a unit."""
        if isinstance(error, KilledWorker):
            count, last = error.allowed_failures + 1, error.last_worker.address
            raise EOKerasError(
                self._scheduler,
                f"{count} Dask workers in turn were lost at one unit, last {last}",
                remedy="check the workers' memory limit, and look at their logs",
            ) from error
        if not isinstance(error, EOKerasError):
            # A worker that came later may lack the package.
            self._check_versions()
        raise error

    def _check_versions(self) -> None:
        """Checks that the scheduler, which unpickles units too, and its present workers have this package's version."""
        found = self._client.get_versions(packages=[_PACKAGE])
        others = {"the scheduler": found["scheduler"]} | {f"worker {at}": one for at, one in found["workers"].items()}
        own = found["client"]["packages"][_PACKAGE]
        for name, one in others.items():
            if (version := one["packages"][_PACKAGE]) != own:
                raise _other_version(f"{name} of {self._scheduler}", version, own)

    def _settle(self) -> None:
        """Drops the units that are left, and waits for those that run: they may write where the caller cleans up."""
        left, self._futures = list(self._futures), collections.deque()
        if left and self._client.status == "running":
            with contextlib.suppress(OSError):
                self._client.cancel(left)
                self._client.run(_end, self._run, on_error="ignore")


def _other_version(where: str, found: str | None, expected: str) -> EOKerasError:
    has = f"it has eo-keras {found}" if found else "eo-keras is not installed there"
    return EOKerasError(where, has, f"{expected}, as here", "install the same version on all machines of the cluster")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps distributed from writing errors that the engine raises to standard error; a context manager."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


_lock = threading.Lock()
_running: collections.Counter[str] = collections.Counter()
"""Number of units that run in this worker, by run."""

_ended: set[str] = set()
"""Runs that have ended early."""


def _on_dask(run: str, version: str, function: UnitFunction, context: Any, unit: Any) -> None:
    if eo_keras.__version__ != version:
        raise _other_version(f"worker {distributed.get_worker().address}", eo_keras.__version__, version)
    with _lock:
        if run in _ended:
            return
        _running[run] += 1
    try:
        function(context, unit)
    finally:
        with _lock:
            _running[run] -= 1


async def _end(run: str) -> None:
    """Waits until no unit of a run is running in this worker, and lets none begin."""
    with _lock:
        _ended.add(run)
    while _running[run]:
        await asyncio.sleep(0.05)
