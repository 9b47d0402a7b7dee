"""Supervision of Apache Beam's worker processes on this machine: Beam's own runner waits forever for a killed one.

To import it, which needs Beam, makes the FnApiRunner of this process start its worker processes so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Iterator

import grpc
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from google.protobuf import json_format, text_format

from eo_keras.core.worker_errors import encode_error, worker_lost
from eo_keras.errors import EOKerasError

_AGAIN_SECONDS = 0.2


@worker_handlers.WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class WatchedWorker(worker_handlers.GrpcWorkerHandler):
    """One worker process; when it ends too early, all workers of its run are ended, and the run with them.

    Args:
        command: command line that starts the process.
        state: of the run.
        provision_info: description of the run for the process.
        grpc_server: server of the run, which its workers share.
    """

    _of_runs: weakref.WeakKeyDictionary[worker_handlers.GrpcServer, list[WatchedWorker]] = weakref.WeakKeyDictionary()

    def __init__(self, command: bytes, state, provision_info, grpc_server):
        super().__init__(state, provision_info, grpc_server)
        self._command = shlex.split(command.decode())
        self._all = self._of_runs.setdefault(grpc_server, [])
        self._all.append(self)
        self._told_to_end = threading.Event()

    def start_worker(self) -> None:
        """Starts the process and watches it."""
        variables = {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.control_api_service_descriptor()),
            "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }
        # A worker logs every step of its start there. Errors of units are passed on separately.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(self._command, env=os.environ | variables, stderr=self._said)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        code = self._process.wait()
        if self._told_to_end.is_set():
            return
        error = RuntimeError(encode_error(self._lost(code)))
        for worker in tuple(self._all):
            threading.Thread(target=worker._end, args=(error,), daemon=True).start()

    def _lost(self, code: int) -> EOKerasError:
        if code < 0:
            return worker_lost(f"signal {-code}")
        self._said.seek(0)
        *_, last = ["nothing was said", *filter(None, self._said.read().decode(errors="replace").splitlines())]
        return EOKerasError(
            "worker processes",
            f"one of them ended with exit code {code} ({last})",
            remedy="see the message, and `debug`",
        )

    def _end(self, error: RuntimeError) -> None:
        self._process.kill()
        with contextlib.suppress(Exception):  # It raises what its reader met with, which is the process's end.
            self.data_conn.close()
        # The run may send one more request before it notices that the worker has ended.
        while not self._told_to_end.wait(_AGAIN_SECONDS):
            with contextlib.suppress(RuntimeError):  # The run may be adding a request at this moment.
                self.control_conn.abort(error)

    def close(self) -> None:
        """Ends the process in order, as at the end of a run."""
        self._told_to_end.set()
        self._all.remove(self)
        with contextlib.suppress(grpc.RpcError):
            super().close()
        self.stop_worker()

    def stop_worker(self) -> None:
        """Waits for the end of the process, which follows that of its connections."""
        self._process.wait()
        self._said.close()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Beam from writing errors that the run raises to standard error; a context manager."""
    logger, hook = logging.getLogger("apache_beam"), threading.excepthook
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    # The threads that read from a process end with an error when it does.
    threading.excepthook = lambda raised: None if issubclass(raised.exc_type, grpc.RpcError) else hook(raised)
    try:
        yield
    finally:
        logger.setLevel(level)
        threading.excepthook = hook
