"""Several commands that do the same work, run in turn on the same files: rates, spread, and ratio to the peer."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import shutil
from typing import Any

from benchmarks import measuring
from eo_keras.core import files
from eo_keras.records import data_card as cards

OURS, PEER, FLOOR = "ours", "peer", "floor"
"""The sides that every work has; other names are further modes of ours."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One command of a work.

    Attributes:
        title: what the table calls it.
        command: what is run.
        output: folder that it writes to, empty before and removed after, or None.
        examples: where the whole command is timed, the number of examples that it must come to; None where the command
            times and counts itself.
    """

    title: str
    command: tuple[str, ...]
    output: pathlib.Path | None = None
    examples: int | None = None


@dataclasses.dataclass(frozen=True)
class Work:
    """What is measured side by side.

    Attributes:
        title: what the table calls it.
        unit: what the rates count.
        timed: what lies between start and end.
        sides: the commands by name.
        targets: how many times the peer a side should at least reach.
    """

    title: str
    unit: str
    timed: str
    sides: dict[str, Side]
    targets: dict[str, float]


def clear(side: Side) -> None:
    """Makes place for what a side writes: a new empty folder."""
    if side.output is not None:
        shutil.rmtree(side.output, ignore_errors=True)
        files.make_folder(side.output)


def run_side(side: Side) -> dict[str, Any]:
    """Runs a side once.

    Returns:
        `examples`, `seconds`, and what else its command tells.

    Raises:
        MeasurementError: if the command fails or comes to another number of examples.
    """
    clear(side)
    # What an earlier run has left to be written must not take this one's time.
    os.sync()
    printed, seconds = measuring.run_command(side.command)
    found = measuring.figures(printed)
    if side.examples is not None:
        if not found:
            card = cards.read_data_card(side.output)
            found = {"examples": sum(split.examples for split in card.splits.values())}
        if found["examples"] != side.examples:
            raise measuring.MeasurementError(
                " ".join(side.command), f"it came to {found['examples']} examples", f"{side.examples}"
            )
        found["seconds"] = seconds
    if side.output is not None:
        shutil.rmtree(side.output)
    return found


def measure(work: Work, runs: int, names: dict[str, str]) -> dict[str, Any]:
    """Measures a work.

    Args:
        work: what to measure.
        runs: rounds.
        names: what paths are called in the commands that are kept.

    Returns:
        Everything of the work that is worth keeping, ready for JSON.
    """
    found: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for number in range(runs):
        order = list(work.sides) if number % 2 == 0 else list(work.sides)[::-1]
        for name in order:
            run = run_side(work.sides[name])
            found[name].append(run)
            rate = run["examples"] / run["seconds"]
            print(f"  round {number + 1}: {work.sides[name].title}: {rate:,.0f} {work.unit}", flush=True)
    sides = {}
    for name, side in work.sides.items():
        rates = [run["examples"] / run["seconds"] for run in found[name]]
        sides[name] = {
            "title": side.title,
            "command": measuring.shown(side.command, names),
            "rates": rates,
            **dataclasses.asdict(measuring.spread(rates)),
            "runs": found[name],
        }
    for name in sides.keys() - {PEER, FLOOR}:
        sides[name]["ratio"] = dataclasses.asdict(measuring.ratio(sides[name]["rates"], sides[PEER]["rates"]))
        if name in work.targets:
            sides[name]["target"] = work.targets[name]
    return {"title": work.title, "unit": work.unit, "timed": work.timed, "sides": sides}


def table(works: dict[str, Any], peer: str = "the peer") -> list[str]:
    """Returns measured works as a Markdown table, a row a side; medians with the lowest and highest run."""
    lines = [f"| work | side | rate | times {peer} | to reach |", "| --- | --- | --- | --- | --- |"]
    for work in works.values():
        for name, side in work["sides"].items():
            rate = measuring.Spread(side["median"], side["low"], side["high"]).text()
            who = f"**{side['title']}**" if name == OURS else side["title"]
            reached, target = "", ""
            if "ratio" in side:
                reached = measuring.Spread(**side["ratio"]).text(".2f")
            if "target" in side:
                target = f"{side['target']:g}" + ("" if side["ratio"]["median"] >= side["target"] else " (missed)")
            first = f"{work['title']}; {work['timed']}" if name == OURS else ""
            lines.append(f"| {first} | {who} | {rate} {work['unit']} | {reached} | {target} |")
    return lines
