"""Progress in plain lines from time to time, for log files and job queues, where no terminal shows a bar."""

from __future__ import annotations

import sys
import time

from eo_keras.core.number_format import duration

FIRST, LARGEST, SHARE = 10.0, 60.0, 0.1
"""Seconds before the first line, the most seconds between two lines, and the share of the time so far between them."""


class ProgressLines:
    """Progress of a stage in lines on standard error, with the interface of `tqdm.tqdm`.

    Attributes:
        n: number of units done.
        total: number of units.
    """

    def __init__(self, total: int, description: str, unit: str):
        self.n, self.total = 0, total
        self._description, self._unit = description, unit
        self._begun = time.monotonic()
        self._next = self._begun + FIRST

    def update(self, count: int = 1) -> None:
        """Adds units that were done, and prints a line when one is due."""
        self.n += count
        now = time.monotonic()
        if now < self._next or not self.n:
            return
        elapsed = now - self._begun
        self._next = now + min(LARGEST, max(FIRST, SHARE * elapsed))
        left = (self.total - self.n) * elapsed / self.n
        print(f"{self._description}: {self._counts(elapsed)}, about {duration(left)} left", file=sys.stderr, flush=True)

    def _counts(self, elapsed: float) -> str:
        share = f"({self.n / self.total:.0%})" if self.total else ""
        if self._unit == "bytes":
            return (
                f"{self.n / 1e6:,.1f} of {self.total / 1e6:,.1f} MB {share}, {self.n / 1e6 / elapsed:,.1f} MB a second"
            )
        return f"{self.n:,} of {self.total:,} {self._unit} {share}, {self.n / elapsed:,.3g} a second"

    def close(self) -> None:
        """Does nothing; the caller prints the result of a stage."""

    def __enter__(self) -> ProgressLines:
        """Returns itself."""
        return self

    def __exit__(self, *exception) -> None:
        """Does nothing, as `close`."""
