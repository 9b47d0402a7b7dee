"""Runs independent units of work: in this process, or in a pool of processes.

A unit's result depends on the unit and the shared context alone, so that neither the number of workers nor the order
in which they finish can change what comes out.
"""

from __future__ import annotations

import collections
import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from eo_keras.errors import EOKerasError

_context: Any = None
"""The shared context of this worker process, sent once when the process starts instead of with every unit."""


def run_units(
    function: Callable[[Any, Any], Any], context: Any, units: Sequence[Any], *, num_workers: int = 1
) -> Iterator[Any]:
    """Yields `function(context, unit)` for every unit, in the order of the units.

    Args:
        function: a function at the top level of a module. Processes are spawned, so that module is imported anew.
        context: what all units share; it crosses to each worker process once.
        units: the units of work; small, since they cross a process boundary.
        num_workers: number of processes; with 1 everything runs in this process.

    Raises:
        EOKerasError: whatever the function raises, or if a worker process dies.
    """
    if num_workers <= 1 or len(units) <= 1:
        for unit in units:
            yield function(context, unit)
        return
    with concurrent.futures.ProcessPoolExecutor(
        max_workers=min(num_workers, len(units)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_initialise,
        initargs=(context,),
    ) as pool:
        # A bounded number of units is under way, so that results waiting for their turn stay few.
        pending: collections.deque = collections.deque()
        waiting = iter(units)
        try:
            while True:
                while len(pending) < 4 * num_workers and (unit := next(waiting, _END)) is not _END:
                    pending.append(pool.submit(_call, function, unit))
                if not pending:
                    return
                yield pending.popleft().result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise EOKerasError(
                "worker processes",
                "one of them was ended from outside",
                remedy="check the memory left on the machine, or use fewer workers with --num_workers",
            ) from error
        finally:
            for future in pending:
                future.cancel()


_END = object()


def _initialise(context: Any) -> None:
    global _context
    _context = context


def _call(function: Callable[[Any, Any], Any], unit: Any) -> Any:
    return function(_context, unit)
