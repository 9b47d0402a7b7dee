"""What the side-by-side measurements share: commands run and timed, spread and ratio over runs, the machine told."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from eo_keras.errors import EOKerasError

ROOT = pathlib.Path(__file__).parents[1]

PACKAGES = ("eo-keras", "tensorflow", "keras", "numpy", "protobuf", "rasterio", "pillow", "google-crc32c")
"""Packages whose versions are told with every measurement."""

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}


class MeasurementError(EOKerasError):
    """A measurement that cannot be made, for instance because a peer is not installed or its command failed."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """What several runs came to: the middle one, the lowest and the highest."""

    median: float
    low: float
    high: float

    def text(self, form: str = ",.0f") -> str:
        """Returns `median (low to high)`, every number in a format."""
        return f"{self.median:{form}} ({self.low:{form}} to {self.high:{form}})"


def spread(values: Sequence[float]) -> Spread:
    """Returns the middle and the ends of some values."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Returns the spread of the ratios round by round, so that what slowed a whole round down cancels out."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


def peers_python(path: str) -> str:
    """Returns the peers' interpreter as an absolute path.

    Raises:
        MeasurementError: if there is none.
    """
    # Not resolved: a virtual environment's interpreter is a link, and is itself only under its own name.
    absolute = ROOT / path
    if not os.access(absolute, os.X_OK):
        raise MeasurementError(
            "--peers_python", f"there is no interpreter {path}", remedy="install the peers with make bench-peers"
        )
    return str(absolute)


def run_command(command: Sequence[str], limit_seconds: float = 1200) -> tuple[str, float]:
    """Runs a command in the project's root.

    Args:
        command: the program and its arguments.
        limit_seconds: after this time it is ended; the slowest peer needs a tenth of it.

    Returns:
        Its standard output, and the seconds from start to end.

    Raises:
        MeasurementError: if it fails or does not end.
    """
    started = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | _QUIET,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()[-1:]
        raise MeasurementError(
            " ".join(command),
            f"it had not ended after {limit_seconds:g} s ({' '.join(said)[:300]})",
            remedy="run it by hand to see where it stands",
        ) from None
    seconds = time.perf_counter() - started
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise MeasurementError(
            " ".join(command),
            f"it ended with code {done.returncode} ({' '.join(last)[:300]})",
            remedy="run it by hand to see all it says",
        )
    return done.stdout, seconds


def figures(output: str) -> dict[str, Any]:
    """Returns the figures that a measured script printed as its last line, or nothing if that is no JSON object."""
    try:
        found = json.loads(output.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def report(examples: int, seconds: float, **more: Any) -> None:
    """Prints figures as the line of JSON that `figures` reads."""
    print(json.dumps({"examples": examples, "seconds": seconds, **more}), flush=True)


def machine() -> dict[str, Any]:
    """Describes the machine and the packages, as far as that bears on speed."""
    processor = platform.processor() or platform.machine()
    memory = None
    if (cpuinfo := pathlib.Path("/proc/cpuinfo")).is_file():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    if hasattr(os, "sysconf"):
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def machine_text(found: Mapping[str, Any]) -> str:
    """Returns a machine's description in one phrase."""
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_gib']:g} GiB, {found['system']}, "
        f"Python {found['python']}"
    )


def shown(command: Sequence[str], names: Mapping[str, str]) -> str:
    """Returns a command as the reader would type it, with this run's own paths replaced by names."""
    text = " ".join(command).replace(sys.executable, "python")
    names = {f"{ROOT}/": "", **names}
    # The longest first: a path may begin with another one.
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text
