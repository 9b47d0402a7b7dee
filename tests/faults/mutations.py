r"""Damaged inputs given to the builder and to the readers, each tried in a process that may die or hang.

An input is refused by an error of ours that names the damaged file, or it is accepted, and the records hold what other
readers read from the damaged input. All else is a fault: another exception, a dead or hanging process, too much memory,
or numbers that no other reader reads.

The table of a run, and the same as JSON:
  python -m tests.faults.mutations --inputs=200 --output=mutations.json [--data=FOLDER]
With --data, the patches are real ones of FOLDER/EuroSAT_RGB.zip and FOLDER/EuroSAT_MS_sample.zip.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from tests.faults.trials import EQUAL, FAMILIES, FAULT, REFUSED, Outcome, make_base, work

INPUT_SECONDS = 10
"""A reader that needs longer for a handful of patches hangs."""

_START_SECONDS = 120
_ROOT = pathlib.Path(__file__).parents[2]


def inputs(total: int) -> list[tuple[str, int]]:
    """Divides a number of inputs over the families by their shares; (family, number) each."""
    shares = sum(family.share for family in FAMILIES.values())
    counts = {name: total * family.share // shares for name, family in FAMILIES.items()}
    counts[next(iter(counts))] += total - sum(counts.values())
    return [(name, number) for name, count in counts.items() for number in range(count)]


class WorkerProcess:
    """A worker that is started again after it died or was ended for hanging.

    Args:
        command: the command line. The process writes "ready", then an outcome for every line (family, number), as JSON.
        seconds: time limit of an outcome.
    """

    def __init__(self, command: Sequence[str], seconds: float = INPUT_SECONDS):
        self._command, self._seconds = command, seconds
        self._process: subprocess.Popen | None = None

    def run(self, name: str, number: int) -> Outcome:
        """Runs a trial in the worker; returns its outcome, or a fault where the worker died or hangs.

        Raises:
            RuntimeError: if no worker can be started.
        """
        if self._process is None:
            self._start()
        self._process.stdin.write(json.dumps([name, number]).encode() + b"\n")
        self._process.stdin.flush()
        outcome = self._read_line(self._seconds)
        if outcome is not None:
            return Outcome(**outcome)
        kinds = list(FAMILIES[name].mutators)
        if self._closed:
            words, status = self._last_words(), self.end()
            words = f"the process died with status {status}: {words}"
        else:
            words = f"it hangs, for more than {self._seconds} s"
            self.end()
        return Outcome(name, number, kinds[number % len(kinds)], FAULT, words)

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile("w+")
        pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONPATH": str(_ROOT)}
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=self._errors, env=environment)
        if self._read_line(_START_SECONDS) != "ready":
            words = self._last_words()
            self.end()
            raise RuntimeError(f"no worker could be started: {words}")

    def _read_line(self, seconds: float):
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else b""
        self._closed = bool(ready) and not line
        return json.loads(line) if line else None

    def _last_words(self) -> str:
        self._errors.seek(0)
        return " ".join(self._errors.read()[-600:].split())

    def end(self) -> int | None:
        """Ends the worker, if there is one, and returns its exit status."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        if self._closed:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        process.kill()
        status = process.wait()
        for file in (process.stdin, process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                file.close()
        return status


def run(total: int, data: pathlib.Path | None = None, report: Callable[[Outcome], None] | None = None) -> list[Outcome]:
    """Tries so many inputs in two processes, one of which has TensorFlow.

    Args:
        total: number of inputs; more of them begin with the same ones.
        data: folder of real archives, or None for generated patches.
        report: called with every outcome.
    """
    outcomes: dict[tuple[str, int], Outcome] = {}

    def take(base: pathlib.Path, tensorflow: bool) -> None:
        command = [sys.executable, "-m", "tests.faults.mutations", f"--work={base}"]
        process = WorkerProcess([*command, "--tensorflow"] if tensorflow else command)
        try:
            for name, number in inputs(total):
                if FAMILIES[name].tensorflow == tensorflow:
                    outcomes[name, number] = outcome = process.run(name, number)
                    if report:
                        report(outcome)
        finally:
            process.end()

    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor() as pool:
        make_base(pathlib.Path(folder), data)
        for done in [pool.submit(take, pathlib.Path(folder), tensorflow) for tensorflow in (False, True)]:
            done.result()
    return [outcomes[key] for key in inputs(total)]


def table(outcomes: list[Outcome]) -> dict[str, dict[str, int]]:
    """Counts inputs by family, and in all: tried, refused, accepted and equal, faults."""
    counts = {name: collections.Counter() for name in (*FAMILIES, "all")}
    for outcome in outcomes:
        for name in (outcome.family, "all"):
            counts[name][outcome.result] += 1
    return {
        name: {"tried": count.total(), REFUSED: count[REFUSED], EQUAL: count[EQUAL], "faults": count[FAULT]}
        for name, count in counts.items()
    }


def lines(outcomes: list[Outcome]) -> Iterator[str]:
    """Yields the table's lines, and a line for every fault."""
    columns = ("tried", REFUSED, EQUAL, "faults")
    yield "input".ljust(30) + "".join(name.rjust(20) for name in columns)
    for name, counts in table(outcomes).items():
        yield name.ljust(30) + "".join(f"{counts[column]:>20,}" for column in columns)
    for outcome in outcomes:
        if outcome.result == FAULT:
            # The message may hold a damaged name.
            yield f"fault: {outcome.family}, number {outcome.number}, {outcome.mutator}: {outcome.words!r}"


def main() -> None:
    """Runs the command, or a worker of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutations")
    parser.add_argument("--inputs", type=int, default=200, help="number of inputs")
    parser.add_argument("--data", type=pathlib.Path, help="folder of the real archives; default: generated patches")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write the table to")
    parser.add_argument("--verbose", action="store_true", help="show every input")
    parser.add_argument("--work", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--tensorflow", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        with tempfile.TemporaryDirectory(dir=options.work) as scratch:
            work(options.work, pathlib.Path(scratch), tensorflow=options.tensorflow)
        return
    started = time.monotonic()
    show = (lambda outcome: print(*dataclasses.astuple(outcome), sep=" | ")) if options.verbose else None
    outcomes = run(options.inputs, options.data, show)
    print("\n".join(lines(outcomes)), f"\n{time.monotonic() - started:.1f} s")
    if options.output:
        patches = "real" if options.data else "generated"
        options.output.write_text(json.dumps({"patches": patches, "table": table(outcomes)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
