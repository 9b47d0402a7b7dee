"""Side-by-side measurements: commands run in turn and timed, spread and ratio over rounds, a table, the machine."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eo_keras.core import files
from eo_keras.errors import EOKerasError
from eo_keras.records import data_card as cards

ROOT = pathlib.Path(__file__).parents[1]

OURS, PEER, FLOOR = "ours", "peer", "floor"
"""Names of sides; others are further modes of ours."""

PACKAGES = ("eo-keras", "tensorflow", "keras", "numpy", "protobuf", "rasterio", "pillow", "google-crc32c")
"""Packages whose versions are written with every measurement."""

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}


class MeasurementError(EOKerasError):
    """A measurement that cannot be made, for instance because a peer is not installed or its command failed."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of several runs."""

    median: float
    low: float
    high: float

    def text(self, form: str = ",.0f") -> str:
        """Returns `median (low to high)`, every number in a format."""
        return f"{self.median:{form}} ({self.low:{form}} to {self.high:{form}})"


def spread(values: Sequence[float]) -> Spread:
    """Returns median, lowest and highest of some values."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Returns the spread of the ratios round by round, so that what slows a whole round cancels out."""
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


def module(name: str, **options: Any) -> tuple[str, ...]:
    """Returns the command that runs a module of the project with flags."""
    return (sys.executable, "-m", name, *(f"--{key}={value}" for key, value in options.items()))


def peer(python: str, script: str, **options: Any) -> tuple[str, ...]:
    """Returns the command that runs a script of benchmarks/peers with options."""
    return (python, str(ROOT / "benchmarks/peers" / script), *(f"--{key}={value}" for key, value in options.items()))


@dataclasses.dataclass(frozen=True)
class Side:
    """One command of a work.

    Attributes:
        title: name in the table.
        command: program and arguments.
        output: folder that the command writes to, emptied before and removed after; None for none.
        examples: number of examples that the command must process, where the whole command is timed; None where the
            command times and counts itself.
        leaves_out: whether it may write fewer of them than it processes.
    """

    title: str
    command: tuple[str, ...]
    output: pathlib.Path | None = None
    examples: int | None = None
    leaves_out: bool = False


@dataclasses.dataclass(frozen=True)
class Work:
    """Commands that do the same work, measured side by side.

    Attributes:
        title: name in the table.
        unit: unit of the rates.
        timed: what is timed.
        sides: the commands by name.
        targets: lowest ratio to the peer that a side should reach.
        digits: decimals of the rates in the table.
    """

    title: str
    unit: str
    timed: str
    sides: dict[str, Side]
    targets: dict[str, float] = dataclasses.field(default_factory=dict)
    digits: int = 0


def run_side(side: Side) -> dict[str, Any]:
    """Runs a side once.

    Returns:
        `examples`, `seconds`, and what else its command prints.

    Raises:
        MeasurementError: if the command fails or processes another number of examples.
    """
    if side.output is not None:
        shutil.rmtree(side.output, ignore_errors=True)
        files.make_folder(side.output)
    # What an earlier run has left to be written must not take this one's time.
    os.sync()
    printed, seconds = run_command(side.command)
    found = figures(printed)
    if side.examples is not None:
        if not found:
            card = cards.read_data_card(side.output)
            found = {"examples": sum(split.examples for split in card.splits.values())}
        count = found["examples"]
        if count != side.examples and not (side.leaves_out and 0 < count < side.examples):
            raise MeasurementError(" ".join(side.command), f"{count} examples", f"{side.examples}")
        found |= {"examples": side.examples, "seconds": seconds}
    if side.output is not None:
        shutil.rmtree(side.output)
    return found


def measure(work: Work, runs: int, names: Mapping[str, str]) -> dict[str, Any]:
    """Measures a work.

    Args:
        work: what to measure.
        runs: number of rounds.
        names: names that replace paths in the commands that are kept.

    Returns:
        Titles, commands, rates and every run, ready for JSON.
    """
    found: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for number in range(runs):
        order = list(work.sides) if number % 2 == 0 else list(work.sides)[::-1]
        for name in order:
            run = run_side(work.sides[name])
            found[name].append(run)
            rate = run["examples"] / run["seconds"]
            print(f"  round {number + 1}: {work.sides[name].title}: {rate:,.{work.digits}f} {work.unit}", flush=True)
    sides = {}
    for name, side in work.sides.items():
        rates = [run["examples"] / run["seconds"] for run in found[name]]
        sides[name] = {
            "title": side.title,
            "command": shown(side.command, names),
            "rates": rates,
            **dataclasses.asdict(spread(rates)),
            "runs": found[name],
        }
    for name in sides.keys() - {PEER, FLOOR}:
        if PEER in sides:
            sides[name]["ratio"] = dataclasses.asdict(ratio(sides[name]["rates"], sides[PEER]["rates"]))
        if name in work.targets:
            sides[name]["target"] = work.targets[name]
    return {"title": work.title, "unit": work.unit, "timed": work.timed, "digits": work.digits, "sides": sides}


def record(
    path: str, works: Iterable[tuple[str, Work]], runs: int, facts: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, Any]:
    """Measures works one after the other, writes them into a JSON file and prints their table.

    Works that the file already holds of the same facts, rounds and machine are kept: figures of others do not belong in
    one table. The file is written after every work, for all of them may take an hour.

    Args:
        path: the JSON file.
        works: names and works; what a work reads may be prepared when it is its turn.
        runs: number of rounds.
        facts: what is kept beside the figures, such as sizes and sources.
        names: names that replace paths in the commands that are kept.

    Returns:
        The content of the file.
    """
    output = pathlib.Path(path)
    files.make_folder(output.parent)
    content: dict[str, Any] = {"runs": runs, **facts, "machine": machine()}
    earlier = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {}
    same = all(earlier.get(name) == value for name, value in content.items())
    content["works"] = earlier["works"] if earlier and same else {}
    for name, work in works:
        print(f"{work.title} ({work.timed})", flush=True)
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        content["works"][name] = measure(work, runs, names) | {"date": date}
        files.write_json(output, content)
    print("\n".join(table(content["works"])))
    return content


def table(works: dict[str, Any]) -> list[str]:
    """Returns measured works as a Markdown table, a row a side; medians with the lowest and highest run."""
    lines = ["| work | side | rate | times the peer | to reach |", "| --- | --- | --- | --- | --- |"]
    for work in works.values():
        for name, side in work["sides"].items():
            # Figures of before some works had decimals name none.
            rate = Spread(side["median"], side["low"], side["high"]).text(f",.{work.get('digits', 0)}f")
            who = f"**{side['title']}**" if name == OURS else side["title"]
            reached, target = "", ""
            if "ratio" in side:
                reached = Spread(**side["ratio"]).text(".2f")
            if "target" in side:
                target = f"{side['target']:g}" + ("" if side["ratio"]["median"] >= side["target"] else " (missed)")
            first = f"{work['title']}; {work['timed']}" if name == OURS else ""
            lines.append(f"| {first} | {who} | {rate} {work['unit']} | {reached} | {target} |")
    return lines
