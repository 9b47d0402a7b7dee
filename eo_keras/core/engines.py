"""Engines that run independent units of work: in this process, in a pool of processes, or on Apache Beam.

The engine on a Dask cluster is in `eo_keras.core.dask_engine`.

A unit's result depends on the unit and the shared context alone and is stored by the unit's function itself, as a file
that appears whole or not at all. So neither the number of workers, nor the order in which they finish, nor a unit that
runs twice can change the result, and every engine serves every kind of work.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from eo_keras.core.worker_errors import decode_error, encode_error, worker_lost
from eo_keras.errors import EOKerasError, OptionError

UnitFunction = Callable[[Any, Any], None]
"""A function of a unit's work, called with (context, unit); at the top level of a module, so that it can be pickled."""


class Engine(Protocol):
    """Interface of an engine; a context manager."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, *exception) -> None: ...

    def run(self, function: UnitFunction, context: Any, units: Sequence[Any]) -> Iterator[int]:
        """Runs all units and yields the index of each when it is done, in order.

        Args:
            function: does one unit's work and stores its result.
            context: arguments that all units share.
            units: the units; small, for they cross to other processes or machines.

        Raises:
            EOKerasError: raised by a unit's function, or if a worker died.
        """
        ...


class LocalEngine:
    """Engine of this process, or of a pool of processes on this machine.

    Args:
        num_workers: number of processes; with 1 everything runs in this process.
        prepare: called in the processes at once, so that imports are done before the first unit; if it
            fails, the failure is ignored.
    """

    def __init__(self, num_workers: int = 1, prepare: Callable[[], Any] | None = None):
        self._num_workers = num_workers
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None
        if num_workers > 1:
            self._pool = concurrent.futures.ProcessPoolExecutor(
                max_workers=num_workers,
                # Forked processes would share locks and threads of the caller.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin_worker,
            )
            for _ in range(num_workers if prepare is not None else 0):
                self._pool.submit(prepare)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *exception) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, function: UnitFunction, context: Any, units: Sequence[Any]) -> Iterator[int]:
        """Runs all units, see `Engine.run`."""
        if self._pool is None:
            for position, unit in enumerate(units):
                function(context, unit)
                yield position
            return
        pending = [self._pool.submit(function, context, unit) for unit in units]
        try:
            for position, future in enumerate(pending):
                future.result()
                yield position
        except concurrent.futures.process.BrokenProcessPool as error:
            raise worker_lost() from error
        finally:
            for future in pending:
                future.cancel()


def _begin_worker() -> None:
    # Ctrl-C reaches every process; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # When the parent is killed, a worker of the pool would wait for its next unit forever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


class BeamEngine:
    """Engine on Apache Beam, with the runner that its options name.

    Without an option `--runner`, Beam's FnApiRunner does the work in several processes of this machine. (Its
    DirectRunner, by default, first tries to download another runner, which does all units in one process.)

    Args:
        options: Beam's own options, such as `--runner=FlinkRunner`.
        num_workers: number of processes of this machine.

    Raises:
        OptionError: if Beam is not installed, or cannot read an option.
    """

    def __init__(self, options: Sequence[str] = (), num_workers: int = 1):
        try:
            from apache_beam.options import pipeline_options
        except ImportError:
            raise OptionError(
                "`engine=beam`", "Apache Beam is not installed", remedy="install it: pip install 'eo-keras[beam]'"
            ) from None
        options = list(options)
        self._here = not any(option.split("=")[0] in ("--runner", "-r") for option in options)
        if self._here:
            options += [
                "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
                "--direct_running_mode=multi_processing",
                f"--direct_num_workers={num_workers}",
            ]
        try:
            self._options = pipeline_options.PipelineOptions(options)
            # Beam reads its options lazily, and a bad value ends the process.
            self._options.get_all_options()
        except SystemExit:
            raise OptionError("beam_option", f"Beam cannot read {' '.join(options)}", "--NAME=VALUE each") from None

    def __enter__(self) -> BeamEngine:
        return self

    def __exit__(self, *exception) -> None:
        pass

    def run(self, function: UnitFunction, context: Any, units: Sequence[Any]) -> Iterator[int]:
        """Runs all units, see `Engine.run`; on Beam, all are done before the first index is yielded."""
        import apache_beam as beam

        from eo_keras.core import beam_workers

        try:
            with (
                beam_workers.quiet() if self._here else contextlib.nullcontext(),
                beam.Pipeline(options=self._options) as pipeline,
            ):
                _ = (
                    pipeline
                    | "units" >> beam.Create(list(units), reshuffle=False)
                    # Without it, a runner would run all units on the worker that made them.
                    | "spread" >> beam.Reshuffle()
                    | function.__name__ >> beam.Map(_on_beam, function, context)
                )
        except EOKerasError:
            raise
        except Exception as error:
            # Runners wrap a worker's error in their own, of which only the text is certain to arrive.
            own = decode_error(str(error))
            raise own if own else EOKerasError("Apache Beam", f"{type(error).__name__}: {error}") from error
        yield from range(len(units))


def _on_beam(unit: Any, function: UnitFunction, context: Any) -> None:
    try:
        function(context, unit)
    except EOKerasError as error:
        raise RuntimeError(encode_error(error)) from None
