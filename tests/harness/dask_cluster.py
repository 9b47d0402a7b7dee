"""A Dask cluster of processes of this machine, which talk over TCP."""

import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]


class Cluster:
    """A scheduler and workers of one thread each; a context manager. No nanny starts a killed worker again.

    Args:
        folder: a new folder, in which all of them run.
        workers: number of workers to begin with.
        path: folders in which the scheduler finds Python modules first.
        variables: further environment variables of the scheduler.
    """

    def __init__(self, folder, workers=2, *, path=(), **variables):
        self._folder, self._running = folder, []
        file = folder / "scheduler.json"
        options = ("--host=127.0.0.1", "--port=0", f"--scheduler-file={file}")
        self.scheduler = self._start("scheduler", *options, path=path, **variables)
        while not file.exists() or not file.read_text().endswith("}"):
            assert self.scheduler.poll() is None
            time.sleep(0.02)
        self.address = json.loads(file.read_text())["address"]
        self.workers = [self.start_worker() for _ in range(workers)]

    def start_worker(self, *, path=()):
        """Starts a worker, which finds Python modules in the folders `path` first."""
        options = ("--nthreads=1", "--no-nanny", f"--local-directory={self._folder}")
        return self._start("worker", self.address, *options, path=path)

    def _start(self, kind, *options, path, **variables):
        words = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *options]
        variables |= {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
        # What this process has set for TensorFlow does not reach a cluster.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        with open(self._folder / f"{kind}-{len(self._running)}.log", "w") as log:
            process = subprocess.Popen(words, cwd=self._folder, env=inherited | variables, stdout=log, stderr=log)
        self._running.append(process)
        return process

    def kill(self, *processes):
        """Kills processes of the cluster (SIGKILL)."""
        for process in processes:
            process.kill()
            process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.kill(*self._running)
